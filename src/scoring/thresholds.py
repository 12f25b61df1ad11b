"""The scoring room's exact cut-offs: F1 is a staircase that steps only at positives, so every step is looked at."""

import numpy as np

from scoring.parallel import over_labels


def tune_thresholds(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pick the cut-off per label that maximises that label's F1; macro-F1 separates by label, so this is exact.

    Args:    probs: float32 (N, L), in [0, 1].   labels: bool (N, L).
    Returns: float32 (L,), halfway between neighbouring probs; 0.5 for a label without a positive.
    Example: tune_thresholds(np.float32([[.2], [.6], [.9]]), np.array([[0], [1], [1]], bool)) -> [0.4]
    Raises:  ValueError: shapes differ, or probs leave [0, 1] (are these logits?).
    Source:  Lipton et al. 2014, arXiv:1402.1892 (the optimum lies at a positive's score). O(N log N) a label.
    """
    check_probs(probs, labels)
    cuts = over_labels(lambda k: _best_cut(probs[:, k], labels[:, k]), labels.shape[1], len(probs))
    return np.array(cuts, np.float32)


def check_probs(probs: np.ndarray, labels: np.ndarray):
    """Refuse what is not a table of probabilities beside a table of labels of the same shape."""
    if probs.shape != labels.shape or probs.ndim != 2:
        raise ValueError(f"probs are {probs.shape}, labels {labels.shape}; expected the same (N, L)")
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise ValueError(f"probs span {probs.min():.4g} to {probs.max():.4g}; expected [0, 1]. Are these logits?")


def _best_cut(probs: np.ndarray, labels: np.ndarray) -> float:
    if not labels.any():
        return 0.5
    cuts, hits, decided = staircase(probs, labels)
    return cuts[np.argmax(hits / (decided + hits[-1]))]


def staircase(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every cut that can be optimal for one label: just below each distinct positive, from the highest down.

    Args:    probs: float (N,).   labels: bool (N,), at least one True.
    Returns: cuts float (C,), halfway to the next lower prob; hits int (C,): positives at or above; decided int (C,).
    """
    ordered, positives = np.sort(probs), np.sort(probs[labels])
    values = positives[np.r_[True, positives[1:] != positives[:-1]]]  # ascending, distinct
    below = ordered.searchsorted(values, "left")
    hits = len(positives) - positives.searchsorted(values, "left")
    cuts = midpoints(np.where(below > 0, ordered[below - 1], 0), values)
    return cuts[::-1], hits[::-1], (len(ordered) - below)[::-1]


def midpoints(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Halfway between two probs as float32, and `upper` itself where rounding would let `lower` pass the cut."""
    middle = ((lower.astype(np.float64) + upper) / 2).astype(np.float32)
    return np.where(middle > lower, middle, upper).astype(np.float32)
