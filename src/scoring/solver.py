"""The scoring room's solver: ridge logistic regressions on many subsets of the same rows at once.

Cross-fitting asks for the same regression without fold k, without folds k and j, ... Those fits differ only in which
rows they leave out, so they share every pass over the features, and one Hessian a fold serves all of them.
"""

import numpy as np

from scoring.probs import sigmoid

MAX_STEPS = 30
"""Newton steps of one fit."""
SHARED_STEPS = 8
"""Steps in which all subsets share their Hessians; what has not converged then goes on alone."""
SURE_GAIN = 0.3
"""A step that promises less log loss than this is near enough to the goal to be taken without looking."""
TOLERANCE = 1e-4
"""Log loss, summed over rows, that a further step would still win."""


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, parts: list[slice], subsets: np.ndarray,
    prior: np.ndarray, penalty: np.ndarray, start: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Minimise log loss + 0.5 * sum(penalty * (coefs - prior)**2) over the rows of each subset.

    Args:    features: float32 (N, F), rows ordered by part.   labels: bool (N,).   parts: P slices of the N rows.
             subsets: bool (S, P), the parts each fit may see.   prior: float64 (F,) or (F, S).   penalty: float64 (F,).
             start: float64 (F, S), where to begin; the prior by default.
    Returns: float64 (F, S).
    Source:  Newton-Raphson (IRLS), each subset's step halved until its own loss does not rise.
    """
    member = np.empty((len(labels), len(subsets)), bool)
    for part, rows in enumerate(parts):
        member[rows] = subsets[:, part]
    if start is None and len(subsets) > 1:  # the fit on all rows is cheap alone and lies near all the others
        everything = np.ones((1, len(parts)), bool)
        first = prior if prior.ndim == 1 else prior[:, 0]
        start = np.repeat(fit_logistic(features, labels, parts, everything, first, penalty), len(subsets), axis=1)
    prior, penalty = (_columns(values, len(subsets)) for values in (prior, penalty))
    target = labels.astype(np.float32)[:, None]
    coefs = prior.copy() if start is None else start.copy()
    probs, loss = sigmoid(features @ coefs.astype(np.float32)), None
    for _ in range(SHARED_STEPS if len(subsets) > 1 else MAX_STEPS):
        slope = _slope(features, probs - target, member) + penalty * (coefs - prior)  # (F, S)
        step = _newton_step(features, probs, parts, subsets, slope, penalty)
        gain = (slope * step).sum(axis=0)
        if gain.max() < TOLERANCE:
            return coefs
        if gain.max() < SURE_GAIN:
            coefs = coefs - step
            probs, loss = sigmoid(features @ coefs.astype(np.float32)), None
            continue
        if loss is None:
            loss = _loss(probs, target, member, coefs, prior, penalty)
        coefs, probs, loss = _descend(features, target, member, coefs, step, loss, prior, penalty)
    for fit in np.flatnonzero(gain >= TOLERANCE) if len(subsets) > 1 else []:  # alone, its Hessian is its own
        alone = [values[:, fit] for values in (prior, penalty)]
        coefs[:, [fit]] = fit_logistic(features, labels, parts, subsets[[fit]], *alone, coefs[:, [fit]])
    return coefs


def _columns(values: np.ndarray, n_subsets: int) -> np.ndarray:
    return np.repeat(values[:, None], n_subsets, axis=1) if values.ndim == 1 else values


def _slope(features, error, member):
    """Gradient of each subset's log loss (F, S); uses up `error`."""
    error *= member
    return features.T @ error


def _loss(probs, target, member, coefs, prior, penalty):
    """Each subset's penalised loss (S,)."""
    right = probs + (target - np.float32(1))
    np.maximum(np.abs(right, out=right), np.float32(1e-12), out=right)  # the probability of what did happen
    loss = -np.einsum("ns,ns->s", np.log(right, out=right), member, dtype=np.float64)
    return loss + 0.5 * (penalty * (coefs - prior) ** 2).sum(axis=0)


def _newton_step(features, probs, parts, subsets, slope, penalty):
    """The step of each subset (F, S), from one Hessian a part at the mean of the subsets' probabilities."""
    middle = probs.mean(axis=1, dtype=np.float32)
    spread = np.sqrt(middle * (1 - middle) + np.float32(1e-8))[:, None]
    bent = [scaled.T @ scaled for scaled in (features[rows] * spread[rows] for rows in parts)]
    hessians = np.tensordot(subsets.astype(np.float64), np.array(bent, np.float64), 1)  # (S, F, F)
    diagonal = np.arange(slope.shape[0])
    hessians[:, diagonal, diagonal] += penalty.T + 1e-6
    return np.linalg.solve(hessians, slope.T[:, :, None])[:, :, 0].T


def _descend(features, target, member, coefs, step, loss, prior, penalty):
    """Move every subset along its step, halved where its loss would rise."""
    size = np.ones(coefs.shape[1])
    for _ in range(8):
        moved = coefs - size * step
        probs = sigmoid(features @ moved.astype(np.float32))
        new_loss = _loss(probs, target, member, moved, prior, penalty)
        worse = new_loss > loss + 1e-6 * np.abs(loss)
        if not worse.any():
            break
        size[worse] /= 2
    return moved, probs, new_loss
