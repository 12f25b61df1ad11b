"""The score a fold shows while it trains; its cut-offs come from the training rows' rates: nothing is tuned on it."""

import numpy as np

from scoring.metrics import accuracy, macro_f1


def score_heldout(logits: np.ndarray, labels: np.ndarray, train_rates: np.ndarray, task: str) -> dict[str, float]:
    """Macro-F1 of held-out rows, deciding as many positives a label as the training rows have.

    Args:   logits: float32 (n, L), any rising function of the probabilities.   labels: bool (n, L).
            train_rates: float (L,), share of positives a label in the fold's training rows.
    Returns: {"macro_f1": ...}, and {"accuracy": ...} too where one label a row is the task.
    """
    if task == "multiclass":
        decisions = logits.argmax(1)[:, None] == np.arange(logits.shape[1])
        return {"macro_f1": float(macro_f1(labels, decisions)), "accuracy": float(accuracy(labels, decisions))}
    cuts = [np.quantile(column, 1 - rate) for column, rate in zip(logits.T, train_rates)]
    return {"macro_f1": float(macro_f1(labels, logits >= np.array(cuts)))}


def label_log_odds(labels: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of each label's rate, float32 (L,); half a row on each side keeps it finite.

    labels: (n, L), bool or shares in [0, 1].
    """
    positives = labels.sum(0)
    return np.log((positives + 0.5) / (len(labels) - positives + 0.5)).astype(np.float32)


def prior_logits(labels: np.ndarray, task: str) -> np.ndarray:
    """Logits, float32 (L,), of answering every text with the label rates: log-odds; log rates where one label a row."""
    if task == "multiclass":
        return np.log((labels.sum(0) + 0.5) / len(labels)).astype(np.float32)
    return label_log_odds(labels)
