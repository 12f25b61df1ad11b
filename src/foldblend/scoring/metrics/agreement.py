"""Metrics of decisions beside F1: F-beta, Matthews' correlation, quadratic weighted kappa; equal to scikit-learn's.

Labels and decisions are bool (N, L). A ratio 0 / 0 counts as 0.
"""

import numpy as np

from foldblend.scoring.metrics.decisions import check_shapes, count_labels, count_rows, ratio

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
