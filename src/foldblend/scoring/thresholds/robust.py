"""The scoring room's robust cut-offs: bagged over bootstrap resamples, and shrunk where a label has few positives.

The exact cut of a rare label follows a handful of rows. On calibrated probabilities the best cut for F1 is half the
best F1, which takes no label of the row it is used on (Lipton et al. 2014, arXiv:1402.1892): that is the prior. The
mean cut over bootstrap resamples smooths the staircase: that is what the rows say. How far the rows move the prior
is shrunk, label by label, towards how far they move it for all labels. Everything is on the scale of log-odds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foldblend.scoring.parallel import over_labels
from foldblend.scoring.probs import logit, sigmoid
from foldblend.scoring.thresholds.exact import check_probs, staircase

# ---------- calibration: one logistic curve a label from any score to a probability (Platt 1999).


RIDGE = 5.0
"""Penalty on a curve's distance to the identity, in rows' worth of log loss: rare labels keep their scores."""
MAX_STEPS = 30
"""Newton steps for all labels at once."""
REACH = 17.0
"""Log-odds beyond this count as this."""
BINS_A_UNIT = 24
"""Bins a unit of log-odds."""


@dataclass(frozen=True)
class Histogram:
    """How many rows, and how many positives, have a score in each bin."""

    scores: np.ndarray
    """float64 (H,): the bins' middles, log-odds, rising."""
    rows: np.ndarray
    """float64 (H, L)."""
    positives: np.ndarray
    """float64 (H, L)."""


def count_scores(probs: np.ndarray, labels: np.ndarray) -> Histogram:
    """Count the rows of probs float32 (N, L) and labels bool (N, L) in bins of log-odds."""
    n_bins, n_labels = int(2 * REACH * BINS_A_UNIT) + 1, probs.shape[1]
    rows, positives = np.empty((n_bins, n_labels)), np.empty((n_bins, n_labels))

    def count(label):
        place = (logit(probs[:, label]) + np.float32(REACH)) * np.float32(BINS_A_UNIT) + np.float32(0.5)
        place = np.clip(place, 0, n_bins - 1).astype(np.int64)
        rows[:, label] = np.bincount(place, minlength=n_bins)
        positives[:, label] = np.bincount(place[labels[:, label]], minlength=n_bins)

    over_labels(count, n_labels, len(probs))
    return Histogram(np.arange(n_bins) / BINS_A_UNIT - REACH, rows, positives)


