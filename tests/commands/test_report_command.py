"""report.py in this process: the page before training, in the terminal, and for every kind of task."""

import json
import re

import numpy as np
import pytest
import small_competition as small
from made_competition import write_made

from foldblend.commands import report, train
from foldblend.data.tables import load_tables
from foldblend.errors import UserError
from foldblend.ledger.folds import write_folds
from foldblend.ledger.oof import write_fold
from foldblend.predictions import FoldPredictions
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths


def numbers_of(page):
    return json.loads(re.search(r'id="numbers">(.*?)</script>', page, re.DOTALL)[1])


def read_page(paths: Paths, name="small"):
    return (paths.submissions(name) / "report.html").read_text(encoding="utf-8")


def test_the_data_before_folds_and_training(paths, capsys):
    small.write_competition(paths)
    report.main(["--competition", "small", "--data"])
    assert capsys.readouterr().out.endswith("submissions/small/report.html: open it in a browser\n")
    page = read_page(paths)
    assert "The folds are not drawn yet" in page and "120 training rows" in page
    assert numbers_of(page)["label_shares"]["series"][0]["x"]


def test_text_prints_the_essentials_and_writes_nothing(paths, capsys):
    small.write_runs(paths, small.write_competition(paths), noise=())
    report.main(["--competition", "small", "--data", "--text"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "LABELS OF THE TRAINING ROWS" in printed and "fold 4" in printed
    assert not (paths.submissions("small") / "report.html").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dta"], "--data"),
        (["--output", "x.txt"], "ends in .html"),
        (["--run", "minilmm"], "minilm"),
    ],
)
def test_wrong_flags_are_named(paths, flags, message):
    small.write_competition(paths)
    with pytest.raises(UserError, match=message):
        report.main(["--competition", "small", "--data", *flags])


