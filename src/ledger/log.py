"""Ledger room: submissions/log.csv, one row a submission that was handed in, of all competitions."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime

from ledger.files import hold_lock, write_atomically
from settings.places import Places

STATUSES = ("uploading", "pending", "complete", "error")
"""`uploading`: written before the upload starts, so that a kill cannot hide it; the others are Kaggle's words."""
FORMULA = re.compile(r"[=+\-@]")
"""How a cell begins that a spreadsheet would run; such texts are written behind an apostrophe."""


@dataclass(frozen=True)
class LogEntry:
    """One submission: what was handed in, what was expected of it, what Kaggle said."""

    time: str
    """UTC, to the second, as 2026-01-31T23:59:59Z."""
    competition: str
    file: str
    """From the project's folder, as submissions/<competition>/<name>.csv; Kaggle's file name where it lies nowhere."""
    sha256: str
    """Of the CSV's bytes; empty where the file handed in by hand is not here."""
    ref: int
    """Kaggle's number of it; 0 until Kaggle has answered."""
    status: str
    in_sample: float | None
    cross_fitted: float | None
    expected: float | None
    """On the test rows, of the mean of the folds."""
    public_score: float | None
    private_score: float | None
    message: str


COLUMNS = tuple(field.name for field in fields(LogEntry))
SCORES = ("in_sample", "cross_fitted", "expected", "public_score", "private_score")
PATTERNS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "competition": r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "file": r".+",
    "sha256": r"([0-9a-f]{64})?",
    "ref": r"\d{1,18}",
    "status": "|".join(STATUSES),
    "message": r".*",
}


def read_log(places: Places) -> list[LogEntry]:
    """Every entry, oldest first; none where the log is not there yet.

    Raises: ValueError: other columns, or a cell that is no time, hash, status or number, with its line.
    """
    path = places.submissions_log
    if not path.exists():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 CSV ({error}). {_cure(places)}") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        found = ", ".join(rows[0])[:200] if rows else "nothing"
        raise ValueError(f"{path}: columns are {found}; expected {', '.join(COLUMNS)}. {_cure(places)}")
    entries = [_parse(row, f"{path}: row {number}", places) for number, row in enumerate(rows[1:], 1)]
    doubled = [entry.ref for entry in entries if entry.ref and sum(other.ref == entry.ref for other in entries) > 1]
    if doubled:
        raise ValueError(f"{path}: ref {doubled[0]} stands in several rows; expected one. {_cure(places)}")
    return entries


def change_log(places: Places, change: Callable[[list[LogEntry]], list[LogEntry]]) -> list[LogEntry]:
    """Read, change and write the log in one step that no other process can come between.

    Returns: the entries as they were written, oldest first.   Raises: ValueError: see `read_log`. OSError: not written.
    """
    path = places.submissions_log
    with hold_lock(path.with_name(".log.lock")):
        before = read_log(places)
        after = sorted(change(list(before)), key=lambda entry: entry.time)
        if after != before:
            write_atomically(path, _as_csv(after))
    return after


@contextmanager
def handing_in(places: Places) -> Iterator[None]:
    """One upload at a time. Raises: ValueError: another process is handing in."""
    path = places.submissions_log.with_name(".submit.lock")
    with hold_lock(path, f"{path.parent}: another submit.py is handing in now. Wait for it, then run this again"):
        yield


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_one_line(text: str) -> str:
    """A message without line ends and control characters, as the log keeps it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _as_csv(entries: list[LogEntry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        cells = zip(COLUMNS, astuple(entry), strict=True)
        writer.writerow([_shielded(value) if name in ("file", "message") else _shown(value) for name, value in cells])
    return text.getvalue().encode()


def _shielded(text: str) -> str:
    text = as_one_line(text)
    return f"'{text}" if FORMULA.match(text.lstrip("'")) else text


def _unshielded(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text.lstrip("'")) else text


def _shown(value) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _parse(row: list[str], where: str, places: Places) -> LogEntry:
    """One row as an entry. Raises ValueError naming the cell."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"{where} has {len(row)} cells; expected {len(COLUMNS)}. {_cure(places)}")
    cells = dict(zip(COLUMNS, row, strict=True))
    for name, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, cells[name]):
            raise ValueError(f"{where}: {name} is {cells[name][:60]!r}; expected {pattern}. {_cure(places)}")
    scores = {name: _parse_score(cells[name], f"{where}: {name}", places) for name in SCORES}
    texts = {name: _unshielded(cells[name]) for name in ("file", "message")}
    return LogEntry(**{**cells, **scores, **texts, "ref": int(cells["ref"])})


def _parse_score(cell: str, where: str, places: Places) -> float | None:
    try:
        value = float(cell) if cell else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{where} is {cell[:60]!r}; expected a number or nothing. {_cure(places)}")
    return value


def _cure(places: Places) -> str:
    name = places.submissions_log.name
    return f"Mend it, or move {name} away and run: python src/submit.py --sync, which writes it anew from Kaggle's list"
