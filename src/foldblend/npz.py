"""Numpy arrays in an .npz and back; a file is refused before memory is spent on what it says about itself.

numpy's own reader unpacks each member, without pickle. Before that its names, types, shapes and sizes are compared
with the expected ones: numpy.load alone would unpack a zip bomb and allocate whatever shape a header announces.
"""

import math
import struct
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foldblend.errors import UserError

Expected = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Member name -> (numpy kind: "f" float32, "i" int64, "B" bytes, "U" text; shape, None where any length may stand)."""
DTYPES: dict[str, np.dtype] = {"f": np.dtype(np.float32), "i": np.dtype(np.int64), "B": np.dtype(np.uint8)}
MAX_HEADER_BYTES = 4096
MAX_TEXT_LENGTH = 10_000
"""Longest id or label name, in characters, that a file may announce."""
DAMAGE = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError, ValueError, struct.error, OSError,
)  # fmt: skip
"""What zipfile and numpy raise on damaged files, found by changing every byte of one; OSError is a seek to nowhere."""


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays uncompressed; equal arrays give equal bytes, since no clock goes into the file. Raises: OSError."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def load_npz(path: Path, expected: Expected, others: bool = False) -> dict[str, np.ndarray]:
    """Read exactly the expected arrays; with `others` there may be more, which stay unread.

    Raises: UserError: no zip (cut off?), missing or unknown members, a compressed or oversized member, a different
            type or shape, an object array (pickle), or a member whose checksum does not fit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not others or Path(each.filename).stem in expected]
            _check_members(path, members, expected)
            return {name: _read_member(path, archive, name, *expected[name]) for name in expected}
    except UserError:
        raise
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
    _check_header(path, archive, name, kind, shape)
    with archive.open(f"{name}.npy") as member:  # opened anew: after a seek zipfile no longer compares the checksum
        array = np.lib.format.read_array(member, allow_pickle=False, max_header_size=MAX_HEADER_BYTES)
    if array.dtype.kind == "U" and array.size and array.reshape(-1).view(np.uint32).max() > 0x10FFFF:
        raise UserError(f"{path}: {name} holds bytes that are not text")
    return array


def _check_header(path: Path, archive: zipfile.ZipFile, name: str, kind: str, shape: tuple) -> None:
    """Type, shape and size of one member, told from its first bytes."""
    with archive.open(f"{name}.npy") as member:
        found_shape, fortran, dtype = _read_header(path, name, member)
        stored = archive.getinfo(f"{name}.npy").file_size - member.tell()
    if not _fits(dtype, kind) or fortran:
        raise UserError(f"{path}: {name} is of type {dtype}; expected {DTYPES.get(kind, 'text')}")
    if len(found_shape) != len(shape) or any(w is not None and f != w for f, w in zip(found_shape, shape)):
        raise UserError(f"{path}: {name} has shape {found_shape}; expected {_shape_shown(shape)}")
    size = math.prod(found_shape) * dtype.itemsize
    if stored != size:
        raise UserError(f"{path}: {name} holds {stored} bytes of numbers; its shape {found_shape} needs {size}")


def _read_header(path: Path, name: str, member) -> tuple[tuple, bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(member)
        return readers[version](member, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise UserError(f"{path}: {name} does not open as a numpy array ({error})") from None


def _fits(dtype: np.dtype, kind: str) -> bool:
    """Exact types only: object arrays (pickle) and other byte orders or widths never pass."""
    if kind == "U":
        return dtype.kind == "U" and dtype.isnative and 0 < dtype.itemsize <= 4 * MAX_TEXT_LENGTH
    return dtype == DTYPES[kind] and dtype.isnative


def _shown(names: list[str]) -> str:
    return ", ".join(sorted(names)[:8])[:300] or "nothing"


def _shape_shown(shape: tuple) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
