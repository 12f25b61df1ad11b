"""From probabilities to the answer that a metric wants: thresholds or offsets, row rules, and how they are tuned.

`tune_rule` fits a `Rule` on some rows, and `decide` applies it to any others. A metric with a search of its own is
named in `EXACT_SEARCHES` or `CLASS_SCORES`; every other metric is searched by calling it (`climb_thresholds`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from foldblend.scoring.inputs import SMALLEST, Task, logit
from foldblend.scoring.metrics.formulas import kappa_of_sums
from foldblend.scoring.thresholds.exact import (
    CLASS_SCORES,
    climb_offsets,
    climb_thresholds,
    shift_thresholds,
    tune_micro_thresholds,
    tune_offsets,
    tune_row_thresholds,
    tune_thresholds,
)
from foldblend.scoring.thresholds.robust import (
    ADAPT_FROM,
    Histogram,
    adapt_thresholds,
    count_scores,
    fit_calibration,
    tune_robust_joint,
    tune_robust_thresholds,
)

# ---------- The rule and its use


@dataclass(frozen=True)
class Rule:
    """How probabilities become decisions; without thresholds and offsets they are the answer themselves."""

    thresholds: np.ndarray | None = None
    """float32 (L,): decide a label if its prob reaches this."""
    calibration: np.ndarray | None = None
    """float64 (2, L): with it the thresholds still adapt to the rows they are used on; see `settle`."""
    offsets: np.ndarray | None = None
    """float32 (L,): decide the class with the largest log-prob plus offset."""
    steps: np.ndarray | None = None
    """float32 (L - 1,), rising: of ordered classes, decide the k-th if the expected number of the class reaches k
    steps."""
    at_least_one: bool = False
    """A row without a label takes the one nearest its threshold."""
    at_most: int | None = None
    """A row keeps only this many labels, those farthest above their thresholds."""
    exclusive: int | None = None
    """A label that never comes with another: the one farther above its threshold stays."""

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss; the fields that are in use."""
        record = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in record.items()}


def rule_from_record(record: dict) -> Rule:
    """The rule that `to_record` wrote."""
    kinds = {"thresholds": np.float32, "offsets": np.float32, "steps": np.float32, "calibration": np.float64}
    arrays = {name: np.array(record[name], kind) for name, kind in kinds.items() if name in record}
    return Rule(**{**record, **arrays})


def settle(rule: Rule, probs: np.ndarray) -> Rule:
    """The rule with the thresholds that it uses on these rows, for good; the same rule if they are too few to adapt to.

    Args: probs: float32 (n, L).
    """
    if rule.calibration is None or rule.thresholds is None or len(probs) < ADAPT_FROM:
        return rule
    adapted = adapt_thresholds(rule.thresholds, probs, rule.calibration)
    return replace(rule, thresholds=adapted, calibration=None)


LEAST_PROB = np.float32(1e-12)
"""Of a label that a row may have: 0 is of those that it cannot."""


