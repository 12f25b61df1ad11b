"""The scoring room's alarm for label shift, and the remedy on request: priors re-estimated on the test rows."""

import numpy as np
from scipy.stats import norm

ALARM = 0.01
"""Chance of a false alarm over all labels together ..."""
CHANGE = 0.25
"""... and the mean probability must have moved by at least this share of itself."""
MAX_STEPS = 1_000
"""Steps of the EM, which converges slowly where probabilities say little."""


def compare_means(oof_probs: np.ndarray, fold_probs: np.ndarray) -> np.ndarray:
    """Whether the model sees a label more or less often on the test rows than on its own held-out rows.

    Args:    oof_probs: float32 (N, L), cross-fitted.   fold_probs: float32 (K, n, L), of each fold's models.
    Returns: float64 (L,): p-values of equal mean probability, times L (Bonferroni), at most 1.
    How:     Welch's test on means; the fold models' means are averaged, their rows are the same rows.
    """
    n_rows, n_test = len(oof_probs), fold_probs.shape[1]
    difference = fold_probs.mean(axis=(0, 1), dtype=np.float64) - oof_probs.mean(axis=0, dtype=np.float64)
    variance = oof_probs.var(axis=0, dtype=np.float64) / n_rows
    variance += fold_probs.mean(axis=0).var(axis=0, dtype=np.float64) / n_test
    return np.minimum(2 * norm.sf(np.abs(difference) / np.sqrt(variance + 1e-30)) * oof_probs.shape[1], 1.0)


def find_shifted(p_values: np.ndarray, oof_probs: np.ndarray, fold_probs: np.ndarray) -> np.ndarray:
    """Labels whose shift is beyond chance and large enough to matter, int64."""
    here, there = oof_probs.mean(axis=0, dtype=np.float64), fold_probs.mean(axis=(0, 1), dtype=np.float64)
    return np.flatnonzero((p_values < ALARM) & (np.abs(there - here) >= CHANGE * here))


def reestimate_priors(probs: np.ndarray, priors: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and label rates that fit rows whose label rates differ from training's.

    Args:    probs: float32 (n, L), calibrated on rows with rates `priors`.   priors: float64 (L,).
             kind: "multilabel" (each label by itself) or "multiclass".
    Returns: probs float32 (n, L), rates float64 (L,).
    Source:  Saerens, Latinne and Decaestecker 2002 (EM on the priors; the likelihoods stay as they are).
    """
    priors = np.clip(priors, 1e-9, 1 - 1e-9)
    rates, adjusted = priors.copy(), probs.astype(np.float64)
    for _ in range(MAX_STEPS):
        yes = probs * (rates / priors)
        rest = (1 - probs) * ((1 - rates) / (1 - priors)) + yes if kind == "multilabel" else yes.sum(axis=1)[:, None]
        adjusted = yes / np.maximum(rest, 1e-300)
        moved = np.clip(adjusted.mean(axis=0), 1e-9, 1 - 1e-9)
        if np.abs(moved - rates).max() < 1e-7:
            break
        rates = moved
    return adjusted.astype(np.float32), rates
