"""Thresholds and offsets for any metric, by calling it: for metrics that have no faster search of their own.

The start is what suits F1, which most metrics of decisions are near to. Two searches go on from there: one step that
all labels share (one number, so it holds on new rows), and coordinate ascent over each label's own thresholds.
`score` is (labels, decisions) -> float, more is better.
"""

import numpy as np

from foldblend.scoring.metrics.table import Score
from foldblend.scoring.probs import logit, sigmoid
from foldblend.scoring.thresholds.exact import check_probs, staircase

N_SHIFTS = 25
"""Steps tried, from the largest down to the largest up."""
FARTHEST_SHIFT = 3.0
"""The largest step, in log-odds."""
MAX_ROWS = 4_000
"""Rows that a climb looks at; more would not move the thresholds beyond their noise."""
MAX_THRESHOLDS = 16
"""Thresholds tried per label and pass."""
MAX_PASSES = 2
"""Passes over the labels."""
OFFSETS = np.linspace(-3, 3, 25)
"""Offsets tried per class and pass, in log-probability."""


def shift_thresholds(score: Score, thresholds: np.ndarray, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Move all thresholds by the one step in log-odds that suits the metric best: float32 (L,).

    Args: thresholds: float32 (L,), the start.   probs: float32 (N, L).   labels: bool (N, L).
    """
    check_probs(probs, labels)
    start = logit(np.clip(thresholds, 0, 1))
    steps = np.linspace(-FARTHEST_SHIFT, FARTHEST_SHIFT, N_SHIFTS, dtype=np.float32)
    steps = steps[np.argsort(np.abs(steps), kind="stable")]  # of equal scores the smallest step wins
    tried = [thresholds, *(sigmoid(start + step) for step in steps[1:])]
    reached = [score(labels, probs >= each) for each in tried]
    return np.asarray(tried[int(np.argmax(reached))], np.float32)


def climb_thresholds(score: Score, thresholds: np.ndarray, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coordinate ascent over the labels' thresholds, from the best common step: float32 (L,).

    Args: as `shift_thresholds`.
    """
    probs, labels = _sample(probs, labels)
    thresholds = shift_thresholds(score, thresholds, probs, labels)
    decisions = probs >= thresholds
    best = score(labels, decisions)
    for _ in range(MAX_PASSES):
        before = best
        for label in range(labels.shape[1]):
            for threshold in _worth_trying(probs[:, label], labels[:, label]):
                kept = decisions[:, label].copy()
                decisions[:, label] = probs[:, label] >= threshold
                reached = score(labels, decisions)
                if reached > best + 1e-9:
                    best, thresholds[label] = reached, threshold
                else:
                    decisions[:, label] = kept
        if best <= before + 1e-9:
            break
    return thresholds


def _worth_trying(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Thresholds of one label, each just below a positive, evenly spaced among them, and one above every row."""
    if not labels.any():
        return np.empty(0, np.float32)
    thresholds = staircase(probs, labels)[0]
    kept = np.linspace(0, len(thresholds) - 1, min(MAX_THRESHOLDS, len(thresholds))).astype(np.int64)
    return np.r_[thresholds[kept], np.nextafter(probs.max(), np.float32(2))].astype(np.float32)


def climb_offsets(score: Score, log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coordinate ascent over the classes' offsets, from none: float32 (L,).

    Args: log_probs: float32 (N, L).   labels: bool (N, L), one True per row.
    """
    log_probs, labels = _sample(log_probs, labels)
    classes = np.arange(labels.shape[1])

    def reach(offsets):
        return score(labels, (log_probs + offsets).argmax(axis=1)[:, None] == classes)

    offsets = np.zeros(len(classes), np.float32)
    best = reach(offsets)
    for _ in range(MAX_PASSES):
        before = best
        for label in classes:
            for step in OFFSETS:
                moved = offsets.copy()
                moved[label] = step
                reached = reach(moved)
                if reached > best + 1e-9:
                    best, offsets = reached, moved
        if best <= before + 1e-9:
            break
    return offsets - offsets.mean(dtype=np.float32)


def _sample(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_ROWS rows of both tables, the same ones for the same size."""
    if len(labels) <= MAX_ROWS:
        return values, labels
    rows = np.random.default_rng(0).permutation(len(labels))[:MAX_ROWS]
    return values[rows], labels[rows]
