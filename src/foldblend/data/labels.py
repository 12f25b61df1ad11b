"""The ways a row's labels are written (0/1 columns, a delimited cell, one class name), read into (N, L) bool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.data.reading import Problems, TextTable, excerpt, nearest, quoted

ZERO_ONE = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""What a 0/1 cell may hold; pandas writes 1.0 if a column ever had a missing value."""


@dataclass(frozen=True)
class LabelForm:
    """How labels are written in one file, and what they are called."""

    form: str
    names: tuple[str, ...]
    column: str = ""
    delimiter: str = ","
    values: str = "names"
    one_a_row: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    """Labels that are read as one, in the order of the columns of `read_labels`; empty keeps every label."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that must be there."""
        return self.names if self.form == "columns" else (self.column,)

    @property
    def numbers(self) -> dict[str, int]:
        """What a cell may say -> position of the label."""
        says = self.names if self.values == "names" else map(str, range(len(self.names)))
        return {name: k for k, name in enumerate(says)}


def read_labels(table: TextTable, form: LabelForm, problems: Problems) -> np.ndarray:
    """Labels of every row, bool (N, L); what cannot be read goes to `problems` and counts as no label.

    L is the number of names, or of groups if there are any: a row has a group if it has one of its labels.
    """
    if form.form == "columns":
        labels = _from_columns(table, form.names, problems)
    else:
        labels = _from_cells(table.column(form.column), form, problems)
    if form.one_a_row and not problems:
        _check_one_a_row(labels, form, problems)
    if not form.groups:
        return labels
    position = {name: k for k, name in enumerate(form.names)}
    return np.stack([labels[:, [position[name] for name in group]].any(axis=1) for group in form.groups], axis=1)


def _from_columns(table: TextTable, names: Sequence[str], problems: Problems) -> np.ndarray:
    labels = np.zeros((len(table.rows), len(names)), dtype=bool)  # (N, L)
    for k, name in enumerate(names):
        cells = table.column(name)
        if set(cells) <= ZERO_ONE.keys():
            labels[:, k] = [ZERO_ONE[cell] for cell in cells]
            continue
        bad = [row for row, cell in enumerate(cells) if cell not in ZERO_ONE]
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected 0 or 1") for row in bad]
        problems.add_rows(f"{name!r} not 0 or 1", found)
    return labels


def _from_cells(cells: Sequence[str], form: LabelForm, problems: Problems) -> np.ndarray:
    """Cells repeat, so each spelling is read once."""
    numbers = form.numbers
    read = {cell: _read_cell(cell, form, numbers) for cell in set(cells)}
    labels = np.zeros((len(cells), len(form.names)), dtype=bool)  # (N, L)
    for row, cell in enumerate(cells):
        labels[row, read[cell][0]] = True
    bad = [row for row, cell in enumerate(cells) if read[cell][1]]
    for kind, spell in DEFECTS.items():
        found = [(row, (part, cells[row])) for row in bad for k, part in read[cells[row]][1] if k == kind]
        problems.add_rows(kind, found, lambda what, spell=spell: spell(*what, form))
    return labels


def _read_cell(cell: str, form: LabelForm, numbers: dict[str, int]) -> tuple[list[int], list[tuple[str, str]]]:
    """Positions of the labels that a cell names, and (kind in DEFECTS, part of the cell) of each defect in it."""
    if not cell.strip():
        return [], [("class missing", cell)] if form.form == "class" else []
    said = [cell] if form.form == "class" else [part.strip() for part in cell.split(form.delimiter)]
    defects = [("unknown label", part) for part in dict.fromkeys(said) if part and part not in numbers]
    defects += [("doubled label", part) for part in dict.fromkeys(said) if part and said.count(part) > 1]
    defects += [("empty label", "")] if "" in said else []
    return [numbers[part] for part in said if part in numbers], defects


def _spell_unknown(part: str, cell: str, form: LabelForm) -> str:
    if form.values == "numbers":
        hint = f"; expected 0 to {len(form.names) - 1}, as labels.names has {len(form.names)}"
    else:
        hint = nearest(part, form.names) or f"; expected one of {quoted(form.names)}"
    return f"unknown label {excerpt(part)}{hint}"


DEFECTS: dict[str, Callable[[str, str, LabelForm], str]] = {
    "unknown label": _spell_unknown,
    "doubled label": lambda part, cell, form: f"{excerpt(part)} appears twice in {excerpt(cell)}",
    "empty label": lambda part, cell, form: f"an empty label in {excerpt(cell)}, split at {form.delimiter!r}",
    "class missing": lambda part, cell, form: f"{form.column!r} is empty; expected one class",
}
"""What can be wrong with a cell -> the sentence on (part of the cell, cell, form)."""


def _check_one_a_row(labels: np.ndarray, form: LabelForm, problems: Problems) -> None:
    counts = labels.sum(axis=1)
    wrong = ((int(row), f"{counts[row]} labels; task multiclass expects one") for row in np.flatnonzero(counts != 1))
    problems.add_rows("not exactly one label", wrong)