def fit_calibration(counted: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Slope and shift a label, so that sigmoid(slope * score + shift) is calibrated.

    Returns: slope, shift: float64 (L,); a slope below 0.05 is raised to it, for order must survive.
    """
    scores, n_labels = counted.scores[:, None], counted.rows.shape[1]
    slope, shift = np.ones(n_labels), np.zeros(n_labels)
    for _ in range(MAX_STEPS):
        fitted = sigmoid(scores * slope + shift)
        error, spread = counted.rows * fitted - counted.positives, counted.rows * fitted * (1 - fitted)
        to_slope = (error * scores).sum(axis=0) + RIDGE * (slope - 1)
        to_shift = error.sum(axis=0) + RIDGE * 1e-2 * shift
        slope_slope = (spread * scores**2).sum(axis=0) + RIDGE
        cross, shift_shift = (spread * scores).sum(axis=0), spread.sum(axis=0) + RIDGE * 1e-2
        scale = slope_slope * shift_shift - cross**2
        move_slope = (shift_shift * to_slope - cross * to_shift) / scale
        move_shift = (slope_slope * to_shift - cross * to_slope) / scale
        slope, shift = slope - np.clip(move_slope, -0.5, 0.5), shift - np.clip(move_shift, -2, 2)
        if max(np.abs(move_slope).max(), np.abs(move_shift).max()) < 1e-4:
            break
    return np.maximum(slope, 0.05), shift


def expected_f1_cuts(counted: Histogram, slope: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The cut that maximises each label's expected F1 if the calibrated probabilities are right: log-odds, (L,).

    Source: Lipton et al. 2014, arXiv:1402.1892: with k rows decided, F1 is about 2 sum(top k probs) / (k + sum(probs)),
            and the best cut is half the best F1. It takes no label.
    """
    probs = sigmoid(counted.scores[:, None] * slope + shift)
    hits, decided = (counted.rows * probs)[::-1].cumsum(axis=0), counted.rows[::-1].cumsum(axis=0)
    return logit((hits / (decided + hits[-1])).max(axis=0))


# ---------- robust cut-offs: bagged over bootstrap resamples, and shrunk where a label has few positives.


N_RESAMPLES = 32
"""Bootstrap resamples a label."""
N_JOINT_RESAMPLES = 8
"""Bootstrap resamples of a joint search, which looks at all labels at once."""
FARTHEST_CUT = 4.6
"""A cut of all or nothing counts as this log-odds (0.01 or 0.99): one resample must not carry the mean away."""
MAX_CUTS = 128
"""Cuts looked at a label and resample: every one for rare labels, evenly spaced ones for frequent labels."""
PRIOR_POSITIVES = 40.0
"""What all labels say weighs as much as this many positive rows of the label itself."""


def tune_robust_thresholds(probs: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Pick the cut-off per label that should hold F1 up on new rows.

    Args:    probs: float32 (N, L), in [0, 1]; they need not be calibrated.   labels: bool (N, L).
    Returns: float32 (L,); for a label without a positive, the prior moved as far as all labels are.
    Raises:  ValueError: shapes differ, or probs leave [0, 1].
    """
    check_probs(probs, labels)
    counted = count_scores(probs, labels)
    slope, shift = fit_calibration(counted)
    prior = expected_f1_cuts(counted, slope, shift)
    seen = np.flatnonzero(labels.any(axis=0))
    bagged = prior.copy()

    def bag(k):
        return bagged_cut(probs[:, seen[k]], labels[:, seen[k]], np.random.default_rng([seed, seen[k]]))

    bagged[seen] = over_labels(bag, len(seen), len(probs))
    bagged[seen] = slope[seen] * bagged[seen] + shift[seen]
    cuts = prior + shrink(bagged - prior, labels.sum(axis=0))
    return sigmoid((cuts - shift) / slope).astype(np.float32)


def tune_robust_joint(tune: Callable, probs: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Steady the cut-offs of a joint search: bagged, and pulled towards their common place: float32 (L,).

    Args: tune: (probs, labels) -> thresholds (L,), for example `tune_micro_thresholds`.
    """
    check_probs(probs, labels)
    rng = np.random.default_rng(seed)
    slope, shift = fit_calibration(count_scores(probs, labels))
    bagged = np.zeros(labels.shape[1])
    for _ in range(N_JOINT_RESAMPLES):
        rows = rng.integers(0, len(labels), len(labels))
        cuts = slope * logit(np.clip(tune(probs[rows], labels[rows]), 0, 1)) + shift
        bagged += np.clip(cuts, -FARTHEST_CUT, FARTHEST_CUT) / N_JOINT_RESAMPLES
    return sigmoid((shrink(bagged, labels.sum(axis=0)) - shift) / slope).astype(np.float32)


def shrink(moves: np.ndarray, n_positives: np.ndarray) -> np.ndarray:
    """Each label's move, pulled towards the mean of all by how few positives it has: float64 (L,).

    Example: shrink([1.0, 0.0], [20, 0]) -> [1.0, 1.0]: the second label has no say, the mean is the first one's.
    """
    trust = n_positives / (n_positives + PRIOR_POSITIVES)
    mean = (trust * moves).sum() / max(trust.sum(), 1e-12)
    return trust * moves + (1 - trust) * mean


def bagged_cut(probs: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """Mean log-odds, over bootstrap resamples, of one label's best cut.

    Resampling N rows gives the rows between two neighbouring cuts a Poisson number of copies, and F1 needs no more
    than those numbers: a resample costs as many draws as there are cuts, not as there are rows.
    """
    cuts, hits, decided = staircase(probs, labels)
    if len(cuts) > MAX_CUTS:
        kept = np.linspace(0, len(cuts) - 1, MAX_CUTS).astype(np.int64)
        cuts, hits, decided = cuts[kept], hits[kept], decided[kept]
    size = (N_RESAMPLES, len(cuts))
    hits_drawn = rng.poisson(np.diff(hits, prepend=0), size).cumsum(axis=1)
    others_drawn = rng.poisson(np.diff(decided - hits, prepend=0), size).cumsum(axis=1)
    f1 = hits_drawn / np.maximum(hits_drawn + others_drawn + hits_drawn[:, -1:], 1)
    return float(logit(cuts[np.argmax(f1, axis=1)]).mean())
