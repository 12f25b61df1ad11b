"""The scoring room's whole: from the runs' scores to one chosen, cross-fitted, described blend."""

from dataclasses import dataclass, replace

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.ensembling.predictors import Average, Predictor
from foldblend.scoring.ensembling.strategies import STRATEGIES, Given, fit_single, fit_strategies
from foldblend.scoring.parallel import single_threaded_products
from foldblend.scoring.thresholds.rules import Rule, Task, tune_rule
from foldblend.scoring.validation.bootstrap import Additive, Buckets, make_additive
from foldblend.scoring.validation.choice import (
    TRUSTED,
    Candidate,
    Difference,
    choose,
    choose_row_rule,
    compare,
    draw_scores,
    measure_contributions,
    stitch,
)
from foldblend.scoring.validation.crossfit import CrossFit, cross_fit, predict_outer
from foldblend.scoring.validation.expected import (
    Forecast,
    compare_means,
    find_shifted,
    forecast,
    gain_of_averaging,
    soften,
)
from foldblend.scoring.validation.partitions import MAX_FIT_ROWS, Partition, Runs

# ---------- whole: from the runs' scores to one chosen, cross-fitted, described blend.


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
    raise UserError(f"--strategy {wanted}: not there. There are: {', '.join(each.name for each in candidates)}")


# ---------- account of a blend: what to expect of it, against what, from which runs, on which test rows.


CONTRIBUTION_ROWS = 8_000
"""Rows on which the blend is refitted without each run."""


@dataclass(frozen=True)
class Outcome:
    """What is printed and stored beside the table of candidates; scores as the task compares them, more is better."""

    headline: float
    """Cross-fitted score of the whole procedure, its choice included."""
    one_fold: Forecast
    """Of one fold's models on the test rows."""
    gain: float
    """What averaging the fold models should add."""
    best_single: str
    lead: Difference
    """Of the headline's answers over the best single run's."""
    contributions: dict[str, Difference]
    """What is lost without each run; empty where a single run is handed in."""
    shift: np.ndarray
    """float64 (L,): p-values of no label shift."""
    shifted: np.ndarray
    """int64: labels whose shift is beyond chance and large enough to matter."""


@single_threaded_products()
def describe_blend(task: Task, blend: Blend, fold_probs: np.ndarray, seed: int) -> Outcome:
    """Everything about a blend that takes its test predictions to know.

    Args: fold_probs: float32 (K, n, L), the test rows by each fold's models.
    """
    labels, buckets = blend.fitted.labels, Buckets(blend.fitted.fold, seed)
    honest = [make_additive(task, labels, answer, buckets) for answer in blend.honest]
    singles = [candidate for candidate in blend.candidates if candidate.is_single]
    best = max(singles, key=lambda candidate: candidate.score)
    shift = compare_means(blend.oof_probs, fold_probs)
    return Outcome(
        float(np.mean([task.score(labels, answer) for answer in blend.honest])),
        forecast(honest, soften_answers(task, blend, buckets), len(labels), fold_probs.shape[1], seed),
        gain_of_averaging(task, blend.rule, fold_probs, seed),
        best.name,
        compare(task, labels, blend.honest[0], best.fits[0].answer, buckets),
        _contributions(task, blend, seed),
        shift,
        find_shifted(shift, blend.oof_probs, fold_probs),
    )


def soften_answers(task: Task, blend: Blend, buckets: Buckets) -> list[Additive]:
    """The metric of the answers that say where the score lies, against softened labels for macro-F1.

    The stitched answers are a little worse than the truth: what is lucky on the other parts is unlucky on this one. The
    chosen strategy's own are a little better, for it was chosen by them. Half of each.
    """
    labels, answers = blend.fitted.labels, blend.honest
    if not blend.row_rule:
        answers = [*answers, *(fit.answer for fit in blend.candidates[blend.chosen].fits[: len(answers)])]
    truth = soften(labels, blend.fitted_probs) if task.metric == "macro_f1" else labels
    return [make_additive(task, truth, answer, buckets) for answer in answers]


def _contributions(task: Task, blend: Blend, seed: int) -> dict[str, Difference]:
    chosen = blend.candidates[blend.chosen]
    if chosen.is_single:
        return {}
    few = blend.fitted.sample(CONTRIBUTION_ROWS, seed)
    given = Given(task, few.scores, few.labels, Partition(few.fold), seed)
    fit = chosen.fits[0]
    return dict(zip(few.names, measure_contributions(given, fit.strategy, fit.cutoffs), strict=True))
