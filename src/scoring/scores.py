"""The scoring room's table of runs: their scores of the same rows, and what a regression sees of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


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

    def features(self, label: int, rows, wide: bool) -> np.ndarray:
        """What a label's regression sees of some rows, float32 (n, F): each run's score, 1, and if wide the rest.

        The wide part: squares of the scores (runs bend differently), the other labels' mean scores.
        """
        own = np.stack([run[rows, label] for run in self.runs], axis=1)
        parts = [own, np.ones((len(own), 1), np.float32)]
        if wide:
            parts += [own**2 / np.float32(10), np.delete(self.mean[rows], label, axis=1)]
        return np.concatenate(parts, axis=1)

    def without(self, run: int) -> "Scores":
        """The same rows without one run."""
        return Scores([other for number, other in enumerate(self.runs) if number != run])
