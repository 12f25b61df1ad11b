"""What a fold's weights were learned from, written into their file: settings, texts, labels or soft targets, rows."""

import hashlib
from pathlib import Path

import numpy as np

from learners.interface import Corpus, FoldRows
from learners.whole_files import WEIGHTS, read_identity
from settings.loading import settings_of
from settings.older import with_defaults
from settings.run import RunSettings
from settings.strict import describe_differences


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
        raise ValueError(f"{path} is of another training than its record in oof/: {'; '.join(differences)}")
