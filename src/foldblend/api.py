"""The Python API for notebooks: arrays or data frames in and out, no files, the same arithmetic as the commands.

Shapes: N training rows, n test rows, L labels, M runs, K folds. docs/python-api.md shows every function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.arrays import ArrayBlend, blend_arrays
from foldblend.scoring.inputs import Task
from foldblend.scoring.metrics.table import METRICS, k_of
from foldblend.scoring.thresholds.rules import tune_rule

if TYPE_CHECKING:
    import pandas as pd

Table = Any
"""(N, L): a numpy array, or a data frame with one column per label."""

# ---------- Folds, thresholds, scores


def make_folds(
    texts: Sequence[str],
    labels: Table,
    n_folds: int = 5,
    seed: int = 42,
    near_duplicates: float = 0.8,
    groups: Sequence | None = None,
) -> np.ndarray:
    """Assign every row to a fold: each label in the same share in every fold, texts that say the same in one.

    Args:    texts: N texts.   labels: (N, L) of 0 and 1.
             near_duplicates: Jaccard similarity of 5-character pieces from which two texts share a fold; 1.0 is off.
             groups: N names, such as authors; rows with the same one share a fold, an empty one is a row by itself.
    Returns: int64 (N,), 0..n_folds-1; the same as `foldblend make-folds` draws with these settings.
    Raises:  UserError: shapes differ, or a label has positives in fewer distinct texts than there are folds.
    """
    from foldblend.folding.draw import draw_folds

    matrix = _read_labels(labels)
    texts = [str(text) for text in texts]
    if len(texts) != len(matrix.values):
        raise UserError(f"texts and labels differ in length: {len(texts)} texts, {len(matrix.values)} rows of labels")
    if groups is not None and len(groups) != len(texts):
        raise UserError(f"texts and groups differ in length: {len(texts)} texts, {len(groups)} groups")
    names = None if groups is None else np.array([str(name) for name in groups])
    return draw_folds(texts, matrix.values, n_folds, seed, near_duplicates, groups=names)[0]


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
    thresholds = tune_rule(task, tuning, _align("probs", probs, truth).astype(np.float32), truth.values).thresholds
    assert thresholds is not None  # only metrics of probabilities have none
    return thresholds


def score(
    labels: Table,
    answer: Table,
    metric: str = "macro_f1",
    task: str = "multilabel",
    metric_by: Sequence | None = None,
) -> float:
    """The number that the leaderboard would show.

    Args:   labels: (N, L) of 0 and 1; numbers for a metric of values, such as `rmse`.
            answer: (N, L): 0 and 1 for a metric of decisions, probabilities for one of probabilities (AUC, log loss)
            or of ranked lists (`map_at_3`, with any number).
            task: `multilabel`, or `multiclass` for exactly one label per row.
            metric_by: N groups of rows, such as rules, for a metric that is averaged over them (`group_auc`).
    Raises: UserError: an unknown metric, shapes that differ, or probabilities if the metric wants decisions.
    """
    asked = _task(metric, task)
    if asked.entry.of_values:
        return float(asked.entry.score(np.asarray(labels, np.float64), np.asarray(answer, np.float64)))
    truth = _read_labels(labels, task)
    values = _align("answer", answer, truth)
    if not asked.takes_probs and not np.isin(values, (0, 1)).all():
        raise UserError(
            f"metric {metric} scores decisions: answer holds other values than 0 and 1. Compare the probabilities with "
            "thresholds first: score(labels, probs >= thresholds)"
        )
    if values.shape != truth.values.shape:
        raise UserError(f"answer has shape {values.shape}; the labels have {truth.values.shape}")
    if asked.entry.by_groups:
        asked = replace(asked, groups=_read_groups(metric, metric_by, truth))
    values = values if asked.takes_probs else values.astype(bool)
    return float(asked.entry.sign * asked.score(truth.values, values))


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
    hidden_test_rows: int = 0,
    test_is: str = "",
    metric_by: Sequence | None = None,
    test_metric_by: Sequence | None = None,
    candidates: Table | None = None,
    test_candidates: Table | None = None,
) -> "BlendResult":
    """Compare every run and every strategy by cross-fitted score, choose one, and answer the test rows with it.

    Args:    oof: name of a run -> (N, L), each row predicted by the one fold model that did not train on it.
             labels: (N, L) of 0 and 1.   folds: N numbers 0..K-1, those that the runs were trained on.
             test: name -> (n, L), the average of the fold models, or (K, n, L), each fold model's own: then the
                expected score says what averaging them gains. None: `apply` answers new rows later.
             metric: what the leaderboard computes, a name in METRICS; of ranked lists as `map_at_3`.
             task: `multilabel`, or `multiclass` for exactly one label per row.
             kind: `probs`, or `logits` if all tables hold logits.
             groups: N numbers; rows with the same number (such as duplicates) are never separated.
             strategy: a strategy or a run to take whatever its score; empty chooses.
             hidden_test_rows: rows of the test set that is scored, if `test` is only a part of it.
             test_is: what a run's single table in `test` holds: `mean_of_folds` or `one_fold`; the report says so.
             metric_by: N groups of rows for a metric that is averaged over groups (`group_auc`), and of the test rows,
                without which they count as one group when the gain of averaging is estimated.
             candidates: (N, L) of 0 and 1, 0 for labels that a row cannot have, and (n, L) of the test rows.
    Raises:  UserError: tables that do not fit each other, with the run's name and what was expected.
    """
    asked = _task(metric, task)
    if asked.entry.of_values:
        raise UserError(f"metric {metric} is of a regression, which blend() does not take; use python src/blend.py")
    truth = _read_labels(labels, task)
    if kind not in ("probs", "logits"):
        raise UserError(f"kind is {kind!r}; expected probs or logits")
    rows = None if test is None else _Rows.read("test", test, truth)
    made = blend_arrays(
        asked,
        {str(name): _align(f"oof of run {name}", table, truth) for name, table in oof.items()},
        truth.values,
        _align("folds", folds, truth),
        None if rows is None else rows.tables,
        kind=kind,
        groups=None if groups is None else _align("groups", groups, truth),
        label_names=truth.names,
        strategy=strategy,
        seed=seed,
        hidden_test_rows=hidden_test_rows,
        test_is=test_is,
        metric_by=(
            None if metric_by is None else _align("metric_by", metric_by, truth),
            None if test_metric_by is None else np.asarray(test_metric_by),
        ),
        candidates=(
            None if candidates is None else _align("candidates", candidates, truth).astype(bool),
            None if rows is None else rows.candidates(test_candidates, truth),
        ),
    )
    if rows is None or made.probs is None:
        return BlendResult(made, truth)
    answer = made.probs if made.decisions is None else made.decisions
    return BlendResult(made, truth, rows.like(answer, truth.names), rows.like(made.probs, truth.names))


@dataclass(frozen=True, repr=False)
class BlendResult:
    """A chosen blend: what it answers, how it is made, and what to expect of it. A notebook shows it as a table."""

    made: ArrayBlend
    """The same from arrays alone."""
    _labels: "_Labels"
    decisions: Any = None
    """(n, L): what the metric scores, bool, or probabilities for a metric of probabilities; None without test rows. A
    data frame if the test tables were data frames."""
    probs: Any = None
    """(n, L): probabilities of the test rows; None without test rows."""

    @property
    def name(self) -> str:
        """The chosen strategy or run, and how its thresholds were tuned."""
        return self.made.chosen

    @property
    def thresholds(self) -> np.ndarray | None:
        """float32 (L,); None for a metric of probabilities and for one label per row."""
        return self.made.thresholds

    @property
    def score(self) -> float:
        """Honest CV score: weights, thresholds and the choice itself of every fold were made on the other folds."""
        return self.made.honest_score

    @property
    def in_sample(self) -> float:
        """Score of the chosen candidate, tuned and scored on the same rows: too good."""
        return self.record["in_sample"]

    @property
    def expected(self) -> float:
        """Expected score of the test rows (without any: of as many new rows as there are training rows)."""
        return self.made.expected["score"]

    @property
    def interval(self) -> tuple[float, float]:
        """90 % interval of the expected score."""
        return self.made.expected["low"], self.made.expected["high"]

    @property
    def record(self) -> dict:
        """All numbers as plain values: what `foldblend blend` writes next to a submission."""
        return self.made.record

    @property
    def weights(self) -> "pd.DataFrame":
        """(L, M): what each label takes of each run. A stack's are slopes on log-odds and need not sum to 1."""
        import pandas as pd

        return pd.DataFrame(self.made.weights, index=list(self.made.label_names))

    @property
    def table(self) -> "pd.DataFrame":
        """The candidates, best cross-fitted score first."""
        import pandas as pd

        frame = pd.DataFrame(self.record["table"]).set_index("name").rename_axis(None)
        frame.insert(0, "chosen", np.where(frame.index == self.name, ">", ""))
        ascending = not self.made.task.entry.greater_is_better
        frame = frame.sort_values("cross_fitted", ascending=ascending, kind="stable")
        return frame[["chosen", "in_sample", "cross_fitted", "spread"]]

    def apply(self, new: Mapping[str, Table], candidates: Table | None = None) -> Any:
        """Answer new rows: the runs' tables, as `test`. Returns what `decisions` holds for the test rows."""
        rows = _Rows.read("new", new, self._labels)
        probs, decisions = self.made.apply(rows.tables, rows.candidates(candidates, self._labels))
        return rows.like(probs if decisions is None else decisions, self.made.label_names)

    def __repr__(self) -> str:
        return "\n".join(filter(None, self.made.lines))

    def _repr_html_(self) -> str:
        from html import escape

        lines = self.made.lines
        report = "\n".join(lines[lines.index("", lines.index("") + 1) + 1 :])  # the second empty line ends the table
        table = self.table.to_html(float_format="{:.4f}".format)
        return f"<div><p>{escape(self.made.task.metric)}</p>{table}<pre>{escape(report)}</pre></div>"


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

    if metric in METRICS and METRICS[metric].is_ranked and not k_of(metric):
        raise UserError(f"metric {metric} has no number: write how many labels a list has, as {metric[:-1]}3")
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


