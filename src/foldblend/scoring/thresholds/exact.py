"""Exact thresholds per label: F1 is a staircase that steps only at positives, so every step is compared."""

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.parallel import over_labels


def tune_thresholds(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pick the threshold per label that maximises that label's F1; macro-F1 separates by label, so this is exact.

    Args:    probs: float32 (N, L), in [0, 1].   labels: bool (N, L).
    Returns: float32 (L,), halfway between neighbouring probs; 0.5 for a label without a positive.
    Example: tune_thresholds(np.float32([[.2], [.6], [.9]]), np.array([[0], [1], [1]], bool)) -> [0.4]
    Raises:  UserError: shapes differ, or probs leave [0, 1] (are these logits?).
    Source:  Lipton et al. 2014, arXiv:1402.1892 (the optimum is at a positive's score). O(N log N) per label.
    """
    check_probs(probs, labels)
    best = over_labels(lambda label: _best_threshold(probs[:, label], labels[:, label]), labels.shape[1], len(probs))
    return np.array(best, np.float32)


def check_probs(probs: np.ndarray, labels: np.ndarray) -> None:
    """Refuse anything but two tables of the same shape, the first in [0, 1].

    Raises: UserError: shapes differ, or probs leave [0, 1].
    """
    if probs.shape != labels.shape or probs.ndim != 2:
        raise UserError(f"probs are {probs.shape}, labels {labels.shape}; expected the same (N, L)")
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise UserError(f"probs outside [0, 1]: they span {probs.min():.4g} to {probs.max():.4g}. Are these logits?")


def _best_threshold(probs: np.ndarray, labels: np.ndarray) -> float:
    if not labels.any():
        return 0.5
    thresholds, hits, decided = staircase(probs, labels)
    return thresholds[np.argmax(hits / (decided + hits[-1]))]  # half the F1; the last step finds every positive


def staircase(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold that can be the best for one label: just below each distinct positive, from the highest down.

    A threshold between two positives decides negatives in vain, so no other can be better.

    Args:    probs: float (N,).   labels: bool (N,), at least one True.
    Returns: thresholds float32 (C,), halfway to the next lower prob; hits int (C,): positives at or above it;
             decided int (C,): rows at or above it.
    """
    ordered, positives = np.sort(probs), np.sort(probs[labels])
    values = positives[np.r_[True, positives[1:] != positives[:-1]]]  # (C,), rising, distinct
    below = ordered.searchsorted(values, "left")  # rows strictly below each value
    hits = len(positives) - positives.searchsorted(values, "left")
    thresholds = midpoints(np.where(below > 0, ordered[below - 1], 0), values)
    return thresholds[::-1], hits[::-1], (len(ordered) - below)[::-1]


def midpoints(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Halfway between two probs, float32; `upper` itself if rounding would let `lower` reach the threshold.

    Halfway, because a row between the two on new data is as likely to belong to either side.
    """
    middle = ((lower.astype(np.float64) + upper) / 2).astype(np.float32)
    return np.where(middle > lower, middle, upper).astype(np.float32)
