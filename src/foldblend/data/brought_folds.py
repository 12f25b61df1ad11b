"""Folds that the user brings: a table of ids and the fold of each, checked against the training file."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldblend.data.reading import FileForm, Problems, excerpt, parse_table, quoted, raise_if_any, shown_path
from foldblend.errors import UserError, nearest
from foldblend.files import read_bytes

WHOLE = re.compile(r"([+-]?\d{1,9})(\.0*)?")
"""A whole number, also as pandas writes one of a column that had missing values: 3.0."""
MOST_FOLDS = 1_000
"""More different values are no folds."""


@dataclass(frozen=True)
class BroughtFolds:
    """Folds of a file, in the order of the training file."""

    fold: np.ndarray
    """int64 (N,), 0..K-1."""
    names: tuple[str, ...]
    """What the file calls each of the K folds."""
    group: tuple[str, ...] | None
    """The file's cell of the group column, per row; None without such a column."""
    n_others: int
    """Rows of the file that are no training rows, and are not used."""


def read_brought_folds(
    path: Path, form: FileForm, id_column: str, column: str, train_ids: Sequence[str], n_folds: int
) -> BroughtFolds:
    """Read a user's folds; every training row must have one.

    Args:   form: how the file is written.   column: of the fold; any names, or whole numbers from any first one on.
    Raises: UserError: the file or a column is missing, an id is missing or there twice, a cell is empty or negative,
            or there are not `n_folds` folds.
    """
    report = Problems(path)
    table = parse_table(_read(path), form, report)
    raise_if_any([report])
    for name in (id_column, column):
        if table is not None and name not in table.header:
            hint = nearest(name, table.header) or f"; it has {quoted(table.header)}."
            setting = f"Call it {id_column!r} in this file, too" if name == id_column else "Correct folds.column"
            report.add(f"column {name!r} is missing{hint} {setting}")
    raise_if_any([report])
    assert table is not None  # or there were problems
    rows = _rows_of(table.column(id_column), train_ids, report)
    cells = [cell.strip() for cell in table.column(column)]
    used = {name: cells[row] for name, row in rows.items()}
    _check_cells(used, column, report)
    raise_if_any([report])
    names = sorted({_plain(cell) for cell in used.values()}, key=_rank)
    if len(names) != n_folds:
        shown = f"{len(names)} folds: {quoted(names)}" if len(names) > 1 else f"the value {names[0]!r} only"
        hint = f"; set n_folds: {len(names)}" if 2 <= len(names) <= MOST_FOLDS else ""
        raise UserError(f"{shown_path(path)}: column {column!r} has {shown}; n_folds is {n_folds}{hint}")
    number = {name: k for k, name in enumerate(names)}
    fold = np.array([number[_plain(used[name])] for name in train_ids], dtype=np.int64)
    group = None
    if "group" in table.header and "group" not in (id_column, column):
        stored = table.column("group")
        group = tuple(stored[rows[name]].strip() for name in train_ids)
    return BroughtFolds(fold, tuple(names), group, len(table.rows) - len(rows))


def _read(path: Path) -> bytes:
    if path.is_file():
        return read_bytes(path)
    there = sorted(each.name for each in path.parent.glob("*.csv")) if path.parent.is_dir() else []
    hint = nearest(path.name, there) or f"; its folder has {quoted(there) if there else 'no .csv'}."
    raise UserError(
        f"{shown_path(path)}: missing, although folds.file names it{hint} Put it into this folder, or correct "
        "folds.file"
    )


def _rows_of(ids: Sequence[str], train_ids: Sequence[str], report: Problems) -> dict[str, int]:
    """Position in the file of each training id."""
    counts, wanted = Counter(ids), set(train_ids)
    twice = [row for row, name in enumerate(ids) if counts[name] > 1]
    report.add_rows("id twice", [(row, f"id {excerpt(ids[row])} is there {counts[ids[row]]} times") for row in twice])
    missing = [name for name in train_ids if name not in counts]
    if missing:
        report.add(
            f"{len(missing)} ids of the training file are not in it, first {excerpt(missing[0])}; expected a fold for "
            "each"
        )
    return {name: row for row, name in enumerate(ids) if name in wanted}


def _check_cells(used: dict[str, str], column: str, report: Problems) -> None:
    """Every training row has a fold."""
    empty = [name for name, cell in used.items() if not cell]
    if empty:
        report.add(
            f"{column!r} is empty for {len(empty)} training rows, first id {excerpt(empty[0])}; expected a fold for "
            "each"
        )
    never = [name for name, cell in used.items() if WHOLE.fullmatch(cell) and float(cell) < 0]
    if never:
        report.add(
            f"{column!r} is {used[never[0]]} for {len(never)} training rows, first id {excerpt(never[0])}: every row "
            "must be held out once; give them folds, or take these rows out of the training file"
        )
    if len({_plain(cell) for cell in used.values()}) > MOST_FOLDS:
        report.add(f"{column!r} has more than {MOST_FOLDS} different values, so it is no column of folds")


def _plain(cell: str) -> str:
    """A cell as the name of a fold: 3.0 and 03 are 3."""
    found = WHOLE.fullmatch(cell)
    return str(int(found[1])) if found else cell


def _rank(name: str) -> tuple[bool, int, str]:
    """Numbers first, by their value, then words."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name
