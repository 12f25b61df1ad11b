"""The C files of native/, compiled once for the processor they run on and kept beside them."""

import ctypes
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from foldblend.errors import UserError

SOURCES = Path(__file__).with_name("native_c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared", "-std=gnu11")
"""No -ffast-math: NaN must stay NaN, as checks.py looks for it. Square roots need not set errno."""

NUMBERS = {"I": ctypes.c_int, "L": ctypes.c_int64, "U": ctypes.c_uint32, "F": ctypes.c_float}
TENSORS = {"W": torch.float32, "B": torch.bool, "N": torch.int64}
"""Beside "S", a tensor of states."""

FUNCTIONS = {
    "gelu_forward": "SWSSLLI",
    "gelu_backward": "SSWLLI",
    "norm_forward": "WSWWWFUUFWWWSLLI",
    "norm_backward": "WWWWUUFWSWLLI",
    "add_states": "WSLI",
    "attention_forward": "SWBSLLLLFUUFI",
    "attention_backward": "SWBSSWLLLLFUUFI",
    "catch_up_rows": "NLWWWWWWFFFFLLI",
    "step_rows": "NWLWWWWFFFFFFFFFLI",
}
"""Each function's arguments: a tensor's memory, or a number. The last one is the number of threads."""

STATES = {torch.bfloat16: (), torch.float32: ("-DSTATES_ARE_FLOAT32",)}
"""What the matrix products may read and write, and the flags that compile for it."""


def run(name: str, dtype: torch.dtype, *arguments) -> None:
    """Call a function of the C files: tensors are passed as pointers, None as a null pointer, torch's threads last.

    Args:   dtype: of the states, one of STATES.
    Raises: UserError: C cannot read a tensor: it is not contiguous, not on the CPU, or of another type.
            MemoryError: the function found no memory.
    """
    plain = []
    for value, kind in zip(arguments, FUNCTIONS[name]):
        if isinstance(value, torch.Tensor):
            expected = TENSORS.get(kind, dtype)
            if not value.is_contiguous() or value.device.type != "cpu" or value.dtype != expected:
                shape = f"{value.dtype}, {value.device}, shape {tuple(value.shape)}, strides {value.stride()}"
                raise UserError(f"{name}: a tensor is {shape}; expected {expected} in one piece on the CPU")
            value = value.data_ptr()
        plain.append(value)
    if getattr(load_library(dtype), name)(*plain, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for {torch.get_num_threads()} threads")


def is_available() -> bool:
    """Whether this machine has a C compiler that makes the library."""
    return all(load_library(dtype) is not None for dtype in STATES)


@cache
def load_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for states of a type; None without a compiler, or if what it makes cannot be loaded."""
    program, *options = shlex.split(os.environ.get("CC", "")) or ["cc"]
    compiler = shutil.which(program)
    if platform.system() != "Linux" or compiler is None:
        return None
    command = [compiler, *options, *FLAGS, *STATES[dtype]]
    try:
        kept = SOURCES / "__pycache__" / _name(command)
        return _load_kept(command, kept) or _load_own(command, kept.name)
    except OSError:  # the compiler does not start, or nothing may be written anywhere
        return None


def _load_kept(command: list[str], kept: Path) -> ctypes.CDLL | None:
    """The library kept beside the sources, compiled if it is missing; None if it cannot be kept there."""
    try:
        kept.parent.mkdir(exist_ok=True)
        return _open(kept) if kept.is_file() or _build(command, kept) else None
    except OSError:
        return None


def _load_own(command: list[str], name: str) -> ctypes.CDLL | None:
    """Compiled for this process alone."""
    with tempfile.TemporaryDirectory(prefix="foldblend-") as folder:
        own = Path(folder) / name
        return _open(own) if _build(command, own) else None


def _name(command: list[str]) -> str:
    """A file name that changes with sources, compiler, flags and processor."""
    files = [path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]"))]
    compiler = os.stat(command[0])
    made_of = [*files, f"{command} {compiler.st_size} {compiler.st_mtime_ns}".encode(), _processor()]
    return hashlib.sha256(b"\0".join(made_of)).hexdigest()[:24] + ".so"


def _build(command: list[str], path: Path) -> bool:
    """Compile into `path`, whole or not at all. Raises OSError: nothing may be written there."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    temporary.touch()
    try:
        sources = sorted(str(file) for file in SOURCES.glob("*.c"))
        done = subprocess.run([*command, "-o", str(temporary), *sources, "-lm"], capture_output=True)
        if done.returncode == 0:
            os.replace(temporary, path)
        return done.returncode == 0
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # a folder that nothing may be run from, or no OpenMP
        return None
    for name, kinds in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = [NUMBERS.get(kind, ctypes.c_void_p) for kind in kinds]
        function.restype = ctypes.c_int if name.startswith("attention") else None
    return library


def _processor() -> bytes:
    """What -march=native looks at: folders are shared by machines that differ."""
    lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
