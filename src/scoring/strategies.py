"""The scoring room's strategies: every way to make one table of probabilities out of the runs, behind one method.

A strategy is fitted once on a partition and then gives the formula that left out what it must not have seen:
`predictor(context, fit)`, where `context` is the part that choices may not look at (P for none) and `fit` a position
in `Partition.left_out`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scoring.decoders import Task
from scoring.predictor import Predictor
from scoring.probs import to_probs
from scoring.scores import Scores
from scoring.stacking import STRENGTHS, WIDE_STRENGTHS, Stack, fit_shared, fit_stack
from scoring.subsets import Partition
from scoring.weights import SEARCHES


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
    """Fit the named strategies (all of `STRATEGIES` that suit the number of runs, in this order)."""
    fitted, shared = {}, None
    for name in names:
        if name in ("shared", "label", "wide"):
            shared = fit_shared(given.scores, given.labels, given.partition) if shared is None else shared
            fitted[name] = _fit_stack(given, name, shared)
        else:
            fitted[name] = STRATEGIES[name](given)
    return fitted


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
    probs = [to_probs(run, given.task.kind) for run in given.scores.runs]
    weights = []
    for part in range(given.partition.n_parts + 1):
        rows = np.flatnonzero(given.partition.part != part)
        rng = np.random.default_rng([given.seed, part])
        rows = rng.permutation(rows)[:40_000]
        weights.append(SEARCHES[name](given.task, [run[rows] for run in probs], given.labels[rows], rng))
    return Mixture(np.array(weights), "probs", given.task.kind)


def _fit_stack(given: Given, name: str, shared: np.ndarray) -> Stack:
    strengths, wide = {
        "shared": ((STRENGTHS[-1],), ()),
        "label": (STRENGTHS, ()),
        "wide": ((100.0,), WIDE_STRENGTHS),
    }[name]
    return fit_stack(given.scores, given.labels, given.partition, shared, given.task.kind, strengths, wide)


STRATEGIES: dict[str, Callable | None] = {
    "mean_probs": lambda given: _equal(given, "probs"),
    "mean_logits": lambda given: _equal(given, "scores"),
    "greedy": lambda given: _search(given, "greedy"),
    "coordinate": lambda given: _search(given, "coordinate"),
    "shared": None,
    "label": None,
    "wide": None,
}
"""Blends by name, from the plainest to the most flexible."""
