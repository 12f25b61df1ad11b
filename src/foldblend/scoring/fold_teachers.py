"""A blend as a teacher: labels for new rows that carry nothing of what a fold's held-out rows know.

A student that trains without fold k may learn a row's label from a model that never saw fold k, and from no other. So
there are K sets of labels: set k comes from each run's model of fold k, joined by weights that were chosen and fitted
on the other folds' rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.cores import single_threaded_products
from foldblend.errors import UserError
from foldblend.scoring.blending import cross_fit_lines, find_candidate, has_row_rules
from foldblend.scoring.ensembling.predictors import Formula
from foldblend.scoring.ensembling.strategies import OLD_NAMES, Given, find_trusted, list_lines
from foldblend.scoring.inputs import MAX_FIT_ROWS, Partition, Runs, Scores, Task, logit, sigmoid, split_into_parts
from foldblend.scoring.thresholds.robust import count_scores, fit_calibration
from foldblend.scoring.validation.choice import Candidate, buckets_without_parts, choose_without_parts

# ---------- The weights without each fold

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


# ---------- Confidence


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
