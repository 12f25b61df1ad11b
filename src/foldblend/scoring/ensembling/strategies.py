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

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.ensembling.predictors import Average, Formula, Predictor, fit_rank_mean, mix
from foldblend.scoring.ensembling.stacking import (
    CROSS_STRENGTHS,
    OWN_STRENGTH,
    SHARED_STRENGTH,
    STRENGTHS,
    Stack,
    fit_shared_weights,
    fit_stack,
)
from foldblend.scoring.inputs import Partition, Scores, Task, to_probs
from foldblend.scoring.thresholds.exact import best_label_f1
from foldblend.scoring.thresholds.rules import ADAPTIVE, decide, tune_quickly

# Direct searches for ensemble weights that climb the metric itself, one set of weights for all labels.
#
# Both tune thresholds for each mixture they try. They look at few rows, for F1 is a staircase and its highest step is
# an accident of the rows; the stacks in `stacking.py` climb log loss instead.


MAX_MEMBERS = 8
"""Models that one hill climb takes, with repeats."""
N_BAGS = 3
"""Hill climbs averaged, each over a random half of the rows."""
STEPS = (0.2, 0.1, 0.05)
"""Weight that coordinate search moves at a time."""


def quick_score(task: Task, probs: np.ndarray, labels: np.ndarray) -> float:
    """The metric with thresholds tuned on the same rows: what a search climbs."""
    if task.metric == "macro_f1" and task.kind == "multilabel":
        return float(best_label_f1(probs, labels).mean())  # the same number, ten times as fast
    return task.score(labels, decide(tune_quickly(task, probs, labels), probs))


