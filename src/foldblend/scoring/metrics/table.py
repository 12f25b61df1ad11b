"""The table of metrics: name -> what the leaderboard computes and what it is computed from.

To add a metric, write one function and one line. The function gets labels bool (N, L) and the answer, and the rest
follows: thresholds are searched with it, the bootstrap recomputes it, training shows it.

    def macro_f2(labels, decisions):
        hits = (labels & decisions).sum(axis=0)
        return float((5 * hits / np.maximum(4 * labels.sum(axis=0) + decisions.sum(axis=0), 1)).mean())

    METRICS["macro_f2"] = Metric(macro_f2, "decisions")  # or "probs", if it takes probabilities

If the score is a mean over rows, name the values of the rows too (`by_row`): the bootstrap is then exact and faster.
The training side imports this module as well, so it stays light.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from foldblend.scoring.metrics.formulas import (
    accuracy,
    class_log_loss,
    class_matthews,
    group_auc,
    jaccard,
    log_loss,
    macro_ap,
    macro_auc,
    macro_f1,
    macro_f_beta,
    mae,
    map_at_k,
    matthews,
    micro_f1,
    micro_f_beta,
    pearson,
    quadratic_weighted_kappa,
    rmse,
    row_average_precision,
    row_class_log_loss,
    row_correct,
    row_f1,
    row_f_beta,
    row_jaccard,
    row_log_loss,
    samples_f1,
    samples_f_beta,
    spearman,
    subset_accuracy,
    weighted_f1,
)

Score = Callable[..., float]


@dataclass(frozen=True)
class Metric:
    """One metric and what the blend needs to know about it."""

    score: Score
    """(labels bool (N, L), answer (N, L)) -> the number on the leaderboard."""
    takes: Literal["decisions", "probs"]
    """What the answer is: bool decisions or float probabilities."""
    by_row: Callable[..., np.ndarray] | None = None
    """Values float (N,) whose mean is the score, if there are such."""
    greater_is_better: bool = True
    """False for losses."""
    for_classes: "Metric | None" = None
    """The same metric for one label per row, if its formula is another."""
    bounds: tuple[float, float] = (-np.inf, np.inf)
    """The lowest and the highest value that the metric can have; an interval of scores never leaves them."""
    reads_order_only: bool = False
    """Whether each label's order of the rows is all that counts, so that ranks do as well as probabilities."""
    is_ordered: bool = False
    """Whether the classes have an order, that of the labels: decisions are then tuned on the expected class."""
    is_ranked: bool = False
    """Whether the answer of a row is a list of its likeliest labels; `score` and `by_row` then take `k`, too."""
    by_groups: bool = False
    """Whether `score` takes a third argument, int (N,): the group of each row."""
    of_values: bool = False
    """Whether labels and answer are numbers, float (N, L), of a regression."""
    by_label: bool = False
    """Whether the score is the mean of the score of each label by itself, so that a label that is unknown in a row
    takes the row out of that label's score alone."""

    @property
    def takes_probs(self) -> bool:
        """Whether the answer is probabilities, so that there are no thresholds to tune."""
        return self.takes == "probs"

    @property
    def sign(self) -> int:
        """1, or -1 for a loss: times this, more is better."""
        return 1 if self.greater_is_better else -1


SHARE, CORRELATION, LOSS = (0.0, 1.0), (-1.0, 1.0), (0.0, np.inf)
"""Bounds of most scores, of correlations, and of losses."""


class MetricTable(dict[str, Metric]):
    """The metrics by name. One whose name ends in `_at_k` is there under every number: `map_at_3`."""

    def __missing__(self, name: str) -> Metric:
        entry, k = super().get(self.family(name)), k_of(name)
        if entry is None or not k:
            raise KeyError(name)
        by_row = partial(entry.by_row, k=k) if entry.by_row else None
        return replace(entry, score=partial(entry.score, k=k), by_row=by_row)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (super().__contains__(self.family(str(name))) and k_of(str(name)) > 0)

    @staticmethod
    def family(name: str) -> str:
        """The name with k in place of its number. Example: "map_at_3" -> "map_at_k"."""
        return re.sub(r"_at_\d+$", "_at_k", name)


