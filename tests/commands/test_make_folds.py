"""make_folds.py draws once, keeps, refuses, and draws again only when told."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foldblend.commands import guard, make_folds
from foldblend.data.tables import load_tables
from foldblend.ledger.folds import load_folds
from foldblend.ledger.oof import write_fold
from foldblend.predictions import FoldPredictions
from foldblend.settings.loading import load_competition

PROJECT = Path(__file__).resolve().parents[2]
EMOTIONS = ("joy", "anger")
NASTY = ['comma,"quote"', "line\nbreak", " space ", "0042"]


@pytest.fixture
def tiny(paths):
    """Competition `tiny`: 60 rows with ids that a CSV has to quote, copies, and a text with two answers."""
    data = paths.data("tiny")
    data.mkdir(parents=True)
    ids = NASTY + [f"r{i}" for i in range(56)]
    texts = [f"text number {i * 7919 % 100} of {i}" for i in range(60)]
    texts[12], texts[20] = "The very same!", "the VERY  same"
    rows = [[name, text, int(i % 3 == 0), int(i % 4 == 1)] for i, (name, text) in enumerate(zip(ids, texts))]
    write(data / "train.csv", [["id", "text", *EMOTIONS], *rows])
    write(data / "test.csv", [["id", "text"], ["t1", "one"], ["t2", "two"]])
    write(data / "sample_submission.csv", [["id", *EMOTIONS], ["t1", 0, 0], ["t2", 0, 0]])
    (paths.configs / "competitions" / "tiny.yaml").write_text("id_column: id\n")
    return paths.folds("tiny")


def write(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(*flags):
    return make_folds.main(["--competition", "tiny", *flags])


def test_draws_shows_and_writes(tiny, capsys):
    run()
    shown = capsys.readouterr().out
    assert shown.startswith("competition tiny: 5 folds\nfolds/tiny.csv: drawn\n60 rows in ")
    assert "1 texts (2 rows) appear with different labels" in shown and "'the VERY  same'" in shown
    rows = read(tiny)
    assert [row["id"] for row in rows[:4]] == NASTY
    assert {row["fold"] for row in rows} == set("01234")
    assert rows[12]["group"] == rows[20]["group"] and rows[12]["fold"] == rows[20]["fold"]
    joy = [int(i % 3 == 0) for i in range(60)]
    counts = [sum(has for has, row in zip(joy, rows, strict=True) if row["fold"] == k) for k in "01234"]
    assert next(line.split() for line in shown.splitlines() if line.startswith("joy"))[1:6] == [str(n) for n in counts]


def test_keeps_what_is_there(tiny, capsys):
    run()
    before = (tiny.read_bytes(), tiny.stat().st_mtime_ns)
    first = capsys.readouterr().out
    run()
    second = capsys.readouterr().out
    assert (tiny.read_bytes(), tiny.stat().st_mtime_ns) == before
    assert second.startswith("competition tiny: 5 folds\nfolds/tiny.csv: kept; they were drawn on this training file\n")
    assert second.split("\n", 2)[2] == first.split("\n", 2)[2]


def test_refuses_other_data_and_other_settings_and_overwrites_when_told(tiny, paths, capsys):
    run()
    before = tiny.read_bytes()
    for flags, message in ((["--n_folds", "3"], "n_folds 5, you asked for 3"), (["--fold_seed", "1"], "fold_seed 42")):
        with pytest.raises(ValueError, match=f"{message}.*make_folds.py --competition tiny --overwrite"):
            run(*flags)
    train = paths.data("tiny") / "train.csv"
    train.write_text(train.read_text().replace("text number 0 of 0", "another text"))
    with pytest.raises(ValueError, match="drawn on a different training file: its texts differ"):
        run()
    assert tiny.read_bytes() == before
    run("--n_folds", "3", "--overwrite")
    assert {row["fold"] for row in read(tiny)} == set("012")
    assert "folds/tiny.csv: drawn again" in capsys.readouterr().out


def test_says_which_predictions_are_refused_from_now_on(tiny, paths, capsys):
    run()
    tables = load_tables(load_competition(paths, "tiny"), paths.data("tiny"))
    folds = load_folds(paths, "tiny", tables)
    rows = np.flatnonzero(folds.fold == 0)
    predictions = FoldPredictions(0, rows, np.zeros((len(rows), 2), np.float32), np.zeros((2, 2), np.float32), "logits")
    write_fold(paths, "tiny", "mine", folds, tables, predictions, {"settings": {}})
    run("--overwrite")
    assert "refused from now on" not in capsys.readouterr().out, "the same draw again changes nothing"
    run("--overwrite", "--fold_seed", "7")
    assert "warning: trained on other folds and refused from now on: oof/tiny/ mine. Train" in capsys.readouterr().out


def test_the_same_draw_in_another_process(tiny, paths):
    run()
    first = tiny.read_bytes(), tiny.with_suffix(".json").read_bytes()
    tiny.unlink()
    command = [sys.executable, PROJECT / "src" / "make_folds.py", "--competition", "tiny"]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert (tiny.read_bytes(), tiny.with_suffix(".json").read_bytes()) == first


def test_an_error_is_one_message_and_status_2(tiny, capsys):
    assert guard(lambda: run("--n_folds", "40")) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    assert not tiny.exists()