@pytest.mark.parametrize(
    "metric, form, task",
    [
        ("macro_f1", "columns", "multilabel"),
        ("macro_auc", "probabilities", "multilabel"),
        ("log_loss", "probabilities", "multiclass"),
        ("quadratic_weighted_kappa", "columns", "ordinal"),
    ],
)
def test_every_task_has_its_page(paths, capsys, metric, form, task):
    """Three runs, of which one has a single fold."""
    small.write_runs(paths, small.write_competition(paths, metric, form, task), (0.5, 1.5, 2.0), n_trained=[5, 5, 1])
    report.main(["--competition", "small"])
    page = read_page(paths)
    numbers = numbers_of(page)
    assert {"curves", "worst", "alike", "shift", "adds"} <= numbers.keys()
    assert numbers["curves"]["data"]["runs"][-1] == "run2" and numbers["worst"]["data"]["rows"]
    takes_probs = metric in ("macro_auc", "log_loss")
    assert ("Half of the thresholds" in page) == (task == "multilabel" and not takes_probs)
    assert ("takes probabilities" in page) == takes_probs
    assert "run2 (1 of 5)" in page
    ids = re.findall(r'id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_a_regression_has_no_labels(paths):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100) * 3 + 1
    settings = {"id_column": "id", "task": "regression", "metric": "rmse", "labels": {"names": ["grade"]}}
    train = [["id", "text", "grade"], *([f"r{k}", f"text {k}", f"{value:.3f}"] for k, value in enumerate(truth))]
    test = [["id", "text"], *([f"t{k}", f"new {k}"] for k in range(40))]
    write_made(paths, settings, train, test, [["id", "grade"], *([f"t{k}", "0"] for k in range(40))])
    competition = load_competition(paths, "made")
    tables = load_tables(competition, paths.data("made"))
    folds = write_folds(paths, "made", competition, tables, np.arange(100) % 5, np.arange(100))
    for fold in range(5):
        rows = np.flatnonzero(folds.fold == fold)
        said = np.clip(tables.soft + 0.1 * rng.normal(size=(100, 1)), 0, 1).astype(np.float32)
        entry = FoldPredictions(fold, rows, said[rows], said[:40], "probs")
        write_fold(paths, "made", "one", folds, tables, entry, {"settings": {}})
    report.main(["--competition", "made"])
    page = read_page(paths, "made")
    assert "A regression: there are no labels" in page and "do not apply" in page
    assert numbers_of(page)["column0"]["series"][0]["x"]


def test_without_runs_it_says_how_to_train(paths):
    small.write_competition(paths)
    report.main(["--competition", "small"])
    assert "No run is trained yet. Run: accelerate launch src/train.py" in read_page(paths)


def test_slices_terms_and_pngs(paths, capsys):
    small.write_runs(paths, small.write_competition(paths))
    train = paths.data("small") / "train.csv"
    lines = train.read_text().splitlines()
    train.write_text("\n".join([f"{lines[0]},source", *(f"{line},{'ab'[k % 2]}" for k, line in enumerate(lines[1:]))]))
    flags = ["--slices", "source", "--terms", "ones=" + ",".join(map(str, range(30))), "--errors_of", "run1", "--png"]
    report.main(["--competition", "small", *flags])
    page = read_page(paths)
    assert "Errors of run1" in page and ">source<" in page and ">ones<" in page
    pngs = list((paths.submissions("small") / "report").glob("*.png"))
    assert len(pngs) >= 5 and all(path.read_bytes().startswith(b"\x89PNG") for path in pngs)
    for wrong, said in (
        (["--slices", "sorce"], "did you mean 'source'"),
        (["--terms", "ones"], "expected NAME=WORD,WORD"),
        (["--errors_of", "run9"], "run1"),
    ):
        with pytest.raises(UserError, match=said):
            report.main(["--competition", "small", *wrong])


def test_output_names_the_page(paths, tmp_path):
    small.write_competition(paths)
    report.main(["--competition", "small", "--data", "--output", str(tmp_path / "mine.html")])
    assert "<title>small: data</title>" in (tmp_path / "mine.html").read_text()


@pytest.mark.usefixtures("fresh_accelerate")
def test_words_that_spoke_for_a_label_are_on_the_page(paths, toy_competition, capsys):
    """Chosen rows and the worst, by each row's own fold; hostile text is text."""
    data = paths.data("toy") / "train.csv"
    lines = data.read_text().splitlines()
    lines[1] = lines[1].replace(lines[1].split(",")[1], "happy <b>mad</b> day")
    data.write_text("\n".join([*lines, ""]))
    train.main(["--competition", "toy", "--run", "tiny", "--fold", "all", "--training.epochs", "2"])
    train.main(["--competition", "toy", "--run", "tfidf", "--fold", "all"])
    report.main(["--competition", "toy", "--errors_of", "tiny", "--attributions", "r0", "r5"])
    page = read_page(paths, "toy")
    shown = page[page.index('id="attributions"') :]
    assert "r0, " in shown and "r5, " in shown and 'class="for5"' in shown and 'class="against' in shown
    assert "<b>" not in shown and "happy" in shown
    report.main(["--competition", "toy", "--errors_of", "tiny", "--attributions", "worst"])
    articles = re.findall(r'<article><p class="meta">(r[0-9]+),', read_page(paths, "toy"))
    assert len(set(articles)) == 12
    for flags, message in (
        (["--errors_of", "tiny", "--attributions", "r0", "r5x"], "no training row with the id 'r5x'"),
        (["--errors_of", "tfidf", "--attributions", "worst"], "tfidf is not a run of an encoder"),
    ):
        with pytest.raises(UserError, match=message):
            report.main(["--competition", "toy", *flags])
    path = paths.checkpoints("toy", "tiny") / "fold0" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(UserError, match="does not hold the weights that the fold was trained to"):
        report.main(["--competition", "toy", "--errors_of", "tiny", "--attributions", "worst"])
