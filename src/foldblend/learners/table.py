"""What every learner is given and returns, and how a run gets its learner."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from foldblend.predictions import FoldPredictions
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS

# ---------- What every learner is given and returns.


@dataclass(frozen=True)
class Corpus:
    """Every text of the competition and what is known of it; shared by all folds of a run."""

    texts: tuple[str, ...]
    """n_train + n_test texts, the training rows first."""
    labels: np.ndarray
    """bool (n_train, L); with task multiclass exactly one True a row."""
    label_names: tuple[str, ...]
    """L names in submission order."""
    task: str
    """`multilabel` or `multiclass`."""
    cache_dir: Path | None = None
    """Where tokens of the texts may be kept for the next run and process; None is nowhere."""
    soft_targets: np.ndarray | None = None
    """float32 (n_train, L) in [0, 1]: what the training rows of a fold teach in the place of their labels; None is the
    labels themselves. Held-out rows are scored by their labels."""
    metric: str = "macro_f1"
    """What the competition scores, a name in METRICS: shown while training, and what weights may be chosen by."""

    @property
    def test_rows(self) -> np.ndarray:
        """int64 (n_test,): positions of the test rows in `texts`."""
        return np.arange(len(self.labels), len(self.texts))

    @property
    def taught(self) -> np.ndarray:
        """(n_train, L): what a row teaches where it is a training row, as bool or float32."""
        return self.labels if self.soft_targets is None else self.soft_targets


@dataclass(frozen=True)
class FoldRows:
    """One fold: which training rows teach and which are held out. The held-out rows' labels are read for the shown
    score, and where the settings choose the weights by it or by their loss."""

    fold: int
    train: np.ndarray
    """int64 (n_taught,), rising."""
    heldout: np.ndarray
    """int64 (n_heldout,), rising."""
    checkpoint_dir: Path
    """Where this fold may save itself."""


class Learner(Protocol):
    """A learner is made once a run and trains any number of its folds."""

    uses_all_processes: bool
    """Whether every process of a launch takes part; otherwise only the first one trains."""

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        """Train on rows.train, predict rows.heldout and the test rows. Goes on from a checkpoint where there is one.

        What predicts new texts stays in rows.checkpoint_dir, as `whole_files.WEIGHTS`.
        """

    def predict_fold(self, checkpoint_dir: Path) -> np.ndarray:
        """The corpus's test rows as a fold that was trained earlier sees them: float32 (n_test, L), of the same kind.

        The corpus may hold no training rows: labels (0, L). Raises ValueError: the weights are missing or damaged.
        """


# ---------- From a run to its learner; settings/tables.py lists the learners.


def build_learner(run: RunSettings, corpus: Corpus) -> Learner:
    """The learner that `run.learner` names, imported only now so that TF-IDF never loads torch."""
    build = LEARNERS[run.learner].build
    if isinstance(build, str):
        module, name = build.split(":")
        build = getattr(import_module(module), name)
    return build(run, corpus)


def needs_gpu(learner: str) -> bool:
    """Whether a GPU saves hours."""
    return LEARNERS[learner].needs_gpu
