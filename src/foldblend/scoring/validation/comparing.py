"""Which of several runs is better, and whether that is more than noise: runs alone, in pairs, and in a blend.

Every run is scored by itself: its thresholds for one part of the rows are tuned on its other parts. Two runs are
compared on the rows that both have predicted, tuned and resampled together, so what is easy or hard in these rows
cancels out.

Scores are on the scale that tasks compare: more is better.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldblend.scoring.ensembling.stacking import fit_logistic
from foldblend.scoring.ensembling.strategies import Given, Mixture, fit_single
from foldblend.scoring.inputs import MAX_FIT_ROWS, Partition, Runs, Scores, Task, score_known, split_into_parts
from foldblend.scoring.validation.bootstrap import Buckets, Difference, compare, make_additive, resample
from foldblend.scoring.validation.choice import cross_fit

BLEND_ROWS, BLEND_CELLS, FEWEST_BLEND_ROWS = 8_000, 150_000, 2_000
"""What a run adds is measured on so many rows; on fewer, if rows x labels are more than these cells."""
PENALTY = 1e-3
"""On the squared weights of runs: only against two runs that are alike."""
N_RESAMPLES = 1_000


@dataclass(frozen=True)
class Predicted:
    """What one run predicted: all rows, or those of the folds that are trained."""

    name: str
    rows: np.ndarray
    """int64 (n,), rising."""
    scores: np.ndarray
    """float32 (n, L), of `Task.to_scores`."""


@dataclass(frozen=True)
class RunScore:
    """One run by itself."""

    score: float
    """Cross-fitted."""
    error: float
    """Standard deviation of `score` over resamples of the rows."""
    spread: float | None
    """Standard deviation over the trained folds, each scored alone; None if there is one."""


class Comparer:
    """Scores and compares runs; a run's answer on the same rows is tuned once.

    Args: rows: of `rows_to_score`, N rows.
          known: bool (N, L), False for a label that nobody knows; None if all are known.
    """

    def __init__(self, task: Task, rows: Runs, known: np.ndarray | None = None, seed: int = 0):
        self.task, self.rows, self.known, self.seed = task, rows, known, seed
        self._answers: dict[tuple[str, bytes], tuple[Runs, np.ndarray]] = {}

    def score(self, run: Predicted) -> RunScore:
        """The cross-fitted score of one run on the rows that it predicted."""
        runs, answer = self._answer(run, run.rows)
        task, labels, buckets = runs.of(self.task), runs.labels, self._buckets(runs)
        drawn = resample([make_additive(task, labels, answer, buckets)], buckets.everything, 1, N_RESAMPLES, self.seed)
        n_folds = len(np.unique(self.rows.fold[run.rows]))
        pieces = (runs.fold.max() + 1) // n_folds or 1  # one or two folds are tuned on in pieces
        folds = [runs.fold // pieces == fold for fold in range(n_folds)]
        alone = [task.at(fold).score(labels[fold], answer[fold]) for fold in folds if fold.any()]
        spread = float(np.std(alone, ddof=1)) if len(alone) > 1 else None
        return RunScore(task.score(labels, answer), float(drawn.std()), spread)

    def compare(self, first: Predicted, second: Predicted) -> Difference | None:
        """How much the second run scores above the first on the rows that both predicted; None if there are none."""
        common = np.intersect1d(first.rows, second.rows, assume_unique=True)
        if not len(common):
            return None
        (runs, worse), (_, better) = (self._answer(run, common) for run in (first, second))
        return compare(runs.of(self.task), runs.labels, better, worse, self._buckets(runs))

    def measure_additions(self, whole: Sequence[Predicted]) -> dict[str, Difference]:
        """What each run adds to the blend of all others, cross-fitted; nothing for fewer than two runs.

        Args: whole: runs that predicted all rows.
        """
        if len(whole) < 2:
            return {}
        n_rows = min(BLEND_ROWS, max(BLEND_CELLS // self.rows.labels.shape[1], FEWEST_BLEND_ROWS))
        runs = self._gather(whole, np.arange(len(self.rows.labels))).sample(n_rows, self.seed)
        task, together, buckets = runs.of(self.task), self._blend(runs, runs.scores), self._buckets(runs)
        without = (self._blend(runs, runs.scores.without(position)) for position in range(len(whole)))
        return {
            run.name: compare(task, runs.labels, together, answer, buckets)
            for run, answer in zip(whole, without, strict=True)
        }

    def blend(self, whole: Sequence[Predicted], name: str) -> Predicted:
        """The blend of runs with one weight each: a row's weights are fitted without its part.

        Args: whole: runs that predicted all rows.
        """
        part = split_into_parts(np.unique(self.rows.fold, return_inverse=True)[1], self.rows.group)
        n_parts, everything = int(part.max()) + 1, np.arange(len(part))
        tables = Scores([run.scores for run in whole], self.rows.scores.allowed)
        runs = replace(self.rows, names=tuple(run.name for run in whole), scores=tables, fold=part)
        sure = everything if self.known is None else np.flatnonzero(self.known.all(axis=1))
        some = runs.at(sure).sample(max(BLEND_CELLS // runs.labels.shape[1], FEWEST_BLEND_ROWS), self.seed)
        if len(np.unique(some.fold)) < n_parts:  # a sample without a part has no weights for it
            some = runs
        weights = fit_weights(some.scores, some.labels, Partition(some.fold)).astype(np.float32)  # (P + 1, M)
        scores = np.zeros(self.rows.labels.shape, np.float32)
        for number, run in enumerate(whole):
            scores += weights[part, number][:, None] * run.scores
        return Predicted(name, everything, scores)

    def _buckets(self, runs: Runs) -> Buckets:
        return Buckets(runs.fold, self.seed, runs.group)

    def _gather(self, predicted: Sequence[Predicted], common: np.ndarray) -> Runs:
        """Runs side by side on common rows, split into parts to tune on; a sample of them if there are very many."""
        rows = self.rows.at(common)
        tables = [run.scores[np.searchsorted(run.rows, common)] for run in predicted]
        runs = replace(
            rows,
            names=tuple(run.name for run in predicted),
            scores=Scores(tables, rows.scores.allowed),
            fold=split_into_parts(np.unique(rows.fold, return_inverse=True)[1], rows.group),
        )
        if self.known is not None:
            runs = score_known(runs, self.known[common], self.task)
        return runs.sample(MAX_FIT_ROWS, self.seed)

    def _answer(self, run: Predicted, common: np.ndarray) -> tuple[Runs, np.ndarray]:
        """The run on some rows, and its cross-fitted answer (n, L) by the task's first way of tuning."""
        key = run.name, common.tobytes()
        if key not in self._answers:
            runs = self._gather([run], common)
            given = self._given(runs, runs.scores)
            self._answers[key] = runs, self._cross_fit(given, fit_single(given, 0))
        return self._answers[key]

    def _blend(self, runs: Runs, scores: Scores) -> np.ndarray:
        """The cross-fitted answer (n, L) of runs with one weight each."""
        given = self._given(runs, scores)
        weights = fit_weights(scores, runs.labels, given.partition)
        return self._cross_fit(given, Mixture(weights, "scores", self.task.kind))

    def _given(self, runs: Runs, scores: Scores) -> Given:
        return Given(runs.of(self.task), scores, runs.labels, Partition(runs.fold), self.seed)

    def _cross_fit(self, given: Given, strategy: Mixture) -> np.ndarray:
        return cross_fit("compared", strategy, given, self.task.tunings[:1])[0].answer


