"""A made-up competition in the form of a public one, taken from its YAML to a checked CSV in this process."""

import csv
import io

import numpy as np
import yaml

from foldblend.commands import blend, guard, make_folds, predict, runs, train
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.submission.answers import lint_submission_file, read_submission

FILLERS = "the a is was we they today street market river paper stone window".split()


def made_text(rng, said):
    """A text whose words say `said`, each twice, among fillers."""
    return " ".join(rng.permutation([*said, *said, *rng.choice(FILLERS, 9)]))


def write_table(path, rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue())


def write_made(paths, settings, train_rows, test_rows, sample_rows, name="made"):
    """Settings as a YAML, and the three tables with their headers."""
    (paths.configs / "competitions" / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\ntfidf: {char_ngrams: [0, 0], min_rows: 1}\n")
    for which, rows in (("train", train_rows), ("test", test_rows), ("sample_submission", sample_rows)):
        write_table(paths.data(name) / f"{which}.csv", rows)


def to_submission(paths, capsys, name="made", again=True):
    """Folds, tfidf and a blend of it: (answers of the checked CSV, the CSV's rows, what was printed).

    Predicting the test file gives the same CSV once more, unless `again` is False.
    """
    flags = ["--competition", name]
    steps = [
        lambda: make_folds.main(flags),
        lambda: train.main([*flags, "--run", "words", "--fold", "all"]),
        lambda: blend.main(flags),
    ]
    printed = ""
    for step in steps:
        status = guard(step)
        out, err = capsys.readouterr()
        assert status == 0, out + err
        printed += out
    assert guard(lambda: runs.main(flags)) == 0, capsys.readouterr()  # whatever the task, its runs can be compared
    capsys.readouterr()
    (path,) = paths.submissions(name).glob("*.csv")
    competition = load_competition(paths, name)
    tables = load_tables(competition, paths.data(name))
    lint_submission_file(path, competition, tables)
    if again:
        same = paths.root / "again.csv"
        test = str(paths.data(name) / competition.files.test)
        assert guard(lambda: predict.main([*flags, "--input", test, "--answer", str(same)])) == 0, capsys.readouterr()
        assert same.read_bytes() == path.read_bytes()
    rows = list(csv.reader(io.StringIO(path.read_text())))
    return read_submission(path, competition, tables), rows, printed


def f1(answers, truth):
    """Mean of the labels' F1 of two bool tables."""
    hits = (answers & truth).sum(0)
    return float(np.mean(2 * hits / np.maximum(answers.sum(0) + truth.sum(0), 1)))
