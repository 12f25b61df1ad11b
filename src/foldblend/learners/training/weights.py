"""The weights file that every trained fold leaves behind: written whole, checked when read, with what it learned from.

Nothing here needs torch, so the linear learners use it too. training/checkpoints.py adds what a neural fold saves
while it trains.
"""

import hashlib
import json
import re
import shlex
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from foldblend.errors import UserError
from foldblend.features import FittedFeatures
from foldblend.files import write_whole
from foldblend.learners.table import Corpus, FoldRows
from foldblend.settings.records import describe_differences, settings_of, with_defaults
from foldblend.settings.run import RunSettings

WEIGHTS = "weights.safetensors"
"""What a finished fold leaves in its folder, whatever learned it."""

FEATURES = "features"
"""In its identity: how the fold reads the columns beside the text, if it does."""

UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError, RecursionError)
"""What reading a damaged safetensors file, or its metadata, may raise."""

# 1. One safetensors file: whole on disk, refused if missing or damaged


def write_tensors(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a safetensors file to the path it is given, then give that file its name; whole or not at all.

    One process at a time writes into a fold's folder (train.py holds its lock), so what a killed one left is removed.

    Raises: FileError: the disk refused; an earlier file of that name is whole.
    """

    def save_or_explain(temporary: Path) -> None:
        try:
            save(temporary)
        except SafetensorError as error:  # it wraps the system's error, such as a full disk, as text
            code = re.search(r"(?:os error|code:) (\d+)", str(error))
            raise OSError(int(code[1]) if code else 0, str(error)) from error

    write_whole(path, save_or_explain, exclusive=True)


def find_weights_file(folder: Path) -> Path:
    """The weights file of a finished fold. Raises UserError: it is missing."""
    path = folder / WEIGHTS
    if not path.exists():
        raise UserError(
            f"{path} is missing: this fold was not trained here, or not to its end. Copy its folder here, or train it: "
            f"accelerate launch src/train.py --run {folder.parent.name} --fold {folder.name.removeprefix('fold')}"
        )
    return path


def damaged(path: Path, reason: object) -> UserError:
    """The error for a file that cannot be trusted, with what to run."""
    return UserError(f"{path} is damaged ({reason}). Remove it and train the fold again: rm {shlex.quote(str(path))}")


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """crc32 of all names and bytes, 8 hex digits. Args: arrays: name -> contiguous array of any type."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].reshape(-1).view(np.uint8), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def read_features(folder: Path) -> FittedFeatures | None:
    """How a finished fold reads the columns beside the text; None if it reads none."""
    record = read_identity(find_weights_file(folder)).get(FEATURES)
    return None if record is None else FittedFeatures.from_record(record)


def read_identity(path: Path) -> dict:
    """What a weights file says it was trained on; its tensors are not read. Raises UserError: it is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(json.loads((file.metadata() or {})["identity"]))
    except UNREADABLE as error:
        raise damaged(path, error) from error


# 2. The weights of a linear learner


def save_linear(folder: Path, arrays: dict[str, np.ndarray], identity: dict) -> None:
    """Write arrays of any type; float64 ones as float32 if that loses nothing.

    Args:   identity: what they were learned from, for `check_training`.
    Raises: OSError: the disk refused; an earlier file is whole.
    """
    arrays = {name: np.ascontiguousarray(_narrowed(array)) for name, array in arrays.items()}
    metadata = {"identity": json.dumps(identity), "crc32": checksum(arrays)}
    write_tensors(folder / WEIGHTS, lambda temporary: save_file(arrays, temporary, metadata))


def load_linear(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `save_linear`, float64 again if they were.

    Raises: UserError: the file is missing, cut off, damaged, of another program, or holds NaN.
    """
    path = find_weights_file(folder)
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stated = (file.metadata() or {})["crc32"]
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if stated != checksum(arrays):
        raise damaged(path, "its checksum does not match")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise damaged(path, f"{name} holds NaN")
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


# 3. The identity: what weights were learned from (settings, texts, labels or soft targets, rows)


def describe_training(run: RunSettings, corpus: Corpus, rows: FoldRows) -> dict:
    """The settings that the learner reads, and hashes of the rest."""
    data = hashlib.sha256()
    for text in corpus.texts:
        data.update(text.encode("utf-8", "surrogatepass") + b"\0")
    data.update(np.packbits(corpus.labels).tobytes())
    if corpus.soft_targets is not None:
        data.update(corpus.soft_targets.tobytes())
    if corpus.known is not None:
        data.update(np.packbits(corpus.known).tobytes())
    data.update("\0".join(corpus.label_names).encode())
    for source in corpus.sources:
        for array in (source.probs, source.weights, source.forbidden):
            data.update(np.ascontiguousarray(array).tobytes())
    if corpus.teacher is not None and corpus.teacher.probs is not None:
        data.update(np.ascontiguousarray(corpus.teacher.probs).tobytes())
    fitted, features = corpus.fit_features(rows.train), {}
    if fitted is not None:
        data.update(corpus.features.sha256().encode())
        features = {FEATURES: fitted.record()}
    return {
        **settings_of(run),
        **features,
        "data_sha256": data.hexdigest(),
        "fold_rows_sha256": hash_fold_rows(rows.train, rows.heldout),
    }


def hash_fold_rows(train: np.ndarray, heldout: np.ndarray) -> str:
    """sha256 of which rows were trained on and which were held out; int64 both."""
    return hashlib.sha256(train.tobytes() + b"|" + heldout.tobytes()).hexdigest()


def check_training(checkpoint_dir: Path, settings: dict, fold_rows_sha256: str) -> None:
    """Prove that a finished fold's weights are of these settings, as its record has them, and of these rows.

    Raises: UserError: the file is missing or damaged, or what differs.
    """
    path = find_weights_file(checkpoint_dir)
    stored = read_identity(path)
    for name in ("data_sha256", FEATURES):  # no setting
        stored.pop(name, None)
    recorded = with_defaults({**settings, "fold_rows_sha256": fold_rows_sha256})
    differences = describe_differences(with_defaults(stored), recorded)
    if differences:
        raise UserError(f"{path} is of another training than its record in oof/: {'; '.join(differences)}")
