"""The mean of the runs' ranks, for metrics that read nothing but the order of the rows.

A run that is sure of itself outweighs the others in a mean of probabilities; in a mean of ranks it does not. A rank is
a share of the OOF rows below, so that new rows get theirs one by one. The mean rank is turned back into the probability
that the equal mean of the runs has at this rank, so that the answer has the rates of probabilities.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldblend.scoring.inputs import Partition, Scores
from foldblend.scoring.probs import sigmoid, to_probs

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
