"""competition/: bytes into text by the stated encoding; a wrong statement is shown by where the bytes contradict it."""

import codecs

from competition.problems import Problems, shortened

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
    """The text of a file; None, with the reason in `problems`, where it is empty or not in that encoding."""
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
    """Name the lines that cannot be decoded, or only the first byte where lines cannot be told apart."""
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
    """One byte a character decodes anything; bytes beyond ASCII that form valid utf-8 by chance are very rare."""
    one_byte_each = not codec.startswith("utf") and len(text) == len(data)
    return one_byte_each and not data.isascii() and _decodes(data, "utf-8")
