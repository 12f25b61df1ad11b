"""Delimited files, text to rows and back, by the separator and quoting that the settings name; problems of a file.

Every cell stays the text it is: "NA" and "007" are not touched, no row is skipped, line ends inside quotes survive.
The csv module reads strictly; pandas' reader would forgive a stray quote, a short row and an empty line.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from foldblend.data.encodings import WRONG_BYTE, decode, name_kind, repair_cell
from foldblend.errors import UserError
from foldblend.files import read_bytes

# ---------- what is wrong with one file, collected so that one error names all of it.


T = TypeVar("T")

ROWS_SPELT_OUT = 3
"""Rows of one kind of problem that get a line of their own."""
ROWS_LISTED = 10
"""Further rows of that kind that are listed by number."""


@dataclass
class Problems:
    """Problems of one file, in the order they were found; rows are counted from 1 without the header, lines with it."""

    path: Path
    row_numbers: Sequence[int | str] = ()
    line_numbers: Sequence[int] = ()
    """Empty for a file without lines, such as a spreadsheet."""
    count: int = 0
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is unusual and allowed, as sentences."""

    def add(self, sentence: str) -> None:
        """A problem of the file as a whole."""
        self.count += 1
        self.lines.append(sentence)

    def advise(self, sentence: str) -> None:
        """What to do about the problems before it; it is not counted."""
        self.lines.append(sentence)

    def add_rows(self, kind: str, found: Iterable[tuple[int, T]], spell: Callable[[T], str] = str) -> None:
        """Problems of one kind: (position in `row_numbers`, sentence) each; long lists are shortened, never dropped.

        `spell` makes the sentence of the rows that get a line of their own; making it for all would cost too much.
        """
        found = list(found)
        self.count += len(found)
        for position, what in found[:ROWS_SPELT_OUT]:
            line = f" (line {self.line_numbers[position]})" if self.line_numbers else ""
            self.lines.append(f"row {self.row_numbers[position]}{line}: {spell(what)}")
        more = [str(self.row_numbers[position]) for position in dict.fromkeys(row for row, _ in found[ROWS_SPELT_OUT:])]
        if more:
            self.lines.append(f"... and {len(more)} more rows, {kind}: {shortened(more)}")

    def note_rows(self, what: str, positions: Sequence[int]) -> None:
        """A note on rows: `what`, and their numbers; a long list is shortened."""
        if positions:
            self.notes.append(f"{what}: {shortened([f'row {self.row_numbers[k]}' for k in positions])}")

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        heading = f"{shown_path(self.path)}: {self.count} problem{'s' if self.count > 1 else ''}"
        return "\n".join([heading, *(f"  {line}" for line in self.lines)])


def raise_if_any(reports: Iterable[Problems]) -> None:
    """Raise one UserError that names every problem of every file."""
    found = [str(report) for report in reports if report]
    if found:
        raise UserError("\n".join(found))


def shown_path(path: Path) -> str:
    """The path relative to the working directory, or in full if it is elsewhere."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def shortened(items: Sequence[str]) -> str:
    """The first items, and three dots if there are more."""
    return ", ".join([*items[:ROWS_LISTED], *(["..."] if len(items) > ROWS_LISTED else [])])


def quoted(items: Iterable[str]) -> str:
    """Names in quotes, a long list shortened."""
    return shortened([excerpt(item) for item in items])


def excerpt(text: str) -> str:
    """A text in quotes, cut if it is too long for one line of a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


# ---------- text into rows and back.


def without_empty_end(text: str) -> str:
    """The text without empty lines at its end, which are ignored; an empty line further up is a broken row.

    Read from the end: a pattern would try again at each of the line ends that a quoted text may hold.
    """
    start = end = len(text)
    while start and text[start - 1] == "\n":
        end, start = start, start - 1
        if start and text[start - 1] == "\r":
            start -= 1
    return text[:end]


SEPARATORS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'"}
"""Separators in use, as they are written in YAML."""


