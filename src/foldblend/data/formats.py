"""Files of any kind as tables of text: delimited, JSON, Parquet and Excel, packed or not, told by the end of the name.

A cell is the text that a CSV would have: null is empty, True is `True`, a list or an object is JSON.
"""

import bz2
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from foldblend.data.encodings import decode, name_kind
from foldblend.data.reading import FileForm, Problems, TextTable, excerpt, parse_table, quoted
from foldblend.errors import nearest
from foldblend.files import read_bytes

# ---------- one file, whatever its kind.


def read_file(path: Path, form: FileForm, problems: Problems) -> TextTable | None:
    """Read one file of any kind; defects go to `problems`, and None comes back if there is no row to check.

    Args: path: of a file that `find_file` finds.
    """
    archive, inner = find_file(path) or (path, "")
    data = read_bytes(archive)
    if not inner:
        return parse_file(data, path.name, form, problems)
    try:
        member = _unpack_zip(data, archive.name, problems, inner)
    except DAMAGE as error:
        problems.add(f"{archive.name} cannot be unpacked ({error}). Get it again")
        return None
    return None if member is None else parse_file(*member, form, problems)


def find_file(path: Path) -> tuple[Path, str] | None:
    """The file on the disk and the path inside of it; None if there is no such file.

    Example: data/mine/all.zip/csv/train.csv -> (data/mine/all.zip, "csv/train.csv"); data/mine/a.csv -> (it, "")
    """
    if path.is_file():
        return path, ""
    archives = (folder for folder in path.parents if folder.suffix.lower() == ".zip" and folder.is_file())
    archive = next(archives, None)
    return None if archive is None else (archive, path.relative_to(archive).as_posix())


def parse_file(data: bytes, name: str, form: FileForm, problems: Problems) -> TextTable | None:
    """As `read_file`, from the file's bytes and the name that tells its kind."""
    for _ in range(MOST_LAYERS):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in UNPACKERS:
            break
        try:
            unpacked = UNPACKERS[suffix](data, PurePosixPath(name).stem, problems)
        except DAMAGE as error:
            kind = name_kind(data, name) or "damaged"
            problems.add(f"cannot be unpacked as {suffix} ({error}): it is {kind}. Get the file again, or rename it")
            return None
        if unpacked is None:
            return None
        data, name = unpacked
    reader = READERS.get(PurePosixPath(name).suffix.lower())
    if reader:
        if not data.strip():
            problems.add("the file is empty; expected rows")
            return None
        return _checked(reader(data, form, problems), problems)
    return parse_table(data, _of_name(form, name, data), problems)


def _of_name(form: FileForm, name: str, data: bytes) -> FileForm:
    """A .tsv is split at tabs if the settings do not name its separator and its first line has a tab."""
    is_tsv = PurePosixPath(name).suffix.lower() in (".tsv", ".tab") and b"\t" in data.partition(b"\n")[0]
    return replace(form, separator="\t") if is_tsv and not form.separator_is_stated else form


def _checked(table: TextTable | None, problems: Problems) -> TextTable | None:
    """A table with half a surrogate pair in a cell is refused, as no file can hold it."""
    if table is None:
        return None
    bad = [
        (k, "a cell has half a surrogate pair, which is not Unicode") for k, row in enumerate(table.rows) if _lone(row)
    ]
    problems.add_rows("not Unicode", bad)
    if not table.rows and not problems:
        problems.add("no rows; expected one or more")
    return table if table.rows else None


def _lone(row: Iterable[str]) -> bool:
    return any("\ud800" <= character <= "\udfff" for cell in row if not cell.isascii() for character in cell)


# ---------- archives of one file.


DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, lzma.LZMAError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
"""What the libraries raise on damaged archives."""
MOST_LAYERS = 3
"""An archive in an archive in an archive."""
CHUNK = 1 << 20
SUSPICIOUS_BYTES = 1 << 28
SUSPICIOUS_RATIO = 200
"""What unpacks to more than so many bytes, at more than so many times its size, is a bomb."""


def _unpack_stream(open_stream: Callable) -> Callable:
    def unpack(data: bytes, stem: str, problems: Problems) -> tuple[bytes, str] | None:
        with open_stream(io.BytesIO(data)) as stream:
            whole = _inflate(stream, len(data), problems)
        return None if whole is None else (whole, stem)

    return unpack


def _inflate(stream, packed_bytes: int, problems: Problems) -> bytes | None:
    parts, total = [], 0
    while part := stream.read(CHUNK):
        parts.append(part)
        total += len(part)
        if total > SUSPICIOUS_BYTES and total > SUSPICIOUS_RATIO * packed_bytes:
            problems.add(f"{packed_bytes:,} bytes unpack to more than {total:,}: no table does. Unpack it by hand")
            return None
    return b"".join(parts)


