"""The scoring room's cross-fitting: a strategy is scored on rows on which nothing of it was fitted or chosen."""

from dataclasses import dataclass

import numpy as np

from foldblend.scoring.ensembling.strategies import Given
from foldblend.scoring.thresholds.rules import Rule, decide, tune_rule


@dataclass(frozen=True)
class CrossFit:
    """One strategy with one way of placing cut-offs, cross-fitted over one partition."""

    strategy: str
    cutoffs: str
    stored: np.ndarray
    """The answer, decisions as bits: a table of candidates holds dozens of them."""
    shape: tuple[int, int]
    score: float
    """The metric of `answer`; more is better."""
    in_sample: float
    """The same with everything fitted and scored on all rows."""

    @property
    def answer(self) -> np.ndarray:
        """bool (N, L) decisions, or float32 probs where the metric takes them, each row by what never saw it."""
        if self.stored.dtype != np.uint8:
            return self.stored
        return np.unpackbits(self.stored, count=self.shape[0] * self.shape[1]).reshape(self.shape).view(bool)


def pack_answer(answer: np.ndarray) -> np.ndarray:
    """Decisions as bits, probabilities as they are."""
    return np.packbits(answer) if answer.dtype == bool else answer


def cross_fit(name: str, strategy, given: Given, cutoffs: tuple[str, ...]) -> list[CrossFit]:
    """Cross-fit one fitted strategy with each kind of cut-offs.

    For part k the cut-offs are tuned on the other parts, whose probabilities come from fits without k and without the
    part itself; part k's probabilities come from the fit without k.
    """
    task, labels, partition = given.task, given.labels, given.partition
    answers = {kind: np.empty(labels.shape, np.float32 if task.takes_probs else bool) for kind in cutoffs}
    for part, probs in enumerate(strategy.predict_contexts(given.scores, partition)):
        held = partition.part == part
        seen = None if task.takes_probs else (probs[~held], labels[~held])
        for kind, answer in answers.items():
            answer[held] = decide(tune_rule(task, kind, *seen) if seen else Rule(), probs[held])
    whole = strategy.predictor(partition.n_parts, partition.fit_without()).predict(given.scores)
    return [
        CrossFit(
            name, kind, pack_answer(answer), answer.shape, task.score(labels, answer),
            task.score(labels, decide(tune_rule(task, kind, whole, labels), whole)),
        )
        for kind, answer in answers.items()
    ]  # fmt: skip


def predict_outer(strategy, given: Given) -> np.ndarray:
    """Probabilities (N, L), each row by the fit that left out its part."""
    outer = np.empty(given.labels.shape, np.float32)
    for part, rows in enumerate(given.partition.rows):
        predictor = strategy.predictor(part, given.partition.fit_without(part))
        outer[rows] = predictor.predict(given.scores, rows)
    return outer