def decide(rule: Rule, probs: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """The answer for some rows.

    Args:    probs: float32 (n, L), of all rows that are answered together: adaptive thresholds depend on them.
             allowed: bool (n, L), False for labels that a row cannot have, which are never decided and have
             probability 0; at least one per row is allowed. None allows all.
    Returns: bool (n, L) decisions, or the probs themselves if the metric takes probabilities.
    Example: decide(Rule(thresholds=np.float32([.5, .5])), np.float32([[.9, .1]])) -> [[True, False]]
    """
    if rule.offsets is not None:
        decisions = np.zeros(probs.shape, bool)
        scores = np.log(np.maximum(probs, SMALLEST)) + rule.offsets
        best = (scores if allowed is None else np.where(allowed, scores, -np.inf)).argmax(axis=1)
        decisions[np.arange(len(probs)), best] = True
        return decisions
    if rule.steps is not None:
        return decide_by_steps(rule.steps, probs)
    rule = settle(rule, probs)
    if rule.thresholds is None:
        return probs if allowed is None else np.where(allowed, np.maximum(probs, LEAST_PROB), 0).astype(probs.dtype)
    decisions = probs >= rule.thresholds
    decisions = decisions if allowed is None else decisions & allowed
    if rule.at_least_one or rule.at_most is not None or rule.exclusive is not None:
        rows = _find_touched(rule, decisions)
        touched = decisions[rows]
        margins = logit(probs[rows]) - logit(rule.thresholds)
        _apply_row_rules(rule, margins if allowed is None else np.where(allowed[rows], margins, -np.inf), touched)
        decisions[rows] = touched
    return decisions


def _find_touched(rule: Rule, decisions: np.ndarray) -> np.ndarray:
    """The rows that a row rule may change, int64: few, and margins take ten times as long as decisions."""
    per_row = decisions.sum(axis=1)
    touched = np.zeros(len(decisions), bool)
    if rule.at_least_one:
        touched |= per_row == 0
    if rule.at_most is not None:
        touched |= per_row > rule.at_most
    if rule.exclusive is not None:
        touched |= decisions[:, rule.exclusive] & (per_row > 1)
    return np.flatnonzero(touched)


def _apply_row_rules(rule: Rule, margins: np.ndarray, decisions: np.ndarray) -> None:
    """Change `decisions` in place; margins float32 (n, L) say how far each prob is above its threshold, in log-odds."""
    if rule.exclusive is not None:
        _separate(rule.exclusive, margins, decisions)
    if rule.at_most is not None:
        # by how far each is above its own threshold: probabilities of rare and frequent labels do not compare
        order = np.argsort(-np.where(decisions, margins, -np.inf), axis=1, kind="stable")
        np.put_along_axis(decisions, order[:, rule.at_most :], False, axis=1)
    if rule.at_least_one:
        empty = np.flatnonzero(~decisions.any(axis=1))
        decisions[empty, margins[empty].argmax(axis=1)] = True


def _separate(label: int, margins: np.ndarray, decisions: np.ndarray) -> None:
    """In rows that have `label` and others, keep the label alone or drop it, whichever is farther above."""
    others = np.where(decisions, margins, -np.inf)
    others[:, label] = -np.inf
    both = decisions[:, label] & np.isfinite(others.max(axis=1))
    alone = both & (margins[:, label] >= others.max(axis=1))
    decisions[alone] = False
    decisions[alone, label] = True
    decisions[both & ~alone, label] = False


# ---------- Ordered classes (grades 1 to 6): thresholds on the expected class, for quadratic weighted kappa
#
# The mean of a row's class numbers, weighted by their probabilities, is what a squared distance asks for; where one
# class ends and the next begins is tuned, as kappa also counts how often each class is decided.

MOST_EDGES = 128
"""Values of the expected class at which a threshold may stand."""
MAX_PASSES = 6
"""Passes over the thresholds."""


def expected_class(probs: np.ndarray) -> np.ndarray:
    """The mean class number of each row, float32 (n,). Args: probs: float32 (n, L), rows sum to 1."""
    return probs @ np.arange(probs.shape[1], dtype=np.float32)


def decide_by_steps(steps: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The class whose steps the expected class has reached: bool (n, L), one True per row.

    Example: decide_by_steps(np.float32([0.5, 1.4]), np.float32([[0.2, 0.2, 0.6]])) -> class 2, as it expects 1.4
    """
    decided = np.searchsorted(steps, expected_class(probs), side="right")
    return np.eye(probs.shape[1], dtype=bool)[decided]


def tune_steps(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Thresholds on the expected class that climb quadratic weighted kappa, one at a time.

    Args:    probs: float32 (n, L), rows sum to 1.   labels: bool (n, L), one True per row.
    Returns: float32 (L - 1,), rising.
    How:     rows are counted by class in bins of the expected class, so that a trial costs the same for any number.
             Of two starts, half-way between the classes and as often as the labels come, the better one is climbed.
    """
    n_labels, expected = probs.shape[1], expected_class(probs)
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, MOST_EDGES + 1)[1:-1], method="higher"))
    bins = np.searchsorted(edges, expected, side="right")  # (n,): edges that the row has reached
    # kappa depends on rows by bin and class alone, so a trial costs the same for any number of rows
    counts = np.zeros((len(edges) + 1, n_labels))  # rows by bin and true class
    np.add.at(counts, (bins, labels.argmax(axis=1)), 1)
    shares = np.cumsum(labels.mean(axis=0))[:-1]
    halves = np.searchsorted(edges, np.arange(n_labels - 1) + 0.5)
    as_often = np.searchsorted(edges, np.quantile(expected, np.clip(shares, 0, 1)))
    climbed = [_climb(np.minimum(start, len(edges)), counts) for start in (halves, as_often)]
    positions, _ = max(climbed, key=lambda each: each[1])
    return np.append(edges, expected.max() + 1).astype(np.float32)[positions]  # the last edge is beyond every row


