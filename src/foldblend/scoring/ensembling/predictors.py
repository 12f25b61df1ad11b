"""The formula of a blend: from the runs' scores of any rows to probabilities.

It is plain numbers, so that a submission's record can hold it and make the same submission again. There are four
kinds: one weight per run, a logistic regression per label (a stack), the average of two formulas, and a mean of ranks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldblend.cores import over_labels, single_threaded_products
from foldblend.scoring.inputs import Partition, Scores, sigmoid, to_probs
from foldblend.scoring.thresholds.rules import Rule, decide, rule_from_record, settle
from foldblend.scoring.validation.shift import correct_shifted

# ---------- What a label's regression sees


CHUNK_ROWS = 8_192
"""Rows of the other labels' scores that are copied at a time, so that the copy stays in the cache."""


def label_features(scores: Scores, label: int, rows, across_labels: bool) -> np.ndarray:
    """What a label's regression sees of some rows: each run's score, 1, and if `across_labels` the rest.

    The rest: squares of the scores (runs bend differently), how many labels the row seems to have, the highest score
    of another label (which may exclude this one), and the other labels' mean scores one by one.

    Args:    rows: a slice or int64 (n,).
    Returns: float32 (n, F): F is M + 1, or 2 M + L + 2 if `across_labels`.
    """
    columns = [run[:, label] for run in scores.runs]  # a column first: four times as fast as run[rows, label]
    own = [column[rows] if isinstance(rows, slice) else column.take(rows) for column in columns]
    n_runs, n_labels = len(own), scores.runs[0].shape[1]
    features = np.empty((len(own[0]), 2 * n_runs + n_labels + 2 if across_labels else n_runs + 1), np.float32)
    np.stack(own, axis=1, out=features[:, :n_runs])
    features[:, n_runs] = 1
    if across_labels:
        squares, rest = features[:, n_runs + 1 : 2 * n_runs + 1], features[:, 2 * n_runs + 1 :]
        np.multiply(features[:, :n_runs], features[:, :n_runs], out=squares)
        squares /= np.float32(10)  # to about the scale of the scores, so that one penalty suits both
        rows = np.arange(len(scores.mean))[rows]
        for start in range(0, len(rows), CHUNK_ROWS):
            _fill_others(scores, label, rows[start : start + CHUNK_ROWS], rest[start : start + CHUNK_ROWS])
    return features


def _fill_others(scores: Scores, label: int, rows: np.ndarray, rest: np.ndarray) -> None:
    """Fill the row's summary and the other labels' mean scores into `rest`, (n, L + 1)."""
    (expected, highest), mean = (values[rows] for values in scores.summary), scores.mean[rows]
    rest[:, 0] = expected
    rest[:, 1] = np.where(mean[:, label] >= highest[:, 1], highest[:, 0], highest[:, 1])
    rest[:, 2 : 2 + label], rest[:, 2 + label :] = mean[:, :label], mean[:, label + 1 :]


# ---------- Formulas


STACKS = ("label_stack", "cross_label_stack")
"""Forms that are one regression per label; the second one sees the other labels too."""
OLD_FORMS = {"stack": "label_stack", "wide": "cross_label_stack"}
"""Names of forms in records of before version 0.2."""


@dataclass(frozen=True)
class Predictor:
    """From the runs' scores to probabilities."""

    form: str
    """`probs` or `scores`: one weight per run, on its probabilities or its scores. Or one of STACKS."""
    kind: str
    """`multilabel` or `multiclass`."""
    coefs: np.ndarray
    """float64 (M,) for the weights of runs, (L, F) for stacks; F as in `label_features`."""

    def predict(self, scores: Scores, rows=slice(None)) -> np.ndarray:
        """Probabilities float32 (n, L) of some rows."""
        if self.form in STACKS:
            return self._predict_stack(scores, rows)
        # runs of weight 0 are not read: their predictions need not even exist
        used = np.flatnonzero(self.coefs)
        runs, weights = (scores.runs[run][rows] for run in used), self.coefs[used]
        if self.form == "probs":
            return mix((to_probs(run, self.kind) for run in runs), weights)
        return to_probs(mix(runs, weights), self.kind)

    def _predict_stack(self, scores: Scores, rows) -> np.ndarray:
        coefs = self.coefs.astype(np.float32)

        def predict_label(label):
            return sigmoid(label_features(scores, label, rows, self.form == "cross_label_stack") @ coefs[label])

        probs = np.stack(over_labels(predict_label, len(coefs), len(scores.runs[0])), axis=1)
        return probs / probs.sum(axis=1, keepdims=True) if self.kind == "multiclass" else probs

    def run_weights(self, n_runs: int, n_labels: int) -> np.ndarray:
        """What each label takes of each run, float64 (L, M); a stack's are slopes and need not sum to 1."""
        if self.form in STACKS:
            return self.coefs[:, :n_runs]
        return np.tile(self.coefs, (n_labels, 1))

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        return {"form": self.form, "kind": self.kind, "coefs": self.coefs.tolist()}


