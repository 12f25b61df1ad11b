"""A blend from arrays to a result: no files, no data frames. The notebook API is built on it.

result = blend_arrays(Task("macro_f1"), {"a": oof_a, "b": oof_b}, labels, folds, test={"a": test_a, "b": test_b})
result.decisions, result.thresholds, result.weights, result.expected
result.apply({"a": new_a, "b": new_b})
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.blending import Blend, make_blend
from foldblend.scoring.ensembling.predictors import Recipe
from foldblend.scoring.inputs import (
    Runs,
    Scores,
    Task,
    TestScores,
    find_noise,
    split_into_parts,
    without_runs,
)
from foldblend.scoring.report import (
    BlendReport,
    TestFacts,
    describe_blend,
    report_lines,
    report_record,
    shift_lines,
    table_lines,
    wrap,
)
from foldblend.scoring.validation.shift import mean_run_probs, mean_test_probs

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ArrayBlend:
    """A chosen blend, what it is worth, and its answer for the test rows."""

    task: Task
    run_names: tuple[str, ...]
    label_names: tuple[str, ...]
    kind: str
    """`probs` or `logits`: what `apply` is given."""
    blend: Blend
    report: BlendReport
    recipe: Recipe
    probs: np.ndarray | None
    """float32 (n, L), the blend's probabilities of the test rows, averaged over folds; None without test rows."""
    decisions: np.ndarray | None
    """bool (n, L); None without test rows, or if the metric takes probabilities."""
    noise: list[str]
    """Runs that were left out, as their predictions agree with nothing."""

    @property
    def chosen(self) -> str:
        """The chosen strategy or run and its tuning, for example `shrunk_stack + robust`."""
        return self.blend.choice.name

    @property
    def thresholds(self) -> np.ndarray | None:
        """float32 (L,) on probabilities; None if the metric takes probabilities, or with one label per row.

        Adaptive ones are those for the test rows; without test rows they still adapt to the rows of `apply`.
        """
        return self.recipe.rule.thresholds

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """What each label takes of each run, float64 (L,) by run: weights that sum to 1, or the slopes of a stack."""
        of_labels = self.blend.predictor.run_weights(len(self.run_names), len(self.label_names))
        return {name: of_labels[:, run] for run, name in enumerate(self.run_names)}

    @property
    def expected(self) -> dict[str, float]:
        """`score`, `low` and `high` (90 % interval) to expect of the average of the fold models on the test rows."""
        return self.record["expected_fold_mean"]

    @property
    def honest_score(self) -> float:
        """The cross-fitted score, choice included, on the metric's own scale."""
        return self.task.entry.sign * self.report.honest

    @property
    def record(self) -> dict:
        """All numbers as plain values that JSON holds; `table` has one dictionary per candidate."""
        return report_record(self.task, self.blend, self.report, self.label_names)

    @property
    def lines(self) -> list[str]:
        """The score table and the report as `blend.py` prints them, in 80 columns."""
        report = report_lines(self.task, self.blend, self.report, self.label_names)
        table = table_lines(self.task, self.blend, {})
        words = "Left out, as their predictions agree with no label and no other run: "
        left_out = [words + ", ".join(self.noise)] if self.noise else []
        return [*table, *wrap(left_out), "", *report, *shift_lines(self.task, self.report, self.label_names)]

    def apply(self, new: Arrays, candidates: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities float32 (n, L) and decisions bool (n, L) of new rows; decisions are None for probabilities.

        Args: new: by run, (n, L), or (K, n, L) of K fold models; a run that the blend does not need may be missing.
              candidates: bool (n, L), as in `blend_arrays`.
        """
        used = self.recipe.used_runs(len(self.run_names))
        missing = [self.run_names[run] for run in used if self.run_names[run] not in new]
        if missing:
            raise UserError(f"runs missing: {', '.join(missing)}. The blend needs their predictions of the new rows")
        names, n_labels = [self.run_names[run] for run in used], len(self.label_names)
        scores = [_fold_scores(self.task, name, new, self.kind, n_labels, candidates) for name in names]
        _check_same_rows({self.run_names[run]: each.folds[0] for run, each in zip(used, scores, strict=True)})
        recipe = self.recipe.of_used_runs(len(self.run_names))
        probs, answer = recipe.answer(recipe.fold_probs(scores), candidates)
        return probs, answer if answer.dtype == bool else None


def blend_arrays(
    task: Task,
    oof: Arrays,
    labels: np.ndarray,
    folds: np.ndarray,
    test: Arrays | None = None,
    *,
    kind: str = "probs",
    groups: np.ndarray | None = None,
    label_names: tuple[str, ...] | None = None,
    strategy: str = "",
    seed: int = 0,
    reestimate_priors: bool = False,
    hidden_test_rows: int = 0,
    test_is: str = "",
    metric_by: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    candidates: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> ArrayBlend:
    """Choose, fit and describe a blend of some runs' predictions.

    Args:   oof: by run, float (N, L): each row predicted by the one model that did not see it.
            labels: bool or 0/1 (N, L).   folds: int (N,), 0..K-1.
            test: by run, (n, L), or (K, n, L) of each fold's models, which makes the expected score better.
            kind: `probs` or `logits`, what oof and test hold.   groups: int (N,), rows with the same number are never
            separated (duplicates); every row by itself by default.   strategy: a strategy or run to take whatever its
            score.   seed: of resamples, bags and repeated partitions.   reestimate_priors: correct label shift.
            hidden_test_rows: rows of the test set that is scored, if `test` is only a part of it.
            test_is: of runs with one table (n, L) in `test`: `mean_of_folds`, `one_fold`, or empty.
            metric_by: the group (N,) of each row, and (n,) of each test row, for a metric that is averaged over groups.
            candidates: bool (N, L), and (n, L) of the test rows: False for labels that a row cannot have.
    Raises: UserError: shapes or names do not fit, values are not finite, or probs leave [0, 1].
    """
    if test_is not in ("", "mean_of_folds", "one_fold"):
        raise UserError(f"test_is is {test_is!r}; expected mean_of_folds or one_fold")
    names = tuple(oof)
    labels, folds, groups = _check_rows(oof, labels, folds, groups)
    n_labels = labels.shape[1]
    if label_names is not None and len(label_names) != n_labels:
        raise UserError(f"label_names are {len(label_names)}; labels have {n_labels} columns")
    label_names = tuple(label_names or (f"label {label}" for label in range(n_labels)))
    own, of_test = candidates
    _check_candidates("candidates", own, labels.shape)
    scores = Scores([task.to_scores(np.asarray(oof[name], np.float32), kind, own) for name in names], own)
    codes, test_codes = _number_groups(task, metric_by, len(labels))
    runs = Runs(names, scores, labels, split_into_parts(folds, groups), groups, codes)
    # a run that was asked for by name is kept, whatever it is
    noise = [name for name in find_noise(runs) if not strategy.startswith(name)]
    runs = without_runs(runs, noise)
    names, scores = runs.names, runs.scores
    test_scores = None
    if test is not None:
        missing = [name for name in names if name not in test]
        if missing:
            raise UserError(f"test predictions missing of run {', '.join(missing)}")
        test_scores = [_fold_scores(task, name, test, kind, n_labels, of_test) for name in names]
        _check_same_rows({name: each.folds[0] for name, each in zip(names, test_scores, strict=True)})

    blend = make_blend(task, runs, strategy, seed)
    recipe = Recipe(task.kind, blend.predictor, blend.rule)
    fold_probs = None if test_scores is None else recipe.fold_probs(test_scores)
    means = None if test_scores is None else (mean_run_probs(task, scores), mean_test_probs(task, test_scores))
    brought = {name: test_is for name, each in zip(names, test_scores or [], strict=False) if len(each) == 1}
    facts = TestFacts(means, hidden_test_rows, brought=brought, metric_groups=test_codes)
    report = describe_blend(task, blend, fold_probs, seed, facts)
    if reestimate_priors and report.shift is not None:
        recipe = Recipe(
            task.kind, blend.predictor, blend.rule, labels.mean(axis=0), tuple(report.shift.shifted.tolist())
        )
    recipe = recipe if fold_probs is None else recipe.settled(fold_probs)
    probs, answer = (None, None) if fold_probs is None else recipe.answer(fold_probs, of_test)
    decisions = answer if answer is not None and answer.dtype == bool else None
    return ArrayBlend(task, names, label_names, kind, blend, report, recipe, probs, decisions, noise)


# ---------- Checks


def _check_rows(
    oof: Arrays, labels: np.ndarray, folds: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels bool (N, L), folds int64 (N,) and groups int64 (N,), if everything fits."""
    if not oof:
        raise UserError("no runs: oof is empty")
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise UserError(f"labels are {labels.shape} of {labels.dtype}; expected (N, L) of 0 and 1")
    for name, values in oof.items():
        _check_table(f"oof of run {name}", values, labels.shape)
    folds = np.asarray(folds)
    if folds.shape != labels.shape[:1] or not np.array_equal(np.unique(folds), np.arange(len(np.unique(folds)))):
        raise UserError(f"folds are {folds.shape}; expected ({len(labels)},) of whole numbers 0 to K-1, each in use")
    if len(np.unique(folds)) < 2:
        raise UserError("folds hold one fold only; cross-fitting needs at least 2")
    groups = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if groups.shape != folds.shape:
        raise UserError(f"groups are {groups.shape}; expected ({len(labels)},)")
    return labels.astype(bool), folds.astype(np.int64), groups


def _check_table(what: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    values = np.asarray(values)
    if values.shape != shape:
        raise UserError(f"{what}: shape {values.shape}; expected {shape}, one row per text and one column per label")
    if not np.isfinite(values).all():
        raise UserError(f"{what}: {int((~np.isfinite(values)).sum())} values are not finite")


def _check_candidates(what: str, candidates: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if candidates is None:
        return
    if candidates.shape != shape or candidates.dtype != bool:
        raise UserError(f"{what} are {candidates.shape} of {candidates.dtype}; expected {shape} of bool")
    if empty := int((~candidates.any(axis=1)).sum()):
        raise UserError(f"{what}: {empty} rows have none; expected at least one label per row")


def _number_groups(
    task: Task, metric_by: tuple[np.ndarray | None, np.ndarray | None], n_rows: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The groups of a metric as numbers, of the training rows and of the test rows."""
    if not task.entry.by_groups:
        return None, None
    ours, theirs = (None if part is None else np.asarray(part) for part in metric_by)
    if ours is None or ours.shape != (n_rows,):
        found = "nothing" if ours is None else ours.shape
        raise UserError(f"metric_by is {found}; metric {task.metric} needs the group of each row, ({n_rows},)")
    numbers = np.unique(ours, return_inverse=True)[1]
    return numbers, None if theirs is None else np.unique(theirs, return_inverse=True)[1]


def _fold_scores(
    task: Task, name: str, tables: Arrays, kind: str, n_labels: int, candidates: np.ndarray | None = None
) -> TestScores:
    """One run's predictions of new rows: K tables (n, L)."""
    values = np.asarray(tables[name], np.float32)
    # one table counts as one fold
    folds = values if values.ndim == 3 else values[None]
    if folds.ndim != 3 or folds.shape[2] != n_labels:
        raise UserError(f"test of run {name}: shape {values.shape}; expected (n, {n_labels}) or (K, n, {n_labels})")
    _check_table(f"test of run {name}", folds, folds.shape)
    _check_candidates("candidates of the test rows", candidates, folds.shape[1:])
    return TestScores(list(folds), kind, task, candidates)


def _check_same_rows(tables: Arrays) -> None:
    sizes = {name: len(table) for name, table in tables.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"runs differ in their rows: {', '.join(f'{name} {n}' for name, n in sizes.items())}")