def _climb(start: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Positions among the edges, int64 (L - 1,) and rising, and the kappa that they reach."""
    positions, best = start.copy(), _kappa(start, counts)
    for _ in range(MAX_PASSES):
        before = best
        for step in range(len(positions)):
            low = positions[step - 1] if step else 0
            high = positions[step + 1] if step + 1 < len(positions) else len(counts) - 1
            for position in range(low, high + 1):
                tried = positions.copy()
                tried[step] = position
                reached = _kappa(tried, counts)
                if reached > best + 1e-9:
                    positions, best = tried, reached
        if best <= before + 1e-9:
            break
    return positions, best


def _kappa(positions: np.ndarray, counts: np.ndarray) -> float:
    """Kappa if rows of bins up to position k are decided to be class k or lower."""
    decided = np.searchsorted(positions, np.arange(len(counts)), side="left")  # (bins,)
    classes = np.arange(counts.shape[1])
    observed = (counts * (decided[:, None] - classes) ** 2).sum()
    return kappa_of_sums(observed, counts.sum(axis=0), np.bincount(decided, counts.sum(axis=1), len(classes)))


# ---------- Tuning


EXACT_SEARCHES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "macro_f1": tune_thresholds,
    "weighted_f1": tune_thresholds,  # each label's own F1 is best where macro-F1 is; the weights are the labels' own
    "micro_f1": tune_micro_thresholds,
    "samples_f1": partial(tune_row_thresholds, metric="samples_f1"),
    "jaccard": partial(tune_row_thresholds, metric="jaccard"),
    "subset_accuracy": partial(tune_row_thresholds, metric="subset_accuracy"),
}
"""Metrics whose best thresholds are found by their formula: (probs, labels) -> thresholds (L,)."""


ADAPTIVE = {"macro_f1", "weighted_f1"}
"""Metrics for which thresholds may adapt to the rows they are used on; it gains nothing for micro-F1."""


def tune_rule(task: Task, tuning: str, probs: np.ndarray, labels: np.ndarray) -> Rule:
    """Fit thresholds or offsets for a task on some rows.

    Args:   tuning: one of `task.tunings`, or `adaptive` for a metric of ADAPTIVE.   probs: float32 (n, L).
            labels: bool (n, L).
    Raises: UserError: shapes differ, or probs leave [0, 1].
    """
    if tuning == "adaptive":
        robust = _tune_thresholds(task, "robust", probs, labels)
        calibration = np.array(fit_calibration(count_scores(probs, labels)))
        return Rule(thresholds=robust, calibration=calibration)
    if tuning == "none":
        return Rule()
    if tuning == "argmax":
        return Rule(offsets=np.zeros(probs.shape[1], np.float32))
    if tuning == "steps":
        return Rule(steps=tune_steps(probs, labels))
    if tuning == "offsets":
        return Rule(offsets=_tune_offsets(task, probs, labels))
    return Rule(thresholds=_tune_thresholds(task, tuning, probs, labels))


def tune_without_parts(task: Task, tuning: str, probs: np.ndarray, labels: np.ndarray, part: np.ndarray) -> list[Rule]:
    """The rule of the rows without each part, and last that of all rows, each as `tune_rule` finds it on those rows.

    Most of the time robust thresholds count rows by score, and what is counted in all rows less one part is a
    difference: the parts are counted once each, and the thresholds are the same to the last bit.

    Args: part: int64 (n,), 0 to P - 1.   probs: one table, of which no row's prediction knows the row's label.
    """
    kept = [*(part != k for k in range(int(part.max()) + 1)), np.ones(len(part), bool)]
    if tuning != "robust" or EXACT_SEARCHES.get(task.metric) is not tune_thresholds:
        return [tune_rule(task.at(rows), tuning, probs[rows], labels[rows]) for rows in kept]
    counted = [count_scores(probs[~rows], labels[~rows]) for rows in kept[:-1]]
    sums = (np.sum([getattr(each, name) for each in counted], axis=0) for name in ("rows", "positives"))
    everything = Histogram(counted[0].scores, *sums)
    counted = [*(everything.without(each) for each in counted), everything]
    return [
        Rule(thresholds=tune_robust_thresholds(probs[rows], labels[rows], counted=of_rows))
        for rows, of_rows in zip(kept, counted, strict=True)
    ]


def tune_quickly(task: Task, probs: np.ndarray, labels: np.ndarray) -> Rule:
    """The exact tuning, for searches that tune some thousand times; a metric without a formula only shifts F1's."""
    if task.takes_probs or task.kind == "multiclass" or task.metric in EXACT_SEARCHES:
        return tune_rule(task, task.tunings[-1], probs, labels)
    return Rule(thresholds=shift_thresholds(task.score, tune_thresholds(probs, labels), probs, labels))


def _tune_offsets(task: Task, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    log_probs = np.log(np.maximum(probs, SMALLEST))
    if task.metric in CLASS_SCORES:
        return tune_offsets(log_probs, labels, CLASS_SCORES[task.metric])
    return climb_offsets(task.score, log_probs, labels)


def _tune_thresholds(task: Task, tuning: str, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    search = EXACT_SEARCHES.get(task.metric)
    if search is None:  # what holds for F1 is near; robust moves all labels by one step, exact each by its own
        if tuning == "robust":
            return shift_thresholds(task.score, tune_robust_thresholds(probs, labels), probs, labels)
        return climb_thresholds(task.score, tune_thresholds(probs, labels), probs, labels)
    if tuning == "exact":
        return search(probs, labels)
    return (
        tune_robust_thresholds(probs, labels) if search is tune_thresholds else tune_robust_joint(search, probs, labels)
    )