def k_of(name: str) -> int:
    """How many labels a row's list has by the name of a metric; 0 if it does not say. Example: "map_at_3" -> 3."""
    found = re.search(r"_at_([1-9]\d{0,5})$", name)
    return int(found[1]) if found else 0


METRICS = MetricTable({
    "macro_f1": Metric(macro_f1, "decisions", bounds=SHARE),
    "weighted_f1": Metric(weighted_f1, "decisions", bounds=SHARE),
    "micro_f1": Metric(micro_f1, "decisions", bounds=SHARE),
    "samples_f1": Metric(samples_f1, "decisions", row_f1, bounds=SHARE),
    "jaccard": Metric(jaccard, "decisions", row_jaccard, bounds=SHARE),
    "subset_accuracy": Metric(subset_accuracy, "decisions", row_correct, bounds=SHARE),
    "accuracy": Metric(accuracy, "decisions", row_correct, bounds=SHARE),
    "macro_f2": Metric(partial(macro_f_beta, beta=2.0), "decisions", bounds=SHARE),
    "micro_f2": Metric(partial(micro_f_beta, beta=2.0), "decisions", bounds=SHARE),
    "samples_f2": Metric(
        partial(samples_f_beta, beta=2.0), "decisions", partial(row_f_beta, beta=2.0), bounds=SHARE
    ),
    "macro_f05": Metric(partial(macro_f_beta, beta=0.5), "decisions", bounds=SHARE),
    "micro_f05": Metric(partial(micro_f_beta, beta=0.5), "decisions", bounds=SHARE),
    "matthews": Metric(
        matthews, "decisions", bounds=CORRELATION,
        for_classes=Metric(class_matthews, "decisions", bounds=CORRELATION),
    ),
    "quadratic_weighted_kappa": Metric(quadratic_weighted_kappa, "decisions", bounds=CORRELATION, is_ordered=True),
    "macro_auc": Metric(macro_auc, "probs", bounds=SHARE, reads_order_only=True, by_label=True),
    "macro_ap": Metric(macro_ap, "probs", bounds=SHARE, reads_order_only=True, by_label=True),
    "log_loss": Metric(
        log_loss, "probs", row_log_loss, greater_is_better=False, bounds=LOSS, by_label=True,
        for_classes=Metric(class_log_loss, "probs", row_class_log_loss, greater_is_better=False, bounds=LOSS),
    ),
    "group_auc": Metric(group_auc, "probs", bounds=SHARE, reads_order_only=True, by_groups=True, by_label=True),
    "rmse": Metric(rmse, "probs", greater_is_better=False, bounds=LOSS, of_values=True, by_label=True),
    "mae": Metric(mae, "probs", greater_is_better=False, bounds=LOSS, of_values=True, by_label=True),
    "pearson": Metric(pearson, "probs", bounds=CORRELATION, of_values=True, by_label=True),
    "spearman": Metric(
        spearman, "probs", bounds=CORRELATION, reads_order_only=True, of_values=True, by_label=True
    ),
    "map_at_k": Metric(map_at_k, "probs", row_average_precision, bounds=SHARE, is_ranked=True),
})  # fmt: skip
"""Every metric by its name in `metric:` of a competition's YAML; plugins add theirs."""


def find_metric(name: str, kind: str) -> Metric:
    """The metric for one kind of task.

    Args:    name: a key of METRICS.   kind: "multilabel" or "multiclass".
    Example: find_metric("log_loss", "multiclass").score is class_log_loss.
    """
    metric = METRICS[name]
    return metric.for_classes if kind == "multiclass" and metric.for_classes else metric


