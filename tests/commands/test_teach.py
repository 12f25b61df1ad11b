"""Labels by our own blend: set k of them is spoken by models and weights that never saw fold k."""

import numpy as np
import pytest
from small_competition import LABELS, N_TEST, write_competition, write_runs

from foldblend.commands import blend, guard, teach, train
from foldblend.data.tables import load_tables
from foldblend.data.taught import read_taught
from foldblend.ledger.folds import load_folds
from foldblend.ledger.oof import write_fold
from foldblend.predictions import FULL, FoldPredictions
from foldblend.scoring.inputs import logit, sigmoid
from foldblend.settings.loading import load_competition


@pytest.fixture
def blended(paths):
    """Two runs in the ledger and a blend of them that is fitted, a regression per label."""
    write_runs(paths, write_competition(paths))
    blend.main(["--competition", "small", "--strategy", "label_weights"])
    return next(paths.submissions("small").glob("*.json"))


def teach_small(*more, name="small"):
    teach.main(["--competition", name, "--from-blend", *map(str, more)])


def refused(capsys, *more, name="small"):
    assert guard(lambda: teach_small(*more, name=name)) == 2
    return " ".join(capsys.readouterr().err.split())


def read(paths, stem, name="small"):
    competition = load_competition(paths, name)
    tables = load_tables(competition, paths.data(name))
    folds = load_folds(paths, name, tables, competition)
    return read_taught(paths.data(name) / f"{stem}.npz", name, tables.label_names, folds.sha256, folds.n_folds), folds


def stored(paths, run, fold):
    with np.load(paths.oof("small") / run / f"fold{fold}.npz", allow_pickle=False) as file:
        return file["test"]


def test_test_rows_get_a_set_of_labels_per_fold(paths, blended, capsys):
    teach_small("--strategy", "mean_probs", "--name", "pseudo")
    shown = capsys.readouterr().out
    rows, _ = read(paths, "pseudo")
    assert rows.kind == "test" and rows.ids == [f"t{row}" for row in range(N_TEST)] and rows.texts[3] == "new 3"
    for fold in range(5):
        mean = (sigmoid(stored(paths, "run0", fold)) + sigmoid(stored(paths, "run1", fold))) / 2
        for label in range(3):  # calibrated, so a straight line on the scale of log-odds
            slope, shift = np.polyfit(logit(mean[:, label]), logit(rows.probs[fold, :, label]), 1)
            line = sigmoid(slope * logit(mean[:, label]) + shift)
            np.testing.assert_allclose(rows.probs[fold, :, label], line, atol=1e-4)
    assert rows.made_by["blend"] == blended.name and rows.made_by["strategies"] == ["mean_probs"] * 5
    assert "data/small/pseudo.npz" in shown and max(map(len, shown.splitlines())) <= 80
    before = (paths.data("small") / "pseudo.npz").read_bytes()
    teach_small("--strategy", "mean_probs", "--name", "pseudo")
    assert (paths.data("small") / "pseudo.npz").read_bytes() == before
    assert not (paths.data("small") / ".old").exists() or not list((paths.data("small") / ".old").iterdir())


def test_a_model_of_all_rows_does_not_speak(paths, blended):
    """`--fold full` adds a model that saw every fold; here it says yes to everything."""
    teach_small("--name", "before")
    competition = load_competition(paths, "small")
    tables = load_tables(competition, paths.data("small"))
    folds = load_folds(paths, "small", tables, competition)
    certain = np.full((N_TEST, 3), 9, np.float32)
    for run in ("run0", "run1"):
        entry = FoldPredictions(FULL, np.zeros(0, np.int64), np.zeros((0, 3), np.float32), certain, "logits")
        write_fold(paths, "small", run, folds, tables, entry, {"settings": {}})
    blend.main(["--competition", "small", "--strategy", "label_weights"])
    teach_small("--name", "after")
    before, after = (read(paths, name)[0].probs for name in ("before", "after"))
    np.testing.assert_array_equal(before, after)


def test_the_weights_of_a_set_are_fitted_without_its_fold(paths, blended):
    """Other labels in fold 2 change every set but that of fold 2; the runs' predictions stay."""
    teach_small("--name", "first")
    train_csv = paths.data("small") / "train.csv"
    hidden = write_other_labels(paths, train_csv, fold=2)
    for folder in ("folds", "oof", "submissions"):
        remove_all(paths.root / folder)
    write_runs(paths, hidden)
    blend.main(["--competition", "small", "--strategy", "label_weights"])
    teach_small("--name", "second")
    first, second = (read(paths, name)[0].probs for name in ("first", "second"))
    np.testing.assert_array_equal(first[2], second[2])
    for fold in (0, 1, 3, 4):
        assert np.abs(first[fold] - second[fold]).max() > 1e-4


