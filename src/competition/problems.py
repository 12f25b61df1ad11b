"""competition/: what is wrong with one file, collected so that one error names all of it."""

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROWS_SPELT_OUT = 3
"""Rows of one kind of problem that get a line of their own."""
ROWS_LISTED = 10
"""Further rows of that kind that are listed by number."""


@dataclass
class Problems:
    """Problems of one file, in the order they were found; rows are counted from 1 without the header, lines with it."""

    path: Path
    row_numbers: Sequence[int] = ()
    line_numbers: Sequence[int] = ()
    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """A problem of the file as a whole."""
        self.count += 1
        self.lines.append(sentence)

    def add_rows(self, kind: str, found: Iterable[tuple[int, T]], spell: Callable[[T], str] = str) -> None:
        """Problems of one kind: (position in `row_numbers`, sentence) each; long lists are shortened, never dropped.

        `spell` makes the sentence of those that get a line of their own, where it costs too much to make for all.
        """
        found = list(found)
        self.count += len(found)
        for position, what in found[:ROWS_SPELT_OUT]:
            self.lines.append(f"row {self.row_numbers[position]} (line {self.line_numbers[position]}): {spell(what)}")
        more = [str(self.row_numbers[position]) for position in dict.fromkeys(row for row, _ in found[ROWS_SPELT_OUT:])]
        if more:
            self.lines.append(f"... and {len(more)} more rows, {kind}: {shortened(more)}")

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        heading = f"{shown_path(self.path)}: {self.count} problem{'s' if self.count > 1 else ''}"
        return "\n".join([heading, *(f"  {line}" for line in self.lines)])


def raise_if_any(reports: Iterable[Problems]) -> None:
    """Raise one ValueError that names every problem of every file."""
    found = [str(report) for report in reports if report]
    if found:
        raise ValueError("\n".join(found))


def shown_path(path: Path) -> str:
    """The path from where the user stands, or in full when it lies elsewhere."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def shortened(items: Sequence[str]) -> str:
    """The first items, and three dots where there are more."""
    return ", ".join([*items[:ROWS_LISTED], *(["..."] if len(items) > ROWS_LISTED else [])])


def quoted(items: Iterable[str]) -> str:
    """Names in quotes, a long list shortened."""
    return shortened([excerpt(item) for item in items])


def excerpt(text: str) -> str:
    """A text in quotes, cut where it is too long for one line of a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'joy'?`, or nothing where no name is near; case, spaces and quotes weigh nothing."""
    by_folded = {_folded(other): other for other in names}
    close = difflib.get_close_matches(_folded(name), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


def _folded(name: str) -> str:
    return name.casefold().strip(" \t\"'\ufeff")