def _unpack_zip(data: bytes, stem: str, problems: Problems, inner: str = "") -> tuple[bytes, str] | None:
    """The only file of a .zip, or the one that has its name: train.csv in train.csv.zip; or that of path `inner`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [one for one in archive.infolist() if not one.is_dir() and _is_table(one.filename)]
        same = [one for one in members if PurePosixPath(one.filename).name == stem]
        chosen = members if len(members) == 1 else same
        if inner:
            chosen = [one for one in members if one.filename == inner]
        if inner and len(chosen) != 1:
            names = [one.filename for one in members]
            problems.add(f"{stem} holds no {excerpt(inner)}{nearest(inner, names) or f'; it holds {quoted(names)}'}")
            return None
        if len(chosen) != 1:
            names = quoted(one.filename for one in members) or "no file"
            problems.add(
                f"the archive holds {names}; expected one file, or one called {excerpt(stem)}. Unpack it, or "
                "name one of them in files, as ARCHIVE.zip/FILE"
            )
            return None
        if chosen[0].flag_bits & 1:
            problems.add(f"{excerpt(chosen[0].filename)} is behind a password. Unpack it by hand")
            return None
        with archive.open(chosen[0]) as stream:
            whole = _inflate(stream, max(chosen[0].compress_size, 1), problems)
    return None if whole is None else (whole, PurePosixPath(chosen[0].filename).name)


def _is_table(member: str) -> bool:
    """Not what macOS adds."""
    return not member.startswith("__MACOSX/") and not PurePosixPath(member).name.startswith(".")


UNPACKERS: dict[str, Callable[[bytes, str, Problems], tuple[bytes, str] | None]] = {
    ".gz": _unpack_stream(lambda stream: gzip.GzipFile(fileobj=stream)),
    ".bz2": _unpack_stream(bz2.BZ2File),
    ".xz": _unpack_stream(lzma.LZMAFile),
    ".zip": _unpack_zip,
}
"""End of a name -> (bytes, rest of the name, problems) to bytes and name of what is inside."""


# ---------- JSON lines and JSON.


def _read_json_lines(data: bytes, form: FileForm, problems: Problems) -> TextTable | None:
    text = _decode_json(data, form, problems)
    if text is None:
        return None
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    problems.row_numbers = problems.line_numbers = range(1, len(lines) + 1)
    found = [_parse_object(line) for line in lines]
    problems.add_rows("broken", [(row, one) for row, one in enumerate(found) if isinstance(one, str)])
    good = [(number, one) for number, one in enumerate(found, start=1) if isinstance(one, dict)]
    problems.row_numbers = problems.line_numbers = [number for number, _ in good]
    return _from_objects([one for _, one in good])


def _decode_json(data: bytes, form: FileForm, problems: Problems) -> str | None:
    """JSON is utf-8, so the encoding of the settings counts only if it is another one; a byte order mark may stay."""
    if not data.lstrip().startswith((b"{", b"[", b"\xef\xbb\xbf")) and (
        kind := name_kind(data, Path(problems.path).name)
    ):
        problems.add(f"the file is {kind.replace('delimited text', 'JSON')}")
        return None
    decoded = decode(data.removeprefix(b"\xef\xbb\xbf"), form.encoding, Path(problems.path).name)
    for complaint in decoded.complaints:
        problems.add(complaint)
    if decoded.is_mixed:
        problems.add(
            "the file is utf-8, but a few of its bytes are not, which JSON does not allow; expected utf-8 "
            "throughout, so correct them"
        )
        return None
    return None if decoded.complaints else decoded.text


def _parse_object(line: str) -> dict | str:
    """The object of a line, or a sentence on what it is instead."""
    try:
        value = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error}); expected an object per line" if line.strip() else "an empty line"
    return value if isinstance(value, dict) else f"{excerpt(line)}; expected an object per line"


def _once(pairs: list[tuple[str, Any]]) -> dict:
    """An object in which no key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is there twice: {quoted(dict.fromkeys(key for key, _ in pairs))}")
    return found


def _read_json(data: bytes, form: FileForm, problems: Problems) -> TextTable | None:
    """A list of objects; columns as pandas writes them; {columns, data}; or one such list under one key."""
    text = _decode_json(data, form, problems)
    if text is None:
        return None
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(_parse_object(text.partition("\n")[0]), dict) and "\n" in text.strip():
            return _read_json_lines(data, form, problems)  # JSON lines under the name of JSON
        problems.add(f"no JSON: {error}. Expected a list of objects")
        return None
    table = _from_json(value)
    if table is None:
        problems.add(f"JSON of another shape, {excerpt(text.strip())}; expected a list of objects, one per row")
        return None
    problems.row_numbers = range(1, len(table.rows) + 1)
    return table