@dataclass(frozen=True)
class FileForm:
    """How one file is written."""

    encoding: str = "utf-8"
    separator: str = ","
    quoting: str = "minimal"
    separator_setting: str = "files.separators"
    """The setting that a wrong separator is advised to change; a mapping of files if it is `files.separators`."""
    separator_is_stated: bool = True
    """Whether the settings name it; otherwise the end of the file's name may."""
    encoding_is_own: bool = False
    """Whether the settings name the encoding of this very file, not that of all files."""
    invalid_bytes: str = "refuse"
    columns: tuple[str, ...] = ()
    """Names of the columns if the file has no header line."""
    sheet: str = ""
    """Of a spreadsheet; empty is the only one."""


@dataclass(frozen=True)
class TextTable:
    """A header and the rows that have as many cells as it."""

    header: tuple[str, ...]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        position = self.header.index(name)
        return [row[position] for row in self.rows]


def read_table(path: Path, form: FileForm, problems: Problems) -> TextTable | None:
    """Read one delimited file; defects go to `problems`, and None comes back if there is no row to check."""
    return parse_table(read_bytes(path), form, problems)


def parse_table(data: bytes, form: FileForm, problems: Problems) -> TextTable | None:
    """As `read_table`, from the file's bytes."""
    if not data.strip():
        problems.add(f"the file is empty; expected {'rows' if form.columns else 'a header line and rows'}")
        return None
    name = Path(problems.path).name
    if kind := name_kind(data, name):
        problems.add(f"the file is {kind}")
        return None
    decoded = decode(data, form.encoding, name, form.encoding_is_own)
    for complaint in decoded.complaints:
        problems.add(complaint)
    if decoded.text is None:
        return None
    table = _parse_text(decoded.text, form, problems)
    return _without_wrong_bytes(table, form, decoded.is_mixed, problems)


def _parse_text(text: str, form: FileForm, problems: Problems) -> TextTable | None:
    text = without_empty_end(text)
    records = _quoted_records(text, form.separator) if form.quoting == "minimal" else _plain_records(text, form)
    if form.columns:
        rows = _full_rows(records, form.columns, problems, "files.columns lists")
        if not rows and problems:
            problems.advise("files.columns must list a name for each field of a row, or be removed if line 1 has them")
        return TextTable(form.columns, rows) if rows else None
    _, fields, defect = next(records, (1, [], ""))
    if defect or not any(fields):
        problems.add(f"line 1: expected a header with column names, found {defect or 'an empty line'}")
        return None
    header = tuple(fields)
    if len(header) == 1 and _names_separator(header[0], form, problems):
        return None
    rows = _full_rows(records, header, problems, "the header has")
    if not rows and not problems:
        problems.add("a header and no rows; expected one or more")
    return TextTable(header, rows) if rows else None


def _without_wrong_bytes(
    table: TextTable | None, form: FileForm, is_mixed: bool, problems: Problems
) -> TextTable | None:
    """The table with the wrong bytes of a utf-8 file read as cp1252; unless that was asked for, they are problems."""
    if table is None or not is_mixed:
        return table
    found = [
        (k, next(cell for cell in row if WRONG_BYTE.search(cell)))
        for k, row in enumerate(table.rows)
        if any(WRONG_BYTE.search(cell) for cell in row)
    ]
    if form.invalid_bytes == "cp1252":
        problems.note_rows("bytes that are not utf-8 were read as cp1252", [row for row, _ in found])
    else:
        problems.advise(
            "the file is utf-8, but a few of its bytes are not. Correct these rows, or set "
            "files.invalid_bytes: cp1252, which reads these bytes, and no others, as cp1252"
        )
        if any(WRONG_BYTE.search(name) for name in table.header):
            problems.add(f"line 1: the header has such bytes: {quoted(map(repair_cell, table.header))} as cp1252")
        problems.add_rows("bytes that are not utf-8", found, _spell_wrong_bytes)
    header = tuple(map(repair_cell, table.header))
    return TextTable(header, [[repair_cell(cell) for cell in row] for row in table.rows])


