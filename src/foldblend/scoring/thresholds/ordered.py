"""Decisions among ordered classes (grades 1 to 6): thresholds on the expected class, for quadratic weighted kappa.

The mean of a row's class numbers, weighted by their probabilities, is what a squared distance asks for; where one class
ends and the next begins is tuned, as kappa also counts how often each class is decided.
"""

import numpy as np

from foldblend.scoring.metrics.agreement import kappa_of_sums

MOST_EDGES = 128
"""Values of the expected class at which a threshold may stand."""
MAX_PASSES = 6
"""Passes over the thresholds."""


def expected_class(probs: np.ndarray) -> np.ndarray:
    """The mean class number of each row, float32 (n,). Args: probs: float32 (n, L), rows sum to 1."""
    return probs @ np.arange(probs.shape[1], dtype=np.float32)


def decide_by_steps(steps: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The class whose steps the expected class has reached: bool (n, L), one True per row.

    Example: decide_by_steps(np.float32([0.5, 1.4]), np.float32([[0.2, 0.2, 0.6]])) -> class 2, as it expects 1.4
    """
    decided = np.searchsorted(steps, expected_class(probs), side="right")
    return np.eye(probs.shape[1], dtype=bool)[decided]


def tune_steps(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Thresholds on the expected class that climb quadratic weighted kappa, one at a time.

    Args:    probs: float32 (n, L), rows sum to 1.   labels: bool (n, L), one True per row.
    Returns: float32 (L - 1,), rising.
    How:     rows are counted by class in bins of the expected class, so that a trial costs the same for any number.
             Of two starts, half-way between the classes and as often as the labels come, the better one is climbed.
    """
    n_labels, expected = probs.shape[1], expected_class(probs)
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, MOST_EDGES + 1)[1:-1], method="higher"))
    bins = np.searchsorted(edges, expected, side="right")  # (n,): edges that the row has reached
    counts = np.zeros((len(edges) + 1, n_labels))  # rows by bin and true class
    np.add.at(counts, (bins, labels.argmax(axis=1)), 1)
    shares = np.cumsum(labels.mean(axis=0))[:-1]
    halves = np.searchsorted(edges, np.arange(n_labels - 1) + 0.5)
    as_often = np.searchsorted(edges, np.quantile(expected, np.clip(shares, 0, 1)))
    climbed = [_climb(np.minimum(start, len(edges)), counts) for start in (halves, as_often)]
    positions, _ = max(climbed, key=lambda each: each[1])
    return np.append(edges, expected.max() + 1).astype(np.float32)[positions]  # the last edge is beyond every row


def _climb(start: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Positions among the edges, int64 (L - 1,) and rising, and the kappa that they reach."""
    positions, best = start.copy(), _kappa(start, counts)
    for _ in range(MAX_PASSES):
        before = best
        for step in range(len(positions)):
            low = positions[step - 1] if step else 0
            high = positions[step + 1] if step + 1 < len(positions) else len(counts) - 1
            for position in range(low, high + 1):
                tried = positions.copy()
                tried[step] = position
                reached = _kappa(tried, counts)
                if reached > best + 1e-9:
                    positions, best = tried, reached
        if best <= before + 1e-9:
            break
    return positions, best


def _kappa(positions: np.ndarray, counts: np.ndarray) -> float:
    """Kappa if rows of bins up to position k are decided to be class k or lower."""
    decided = np.searchsorted(positions, np.arange(len(counts)), side="left")  # (bins,)
    classes = np.arange(counts.shape[1])
    observed = (counts * (decided[:, None] - classes) ** 2).sum()
    return kappa_of_sums(observed, counts.sum(axis=0), np.bincount(decided, counts.sum(axis=1), len(classes)))
