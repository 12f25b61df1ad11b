"""The scoring room's decoders: from probabilities to the answer that a metric wants."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scoring.joint import ROW_VALUES, tune_micro_thresholds, tune_row_thresholds
from scoring.metrics import METRICS, class_log_loss
from scoring.offsets import CLASS_SCORES, tune_offsets
from scoring.probs import SMALLEST, logit
from scoring.robust import tune_robust_thresholds
from scoring.thresholds import tune_thresholds


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
    return Rule(thresholds=_tuner(task.metric, cutoffs)(probs, labels))


def _tuner(metric: str, cutoffs: str) -> Callable:
    exact = {"cutoffs": tune_thresholds, "joint": _tune_joint(metric)}[METRICS[metric].decoder]
    if cutoffs == "exact":
        return exact
    return tune_robust_thresholds


def _tune_joint(metric: str) -> Callable:
    if metric == "micro_f1":
        return tune_micro_thresholds
    return lambda probs, labels: tune_row_thresholds(probs, labels, ROW_VALUES.get(metric))


def offer_row_rules(rule: Rule, labels: np.ndarray) -> dict[str, Rule]:
    """Row rules worth trying on top of a rule, by name: what the labels' own habits suggest."""
    if rule.thresholds is None:
        return {}
    per_row = labels.sum(axis=1)
    offered = {"at least one label": replace(rule, at_least_one=True)}
    for most in sorted({int(np.quantile(per_row, share, method="higher")) for share in (0.95, 0.99)} - {0}):
        offered[f"at most {most}"] = replace(rule, at_most=most)
        offered[f"one to {most} labels"] = replace(rule, at_least_one=True, at_most=most)
    alone = (labels & (per_row == 1)[:, None]).sum(axis=0) / np.maximum(labels.sum(axis=0), 1)
    label = int(np.argmax(alone * (labels.mean(axis=0) > 0.02)))
    offered[f"label {label} stands alone"] = replace(rule, exclusive=label)
    offered[f"label {label} stands alone, at least one label"] = replace(rule, exclusive=label, at_least_one=True)
    return offered
