"""The table of strategies: every way to make one table of probabilities out of the runs.

To add a strategy, write one function and one line. The function gets `Given` and returns a fitted strategy. If it
finds one weight per run, `search_weights` does the rest (it calls the search once without each part):

    def best_two(task, runs, labels, rng):  # runs: M tables of probs (n, L) -> weights (M,)
        reached = [quick_score(task, run, labels) for run in runs]
        return np.isin(np.arange(len(runs)), np.argsort(reached)[-2:]) / 2

    STRATEGIES["best_two"] = lambda given: search_weights(given, best_two)

Anything else is a class with the two methods of `Strategy`. A strategy is fitted once on a partition and then gives
the formula that left out what it must not have seen.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.ensembling.predictors import Average, Formula, Predictor
from foldblend.scoring.ensembling.searches import climb_hill, search_coordinates
from foldblend.scoring.ensembling.stacking import (
    CROSS_STRENGTHS,
    OWN_STRENGTH,
    SHARED_STRENGTH,
    STRENGTHS,
    Stack,
    fit_shared_weights,
    fit_stack,
)
from foldblend.scoring.inputs import Partition, Scores, Task
from foldblend.scoring.probs import to_probs

# ---------- What a strategy is


class Strategy(Protocol):
    """A fitted strategy. `part` is what its choices may not depend on: 0..P-1, or P for nothing."""

    def predictor(self, part: int, fit: int) -> Formula:
        """The formula for rows of `part`, from the fit at this position of `Partition.left_out`."""

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """P tables of probabilities, float32 (N, L): see `Stack.predict_parts`."""


@dataclass(frozen=True)
class Given:
    """What a strategy is fitted on. Stacks are fitted when first asked for, and strategies share them."""

    task: Task
    scores: Scores
    labels: np.ndarray
    """bool (N, L)."""
    partition: Partition
    seed: int

    @cached_property
    def shared_weights(self) -> np.ndarray:
        """float64 (M + 1, S), see `fit_shared_weights`."""
        return fit_shared_weights(self.scores, self.labels, self.partition)

    @cached_property
    def cross_label_stack(self) -> Stack:
        """The stack that sees the other labels' scores too."""
        return self.fit_stack((OWN_STRENGTH,), CROSS_STRENGTHS)

    def fit_stack(self, strengths: tuple[float, ...], cross_strengths: tuple[float, ...] = ()) -> Stack:
        """A stack that is shrunk towards the shared weights."""
        return fit_stack(
            self.scores, self.labels, self.partition, self.shared_weights, self.task.kind, strengths, cross_strengths
        )


# ---------- One weight per run, the same for every label


@dataclass(frozen=True)
class Mixture:
    """One weight per run."""

    weights: np.ndarray
    """float64 (P + 1, M): the weights that part k takes, found without part k; the last row for new rows."""
    form: str
    """`probs` or `scores`: what is mixed."""
    kind: str
    """`multilabel` or `multiclass`."""

    def predictor(self, part: int, fit: int) -> Predictor:
        """The formula for the rows of `part`; `fit` changes nothing."""
        return Predictor(self.form, self.kind, self.weights[part])

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """See `Stack.predict_parts`; weights that stay the same from part to part are applied once."""
        probs = self.predictor(0, 0).predict(scores)
        for part in range(partition.n_parts):
            if (self.weights[part] != self.weights[max(part - 1, 0)]).any():
                probs = self.predictor(part, 0).predict(scores)
            yield probs


def constant_weights(given: Given, weights: np.ndarray, form: str) -> Mixture:
    """Weights float64 (M,) that are known without the labels. Args: form: `probs` or `scores`."""
    return Mixture(np.tile(weights, (given.partition.n_parts + 1, 1)), form, given.task.kind)


def fit_single(given: Given, run: int) -> Mixture:
    """One run by itself."""
    return constant_weights(given, np.eye(len(given.scores.runs))[run], "scores")


def _equal(given: Given, form: str) -> Mixture:
    n_runs = len(given.scores.runs)
    return constant_weights(given, np.full(n_runs, 1 / n_runs), form)


MAX_SEARCH_ROWS = 4_000
"""Rows that a search looks at; more would not change the weights beyond their own noise."""


