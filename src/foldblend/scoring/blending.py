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
    FOR_FEW_LABELS,
    FOR_ORDER,
    OLD_NAMES,
    STRATEGIES,
    Given,
    Strategy,
    find_trusted,
    fit_single,
    fit_strategies,
    list_lines,
    most_labels,
    refuse_strategy_names,
)
from foldblend.scoring.inputs import MAX_FIT_ROWS, Partition, Runs, Task
from foldblend.scoring.thresholds.rules import Rule, tune_rule
from foldblend.scoring.validation.bootstrap import Buckets
from foldblend.scoring.validation.choice import (
    Candidate,
    CrossFit,
    Leads,
    Measured,
    answer_parts,
    buckets_without_parts,
    choose_without_parts,
    compare_lines,
    cross_fit,
    cross_fit_row_rules,
    mean_measured,
    measure,
    offer_row_rules,
    pick_line,
    pick_row_rule,
    predict_outer,
    row_rule_moves,
)

# ---------- The whole


@dataclass(frozen=True)
class Why:
    """The numbers that decided, and no others are printed for it."""

    trusted: int
    """Position of the line that another one must beat."""
    is_forced: bool
    """Whether the user named the line that was taken."""
    leads: Leads
    """Of every line over the trusted one."""
    row_rule_lead: float
    """Of the row rule over none; 0 without one."""
    row_rule_needed: float
    """The lead from which on it is taken."""


@dataclass(frozen=True)
class Blend:
    """The table of candidates, the chosen one, and what new rows need."""

    candidates: list[Candidate]
    chosen: int
    why: Why
    """The numbers that decided."""
    honest: list[np.ndarray]
    """Answers (n, L) of the compared rows, each by what was fitted and chosen on other parts; one per repeat."""
    compared: Runs
    """The rows that everything was compared on."""
    all_labels: np.ndarray
    """bool (N, L): of all rows."""
    all_groups: np.ndarray
    """int64 (N,): the duplicate group of each row."""
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
    task = compared.of(task)
    buckets = Buckets(compared.fold, seed, compared.group)
    candidates, strategies, honest = cross_fit_candidates(task, compared, buckets, forced, seed)

    given = Given(task, compared.scores, compared.labels, Partition(compared.fold), seed)
    trusted = find_candidate(candidates, forced) if forced else find_trusted([each.strategy for each in candidates])
    chosen, why, row_rule, fields, outer = choose(given, candidates, strategies, buckets, trusted, bool(forced))
    choice = candidates[chosen]
    strategy = strategies[choice.strategy]
    oof_probs = outer
    if compared is not runs:
        oof_probs = predict_outer(strategy, Given(task, runs.scores, runs.labels, Partition(runs.fold), seed))
    return Blend(
        candidates=candidates,
        chosen=chosen,
        why=why,
        honest=honest,
        compared=compared,
        all_labels=runs.labels,
        all_groups=runs.group,
        compared_probs=outer,
        oof_probs=oof_probs,
        rule=replace(tune_rule(task, choice.tuning, oof_probs, runs.labels), **fields),
        row_rule=row_rule,
        predictor=strategy.predictor(given.partition.n_parts, given.partition.fit_without()),
        strategies=strategies,
    )


def has_row_rules(task: Task) -> bool:
    """Whether a rule of how many labels a row has can change the answer."""
    return not task.takes_probs and task.kind == "multilabel"


def choose(
    given: Given, candidates: list[Candidate], strategies: dict[str, Strategy], buckets: Buckets, trusted: int,
    is_forced: bool,
) -> tuple[int, Why, str, dict, np.ndarray]:  # fmt: skip
    """Choose a line and a row rule on all rows.

    Returns: its position; why; the row rule's name and its fields of `Rule`; and the line's cross-fitted probabilities,
             float32 (N, L).
    """
    offered = offer_row_rules(given.labels) if has_row_rules(given.task) else {"": {}}

    def measure_ruled(position: int, outer: np.ndarray) -> dict[str, Measured]:
        fit, allowed = candidates[position].fits[0], given.scores.allowed
        answers = cross_fit_row_rules(fit, outer, given.partition.part, offered, allowed)
        return {name: measure(given.task, given.labels, answer, buckets) for name, answer in answers.items()}

    outer = predict_outer(strategies[candidates[trusted].strategy], given)
    ruled = measure_ruled(trusted, outer)
    lines = [mean_measured(candidate.measured) for candidate in candidates]
    leads = compare_lines(lines, trusted, row_rule_moves(ruled), given.seed)
    chosen = trusted if is_forced else pick_line(leads, trusted)
    if chosen != trusted:
        outer = predict_outer(strategies[candidates[chosen].strategy], given)
        ruled = measure_ruled(chosen, outer)
    row_rule, lead, needed = pick_row_rule(ruled, leads.critical)
    return chosen, Why(trusted, is_forced, leads, lead, needed), row_rule, offered[row_rule], outer