def climb_hill(task: Task, runs: list[np.ndarray], labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Greedy selection with replacement, bagged: float64 (M,) weights >= 0 with sum 1.

    Args:   runs: M tables of probabilities, float32 (n, L).   labels: bool (n, L).
    Source: Caruana et al. 2004, "Ensemble selection from libraries of models".
    """
    weights = np.zeros(len(runs))
    for _ in range(N_BAGS):
        # half of the rows without replacement is about as variable as a bootstrap and costs half
        rows = rng.permutation(len(labels))[: max(len(labels) // 2, 1)]
        weights += climb_once(task.at(rows), [run[rows] for run in runs], labels[rows])
    return weights / weights.sum()


def climb_once(task: Task, runs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """The best prefix of one greedy path: float64 (M,) weights."""
    counts, total = np.zeros(len(runs)), np.zeros(labels.shape, np.float32)
    best_score, best = -np.inf, counts
    for size in range(1, MAX_MEMBERS + 1):
        reached = [quick_score(task, (total + run) / np.float32(size), labels) for run in runs]
        picked = int(np.argmax(reached))
        # the path goes on although the score may fall: two weak runs may be worth more together than each alone
        counts[picked] += 1
        total += runs[picked]
        if reached[picked] > best_score:
            best_score, best = reached[picked], counts.copy()
    return best / best.sum()


def search_coordinates(task: Task, runs: list[np.ndarray], labels: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    """Coordinate search from the best single run: weight moves to or from one run while the metric rises."""
    singles = [quick_score(task, run, labels) for run in runs]
    # from the best single run, so that what is found is never worse, in sample
    weights, best = np.eye(len(runs))[int(np.argmax(singles))], max(singles)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for moved in _neighbours(weights, step):
                score = quick_score(task, mix(runs, moved), labels)
                # F1 is a staircase: equal steps are taken for no gain, and the search would wander on them
                if score > best + 1e-6:
                    weights, best, improved = moved, score, True
    return weights


def _neighbours(weights: np.ndarray, step: float) -> Iterator[np.ndarray]:
    """Weights with one run's weight moved up or down by a step, the others scaled to keep the sum at 1."""
    for run in range(len(weights)):
        for wanted in (weights[run] + step, weights[run] - step):
            rest = 1 - weights[run]
            if 0 <= wanted <= 1 and rest > 0:
                # the others keep their proportions
                moved = weights * (1 - wanted) / rest
                moved[run] = wanted
                yield moved


# ---------- What a strategy is


class Strategy(Protocol):
    """A fitted strategy. `part` is what its choices may not depend on: 0..P-1, or P for nothing."""

    def predictor(self, part: int, fit: int) -> Formula:
        """The formula for rows of `part`, from the fit at this position of `Partition.left_out`."""

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """P tables of probabilities, float32 (N, L): see `Stack.predict_parts`."""


MOST_CROSS_LABELS = 150
"""Each of L labels solves systems of L unknowns, so the time grows with L to the fourth power: 500 labels on 30 rows
took more than ten minutes."""


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
    def shared_stack(self) -> Stack:
        """The stack whose labels all have the shared weights, all but exactly."""
        return self.fit_stack((SHARED_STRENGTH,))

    @cached_property
    def cross_label_stack(self) -> Stack:
        """The stack that sees the other labels' scores too, unless there are more than MOST_CROSS_LABELS."""
        is_small = self.labels.shape[1] <= MOST_CROSS_LABELS
        return self.fit_stack((OWN_STRENGTH,), CROSS_STRENGTHS if is_small else ())

    @cached_property
    def hill_climb(self) -> "Mixture":
        """One weight per run, by hill climbing."""
        return search_weights(self, climb_hill)

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
            # equal means have the same weights without every part: one table serves all
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
        # a generator per part, so that the weights of part k do not depend on how many parts came before
        rng = np.random.default_rng([given.seed, part])
        # part k itself is never among the rows of its own weights
        rows = rng.permutation(np.flatnonzero(given.partition.part != part))[:MAX_SEARCH_ROWS]
        probs = [to_probs(run[rows], given.task.kind) for run in given.scores.runs]
        weights.append(search(given.task.at(rows), probs, given.labels[rows], rng))
    return Mixture(np.array(weights), "probs", given.task.kind)


# ---------- A stack with as much of plain blends as the rows are too few for it


@dataclass(frozen=True)
class MeanOf:
    """The mean of several strategies' probabilities."""

    members: tuple[Strategy, ...]

    def predictor(self, part: int, fit: int) -> Formula:
        """The mean of all formulas."""
        formulas = [member.predictor(part, fit) for member in self.members]
        mean = formulas[-1]
        for count, formula in enumerate(reversed(formulas[:-1]), 2):  # the last ones first: 1/2, then 1/3 and 2/3, ...
            mean = Average(formula, mean, np.array([1 / count]))
        return mean

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """See `Stack.predict_parts`."""
        for tables in zip(*(member.predict_parts(scores, partition) for member in self.members), strict=True):
            yield mix(tables, np.full(len(tables), 1 / len(tables)))


PRIOR_POSITIVES = 20.0
"""The plain blend weighs as much in a label's blend as this many of its positive rows."""


@dataclass(frozen=True)
class ShrunkStack:
    """A flexible strategy if a label has enough rows for it, a plain one if it has few, and a mix between."""

    plain: Strategy
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


def shrink_stack(given: Given, plain: Strategy) -> ShrunkStack:
    """The cross-label stack, with more of a plain blend the fewer positives a label has outside the part."""
    parts, positives = given.partition.part, given.labels.sum(axis=0)
    # positives outside each part: what part k takes may not depend on part k
    seen = [positives - given.labels[parts == part].sum(axis=0) for part in range(given.partition.n_parts)]
    # empirical Bayes by counts: half and half at PRIOR_POSITIVES positives, nearly all stack at ten times as many
    share = PRIOR_POSITIVES / (PRIOR_POSITIVES + np.array([*seen, positives]))  # (P + 1, L)
    if given.task.kind == "multiclass":  # one share for all, or rows would not sum to 1
        share = np.repeat(share.mean(axis=1, keepdims=True), len(positives), axis=1)
    return ShrunkStack(plain, given.cross_label_stack, share)


def mean_of_blends(given: Given) -> ShrunkStack:
    """The stack shrunk towards the mean of three plain blends.

    The equal mean is the best of the three if the runs are about as good as each other, and the worst if one run is far
    above the others; the two with fitted weights are the other way round.
    """
    plain = (_equal(given, "probs"), given.shared_stack, given.hill_climb)
    return shrink_stack(given, MeanOf(plain))


# ---------- The table


STRATEGIES: dict[str, Callable[[Given], Strategy]] = {
    "mean_probs": lambda given: _equal(given, "probs"),
    "mean_logits": lambda given: _equal(given, "scores"),
    "mean_ranks": lambda given: fit_rank_mean(given.scores, given.task.kind),
    "shared_weights": lambda given: given.shared_stack,
    "shrunk_stack": lambda given: shrink_stack(given, _equal(given, "probs")),
    "mean_of_blends": mean_of_blends,
    "label_weights": lambda given: given.fit_stack(STRENGTHS),
    "cross_label_stack": lambda given: given.cross_label_stack,
    "hill_climbing": lambda given: given.hill_climb,
    "coordinate_search": lambda given: search_weights(given, search_coordinates),
}
"""Strategies by name, roughly from the plainest to the most flexible; plugins add theirs."""

FOR_ORDER = {"mean_ranks"}
"""Strategies that are tried only if the metric reads nothing but the order of the rows."""


FOR_F1 = {"mean_of_blends"}
"""Strategies that are tried only for the metrics that they were measured on, those of ADAPTIVE."""


FOR_FEW_LABELS = {"shared_weights", "shrunk_stack", "label_weights", "cross_label_stack", "mean_of_blends"}
"""Strategies of one regression per label: with hundreds of labels, each with few rows, they take hours for nothing."""
MOST_LABELS, MOST_RANKED = 200, 40
"""Labels up to which these are tried, and the same for ranked lists: a list needs one scale over all labels."""


def offered(task: Task, n_labels: int) -> list[str]:
    """The strategies that are tried for a task, in the order of the table."""
    by_order = task.entry.reads_order_only and task.kind == "multilabel"
    left_out = set() if by_order else set(FOR_ORDER)
    left_out |= set() if adapts_thresholds(task) else FOR_F1
    left_out |= FOR_FEW_LABELS if n_labels > most_labels(task) else set()
    return [name for name in STRATEGIES if name not in left_out]


def most_labels(task: Task) -> int:
    """The number of labels up to which FOR_FEW_LABELS are tried."""
    return MOST_RANKED if task.entry.is_ranked else MOST_LABELS


def adapts_thresholds(task: Task) -> bool:
    """Whether thresholds may adapt to the rows that they are used on."""
    return task.kind == "multilabel" and task.metric in ADAPTIVE


TRUSTED = ("mean_of_blends", "shrunk_stack", "mean_probs")
"""The strategy that is chosen unless another one proves better: the first of these that is offered."""


def find_trusted(names: Sequence[str]) -> int:
    """Position of the trusted strategy among runs and strategies; of the first one, a run, if none is offered."""
    return next((names.index(name) for name in TRUSTED if name in names), 0)


def list_lines(task: Task, run_names: Sequence[str], n_labels: int) -> list[tuple[str, str]]:
    """Every line of the score table: the name of a run or a strategy, and a tuning.

    Adaptive thresholds are for the trusted strategy alone, or the only run: a line more for each would hide the others,
    and make a lead of any harder to believe.
    """
    names = [*run_names, *(offered(task, n_labels) if len(run_names) > 1 else ())]
    more = {names[find_trusted(names)]: ("adaptive",)} if adapts_thresholds(task) else {}
    return [(name, tuning) for name in names for tuning in (*more.get(name, ()), *task.tunings)]


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
