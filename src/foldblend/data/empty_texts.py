"""Rows without text: refused, allowed or left out, and always named."""

from collections.abc import Sequence

import numpy as np

from foldblend.data.reading import Problems, TextTable
from foldblend.settings.competition import TextSettings


def find_empty(table: TextTable, columns: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows without any text, and rows in which some of the text columns are empty, by position."""
    blank = np.array([[not text.strip().strip("\0 \t\r\n") for text in table.column(name)] for name in columns])
    counts = blank.sum(axis=0)  # (N,)
    return np.flatnonzero(counts == len(columns)).tolist(), np.flatnonzero(
        (counts > 0) & (counts < len(columns))
    ).tolist()


def check_texts(table: TextTable, text: TextSettings, report: Problems, drops: bool) -> TextTable:
    """The rows that have a text; rows without any are refused, allowed or left out as `text.empty` says.

    Args:   drops: whether these are training rows, which may be left out; test rows must be answered.
    """
    if not set(text.columns) <= set(table.header):
        return table
    empty, partly = find_empty(table, text.columns)
    report.note_rows(f"rows with a text in some of the text columns only ({len(partly)} of {len(table.rows)})", partly)
    shown = " and ".join(map(repr, text.columns))
    if not drops:
        report.note_rows(f"rows without text ({len(empty)} of {len(table.rows)}) are answered as they are", empty)
    elif empty and text.empty == "allow":
        report.note_rows(f"rows without text ({len(empty)} of {len(table.rows)}) are learned from as they are", empty)
    elif empty and text.empty == "drop":
        report.note_rows(f"rows without text ({len(empty)} of {len(table.rows)}) are left out", empty)
        return _leave_out(table, set(empty), report)
    elif empty:
        report.add_rows(f"empty {shown}", [(row, f"{shown} is empty; expected a text") for row in empty])
        report.advise(
            f"set text.empty: drop to leave {_rows(len(empty))} without text out, or text.empty: allow to keep them"
        )
    return table


def _rows(count: int) -> str:
    return "the row" if count == 1 else f"the {count} rows"


def _leave_out(table: TextTable, positions: set[int], report: Problems) -> TextTable:
    """The other rows; their numbers stay those of the file."""
    kept = [k for k in range(len(table.rows)) if k not in positions]
    report.row_numbers = [report.row_numbers[k] for k in kept]
    report.line_numbers = [report.line_numbers[k] for k in kept] if report.line_numbers else ()
    return TextTable(table.header, [table.rows[k] for k in kept])
