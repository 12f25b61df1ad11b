"""The scoring room's table of runs: their scores of the same rows, and what a regression sees of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scoring.probs import sigmoid

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
