"""Ledger room: soft targets in data/<competition>/, annotators' shares or a teacher's probabilities, for training rows.

The file has the form of predictions made elsewhere (ledger/dropped.py): an id column first, then one column a label.
That a teacher never saw a row it speaks of is the word of whoever made the file: no file can prove it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ledger.dropped import load_dropped
from ledger.files import sha256_file
from settings.run import RunSettings

ROUNDING = 0.02
"""What shares of the one label may sum to beside 1, as they were rounded; each is then divided by their sum."""


def with_file_hash(run: RunSettings, data_dir: Path) -> RunSettings:
    """The run with its soft targets' hash among its settings, so that a changed file is another training.

    Raises: ValueError: the file is not there, or is not the one that the settings state.
    """
    if not run.loss.soft_targets:
        return run
    path = data_dir / run.loss.soft_targets
    if not path.is_file():
        raise ValueError(f"{path} is not there; loss.soft_targets names a file in {data_dir}")
    found, stated = sha256_file(path), run.loss.soft_targets_sha256
    if stated not in ("", found):
        raise ValueError(f"{path}: its sha256 is {found}, loss.soft_targets_sha256 is {stated}; expected the same")
    return replace(run, loss=replace(run.loss, soft_targets_sha256=found))


def load_soft_targets(path: Path, tables, task: str) -> np.ndarray:
    """What every training row teaches, float32 (N, L) in [0, 1]; rows sum to 1 where one label a row is the task.

    Raises: ValueError: other label columns, ids missing, foreign or twice, a cell that is no number from 0 to 1, rows
            of one label that do not sum to 1.
    """
    targets = load_dropped(path, tables.train_ids, tables.label_names, "the training rows")
    if task != "multiclass":
        return targets
    sums = targets.sum(1, dtype=np.float64)
    wrong = np.flatnonzero(np.abs(sums - 1) > ROUNDING)
    if len(wrong):
        first = f"{str(tables.train_ids[wrong[0]])!r} with {sums[wrong[0]]:.4g}"
        raise ValueError(f"{path}: {len(wrong)} rows do not sum to 1, first {first}; here each row has one label")
    return (targets / sums[:, None]).astype(np.float32)
