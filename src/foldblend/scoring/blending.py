"""A blend from beginning to end: from the runs' out-of-fold scores to one chosen blend and its formula for new rows.

    oof scores -> strategies -> cross-fitting -> choice -> row rule -> formula and thresholds for new rows

Everything in here is arrays; `report.py` says what the blend is worth, `ensembling/predictors.py` applies it.
"""

import difflib
from dataclasses import dataclass, replace

import numpy as np

from foldblend.cores import single_threaded_products
from foldblend.errors import UserError
from foldblend.scoring.ensembling.predictors import Formula
from foldblend.scoring.ensembling.strategies import (
    FOR_ORDER,
    OLD_NAMES,
    STRATEGIES,
    TRUSTED,
    Given,
    Strategy,
    fit_single,
    fit_strategies,
    offered,
    refuse_strategy_names,
)
from foldblend.scoring.inputs import MAX_FIT_ROWS, Partition, Runs, Task
from foldblend.scoring.thresholds.rules import Rule, tune_rule
from foldblend.scoring.validation.bootstrap import Buckets, make_additive
from foldblend.scoring.validation.choice import (
    Candidate,
    CrossFit,
    choose,
    choose_without_parts,
    cross_fit,
    cross_fit_row_rules,
    draw_scores,
    offer_row_rules,
    pack_answer,
    pick_row_rule,
    predict_outer,
    stitch,
    unpack_answer,
)

# ---------- The whole


@dataclass(frozen=True)
class Blend:
    """The table of candidates, the chosen one, and what new rows need."""

    candidates: list[Candidate]
    chosen: int
    spread: np.ndarray
    """float64 (C,): standard deviation of each candidate's score over resamples of the rows."""
    honest: list[np.ndarray]
    """Answers (n, L) of the compared rows, each by what was fitted and chosen on other parts; one per repeat."""
    own: list[np.ndarray]
    """The same of the chosen candidate itself, chosen on all rows: a little too good."""
    compared: Runs
    """The rows that everything was compared on."""
    all_labels: np.ndarray
    """bool (N, L): of all rows."""
    compared_probs: np.ndarray
    """float32 (n, L): cross-fitted probabilities of these rows by the chosen strategy."""
    oof_probs: np.ndarray
    """float32 (N, L): cross-fitted probabilities of all rows by the chosen strategy."""
    rule: Rule
    row_rule: str
    """The name of the row rule that was added; empty if none helps."""
    predictor: Formula
    """The chosen strategy, for new rows."""
    strategies: dict[str, Strategy]
    """Every strategy by name, as fitted on the folds themselves."""

    @property
    def choice(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen]


@single_threaded_products()
def make_blend(task: Task, runs: Runs, forced: str = "", seed: int = 0) -> Blend:
    """Cross-fit every strategy and every single run, choose one, and fit it for new rows.

    Args:   forced: the name of a strategy, run or candidate to take whatever its score; empty chooses.
    Raises: UserError: no candidate has that name, or a run is named like a strategy.
    """
    refuse_strategy_names(runs.names)
    compared = runs.sample(MAX_FIT_ROWS, seed)
    buckets = Buckets(compared.fold, seed, compared.group)
    candidates, strategies = cross_fit_candidates(task, compared, buckets, seed)

    chosen = find_candidate(candidates, forced) if forced else choose(candidates, buckets.everything, seed)
    given = Given(task, compared.scores, compared.labels, Partition(compared.fold), seed)
    of_parts = [chosen] * given.partition.n_parts if forced else choose_without_parts(candidates, buckets, seed)
    has_row_rules = not task.takes_probs and task.kind == "multilabel"
    outer = {  # by candidate: probabilities (n, L), each row by the fit without its part
        position: predict_outer(strategies[candidates[position].strategy], given)
        for position in ({chosen, *of_parts} if has_row_rules else {chosen})
    }
    answers = choose_answers(given, outer if has_row_rules else {}, candidates, chosen, of_parts, buckets)

    choice = candidates[chosen]
    strategy = strategies[choice.strategy]
    oof_probs = compared_probs = outer[chosen]
    if compared is not runs:
        oof_probs = predict_outer(strategy, Given(task, runs.scores, runs.labels, Partition(runs.fold), seed))
    rule = replace(tune_rule(task, choice.tuning, oof_probs, runs.labels), **answers.fields)
    return Blend(
        candidates=candidates,
        chosen=chosen,
        spread=draw_scores(candidates, buckets.everything, seed).std(axis=0),
        honest=answers.honest,
        own=answers.own,
        compared=compared,
        all_labels=runs.labels,
        compared_probs=compared_probs,
        oof_probs=oof_probs,
        rule=rule,
        row_rule=answers.row_rule,
        predictor=strategy.predictor(given.partition.n_parts, given.partition.fit_without()),
        strategies=strategies,
    )


