"""Logits to probabilities and back: the one file of scoring that applies a sigmoid or a softmax."""

import numpy as np

from foldblend.errors import UserError

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm, so that a run's hard 0 or 1 stays finite."""

SMALLEST_FOR_DECISIONS = 3e-4
"""The same if a blend makes decisions: a run's hard 0 must not outweigh what all others say."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow: numpy's tanh saturates where exp would not."""
    half = logits.dtype.type(0.5)  # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
    probs = np.atleast_1d(logits * half)
    np.tanh(probs, out=probs)
    probs *= half
    probs += half
    return probs.reshape(logits.shape)


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over its sum along the last axis; the largest logit is subtracted first, so nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def logit(probs: np.ndarray, smallest: float = SMALLEST) -> np.ndarray:
    """log(p / (1 - p)), with p kept `smallest` away from 0 and 1.

    Raises: UserError: a value outside [0, 1] (are these logits?).
    """
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise UserError(
            f"probabilities outside [0, 1]: they span {probs.min():.4g} to {probs.max():.4g}. Are these logits?"
        )
    kept = np.clip(probs, smallest, 1 - smallest)
    return np.log(kept) - np.log1p(-kept)


def to_scores(values: np.ndarray, kind: str, task: str, smallest: float = SMALLEST) -> np.ndarray:
    """A run's predictions on the scale that blends add up: log-odds, or log-probabilities for one label per row.

    Args:    values: float32 (..., L).   kind: "logits" or "probs".   task: "multilabel" or "multiclass".
             smallest: how far a label's probability is kept from 0 and 1.
    Returns: float32 (..., L); multiclass rows satisfy sum(exp(scores)) = 1.
    Raises:  UserError: probabilities outside [0, 1], or an unknown kind.
    """
    if kind not in ("logits", "probs"):
        raise UserError(f"predictions are of kind {kind!r}; expected 'logits' or 'probs'")
    values = np.asarray(values, np.float32)
    if task == "multilabel":
        return values if kind == "logits" else logit(values, smallest)
    probs = softmax(values) if kind == "logits" else values / np.maximum(values.sum(axis=-1, keepdims=True), SMALLEST)
    return np.log(np.clip(probs, SMALLEST, 1))


def to_probs(scores: np.ndarray, task: str) -> np.ndarray:
    """The probabilities of blended scores: a sigmoid per label (multilabel), softmax over labels (multiclass)."""
    return sigmoid(scores) if task == "multilabel" else softmax(scores)