def _from_json(value: Any) -> TextTable | None:
    """A table from the shapes that pandas.DataFrame.to_json writes; None for others."""
    if isinstance(value, list):
        return _from_objects(value) if all(isinstance(one, dict) for one in value) else None
    if not isinstance(value, dict) or not value:
        return None
    columns = value.get("columns")
    if isinstance(columns, list) and isinstance(value.get("data"), list):
        rows = value["data"]
        if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
            return None
        return TextTable(tuple(map(as_cell, columns)), [[as_cell(cell) for cell in row] for row in rows])
    parts = list(value.values())
    if all(isinstance(part, dict) for part in parts) and all(part.keys() == parts[0].keys() for part in parts):
        rows = zip(*(part.values() for part in parts), strict=True)
        return TextTable(tuple(value), [[as_cell(cell) for cell in row] for row in rows])
    if all(isinstance(part, list) for part in parts) and all(len(part) == len(parts[0]) for part in parts):
        if len(parts) == 1 and all(isinstance(one, dict) for one in parts[0]):
            return _from_objects(parts[0])
        return TextTable(tuple(value), [[as_cell(cell) for cell in row] for row in zip(*parts, strict=True)])
    tables = [part for part in parts if isinstance(part, list | dict)]
    if len(tables) == 1 and isinstance(tables[0], list) and all(isinstance(one, dict) for one in tables[0]):
        return _from_objects(tables[0])  # beside a version or a title
    return None


def _from_objects(objects: list[dict]) -> TextTable:
    """Columns in the order in which keys first appear; an absent key is an empty cell."""
    header = tuple(dict.fromkeys(key for one in objects for key in one))
    return TextTable(header, [[as_cell(one.get(name)) for name in header] for one in objects])


def as_cell(value: Any) -> str:
    """A value as a CSV would have it.

    Example: None, True, 3, 0.5, "a", ["a", 1] -> "", "True", "3", "0.5", "a", '["a", 1]'
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:  # nan
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# ---------- Parquet and Excel, whose libraries are not needed otherwise.


def _read_parquet(data: bytes, form: FileForm, problems: Problems) -> TextTable | None:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        problems.add("a .parquet file needs the package pyarrow. Run: pip install pyarrow")
        return None
    try:
        table = parquet.read_table(io.BytesIO(data))
    except (ArrowException, OSError, ValueError) as error:
        kind = name_kind(data, Path(problems.path).name)
        reason = str(error).partition("\n")[0][:200]
        problems.add(f"no readable Parquet ({reason}){f'; it is {kind}' if kind and data[:4] != b'PAR1' else ''}")
        return None
    problems.row_numbers = range(1, table.num_rows + 1)
    columns = [[as_cell(value) for value in column.to_pylist()] for column in table.columns]
    return TextTable(tuple(table.column_names), [list(row) for row in zip(*columns, strict=True)])


def _read_excel(data: bytes, form: FileForm, problems: Problems) -> TextTable | None:
    """One sheet; numbers as a spreadsheet shows them, so 3.0 is 3."""
    try:
        import openpyxl
    except ImportError:
        problems.add("an .xlsx file needs the package openpyxl. Run: pip install openpyxl")
        return None
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except Exception as error:  # whatever the library meets in a damaged archive
        kind = name_kind(data, Path(problems.path).name)
        problems.add(f"no readable Excel workbook ({str(error)[:200]}){f'; it is {kind}' if kind else ''}")
        return None
    names = book.sheetnames
    if form.sheet not in ("", *names) or (not form.sheet and len(names) != 1):
        problems.add(f"the workbook has the sheets {quoted(names)}: set files.sheet to one of them")
        return None
    rows = [[_excel_cell(cell) for cell in row] for row in book[form.sheet or names[0]].iter_rows(values_only=True)]
    return _from_sheet(rows, form, problems)


def _excel_cell(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else as_cell(value)


def _from_sheet(rows: list[list[str]], form: FileForm, problems: Problems) -> TextTable | None:
    """Without the empty rows and columns at the end that spreadsheets keep."""
    while rows and not any(rows[-1]):
        rows.pop()
    width = max((k + 1 for row in rows for k, cell in enumerate(row) if cell), default=0)
    rows = [[*row[:width], *[""] * (width - len(row))] for row in rows]
    if not rows:
        return TextTable((), [])
    header = form.columns or tuple(rows.pop(0))
    problems.row_numbers = range(1, len(rows) + 1)
    if len(header) != width:
        problems.add(f"{width} columns, files.columns lists {len(header)}")
        return None
    return TextTable(header, rows)


READERS: dict[str, Callable[[bytes, FileForm, Problems], TextTable | None]] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".xlsx": _read_excel,
}
"""End of a name -> how such a file is read; every other file is delimited text."""
