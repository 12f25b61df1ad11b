"""The formula of every metric, equal to scikit-learn's, and fast enough for a search. Their table is in table.py.

Labels and decisions are bool (N, L), probs float (N, L). A ratio 0 / 0 counts as 0, as scikit-learn's `zero_division=0`
does. A blend scores some hundred thousand tables, so trues are counted in bytes instead of int64: an eighth of the
memory traffic, and the same numbers.
"""

from collections.abc import Callable

import numpy as np

from foldblend.cores import over_labels

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
    if not whole:
        return np.add.reduce(bits, axis=0, dtype=np.int64)
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


# ---------- F-beta: recall counts beta times as much as precision


def _f_beta(hits: np.ndarray, positives: np.ndarray, decided: np.ndarray, beta: float) -> np.ndarray:
    """(1 + beta^2) hits / (beta^2 positives + decided)."""
    return ratio((1 + beta**2) * hits, beta**2 * positives + decided)


def macro_f_beta(labels: np.ndarray, decisions: np.ndarray, beta: float) -> float:
    """Mean of the labels' F-beta. Source: sklearn.metrics.fbeta_score(average="macro", zero_division=0)."""
    return float(_f_beta(*count_labels(labels, decisions), beta).mean())


def micro_f_beta(labels: np.ndarray, decisions: np.ndarray, beta: float) -> float:
    """F-beta of all cells of the table as if they were one label. Source: fbeta_score(average="micro")."""
    hits, positives, decided = (part.sum() for part in count_labels(labels, decisions))
    return float(_f_beta(hits, positives, decided, beta))


def row_f_beta(labels: np.ndarray, decisions: np.ndarray, beta: float) -> np.ndarray:
    """F-beta of each row's label set, float64 (N,); two empty sets give 0."""
    return _f_beta(*count_rows(labels, decisions), beta)


def samples_f_beta(labels: np.ndarray, decisions: np.ndarray, beta: float) -> float:
    """Mean of the rows' F-beta. Source: fbeta_score(average="samples", zero_division=0)."""
    return float(row_f_beta(labels, decisions, beta).mean())


# ---------- Matthews' correlation


