"""Extra rows and a teacher from file to prediction: what is learned, and that no held-out row teaches its own fold."""

import json

import numpy as np
import pytest

from foldblend.commands import blend, train
from foldblend.commands.inputs import prepare_folds
from foldblend.data.tables import load_tables
from foldblend.data.taught import TaughtRows, write_taught
from foldblend.ledger.records import read_record
from foldblend.settings.loading import open_job

LABELS = ("joy", "fear")
N, N_TEST, K = 90, 12, 3
FILLERS = "morning river letter garden window engine copper market winter silver".split()
RUN = (
    "learner: tfidf\ntfidf: {word_ngrams: [1, 1], char_ngrams: [0, 0], min_rows: 1}\n"
    "logistic: {inverse_regularization: 100, balanced: false}\n"
)


def text_of(row, rng, n=9):
    """A word that no other row has, three times, among fillers: only who has seen the word can know the labels."""
    return " ".join(rng.permutation([*[f"key{row}x"] * 3, *rng.choice(FILLERS, n)]))


@pytest.fixture
def riddles(paths):
    """Competition `riddles`: labels that nothing in a text says. Returns labels, bool (N, 2)."""
    rng = np.random.default_rng(0)
    labels = rng.random((N, 2)) < 0.5
    data = paths.data("riddles")
    data.mkdir(parents=True)
    rows = [f"r{k},{text_of(k, rng)},{','.join(map(str, labels[k].astype(int)))}" for k in range(N)]
    (data / "train.csv").write_text("\n".join(["id,text,joy,fear", *rows, ""]))
    test = [f"t{k},{text_of(N + k, rng)}" for k in range(N_TEST)]
    (data / "test.csv").write_text("\n".join(["id,text", *test, ""]))
    (data / "sample_submission.csv").write_text("\n".join(["id,joy,fear", *(f"t{k},0,0" for k in range(N_TEST)), ""]))
    (paths.configs / "competitions" / "riddles.yaml").write_text(f"id_column: id\nn_folds: {K}\n")
    return labels


def run_yaml(paths, text="", name="words"):
    (paths.configs / "runs" / f"{name}.yaml").write_text(RUN + text)


def train_all(name="words", *more):
    train.main(["--competition", "riddles", "--run", name, *more])


def folds_of(paths):
    """The folds, drawn now if they are not there, and the tables."""
    job = open_job("make_folds.py", ["--competition", "riddles"], lambda parser: None)
    tables = load_tables(job.competition, paths.data("riddles"))
    return prepare_folds(job, tables), tables


def accuracy(paths, labels, name="words"):
    """Share of right answers on held-out rows, by fold."""
    found = []
    for fold in range(K):
        with np.load(paths.oof("riddles") / name / f"fold{fold}.npz") as file:
            found.append(float(((file["oof"] > 0) == labels[file["rows"]]).mean()))
    return found


def write_extra(paths, rows, header="text,joy,fear", name="extra.csv"):
    (paths.data("riddles") / name).write_text("\n".join([header, *rows, ""]))


def test_copies_of_held_out_rows_do_not_teach_their_fold(paths, riddles, capsys):
    """Each training row is there again, word by word, with other case or with a small change, and its own labels."""
    _, tables = folds_of(paths)
    changes = (str, str.upper, lambda text: f"{text}!", lambda text: f"{text} so")
    rows = [
        f"{changes[k % 4](text)},{','.join(map(str, riddles[k].astype(int)))}"
        for k, text in enumerate(tables.train_texts)
    ]
    write_extra(paths, rows)
    run_yaml(paths)
    run_yaml(paths, "extra_rows: [{file: extra.csv}]", "more")
    train_all()
    train_all("more")
    assert max(accuracy(paths, riddles, "more")) < 0.7  # guessing; with the copies all would be right
    shown = capsys.readouterr().out
    assert "extra.csv: 90 extra rows" in shown
    assert "not learned, as held-out rows say the same: fold 0: 30, fold 1: 30, fold 2: 30" in shown
    record = read_record(paths.oof("riddles") / "more" / "fold1.json")["extra_rows"][0]
    assert (record["rows"], record["learned"], record["left_out_as_held_out"]) == (90, 60, 30)


