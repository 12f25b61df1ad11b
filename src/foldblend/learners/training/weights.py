"""What a fold's weights were learned from, written into their file: settings, texts, labels or soft targets, rows."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from foldblend.errors import UserError
from foldblend.learners.table import Corpus, FoldRows
from foldblend.settings.loading import describe_differences, settings_of, with_defaults
from foldblend.settings.run import RunSettings

# ----------
# A file of weights reaches the disk whole or not at all, with a checksum of its arrays and what it was trained on.


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
        raise UserError(f"{path} is damaged ({error}). {cure(path)}") from error


def cure(path: Path) -> str:
    """What to run where a file is damaged."""
    return f"Train the fold anew: rm '{path}' and run the same command again"


# ---------- What a linear learner fitted on one fold, in one safetensors file that is refused where it is not whole.


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
        raise UserError(f"{path} is missing: the fold was not trained here, or not to its end")
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stated = (file.metadata() or {})["crc32"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}). {cure(path)}") from error
    if stated != checksum(arrays):
        raise UserError(f"{path} is damaged (its checksum does not match). {cure(path)}")
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


# ----------
# What a fold's weights were learned from, written into their file: settings, texts, labels or soft targets, rows.


def describe_training(run: RunSettings, corpus: Corpus, rows: FoldRows) -> dict:
    """The settings that the learner reads, and hashes of the rest."""
    data = hashlib.sha256()
    for text in corpus.texts:
        data.update(text.encode("utf-8", "surrogatepass") + b"\0")
    data.update(np.packbits(corpus.labels).tobytes())
    if corpus.soft_targets is not None:
        data.update(corpus.soft_targets.tobytes())
    data.update("\0".join(corpus.label_names).encode())
    return {
        **settings_of(run),
        "data_sha256": data.hexdigest(),
        "fold_rows_sha256": hash_fold_rows(rows.train, rows.heldout),
    }


def hash_fold_rows(train: np.ndarray, heldout: np.ndarray) -> str:
    """Which rows taught and which were held out; int64 both."""
    return hashlib.sha256(train.tobytes() + b"|" + heldout.tobytes()).hexdigest()


def check_training(checkpoint_dir: Path, settings: dict, fold_rows_sha256: str) -> None:
    """Prove that a finished fold's weights are of these settings, as its record has them, and of these rows.

    Raises: ValueError: what differs, or the file is damaged.
    """
    path = checkpoint_dir / WEIGHTS
    stored = read_identity(path)
    stored.pop("data_sha256", None)
    recorded = with_defaults({**settings, "fold_rows_sha256": fold_rows_sha256})
    differences = describe_differences(with_defaults(stored), recorded)
    if differences:
        raise UserError(f"{path} is of another training than its record in oof/: {'; '.join(differences)}")
