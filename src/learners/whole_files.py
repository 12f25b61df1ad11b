"""A file of weights reaches the disk whole or not at all, with a checksum of its arrays and what it was trained on."""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

WEIGHTS = "weights.safetensors"
"""What a finished fold leaves in its folder, whatever learned it."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path` that then takes its place; what a killed writer left there is removed.

    One process at a time writes into a fold's folder: train.py holds its lock.

    Raises: OSError: the disk refused; the file of before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(".*.safetensors.*.tmp"):
        abandoned.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        cure = "Free space or choose another disk; what was saved before is whole"
        raise OSError(f"{path}: cannot be saved ({error}). {cure}") from error
    finally:
        temporary.unlink(missing_ok=True)


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """crc32 of all names and bytes, 8 hex digits. Args: arrays: name -> contiguous array of any type."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].reshape(-1).view(np.uint8), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def read_identity(path: Path) -> dict:
    """What a file of weights says it was trained on; its tensors stay unread.

    Raises: ValueError: no whole file of weights.
    """
    try:
        with safe_open(path, framework="np") as file:
            return dict(json.loads((file.metadata() or {})["identity"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). {cure(path)}") from error


def cure(path: Path) -> str:
    """What to run where a file is damaged."""
    return f"Train the fold anew: rm '{path}' and run the same command again"
