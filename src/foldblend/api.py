"""The Python API for notebooks: arrays or data frames in and out, no files, the same arithmetic as the commands.

Shapes: N training rows, n test rows, L labels, M runs, K folds. docs/python-api.md shows every function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.blending import Blend, make_blend
from foldblend.scoring.inputs import Runs, Scores, Task, TestScores, split_into_parts
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.recipe import Recipe
from foldblend.scoring.report import (
    BlendReport,
    describe_blend,
    report_lines,
    report_record,
    shift_lines,
    table_lines,
    table_record,
)
from foldblend.scoring.thresholds.rules import tune_rule

if TYPE_CHECKING:
    import pandas as pd

Table = Any
"""(N, L): a numpy array, or a data frame with one column per label."""

# ---------- Folds, thresholds, scores


def make_folds(
    texts: Sequence[str], labels: Table, n_folds: int = 5, seed: int = 42, near_duplicates: float = 0.8
) -> np.ndarray:
    """Assign every row to a fold: each label in the same share in every fold, texts that say the same in one.

    Args:    texts: N texts.   labels: (N, L) of 0 and 1.
             near_duplicates: Jaccard similarity of 5-character pieces from which two texts share a fold; 1.0 is off.
    Returns: int64 (N,), 0..n_folds-1; the same as `foldblend make-folds` draws with these settings.
    Raises:  UserError: shapes differ, or a label has positives in fewer distinct texts than there are folds.
    """
    from foldblend.folding.draw import draw_folds

    matrix = _read_labels(labels)
    texts = [str(text) for text in texts]
    if len(texts) != len(matrix.values):
        raise UserError(f"texts and labels differ in length: {len(texts)} texts, {len(matrix.values)} rows of labels")
    return draw_folds(texts, matrix.values, n_folds, seed, near_duplicates, matrix.names)[0]


def tune_thresholds(probs: Table, labels: Table, metric: str = "macro_f1", tuning: str = "robust") -> np.ndarray:
    """One threshold per label; decide a label if its probability is at least the threshold.

    Args:    probs: (N, L) in [0, 1], of rows that the model did not train on.   labels: (N, L) of 0 and 1.
             metric: a metric of decisions.
             tuning: `exact` is best on these rows; `robust` gives up a little of that for new rows.
    Returns: float32 (L,).
    Raises:  UserError: shapes differ, probs leave [0, 1], or the metric has no thresholds.
    """
    task = _task(metric, "multilabel")
    if task.takes_probs:
        raise UserError(f"metric {metric} scores probabilities: it has no thresholds to tune")
    if tuning not in task.tunings:
        raise UserError(f"tuning is {tuning!r}; expected {' or '.join(task.tunings)}")
    truth = _read_labels(labels)
    thresholds = tune_rule(task, tuning, _read_scores("probs", probs, truth, "probs"), truth.values).thresholds
    assert thresholds is not None  # only metrics of probabilities have none
    return thresholds


def score(labels: Table, answer: Table, metric: str = "macro_f1", task: str = "multilabel") -> float:
    """The number that the leaderboard would show.

    Args:   labels: (N, L) of 0 and 1.
            answer: (N, L): 0 and 1 for a metric of decisions, probabilities for one of probabilities (AUC, log loss).
            task: `multilabel`, or `multiclass` for exactly one label per row.
    Raises: UserError: an unknown metric, shapes that differ, or probabilities if the metric wants decisions.
    """
    asked, truth = _task(metric, task), _read_labels(labels, task)
    values = _read_scores("answer", answer, truth, "probs")
    if asked.takes_probs:
        return float(asked.entry.score(truth.values, values))
    if not np.isin(values, (0, 1)).all():
        raise UserError(f"metric {metric} scores decisions: answer holds other values than 0 and 1. Compare the "
                        "probabilities with thresholds first: score(labels, probs >= thresholds)")  # fmt: skip
    return float(asked.entry.score(truth.values, values.astype(bool)))


# ---------- The blend


def blend(
    oof: Mapping[str, Table],
    labels: Table,
    folds: Sequence[int],
    test: Mapping[str, Table] | None = None,
    metric: str = "macro_f1",
    *,
    task: str = "multilabel",
    kind: str = "probs",
    groups: Sequence[int] | None = None,
    strategy: str = "",
    seed: int = 0,
) -> "BlendResult":
    """Compare every run and every strategy by cross-fitted score, choose one, and answer the test rows with it.

    Args:    oof: name of a run -> (N, L), each row predicted by the one fold model that did not train on it.
             labels: (N, L) of 0 and 1.   folds: N numbers 0..K-1, those that the runs were trained on.
             test: name -> (n, L), the average of the fold models, or (K, n, L), each fold model's own: then the
                expected score says what averaging them gains. None: `apply` answers new rows later.
             metric: what the leaderboard computes, a name in METRICS.
             task: `multilabel`, or `multiclass` for exactly one label per row.
             kind: `probs`, or `logits` if all tables hold logits.
             groups: N numbers; rows with the same number (such as duplicates) are never separated.
             strategy: a strategy or a run to take whatever its score; empty chooses.
    Raises:  UserError: tables that do not fit each other, with the run's name and what was expected.
    """
    asked, truth = _task(metric, task), _read_labels(labels, task)
    if kind not in ("probs", "logits"):
        raise UserError(f"kind is {kind!r}; expected probs or logits")
    if not oof:
        raise UserError("oof holds no run; expected a name and a table for each run")
    tables = {str(name): _read_scores(f"oof[{name!r}]", table, truth, kind) for name, table in oof.items()}
    fold = _read_folds(folds, truth)
    group = np.arange(len(fold)) if groups is None else _read_groups(groups, truth)
    scores = Scores([asked.to_scores(table, kind) for table in tables.values()])
    runs = Runs(tuple(tables), scores, truth.values, split_into_parts(fold, group), group)
    made = make_blend(asked, runs, strategy, seed)
    recipe = Recipe(task, made.predictor, made.rule)
    rows = None if test is None else _TestRows.read(test, tuple(tables), truth, kind)
    fold_probs = None if rows is None else recipe.fold_probs([TestScores(each, kind, asked) for each in rows.folds])
    report = describe_blend(asked, made, fold_probs, seed)
    result = BlendResult(asked, made, report, recipe, truth.names, tuple(tables), kind)
    if rows is not None and fold_probs is not None:
        probs, answer = recipe.answer(fold_probs)
        result.probs, result.decisions = rows.like(probs, truth.names), rows.like(answer, truth.names)
    return result


@dataclass(repr=False)
class BlendResult:
    """A chosen blend: what it answers, how it is made, and what to expect of it. A notebook shows it as a table."""

    _task: Task
    _blend: Blend
    _report: BlendReport
    _recipe: Recipe
    label_names: tuple[str, ...]
    runs: tuple[str, ...]
    kind: str
    decisions: Any = field(default=None)
    """(n, L): what the metric scores, bool, or probabilities for a metric of probabilities; None without test rows. A
    data frame if the test tables were data frames."""
    probs: Any = field(default=None)
    """(n, L): probabilities of the test rows; None without test rows."""

    @property
    def name(self) -> str:
        """The chosen strategy or run, and how its thresholds were tuned."""
        return self._blend.choice.name

    @property
    def thresholds(self) -> np.ndarray | None:
        """float32 (L,); None for a metric of probabilities and for one label per row."""
        return self._blend.rule.thresholds

    @property
    def score(self) -> float:
        """Honest CV score: weights, thresholds and the choice itself of every fold were made on the other folds."""
        return self.record["cross_fitted"]

    @property
    def in_sample(self) -> float:
        """Score of the chosen candidate, tuned and scored on the same rows: too good."""
        return self.record["in_sample"]

    @property
    def expected(self) -> float:
        """Expected score of the test rows (without any: of as many new rows as there are training rows)."""
        return self.record["expected_fold_mean"]["score"]

    @property
    def interval(self) -> tuple[float, float]:
        """90 % interval of the expected score."""
        expected = self.record["expected_fold_mean"]
        return expected["low"], expected["high"]

    @property
    def record(self) -> dict:
        """All numbers as plain values: what `foldblend blend` writes beside a submission."""
        return report_record(self._task, self._blend, self._report, self.label_names)

    @property
    def weights(self) -> "pd.DataFrame":
        """(L, M): what each label takes of each run. A stack's are slopes on log-odds and need not sum to 1."""
        import pandas as pd

        weights = self._recipe.predictor.run_weights(len(self.runs), len(self.label_names))
        return pd.DataFrame(weights, index=list(self.label_names), columns=list(self.runs))

    @property
    def table(self) -> "pd.DataFrame":
        """The candidates, best cross-fitted score first."""
        import pandas as pd

        rows = table_record(self._task, self._blend)
        for position, row in enumerate(rows):
            row["chosen"] = ">" if position == self._blend.chosen else ""
        frame = (
            pd.DataFrame(rows).set_index("name").rename_axis(None)[["chosen", "in_sample", "cross_fitted", "spread"]]
        )
        return frame.sort_values("cross_fitted", ascending=not self._task.entry.greater_is_better, kind="stable")

    def apply(self, new: Mapping[str, Table]) -> Any:
        """Answer new rows: the same runs' tables (n, L) or (K, n, L) as `test`; decisions as in `decisions`."""
        shape = _Labels(np.zeros((0, len(self.label_names)), bool), self.label_names, None, False)
        rows = _TestRows.read(new, self.runs, shape, self.kind)
        _, answer = self._recipe.answer(
            self._recipe.fold_probs([TestScores(each, self.kind, self._task) for each in rows.folds])
        )
        return rows.like(answer, self.label_names)

    def __repr__(self) -> str:
        return "\n".join(filter(None, [*table_lines(self._task, self._blend, {}), *self._lines()]))

    def _repr_html_(self) -> str:
        from html import escape

        lines = "".join(f"<p>{escape(line)}</p>" for line in self._lines())
        return f"<div><p>{escape(self._task.metric)}</p>{self.table.to_html(float_format='{:.4f}'.format)}{lines}</div>"

    def _lines(self) -> list[str]:
        return report_lines(self._task, self._blend, self._report, self.label_names) + shift_lines(
            self._report, self.label_names
        )


