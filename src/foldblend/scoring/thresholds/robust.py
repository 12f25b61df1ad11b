"""Robust thresholds: bagged over bootstrap resamples, and shrunk if a label has few positives.

The exact threshold of a rare label follows a handful of rows. On calibrated probabilities the best threshold for F1 is
half the best F1, which takes no label of the row it is used on (Lipton et al. 2014, arXiv:1402.1892): that is the
prior. The mean threshold over bootstrap resamples smooths the staircase: that is what the rows say. How far the rows
move the prior is shrunk, label by label, towards how far they move it for all labels. Everything is in log-odds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foldblend.cores import over_labels
from foldblend.scoring.inputs import logit, sigmoid
from foldblend.scoring.thresholds.exact import check_probs, staircase

# ---------- Calibration: one logistic curve per label from any score to a probability (Platt 1999)


RIDGE = 5.0
"""Penalty on a curve's distance to the identity, in rows' worth of log loss: rare labels keep their scores."""
MAX_STEPS = 30
"""Newton steps for all labels at once."""
LARGEST_SCORE = 17.0
"""Log-odds beyond this count as this."""
BINS_PER_UNIT = 24
"""Bins per unit of log-odds."""


@dataclass(frozen=True)
class Histogram:
    """How many rows, and how many positives, have a score in each bin."""

    scores: np.ndarray
    """float64 (H,): the bins' middles, log-odds, rising."""
    rows: np.ndarray
    """float64 (H, L)."""
    positives: np.ndarray
    """float64 (H, L)."""

    def without(self, other: "Histogram") -> "Histogram":
        """Of the rows that are not in `other`, which has some of the rows that this one has."""
        return Histogram(self.scores, self.rows - other.rows, self.positives - other.positives)


def count_scores(probs: np.ndarray, labels: np.ndarray | None = None) -> Histogram:
    """Count rows and positives in bins of log-odds: a fit on 817 bins instead of N rows costs the same for any N.

    Args: probs: float32 (N, L), in [0, 1].   labels: bool (N, L); None if nobody knows them: then no row is positive.
    """
    # 2 * 17 log-odds at 24 bins each, and one bin in the middle
    n_bins, n_labels = int(2 * LARGEST_SCORE * BINS_PER_UNIT) + 1, probs.shape[1]
    rows, positives = np.empty((n_bins, n_labels)), np.zeros((n_bins, n_labels))

    def count(label):
        column = probs[:, label].copy()  # the steps below read it several times, and a row is a cache line away
        # + 0.5 and truncation round to the nearest bin; scores beyond the ends count in the outermost bins
        position = (logit(column) + np.float32(LARGEST_SCORE)) * np.float32(BINS_PER_UNIT) + np.float32(0.5)
        position = np.clip(position, 0, n_bins - 1).astype(np.int64)
        rows[:, label] = np.bincount(position, minlength=n_bins)
        if labels is not None:
            positives[:, label] = np.bincount(position[labels[:, label]], minlength=n_bins)

    over_labels(count, n_labels, len(probs))
    return Histogram(np.arange(n_bins) / BINS_PER_UNIT - LARGEST_SCORE, rows, positives)


