"""competition/: delimited files, bytes to rows and back, by the encoding, separator and quoting that were stated.

Every cell stays the text it is: "NA" and "007" are not touched, no row is skipped, line ends inside quotes survive.
The csv module reads strictly, where pandas' reader forgives a stray quote, a short row and a blank line.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from competition.decoding import decode
from competition.problems import Problems, excerpt

EMPTY_LINES_AT_END = re.compile(r"\n(\r?\n)+\Z")
"""They hold nothing; an empty line further up is a broken row."""

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
    """Read one file; defects go to `problems`, and None comes back where there is no row to check."""
    return parse_table(path.read_bytes(), form, problems)


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
    """Whether the only column looks like several; then that is the problem, and not each row."""
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
