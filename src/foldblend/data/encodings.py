"""What the bytes of a file are: archives and spreadsheets by their first bytes, text by its encoding.

Nothing is guessed: bytes that are not what the settings say are a complaint with the settings that would read them.
"""

import codecs
import io
import json
import re
import zipfile
from dataclasses import dataclass, field

# ---------- files that are no text, whatever their name says.


KINDS = (
    (b"\x1f\x8b", "a gzip archive", ".gz"),
    (b"BZh", "a bzip2 archive", ".bz2"),
    (b"\xfd7zXZ\0", "an xz archive", ".xz"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ""),
    (b"Rar!\x1a\x07", "a rar archive", ""),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"ARROW1", "an Arrow (Feather) file", ""),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel file (.xls)", ""),
    (b"SQLite format 3\0", "an SQLite database", ""),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
    (b"%PDF-", "a PDF", ""),
    (b"{\\rtf", "a document in rich text format", ""),
    (b"\x80\x04\x95", "a Python pickle", ""),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer in place of the file", ""),
)
"""First bytes, what the file is, and the end of a name under which this project reads it."""
WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|head)\b", re.IGNORECASE)
LISTED_MEMBERS = 5


def name_kind(data: bytes, name: str) -> str:
    """A sentence on a file that is no delimited text, with what to do; empty if it may be one."""
    if data.startswith(b"PK\x03\x04"):
        return _name_zip(data, name)
    for first, kind, suffix in KINDS:
        if data.startswith(first):
            return f"{kind}, not delimited text; {_how_to_read(kind, suffix, name)}"
    if data[257:262] == b"ustar":
        return "a tar archive, not delimited text; unpack it and put the names of its files under files:"
    if WEB_PAGE.match(data):
        return "a web page, not delimited text: a login or an error page was saved in its place; get the file again"
    if data.lstrip().startswith((b"{", b"[")) and _is_json(data.lstrip()):
        return (
            f"JSON, not delimited text; rename it to {_with_suffix(name, '.jsonl or .json')} and set its name in files"
        )
    return ""


def _name_zip(data: bytes, name: str) -> str:
    try:
        members = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "a damaged zip archive, not delimited text; get it again"
    if "xl/workbook.xml" in members:
        return f"an Excel workbook, not delimited text; {_how_to_read('', '.xlsx', name)}"
    if any(member.startswith(("word/", "ppt/")) for member in members):
        return "an Office document, not delimited text; expected a table"
    shown = ", ".join([*members[:LISTED_MEMBERS], *(["..."] if len(members) > LISTED_MEMBERS else [])])
    return f"a zip archive with {shown[:200]}, not delimited text; {_how_to_read('', '.zip', name)}, or unpack it"


def _how_to_read(kind: str, suffix: str, name: str) -> str:
    if suffix:
        return f"rename it to {_with_suffix(name, suffix)} and set that name in files"
    return "get it again with `git lfs pull`" if "LFS" in kind else "convert it to .csv, or get it as one"


def _with_suffix(name: str, suffix: str) -> str:
    """train.csv -> train.csv.gz, but train.parquet and train.xlsx."""
    return (
        f"{name}{suffix}" if suffix in (".gz", ".bz2", ".xz", ".zip") else f"{name.rpartition('.')[0] or name}{suffix}"
    )


def _is_json(data: bytes) -> bool:
    """Whether the first line, or all of it, is a JSON object or list."""
    for part in (data.partition(b"\n")[0], data):
        try:
            return isinstance(json.loads(part), dict | list)
        except (ValueError, RecursionError):
            continue
    return False


# ---------- text by the encoding of the settings.


MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks and the encoding that reads them; utf-32's begins with utf-16's, so it is asked first."""
WRONG_BYTE = re.compile("[\udc80-\udcff]+")
"""A run of bytes that are not utf-8, as `surrogateescape` keeps them."""
HIGH_RUN = re.compile(rb"[\x80-\xff]+")
OTHER_SCRIPTS = "cp1251, gb18030, shift_jis, euc-kr, ..."
SHOWN_LINES = 10


@dataclass
class Decoded:
    """The text of a file."""

    text: str | None = None
    """None if it cannot be read on. Wrong bytes of a utf-8 file are kept in it as lone surrogates."""
    complaints: list[str] = field(default_factory=list)
    """Sentences on what is wrong with the file as a whole."""
    is_mixed: bool = False
    """Whether it is a utf-8 file with a few wrong bytes, whose rows are to be named or repaired."""


def decode(data: bytes, encoding: str, name: str, is_own: bool = False) -> Decoded:
    """The text of a file by the encoding that the settings name.

    Args:   name: of the file, for the settings that the complaints advise.
            is_own: whether the settings name the encoding of this very file, so that whoever did has looked at it.
    Returns: complaints and no text if the bytes cannot be in that encoding. A text with complaints has its rows and
             columns in the right places, so that more can be checked.
    """
    codec = codecs.lookup(encoding).name
    marked = next((mark_name for mark, mark_name in MARKS.items() if data.startswith(mark)), None)
    found = Decoded()
    try:
        found.text = data.decode(codec)
    except UnicodeDecodeError as error:
        return _explain_error(data, codec, error, marked, name)
    if found.text.startswith("\ufeff"):
        found.complaints.append(f"the file begins with a byte order mark: {advise(name, marked or 'utf-8-sig')}")
        found.text = found.text[1:]
    elif "\0" in found.text.partition("\n")[0]:
        header = f"the header holds NUL characters when read as {encoding}: is the file utf-16?"
        return Decoded(None, [f"{header} {advise(name, 'utf-16', 'Set')}, or utf-16-le"])
    elif _is_one_byte_each(codec, data, found.text) and (garbled := _find_garbled(data, encoding, name, is_own)):
        return Decoded(None, [garbled])
    return found


def advise(name: str, encoding: str, verb: str = "set") -> str:
    """The setting that reads one file by an encoding and leaves the others as they are."""
    return f"{verb} files.encodings: {{{name}: {encoding}}}"


def count_utf8(data: bytes) -> tuple[int, int]:
    """Stretches of bytes beyond ASCII that can only be utf-8, and those that are not utf-8.

    Two bytes are valid by chance in other encodings ("CAF\u00c9\u201d" in cp1252), but not beside a small letter, and
    three or more are not.

    Example: "caf\u00e9".encode() + b" \xe9 \xe8\xe9" -> (1, 2)
    """
    telling = wrong = 0
    for run in HIGH_RUN.finditer(data):
        if not _decodes(run[0], "utf-8"):
            wrong += 1
        elif len(run[0]) > 2 or (run[0][0] in LATIN_LEADS and _has_small_neighbour(data, *run.span())):
            telling += 1
    return telling, wrong


LATIN_LEADS = range(0xC2, 0xC6)
"""First bytes of the utf-8 of accented Latin letters."""


def _has_small_neighbour(data: bytes, start: int, end: int) -> bool:
    return data[max(0, start - 1) : start].islower() or data[end : end + 1].islower()


def is_mixed_utf8(telling: int, wrong: int) -> bool:
    """Whether a file is utf-8 with some wrong bytes; a few garbled words in another encoding are not enough."""
    return telling > 0 and MOST_WRONG * telling >= wrong


MOST_WRONG = 20
"""Wrong stretches per right one up to which a file counts as utf-8."""


def repair_cell(cell: str) -> str:
    """A cell whose wrong bytes are read as cp1252; the five bytes that cp1252 lacks become U+FFFD.

    Example: "caf\\udce9 über" -> "café über"
    """
    return WRONG_BYTE.sub(lambda run: run[0].encode("utf-8", "surrogateescape").decode("cp1252", "replace"), cell)


def _is_one_byte_each(codec: str, data: bytes, text: str) -> bool:
    """One byte per character decodes anything, so what it gives has to be looked at."""
    return not codec.startswith("utf") and len(text) == len(data) and not data.isascii()


def _find_garbled(data: bytes, encoding: str, name: str, is_own: bool) -> str:
    """A sentence if bytes that decode as one byte per character are utf-8 in truth."""
    if _decodes(data, "utf-8"):
        return f"read as {encoding} it is garbled, and all of it is valid utf-8: {advise(name, 'utf-8')}"
    telling, wrong = count_utf8(data)
    if is_own or not is_mixed_utf8(telling, wrong):
        return ""
    return (
        f"read as {encoding} it is garbled: {telling} of its words beyond ASCII are utf-8, and {wrong} are not. "
        f"{advise(name, 'utf-8', 'Set')} and files.invalid_bytes: cp1252, which reads only the others as cp1252; or "
        f"files.encodings: {{{name}: {encoding}}} if all of it is {encoding}"
    )


def _explain_error(data: bytes, codec: str, error: UnicodeDecodeError, marked: str | None, name: str) -> Decoded:
    """Name the lines that cannot be decoded, or only the first byte if the bytes do not show where lines end."""
    by_lines = codec in ("utf-8", "utf-8-sig", "ascii") and not marked
    lines = data.split(b"\n") if by_lines else []
    bad = [number for number, line in enumerate(lines, start=1) if not _decodes(line, codec)]
    cut = error.end == len(data) and bad in ([], [len(lines)])
    mixed = by_lines and codec != "ascii" and is_mixed_utf8(*count_utf8(data)) and not cut
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape") if by_lines else ""
    if mixed:
        return Decoded(text, [], is_mixed=True)
    where = f", and in lines {', '.join(map(str, bad[1:SHOWN_LINES]))}" if len(bad) > 1 else ""
    where += ", ..." if len(bad) > SHOWN_LINES else ""
    complaint = (
        f"line {data.count(bytes([10]), 0, error.start) + 1}, byte {error.start} of the file: "
        f"0x{data[error.start]:02x} is not {codec}, as files.encoding says ({error.reason}){where}; "
        f"{_hint(data, codec, marked, cut, name)}"
    )
    readable = by_lines and not WRONG_BYTE.search(text.partition("\n")[0])  # otherwise columns have no names
    return Decoded(text if readable else None, [complaint])


def _hint(data: bytes, codec: str, marked: str | None, cut: bool, name: str) -> str:
    """What to do about bytes that are not in the encoding of the settings."""
    if marked:
        return f"the file begins with the byte order mark of {marked}: {advise(name, marked)}"
    if _decodes(data, "utf-8"):
        return f"it is utf-8: {advise(name, 'utf-8')} (probably utf-8)"
    if cut:
        return "the file is cut off inside a character: get it again"
    if is_mixed_utf8(*count_utf8(data)) and not codec.startswith("utf-8"):
        return f"most of it is utf-8: {advise(name, 'utf-8')} and files.invalid_bytes: cp1252"
    if data[:1000].count(0) > len(data[:1000]) // 4:
        return f"it holds NUL bytes: is it utf-16? {advise(name, 'utf-16-le', 'Set')}"
    runs = [len(run) for run in HIGH_RUN.findall(data)]
    if sum(length for length in runs if length > 2) > sum(runs) / 2:
        return (
            f"words are written in bytes beyond ASCII, so it is of another script than Latin: ask for its encoding "
            f"({OTHER_SCRIPTS}), and {advise(name, 'THAT')}"
        )
    if codec != "cp1252" and _decodes(data, "cp1252"):
        return f"{advise(name, 'cp1252')} if that is what it was saved in (probably cp1252)"
    return f"ask what it was saved in, and {advise(name, 'THAT')}"


def _decodes(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True
