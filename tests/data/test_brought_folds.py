"""A user's file of folds: every name of folds that people use, and everything that does not fit the training file."""

import pytest

from foldblend.data.brought_folds import read_brought_folds
from foldblend.data.reading import FileForm
from foldblend.errors import UserError

IDS = ["r0", "r1", "r2", "r3"]


def read(tmp_path, lines, column="kfold", n_folds=2):
    path = tmp_path / "folds.csv"
    path.write_text("\n".join([*lines, ""]))
    return read_brought_folds(path, FileForm(), "id", column, IDS, n_folds)


@pytest.mark.parametrize(
    "cells, names",
    [
        ("0101", "01"),
        ("1212", "12"),
        (["0.0", "1.0", "0.0", "1.0"], "01"),
        ("ABAB", "AB"),
        (["9", "10", "9", "10"], None),
    ],
)
def test_any_names_of_folds_in_any_order_of_rows(tmp_path, cells, names):
    rows = [f"{name},{cell},x" for name, cell in zip(IDS, cells, strict=True)]
    found = read(tmp_path, ["id,kfold,other", *reversed(rows)])
    assert found.fold.tolist() == [0, 1, 0, 1]
    assert found.names == (tuple(names) if names else ("9", "10")) and found.group is None and found.n_others == 0


def test_more_rows_than_the_training_file_and_a_group_column(tmp_path):
    found = read(tmp_path, ["id,kfold,group", *(f"r{row},{row % 2},g{row % 2}" for row in range(6))])
    assert found.n_others == 2 and found.group == ("g0", "g1", "g0", "g1")


WRONG = {
    "missing id": (["id,kfold", "r0,0", "r1,1", "r2,0"], "1 ids of the training file are not in it, first 'r3'"),
    "id twice": (["id,kfold", "r0,0", "r1,1", "r2,0", "r3,1", "r3,0"], "id 'r3' is there 2 times"),
    "never held out": (["id,kfold", "r0,0", "r1,1", "r2,0", "r3,-1"], "is -1 for 1 training rows"),
    "empty": (["id,kfold", "r0,0", "r1,1", "r2,0", "r3,"], "'kfold' is empty for 1 training rows, first id 'r3'"),
    "other number": (["id,kfold", "r0,0", "r1,1", "r2,2", "r3,1"], "has 3 folds.*n_folds is 2; set n_folds: 3"),
    "one fold": (["id,kfold", "r0,0", "r1,0", "r2,0", "r3,0"], "has the value '0' only; n_folds is 2$"),
    "mistyped column": (
        ["id,k_fold", "r0,0", "r1,1", "r2,0", "r3,1"],
        "column 'kfold' is missing; did you mean 'k_fold'",
    ),
    "no id column": (["row,kfold", "r0,0"], "column 'id' is missing"),
}


@pytest.mark.parametrize("lines, message", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, lines)


def test_a_missing_file_is_named_with_those_that_are_there(tmp_path):
    (tmp_path / "fold.csv").write_text("id,kfold\n")
    with pytest.raises(UserError, match=r"folds.csv: missing, although folds.file names it; did you mean 'fold.csv'"):
        read_brought_folds(tmp_path / "folds.csv", FileForm(), "id", "kfold", IDS, 2)