# ---------- Candidates


N_REPEATS = 3
"""Partitions that the choice is cross-fitted on: the folds themselves, and draws that keep a group's rows together."""
LARGE_FROM = 2_000_000
"""From this many scores (rows x labels x runs) on, only strategies that can still win are repeated, and once."""
CONTENDER_ERRORS = 2.0
"""Standard errors below the best at which a strategy can no longer win."""


def cross_fit_candidates(
    task: Task, runs: Runs, buckets: Buckets, seed: int
) -> tuple[list[Candidate], dict[str, Strategy]]:
    """Every line of the table, and the strategies as fitted on the folds themselves."""
    names = [*runs.names, *(offered(task) if len(runs.names) > 1 else ())]
    pairs = [(name, tuning) for name in names for tuning in task.tunings]
    is_large = runs.labels.size * len(runs.names) >= LARGE_FROM
    candidates: dict[tuple[str, str], Candidate] = {}
    first: dict[str, Strategy] = {}
    for partition in runs.partitions(min(N_REPEATS, 2) if is_large else N_REPEATS, seed):
        given = Given(task, runs.scores, runs.labels, partition, seed)
        strategies, fits = _cross_fit_pairs(given, runs.names, pairs)
        for fit in fits:
            pair = (fit.strategy, fit.tuning)
            known = candidates.get(pair) or Candidate(fit.strategy in runs.names, [], [])
            candidates[pair] = known.with_fit(task, runs.labels, fit, buckets)
        if not first:
            first = strategies
            pairs = _contenders(pairs, list(candidates.values()), buckets) if is_large else pairs
    return list(candidates.values()), first


def _cross_fit_pairs(
    given: Given, run_names: tuple[str, ...], pairs: list[tuple[str, str]]
) -> tuple[dict[str, Strategy], list[CrossFit]]:
    """Fit the strategies of some (strategy, tuning) pairs and cross-fit them."""
    wanted = dict.fromkeys(name for name, _ in pairs)
    strategies: dict[str, Strategy] = {
        name: fit_single(given, run) for run, name in enumerate(run_names) if name in wanted
    }
    strategies |= fit_strategies(given, [name for name in wanted if name not in strategies])
    fits = []
    for name, strategy in strategies.items():
        fits += cross_fit(name, strategy, given, tuple(tuning for other, tuning in pairs if other == name))
    return strategies, fits


def _contenders(pairs: list[tuple[str, str]], candidates: list[Candidate], buckets: Buckets) -> list[tuple[str, str]]:
    """The pairs that can still win, and the trusted one's."""
    drawn = draw_scores(candidates, buckets.everything, buckets.seed)
    scores = np.array([candidate.score for candidate in candidates])
    best = int(np.argmax(scores))
    error = (drawn - drawn[:, [best]]).std(axis=0)
    near = scores >= scores[best] - CONTENDER_ERRORS * error
    return [pair for pair, keeps in zip(pairs, near, strict=True) if keeps or pair[0] == TRUSTED]


