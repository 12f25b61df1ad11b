"""Metrics of decisions: F1 in its averages, Jaccard and accuracy, equal to scikit-learn's and fast enough for a search.

Labels and decisions are bool (N, L). A ratio 0 / 0 counts as 0, as scikit-learn's `zero_division=0` does.
A blend scores some hundred thousand tables, so trues are counted in bytes instead of int64: an eighth of the memory
traffic, and the same numbers.
"""

import numpy as np

# ---------- Counting


def check_shapes(labels: np.ndarray, answer: np.ndarray) -> None:
    """Refuse two tables that are not of the same shape (N, L).

    Raises: ValueError: the shapes differ, or are not two-dimensional.
    """
    if labels.shape != answer.shape or labels.ndim != 2:
        raise ValueError(f"labels are {labels.shape}, predictions {answer.shape}; expected the same (N, L)")


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, and 0 if below is 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def _count_per_label(matrix: np.ndarray) -> np.ndarray:
    """Trues per column of a bool (N, L), int64 (L,).

    255 rows at a time fit into bytes; only their sums are added as int64.
    """
    bits, whole = matrix.view(np.uint8), len(matrix) // 255 * 255
    blocks = np.add.reduce(bits[:whole].reshape(-1, 255, bits.shape[1]), axis=1, dtype=np.uint8)  # (N // 255, L)
    return blocks.sum(axis=0, dtype=np.int64) + bits[whole:].sum(axis=0, dtype=np.int64)


def _count_per_row(matrix: np.ndarray) -> np.ndarray:
    """Trues per row of a bool (N, L), float64 (N,)."""
    bits = matrix.view(np.uint8)
    # einsum adds bytes without a copy; more labels than a byte can count need the wider sum
    counts = np.einsum("nl->n", bits) if bits.shape[1] < 256 else bits.sum(axis=1, dtype=np.int64)
    return counts.astype(np.float64)


def _label_counts(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, positives and decided rows per label, each int64 (L,)."""
    check_shapes(labels, decisions)
    labels, decisions = np.ascontiguousarray(labels, bool), np.ascontiguousarray(decisions, bool)
    return _count_per_label(labels & decisions), _count_per_label(labels), _count_per_label(decisions)


def count_labels(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, positives and decided rows of each label, int64 (L,) each."""
    return _label_counts(labels, decisions)


def count_rows(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, positives and decided labels of each row, (N,) each."""
    check_shapes(labels, decisions)
    return _count_per_row(labels & decisions), _count_per_row(labels), _count_per_row(decisions)


def _row_counts(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True positives per row, and positives + decided labels per row, each float64 (N,)."""
    check_shapes(labels, decisions)
    return _count_per_row(labels & decisions), _count_per_row(labels) + _count_per_row(decisions)


# ---------- F1 over labels


def label_f1(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """F1 of each label, float64 (L,): 2 TP / (positives + decided)."""
    hits, positives, decided = _label_counts(labels, decisions)
    return ratio(2 * hits, positives + decided)


def macro_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the labels' F1.

    Args:    labels, decisions: bool (N, L).
    Example: macro_f1([[1, 0], [1, 1]], [[1, 0], [0, 1]]) -> (2/3 + 1) / 2.
    Source:  sklearn.metrics.f1_score(average="macro", zero_division=0).
    """
    return float(label_f1(labels, decisions).mean())


def micro_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """F1 of all cells of the table as if they were one label. Source: f1_score(average="micro", zero_division=0)."""
    hits, positives, decided = (part.sum() for part in _label_counts(labels, decisions))
    return float(ratio(2 * hits, positives + decided))


def weighted_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the labels' F1, weighted by positives. Source: f1_score(average="weighted", zero_division=0)."""
    hits, positives, decided = _label_counts(labels, decisions)
    return float(ratio((ratio(2 * hits, positives + decided) * positives).sum(), positives.sum()))


# ---------- Scores of a row, averaged over rows


def row_f1(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """F1 of each row's label set, float64 (N,); two empty sets give 0."""
    hits, total = _row_counts(labels, decisions)
    return ratio(2 * hits, total)


def samples_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the rows' F1. Source: f1_score(average="samples", zero_division=0)."""
    return float(row_f1(labels, decisions).mean())


def row_jaccard(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Size of each row's intersection over its union, float64 (N,); two empty sets give 0."""
    hits, total = _row_counts(labels, decisions)
    return ratio(hits, total - hits)


def jaccard(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the rows' Jaccard, which SemEval calls accuracy. Source: jaccard_score(average="samples")."""
    return float(row_jaccard(labels, decisions).mean())


def row_correct(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """1.0 if the whole row is right, else 0.0: float64 (N,)."""
    check_shapes(labels, decisions)
    return (_count_per_row(labels ^ decisions) == 0).astype(float)


def subset_accuracy(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Share of rows whose label set is exactly right. Source: sklearn.metrics.accuracy_score."""
    return float(row_correct(labels, decisions).mean())


def accuracy(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Share of rows whose one class is right; both tables hold one True per row. Source: accuracy_score."""
    return subset_accuracy(labels, decisions)
