"""Labels as 0/1 columns, as a delimited cell of names or numbers, as one class; and every cell that is none."""

import re

import numpy as np
import pytest
from tiny_competition import settings

NAMED = {"form": "delimited", "column": "labels", "names": ("joy", "fear")}
NUMBERED = {**NAMED, "values": "numbers"}
CLASS = {"form": "class", "column": "kind", "names": ("joy", "fear")}


def with_cells(files, column, cells):
    """The training file with one label column in place of the 0/1 columns."""
    files.train = [["id", "text", column]] + [[f"r{k}", f"text {k}", cell] for k, cell in enumerate(cells)]


@pytest.mark.parametrize(
    "labels, cells, expected",
    [
        (NAMED, ["joy", "fear,joy", "", "joy, fear"], [[1, 0], [1, 1], [0, 0], [1, 1]]),
        ({**NAMED, "delimiter": "|"}, ["joy", "fear|joy", "fear", ""], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        (NUMBERED, ["0", "1,0", "1", ""], [[1, 0], [1, 1], [0, 1], [0, 0]]),
    ],
)
def test_delimited_labels(files, labels, cells, expected):
    with_cells(files, "labels", cells)
    tables = files.load(settings(labels=labels))
    assert tables.labels.tolist() == np.array(expected, bool).tolist()


@pytest.mark.parametrize("values, words", [("names", ("joy", "fear")), ("numbers", ("0", "1"))])
def test_one_class_a_row(files, values, words):
    with_cells(files, "kind", [words[k % 2] for k in range(6)])
    tables = files.load(settings(task="multiclass", labels={**CLASS, "values": values}))
    assert tables.labels.tolist() == [[k % 2 == 0, k % 2 == 1] for k in range(6)]


@pytest.mark.parametrize(
    "labels, cells, message",
    [
        (NAMED, ["joy", "joi", "fear"], r"row 2 (line 3): unknown label 'joi'; did you mean 'joy'?"),
        (NAMED, ["joy", "0", "fear"], r"row 2 (line 3): unknown label '0'; expected one of 'joy', 'fear'"),
        (NAMED, ["joy", "joy,joy", "fear"], r"row 2 (line 3): 'joy' appears twice in 'joy,joy'"),
        (NAMED, ["joy", "joy,,fear", "fear"], r"row 2 (line 3): an empty label in 'joy,,fear'"),
        (NUMBERED, ["0", "2", "1"], r"row 2 (line 3): unknown label '2'; expected 0 to 1"),
        (NUMBERED, ["0", "-1", "1"], r"unknown label '-1'"),
        (NUMBERED, ["0", "1.0", "1"], r"unknown label '1.0'"),
    ],
)
def test_a_bad_delimited_cell(files, labels, cells, message):
    with_cells(files, "labels", cells)
    with pytest.raises(ValueError, match=re.escape(message)):
        files.load(settings(labels=labels))


@pytest.mark.parametrize(
    "cells, message",
    [
        (["joy", "", "fear"], "row 2 (line 3): 'kind' is empty; expected one class"),
        (["joy", "fury", "fear"], "row 2 (line 3): unknown label 'fury'"),
        (["joy", "joy,fear", "fear"], "row 2 (line 3): unknown label 'joy,fear'"),
    ],
)
def test_a_bad_class_cell(files, cells, message):
    with_cells(files, "kind", cells)
    with pytest.raises(ValueError, match=re.escape(message)):
        files.load(settings(task="multiclass", labels=CLASS))


def test_a_text_column_taken_for_labels_is_told_at_once(files):
    """100,000 different unknown labels: only the few that are printed may be compared with the known names."""
    with_cells(files, "labels", [" ".join(f"word{k}x{j}" for j in range(20)) for k in range(5_000)])
    with pytest.raises(ValueError, match=r"100000 problems\n(.*\n)*.* and 5000 more rows, unknown label: 1, 2, 3, 4"):
        files.load(settings(labels={**NAMED, "delimiter": " "}))
