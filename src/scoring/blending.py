"""The scoring room's whole: from the runs' scores to one chosen, cross-fitted, described blend."""

from dataclasses import dataclass, replace

import numpy as np

from scoring.bootstrap import Buckets
from scoring.choice import TRUSTED, Candidate, choose, draw_scores, stitch
from scoring.crossfit import CrossFit, cross_fit, predict_outer
from scoring.decoders import Rule, Task, tune_rule
from scoring.parallel import single_threaded_products
from scoring.predictor import Average, Predictor
from scoring.row_rules import choose_row_rule
from scoring.runs import MAX_FIT_ROWS, Runs
from scoring.strategies import STRATEGIES, Given, fit_single, fit_strategies
from scoring.subsets import Partition

N_REPEATS = 3
"""Partitions the choice is cross-fitted on: folds/ itself, and draws that keep a group's rows together."""
CONTENDERS_FROM = 2_000_000
"""From this many scores (rows x labels x runs) on, only strategies that can still win are repeated, and once."""
CONTENDER_ERRORS = 2.0
"""Standard errors below the best at which a strategy can no longer win."""


@dataclass(frozen=True)
class Blend:
    """The table of candidates, the chosen one, and what new rows need."""

    candidates: list[Candidate]
    chosen: int
    spread: np.ndarray
    """float64 (C,): standard deviation of each candidate's score over resamples of the rows."""
    honest: list[np.ndarray]
    """Answers (n, L) of the rows in `fitted`, each by what was fitted and chosen on other parts; one a repeat."""
    fitted: Runs
    """The rows that everything was compared on."""
    fitted_probs: np.ndarray
    """float32 (n, L): cross-fitted probabilities of these rows by the chosen strategy."""
    oof_probs: np.ndarray
    """float32 (N, L): cross-fitted probabilities of all rows by the chosen strategy."""
    rule: Rule
    row_rule: str
    """The row rule that was added, in words; empty where none helps."""
    predictor: Predictor | Average
    """The chosen strategy, for new rows."""
    strategies: dict
    """Every strategy by name, as fitted on folds/ itself."""

    @property
    def name(self) -> str:
        """The chosen candidate."""
        return self.candidates[self.chosen].name


@single_threaded_products()
def make_blend(task: Task, runs: Runs, forced: str = "", seed: int = 0) -> Blend:
    """Cross-fit every strategy and every single run, choose one, and fit it for new rows.

    Args:   forced: the name of a candidate to hand in whatever its score; empty chooses.
    Raises: ValueError: no candidate has that name.
    """
    few = runs.sample(MAX_FIT_ROWS, seed)
    buckets = Buckets(few.fold, seed)
    candidates, strategies = cross_fit_candidates(task, few, buckets, seed)
    everything = np.ones(len(buckets.starts), bool)
    chosen = find_candidate(candidates, forced) if forced else choose(candidates, everything, seed)
    fit = candidates[chosen].fits[0]
    honest = [each.answer for each in candidates[chosen].fits] if forced else stitch(candidates, buckets, seed)
    strategy, partition = strategies[fit.strategy], Partition(few.fold)
    few_probs = predict_outer(strategy, Given(task, few.scores, few.labels, partition, seed))
    fields, row_rule, with_row_rule = choose_row_rule(task, fit.cutoffs, few_probs, few.labels, few.fold, seed)
    probs = few_probs
    if few is not runs:
        probs = predict_outer(strategy, Given(task, runs.scores, runs.labels, Partition(runs.fold), seed))
    rule = replace(tune_rule(task, fit.cutoffs, probs, runs.labels), **fields)
    return Blend(
        candidates, chosen, draw_scores(candidates, everything, seed).std(axis=0),
        [with_row_rule] if row_rule else honest, few, few_probs, probs, rule, row_rule,
        strategy.predictor(partition.n_parts, partition.fit_without()), strategies,
    )  # fmt: skip


def cross_fit_candidates(task: Task, runs: Runs, buckets: Buckets, seed: int) -> tuple[list[Candidate], dict]:
    """Every line of the table, and the strategies as fitted on folds/ itself."""
    names = [*runs.names, *(STRATEGIES if len(runs.names) > 1 else ())]
    pairs = [(name, cutoffs) for name in names for cutoffs in task.cutoffs]
    candidates, first, is_large = {}, None, runs.labels.size * len(runs.names) >= CONTENDERS_FROM
    for partition in runs.partitions(min(N_REPEATS, 2) if is_large else N_REPEATS, seed):
        given = Given(task, runs.scores, runs.labels, partition, seed)
        strategies, fits = _cross_fit_pairs(given, runs.names, pairs)
        for fit in fits:
            name = f"{fit.strategy} + {fit.cutoffs}"
            known = candidates.get(name) or Candidate(name, fit.strategy in runs.names, [], [])
            candidates[name] = known.with_fit(task, runs.labels, fit, buckets)
        if first is None:
            first = strategies
            pairs = _contenders(pairs, list(candidates.values()), buckets) if is_large else pairs
    return list(candidates.values()), first


def _cross_fit_pairs(given: Given, runs: tuple[str, ...], pairs: list[tuple[str, str]]) -> tuple[dict, list[CrossFit]]:
    """Fit the strategies of some (strategy, cut-offs) pairs and cross-fit them."""
    wanted = dict.fromkeys(name for name, _ in pairs)
    strategies = {name: fit_single(given, run) for run, name in enumerate(runs) if name in wanted}
    strategies |= fit_strategies(given, [name for name in wanted if name not in strategies])
    fits = []
    for name, strategy in strategies.items():
        fits += cross_fit(name, strategy, given, tuple(cutoffs for other, cutoffs in pairs if other == name))
    return strategies, fits


def _contenders(pairs: list[tuple[str, str]], candidates: list[Candidate], buckets: Buckets) -> list:
    """The pairs that can still win, and the trusted one's."""
    drawn = draw_scores(candidates, np.ones(len(buckets.starts), bool), buckets.seed)
    scores = np.array([candidate.score for candidate in candidates])
    best = int(np.argmax(scores))
    error = (drawn - drawn[:, [best]]).std(axis=0)
    near = scores >= scores[best] - CONTENDER_ERRORS * error
    return [pair for pair, keeps in zip(pairs, near, strict=True) if keeps or pair[0] == TRUSTED]


def find_candidate(candidates: list[Candidate], wanted: str) -> int:
    """Position of a candidate by its name, or by its strategy's, which takes the first cut-offs.

    Raises: ValueError: there is none; lists those there are.
    """
    for position, candidate in enumerate(candidates):
        if wanted in (candidate.name, candidate.fits[0].strategy):
            return position
    raise ValueError(f"--strategy {wanted}: not there. There are: {', '.join(each.name for each in candidates)}")
