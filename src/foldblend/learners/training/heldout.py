"""The score a fold shows while it trains; its thresholds come from the training rows' rates: nothing is tuned on it."""

import numpy as np
from scipy.special import expit, softmax

from foldblend.scoring.metrics.table import METRICS, find_metric


def score_heldout(
    logits: np.ndarray,
    labels: np.ndarray,
    train_rates: np.ndarray,
    task: str,
    metric: str = "macro_f1",
    known: np.ndarray | None = None,
) -> dict[str, float]:
    """Scores of held-out rows; where a metric wants decisions, as many positives a label as the training rows have.

    Args:   logits: float32 (n, L); metrics of decisions and ranks read any rising function of the probabilities.
            labels: bool (n, L).   train_rates: float (L,), share of positives a label in the fold's training rows.
            metric: the competition's, a name in METRICS.
            known: bool (n, L), False for cells that are not scored; None scores all. Metrics of probabilities are of
            the rows that are known as a whole.
    Returns: `macro_f1`, `accuracy` too where one label a row is the task, and `metric`.
    """
    if task == "multiclass":
        decisions = logits.argmax(1)[:, None] == np.arange(logits.shape[1])
    else:
        decisions = logits >= np.array([np.quantile(column, 1 - rate) for column, rate in zip(logits.T, train_rates)])
    if known is not None:
        decisions = decisions & known
        whole = known.all(axis=1)
    names = dict.fromkeys(["macro_f1", *(["accuracy"] if task == "multiclass" else []), metric])
    of_decisions = [name for name in names if not METRICS[name].takes_probs]
    scores = {name: float(METRICS[name].score(labels, decisions)) for name in of_decisions}
    if metric not in scores:
        probs = softmax(logits, axis=1) if task == "multiclass" else expit(logits)
        if known is not None:
            probs, labels = probs[whole], labels[whole]
        scores[metric] = find_metric(metric, task).score(labels, probs) if len(labels) else 0.0
    return scores


def label_log_odds(labels: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of each label's rate, float32 (L,); half a row on each side keeps it finite.

    labels: (n, L), bool or shares in [0, 1]; nan is unknown and does not count.
    """
    positives, rows = count_positives(labels)
    return np.log((positives + 0.5) / (rows - positives + 0.5)).astype(np.float32)


def count_positives(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | int]:
    """(sum of each label (L,), rows in which it is known) of labels (n, L), bool or shares with nan for unknown."""
    if labels.dtype == bool:
        return labels.sum(0), len(labels)
    return np.nansum(labels, axis=0), (~np.isnan(labels)).sum(axis=0)


def prior_logits(labels: np.ndarray, task: str) -> np.ndarray:
    """Logits, float32 (L,), of answering every text with the label rates: log-odds; log rates where one label a row."""
    if task == "multiclass":
        return np.log((labels.sum(0) + 0.5) / len(labels)).astype(np.float32)
    return label_log_odds(labels)