# ---------- Reading tables: every one that does not fit is refused with its name


@dataclass(frozen=True)
class _Labels:
    """The labels, and what the other tables are aligned with."""

    values: np.ndarray
    """bool (N, L)."""
    names: tuple[str, ...]
    """The columns' names; their numbers, if the labels are an array."""
    index: Any
    """The data frame's index; None for an array."""
    is_named: bool
    """Whether the names are columns of a data frame, so that other data frames must have them."""


def _task(metric: str, kind: str) -> Task:
    import difflib

    if metric not in METRICS:
        close = difflib.get_close_matches(metric, METRICS, n=1)
        raise UserError(
            f"metric {metric!r} is unknown" + (f"; did you mean {close[0]!r}?" if close else f": {', '.join(METRICS)}")
        )
    if kind not in ("multilabel", "multiclass"):
        raise UserError(f"task is {kind!r}; expected multilabel or multiclass")
    return Task(metric, kind)


def _read_labels(labels: Table, task: str = "multilabel") -> _Labels:
    is_frame = hasattr(labels, "columns")
    values = np.asarray(labels)
    if values.ndim != 2 or not values.size:
        raise UserError(f"labels have shape {values.shape}; expected (rows, labels), one column of 0 and 1 per label")
    if not np.isin(values, (0, 1)).all():
        raise UserError("labels hold other values than 0 and 1; expected one column of 0 and 1 per label")
    values = values.astype(bool)
    if task == "multiclass" and (values.sum(axis=1) != 1).any():
        row = int(np.flatnonzero(values.sum(axis=1) != 1)[0])
        raise UserError(f"labels of row {row} hold {values[row].sum()} ones; task multiclass expects one per row")
    names = tuple(str(name) for name in (labels.columns if is_frame else range(values.shape[1])))
    return _Labels(values, names, labels.index if is_frame else None, is_frame)


