"""The scoring room's choice: one strategy, by its cross-fitted score, and what the choice itself costs.

The best of many noisy scores is too good. So the choice is made once a part, on the other parts' rows, and the
headline is the score of the answers stitched together that way. A plainer strategy within half a standard error of the
best is taken instead of it, which keeps the choice stable, and a blend must beat the best single run.
"""

from dataclasses import dataclass

import numpy as np

from scoring.bootstrap import Additive, Buckets, make_additive, resample
from scoring.crossfit import CrossFit
from scoring.decoders import Task

TOLERANCE = 0.5
"""Standard errors of the paired difference that a plainer strategy may lie below the best."""
N_RESAMPLES = 400
"""Bootstrap resamples of the rows."""


@dataclass(frozen=True)
class Candidate:
    """One line of the score table."""

    name: str
    """Strategy or run, and its cut-offs."""
    is_single: bool
    """Whether it is one run by itself."""
    fits: list[CrossFit]
    """One a repeat of the cross-fitting."""
    additive: list[Additive]
    """The metric of each repeat's answer, as sums over buckets of rows."""

    @property
    def score(self) -> float:
        """Mean cross-fitted score of the repeats."""
        return float(np.mean([fit.score for fit in self.fits]))

    @property
    def in_sample(self) -> float:
        """The score of everything fitted and scored on the same rows."""
        return self.fits[0].in_sample


def make_candidate(task: Task, labels: np.ndarray, is_single: bool, fits: list[CrossFit], buckets: Buckets) -> Candidate:
    """One line of the table from its repeats."""
    additive = [make_additive(task, labels, fit.answer, buckets) for fit in fits]
    return Candidate(f"{fits[0].strategy} + {fits[0].cutoffs}", is_single, fits, additive)


def draw_scores(candidates: list[Candidate], among: np.ndarray, seed: int, share: float = 1.0) -> np.ndarray:
    """Paired bootstrap scores of every candidate, the mean of its repeats: float64 (B, C)."""
    n_repeats = len(candidates[0].fits)
    return sum(
        resample([candidate.additive[repeat] for candidate in candidates], among, share, N_RESAMPLES, seed)
        for repeat in range(n_repeats)
    ) / n_repeats  # fmt: skip


def choose(candidates: list[Candidate], among: np.ndarray, seed: int) -> int:
    """Position of the candidate to hand in, judged on some buckets of rows.

    Args: candidates: from the plainest to the most flexible, single runs among them.   among: bool (G,).
    """
    scores = np.array([np.mean([each.score(among) for each in candidate.additive]) for candidate in candidates])
    singles = np.array([candidate.is_single for candidate in candidates])
    best = int(np.argmax(scores))
    if singles[best]:
        return best
    drawn = draw_scores(candidates, among, seed)
    error = (drawn - drawn[:, [best]]).std(axis=0)
    best_single = scores[singles].max() if singles.any() else -np.inf
    near = (scores >= scores[best] - TOLERANCE * error) & ~singles & (scores > best_single)
    return int(np.flatnonzero(near)[0])


def stitch(candidates: list[Candidate], buckets: Buckets, seed: int) -> np.ndarray:
    """Answers (N, L) whose strategy was chosen, for each part, by the scores on the other parts alone."""
    answer = np.empty_like(candidates[0].fits[0].answer)
    for held in range(int(buckets.part.max()) + 1):
        rows = buckets.part == held
        answer[rows] = candidates[choose(candidates, buckets.parts != held, seed)].fits[0].answer[rows]
    return answer
