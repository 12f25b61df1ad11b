"""The C files of native/, compiled once for the processor they run on and kept beside them."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCES = Path(__file__).with_name("native")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-std=gnu11")
"""No -ffast-math: what is not a number must stay so, as the gates look for it."""

KINDS = {
    "P": ctypes.c_void_p,
    "I": ctypes.c_int,
    "L": ctypes.c_int64,
    "U": ctypes.c_uint32,
    "F": ctypes.c_float,
}
FUNCTIONS = {
    "gelu_forward": "PPLI",
    "gelu_backward": "PPPLLI",
    "norm_forward": "PPPPFUUFPPPPLLI",
    "norm_backward": "PPPPUUFPPPLLI",
    "add_states": "PPLI",
    "attention_forward": "PPPLLLLFUUFI",
    "attention_backward": "PPPPPLLLLFUUFI",
}
"""Each function's arguments: pointer, int, int64, uint32, float. The last one is the number of threads."""

STATES = {torch.bfloat16: (), torch.float32: ("-DSTATES_ARE_FLOAT32",)}
"""What the matrix products may read and write, and the flags that compile for it."""


def run(name: str, dtype: torch.dtype, *arguments) -> None:
    """Call a function of the C files; tensors stand for their memory, None for none; torch's threads are added.

    Args:   dtype: of the states, one of STATES; of each tensor, what the C files say.
    Raises: ValueError: a tensor does not lie in one piece.   MemoryError: the function found no memory.
    """
    plain = []
    for value in arguments:
        if isinstance(value, torch.Tensor):
            if not value.is_contiguous():
                raise ValueError(f"{name}: a tensor of shape {tuple(value.shape)} does not lie in one piece")
            value = value.data_ptr()
        plain.append(value)
    if getattr(load_library(dtype), name)(*plain, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for {torch.get_num_threads()} threads")


def is_available() -> bool:
    """Whether this machine has a C compiler that makes the library, or has made it before."""
    return all(load_library(dtype) is not None for dtype in STATES)


@cache
def load_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for states of a type; None without a compiler, or where it refuses the files."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if platform.system() != "Linux" or compiler is None:
        return None
    path = _compile([compiler, *FLAGS, *STATES[dtype]])
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    for name, kinds in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = [KINDS[kind] for kind in kinds]
        function.restype = ctypes.c_int if name.startswith("attention") else None
    return library


def _compile(command: list[str]) -> Path | None:
    """The library's file, named by what it was made of: where it lies already, nothing is compiled."""
    files = sorted(SOURCES.glob("*.[ch]"))
    made_of = [*(path.read_bytes() for path in files), " ".join(command).encode(), _processor()]
    name = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:24] + ".so"
    folder = SOURCES / "__pycache__"
    if (folder / name).is_file():
        return folder / name
    try:
        folder.mkdir(exist_ok=True)
        return _build(command, files, folder / name)
    except OSError:  # the code lies where nothing may be written: this process compiles for itself
        return _build(command, files, Path(tempfile.mkdtemp(prefix="foldblend-")) / name)


def _build(command: list[str], files: list[Path], path: Path) -> Path | None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    sources = [str(file) for file in files if file.suffix == ".c"]
    try:
        done = subprocess.run([*command, "-o", str(temporary), *sources, "-lm"], capture_output=True)
        if done.returncode:
            return None
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _processor() -> bytes:
    """What -march=native looks at: folders are shared by machines that differ."""
    lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
