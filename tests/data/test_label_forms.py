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
        (NUMBERED, ["0.0", "1.0,0.0", "[1.0]", "[]"], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        ({**NUMBERED, "first_number": 1}, ["1", "2,1", "2", ""], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        (NAMED, ["['joy']", "['fear', 'joy']", '["fear"]', "[]"], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        (NAMED, ["{joy}", "['fear' 'joy']", "('fear',)", "set()"[3:]], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        (NAMED, ["[1, 0]", "[1 1]", "0, 1", "[0.0, 0.0]"], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        (
            NAMED,
            ['{"joy": 1, "fear": 0}', '{"joy": true, "fear": true}', "{'fear': 1}", "{}"],
            [[1, 0], [1, 1], [0, 1], [0, 0]],
        ),
        (NAMED, ["joy,", "fear,joy, ", "fear,,", "  "], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        ({**NAMED, "empty": "none"}, ["joy", "fear,joy", "fear", "none"], [[1, 0], [1, 1], [0, 1], [0, 0]]),
        (
            {**NAMED, "map": {"J": "joy", "neutral": ""}},
            ["J", "fear,J", "fear", "neutral"],
            [[1, 0], [1, 1], [0, 1], [0, 0]],
        ),
        ({**NAMED, "rename": {"happy": "joy"}}, ["happy", "fear,happy", "fear", ""], [[1, 0], [1, 1], [0, 1], [0, 0]]),
    ],
)
def test_delimited_labels(files, labels, cells, expected):
    with_cells(files, "labels", [*cells, *cells])  # twice: a label with one row is not learned
    tables = files.load(settings(labels=labels))
    assert tables.labels.tolist() == np.array([*expected, *expected], bool).tolist()


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
        (NUMBERED, ["0", "1.5", "1"], r"unknown label '1.5'"),
        (NUMBERED, ["1", "2", "1"], r"If they are counted from 1, set labels.first_number: 1"),
        (NUMBERED, ["[0, 1, 0]", "0", "1"], r"set labels.values: multi_hot"),
        (NAMED, ["['joy', 'rage']", "joy", "fear"], r"row 1 (line 2): unknown label 'rage'"),
        (NAMED, ["none", "joy", "fear"], r"if it says that the row has no label, set labels.empty: none"),
        (NAMED, ['{"joy": 2}', "joy", "fear"], """'2' in '{"joy": 2}'; expected 0 or 1"""),
        ({**NAMED, "values": "multi_hot"}, ["[0, 1, 1]", "[1, 0]"], r"3 numbers in '[0, 1, 1]'; expected 2, one per"),
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


ZERO_ONE = {"yes": ["1", "1.0", "True", "TRUE", "yes", "Y", "t"], "no": ["0", "0.0", "False", "false", "No", "n", "F"]}


def with_columns(files, cells):
    """The training file with these cells for joy, and both kinds for fear."""
    files.train = [["id", "text", "joy", "fear"]]
    files.train += [[f"r{k}", f"text {k}", cell, str(k % 2)] for k, cell in enumerate(cells)]


def test_words_for_yes_and_no_in_columns(files):
    with_columns(files, [*ZERO_ONE["yes"], *ZERO_ONE["no"]])
    assert files.load(settings()).labels[:, 0].tolist() == [True] * 7 + [False] * 7


@pytest.mark.parametrize(
    "names, values, cells",
    [
        (("no", "yes"), "names", ["yes", "True", "1", "1.0", "no", "False", "0", "0.0"]),
        (("0", "1"), "names", ["1", "1.0", "True", "yes", "0", "0.0", "False", "no"]),
        (("joy", "fear"), "numbers", ["1", "1.0", "True", "yes", "0", "0.0", "False", "no"]),
        (("joy", "fear"), "names", ["fear", "['fear']", "[fear]", "fear", "joy", "['joy']", "joy", "joy"]),
    ],
)
def test_words_for_yes_and_no_as_classes(files, names, values, cells):
    with_cells(files, "kind", cells)
    labels = {"form": "class", "column": "kind", "names": names, "values": values}
    files.sample = [["id", *names], *([f"t{k}", "0", "1"] for k in range(4))]
    tables = files.load(settings(task="multiclass", labels=labels))
    assert tables.labels.argmax(1).tolist() == [1] * 4 + [0] * 4


def test_several_columns_are_united(files):
    files.train = [["id", "text", "first", "second"]]
    cells = [("joy", ""), ("joy", "fear"), ("", "fear"), ("fear", "fear"), ("", ""), ("joy", "")]
    files.train += [[f"r{k}", f"text {k}", *each] for k, each in enumerate(cells)]
    labels = {"form": "delimited", "columns": ("first", "second"), "names": ("joy", "fear")}
    tables = files.load(settings(labels=labels))
    assert tables.labels.astype(int).tolist() == [[1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [1, 0]]


def test_a_map_of_cells_in_columns(files):
    with_columns(files, ["3", "0", "2", "-1", "", "1", "0"])
    tables = files.load(settings(labels={"map": {"3": "1", "2": "1", "-1.0": "0", "": "0"}}))
    assert tables.labels[:, 0].astype(int).tolist() == [1, 0, 1, 0, 0, 1, 0]


def test_shares_are_learned_and_scored_by_the_stated_share(files):
    with_columns(files, ["0.2", "0.5", "1", "0", "0.75", "0.4"])
    tables = files.load(settings(labels={"positive_from": 0.5}))
    assert tables.labels[:, 0].astype(int).tolist() == [0, 1, 1, 0, 1, 0]
    assert tables.soft[:, 0].tolist() == pytest.approx([0.2, 0.5, 1, 0, 0.75, 0.4])
    with pytest.raises(ValueError, match=r"'joy' is '0.2'; expected 0 or 1[\s\S]*set labels.positive_from: 0.5"):
        files.load(settings())
    with_columns(files, ["0.2", "0.5", "1", "0", "1.5", "0.4"])
    with pytest.raises(ValueError, match="'joy' is '1.5'; expected a share from 0 to 1"):
        files.load(settings(labels={"positive_from": 0.5}))


def test_shares_of_classes_sum_to_one(files):
    files.train = [["id", "text", "joy", "fear"]]
    files.train += [[f"r{k}", f"text {k}", a, b] for k, (a, b) in enumerate([(0.3, 0.7), (0.6, 0.4), (1, 0), (0, 1)])]
    tables = files.load(settings(task="multiclass", labels={"positive_from": 0.5}))
    assert tables.labels.argmax(1).tolist() == [1, 0, 0, 1]
    files.train[1][2:] = [0.3, 0.3]
    with pytest.raises(ValueError, match="row 1 .*shares that sum to 0.6; expected 1"):
        files.load(settings(task="multiclass", labels={"positive_from": 0.5}))


def test_unknown_cells_are_masked(files):
    with_columns(files, ["1", "-1.0", "", "0", "1", "0"])
    tables = files.load(settings(labels={"unknown": ("-1", "")}))
    assert tables.known[:, 0].tolist() == [True, False, False, True, True, True] and tables.known[:, 1].all()
    assert not tables.labels[1:3, 0].any() and "16.7% of the labels are unknown" in tables.label_lines[0]
    with pytest.raises(ValueError, match=r'set labels.unknown: \[-1.0, ""\]; if a no, labels.map'):
        files.load(settings())


def test_rows_of_annotators(files):
    rows = [("a", "x", 1, 0), ("b", "y", 0, 1), ("a", "x", 1, 1), ("a", "x", 0, 0), ("b", "y", 1, 1), ("c", "z", 0, 0),
            ("d", "w", 1, 1)]  # fmt: skip
    files.train = [["id", "text", "joy", "fear"], *rows]
    with pytest.raises(
        ValueError, match="ids must differ. If each row is what one annotator says, set labels.aggregate"
    ):
        files.load(settings())
    tables = files.load(settings(labels={"aggregate": "majority"}))
    assert tables.train_ids.tolist() == ["a", "b", "c", "d"] and tables.train_texts == ["x", "y", "z", "w"]
    assert tables.labels.astype(int).tolist() == [[1, 0], [0, 1], [0, 0], [1, 1]]
    tables = files.load(settings(labels={"aggregate": "mean", "positive_from": 0.6}))
    assert tables.soft == pytest.approx(np.float32([[2 / 3, 1 / 3], [0.5, 1], [0, 0], [1, 1]]))
    files.train[3] = ("a", "another", 1, 1)
    with pytest.raises(ValueError, match="row 3 .*'text' differs from row 1, which has the same id"):
        files.load(settings(labels={"aggregate": "majority"}))
