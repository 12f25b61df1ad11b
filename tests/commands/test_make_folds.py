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
    assert "folds/tiny.csv: drawn again; what was there before is now in folds/.old/" in capsys.readouterr().out
    (kept,) = tiny.parent.glob(".old/*/tiny.csv")
    assert kept.read_bytes() == before and kept.with_suffix(".json").exists()


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
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: trained on other folds, and refused from now on: oof/tiny/ mine (1). Train" in shown


def test_the_same_draw_in_another_process(tiny, paths):
    run()
    first = tiny.read_bytes(), tiny.with_suffix(".json").read_bytes()
    tiny.unlink()
    command = [sys.executable, PROJECT / "src" / "make_folds.py", "--competition", "tiny"]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert (tiny.read_bytes(), tiny.with_suffix(".json").read_bytes()) == first


def test_an_error_is_one_message_and_status_2(tiny, capsys):
    assert guard(lambda: run("--n_folds", "4000")) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    assert not tiny.exists()


# ---------- folds and groups of others


def bring(paths, rows, settings, name="folds.csv"):
    write(paths.data("tiny") / name, rows)
    (paths.configs / "competitions" / "tiny.yaml").write_text(f"id_column: id\n{settings}")


def ids_of(paths):
    return [row["id"] for row in read(paths.data("tiny") / "train.csv")]


def test_folds_of_others_are_read_checked_and_kept(tiny, paths, capsys):
    ids = ids_of(paths)
    rows = [[name, row % 3] for row, name in enumerate(ids)]
    bring(paths, [["id", "kfold"], *reversed(rows)], "n_folds: 3\nfolds: {file: folds.csv, column: kfold}\n")
    run()
    shown = " ".join(capsys.readouterr().out.split())
    assert "folds.csv: folds 0, 1, 2 of column 'kfold'" in shown and "folds/tiny.csv: read from folds.csv" in shown
    assert "2 rows say the same as rows of other folds" in shown  # rows 12 and 20
    assert [int(row["fold"]) for row in read(tiny)] == [row % 3 for row in range(60)]
    before = tiny.read_bytes()
    run()
    assert "kept; they were read from folds.csv" in capsys.readouterr().out
    run("--overwrite")  # the printed fix reads the same file again, and draws none
    assert tiny.read_bytes() == before
    rows[0][1] = 2
    bring(paths, [["id", "kfold"], *rows], "n_folds: 3\nfolds: {file: folds.csv, column: kfold}\n")
    with pytest.raises(
        ValueError, match="folds.csv, column 'kfold', is not what they were read from.*take the folds of"
    ):
        run()
    run("--overwrite")
    assert read(tiny)[0]["fold"] == "2"


def test_drawn_folds_are_not_taken_for_those_that_were_asked_for(tiny, paths):
    run("--n_folds", "3")
    rows = [["id", "fold"], *([name, row % 3] for row, name in enumerate(ids_of(paths)))]
    bring(paths, rows, "n_folds: 3\nfolds: {file: folds.csv}\n")
    with pytest.raises(ValueError, match="not those of folds.file folds.csv, which you asked for"):
        run()
    run("--overwrite")
    (paths.configs / "competitions" / "tiny.yaml").write_text("id_column: id\nn_folds: 3\n")
    with pytest.raises(ValueError, match="read from folds.csv, which folds.file no longer names"):
        run()


def test_a_file_put_into_folds_by_hand_is_adopted_if_it_fits(tiny, paths, capsys):
    tiny.parent.mkdir(exist_ok=True)
    write(tiny, [["id", "fold"], *([name, row % 5] for row, name in enumerate(ids_of(paths)))])
    own = tiny.read_bytes()
    run()
    shown = " ".join(capsys.readouterr().out.split())
    assert "folds/tiny.csv: put there by hand, checked and kept" in shown
    assert [int(row["fold"]) for row in read(tiny)] == [row % 5 for row in range(60)]
    assert own in [path.read_bytes() for path in tiny.parent.glob(".old/*/tiny.csv")]
    run("--fold_seed", "9")  # no seed made them
    with pytest.raises(ValueError, match="n_folds 5, you asked for 3"):
        run("--n_folds", "3")


def test_a_lost_record_is_written_again_for_the_same_folds(tiny, paths):
    run()
    before = tiny.read_bytes()
    tiny.with_suffix(".json").unlink()
    run()
    assert tiny.read_bytes() == before and not list(tiny.parent.glob(".old/*"))


def test_a_file_by_hand_that_does_not_fit_is_kept_and_both_ways_out_are_said(tiny, paths, capsys):
    tiny.parent.mkdir(exist_ok=True)
    write(tiny, [["id", "fold", "group"], ["r0", 0, 0]])
    own = tiny.read_bytes()
    assert guard(run) == 2
    message = capsys.readouterr().err
    assert "59 ids of the training file are not in it" in message and "put there by hand" in message
    assert "folds: {file: tiny.csv, column: fold}" in message and "keeps this file in folds/.old/" in message
    assert tiny.read_bytes() == own
    run("--overwrite")
    assert [path.read_bytes() for path in tiny.parent.glob(".old/*/tiny.csv")] == [own]


def test_groups_of_the_user_share_a_fold(tiny, paths, capsys):
    train = paths.data("tiny") / "train.csv"
    rows = list(csv.reader(train.read_text().splitlines(keepends=True)))
    grouped = [[*rows[0], "author"], *([*row, f"a{number // 4}"] for number, row in enumerate(rows[1:]))]
    write(train, grouped)
    (paths.configs / "competitions" / "tiny.yaml").write_text("id_column: id\nn_folds: 3\ngroups: author\n")
    run()
    folds = [row["fold"] for row in read(tiny)]
    assert all(len(set(folds[start : start + 4])) == 1 for start in range(0, 60, 4))
    (paths.configs / "competitions" / "tiny.yaml").write_text("id_column: id\nn_folds: 3\n")
    with pytest.raises(ValueError, match=r"drawn with groups author, you asked for \(none\)"):
        run()
    (paths.configs / "competitions" / "tiny.yaml").write_text("id_column: id\nn_folds: 3\ngroups: auther\n")
    assert guard(run) == 2 and "column 'auther' is missing; did you mean 'author'" in capsys.readouterr().err


def test_words_of_a_template_are_no_text_of_a_row(tiny, paths, capsys):
    """Many words that every row shares give the same groups as none."""
    run("--n_folds", "3")
    alone = [row["group"] for row in read(tiny)]
    words = "You are an expert annotator of emotions, read this post and say which emotions its author has."
    (paths.configs / "competitions" / "tiny.yaml").write_text(
        f'id_column: id\nn_folds: 3\ntext: {{columns: [text], template: "{words} Post: {{text}}"}}\n'
    )
    run("--overwrite")
    assert [row["group"] for row in read(tiny)] == alone
