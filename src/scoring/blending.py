"""The scoring room's whole: from the runs' scores to one chosen, cross-fitted, described blend."""

from dataclasses import dataclass

import numpy as np

from scoring.bootstrap import Buckets
from scoring.choice import Candidate, choose, draw_scores, make_candidate, stitch
from scoring.crossfit import CrossFit, cross_fit
from scoring.decoders import Rule, Task
from scoring.predictor import Predictor
from scoring.scores import Scores
from scoring.strategies import STRATEGIES, Given, fit_single, fit_strategies
from scoring.subsets import Partition

N_REPEATS = 1
"""Partitions the choice is cross-fitted on: folds/ itself, and draws that keep a group's rows together."""


@dataclass(frozen=True)
class Runs:
    """Everything a blend is made from."""

    names: tuple[str, ...]
    scores: Scores
    labels: np.ndarray
    """bool (N, L)."""
    fold: np.ndarray
    """int64 (N,): the folds the runs were trained on."""
    group: np.ndarray
    """int64 (N,): rows that must not be parted."""


@dataclass(frozen=True)
class Blend:
    """The table of candidates, the chosen one, and what new rows need."""

    candidates: list[Candidate]
    chosen: int
    drawn: np.ndarray
    """float64 (B, C): paired bootstrap scores of the candidates."""
    honest: np.ndarray
    """Answers whose strategy was chosen on other parts, (N, L): what the headline scores."""
    headline: float
    predictor: Predictor
    rule: Rule


def partitions(runs: Runs, n_repeats: int, seed: int) -> list[Partition]:
    """folds/ itself first, then seeded draws of whole groups into as many parts."""
    n_parts = int(runs.fold.max()) + 1
    drawn = [Partition(runs.fold)]
    groups = np.unique(runs.group, return_inverse=True)[1]
    for repeat in range(1, n_repeats):
        part_of = np.random.default_rng([seed, repeat]).permutation(groups.max() + 1) % n_parts
        drawn.append(Partition(part_of[groups]))
    return drawn


def make_blend(task: Task, runs: Runs, forced: str = "", seed: int = 0) -> Blend:
    """Cross-fit every strategy and every single run, choose one, and describe it.

    Args: forced: the name of a candidate to hand in whatever its score; empty chooses.
    """
    names = list(STRATEGIES) if len(runs.names) > 1 else []
    tables, fitted = [], {}
    for partition in partitions(runs, N_REPEATS, seed):
        given = Given(task, runs.scores, runs.labels, partition, seed)
        strategies = {name: fit_single(given, run) for run, name in enumerate(runs.names)}
        strategies |= fit_strategies(given, names)
        fitted = fitted or strategies
        tables.append(_cross_fit_all(strategies, given))
    buckets = Buckets(runs.fold, seed)
    candidates = [
        make_candidate(task, runs.labels, fit.strategy in runs.names, [table[name] for table in tables], buckets)
        for name, fit in tables[0].items()
    ]
    return _describe(task, runs, candidates, fitted, forced, buckets)


def _cross_fit_all(strategies: dict, given: Given) -> dict[str, CrossFit]:
    table = {}
    for name, strategy in strategies.items():
        for fit in cross_fit(name, strategy, given.task, given.scores, given.labels, given.partition):
            table[f"{name} + {fit.cutoffs}"] = fit
    return table


def _describe(
    task: Task, runs: Runs, candidates: list[Candidate], fitted: dict, forced: str, buckets: Buckets
) -> Blend:
    everything = np.ones(len(buckets.starts), bool)
    chosen = _find(candidates, forced) if forced else choose(candidates, everything, buckets.seed)
    fit = candidates[chosen].fits[0]
    honest = fit.answer if forced else stitch(candidates, buckets, buckets.seed)
    partition = Partition(runs.fold)
    predictor = fitted[fit.strategy].predictor(partition.n_parts, partition.fit_without())
    drawn = draw_scores(candidates, everything, buckets.seed)
    return Blend(candidates, chosen, drawn, honest, task.score(runs.labels, honest), predictor, fit.rule)


def _find(candidates: list[Candidate], wanted: str) -> int:
    names = [candidate.name for candidate in candidates]
    for position, name in enumerate(names):
        if wanted in (name, name.split(" + ")[0]):
            return position
    raise ValueError(f"--strategy {wanted}: no such strategy. There are: {', '.join(names)}")
