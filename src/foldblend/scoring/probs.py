"""The scoring room, where logits become probabilities: the one place that applies a sigmoid or a softmax."""

import numpy as np

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm, so that a run's hard 0 or 1 stays finite."""

SMALLEST_CHANCE = 3e-4
"""The same where a blend makes decisions: a run's hard 0 must not outweigh what all others say."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow: numpy's tanh saturates where exp would not."""
    half = logits.dtype.type(0.5)
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

    Raises: ValueError: a value outside [0, 1] (are these logits?).
    """
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise ValueError(
            f"probabilities span {probs.min():.4g} to {probs.max():.4g}; expected [0, 1]. Are these logits?"
        )
    kept = np.clip(probs, smallest, 1 - smallest)
    return np.log(kept) - np.log1p(-kept)


def to_scores(values: np.ndarray, kind: str, task: str, smallest: float = SMALLEST) -> np.ndarray:
    """A run's predictions on the scale that blends add up: log-odds, or log-probabilities for one label a row.

    Args:    values: float32 (..., L).   kind: "logits" or "probs".   task: "multilabel" or "multiclass".
             smallest: how far a label's probability is kept from 0 and 1.
    Returns: float32 (..., L); multiclass rows satisfy sum(exp(scores)) = 1.
    Raises:  ValueError: probabilities outside [0, 1], or an unknown kind.
    """
    if kind not in ("logits", "probs"):
        raise ValueError(f"predictions are of kind {kind!r}; expected 'logits' or 'probs'")
    values = np.asarray(values, np.float32)
    if task == "multilabel":
        return values if kind == "logits" else logit(values, smallest)
    probs = softmax(values) if kind == "logits" else values / np.maximum(values.sum(axis=-1, keepdims=True), SMALLEST)
    return np.log(np.clip(probs, SMALLEST, 1))


def to_probs(scores: np.ndarray, task: str) -> np.ndarray:
    """The probabilities of blended scores: sigmoid a label (multilabel), softmax over labels (multiclass)."""
    return sigmoid(scores) if task == "multilabel" else softmax(scores)