def _spell_wrong_bytes(cell: str) -> str:
    at = WRONG_BYTE.search(cell)
    assert at
    byte, start = at[0][0].encode("utf-8", "surrogateescape")[0], max(0, at.start() - 12)
    return f"0x{byte:02x} is not utf-8; as cp1252 it reads {repair_cell(cell[start : at.end() + 12])!r}"


def table_bytes(header: Iterable[str], rows: Iterable[Iterable[str]], separator: str = ",") -> bytes:
    """The table in utf-8, newline at line ends, quotes only where a cell needs them; `parse_table` gives it back."""
    lines = _Lines()
    # Ending lines in \r\n makes the writer quote both characters; with \n it leaves a lone \r bare (Python 3.11, 3.12).
    writer = csv.writer(lines, delimiter=separator, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


class _Lines(list):
    """What a csv writer writes to: it hands over one whole record at a time."""

    def write(self, record: str) -> None:
        self.append(record.removesuffix("\r\n"))


def _full_rows(records: Iterator, header: tuple[str, ...], problems: Problems, says: str) -> list[list[str]]:
    """Rows as wide as the header; the others are problems."""
    rows, numbers, lines, broken = [], [], [], []
    for number, (line, fields, defect) in enumerate(records, start=1):
        if not defect and len(fields) == len(header):
            rows.append(fields)
            numbers.append(number)
            lines.append(line)
        else:
            found = f"{len(fields)} fields, {says} {len(header)}" if any(fields) else "an empty line; expected a row"
            broken.append((number, line, defect or found))
    problems.row_numbers, problems.line_numbers = [row[0] for row in broken], [row[1] for row in broken]
    problems.add_rows("broken", [(position, row[2]) for position, row in enumerate(broken)])
    problems.row_numbers, problems.line_numbers = numbers, lines
    return rows


def _quoted_records(text: str, separator: str) -> Iterator[tuple[int, list[str], str]]:
    """(first line, fields, defect) of each record; only newline ends a line, so a lone carriage return is seen."""
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True)
    with _no_field_limit():
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, [], _explain(str(error), line, reader.line_num)
            else:
                yield line, fields, ""


def _plain_records(text: str, form: FileForm) -> Iterator[tuple[int, list[str], str]]:
    """As `_quoted_records` for a file in which quotes are text; the header's line end is every line's."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    ending = "\r" if lines and lines[0].endswith("\r") else ""
    for number, line in enumerate(lines, start=1):
        yield number, line.removesuffix(ending).split(form.separator), ""


def _explain(error: str, first: int, last: int) -> str:
    """The csv module's words in ours."""
    if "unexpected end of data" in error:
        return "a quote that opens here never closes: the file is cut off, or a quote in a text is not doubled"
    if "expected after" in error:
        where = "" if last == first else f" at line {last}"
        return f"text after a closing quote{where}: a quote in a text must be doubled, or files.quoting set to none"
    if "new-line character" in error:
        return "a carriage return without a newline outside quotes: expected lines to end in \\n or \\r\\n"
    return error


def _names_separator(header: str, form: FileForm, problems: Problems) -> bool:
    """Whether the only column looks like several; that is reported once instead of a problem per row."""
    likely = max(SEPARATORS, key=header.count)
    if likely == form.separator or likely not in header:
        return False
    advised = SEPARATORS[likely]
    if form.separator_setting == "files.separators":
        advised = f"{{{Path(problems.path).name}: {advised}}}"
    problems.add(
        f"only one column, {excerpt(header)}, when split at {form.separator!r}; "
        f"it looks split at {SEPARATORS[likely]}: set {form.separator_setting}: {advised}"
    )
    return True


@contextmanager
def _no_field_limit():
    """A text may be longer than the csv module's 131,072 characters."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