def _read_groups(metric: str, metric_by: Sequence | None, labels: _Labels) -> np.ndarray:
    """The groups of a metric that is averaged over them as numbers, int64 (N,)."""
    groups = None if metric_by is None else _align("metric_by", metric_by, labels)
    if groups is None or groups.shape != labels.values.shape[:1]:
        found = "nothing" if groups is None else groups.shape
        raise UserError(f"metric_by is {found}; metric {metric} needs the group of each row, ({len(labels.values)},)")
    return np.unique(groups, return_inverse=True)[1]


def _align(what: str, table: Table, labels: _Labels) -> np.ndarray:
    """The values of a table or series, its rows in the labels' order if both have an index."""
    if labels.index is not None and hasattr(table, "iloc"):
        table = _align_rows(what, table, labels.index)
    return _align_columns(what, table, labels)


def _align_columns(what: str, table: Table, labels: _Labels) -> np.ndarray:
    """The table's values, its columns in the labels' order if both are named."""
    if hasattr(table, "columns") and labels.is_named:
        named = {str(name): name for name in table.columns}
        missing = [name for name in labels.names if name not in named]
        extra = [name for name in named if name not in labels.names]
        if missing or extra:
            raise UserError(
                f"{what}: other columns than the labels: missing {missing or 'none'}, not a label {extra or 'none'}"
            )
        table = table[[named[name] for name in labels.names]]
    return np.asarray(table)