@dataclass(frozen=True)
class Average:
    """The weighted mean of two formulas' probabilities, label by label."""

    first: "Formula"
    second: "Formula"
    share: np.ndarray
    """float64 (L,), or (1,) for all labels: the weight of the first; the second has the rest."""

    def predict(self, scores: Scores, rows=slice(None)) -> np.ndarray:
        """Probabilities float32 (n, L) of some rows."""
        share = self.share.astype(np.float32)
        return share * self.first.predict(scores, rows) + (1 - share) * self.second.predict(scores, rows)

    def run_weights(self, n_runs: int, n_labels: int) -> np.ndarray:
        """See `Predictor.run_weights`; the two by their shares."""
        first, second = (part.run_weights(n_runs, n_labels) for part in (self.first, self.second))
        return self.share[:, None] * first + (1 - self.share[:, None]) * second

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        parts = {"first": self.first.to_record(), "second": self.second.to_record()}
        return {"form": "average", **parts, "share": self.share.tolist()}


# ---------- The mean of the runs' ranks, for metrics that read nothing but the order of the rows.
#
# A run that is sure of itself outweighs the others in a mean of probabilities; in a mean of ranks it does not. A rank
# is a share of the OOF rows below, so that new rows get theirs one by one. The mean rank is turned back into the
# probability that the equal mean of the runs has at this rank, so that the answer has the rates of probabilities.

N_POINTS = 65
"""Quantiles that are kept of each run and label."""
TIE_BREAK = 1e-3
"""Share of the score itself: beyond the highest OOF row, ranks would all be the same."""


@dataclass(frozen=True)
class RankMean:
    """From the runs' scores to probabilities, by the mean of their ranks."""

    points: np.ndarray
    """float32 (M, L, Q): quantiles of each run's scores of each label, rising."""
    probs: np.ndarray
    """float32 (L, Q): quantiles of the equal mean of their probabilities, rising."""

    def predict(self, scores: Scores, rows=slice(None)) -> np.ndarray:
        """Probabilities float32 (n, L) of some rows."""
        shares = np.linspace(0, 1, self.points.shape[2])
        columns = []
        for label in range(self.points.shape[1]):
            rank = np.float64(0)
            for run, points in zip(scores.runs, self.points, strict=True):
                own = run[rows, label]
                # np.interp through the quantiles turns a score into the share of OOF rows below it
                rank = rank + (1 - TIE_BREAK) * np.interp(own, points[label], shares) + TIE_BREAK * sigmoid(own)
            columns.append(np.interp(rank / len(self.points), shares, self.probs[label]) * (1 - TIE_BREAK))
            columns[-1] += TIE_BREAK * rank / len(self.points)  # strictly rising where quantiles are equal
        return np.stack(columns, axis=1).astype(np.float32)

    def run_weights(self, n_runs: int, n_labels: int) -> np.ndarray:
        """What each label takes of each run, float64 (L, M): the same of all."""
        return np.full((n_labels, n_runs), 1 / n_runs)

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        return {"form": "rank_mean", "points": self.points.tolist(), "probs": self.probs.tolist()}


def rank_mean_from_record(record: dict) -> RankMean:
    """The formula that `to_record` wrote."""
    return RankMean(np.array(record["points"], np.float32), np.array(record["probs"], np.float32))


@dataclass(frozen=True)
class FittedRankMean:
    """A strategy: quantiles of scores, in which no label has a part, so every part may see all rows."""

    formula: RankMean

    def predictor(self, part: int, fit: int) -> RankMean:
        """The same for every part."""
        return self.formula

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """See `Stack.predict_parts`."""
        probs = self.formula.predict(scores)
        for _ in range(partition.n_parts):
            yield probs