def test_copies_would_raise_the_score_without_the_guard(paths, riddles, monkeypatch):
    """What the test above would see if rows were let through: it can fail."""
    _, tables = folds_of(paths)
    write_extra(paths, [f"{t},{','.join(map(str, riddles[k].astype(int)))}" for k, t in enumerate(tables.train_texts)])
    run_yaml(paths, "extra_rows: [{file: extra.csv}]")
    nothing = lambda own, fold, n_folds, extra, near: np.zeros((len(extra), n_folds), bool)  # noqa: E731
    monkeypatch.setattr("foldblend.commands.sources.more_rows.find_known_folds", nothing)
    train_all()
    assert min(accuracy(paths, riddles)) > 0.9


def pseudo(paths, labels, truth_in, name="pseudo.npz"):
    """Unlabelled rows with the words of training rows; the sets for which `truth_in(k, fold)` holds say their labels.

    The others say the opposite of them.
    """
    folds, _ = folds_of(paths)
    rng = np.random.default_rng(5)
    texts = [text_of(row, rng, 12) for row in range(N)]
    knows = np.array([[truth_in(k, folds.fold[row]) for row in range(N)] for k in range(K)])
    probs = np.where(knows[..., None], labels, ~labels).astype(np.float32) * 0.9 + 0.05
    ids = [f"u{row}" for row in range(N)]
    weights, path = np.ones((1, N), np.float32), paths.data("riddles") / name
    rows = TaughtRows("unlabelled", ids, texts, LABELS, probs, weights, folds.sha256, {"runs": ["x"]})
    write_taught(path, "riddles", rows)


def test_a_run_takes_the_set_of_its_fold(paths, riddles):
    """Row r of fold f is known to every set but that of fold f: who reads another set would know all answers."""
    pseudo(paths, riddles, lambda k, fold: k != fold)
    run_yaml(paths, "extra_rows: [{file: pseudo.npz}]")
    train_all()
    assert max(accuracy(paths, riddles)) < 0.3  # its own set says the opposite of what held-out rows are
    pseudo(paths, riddles, lambda k, fold: k == fold)
    train_all("words", "--name", "other", "--fold", "all")
    assert min(accuracy(paths, riddles, "other")) > 0.7  # the set of a fold is read indeed


def test_labels_for_other_folds_are_refused(paths, riddles):
    pseudo(paths, riddles, lambda k, fold: True)
    run_yaml(paths, "extra_rows: [{file: pseudo.npz}]")
    competition = paths.configs / "competitions" / "riddles.yaml"
    competition.write_text(competition.read_text() + "fold_seed: 7\n")
    paths.folds("riddles").unlink()
    paths.folds("riddles").with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="for other folds than those in folds/ now"):
        train_all()


def test_a_written_row_stays_with_its_original(paths, riddles):
    """A paraphrase that shares no piece of text with its original, but its labels and a telling word."""
    folds, tables = folds_of(paths)
    rng = np.random.default_rng(5)
    texts = [text_of(row, rng, 12) for row in range(N)]
    one = np.ones((1, N), np.float32)
    origins = tables.train_ids.tolist()
    rows = TaughtRows("written", [f"w{k}" for k in range(N)], texts, LABELS, riddles[None].astype(np.float32), one)
    write_taught(paths.data("riddles") / "free.npz", "riddles", rows)
    tied = TaughtRows(**{**vars(rows), "origins": origins})
    write_taught(paths.data("riddles") / "tied.npz", "riddles", tied)
    for name in ("free", "tied"):
        run_yaml(paths, f"extra_rows: [{{file: {name}.npz}}]", name)
        train_all(name)
    assert min(accuracy(paths, riddles, "free")) > 0.9 > 0.7 > max(accuracy(paths, riddles, "tied"))


