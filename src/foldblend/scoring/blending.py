"""A blend from the runs' out-of-fold scores to one chosen blend, its formula for new rows, and itself as a teacher.

    oof scores -> strategies -> cross-fitting -> choice -> row rule -> formula and thresholds for new rows

Everything in here is arrays; `report.py` says what the blend is worth, `ensembling/predictors.py` applies it.
"""

import difflib
from collections.abc import Sequence
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
from foldblend.scoring.inputs import MAX_FIT_ROWS, Partition, Runs, Scores, Task, logit, sigmoid, split_into_parts
from foldblend.scoring.thresholds.robust import count_scores, fit_calibration
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


# ---------- A blend as a teacher: labels for new rows that carry nothing of what a fold's held-out rows know
#
# A student that trains without fold k may learn a row's label from a model that never saw fold k, and from no other. So
# there are K sets of labels: set k comes from each run's model of fold k, joined by weights that were chosen and fitted
# on the other folds' rows.


UNFITTED = ("mean_probs", "mean_logits", "mean_ranks")
"""Strategies that read no label: they are the same without a fold as with it."""


@dataclass(frozen=True)
class FoldTeacher:
    """What joins the runs' models of one fold."""

    strategy: str
    """The strategy or run that the other folds' rows chose."""
    formula: Formula
    calibration: tuple[np.ndarray, np.ndarray] | None = None
    """Slope and shift (L,) of the log-odds, fitted on the other folds' rows; None leaves probabilities as they are."""

    def predict(self, scores: Scores, kind: str) -> np.ndarray:
        """Probabilities float32 (n, L) of new rows. Args: kind: as `Task.kind`."""
        probs = self.formula.predict(scores)
        if self.calibration is None:
            return probs
        slope, shift = self.calibration
        probs = sigmoid(slope * logit(probs) + shift).astype(np.float32)
        return probs / probs.sum(axis=1, keepdims=True) if kind == "multiclass" else probs


@single_threaded_products()
def fit_without_folds(task: Task, runs: Runs, n_folds: int, forced: str = "", seed: int = 0) -> list[FoldTeacher]:
    """For each fold, the strategy that the other folds' rows choose, fitted on these rows alone.

    It is the choice and the fit by which the blend's cross-fitted score is measured. The out-of-fold predictions that
    the weights of fold k are fitted on come from models that did see fold k, as in that score. The probabilities are
    calibrated: class weights, which many runs learn with, make rare labels look twice as frequent, and so would a
    student learn them.

    Args:   runs: with the folds themselves as `fold`, 0 to K - 1.   forced: as for `make_blend`.
    Returns: one per fold.
    Raises: UserError: two folds, and a strategy that is fitted: nothing is left to choose and fit it on.
    """
    compared = runs.sample(MAX_FIT_ROWS, seed)
    task = compared.of(task)
    folds = int(compared.fold.max()) + 1
    pairs = list_lines(task, runs.names, runs.labels.shape[1])
    strategy = forced.partition(" + ")[0]
    strategy = OLD_NAMES.get(strategy, strategy)
    if forced:
        pairs = [pair for pair in pairs if pair[0] == strategy] or pairs
    is_fitted = strategy not in (*UNFITTED, *runs.names)
    if is_fitted and (folds < 3 or folds != n_folds):
        raise UserError(
            f"too few folds for labels of this blend: {folds} have known labels, and what is fitted for one fold needs "
            f"two others. Take a strategy that is not fitted: --strategy {UNFITTED[0]}"
        )
    part = compared.fold if is_fitted else split_into_parts(compared.fold, compared.group)
    given = Given(task, compared.scores, compared.labels, Partition(part), seed)
    rest = buckets_without_parts(given.partition, seed, compared.group)
    strategies, fits = cross_fit_lines(given, runs.names, pairs, rest)
    if not is_fitted:
        formula = strategies[strategy].predictor(given.partition.n_parts, given.partition.fit_without())
        probs = formula.predict(given.scores)  # each row's by the models without its fold, as nothing was fitted
        return [FoldTeacher(strategy, formula, _calibrate(given, probs, compared.fold != k)) for k in range(n_folds)]
    lines = [Candidate(fit.strategy in runs.names, [fit], []) for fit in fits]
    trusted = find_candidate(lines, forced) if forced else find_trusted([fit.strategy for fit in fits])
    picked = choose_without_parts(given, strategies, fits, rest, trusted, bool(forced), has_row_rules(task))
    names = [fits[each.position].strategy for each in picked]
    teachers: dict[int, FoldTeacher] = {}
    for name in dict.fromkeys(names):
        for k, probs in enumerate(strategies[name].predict_parts(given.scores, given.partition)):
            if names[k] == name:  # every other fold's rows by a fit without that fold and without k
                formula = strategies[name].predictor(k, given.partition.fit_without(k))
                teachers[k] = FoldTeacher(name, formula, _calibrate(given, probs, given.partition.part != k))
    return [teachers[k] for k in range(n_folds)]


