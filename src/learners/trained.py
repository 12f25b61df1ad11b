"""New texts through a run's trained folds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from learners.identity import check_training, hash_fold_rows
from learners.interface import Corpus
from learners.table import build_learner
from settings.run import READ_BY, RunSettings


def predict_folds(
    run: RunSettings, corpus: Corpus, checkpoints: list[Path], show: Callable[[str], None]
) -> list[np.ndarray]:
    """What each fold's model says of the corpus's test rows: K tables float32 (n_test, L).

    Args:   corpus: the new texts; no training rows.   checkpoints: a folder for each fold.
            show: is told which fold comes next.
    Raises: ValueError: weights are missing, damaged or of other settings.
    """
    learner, tables = build_learner(run, corpus), []
    for k, folder in enumerate(checkpoints):
        show(f"fold {k + 1} of {len(checkpoints)}")
        tables.append(learner.predict_fold(folder))
    return tables


def check_folds(settings: dict, fold: np.ndarray, checkpoints: list[Path]) -> None:
    """Prove that each fold's weights are of these settings and of that fold's rows.

    Args:   settings: as the folds' records have them.   fold: int64 (N,), which fold held out which training row.
    Raises: ValueError: what differs, or a damaged file.
    """
    for k, folder in enumerate(checkpoints):
        rows = hash_fold_rows(np.flatnonzero(fold != k), np.flatnonzero(fold == k))
        check_training(folder, settings, rows)


def model_group(run: RunSettings) -> str:
    """The group of settings that names the run's pretrained model; empty where it has none."""
    return next((group for group in ("model", "embeddings") if group in READ_BY[run.learner]), "")


def with_model_folder(run: RunSettings, folder: Path) -> RunSettings:
    """The run, its pretrained model taken from a folder."""
    group = model_group(run)
    return replace(run, **{group: replace(getattr(run, group), name=str(folder))})
