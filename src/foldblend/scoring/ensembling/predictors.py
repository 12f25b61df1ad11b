"""The scoring room's predictors: the one linear formula that turns the runs' scores of new rows into probabilities.

Plain numbers, so that a submission's record can hold it and make the same submission again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from foldblend.scoring.parallel import over_labels, single_threaded_products
from foldblend.scoring.probs import sigmoid, to_probs

# ---------- table of runs: their scores of the same rows, and what a regression sees of them.


CHUNK_ROWS = 8_192
"""Rows of the other labels' scores that are copied at a time."""


@dataclass(frozen=True)
class Scores:
    """The runs' scores of the same rows, side by side."""

    runs: list[np.ndarray]
    """M arrays, float32 (N, L), log-odds or log-probs."""

    @cached_property
    def mean(self) -> np.ndarray:
        """Equal mean of the runs' scores, float32 (N, L)."""
        total = self.runs[0].copy()
        for run in self.runs[1:]:
            total += run
        return total / np.float32(len(self.runs))

    @cached_property
    def summary(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean scores: log of the row's expected number of labels (N,), and the two highest scores (N, 2)."""
        expected = np.log(sigmoid(self.mean).sum(axis=1) + np.float32(1e-6))
        nobody = np.full(len(self.mean), -20, np.float32)  # the rival of a label that is the only one
        return expected, np.partition(np.column_stack([self.mean, nobody]), -2, axis=1)[:, -2:]

    def features(self, label: int, rows, wide: bool) -> np.ndarray:
        """What a label's regression sees of some rows, float32 (n, F): each run's score, 1, and if wide the rest.

        The wide part: squares of the scores (runs bend differently), how many labels the row seems to have, the highest
        score of another label (which may exclude this one), and the other labels' mean scores one by one.
        """
        columns = [run[:, label] for run in self.runs]  # a column first: four times as fast as run[rows, label]
        own = [column[rows] if isinstance(rows, slice) else column.take(rows) for column in columns]
        n_runs, n_labels = len(own), self.runs[0].shape[1]
        features = np.empty((len(own[0]), 2 * n_runs + n_labels + 2 if wide else n_runs + 1), np.float32)
        np.stack(own, axis=1, out=features[:, :n_runs])
        features[:, n_runs] = 1
        if wide:
            squares, rest = features[:, n_runs + 1 : 2 * n_runs + 1], features[:, 2 * n_runs + 1 :]
            np.multiply(features[:, :n_runs], features[:, :n_runs], out=squares)
            squares /= np.float32(10)
            rows = np.arange(len(self.mean))[rows]
            for start in range(0, len(rows), CHUNK_ROWS):
                self._fill_others(label, rows[start : start + CHUNK_ROWS], rest[start : start + CHUNK_ROWS])
        return features

    def _fill_others(self, label: int, rows: np.ndarray, rest: np.ndarray):
        (expected, highest), mean = (values[rows] for values in self.summary), self.mean[rows]
        rest[:, 0] = expected
        rest[:, 1] = np.where(mean[:, label] >= highest[:, 1], highest[:, 0], highest[:, 1])
        rest[:, 2 : 2 + label], rest[:, 2 + label :] = mean[:, :label], mean[:, label + 1 :]

    def without(self, run: int) -> "Scores":
        """The same rows without one run."""
        return Scores([other for number, other in enumerate(self.runs) if number != run])


# ---------- predictors: the one linear formula that turns the runs' scores of new rows into probabilities.


@dataclass(frozen=True)
class Predictor:
    """From the runs' scores to probabilities."""

    form: str
    """`probs` or `scores`: one weight a run, on its probabilities or its scores. `stack` or `wide`: see `Scores`."""
    kind: str
    """`multilabel` or `multiclass`."""
    coefs: np.ndarray
    """float64 (M,) for the weights of runs, (L, F) for stacks."""

    def predict(self, scores: Scores, rows=slice(None)) -> np.ndarray:
        """Probabilities float32 (n, L) of some rows."""
        if self.form in ("stack", "wide"):
            return self._predict_stack(scores, rows)
        used = np.flatnonzero(self.coefs)
        runs, weights = (scores.runs[run][rows] for run in used), self.coefs[used]
        if self.form == "probs":
            return mix((to_probs(run, self.kind) for run in runs), weights)
        return to_probs(mix(runs, weights), self.kind)

    def _predict_stack(self, scores: Scores, rows) -> np.ndarray:
        coefs = self.coefs.astype(np.float32)
        wide = self.form == "wide"

        def one(label):
            return sigmoid(scores.features(label, rows, wide) @ coefs[label])

        columns = over_labels(one, len(coefs), len(scores.runs[0]))
        probs = np.stack(columns, axis=1)
        return probs / probs.sum(axis=1, keepdims=True) if self.kind == "multiclass" else probs

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        return {"form": self.form, "kind": self.kind, "coefs": self.coefs.tolist()}


@dataclass(frozen=True)
class Average:
    """The weighted mean of two predictors' probabilities, label by label."""

    first: Predictor
    second: Predictor
    share: np.ndarray
    """float64 (L,): the weight of the first; the second has the rest."""

    def predict(self, scores: Scores, rows=slice(None)) -> np.ndarray:
        """Probabilities float32 (n, L) of some rows."""
        share = self.share.astype(np.float32)
        return share * self.first.predict(scores, rows) + (1 - share) * self.second.predict(scores, rows)

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        parts = {"first": self.first.to_record(), "second": self.second.to_record()}
        return {"form": "average", **parts, "share": self.share.tolist()}


def predictor_from_record(record: dict) -> Predictor | Average:
    """The predictor that `to_record` wrote."""
    if record["form"] == "average":
        first, second = predictor_from_record(record["first"]), predictor_from_record(record["second"])
        return Average(first, second, np.array(record["share"], np.float64))
    return Predictor(record["form"], record["kind"], np.array(record["coefs"], np.float64))


def used_runs(predictor: Predictor | Average, n_runs: int) -> list[int]:
    """The runs that a predictor looks at, rising; a stack looks at all of them."""
    if isinstance(predictor, Average):
        return sorted({*used_runs(predictor.first, n_runs), *used_runs(predictor.second, n_runs)})
    if predictor.form in ("stack", "wide"):
        return list(range(n_runs))
    return np.flatnonzero(predictor.coefs).tolist()


def keep_runs(predictor: Predictor | Average, kept: list[int]) -> Predictor | Average:
    """The same predictor for a table of the `kept` runs alone, which must be all that it looks at."""
    if isinstance(predictor, Average):
        return replace(predictor, first=keep_runs(predictor.first, kept), second=keep_runs(predictor.second, kept))
    return predictor if predictor.form in ("stack", "wide") else replace(predictor, coefs=predictor.coefs[kept])


def mix(runs: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted sum of the runs' tables, float32 (n, L), taken one by one."""
    total = np.float32(0)
    for run, weight in zip(runs, weights, strict=True):
        part = np.float32(weight) * run
        total = np.add(total, part, out=part)
    return total


@single_threaded_products()
def predict_folds(predictor: Predictor | Average, test_folds: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Probabilities of the test rows by each fold's models, float32 (K, n, L).

    Args: test_folds: for each of M runs, K tables of scores (n, L), or one for a run that has no fold models.
    """
    n_folds = max(len(run) for run in test_folds)
    return np.stack(
        [predictor.predict(Scores([run[fold % len(run)] for run in test_folds])) for fold in range(n_folds)]
    )
