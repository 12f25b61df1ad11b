"""The scoring room's calibration: one logistic curve a label from any score to a probability (Platt 1999)."""

import numpy as np

from scoring.probs import logit, sigmoid

RIDGE = 5.0
"""Penalty on a curve's distance to the identity, in rows' worth of log loss: rare labels keep their scores."""
MAX_STEPS = 12
"""Newton steps for all labels at once."""


def fit_calibration(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and shift a label, so that sigmoid(slope * logit(probs) + shift) is calibrated.

    Args:    probs: float32 (N, L), in [0, 1].   labels: bool (N, L).
    Returns: slope, shift: float64 (L,); a slope below 0.05 is raised to it, for order must survive.
    """
    scores, slope, shift = logit(probs), np.ones(probs.shape[1]), np.zeros(probs.shape[1])
    for _ in range(MAX_STEPS):
        fitted = sigmoid(scores * slope.astype(np.float32) + shift.astype(np.float32))
        error, spread = fitted - labels, fitted * (1 - fitted)
        tilt = spread * scores
        to_slope = np.einsum("nl,nl->l", error, scores, dtype=np.float64) + RIDGE * (slope - 1)
        to_shift = error.sum(axis=0, dtype=np.float64) + RIDGE * 1e-2 * shift
        slope_slope = np.einsum("nl,nl->l", tilt, scores, dtype=np.float64) + RIDGE
        cross, shift_shift = tilt.sum(axis=0, dtype=np.float64), spread.sum(axis=0, dtype=np.float64) + RIDGE * 1e-2
        scale = slope_slope * shift_shift - cross**2
        move_slope = (shift_shift * to_slope - cross * to_shift) / scale
        move_shift = (slope_slope * to_shift - cross * to_slope) / scale
        slope, shift = slope - np.clip(move_slope, -2, 2), shift - np.clip(move_shift, -4, 4)
        if max(np.abs(move_slope).max(), np.abs(move_shift).max()) < 1e-3:
            break
    return np.maximum(slope, 0.05), shift


def apply_calibration(probs: np.ndarray, slope: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Calibrated probabilities, float32 (n, L)."""
    return sigmoid(logit(probs) * slope.astype(np.float32) + shift.astype(np.float32))
