"""competition/: what must hold of the tables before anything is trained on them."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from competition.label_forms import ZERO_ONE
from competition.problems import Problems, excerpt, nearest, quoted
from competition.reading import TextTable

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A finite decimal number; `float` would also take nan, inf and 1_000."""

LONGEST_ID = 256
"""Characters; a longer id is a text column taken for the id."""


def check_rows(
    table: TextTable, id_column: str, texts: Sequence[str], others: Sequence[str], problems: Problems
) -> None:
    """Columns, ids and texts of one file; `others` are columns that must be there and are read elsewhere."""
    check_columns(table, (id_column, *texts, *others), problems)
    if id_column in table.header:
        check_ids(table.column(id_column), id_column, problems)
    check_texts(table, [name for name in texts if name in table.header], problems)


def check_columns(table: TextTable, needed: Sequence[str], problems: Problems) -> None:
    """Every needed column is there, none twice; beside a missing one stands the nearest name."""
    counts = Counter(table.header)
    for name, times in counts.items():
        if times > 1 and name:
            problems.add(f"column {name!r} stands {times} times in the header; expected once")
    for name in dict.fromkeys(needed):
        if name not in counts:
            hint = nearest(name, counts) or f"; the file's columns are {quoted(counts)}"
            problems.add(f"column {name!r} is missing{hint}")


def check_ids(ids: Sequence[str], column: str, problems: Problems) -> None:
    """Every row has an id of its own."""
    empty = [row for row, name in enumerate(ids) if not name.strip()]
    problems.add_rows(f"empty {column!r}", [(row, f"{column!r} is empty") for row in empty])
    odd = [row for row, name in enumerate(ids) if len(name) > LONGEST_ID or "\0" in name]
    problems.add_rows(
        f"{column!r} not an id",
        [(row, f"{column!r} is {excerpt(ids[row])}: no id has a NUL or over {LONGEST_ID} characters") for row in odd],
    )
    first, doubled = {}, []
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row and name.strip():
            doubled.append((row, f"{column!r} {excerpt(name)} stands in row {problems.row_numbers[first[name]]} too"))
    problems.add_rows(f"doubled {column!r}", doubled)


def check_texts(table: TextTable, columns: Sequence[str], problems: Problems) -> None:
    """Every text column says something in every row."""
    for column in columns:
        empty = [row for row, text in enumerate(table.column(column)) if not text.strip().strip("\0 \t\r\n")]
        problems.add_rows(f"empty {column!r}", [(row, f"{column!r} is empty; expected a text") for row in empty])


def check_label_counts(labels: np.ndarray, names: Sequence[str], n_folds: int, problems: Problems) -> None:
    """Every label can be learned in every fold: a positive in each, and not in all rows."""
    for name, positives in zip(names, labels.sum(axis=0).tolist(), strict=True):
        if positives < n_folds:
            fits = f"set n_folds: {positives}, " if positives >= 2 else ""
            problems.add(
                f"label {name!r} has {positives} positive rows, fewer than the {n_folds} folds, and each needs one: "
                f"{fits}merge it into another label in the files and labels.names, or add rows that carry it"
            )
        elif positives == len(labels):
            problems.add(f"label {name!r} is positive in all {positives} rows: nothing to tell apart, take it out")


def check_sample_ids(sample_ids: Sequence[str], test_ids: Sequence[str], test_file: str, problems: Problems) -> None:
    """The sample submission names each test row once."""
    in_sample, in_test = set(sample_ids), set(test_ids)
    missing = [name for name in test_ids if name not in in_sample]
    if missing:
        problems.add(f"{len(missing)} ids of {test_file} are missing: {quoted(missing)}")
    extra = [row for row, name in enumerate(sample_ids) if name not in in_test]
    found = [(row, f"id {excerpt(sample_ids[row])} is not in {test_file}") for row in extra]
    problems.add_rows(f"id not in {test_file}", found)


def check_sample_numbers(table: TextTable, columns: Sequence[str], form: str, problems: Problems) -> None:
    """The sample's answers are of the kind that submission.form says: 0/1, or numbers."""
    for name in columns:
        cells = table.column(name)
        bad = [row for row, cell in enumerate(cells) if not _is_answer(cell, form)]
        expected = "0 or 1 as submission.form is columns" if form == "columns" else "a number"
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected {expected}") for row in bad]
        problems.add_rows(f"{name!r} of another form", found)


def _is_answer(cell: str, form: str) -> bool:
    return cell in ZERO_ONE if form == "columns" else is_number(cell)


def is_number(cell: str) -> bool:
    """Whether a cell is a finite decimal number."""
    return NUMBER.fullmatch(cell) is not None
