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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from foldblend.scoring.metrics.formulas import (
    accuracy,
    class_log_loss,
    class_matthews,
    jaccard,
    log_loss,
    macro_ap,
    macro_auc,
    macro_f1,
    macro_f_beta,
    matthews,
    micro_f1,
    micro_f_beta,
    quadratic_weighted_kappa,
    row_class_log_loss,
    row_correct,
    row_f1,
    row_f_beta,
    row_jaccard,
    row_log_loss,
    samples_f1,
    samples_f_beta,
    subset_accuracy,
    weighted_f1,
)

Score = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Metric:
    """One metric and what the blend needs to know about it."""

    score: Score
    """(labels bool (N, L), answer (N, L)) -> the number on the leaderboard."""
    takes: Literal["decisions", "probs"]
    """What the answer is: bool decisions or float probabilities."""
    by_row: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
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
METRICS = {
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
    "macro_auc": Metric(macro_auc, "probs", bounds=SHARE, reads_order_only=True),
    "macro_ap": Metric(macro_ap, "probs", bounds=SHARE, reads_order_only=True),
    "log_loss": Metric(
        log_loss, "probs", row_log_loss, greater_is_better=False, bounds=LOSS,
        for_classes=Metric(class_log_loss, "probs", row_class_log_loss, greater_is_better=False, bounds=LOSS),
    ),
}  # fmt: skip
"""Every metric by its name in `metric:` of a competition's YAML; plugins add theirs."""


def find_metric(name: str, kind: str) -> Metric:
    """The metric for one kind of task.

    Args:    name: a key of METRICS.   kind: "multilabel" or "multiclass".
    Example: find_metric("log_loss", "multiclass").score is class_log_loss.
    """
    metric = METRICS[name]
    return metric.for_classes if kind == "multiclass" and metric.for_classes else metric
