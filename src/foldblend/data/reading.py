"""Delimited files, bytes to rows and back, by the encoding, separator and quoting that the settings name.

Every cell stays the text it is: "NA" and "007" are not touched, no row is skipped, line ends inside quotes survive.
The csv module reads strictly; pandas' reader would forgive a stray quote, a short row and an empty line.
"""

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

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

        `spell` makes the sentence of the rows that get a line of their own; making it for all would cost too much.
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


# ---------- bytes into text by the encoding of the settings; if it is wrong, the first wrong bytes are named.


NEWLINE = b"\n"

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks and the encoding that reads them; utf-32's begins with utf-16's, so it is asked first."""


def decode(data: bytes, encoding: str, problems: Problems) -> str | None:
    """The text of a file; None, with the reason in `problems`, if it is empty or not in that encoding."""
    if not data.strip():
        problems.add("the file is empty; expected a header line and rows")
        return None
    codec = codecs.lookup(encoding).name
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        _locate(data, codec, error, marked, problems)
        return None
    if text.startswith("\ufeff"):
        problems.add(f"the file begins with a byte order mark: set files.encoding: {marked or 'utf-8-sig'}")
        return None
    if "\0" in text.partition("\n")[0]:
        problems.add(f"the header holds NUL characters when read as {encoding}: is the file utf-16? Set files.encoding")
        return None
    if _is_rather_utf8(data, text, codec):
        problems.add(f"read as {encoding} it is garbled, and all of it is valid utf-8: set files.encoding: utf-8")
        return None
    return text


def _locate(data: bytes, codec: str, error: UnicodeDecodeError, marked: str | None, problems: Problems) -> None:
    """Name the lines that cannot be decoded, or only the first byte if the bytes do not show where lines end."""
    lines = data.split(b"\n") if codec in ("utf-8", "utf-8-sig", "ascii") and not marked else []
    bad = [number for number, line in enumerate(lines, start=1) if not _decodes(line, codec)]
    if marked:
        hint = f"the file begins with the byte order mark of {marked}: set files.encoding: {marked}"
    elif error.end == len(data) and bad in ([], [len(lines)]):
        hint = "the file is cut off inside a character: get it again"
    else:
        likely = "utf-8" if _decodes(data, "utf-8") else "cp1252"
        hint = f"set files.encoding to what the file was saved in (probably {likely})"
    where = f", and in lines {shortened([str(line) for line in bad[1:]])}" if len(bad) > 1 else ""
    problems.add(
        f"line {data.count(NEWLINE, 0, error.start) + 1}, byte {error.start} of the file: 0x{data[error.start]:02x} "
        f"is not {codec}, as files.encoding says ({error.reason}){where}; {hint}"
    )


def _decodes(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _is_rather_utf8(data: bytes, text: str, codec: str) -> bool:
    """One byte per character decodes anything; bytes beyond ASCII that happen to be valid utf-8 are very rare."""
    one_byte_each = not codec.startswith("utf") and len(text) == len(data)
    return one_byte_each and not data.isascii() and _decodes(data, "utf-8")


# ---------- text into rows and back.


EMPTY_LINES_AT_END = re.compile(r"\n(\r?\n)+\Z")
"""They are ignored; an empty line further up is a broken row."""

SEPARATORS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'"}
"""Separators in use, as they are written in YAML."""


@dataclass(frozen=True)
class FileForm:
    """How one file is written."""

    encoding: str = "utf-8"
    separator: str = ","
    quoting: str = "minimal"
    separator_setting: str = "files.separator"


@dataclass(frozen=True)
class TextTable:
    """A header and the rows that have as many cells as it."""

    header: tuple[str, ...]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        position = self.header.index(name)
        return [row[position] for row in self.rows]


def read_table(path: Path, form: FileForm, problems: Problems) -> TextTable | None:
    """Read one file; defects go to `problems`, and None comes back if there is no row to check."""
    return parse_table(read_bytes(path), form, problems)


def parse_table(data: bytes, form: FileForm, problems: Problems) -> TextTable | None:
    """As `read_table`, from the file's bytes."""
    text = decode(data, form.encoding, problems)
    if text is None:
        return None
    text = EMPTY_LINES_AT_END.sub("\n", text)
    records = _quoted_records(text, form.separator) if form.quoting == "minimal" else _plain_records(text, form)
    _, fields, defect = next(records, (1, [], ""))
    if defect or not any(fields):
        problems.add(f"line 1: expected a header with column names, found {defect or 'an empty line'}")
        return None
    header = tuple(fields)
    if len(header) == 1 and _names_separator(header[0], form, problems):
        return None
    rows = _full_rows(records, header, problems)
    if not rows and not problems:
        problems.add("a header and no rows; expected one or more")
    return TextTable(header, rows) if rows else None


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


def _full_rows(records: Iterator, header: tuple[str, ...], problems: Problems) -> list[list[str]]:
    """Rows as wide as the header; the others are problems."""
    rows, numbers, lines, broken = [], [], [], []
    for number, (line, fields, defect) in enumerate(records, start=1):
        if not defect and len(fields) == len(header):
            rows.append(fields)
            numbers.append(number)
            lines.append(line)
        else:
            found = f"{len(fields)} fields, the header has {len(header)}" if any(fields) else "an empty line"
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
    problems.add(
        f"only one column, {excerpt(header)}, when split at {form.separator!r}; "
        f"it looks split at {SEPARATORS[likely]}: set {form.separator_setting}: {SEPARATORS[likely]}"
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