def fit_weights(scores: Scores, labels: np.ndarray, partition: Partition) -> np.ndarray:
    """One weight per run for all labels, by log loss: float64 (P + 1, M), without each part and on all rows.

    One logistic regression over all rows and labels at once, whose only features are the runs' scores. The constant
    is shared, too: each label gets its threshold afterwards.
    """
    n_labels, n_runs = labels.shape[1], len(scores.runs)
    columns = [run[partition.order].reshape(-1) for run in scores.runs]  # (n L,) each, rows by part
    features = np.column_stack([*columns, np.ones(labels.size, np.float32)])
    parts = [slice(rows.start * n_labels, rows.stop * n_labels) for rows in partition.slices]
    subsets = ~np.eye(partition.n_parts, dtype=bool)
    subsets = np.r_[subsets, np.ones((1, partition.n_parts), bool)]
    penalty = np.full(n_runs + 1, PENALTY)
    coefs = fit_logistic(features, labels[partition.order].reshape(-1), parts, subsets, np.zeros(n_runs + 1), penalty)
    return coefs[:n_runs].T


# ---------- Two settings, each trained with several seeds.


NORMAL_90 = 1.645
"""Half of a 90 % interval in standard errors."""


@dataclass(frozen=True)
class SeededGain:
    """How much one setting scores above another, over seeds, on the same rows."""

    gain: float
    """Mean over the seeds."""
    error: float
    """Standard error of `gain`: that other rows, and other seeds, had been drawn."""
    gains: tuple[float, ...]
    """Of each seed."""

    @property
    def exceeds_error(self) -> bool:
        return self.gain > self.error

    @property
    def is_more_than_noise(self) -> bool:
        """Whether the 90 % interval leaves out 0."""
        return self.gain > NORMAL_90 * self.error


def compare_over_seeds(comparer: Comparer, pairs: Sequence[tuple[Predicted, Predicted]]) -> SeededGain:
    """The second setting's score minus the first's, from one pair of runs per seed.

    All seeds share the rows, so the error that comes of the rows does not shrink with the number of seeds; that of the
    seeds does. One pair alone says nothing of the seeds' part.
    """
    found = [comparer.compare(*pair) for pair in pairs]
    assert all(found), "the two runs of a pair predicted different rows"
    gains = np.array([each.gain for each in found if each])
    of_rows = np.mean([(each.high - each.low) / (2 * NORMAL_90) for each in found if each])
    of_seeds = gains.var(ddof=1) / len(gains) if len(gains) > 1 else 0.0
    return SeededGain(float(gains.mean()), float(np.sqrt(of_rows**2 + of_seeds)), tuple(gains.tolist()))