def matthews(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Mean of the labels' correlation of truth and decision, -1 to 1.

    Source: sklearn.metrics.matthews_corrcoef of each column; 0 for a column that is constant in truth or decision.
    """
    n, (hits, positives, decided) = len(labels), count_labels(labels, decisions)
    covariance = n * hits - positives * decided
    spread = (positives * (n - positives)) * (decided * (n - decided)).astype(np.float64)
    return float(ratio(covariance, np.sqrt(spread)).mean())


def class_matthews(labels: np.ndarray, decisions: np.ndarray) -> float:
    """The correlation for one class per row (R_K). Source: sklearn.metrics.matthews_corrcoef; Gorodkin 2004."""
    n, (hits, positives, decided) = len(labels), (part.astype(np.float64) for part in count_labels(labels, decisions))
    covariance = n * hits.sum() - positives @ decided
    spread = (n**2 - positives @ positives) * (n**2 - decided @ decided)
    return float(ratio(covariance, np.sqrt(spread)))


# ---------- Quadratic weighted kappa: classes have an order, and a miss costs its distance squared


def quadratic_weighted_kappa(labels: np.ndarray, decisions: np.ndarray) -> float:
    """1 - the mean squared distance of the classes over that of chance, for one class per row, in the labels' order.

    Example: truth of classes 0, 1, 2 decided as 0, 1, 1 -> 1 - (1 / 3) / (8 / 9) = 0.625.
    Source:  sklearn.metrics.cohen_kappa_score(weights="quadratic").
    """
    check_shapes(labels, decisions)
    truth, decided = labels.argmax(axis=1), decisions.argmax(axis=1)
    observed = float(((truth - decided) ** 2).sum())
    return kappa_of_sums(observed, labels.sum(axis=0), decisions.sum(axis=0))


def kappa_of_sums(observed: float, positives: np.ndarray, decided: np.ndarray) -> float:
    """Kappa from the sum of squared distances and the counts of each class, (L,) each; 0 if chance makes no miss."""
    classes = np.arange(len(positives))
    first, second = positives @ classes, decided @ classes
    by_chance = (positives @ classes**2) * decided.sum() - 2 * first * second + (decided @ classes**2) * positives.sum()
    return float(1 - observed * positives.sum() / by_chance) if by_chance > 0 else 0.0


# ---------- Probabilities: one sort per label, and labels are sorted side by side on all cores


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


# ---------- AUC averaged over groups of rows


def group_aucs(labels: np.ndarray, probs: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """ROC-AUC of each label within each group, float64 (G, L); nan if all rows of the group say the same of a label.

    Args: groups: (N,); rows with the same number or name are a group.
    """
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1
    return np.stack([label_auc(labels[rows], probs[rows]) for rows in np.split(order, edges)])


def group_auc(labels: np.ndarray, probs: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Mean ROC-AUC over groups and labels, those left out whose rows are of one class; 0.5 if none is left.

    Without groups all rows are one. A ranking across groups does not count, only that within each.
    Example: rows of groups 0, 0, 1, 1 with labels 1, 0, 1, 0 and probs .9, .8, .2, .1 -> 1.0, although .2 < .8.
    Source:  Kaggle's "Jigsaw - Agile Community Rules": the AUC of each rule, averaged over rules.
    """
    of_groups = group_aucs(labels, probs, np.zeros(len(labels), int) if groups is None else groups)
    defined = of_groups[np.isfinite(of_groups)]
    return float(defined.mean()) if len(defined) else 0.5


# ---------- Ranked lists: a row's labels from the likeliest on


CELLS_AT_ONCE = 1 << 22
"""Probabilities that are compared at a time: the copies stay small, whatever the number of labels."""


def row_average_precision(labels: np.ndarray, probs: np.ndarray, k: int | None = None) -> np.ndarray:
    """Average precision of each row's list of its `k` likeliest labels (all without k), float64 (N,).

    The list has the labels with the highest probabilities, the first column of equal ones, and none of probability 0.
    The sum of the precision at each right label is divided by the rights there can be: the row's labels, or k. A row
    without labels has 0.

    Example: the second of three listed labels is the only right one -> (1 / 2) / 1 = 0.5.
    Source:  Kaggle's MAP@k; `apk` of github.com/benhamner/Metrics.
    """
    check_shapes(labels, probs)
    k = k or labels.shape[1]
    rows, columns = np.nonzero(labels)
    ranks = _list_ranks(probs, rows, columns)
    listed = (ranks <= k) & (probs[rows, columns] > 0)
    rows, ranks = rows[listed], ranks[listed]
    order = np.lexsort((ranks, rows))
    rows, ranks = rows[order], ranks[order]
    first = np.searchsorted(rows, rows, "left")  # of the row's right labels in the list
    hits = np.arange(len(rows)) - first + 1
    precision = np.bincount(rows, hits / ranks, len(labels))
    return precision / np.clip(labels.sum(axis=1), 1, k)


def _list_ranks(probs: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Place of some cells in their row's list, int64, from 1: one more than the labels before them.

    Comparing each right label with its row is cheaper than sorting rows: most rows have one right label.
    """
    ranks, step = np.empty(len(rows), np.int64), max(CELLS_AT_ONCE // max(probs.shape[1], 1), 1)
    number = np.arange(probs.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        own, of_row = probs[rows[part], columns[part], None], probs[rows[part]]
        before = (of_row > own) | ((of_row == own) & (number < columns[part, None]))
        ranks[part] = before.sum(axis=1) + 1
    return ranks


def map_at_k(labels: np.ndarray, probs: np.ndarray, k: int | None = None) -> float:
    """Mean over rows of `row_average_precision`."""
    return float(row_average_precision(labels, probs, k).mean())


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


# ---------- Values: float (N, L), one column per value, each scored by itself and averaged


def rmse(values: np.ndarray, predicted: np.ndarray) -> float:
    """Root of the mean squared error, averaged over columns (MCRMSE if there are several)."""
    check_shapes(values, predicted)
    return float(np.sqrt(((values - predicted) ** 2).mean(axis=0, dtype=np.float64)).mean())


def mae(values: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute error."""
    check_shapes(values, predicted)
    return float(np.abs(values - predicted).mean(dtype=np.float64))


def pearson(values: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of the columns' correlation; 0 for a column that is constant in truth or prediction."""
    check_shapes(values, predicted)
    ours, theirs = (each - each.mean(axis=0, dtype=np.float64) for each in (values, predicted))
    spread = np.sqrt((ours**2).sum(axis=0) * (theirs**2).sum(axis=0))
    return float(ratio((ours * theirs).sum(axis=0), spread).mean())


def spearman(values: np.ndarray, predicted: np.ndarray) -> float:
    """The same of ranks, equal values sharing the mean of theirs. Source: scipy.stats.spearmanr."""
    ours, theirs = (np.stack([_mid_ranks(column) for column in each.T], axis=1) for each in (values, predicted))
    return pearson(ours, theirs)


def _mid_ranks(column: np.ndarray) -> np.ndarray:
    """Ranks float64 (N,), equal values sharing the mean of theirs; scipy.stats would take a second to import."""
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]