def fit_rank_mean(scores: Scores, kind: str) -> FittedRankMean:
    """Keep the quantiles of each run and of the mean. Args: kind: `multilabel` or `multiclass`."""
    shares = np.linspace(0, 1, N_POINTS)
    mean = np.mean([to_probs(run, kind) for run in scores.runs], axis=0)
    points = np.stack([np.quantile(run, shares, axis=0).T for run in scores.runs])
    return FittedRankMean(RankMean(points.astype(np.float32), np.quantile(mean, shares, axis=0).T.astype(np.float32)))


# ---------- What records and submissions do with a formula


Formula = Predictor | Average | RankMean


def predictor_from_record(record: dict) -> Formula:
    """The predictor that `to_record` wrote, now or before version 0.2."""
    if record["form"] == "average":
        first, second = predictor_from_record(record["first"]), predictor_from_record(record["second"])
        return Average(first, second, np.array(record["share"], np.float64))
    if record["form"] == "rank_mean":
        return rank_mean_from_record(record)
    return _plain_from_record(record)


def _plain_from_record(record: dict) -> Predictor:
    form = OLD_FORMS.get(record["form"], record["form"])
    return Predictor(form, record["kind"], np.array(record["coefs"], np.float64))


def used_runs(predictor: Formula, n_runs: int) -> list[int]:
    """The runs that a predictor needs, rising; a stack needs all of them."""
    if isinstance(predictor, Average):
        return sorted({*used_runs(predictor.first, n_runs), *used_runs(predictor.second, n_runs)})
    if isinstance(predictor, RankMean) or predictor.form in STACKS:
        return list(range(n_runs))
    return np.flatnonzero(predictor.coefs).tolist()


def keep_runs(predictor: Formula, kept: list[int]) -> Formula:
    """The same predictor for a table of the `kept` runs alone, which must be all that it needs."""
    if isinstance(predictor, Average):
        return replace(predictor, first=keep_runs(predictor.first, kept), second=keep_runs(predictor.second, kept))
    if isinstance(predictor, RankMean) or predictor.form in STACKS:
        return predictor
    return replace(predictor, coefs=predictor.coefs[kept])