def _read_scores(what: str, table: Table, labels: _Labels, kind: str) -> np.ndarray:
    """A run's table for the training rows, float32 (N, L), its columns and rows in the labels' order."""
    if labels.index is not None and hasattr(table, "index"):
        table = _align_rows(what, table, labels.index)
    values = _align_columns(what, table, labels)
    if values.shape != labels.values.shape:
        raise UserError(f"{what} has shape {values.shape}; the labels have {labels.values.shape}")
    return _check_values(what, values, kind)


def _align_columns(what: str, table: Table, labels: _Labels) -> np.ndarray:
    """The table's values, its columns in the labels' order if both are named."""
    if hasattr(table, "columns") and labels.is_named:
        named = {str(name): name for name in table.columns}
        missing = [name for name in labels.names if name not in named]
        extra = [name for name in named if name not in labels.names]
        if missing or extra:
            raise UserError(
                f"{what} has other columns than the labels: missing {missing or 'none'}, not a label {extra or 'none'}"
            )
        table = table[[named[name] for name in labels.names]]
    return np.asarray(table)


def _align_rows(what: str, table: Any, index: Any) -> Any:
    """The rows in the order of the labels' index. Two indexes that differ are no guess: the caller must say."""
    if table.index.equals(index):
        return table
    same = table.index.is_unique and index.is_unique and len(table.index) == len(index)
    if not same or not table.index.isin(index).all():
        raise UserError(
            f"{what} has another index than the labels. If its rows are in the same order, pass it with "
            ".reset_index(drop=True) and the labels likewise"
        )
    return table.loc[index]