def test_a_changed_file_is_another_run_and_predicting_needs_none(paths, riddles, capsys):
    path = paths.data("riddles") / "extra.csv"
    write_extra(paths, [f"new text {k} about nothing,{k % 2},0" for k in range(8)])
    run_yaml(paths, "extra_rows: [{file: extra.csv, weight: 0.5}]")
    train_all("words", "--fold", "0", "1")
    train_all("words", "--fold", "0")
    assert "already trained: fold 0" in capsys.readouterr().out
    before = path.read_text()
    path.write_text(before.replace("nothing,1", "nothing,0", 1))
    with pytest.raises(
        ValueError, match=r"extra_rows\[0\].sha256 was \w+, is now \w+ \(fold0, fold1\)\n.*--overwrite.*--name"
    ):
        train_all("words", "--fold", "2")
    path.write_text(before)
    train_all("words", "--fold", "2")
    path.unlink()
    blend.main(["--competition", "riddles"])
    settings = read_record(paths.oof("riddles") / "words" / "fold0.json")["settings"]
    assert len(settings["extra_rows"][0]["sha256"]) == 64
    from foldblend.commands import predict

    (paths.root / "new.csv").write_text("id,text\na,key1x key1x key1x\n")
    files = ["--input", str(paths.root / "new.csv"), "--output", str(paths.root / "out.csv")]
    predict.main(["--competition", "riddles", *files])
    with pytest.raises(ValueError, match=r"extra.csv: missing"):
        train_all("words", "--fold", "0")


def test_records_of_runs_without_extra_rows_are_as_before(paths, riddles):
    run_yaml(paths)
    train_all("words", "--fold", "0")
    record = read_record(paths.oof("riddles") / "words" / "fold0.json")
    assert not {"extra_rows", "distillation"} & {*record, *record["settings"]}


def test_rows_of_the_test_file_keep_their_secret(paths, riddles, capsys):
    _, tables = folds_of(paths)
    write_extra(paths, [*(f"{text},1,0" for text in tables.test_texts), "some new text,0,1"])
    run_yaml(paths, "extra_rows: [{file: extra.csv}]")
    train_all("words", "--fold", "0")
    shown = capsys.readouterr().out
    assert "extra.csv: 1 extra rows" in shown and "12 of 13 rows left out: they say the same as test rows" in shown


def test_contradictions_and_sources_are_told(paths, riddles, capsys):
    folds, tables = folds_of(paths)
    row = int(np.flatnonzero(folds.fold == 1)[0])
    wrong = ",".join(map(str, (~riddles[row]).astype(int)))
    rows = [f"{tables.train_texts[row]},{wrong},books,2", "some new text,0,1,web,1", "another new text,0,,web,0"]
    write_extra(paths, rows, "text,joy,fear,origin,trust")
    run_yaml(paths, "extra_rows: [{file: extra.csv, source_column: origin, weight_column: trust}]")
    train_all("words", "--fold", "0")
    shown = capsys.readouterr().out
    assert "rows by 'origin': web 2, books 1" in shown
    assert "1 rows have the text of a training row and other labels, the first 'key" in shown or "the first '" in shown
    record = read_record(paths.oof("riddles") / "words" / "fold0.json")["extra_rows"][0]
    assert (record["rows"], record["learned"], record["left_out_as_held_out"]) == (3, 2, 0)  # one weighs nothing


def teacher(paths, labels, sure, kind="train", n_sets=K):
    """Probabilities of the training rows that are `sure` of the opposite of the labels."""
    folds, tables = folds_of(paths)
    probs = np.repeat(np.where(labels, 1 - sure, sure)[None], n_sets, axis=0).astype(np.float32)
    ones, sha = np.ones((1, N), np.float32), folds.sha256 if n_sets > 1 else ""
    rows = TaughtRows(kind, tables.train_ids.tolist(), tables.train_texts, LABELS, probs, ones, sha)
    write_taught(paths.data("riddles") / "teacher.npz", "riddles", rows)