# ---------- Candidates


N_REPEATS = 3
"""Partitions that the choice is cross-fitted on: the folds themselves, and draws that keep a group's rows together."""
LARGE_FROM = 2_000_000
"""From this many scores (rows x labels x runs) on, the folds alone: another partition would hardly change a score."""


def cross_fit_candidates(
    task: Task, runs: Runs, buckets: Buckets, forced: str, seed: int
) -> tuple[list[Candidate], dict[str, Strategy], list[np.ndarray]]:
    """Every line of the table, the strategies as fitted on the folds themselves, and the honest answers.

    An honest answer (N, L), one per repeat, is by what was fitted and chosen without the row's part, row rule included.
    """
    pairs = list_lines(task, runs.names, runs.labels.shape[1])
    is_large = runs.labels.size * len(runs.names) >= LARGE_FROM
    candidates: list[Candidate] = []
    first: dict[str, Strategy] = {}
    honest = []
    for partition in runs.partitions(1 if is_large else N_REPEATS, seed):
        given = Given(task, runs.scores, runs.labels, partition, seed)
        rest = buckets_without_parts(partition, seed, runs.group)
        strategies, fits = cross_fit_lines(given, runs.names, pairs, rest)
        known = candidates or [Candidate(fit.strategy in runs.names, [], []) for fit in fits]
        candidates = [line.with_fit(task, runs.labels, fit, buckets) for line, fit in zip(known, fits, strict=True)]
        first = first or strategies
        trusted = find_candidate(candidates, forced) if forced else find_trusted([fit.strategy for fit in fits])
        picked = choose_without_parts(given, strategies, fits, rest, trusted, bool(forced), has_row_rules(task))
        honest.append(answer_parts(picked, given, strategies, fits))
    return candidates, first, honest


def cross_fit_lines(
    given: Given, run_names: tuple[str, ...], pairs: list[tuple[str, str]], rest: list[Buckets]
) -> tuple[dict[str, Strategy], list[CrossFit]]:
    """Fit runs and strategies and cross-fit them. Args: pairs: each line's strategy and tuning, in their order."""
    strategies: dict[str, Strategy] = {name: fit_single(given, run) for run, name in enumerate(run_names)}
    strategies |= fit_strategies(given, list(dict.fromkeys(name for name, _ in pairs if name not in strategies)))
    fits = []
    for name, strategy in strategies.items():
        fits += cross_fit(name, strategy, given, tuple(tuning for other, tuning in pairs if other == name), rest)
    return strategies, fits


def check_strategy(wanted: str, run_names: tuple[str, ...], task: Task, n_labels: int) -> None:
    """Refuse a `--strategy` that no candidate will have, before anything is fitted; an empty one is none.

    Raises: UserError: with the nearest name that there will be, and all names.
    """
    lines = list_lines(task, run_names, n_labels)
    names = list(dict.fromkeys(name for name, _ in lines))
    pairs = [f"{name} + {tuning}" for name, tuning in lines]
    strategy, plus, tuning = wanted.partition(" + ")
    if not wanted or OLD_NAMES.get(strategy, strategy) + plus + tuning in {*names, *pairs}:
        return
    if strategy in STRATEGIES and len(run_names) == 1:
        hint = f": there is one run only, {run_names[0]}."
    elif strategy in FOR_FEW_LABELS and strategy not in names:
        hint = f": it is for up to {most_labels(task)} labels with metric {task.metric}; there are {n_labels}."
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