def search_weights(given: Given, search: Callable) -> Mixture:
    """Weights by a direct search, once without each part and once on all rows.

    Args: search: (task, M tables of probs (n, L), labels (n, L), rng) -> weights float64 (M,).
    """
    weights = []
    for part in range(given.partition.n_parts + 1):
        rng = np.random.default_rng([given.seed, part])
        rows = rng.permutation(np.flatnonzero(given.partition.part != part))[:MAX_SEARCH_ROWS]
        probs = [to_probs(run[rows], given.task.kind) for run in given.scores.runs]
        weights.append(search(given.task, probs, given.labels[rows], rng))
    return Mixture(np.array(weights), "probs", given.task.kind)


# ---------- A stack with as much of the equal mean as the rows are too few for it


PRIOR_POSITIVES = 20.0
"""The equal mean weighs as much in a label's blend as this many of its positive rows."""


@dataclass(frozen=True)
class ShrunkStack:
    """A flexible strategy if a label has enough rows for it, a plain one if it has few, and a mix between."""

    plain: Mixture
    flexible: Stack
    share: np.ndarray
    """float64 (P + 1, L): the plain one's share in each label, for the rows of part k known without part k."""

    def predictor(self, part: int, fit: int) -> Average:
        """The mean of both formulas, each with its share."""
        return Average(self.plain.predictor(part, fit), self.flexible.predictor(part, fit), self.share[part])

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """See `Stack.predict_parts`."""
        both = zip(self.flexible.predict_parts(scores, partition), self.plain.predict_parts(scores, partition))
        for (probs, plain), share in zip(both, self.share.astype(np.float32), strict=False):
            mixed = plain - probs  # probs + share * (plain - probs), in one table's memory
            mixed *= share
            mixed += probs
            yield mixed


def shrink_stack(given: Given) -> ShrunkStack:
    """The cross-label stack, with more of the equal mean the fewer positives a label has outside the part."""
    parts, positives = given.partition.part, given.labels.sum(axis=0)
    seen = [positives - given.labels[parts == part].sum(axis=0) for part in range(given.partition.n_parts)]
    share = PRIOR_POSITIVES / (PRIOR_POSITIVES + np.array([*seen, positives]))  # (P + 1, L)
    if given.task.kind == "multiclass":  # one share for all, or rows would not sum to 1
        share = np.repeat(share.mean(axis=1, keepdims=True), len(positives), axis=1)
    return ShrunkStack(_equal(given, "probs"), given.cross_label_stack, share)


# ---------- The table


STRATEGIES: dict[str, Callable[[Given], Strategy]] = {
    "mean_probs": lambda given: _equal(given, "probs"),
    "mean_logits": lambda given: _equal(given, "scores"),
    "shared_weights": lambda given: given.fit_stack((SHARED_STRENGTH,)),
    "shrunk_stack": shrink_stack,
    "label_weights": lambda given: given.fit_stack(STRENGTHS),
    "cross_label_stack": lambda given: given.cross_label_stack,
    "hill_climbing": lambda given: search_weights(given, climb_hill),
    "coordinate_search": lambda given: search_weights(given, search_coordinates),
}
"""Strategies by name, roughly from the plainest to the most flexible; plugins add theirs."""

TRUSTED = "shrunk_stack"
"""The strategy that is chosen unless another one proves better."""

OLD_NAMES = {
    "shared": "shared_weights",
    "steady": "shrunk_stack",
    "label": "label_weights",
    "wide": "cross_label_stack",
    "greedy": "hill_climbing",
    "coordinate": "coordinate_search",
}
"""Names of before version 0.2 -> today's."""


def refuse_strategy_names(runs: Collection[str]) -> None:
    """A run that is called like a strategy would take its place in the table.

    Raises: UserError: a run's name is a strategy's, today's or an old one.
    """
    for name in runs:
        if name in STRATEGIES or name in OLD_NAMES:
            raise UserError(
                f"run {name} is named like a strategy: the blend could not tell them apart. Rename its folder in oof/ "
                f"and its YAML in configs/runs/, for example to {name}_run"
            )


def fit_strategies(given: Given, names: Collection[str]) -> dict[str, Strategy]:
    """Fit the named strategies, in their order."""
    return {name: STRATEGIES[name](given) for name in names}
