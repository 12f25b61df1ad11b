"""Metrics of probabilities: ROC-AUC, average precision and log loss, equal to scikit-learn's.

Labels are bool (N, L), probs float (N, L). AUC and average precision need one sort per label, and labels are sorted
side by side on all cores.
"""

from collections.abc import Callable

import numpy as np

from foldblend.cores import over_labels
from foldblend.scoring.metrics.decisions import check_shapes

# ---------- Ranks


def _score_columns(score_column: Callable, labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """`score_column(sorted probs of positives, sorted probs of all rows)` of each label, float64 (L,)."""
    check_shapes(labels, probs)
    by_label, positive = (
        np.ascontiguousarray(probs.T),
        np.ascontiguousarray(labels.T, bool),
    )  # (L, N): columns lie whole

    def sort_and_score(label):
        column = by_label[label]
        return score_column(np.sort(column[np.flatnonzero(positive[label])]), np.sort(column))

    return np.array(over_labels(sort_and_score, len(by_label), len(probs)))


def label_auc(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each label, float64 (L,); nan for a label with one class only.

    Source: Mann and Whitney 1947; a positive's mid-rank among all rows comes from one sort and two binary searches.
    """
    return _score_columns(_auc, labels, probs)


def _auc(positives: np.ndarray, ordered: np.ndarray) -> float:
    n_positives, n_negatives = len(positives), len(ordered) - len(positives)
    if not n_positives or not n_negatives:
        return float("nan")
    # rows strictly below plus rows at or below: a tie counts one half of two
    below = ordered.searchsorted(positives, "left").sum() + ordered.searchsorted(positives, "right").sum()
    return (below - n_positives**2) / (2 * n_positives * n_negatives)  # less the positives among themselves


def macro_auc(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean column-wise ROC-AUC over the labels that have rows of both kinds; 0.5 if none has.

    A label with few rows may have none among those that a part of a blend is fitted on.
    Source: sklearn.metrics.roc_auc_score(average="macro"), which has no value for a label of one kind.
    """
    of_labels = label_auc(labels, probs)
    defined = of_labels[np.isfinite(of_labels)]
    return float(defined.mean()) if len(defined) else 0.5


def label_ap(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Average precision of each label, float64 (L,): the mean precision at each positive's score; 0 without any."""
    return _score_columns(_average_precision, labels, probs)


def _average_precision(positives: np.ndarray, ordered: np.ndarray) -> float:
    if not len(positives):
        return 0.0
    first = np.arange(len(positives))  # of tied positives, the number of the first one ...
    first[1:][positives[1:] == positives[:-1]] = 0
    hits = len(positives) - np.maximum.accumulate(first)  # ... for all of them are hits at that score
    return float((hits / (len(ordered) - ordered.searchsorted(positives, "left"))).mean())


def macro_ap(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean of the labels' average precision. Source: average_precision_score(average="macro")."""
    return float(label_ap(labels, probs).mean())


# ---------- Log loss


def row_log_loss(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Binary log loss averaged over a row's labels, float64 (N,).

    Probs are kept one float step away from 0 and 1, as scikit-learn does, so that one wrong certainty stays finite.
    """
    check_shapes(labels, probs)
    edge = np.finfo(probs.dtype).eps
    right = np.where(labels, probs, 1 - probs)
    return -np.log(np.clip(right, edge, 1 - edge)).mean(axis=1, dtype=np.float64)


def log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Column-wise binary log loss. Source: sklearn.metrics.log_loss(labels=[False, True]), averaged over columns."""
    return float(row_log_loss(labels, probs).mean())


def row_class_log_loss(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Minus the log of the true class's share of its row, float64 (N,)."""
    check_shapes(labels, probs)
    edge = np.finfo(probs.dtype).eps
    return -np.log(np.clip(probs[labels] / probs.sum(axis=1), edge, 1 - edge)).astype(np.float64)


def class_log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Multiclass log loss. Source: sklearn.metrics.log_loss on one-hot labels."""
    return float(row_class_log_loss(labels, probs).mean())
