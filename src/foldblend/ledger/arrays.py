"""Ledger room: numpy arrays in an .npz and back, with nothing believed that the file says about itself.

A file is refused before memory is spent on it: its members, their types, shapes and sizes must be the expected ones.
"""

import math
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foldblend.errors import UserError

Expected = dict[str, tuple[str, tuple[int | None, ...]]]
"""Member name -> (numpy kind: "f" float32, "i" int64, "U" text; shape, None where any length goes)."""
DTYPES = {"f": np.dtype(np.float32), "i": np.dtype(np.int64)}
DAMAGE = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError, UnicodeDecodeError, struct.error,
    OSError,
)  # fmt: skip
"""What zipfile raises on damaged files; OSError is a seek to where no file is."""
MAX_HEADER_BYTES = 4096
MAX_TEXT_LENGTH = 10_000
"""Longest id or label name, in characters, that a file may announce."""


def write_npz(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays uncompressed; equal arrays give equal bytes (no clock in the file). Raises: OSError."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def load_npz(path: Path, expected: Expected, others: bool = False) -> dict[str, np.ndarray]:
    """Read exactly the expected arrays; with `others` there may be more, which stay unread.

    Raises: ValueError: no zip (cut off?), missing or unknown members, a compressed or oversized member, another
            type or shape, an object array (pickle), or a member whose checksum does not fit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not others or Path(each.filename).stem in expected]
            _check_members(path, members, expected)
            return {name: _read_member(path, archive, name, *expected[name]) for name in expected}
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole .npz ({error}); cut off or damaged") from None


def _check_members(path: Path, members: list[zipfile.ZipInfo], expected: Expected) -> None:
    found = [member.filename for member in members]
    wanted = [f"{name}.npy" for name in expected]
    if sorted(found) != sorted(wanted):
        raise UserError(f"{path}: holds {_shown(found)}; expected {_shown(wanted)}, so another program wrote it")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UserError(
                f"{path}: {member.filename} is compressed, {member.compress_size} bytes that unpack to "
                f"{member.file_size}; this project writes plain ones, so another program wrote it"
            )


def _read_member(path: Path, archive: zipfile.ZipFile, name: str, kind: str, shape: tuple) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        found_shape, fortran, dtype = _read_header(path, name, member)
        if not _fits(dtype, kind) or fortran:
            raise UserError(f"{path}: {name} is of type {dtype}; expected {DTYPES.get(kind, 'text')}")
        if len(found_shape) != len(shape) or any(w is not None and f != w for f, w in zip(found_shape, shape)):
            raise UserError(f"{path}: {name} has shape {found_shape}; expected {_shape_shown(shape)}")
        size = math.prod(found_shape) * dtype.itemsize
        stored = archive.getinfo(f"{name}.npy").file_size
        if not size <= stored <= size + MAX_HEADER_BYTES:
            raise UserError(f"{path}: {name} is {stored} bytes long; its shape {found_shape} needs {size}")
        array = np.empty(found_shape, dtype)
        _fill(path, name, member, array)
        return array


def _read_header(path: Path, name: str, member: BinaryIO) -> tuple[tuple, bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(member)
        return readers[version](member, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(f"{path}: {name} does not open as a numpy array ({error})") from None


def _fits(dtype: np.dtype, kind: str) -> bool:
    """Exact types only: object arrays (pickle) and other byte orders or widths never pass."""
    if kind == "U":
        return dtype.kind == "U" and dtype.isnative and 0 < dtype.itemsize <= 4 * MAX_TEXT_LENGTH
    return dtype == DTYPES[kind] and dtype.isnative


def _fill(path: Path, name: str, member: BinaryIO, array: np.ndarray) -> None:
    """Read into the array; the zip's checksum is compared when its last byte has been read."""
    data = memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")
    done = 0
    while done < len(data):
        count = member.readinto(data[done : done + (1 << 20)])
        if not count:
            raise UserError(f"{path}: {name} ends after {done} of {len(data)} bytes; cut off")
        done += count
    if member.read(1):
        raise UserError(f"{path}: {name} goes on after its {len(data)} bytes")
    if array.dtype.kind == "U" and array.size and array.view(np.uint32).max() > 0x10FFFF:
        raise UserError(f"{path}: {name} holds bytes that are no text")


def _shown(names: list[str]) -> str:
    return ", ".join(sorted(names)[:8])[:300] or "nothing"


def _shape_shown(shape: tuple) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