def known_columns(entry: Metric, labels: np.ndarray, known: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The labels that a metric with `by_label` can score, each with the rows in which it is known, int64.

    A label without known rows is left out, and for AUC one whose known rows all say the same.
    """
    found = []
    for label in range(labels.shape[1]):
        rows = np.flatnonzero(known[:, label])
        said = labels[rows, label]
        needs_both = entry.reads_order_only and entry.score is not METRICS["macro_ap"].score and not entry.of_values
        if len(rows) and not (needs_both and (said.all() or not said.any())):
            found.append((label, rows))
    return found


def score_cells(
    entry: Metric, labels: np.ndarray, answer: np.ndarray, known: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """A metric of probabilities or values on the cells that are known.

    Args:    known: bool (N, L).   groups: (N,), for a metric that is averaged over groups.
    Returns: the mean over labels of the metric on the rows in which the label is known; of a metric that looks at rows
             as a whole (no `by_label`), the metric on the rows that are known as a whole. 0 if nothing can be scored.
    """
    if not entry.by_label:
        whole = known.all(axis=1)
        return float(entry.score(labels[whole], answer[whole])) if whole.any() else 0.0
    scores = [
        entry.score(labels[rows, label, None], answer[rows, label, None], *(() if groups is None else (groups[rows],)))
        for label, rows in known_columns(entry, labels, known)
    ]
    return float(np.mean(scores)) if scores else 0.0


def to_values(shares: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The values float64 (..., L) that shares from 0 to 1 of a scale (L, 2) stand for.

    Example: to_values(np.array([[0.5]]), np.array([[-1.0, 3.0]])) -> [[1.0]]
    """
    low, high = scale[:, 0], scale[:, 1]
    return low + shares.astype(np.float64) * (high - low)


METRIC_ALIASES = {
    **dict.fromkeys(("f1", "f1_score", "mean_f1", "macro", "f1_score_macro", "macro_f1_score"), "macro_f1"),
    **dict.fromkeys(("micro", "f1_score_micro", "micro_f1_score"), "micro_f1"),
    **dict.fromkeys(("weighted", "f1_score_weighted"), "weighted_f1"),
    **dict.fromkeys(("samples", "mean_sample_f1", "f1_score_samples", "example_f1"), "samples_f1"),
    **dict.fromkeys(("auc", "roc_auc", "auroc", "roc_auc_score", "mean_column_wise_auc", "mean_auc"), "macro_auc"),
    **dict.fromkeys(("average_precision", "map", "m_ap", "pr_auc", "auprc"), "macro_ap"),
    **dict.fromkeys(("logloss", "cross_entropy", "bce", "binary_cross_entropy", "mean_log_loss"), "log_loss"),
    **dict.fromkeys(("exact_match", "emr"), "subset_accuracy"),
    **dict.fromkeys(("f2", "fbeta", "f_beta", "fbeta_score", "f2_score"), "macro_f2"),
    **dict.fromkeys(("f05", "f0.5", "f0_5", "f05_score"), "macro_f05"),
    **dict.fromkeys(("hamming", "hamming_loss"), "subset_accuracy"),
    **dict.fromkeys(("acc", "accuracy_score", "categorization_accuracy"), "accuracy"),
    **dict.fromkeys(("iou", "jaccard_score", "jaccard_index"), "jaccard"),
    **dict.fromkeys(("qwk", "kappa", "cohen_kappa", "quadratic_weighted_kappa"), "quadratic_weighted_kappa"),
    **dict.fromkeys(("matthews", "mcc", "matthews_corrcoef", "phi"), "matthews"),
    **dict.fromkeys(("root_mean_squared_error", "mcrmse", "mean_columnwise_root_mean_squared_error"), "rmse"),
    **dict.fromkeys(("mean_absolute_error", "l1"), "mae"),
    **dict.fromkeys(("spearmanr", "spearman_correlation", "mean_spearman", "spearman_rho"), "spearman"),
    **dict.fromkeys(("pearsonr", "pearson_correlation", "pcc"), "pearson"),
    **dict.fromkeys(("map_k", "mapk", "mean_average_precision_at_k"), "map_at_k"),
    **{f"map{glue}{k}": f"map_at_{k}" for k in range(1, 101) for glue in ("_", "")},
    **dict.fromkeys(("auc_by_group", "grouped_auc", "mean_group_auc", "auc_per_group"), "group_auc"),
}
"""Names of metrics elsewhere (scikit-learn, Kaggle) -> ours; one that is not in METRICS is not offered."""
