"""The scoring room's decoders: from probabilities to the answer that a metric wants."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from foldblend.scoring.metrics.table import METRICS, class_log_loss
from foldblend.scoring.probs import SMALLEST, SMALLEST_CHANCE, logit, to_scores
from foldblend.scoring.thresholds.exact import (
    CLASS_SCORES,
    tune_micro_thresholds,
    tune_offsets,
    tune_row_thresholds,
    tune_thresholds,
)
from foldblend.scoring.thresholds.robust import tune_robust_joint, tune_robust_thresholds


@dataclass(frozen=True)
class Rule:
    """How probabilities become decisions; without thresholds and offsets they are the answer themselves."""

    thresholds: np.ndarray | None = None
    """float32 (L,): decide a label where its prob reaches this."""
    offsets: np.ndarray | None = None
    """float32 (L,): decide the class with the largest log-prob plus offset."""
    at_least_one: bool = False
    """A row without a label takes the one nearest its cut-off."""
    at_most: int | None = None
    """A row keeps only this many labels, those farthest above their cut-offs."""
    exclusive: int | None = None
    """A label that never stands beside another: the farther above its cut-off stays."""

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss; the fields that are in use."""
        record = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in record.items()}


def rule_from_record(record: dict) -> Rule:
    """The rule that `to_record` wrote."""
    arrays = {name: np.array(record[name], np.float32) for name in ("thresholds", "offsets") if name in record}
    return Rule(**{**record, **arrays})


def decide(rule: Rule, probs: np.ndarray) -> np.ndarray:
    """The answer for some rows: bool (n, L) decisions, or the probs where the metric takes probabilities."""
    if rule.offsets is not None:
        decisions = np.zeros(probs.shape, bool)
        best = (np.log(np.maximum(probs, SMALLEST)) + rule.offsets).argmax(axis=1)
        decisions[np.arange(len(probs)), best] = True
        return decisions
    if rule.thresholds is None:
        return probs
    decisions = probs >= rule.thresholds
    if rule.at_least_one or rule.at_most is not None or rule.exclusive is not None:
        _apply_row_rules(rule, logit(probs) - logit(rule.thresholds), decisions)
    return decisions


def _apply_row_rules(rule: Rule, margins: np.ndarray, decisions: np.ndarray):
    if rule.exclusive is not None:
        others = np.where(decisions, margins, -np.inf)
        others[:, rule.exclusive] = -np.inf
        both = decisions[:, rule.exclusive] & np.isfinite(others.max(axis=1))
        alone = both & (margins[:, rule.exclusive] >= others.max(axis=1))
        decisions[alone] = False
        decisions[alone, rule.exclusive] = True
        decisions[both & ~alone, rule.exclusive] = False
    if rule.at_most is not None:
        order = np.argsort(-np.where(decisions, margins, -np.inf), axis=1, kind="stable")
        np.put_along_axis(decisions, order[:, rule.at_most :], False, axis=1)
    if rule.at_least_one:
        empty = np.flatnonzero(~decisions.any(axis=1))
        decisions[empty, margins[empty].argmax(axis=1)] = True


@dataclass(frozen=True)
class Task:
    """What the leaderboard asks: the metric, and whether a row holds one label or any number."""

    metric: str
    """A key of `scoring.metrics.METRICS`."""
    kind: str = "multilabel"
    """`multilabel` or `multiclass`."""

    @property
    def takes_probs(self) -> bool:
        """Whether the answer is probabilities rather than decisions."""
        return METRICS[self.metric].decoder == "none"

    @property
    def cutoffs(self) -> tuple[str, ...]:
        """The ways to place cut-offs that are worth comparing."""
        if self.takes_probs:
            return ("none",)
        return ("offsets", "argmax") if self.kind == "multiclass" else ("robust", "exact")

    def to_scores(self, values: np.ndarray, kind: str) -> np.ndarray:
        """A run's logits or probabilities, whichever `kind` says, on the scale that blends add up: float32 (..., L)."""
        return to_scores(values, kind, self.kind, SMALLEST if self.takes_probs else SMALLEST_CHANCE)

    def score(self, labels: np.ndarray, answer: np.ndarray) -> float:
        """The metric, negated for a loss, so that more is better."""
        metric = METRICS[self.metric]
        function = class_log_loss if self.metric == "log_loss" and self.kind == "multiclass" else metric.score
        value = function(labels, answer)
        return value if metric.greater_is_better else -value


def tune_rule(task: Task, cutoffs: str, probs: np.ndarray, labels: np.ndarray) -> Rule:
    """Fit the decoder of a task on some rows.

    Args:   cutoffs: one of `task.cutoffs`.   probs: float32 (n, L).   labels: bool (n, L).
    Raises: ValueError: shapes differ, or probs leave [0, 1].
    """
    if cutoffs == "none":
        return Rule()
    if cutoffs == "argmax":
        return Rule(offsets=np.zeros(probs.shape[1], np.float32))
    if cutoffs == "offsets":
        log_probs = np.log(np.maximum(probs, SMALLEST))
        return Rule(offsets=tune_offsets(log_probs, labels, CLASS_SCORES[task.metric]))
    if METRICS[task.metric].decoder == "cutoffs":
        tune = tune_robust_thresholds if cutoffs == "robust" else tune_thresholds
        return Rule(thresholds=tune(probs, labels))
    tune = tune_micro_thresholds if task.metric == "micro_f1" else partial(tune_row_thresholds, metric=task.metric)
    return Rule(thresholds=tune_robust_joint(tune, probs, labels) if cutoffs == "robust" else tune(probs, labels))
