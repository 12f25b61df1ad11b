"""The scoring room's robust cut-offs: bagged over bootstrap resamples and shrunk where a label has few positives.

The exact cut of a rare label follows a handful of rows. Three things steady it. Its mean over bootstrap resamples
smooths the staircase. On calibrated probabilities the best cut is half the best F1, which needs no labels at all
(Lipton et al. 2014, arXiv:1402.1892). The two are averaged, the second weighing as much as `PRIOR_POSITIVES` rows.
"""

import numpy as np

from scoring.calibration import apply_calibration, fit_calibration
from scoring.probs import logit, sigmoid
from scoring.thresholds import check_probs, staircase

N_RESAMPLES = 50
"""Bootstrap resamples a label."""
MAX_CUTS = 256
"""Cuts looked at a label and resample: every one for rare labels, evenly spaced ones for frequent labels."""
PRIOR_POSITIVES = 20.0
"""The label-free cut weighs as much as this many positive rows."""


def tune_robust_thresholds(probs: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Pick the cut-off per label that should hold on new rows: bagged, and shrunk towards the label-free cut.

    Args:    probs: float32 (N, L), in [0, 1]; they need not be calibrated.   labels: bool (N, L).
    Returns: float32 (L,); the label-free cut alone for a label without a positive.
    Raises:  ValueError: shapes differ, or probs leave [0, 1].
    """
    check_probs(probs, labels)
    rng = np.random.default_rng(seed)
    slope, shift = fit_calibration(probs, labels)
    free = expected_f1_cuts(apply_calibration(probs, slope, shift))
    free = sigmoid((logit(free) - shift) / slope)  # on the scale of `probs` again
    thresholds = free.copy()
    for label in np.flatnonzero(labels.any(axis=0)):
        n_positives = labels[:, label].sum()
        trust = n_positives / (n_positives + PRIOR_POSITIVES)
        thresholds[label] = trust * bagged_cut(probs[:, label], labels[:, label], rng) + (1 - trust) * free[label]
    return thresholds.astype(np.float32)


def bagged_cut(probs: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """Mean over bootstrap resamples of one label's best cut.

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
    return float(cuts[np.argmax(f1, axis=1)].mean())


def expected_f1_cuts(probs: np.ndarray) -> np.ndarray:
    """The cut that maximises each label's expected F1 if the probabilities are right, float64 (L,): half that F1.

    Source: Lipton et al. 2014: with k rows decided, F1 is about 2 sum(top k probs) / (k + sum(probs)).
    """
    ordered = -np.sort(-probs, axis=0)
    hits = ordered.cumsum(axis=0, dtype=np.float64)
    rows = np.arange(1, len(probs) + 1)[:, None]
    return (hits / (rows + hits[-1])).max(axis=0)
