"""The scoring room's choice: one strategy, by its cross-fitted score, and what the choice itself costs.

The best of many noisy scores is too good. So the choice is made once a part, on the other parts' rows, and the
headline is the score of the answers stitched together that way. One strategy is trusted beforehand, and another takes
its place only where its lead exceeds the lead's own standard error: few rows then choose what holds on few rows. A
blend that scores below the best single run is not handed in.
"""

from dataclasses import dataclass

import numpy as np

from scoring.bootstrap import Additive, Buckets, make_additive, resample
from scoring.crossfit import CrossFit
from scoring.decoders import Task

TRUSTED = "steady"
"""The strategy that needs no proof: a log-loss stack with as much of the equal mean as the rows are too few for it."""
SURENESS = 1.5
"""Standard errors of the paired difference by which another strategy must lead."""
N_RESAMPLES = 200
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

    def with_fit(self, task: Task, labels: np.ndarray, fit: CrossFit, buckets: Buckets) -> "Candidate":
        """The same line with one repeat more."""
        additive = make_additive(task, labels, fit.answer, buckets)
        return Candidate(self.name, self.is_single, [*self.fits, fit], [*self.additive, additive])

    @property
    def score(self) -> float:
        """Mean cross-fitted score of the repeats."""
        return float(np.mean([fit.score for fit in self.fits]))

    @property
    def in_sample(self) -> float:
        """The score of everything fitted and scored on the same rows."""
        return self.fits[0].in_sample


def draw_scores(candidates: list[Candidate], among: np.ndarray, seed: int) -> np.ndarray:
    """Paired bootstrap scores of every candidate, the mean of its repeats: float64 (B, C)."""
    drawn = resample([each for candidate in candidates for each in candidate.additive], among, 1.0, N_RESAMPLES, seed)
    edges = np.cumsum([len(candidate.additive) for candidate in candidates])[:-1]
    return np.stack([columns.mean(axis=1) for columns in np.split(drawn, edges, axis=1)], axis=1)


def choose(candidates: list[Candidate], among: np.ndarray, seed: int) -> int:
    """Position of the candidate to hand in, judged on some buckets of rows.

    Args: candidates: all lines of the table, the trusted strategy and single runs among them.   among: bool (G,).
    """
    scores = np.array([np.mean([each.score(among) for each in candidate.additive]) for candidate in candidates])
    singles = np.array([candidate.is_single for candidate in candidates])
    trusted = [position for position, each in enumerate(candidates) if each.fits[0].strategy == TRUSTED]
    if not trusted:
        return int(np.argmax(scores))
    drawn = draw_scores(candidates, among, seed)
    error = (drawn - drawn[:, trusted[:1]]).std(axis=0)
    lead = scores - scores[trusted[0]] - SURENESS * error
    chosen = int(np.argmax(lead)) if lead.max() > 0 else trusted[0]
    best_single = int(np.argmax(np.where(singles, scores, -np.inf)))
    return chosen if scores[chosen] >= scores[best_single] else best_single


def stitch(candidates: list[Candidate], buckets: Buckets, seed: int) -> list[np.ndarray]:
    """Answers (N, L) whose strategy was chosen, for each part, by the scores on the other parts alone; one a repeat."""
    parts = range(int(buckets.part.max()) + 1)
    chosen = [candidates[choose(candidates, buckets.parts != part, seed)] for part in parts]
    answers = []
    for repeat in range(min(len(candidate.fits) for candidate in chosen)):
        answer = np.empty_like(chosen[0].fits[0].answer)
        for part, candidate in enumerate(chosen):
            answer[buckets.part == part] = candidate.fits[repeat].answer[buckets.part == part]
        answers.append(answer)
    return answers