def fit_calibration(counted: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Slope and shift per label, so that sigmoid(slope * score + shift) is calibrated.

    Returns: slope, shift: float64 (L,); a slope below 0.05 is raised to it, so that the order of rows survives.
    Source:  Platt 1999; Newton-Raphson on the two parameters of all labels at once, the 2 x 2 system solved by
             Cramer's rule. Steps are bounded, as a separable label would send them to infinity.
    """
    used = counted.rows.any(axis=1)  # few rows fill few bins
    scores, rows, positives = counted.scores[used, None], counted.rows[used], counted.positives[used]
    slope, shift = np.ones(rows.shape[1]), np.zeros(rows.shape[1])
    for _ in range(MAX_STEPS):
        fitted = sigmoid(scores * slope + shift)  # (H, L)
        error, spread = rows * fitted - positives, rows * fitted * (1 - fitted)
        # gradient and Hessian of log loss + ridge, by slope and by shift
        # the ridge pulls the slope to 1 and the shift to 0, the identity; the shift a hundred times less, as label
        # rates do differ
        to_slope = (error * scores).sum(axis=0) + RIDGE * (slope - 1)
        to_shift = error.sum(axis=0) + RIDGE * 1e-2 * shift
        slope_slope = (spread * scores**2).sum(axis=0) + RIDGE
        cross, shift_shift = (spread * scores).sum(axis=0), spread.sum(axis=0) + RIDGE * 1e-2
        # the determinant of the 2 x 2 Hessian; the ridge on the diagonal keeps it above 0
        scale = slope_slope * shift_shift - cross**2
        move_slope = (shift_shift * to_slope - cross * to_shift) / scale
        move_shift = (slope_slope * to_shift - cross * to_slope) / scale
        slope, shift = slope - np.clip(move_slope, -0.5, 0.5), shift - np.clip(move_shift, -2, 2)
        if max(np.abs(move_slope).max(), np.abs(move_shift).max()) < 1e-4:
            break
    return np.maximum(slope, 0.05), shift


def expected_f1_thresholds(counted: Histogram, slope: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The thresholds that maximise each label's expected F1 if the calibrated probs are right: log-odds, (L,).

    Source: Lipton et al. 2014, arXiv:1402.1892: with k rows decided, F1 is about 2 sum(top k probs) / (k + sum(probs)),
            and the best threshold is half the best F1. It takes no label.
    """
    probs = sigmoid(counted.scores[:, None] * slope + shift)
    hits, decided = (counted.rows * probs)[::-1].cumsum(axis=0), counted.rows[::-1].cumsum(axis=0)  # from the top down
    # a steep calibration makes every probability of a label 0, and then none is decided either
    return logit((hits / np.maximum(decided + hits[-1], np.finfo(hits.dtype).tiny)).max(axis=0))


ADAPT_FROM = 30
"""Thresholds adapt to the rows they are used on from this many rows on; fewer say nothing about the others to come."""
ADAPTED_SHARE = 0.5
"""How far they move from the robust ones to the best expected ones of these rows, in log-odds."""


def adapt_thresholds(thresholds: np.ndarray, probs: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Robust thresholds, moved half the way to those with the best expected F1 on the rows they are used on: (L,).

    It takes no label of these rows: their calibrated probabilities say what F1 each threshold should reach. The mean of
    fold models is surer of its rows than one of them, and its best thresholds are others; so are those of rows with
    other label rates.

    Args: thresholds: float32 (L,), of `tune_robust_thresholds`.   probs: float32 (n, L), at least ADAPT_FROM rows.
          calibration: float64 (2, L), slope and shift of `fit_calibration`.
    """
    slope, shift = calibration
    wanted = expected_f1_thresholds(count_scores(probs), slope, shift)
    robust = slope * logit(np.clip(thresholds, 0, 1)) + shift
    return sigmoid((robust + ADAPTED_SHARE * (wanted - robust) - shift) / slope).astype(np.float32)


# ---------- Bagging and shrinkage


N_RESAMPLES = 32
"""Bootstrap resamples per label."""
N_JOINT_RESAMPLES = 8
"""Bootstrap resamples of a joint search, which costs as much as all labels together."""
FARTHEST = 4.6
"""A threshold of all or nothing counts as this log-odds (0.01 or 0.99): one resample must not carry the mean away."""
MAX_THRESHOLDS = 128
"""Thresholds compared per label and resample: every one for rare labels, evenly spaced ones for frequent labels."""
PRIOR_POSITIVES = 40.0
"""What all labels say weighs as much as this many positive rows of the label itself."""


def tune_robust_thresholds(
    probs: np.ndarray, labels: np.ndarray, seed: int = 0, counted: Histogram | None = None
) -> np.ndarray:
    """Pick the threshold per label that should hold F1 up on new rows.

    Args:    probs: float32 (N, L), in [0, 1]; they need not be calibrated.   labels: bool (N, L).
             counted: `count_scores` of both, if they are counted already.
    Returns: float32 (L,); for a label without a positive, the prior moved as far as all labels are.
    Raises:  UserError: shapes differ, or probs leave [0, 1].
    Source:  Lipton et al. 2014 for the prior; Breiman 1996 for bagging; the shrinkage is empirical Bayes by counts.
    """
    check_probs(probs, labels)
    counted = count_scores(probs, labels) if counted is None else counted
    slope, shift = fit_calibration(counted)
    prior = expected_f1_thresholds(counted, slope, shift)
    seen = np.flatnonzero(labels.any(axis=0))  # labels with a positive
    # a label without a positive has no threshold of its own: it moves nowhere from the prior, and shrink() then moves
    # it as the others
    bagged = prior.copy()

    def bag(k):
        # seeded by the label's number, so that a label's threshold does not depend on how cores share the work
        columns = probs[:, seen[k]].copy(), labels[:, seen[k]].copy()
        return bagged_threshold(*columns, np.random.default_rng([seed, seen[k]]))

    bagged[seen] = over_labels(bag, len(seen), len(probs))
    bagged[seen] = slope[seen] * bagged[seen] + shift[seen]  # to calibrated log-odds, in which labels are comparable
    thresholds = prior + shrink(bagged - prior, labels.sum(axis=0))
    # back from calibrated log-odds to the scale of the probs that were given
    return sigmoid((thresholds - shift) / slope).astype(np.float32)


def tune_robust_joint(tune: Callable, probs: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Make the thresholds of a joint search robust: bagged, and pulled towards their mean, float32 (L,).

    Args: tune: (probs, labels) -> thresholds (L,), for example `tune_micro_thresholds`.
    """
    check_probs(probs, labels)
    rng = np.random.default_rng(seed)
    slope, shift = fit_calibration(count_scores(probs, labels))
    bagged = np.zeros(labels.shape[1])
    for _ in range(N_JOINT_RESAMPLES):
        # whole rows are drawn, as a row's labels are tuned together here
        rows = rng.integers(0, len(labels), len(labels))
        thresholds = slope * logit(np.clip(tune(probs[rows], labels[rows]), 0, 1)) + shift
        bagged += np.clip(thresholds, -FARTHEST, FARTHEST) / N_JOINT_RESAMPLES
    return sigmoid((shrink(bagged, labels.sum(axis=0)) - shift) / slope).astype(np.float32)


def shrink(moves: np.ndarray, n_positives: np.ndarray) -> np.ndarray:
    """Each label's move, pulled towards the mean of all by how few positives it has: float64 (L,).

    Example: shrink([1.0, 0.0], [20, 0]) -> [1.0, 1.0]: the second label has no weight, the mean is the first one's.
    """
    # the posterior mean of a normal with a normal prior, positives standing in for precisions
    trust = n_positives / (n_positives + PRIOR_POSITIVES)
    mean = (trust * moves).sum() / max(trust.sum(), 1e-12)
    return trust * moves + (1 - trust) * mean


def bagged_threshold(probs: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """Mean log-odds, over bootstrap resamples, of one label's best threshold.

    Resampling N rows gives the rows between two neighbouring thresholds a Poisson number of copies, and F1 needs no
    more than those numbers: a resample costs as many draws as there are thresholds, not as there are rows.
    """
    thresholds, hits, decided = staircase(probs, labels)
    if len(thresholds) > MAX_THRESHOLDS:
        kept = np.linspace(0, len(thresholds) - 1, MAX_THRESHOLDS).astype(np.int64)
        thresholds, hits, decided = thresholds[kept], hits[kept], decided[kept]
    size = (N_RESAMPLES, len(thresholds))
    # (B, C): copies of the positives between two thresholds; N multinomial draws are nearly independent Poisson ones
    hits_drawn = rng.poisson(np.diff(hits, prepend=0), size).cumsum(axis=1)
    others_drawn = rng.poisson(np.diff(decided - hits, prepend=0), size).cumsum(axis=1)
    f1 = hits_drawn / np.maximum(hits_drawn + others_drawn + hits_drawn[:, -1:], 1)  # half of it: the best is the same
    # the mean in log-odds: among thresholds near 0 the arithmetic mean would follow the highest
    return float(logit(thresholds[np.argmax(f1, axis=1)]).mean())
