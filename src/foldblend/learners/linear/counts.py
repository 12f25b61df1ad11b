"""N-gram counts of a competition's texts, counted once for all folds, runs and processes of a machine.

Counting takes longer than all that a fold does with the counts: five processes that count the same texts, one per fold,
took 46 s where one took 14 s.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import sklearn

from foldblend.files import FileError, hold_lock, replacing

Counts = list[tuple[np.ndarray, sp.csr_matrix]]
"""Per counter: n-grams as text, (D,), and how often each text has them, float32 (n_texts, D)."""

FORMAT = 1
"""Increase it when the code counts other n-grams from the same texts and settings."""
WORTHWHILE_CHARACTERS = 500_000
"""Fewer are counted in less than a second."""
LARGEST_BYTES = 2 << 30
"""Larger counts are not kept: reading them would take as long as counting, and fill the disk."""


def load_or_count(cache_dir: Path | None, texts: Sequence[str], settings: dict, count: Callable[[], Counts]) -> Counts:
    """Read the counts from the cache if another fold, run or process has left them there; otherwise count.

    Processes that start at once wait for the first one. A cache that is damaged or cannot be written costs time only.

    Args: cache_dir: None is no cache.   settings: what the counts follow from beside the texts, in JSON's types.
    """
    if cache_dir is None or sum(map(len, texts)) < WORTHWHILE_CHARACTERS:
        return count()
    path = cache_dir / f"{_hash_inputs(texts, settings)}.ngrams.npz"
    found = _read(path)
    if found is not None:
        return found
    try:
        with hold_lock(path.with_suffix(".lock")):
            found = _read(path)
            if found is not None:
                return found
            counts = count()
            if _size(counts) <= LARGEST_BYTES:
                _write(path, counts)
            return counts
    except FileError:
        return count()


def _hash_inputs(texts: Sequence[str], settings: dict) -> str:
    total = hashlib.sha256(json.dumps([FORMAT, sklearn.__version__, settings], sort_keys=True).encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        total.update(f"{len(encoded)}:".encode() + encoded)
    return total.hexdigest()[:32]


def _size(counts: Counts) -> int:
    return sum(part.data.nbytes + part.indices.nbytes + part.indptr.nbytes for _, part in counts)


def _write(path: Path, counts: Counts) -> None:
    arrays = {}
    for i, (names, part) in enumerate(counts):
        arrays[f"names.{i}"] = np.frombuffer(json.dumps(names.tolist()).encode(), np.uint8)
        arrays |= {f"{name}.{i}": getattr(part, name) for name in ("data", "indices", "indptr")}
        arrays[f"shape.{i}"] = np.array(part.shape)
    with replacing(path) as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Counts | None:
    """Read the counts; None if there are none, or the file is damaged (zip files have checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            numbers = range(sum(name.startswith("names.") for name in file.files))
            return [(_names(file[f"names.{i}"]), _matrix(file, i)) for i in numbers]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _names(encoded: np.ndarray) -> np.ndarray:
    return np.array(json.loads(encoded.tobytes()), dtype=object)


def _matrix(file, i: int) -> sp.csr_matrix:
    parts = (file[f"{name}.{i}"] for name in ("data", "indices", "indptr"))
    return sp.csr_matrix(tuple(parts), shape=tuple(file[f"shape.{i}"].tolist()))
