"""The scoring room's decoder for one label a row: the class with the largest log-probability plus its offset."""

from collections.abc import Callable

import numpy as np

MAX_CUTS = 200
"""Places tried for one class's offset."""
MAX_PASSES = 10
"""Passes over the classes."""


def tune_offsets(log_probs: np.ndarray, labels: np.ndarray, score: Callable) -> np.ndarray:
    """Offsets that climb a multiclass metric, float32 (L,), one class at a time from zero.

    Args:   log_probs: float32 (N, L).   labels: bool (N, L), one True a row.
            score: (hits, positives, decided), each (C, L), -> (C,); one of `CLASS_SCORES`.
    Source: with the other offsets held, raising class c wins rows from their runner-up in the order of their margin,
            so the class counts after every step are cumulative sums.
    """
    truth, offsets = labels.argmax(axis=1), np.zeros(labels.shape[1])
    positives, best = labels.sum(axis=0), -1.0
    for _ in range(MAX_PASSES):
        before = best
        for label in range(labels.shape[1]):
            offset, reached = _best_offset(log_probs + offsets.astype(np.float32), truth, positives, label, score)
            if reached > best + 1e-12:
                best, offsets[label] = reached, offsets[label] + offset
        if best <= before + 1e-9:
            break
    return (offsets - offsets.mean()).astype(np.float32)


def _best_offset(scores: np.ndarray, truth: np.ndarray, positives: np.ndarray, label: int, score: Callable):
    """How far to move one class, and the metric that reaches."""
    n_labels, own = scores.shape[1], scores[:, label]
    others = scores.copy()
    others[:, label] = -np.inf
    rival = others.argmax(axis=1)
    margin = others[np.arange(len(truth)), rival] - own  # the class takes the row once its offset passes this
    cuts = np.unique(np.quantile(margin, np.linspace(0, 1, MAX_CUTS), method="lower"))
    step = np.searchsorted(cuts, margin, "left")  # taken at cut number `step` or later
    shape = (len(cuts), n_labels)
    lost = np.bincount(step * n_labels + rival, minlength=len(cuts) * n_labels).reshape(shape).cumsum(axis=0)
    right = rival == truth
    lost_hits = np.bincount((step * n_labels + rival)[right], minlength=lost.size).reshape(shape).cumsum(axis=0)
    decided = np.bincount(rival, minlength=n_labels) - lost
    hits = np.bincount(rival[right], minlength=n_labels) - lost_hits
    decided[:, label] = lost.sum(axis=1)
    hits[:, label] = np.bincount(step[truth == label], minlength=len(cuts)).cumsum()
    reached = score(hits, positives, decided)
    winner = int(np.argmax(reached))
    above = cuts[winner + 1] if winner + 1 < len(cuts) else cuts[winner] + 1e-3
    return (cuts[winner] + above) / 2, float(reached[winner])


def _label_f1(hits, positives, decided):
    return 2 * hits / np.maximum(positives + decided, 1)


CLASS_SCORES: dict[str, Callable] = {
    "accuracy": lambda hits, positives, decided: hits.sum(axis=1) / positives.sum(),
    "micro_f1": lambda hits, positives, decided: hits.sum(axis=1) / positives.sum(),
    "macro_f1": lambda hits, positives, decided: _label_f1(hits, positives, decided).mean(axis=1),
    "weighted_f1": lambda hits, positives, decided: _label_f1(hits, positives, decided) @ positives / positives.sum(),
}
"""Multiclass metrics from class counts (C, L): the right rows, the rows there are, the rows decided."""