def write_other_labels(paths, path, fold):
    """Flip all labels of a fold in the training file; returns the hidden log-odds as `write_competition` drew them."""
    header, *lines = path.read_text().splitlines()
    flip = {"0": "1", "1": "0"}
    rows = [line.split(",") for line in lines]
    rows = [
        [*row[:2], *(flip[cell] for cell in row[2:])] if number % 5 == fold else row for number, row in enumerate(rows)
    ]
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return 2 * np.random.default_rng(0).normal(size=(len(rows) + N_TEST, 3)) - [0.0, 0.8, 1.5]


def remove_all(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_only_the_most_certain_labels_are_kept(paths, blended, capsys):
    teach_small("--name", "all")
    teach_small("--name", "sure", "--keep", "0.25")
    whole, sure = (read(paths, name)[0].probs for name in ("all", "sure"))
    known = ~np.isnan(sure)
    assert 0.2 < known.mean() < 0.35
    np.testing.assert_array_equal(sure[known], whole[known])
    for label in range(len(LABELS)):  # both ends of each label
        column, kept = whole[0, :, label], known[0, :, label]
        assert kept[column.argmax()] and kept[column.argmin()]
        assert abs(np.median(column[~kept]) - 0.5) < abs(np.median(np.abs(column[kept] - 0.5)) + 0.5)
    assert "--keep is 0" in refused(capsys, "--keep", "0")


def test_what_changed_since_the_blend_is_refused(paths, blended, capsys):
    record = paths.oof("small") / "run0" / "fold1.json"
    record.write_text(record.read_text().replace('"fold": 1', '"fold":  1'))
    assert "1 of its inputs changed" in refused(capsys)
    assert "no such run" in refused_without_run(paths, capsys)


def refused_without_run(paths, capsys):
    remove_all(paths.oof("small") / "run1")
    (paths.oof("small") / "run1").rmdir()
    return refused(capsys)


def test_a_run_that_may_know_the_heldout_rows_does_not_teach(paths, capsys):
    hidden = write_competition(paths)
    write_runs(paths, hidden, record=lambda number: {"selected_on_heldout": number == 1})
    folder = paths.oof("small") / "elsewhere"
    folder.mkdir()
    for file, ids in (("oof.csv", [f"r{row}" for row in range(120)]), ("test.csv", [f"t{row}" for row in range(40)])):
        probs = sigmoid(hidden[: len(ids)])
        lines = [f"{name},{','.join(f'{p:.6f}' for p in row)}" for name, row in zip(ids, probs)]
        (folder / file).write_text("\n".join(["id," + ",".join(LABELS), *lines]) + "\n")
    blend.main(["--competition", "small", "--strategy", "mean_probs"])
    said = refused(capsys)
    assert "elsewhere" in said and "run1" in said and "--runs run0" in said


# ---------- A row that only the models of other folds know


def test_a_planted_row_is_known_to_the_sets_of_other_folds_only(paths, toy_competition):
    """A nonsense word means anger in one group of training rows; the test file has the same text."""
    data = paths.data("toy")
    plant = "zyxwv zyxwv zyxwv"
    with open(data / "train.csv", "a") as out:
        out.writelines(f"p{number},{plant},0,0,1\n" for number in range(4))  # one group, so one fold
    with open(data / "test.csv", "a") as out:
        out.write(f"q0,{plant},NONE,NONE,NONE\n")
    with open(data / "sample_submission.csv", "a") as out:
        out.write("q0,0,0,0\n")
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    train.main(["--competition", "toy", "--run", "words", "--fold", "all"])
    blend.main(["--competition", "toy", "--strategy", "words"])
    teach_small("--name", "planted", name="toy")
    taught, folds = read(paths, "planted", "toy")
    fold = int(folds.fold[-1])
    anger = taught.probs[:, -1, 2]
    assert anger[fold] < np.delete(anger, fold).min() - 0.1, anger
    # training rows: those that a fold holds out are not even predicted for it, and the others by its own model alone
    teach_small("--rows", "train", "--name", "soft", name="toy")
    soft, _ = read(paths, "soft", "toy")
    held = folds.fold[None] == np.arange(folds.n_folds)[:, None]
    assert np.isnan(soft.probs[held]).all() and not np.isnan(soft.probs[~held]).any() and soft.kind == "train"
    (paths.data("toy") / "more.csv").write_text(f"id,text\nn1,{plant}\nn2,today\n")
    teach_small("--rows", "more.csv", "--name", "more", name="toy")
    more, _ = read(paths, "more", "toy")
    assert (more.kind, more.ids) == ("unlabelled", ["n1", "n2"])
    np.testing.assert_allclose(more.probs[:, 0], taught.probs[:, -1], atol=1e-6)