def test_distillation_mixes_labels_and_the_teacher(paths, riddles):
    """The key words of training rows are learned as the mix says, seen on rows of the test file that have them."""
    teacher(paths, riddles, 0.9)
    (paths.data("riddles") / "test.csv").write_text(
        "\n".join(["id,text", *(f"t{k},key{k}x key{k}x key{k}x" for k in range(N_TEST)), ""])
    )
    answers = {}
    for mix in (0.0, 0.5, 1.0):
        name = f"mix{int(2 * mix)}"
        run_yaml(paths, f"distillation: {{file: teacher.npz, mix: {mix}}}" if mix else "", name)
        train_all(name)
        folds, _ = folds_of(paths)
        with np.load(paths.oof("riddles") / name / "fold0.npz") as file:
            known = folds.fold[:N_TEST] != 0
            said = 1 / (1 + np.exp(-file["test"][known]))
        answers[mix] = np.where(riddles[:N_TEST][known], said, 1 - said).mean()  # how much the labels are believed
    assert answers[0.0] > 0.8 > answers[0.5] > 0.45 > 0.3 > answers[1.0]


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("extra_rows: [{file: train.csv}]", "train.csv is the competition's training file"),
        ("extra_rows: [{file: truth.csv}]", "truth.csv holds the answers of test rows, which no training may read"),
        ("extra_rows: [{file: extra.cvs}]", r"extra.cvs: missing; did you mean 'extra.csv'"),
        ("extra_rows: [{competition: riddles}]", "competition riddles is this one"),
        ("extra_rows: [{competition: nothing}]", "configs/competitions/nothing.yaml is missing"),
        ("extra_rows: [{file: extra.csv, labels: {joy: happiness}}]", "there is no label 'happiness' here"),
        ("extra_rows: [{file: extra.csv, labels: {joyy: joy}}]", "no column is a label; did you mean 'joy'"),
        ("extra_rows: [{file: extra.csv, layout: {text: {columns: [body]}}}]", "column 'body' is missing"),
        ("extra_rows: [{file: extra.csv, layout: {text: {column: [body]}}}]", "text.column.*did you mean"),
        ("extra_rows: [{file: extra.csv, weight_column: trust}]", "column 'trust' is missing"),
        ("extra_rows: [{file: teacher.npz}]", r"training rows themselves.*Set distillation: {file: teacher.npz}"),
        (
            "distillation: {file: pseudo.npz}",
            r"labels of unlabelled rows.*extra_rows: \[{file: pseudo.npz}\]",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(paths, riddles, yaml, message):
    write_extra(paths, ["some text,1,0"])
    teacher(paths, riddles, 0.9)
    pseudo(paths, riddles, lambda k, fold: True)
    run_yaml(paths, yaml)
    with pytest.raises(ValueError, match=message):
        train_all()


def test_json_lines_in_another_layout(paths, riddles, capsys):
    rows = [{"body": f"one more text {k}", "moods": ["glee", "dread"] if k % 2 else ["rage"]} for k in range(6)]
    (paths.data("riddles") / "extra.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    layout = "{text: {columns: [body]}, labels: {form: delimited, column: moods}}"
    run_yaml(paths, f"extra_rows: [{{file: extra.jsonl, layout: {layout}, labels: {{glee: joy, rage: fear}}}}]")
    train_all("words", "--fold", "0")
    assert "labels that mean none of ours, and are not read: 'dread'" in capsys.readouterr().out


def test_another_competition_with_other_labels(paths, riddles):
    data = paths.data("others")
    data.mkdir()
    rows = [f"{k},strange words here {k},{k % 2},{k % 3 % 2},{k % 5 % 2}" for k in range(30)]
    (data / "train.csv").write_text("\n".join(["n,text,glee,mirth,awe", *rows, ""]))
    (data / "test.csv").write_text("n,text\n100,any\n")
    (data / "sample_submission.csv").write_text("n,glee,mirth,awe\n100,0,0,0\n")
    (paths.configs / "competitions" / "others.yaml").write_text("id_column: n\n")
    run_yaml(paths, "extra_rows: [{competition: others, labels: {glee: joy, mirth: joy}}]")
    train_all("words", "--fold", "0")
    record = read_record(paths.oof("riddles") / "words" / "fold0.json")["extra_rows"][0]
    assert record["source"] == "competition others" and record["learned"] == 30
    run_yaml(paths, "extra_rows: [{competition: others}]", "unnamed")
    with pytest.raises(ValueError, match="none of its labels has the name of one of ours"):
        train_all("unnamed")
