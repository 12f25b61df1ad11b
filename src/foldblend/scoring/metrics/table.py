"""The scoring room's metrics: what a leaderboard computes, equal to scikit-learn's and fast enough to search with.

`METRICS` at the end names each one, the answer it wants (decisions or probabilities) and the decoder that makes that
answer. A new metric is one function and one line there. The training side imports this module as well: it stays light.
Labels and decisions are bool (N, L); probs are float (N, L). A ratio 0 / 0 counts as 0, as scikit-learn's
`zero_division=0` does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foldblend.scoring.parallel import over_labels


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, and 0 where below is 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def _by_label(matrix: np.ndarray) -> np.ndarray:
    """Trues a column, int64 (L,). Bits are added 255 rows at a time in bytes, eight times less traffic than int64."""
    bits, whole = matrix.view(np.uint8), len(matrix) // 255 * 255
    blocks = np.add.reduce(bits[:whole].reshape(-1, 255, bits.shape[1]), axis=1, dtype=np.uint8)
    return blocks.sum(axis=0, dtype=np.int64) + bits[whole:].sum(axis=0, dtype=np.int64)


def _by_row(matrix: np.ndarray) -> np.ndarray:
    """Trues a row, float64 (N,). einsum adds bytes without a copy; more labels than a byte counts take wider sums."""
    bits = matrix.view(np.uint8)
    counts = np.einsum("nl->n", bits) if bits.shape[1] < 256 else bits.sum(axis=1, dtype=np.int64)
    return counts.astype(np.float64)


def _check(labels: np.ndarray, answer: np.ndarray):
    if labels.shape != answer.shape or labels.ndim != 2:
        raise ValueError(f"labels are {labels.shape}, predictions {answer.shape}; expected the same (N, L)")


def _counts(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, positives and decided rows a label, each int64 (L,)."""
    _check(labels, decisions)
    labels, decisions = np.ascontiguousarray(labels, bool), np.ascontiguousarray(decisions, bool)
    return _by_label(labels & decisions), _by_label(labels), _by_label(decisions)


