"""The scoring room's strategies: every way to make one table of probabilities out of the runs, behind one method.

A strategy is fitted once on a partition and then gives the formula that left out what it must not have seen:
`predictor(context, fit)`, where `context` is the part that choices may not look at (P for none) and `fit` a position
in `Partition.left_out`; or, in one pass, all the predictions that cross-fitting needs: `predict_contexts`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foldblend.scoring.ensembling.predictors import Average, Predictor, Scores, mix
from foldblend.scoring.ensembling.stacking import (  # fmt: skip
    SHARED_STRENGTH,
    STRENGTHS,
    WIDE_OWN_STRENGTH,
    WIDE_STRENGTHS,
    Stack,
    fit_shared,
    fit_stack,
)
from foldblend.scoring.probs import to_probs
from foldblend.scoring.thresholds.rules import Task, decide, tune_rule
from foldblend.scoring.validation.partitions import Partition

# ---------- direct searches: ensemble weights that climb the metric itself, one set for all labels.


MAX_ROWS = 4_000
"""Rows that a search looks at; more would not change the weights beyond their own noise."""
MAX_MEMBERS = 8
"""Models a greedy ensemble takes, with repeats."""
N_BAGS = 3
"""Greedy ensembles averaged, each over a random half of the rows."""
STEPS = (0.2, 0.1, 0.05)
"""Weight that coordinate search moves at a time."""


def quick_score(task: Task, probs: np.ndarray, labels: np.ndarray) -> float:
    """The metric with cut-offs tuned on the same rows: what a search climbs."""
    rule = tune_rule(task, task.cutoffs[-1], probs, labels)
    return task.score(labels, decide(rule, probs))


def search_greedy(task: Task, runs: list[np.ndarray], labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Greedy selection with replacement, bagged: float64 (M,) weights >= 0 with sum 1.

    Args:   runs: M tables of probabilities, float32 (n, L).   labels: bool (n, L).
    Source: Caruana et al. 2004, "Ensemble selection from libraries of models".
    """
    weights = np.zeros(len(runs))
    for _ in range(N_BAGS):
        rows = rng.permutation(len(labels))[: max(len(labels) // 2, 1)]
        weights += greedy_once(task, [run[rows] for run in runs], labels[rows])
    return weights / weights.sum()


def greedy_once(task: Task, runs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """The best prefix of one greedy path."""
    counts, total = np.zeros(len(runs)), np.zeros(labels.shape, np.float32)
    best_score, best = -np.inf, counts
    for size in range(1, MAX_MEMBERS + 1):
        reached = [quick_score(task, (total + run) / np.float32(size), labels) for run in runs]
        picked = int(np.argmax(reached))
        counts[picked] += 1
        total += runs[picked]
        if reached[picked] > best_score:
            best_score, best = reached[picked], counts.copy()
    return best / best.sum()


def search_coordinates(task: Task, runs: list[np.ndarray], labels: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    """Coordinate search from the best single run: weight moves to or from one run while the metric rises."""
    singles = [quick_score(task, run, labels) for run in runs]
    weights, best = np.eye(len(runs))[int(np.argmax(singles))], max(singles)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for moved in _neighbours(weights, step):
                score = quick_score(task, mix(runs, moved), labels)
                if score > best + 1e-6:
                    weights, best, improved = moved, score, True
    return weights


def _neighbours(weights: np.ndarray, step: float):
    """Weights with one run's weight moved up or down by a step, the others scaled to keep the sum at 1."""
    for run in range(len(weights)):
        for wanted in (weights[run] + step, weights[run] - step):
            rest = 1 - weights[run]
            if 0 <= wanted <= 1 and rest > 0:
                moved = weights * (1 - wanted) / rest
                moved[run] = wanted
                yield moved


SEARCHES: dict[str, Callable] = {"greedy": search_greedy, "coordinate": search_coordinates}
"""Searches by the name of their strategy."""


# ---------- strategies: every way to make one table of probabilities out of the runs, behind one method.


PRIOR_POSITIVES = 20.0
"""The equal mean weighs as much in a label's steadied blend as this many of its positive rows."""


@dataclass(frozen=True)
class Mixture:
    """One weight a run, the same for every label."""

    weights: np.ndarray
    """float64 (P + 1, M): the weights that part k takes, found without part k; the last row for new rows."""
    form: str
    """`probs` or `scores`: what is mixed."""
    kind: str
    """`multilabel` or `multiclass`."""

    def predictor(self, context: int, fit: int) -> Predictor:
        """The formula for the rows of `context`; `fit` changes nothing."""
        return Predictor(self.form, self.kind, self.weights[context])

    def predict_contexts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """See `Stack.predict_contexts`."""
        probs = self.predictor(0, 0).predict(scores)
        for context in range(partition.n_parts):
            if (self.weights[context] != self.weights[max(context - 1, 0)]).any():
                probs = self.predictor(context, 0).predict(scores)
            yield probs


@dataclass(frozen=True)
class Steadied:
    """A flexible strategy where a label has rows enough for it, a plain one where it has not, and a mix between."""

    plain: Mixture
    flexible: Stack
    share: np.ndarray
    """float64 (P + 1, L): the plain one's share in each label, for the rows of part k known without part k."""

    def predictor(self, context: int, fit: int) -> Average:
        """The mean of both formulas, each with its share."""
        return Average(self.plain.predictor(context, fit), self.flexible.predictor(context, fit), self.share[context])

    def predict_contexts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """See `Stack.predict_contexts`."""
        both = zip(self.flexible.predict_contexts(scores, partition), self.plain.predict_contexts(scores, partition))
        for (probs, plain), share in zip(both, self.share.astype(np.float32), strict=False):
            mixed = plain - probs
            mixed *= share
            mixed += probs
            yield mixed


@dataclass(frozen=True)
class Given:
    """What a strategy is fitted on."""

    task: Task
    scores: Scores
    labels: np.ndarray
    """bool (N, L)."""
    partition: Partition
    seed: int


def fit_strategies(given: Given, names: list[str]) -> dict[str, object]:
    """Fit the named strategies, in their order; those that need the same stack share it."""
    stacks = _Stacks(given)
    return {name: STRATEGIES[name](given, stacks) for name in names}


class _Stacks:
    """Stacks fitted when first asked for."""

    def __init__(self, given: Given):
        self.given = given

    @cached_property
    def shared_weights(self) -> np.ndarray:
        return fit_shared(self.given.scores, self.given.labels, self.given.partition)

    @cached_property
    def shared(self) -> Stack:
        return self._fit((SHARED_STRENGTH,))

    @cached_property
    def label(self) -> Stack:
        return self._fit(STRENGTHS)

    @cached_property
    def wide(self) -> Stack:
        return self._fit((WIDE_OWN_STRENGTH,), WIDE_STRENGTHS)

    def _fit(self, strengths: tuple[float, ...], wide: tuple[float, ...] = ()) -> Stack:
        given = self.given
        return fit_stack(
            given.scores, given.labels, given.partition, self.shared_weights, given.task.kind, strengths, wide
        )


def fit_single(given: Given, run: int) -> Mixture:
    """One run by itself."""
    return _constant(given, np.eye(len(given.scores.runs))[run], "scores")


def _equal(given: Given, form: str) -> Mixture:
    n_runs = len(given.scores.runs)
    return _constant(given, np.full(n_runs, 1 / n_runs), form)


def _constant(given: Given, weights: np.ndarray, form: str) -> Mixture:
    return Mixture(np.tile(weights, (given.partition.n_parts + 1, 1)), form, given.task.kind)


def _search(given: Given, name: str) -> Mixture:
    """Weights by direct search, once without each part and once on all rows."""
    weights = []
    for part in range(given.partition.n_parts + 1):
        rng = np.random.default_rng([given.seed, part])
        rows = rng.permutation(np.flatnonzero(given.partition.part != part))[:MAX_ROWS]
        probs = [to_probs(run[rows], given.task.kind) for run in given.scores.runs]
        weights.append(SEARCHES[name](given.task, probs, given.labels[rows], rng))
    return Mixture(np.array(weights), "probs", given.task.kind)


def _steady(given: Given, stack: Stack) -> Steadied:
    """Mix in as much of the equal mean as each label has few positives outside the part in question."""
    parts, positives = given.partition.part, given.labels.sum(axis=0)
    seen = [positives - given.labels[parts == part].sum(axis=0) for part in range(given.partition.n_parts)]
    share = PRIOR_POSITIVES / (PRIOR_POSITIVES + np.array([*seen, positives]))
    if given.task.kind == "multiclass":  # one share for all, or rows would not sum to 1
        share = np.repeat(share.mean(axis=1, keepdims=True), len(positives), axis=1)
    return Steadied(_equal(given, "probs"), stack, share)


STRATEGIES: dict[str, Callable] = {
    "mean_probs": lambda given, stacks: _equal(given, "probs"),
    "mean_logits": lambda given, stacks: _equal(given, "scores"),
    "shared": lambda given, stacks: stacks.shared,
    "steady": lambda given, stacks: _steady(given, stacks.wide),
    "label": lambda given, stacks: stacks.label,
    "wide": lambda given, stacks: stacks.wide,
    "greedy": lambda given, stacks: _search(given, "greedy"),
    "coordinate": lambda given, stacks: _search(given, "coordinate"),
}
"""Blends by name, from the plainest to the most flexible."""
