"""What is printed of folds are their real counts."""

import numpy as np

from foldblend.folding.draw import describe_conflicts, describe_folds, rate_deviation

LABELS = np.array([[1, 0], [1, 1], [0, 0], [1, 0], [0, 1], [1, 0]], dtype=bool)
FOLD = np.array([0, 0, 0, 1, 1, 1])


def test_rate_deviation():
    np.testing.assert_allclose(rate_deviation(LABELS, FOLD, 2), [[0, 0], [0, 0]])
    fold = np.array([0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(rate_deviation(LABELS, fold, 2), [[0.5, 0.5], [0.25, 0.25]])
    assert rate_deviation(np.zeros((4, 1), dtype=bool), np.array([0, 0, 1, 1]), 2).tolist() == [[0], [0]]


def test_table():
    lines = describe_folds(LABELS, ("joy", "anger"), FOLD, np.array([0, 1, 2, 3, 3, 4]), 2)
    assert lines[0] == "6 rows in 5 groups of distinct texts; the largest group has 2 rows"
    cells = [line.split() for line in lines[1:]]
    assert cells[0] == ["fold", "0", "fold", "1", "total", "deviation"]
    assert cells[1] == ["joy", "2", "2", "4", "0.00%"]
    assert cells[2] == ["anger", "1", "1", "2", "0.00%"]
    assert cells[3] == ["(no", "label)", "1", "0", "1"]
    assert cells[4] == ["rows", "3", "3", "6"]
    assert "0.00%" in lines[-1]
    many = describe_folds(np.repeat(LABELS, 100, axis=0), ("joy", "anger"), np.repeat(FOLD, 100), np.arange(600), 2)
    assert " ".join(many[-1].split()) == (
        "Label rates in a fold differ from those of all rows by at most 0.00% (joy), "
        "0.00% on average (labels with 200 or more rows)"
    )


def test_a_table_of_many_folds_and_long_names_fits_80_columns():
    n_folds, rng = 13, np.random.default_rng(0)
    labels, fold = rng.random((30_000, 3)) < 0.5, rng.permutation(np.arange(30_000) % n_folds)
    names = ("joy", "a name of a label that goes on and on", "anger")
    lines = describe_folds(labels, names, fold, np.arange(30_000), n_folds)
    shown = "\n".join(lines).splitlines()
    assert max(map(len, shown)) <= 80
    cells = [line.split() for line in shown if line.startswith("anger")]
    counts = [int(cell) for line in cells for cell in line[1:] if cell.isdigit()]
    assert counts == [*(labels[fold == k, 2].sum() for k in range(n_folds)), labels[:, 2].sum()]
    assert len([line for line in shown if line.startswith("a name of a label that goes o… ")]) == len(cells) > 1


def test_conflicts_show_ids_texts_and_labels_safely():
    ids = np.array(["a", "b\x1b[31m", "c", "d", "e", "f"])
    texts = ["Hi", "hi!", "x", "same \x1b[2J" + "y" * 99, "SAME", "z"]
    lines = describe_conflicts([np.array([0, 1]), np.array([3, 4])], ids, texts, LABELS, ("joy", "anger"))
    assert lines[0].startswith("2 texts (4 rows) appear with different labels")
    assert lines[1] == "  'a' 'Hi': joy" and lines[2] == "  'b\\x1b[31m' 'hi!': joy, anger"
    assert "\x1b" not in "".join(lines) and max(map(len, "\n".join(lines).splitlines())) <= 80
    assert describe_conflicts([], ids, texts, LABELS, ("joy", "anger")) == [
        "No text appears twice with different labels"
    ]
