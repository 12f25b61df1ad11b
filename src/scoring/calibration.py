"""The scoring room's calibration: one logistic curve a label from any score to a probability (Platt 1999).

Scores are counted in narrow bins first, and everything after that looks at bins, not rows: two parameters a label need
no more, and neither does the label-free cut-off that is read from the calibrated bins.
"""

from dataclasses import dataclass

import numpy as np

from scoring.parallel import over_labels
from scoring.probs import logit, sigmoid

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
