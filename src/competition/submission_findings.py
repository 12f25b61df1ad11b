"""competition/: what is allowed and yet rarely meant: label rates far from training's, columns that never change."""

import numpy as np

from competition.reading import TextTable
from competition.tables import Tables

FAR = 3.0
"""A rate this many times larger or smaller than expected is a finding ..."""
NOISE = 3.0
"""... where the difference is also more than this many standard deviations of a Poisson count."""


def is_sample(table: TextTable, numeric: bool, tables: Tables) -> bool:
    """Whether every cell equals the sample submission's; as numbers (0.5 and 0.50) where the form is one of numbers."""
    same_cells = [tuple(row) for row in table.rows] == list(tables.sample_rows)
    if same_cells or not numeric or len(table.rows) != len(tables.sample_rows):
        return same_cells
    sample = TextTable(tables.sample_columns, list(tables.sample_rows))
    return all(_numbers(sample, name) == _numbers(table, name) for name in tables.label_names)


def _numbers(table: TextTable, name: str) -> list[float]:
    return [float(cell) for cell in table.column(name)]


def find_oddities(answers: np.ndarray, tables: Tables, oof_answers: np.ndarray | None) -> list[str]:
    """Sentences on constant labels, on label rates and on the share of rows without a label.

    Args:   answers: (n_test, L) bool decisions or float probabilities.   oof_answers: (N, L) of the same kind, or None.
    """
    kind, reference = ("training", tables.labels) if oof_answers is None else ("OOF", oof_answers)
    n_test = len(answers)
    findings = []
    for name, column, expected in zip(tables.label_names, answers.T, reference.mean(axis=0), strict=True):
        if (column == column[0]).all() and n_test > 1:
            findings.append(f"label {name!r} is {float(column[0]):g} in all {n_test} rows")
        elif _is_far(column.sum(), expected * n_test):
            findings.append(f"label {name!r}: positive rate {column.mean():.4f}, {kind} {expected:.4f}")
    if answers.dtype == bool:
        empty, expected = (~answers.any(axis=1)).sum(), (~reference.any(axis=1)).mean()
        if _is_far(empty, expected * n_test):
            findings.append(f"rows without a label: {empty} of {n_test} ({empty / n_test:.1%}), {kind} {expected:.1%}")
    return findings


def _is_far(count: float, expected: float) -> bool:
    high, low = max(count, expected), min(count, expected)
    return high > FAR * low and high - low > NOISE * max(expected, 1.0) ** 0.5