def mix(runs: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted sum of the runs' tables, float32 (n, L), taken one by one to hold one table at a time.

    Example: mix([np.float32([[1, 0]]), np.float32([[0, 1]])], np.array([0.75, 0.25])) -> [[0.75, 0.25]]
    """
    total: np.ndarray = np.float32(0)  # type: ignore[assignment]  # the first sum makes it a table
    for run, weight in zip(runs, weights, strict=True):
        part = np.float32(weight) * run
        total = np.add(total, part, out=part)
    return total


@single_threaded_products()
def predict_folds(predictor: Formula, test_folds: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Probabilities of the test rows by each fold's models, float32 (K, n, L).

    Args: test_folds: for each of M runs, K tables of scores (n, L); K + 1 if it has a model of all rows, or one if it
          has no fold models. A run with fewer tables than others takes part in their last ones by its mean.
    """
    n_folds = max(len(run) for run in test_folds)
    return np.stack(
        [predictor.predict(Scores([_table_of(run, fold) for run in test_folds])) for fold in range(n_folds)]
    )


def _table_of(run: Sequence[np.ndarray], fold: int) -> np.ndarray:
    """A run's scores (n, L) of one fold; beyond its last one the mean, so that none of its models counts twice."""
    if fold < len(run) or len(run) == 1:
        return run[min(fold, len(run) - 1)]
    return np.stack([run[k] for k in range(len(run))]).mean(axis=0, dtype=np.float32)


@dataclass(frozen=True)
class MeanOfRuns(Sequence[np.ndarray]):
    """The mean score of runs that count as one, one fold's models at a time."""

    runs: list[Sequence[np.ndarray]]
    """At least one, each of tables of scores (n, L), as in `predict_folds`."""

    def __len__(self) -> int:
        return max(len(run) for run in self.runs)

    def __getitem__(self, fold):
        return mean_of_tables([_table_of(run, fold) for run in self.runs])


def mean_of_tables(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Equal mean of tables of scores (n, L), float32; of one table, itself to the last bit."""
    return tables[0] if len(tables) == 1 else mix(tables, np.full(len(tables), 1 / len(tables)))


# The recipe of a submission: everything that turns the runs' test scores into the answer, as plain numbers.
#
# Test rows are predicted by every fold's models and the probabilities averaged. The mean of probabilities keeps each
# label's mean, so about as many rows pass a threshold tuned on single models' OOF rows as passed it there; the mean of
# log-odds would pull rare labels below it.


@dataclass(frozen=True)
class Recipe:
    """From the runs' test scores to probabilities and to the answer."""

    kind: str
    """`multilabel` or `multiclass`."""
    predictor: Formula
    rule: Rule
    priors: np.ndarray | None = None
    """float64 (L,): label rates of training, if they are re-estimated on the test rows."""
    shifted: tuple[int, ...] = ()
    """The labels whose rates are re-estimated."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Runs whose mean is one run for the predictor, in the order of its runs; empty: each is one by itself."""

    def used_runs(self, n_runs: int) -> list[int]:
        """The runs that the probabilities depend on, of the `n_runs` that the recipe was made of; rising."""
        if self.groups:
            used = used_runs(self.predictor, len(self.groups))
            return sorted(run for group in used for run in self.groups[group])
        return used_runs(self.predictor, n_runs)

    def of_used_runs(self, n_runs: int) -> "Recipe":
        """The recipe for the scores of `used_runs` alone; it gives the same answer."""
        kept = self.used_runs(n_runs)
        if not self.groups:
            return replace(self, predictor=keep_runs(self.predictor, kept))
        used = used_runs(self.predictor, len(self.groups))
        groups = tuple(tuple(kept.index(run) for run in self.groups[group]) for group in used)
        return replace(self, predictor=keep_runs(self.predictor, used), groups=groups)

    def grouped(self, test_folds: Sequence[Sequence[np.ndarray]]) -> list[Sequence[np.ndarray]]:
        """The runs as the predictor reads them: the mean of each group's tables, taken when it is asked for."""
        if not self.groups:
            return list(test_folds)
        return [MeanOfRuns([test_folds[run] for run in group]) for group in self.groups]

    def fold_probs(self, test_folds: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Each fold's probabilities of the test rows, float32 (K, n, L).

        Args: test_folds: as in `predict_folds`.
        """
        return predict_folds(self.predictor, self.grouped(test_folds))

    def answer(self, fold_probs: np.ndarray, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The mean probabilities float32 (n, L), and the decisions bool (n, L), or the same probs again.

        Args: allowed: as in `Scores`, of the same rows.
        """
        probs = self.mean_probs(fold_probs)
        answer = decide(self.rule, probs, allowed)
        return (answer if answer.dtype != bool else probs), answer

    def mean_probs(self, fold_probs: np.ndarray) -> np.ndarray:
        """The probabilities of the answer, float32 (n, L)."""
        probs = fold_probs.mean(axis=0)
        if self.priors is not None and self.shifted:
            probs = correct_shifted(probs, self.priors, self.shifted, self.kind)
        return probs

    def settled(self, fold_probs: np.ndarray) -> "Recipe":
        """The recipe with thresholds that no longer move: those for these test rows. It gives them the same answer.

        A new row's answer then hangs on nothing but its own text. Too few rows leave the recipe as it is: the hidden
        rows of a code competition settle it.
        """
        return replace(self, rule=settle(self.rule, self.mean_probs(fold_probs)))

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        record = {"kind": self.kind, "predictor": self.predictor.to_record(), "rule": self.rule.to_record()}
        if self.priors is not None:
            record |= {"priors": self.priors.tolist(), "shifted": list(self.shifted)}
        return record | ({"groups": [list(group) for group in self.groups]} if self.groups else {})


def recipe_from_record(record: dict) -> Recipe:
    """The recipe that `to_record` wrote, now or before version 0.2."""
    priors = np.array(record["priors"], np.float64) if "priors" in record else None
    return Recipe(
        record["kind"],
        predictor_from_record(record["predictor"]),
        rule_from_record(record["rule"]),
        priors,
        tuple(record.get("shifted", ())),
        tuple(tuple(group) for group in record.get("groups", ())),
    )