def _calibrate(given: Given, probs: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Slope and shift of each label on some rows; None for a regression, whose values are no chances."""
    if given.task.scale is not None:
        return None
    return fit_calibration(count_scores(probs[rows], given.labels[rows]))


@single_threaded_products()
def teach_without_folds(
    teachers: Sequence[FoldTeacher], tables: Sequence[Sequence[np.ndarray]], kind: str
) -> np.ndarray:
    """Probabilities of new rows, set k by the models and weights without fold k: float32 (K, n, L).

    Args: tables: for each of M runs, K tables of scores (n, L), table k by the model of fold k.   kind: as `Task.kind`.
    """
    return np.stack([each.predict(Scores([run[k] for run in tables]), kind) for k, each in enumerate(teachers)])


# ---------- A teacher's confidence


def keep_most_certain(probs: np.ndarray, kept: float, kind: str = "multilabel") -> np.ndarray:
    """Make all but the most certain share of the rows unknown, label by label and on both ends.

    A label's rows fall into those that seem to have it, as many as its probabilities sum to, and the others; of either
    the most certain share is kept. So a rare label keeps positives, and its rate among the known rows. With one label
    per row, the surest rows of each most probable label are kept whole.

    Args:    probs: float32 (K, n, L), may hold nan.   kept: share, more than 0, up to 1.   kind: as `Task.kind`.
    Returns: float32 (K, n, L), nan where unknown.
    Example: keep_most_certain([[[.9], [.8], [.3], [.1]]], 0.5) -> [[[.9], [nan], [nan], [.1]]]
    """
    found = np.full_like(probs, np.nan)
    if kept >= 1:
        return probs.copy()
    for table, into in zip(probs, found, strict=True):
        if kind == "multiclass":
            rows = np.concatenate(_surest_rows(table, kept))
            into[rows] = table[rows]
            continue
        for label, column in enumerate(table.T):
            known = np.flatnonzero(~np.isnan(column))
            order = known[np.argsort(-column[known], kind="stable")]
            n_positive = round(float(column[known].sum(dtype=np.float64)))
            low = len(order) - n_positive
            ends = (order[: _share(n_positive, kept)], order[len(order) - _share(low, kept) :])
            for rows in ends:
                into[rows, label] = column[rows]
    return found


def _surest_rows(table: np.ndarray, kept: float) -> list[np.ndarray]:
    """For each label, the rows whose most probable label it is and that are most certain of it."""
    known = np.flatnonzero(~np.isnan(table).any(axis=1))
    best, height = table[known].argmax(axis=1), table[known].max(axis=1)
    rows = []
    for label in range(table.shape[1]):
        own = np.flatnonzero(best == label)
        own = own[np.argsort(-height[own], kind="stable")]
        rows.append(known[own[: _share(len(own), kept)]])
    return rows


def _share(count: int, kept: float) -> int:
    """How many of `count` are kept, at least one of them."""
    return min(count, max(round(count * kept), 1))