def _align_rows(what: str, table: Any, index: Any) -> Any:
    """The rows in the order of another index. For two that differ there is no safe guess: the caller must say."""
    if table.index.equals(index):
        return table
    same = table.index.is_unique and index.is_unique and len(table.index) == len(index)
    if not same or not table.index.isin(index).all():
        raise UserError(
            f"{what}: another index than that of the first table. If the rows are in the same order, pass all with "
            ".reset_index(drop=True)"
        )
    return table.loc[index]


@dataclass(frozen=True)
class _Rows:
    """The runs' tables of rows without labels."""

    tables: dict[str, np.ndarray]
    """(n, L), or (K, n, L), by run."""
    index: Any
    """The index of the data frames; None if they are arrays."""

    @classmethod
    def read(cls, what: str, tables: Mapping[str, Table], labels: _Labels) -> "_Rows":
        index = next((table.index for table in tables.values() if hasattr(table, "iloc")), None)
        read = {}
        for name, table in tables.items():
            if index is not None and hasattr(table, "iloc"):
                table = _align_rows(f"{what} of run {name}", table, index)
            read[str(name)] = _align_columns(f"{what} of run {name}", table, labels)
        return cls(read, index)

    def candidates(self, table: Table | None, labels: _Labels) -> np.ndarray | None:
        """The candidates bool (n, L) of these rows; None without."""
        if table is None:
            return None
        if self.index is not None and hasattr(table, "iloc"):
            table = _align_rows("candidates of the test rows", table, self.index)
        return _align_columns("candidates of the test rows", table, labels).astype(bool)

    def like(self, values: np.ndarray, names: tuple[str, ...]) -> Any:
        """An answer (n, L) in the form of the tables."""
        if self.index is None:
            return values
        import pandas as pd

        return pd.DataFrame(values, index=self.index, columns=list(names))