def label_f1(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """F1 of each label, float64 (L,): 2 TP / (positives + decided)."""
    hits, positives, decided = _counts(labels, decisions)
    return _ratio(2 * hits, positives + decided)


def macro_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the labels' F1.

    Example: macro_f1([[1, 0], [1, 1]], [[1, 0], [0, 1]]) -> (2/3 + 1) / 2.
    Source:  sklearn.metrics.f1_score(average="macro", zero_division=0).
    """
    return float(label_f1(labels, decisions).mean())


def micro_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """F1 of all cells of the table as one label. Source: f1_score(average="micro", zero_division=0)."""
    hits, positives, decided = (part.sum() for part in _counts(labels, decisions))
    return float(_ratio(2 * hits, positives + decided))


def weighted_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the labels' F1, each weighing its positives. Source: f1_score(average="weighted", zero_division=0)."""
    hits, positives, decided = _counts(labels, decisions)
    return float(_ratio((_ratio(2 * hits, positives + decided) * positives).sum(), positives.sum()))


def _row_parts(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits a row, and positives + decided a row, each float64 (N,)."""
    _check(labels, decisions)
    return _by_row(labels & decisions), _by_row(labels) + _by_row(decisions)


def row_f1(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """F1 of each row's label set, (N,); two empty sets give 0."""
    hits, total = _row_parts(labels, decisions)
    return _ratio(2 * hits, total)


def samples_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the rows' F1. Source: f1_score(average="samples", zero_division=0)."""
    return float(row_f1(labels, decisions).mean())


def row_jaccard(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Size of each row's intersection over its union, (N,); two empty sets give 0."""
    hits, total = _row_parts(labels, decisions)
    return _ratio(hits, total - hits)


def jaccard(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the rows' Jaccard, which SemEval calls accuracy. Source: jaccard_score(average="samples")."""
    return float(row_jaccard(labels, decisions).mean())


def row_correct(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Whether the whole row is right, float (N,)."""
    _check(labels, decisions)
    return (_by_row(labels ^ decisions) == 0).astype(float)


def subset_accuracy(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Share of rows whose label set is exactly right. Source: sklearn.metrics.accuracy_score."""
    return float(row_correct(labels, decisions).mean())


def accuracy(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Share of rows whose one class is right; both tables hold one True a row. Source: accuracy_score."""
    return subset_accuracy(labels, decisions)


def _columns(one: Callable, labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """`one(positives, everyone)` of each label, both sorted."""
    _check(labels, probs)
    by_label, positive = np.ascontiguousarray(probs.T), np.ascontiguousarray(labels.T, bool)

    def sort_and_score(label):
        column = by_label[label]
        return one(np.sort(column[np.flatnonzero(positive[label])]), np.sort(column))

    return np.array(over_labels(sort_and_score, len(by_label), len(probs)))


def label_auc(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each label, (L,); nan for a label with one class only.

    Source: Mann-Whitney; a positive's mid-rank among all rows comes from one sort and two binary searches.
    """
    return _columns(_auc, labels, probs)


def _auc(positives: np.ndarray, ordered: np.ndarray) -> float:
    n_positives, n_negatives = len(positives), len(ordered) - len(positives)
    if not n_positives or not n_negatives:
        return float("nan")
    below = ordered.searchsorted(positives, "left").sum() + ordered.searchsorted(positives, "right").sum()
    return (below - n_positives**2) / (2 * n_positives * n_negatives)


def macro_auc(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean column-wise ROC-AUC. Source: sklearn.metrics.roc_auc_score(average="macro")."""
    return float(label_auc(labels, probs).mean())


def label_ap(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Average precision of each label, (L,): the precision at each positive's score, averaged; 0 without a positive."""
    return _columns(_ap, labels, probs)


def _ap(positives: np.ndarray, ordered: np.ndarray) -> float:
    if not len(positives):
        return 0.0
    place = np.arange(len(positives))
    place[1:][positives[1:] == positives[:-1]] = 0
    hits = len(positives) - np.maximum.accumulate(place)  # tied positives all count from the first of them
    return float((hits / (len(ordered) - ordered.searchsorted(positives, "left"))).mean())


def macro_ap(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean of the labels' average precision. Source: average_precision_score(average="macro")."""
    return float(label_ap(labels, probs).mean())


def row_log_loss(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Binary log loss averaged over a row's labels, float (N,); probs are kept one float step away from 0 and 1."""
    _check(labels, probs)
    edge = np.finfo(probs.dtype).eps
    right = np.where(labels, probs, 1 - probs)
    return -np.log(np.clip(right, edge, 1 - edge)).mean(axis=1, dtype=np.float64)


def log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Column-wise binary log loss. Source: sklearn.metrics.log_loss(labels=[False, True]), averaged over columns."""
    return float(row_log_loss(labels, probs).mean())


def row_class_log_loss(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Minus the log of the true class's share of its row, float (N,)."""
    _check(labels, probs)
    edge = np.finfo(probs.dtype).eps
    return -np.log(np.clip(probs[labels] / probs.sum(axis=1), edge, 1 - edge)).astype(np.float64)


def class_log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Multiclass log loss. Source: sklearn.metrics.log_loss on one-hot labels."""
    return float(row_class_log_loss(labels, probs).mean())


@dataclass(frozen=True)
class Metric:
    """One metric and what the blend needs to know about it."""

    score: Callable[[np.ndarray, np.ndarray], float]
    """(labels, decisions or probs) -> the number on the leaderboard."""
    decoder: str
    """`cutoffs`: a threshold a label, each alone. `joint`: thresholds searched together. `none`: probs as they are."""
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """The row-wise values whose mean the score is, where there are such."""
    greater_is_better: bool = True
    """False for losses."""


METRICS = {
    "macro_f1": Metric(macro_f1, "cutoffs"),
    "weighted_f1": Metric(weighted_f1, "cutoffs"),
    "micro_f1": Metric(micro_f1, "joint"),
    "samples_f1": Metric(samples_f1, "joint", row_f1),
    "jaccard": Metric(jaccard, "joint", row_jaccard),
    "subset_accuracy": Metric(subset_accuracy, "joint", row_correct),
    "accuracy": Metric(accuracy, "offsets", row_correct),
    "macro_auc": Metric(macro_auc, "none"),
    "macro_ap": Metric(macro_ap, "none"),
    "log_loss": Metric(log_loss, "none", row_log_loss, greater_is_better=False),
}
