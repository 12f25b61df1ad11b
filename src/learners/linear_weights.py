"""What a linear learner fitted on one fold, in one safetensors file that is refused where it is not whole."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from learners.whole_files import WEIGHTS, checksum, cure, write_whole


def save_linear(folder: Path, arrays: dict[str, np.ndarray], identity: dict) -> None:
    """Write arrays of any type, and float64 ones as float32 where that loses nothing, whole or not at all.

    Args:   identity: what they were learned from, for `check_training`.
    Raises: OSError: the disk refused; an earlier file is whole.
    """
    arrays = {name: np.ascontiguousarray(_narrowed(array)) for name, array in arrays.items()}
    metadata = {"identity": json.dumps(identity), "crc32": checksum(arrays)}
    write_whole(folder / WEIGHTS, lambda temporary: save_file(arrays, temporary, metadata))


def load_linear(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `save_linear`; all numbers float64 where they were.

    Raises: ValueError: the file is missing, cut off, damaged, or of another program.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(f"{path} is missing: the fold was not trained here, or not to its end")
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stated = (file.metadata() or {})["crc32"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). {cure(path)}") from error
    if stated != checksum(arrays):
        raise ValueError(f"{path} is damaged (its checksum does not match). {cure(path)}")
    return {name: _widened(name, array) for name, array in arrays.items()}


def _narrowed(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float64:
        return array
    narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow, array) else array


def _widened(name: str, array: np.ndarray) -> np.ndarray:
    """float64, as it was fitted; inverse document frequencies are float32 from the start."""
    keeps = array.dtype != np.float32 or name.startswith("idf.")
    return array if keeps else array.astype(np.float64)