def check_strategy(wanted: str, run_names: tuple[str, ...], task: Task) -> None:
    """Refuse a `--strategy` that no candidate will have, before anything is fitted; an empty one is none.

    Raises: UserError: with the nearest name that there will be, and all names.
    """
    names = [*run_names, *(offered(task) if len(run_names) > 1 else ())]
    pairs = [f"{name} + {tuning}" for name in names for tuning in task.tunings]
    strategy, plus, tuning = wanted.partition(" + ")
    if not wanted or OLD_NAMES.get(strategy, strategy) + plus + tuning in {*names, *pairs}:
        return
    if strategy in STRATEGIES and len(run_names) == 1:
        hint = f": there is one run only, {run_names[0]}."
    elif strategy in FOR_ORDER and strategy not in names:
        hint = f": it is for metrics that read the order of rows alone, and {task.metric} does not."
    elif strategy in names:
        hint = f": {strategy} has no {tuning!r}."
    else:
        close = difflib.get_close_matches(strategy, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
    raise UserError(f"unknown --strategy {wanted}{hint} There are: {', '.join(pairs)}")


def find_candidate(candidates: list[Candidate], wanted: str) -> int:
    """Position of a candidate by its name, or by its strategy's, which takes the first tuning. Old names are known.

    Raises: UserError: there is none; lists those there are.
    """
    strategy, plus, tuning = wanted.partition(" + ")
    wanted = OLD_NAMES.get(strategy, strategy) + plus + tuning
    for position, candidate in enumerate(candidates):
        if wanted in (candidate.name, candidate.strategy):
            return position
    raise UserError(f"unknown --strategy {wanted}. There are: {', '.join(each.name for each in candidates)}")


# ---------- Answers and row rules


@dataclass(frozen=True)
class _Answers:
    """Cross-fitted answers with the row rule that was chosen; see `Blend`."""

    row_rule: str
    fields: dict
    """The row rule as fields of `Rule`."""
    honest: list[np.ndarray]
    own: list[np.ndarray]


def choose_answers(
    given: Given,
    outer: dict[int, np.ndarray],
    candidates: list[Candidate],
    chosen: int,
    of_parts: list[int],
    buckets: Buckets,
) -> _Answers:
    """Choose a row rule, on all rows for new rows and without each part for the honest score; put the answers together.

    Args: outer: by position of a candidate, `predict_outer` of its strategy; empty if the task has no row rules.
          of_parts: for each part, the position of the candidate that was chosen without it.
    """
    if not outer:
        return _Answers("", {}, *_plain_answers(candidates, chosen, of_parts, buckets))
    part, seed = buckets.part, buckets.seed
    offered = offer_row_rules(given.labels)
    offered_to = [offer_row_rules(given.labels[part != k]) for k in range(len(of_parts))]
    everything = {name: fields for each in [offered, *offered_to] for name, fields in each.items()}
    stored, additive = {}, {}  # by candidate and name of the rule
    for position, probs in outer.items():
        answers = cross_fit_row_rules(candidates[position].fits[0], probs, part, everything)
        for name, answer in answers.items():
            stored[position, name] = pack_answer(answer)
            additive[position, name] = make_additive(given.task, given.labels, answer, buckets)

    def pick(position, names, among):
        return pick_row_rule({name: additive[position, name] for name in names}, among, seed)

    picked = pick(chosen, offered, buckets.everything)
    picked_of = [pick(position, offered_to[k], buckets.parts != k) for k, position in enumerate(of_parts)]
    honest, own = _plain_answers(candidates, chosen, of_parts, buckets)
    if picked or any(picked_of):  # row rules are cross-fitted on the folds alone, not on the repeats
        kept = [stored[position, name] for position, name in zip(of_parts, picked_of, strict=True)]
        honest = [stitch([unpack_answer(each, given.labels.shape) for each in kept], part)]
        own = [unpack_answer(stored[chosen, picked], given.labels.shape)]
    return _Answers(picked, offered[picked], honest, own)


def _plain_answers(
    candidates: list[Candidate], chosen: int, of_parts: list[int], buckets: Buckets
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Without row rules: the answers chosen per part, one per repeat that all have, and the chosen one's own."""
    n_repeats = min(len(candidates[position].fits) for position in of_parts)
    honest = [
        stitch([candidates[position].fits[repeat].answer for position in of_parts], buckets.part)
        for repeat in range(n_repeats)
    ]
    return honest, [fit.answer for fit in candidates[chosen].fits[:n_repeats]]