def _check_values(what: str, values: np.ndarray, kind: str) -> np.ndarray:
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{what} holds {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    if kind == "probs" and values.size and (values.min() < 0 or values.max() > 1):
        raise UserError(
            f"{what} holds values from {values.min():.4g} to {values.max():.4g}; expected probabilities from 0 to 1. "
            'For logits: blend(..., kind="logits"), or a sigmoid before the other functions'
        )
    return values


def _read_numbers(what: str, numbers: Any, labels: _Labels) -> np.ndarray:
    if labels.index is not None and hasattr(numbers, "index") and not callable(numbers.index):
        numbers = _align_rows(what, numbers, labels.index)
    values = np.asarray(numbers)
    if values.shape != (len(labels.values),):
        raise UserError(f"{what} has shape {values.shape}; expected one number per row, ({len(labels.values)},)")
    return values


def _read_folds(folds: Any, labels: _Labels) -> np.ndarray:
    """int64 (N,), 0..K-1, each of them there."""
    values = _read_numbers("folds", folds, labels)
    found = np.unique(values)
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        raise UserError(f"folds holds the numbers {found[:10].tolist()}; expected 0 to K-1, each at least once, K >= 2")
    return values.astype(np.int64)


def _read_groups(groups: Any, labels: _Labels) -> np.ndarray:
    return np.unique(_read_numbers("groups", groups, labels), return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class _TestRows:
    """The runs' tables of rows without labels."""

    folds: list[np.ndarray]
    """Per run float32 (K, n, L), or (1, n, L) for an average."""
    index: Any
    """The index of the data frames; None if they are arrays."""

    @classmethod
    def read(cls, tables: Mapping[str, Table], runs: tuple[str, ...], labels: _Labels, kind: str) -> "_TestRows":
        named = {str(name): table for name, table in tables.items()}
        if set(named) != set(runs):
            raise UserError(f"the test tables are of runs {sorted(named)}; expected those of oof, {sorted(runs)}")
        index = next((table.index for table in named.values() if hasattr(table, "columns")), None)
        folds = [cls._read_run(f"test[{name!r}]", named[name], index, labels, kind) for name in runs]
        sizes = {name: each.shape[1] for name, each in zip(runs, folds, strict=True)}
        if len(set(sizes.values())) > 1:
            raise UserError(f"the test tables differ in their number of rows: {sizes}")
        if len({len(each) for each in folds} - {1}) > 1:
            raise UserError("the test tables differ in their number of folds; expected (K, n, L) with one K, or (n, L)")
        return cls(folds, index)

    @staticmethod
    def _read_run(what: str, table: Any, index: Any, labels: _Labels, kind: str) -> np.ndarray:
        if index is not None and hasattr(table, "columns"):
            table = _align_rows(what, table, index)
        values = _align_columns(what, table, labels)
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or values.shape[2] != labels.values.shape[1] or not values.size:
            raise UserError(
                f"{what} has shape {np.shape(table)}; expected (rows, {labels.values.shape[1]}), or one such table per "
                f"fold"
            )
        return _check_values(what, values, kind)

    def like(self, values: np.ndarray, names: tuple[str, ...]) -> Any:
        """An answer (n, L) in the form of the test tables."""
        if self.index is None:
            return values
        import pandas as pd

        return pd.DataFrame(values, index=self.index, columns=list(names))
