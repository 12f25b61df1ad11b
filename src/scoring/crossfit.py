"""The scoring room's cross-fitting: a strategy is scored on rows on which nothing of it was fitted or chosen."""

from dataclasses import dataclass

import numpy as np

from scoring.decoders import Rule, decide, tune_rule
from scoring.strategies import Given


@dataclass(frozen=True)
class CrossFit:
    """One strategy with one way of placing cut-offs, cross-fitted over one partition."""

    strategy: str
    cutoffs: str
    answer: np.ndarray
    """bool (N, L) decisions, or float32 probs where the metric takes them, each row by what never saw it."""
    score: float
    """The metric of `answer`; more is better."""
    in_sample: float
    """The same with everything fitted and scored on all rows."""


def cross_fit(name: str, strategy, given: Given, cutoffs: tuple[str, ...]) -> list[CrossFit]:
    """Cross-fit one fitted strategy with each kind of cut-offs.

    For part k the cut-offs are tuned on the other parts, whose probabilities come from fits without k and without the
    part itself; part k's probabilities come from the fit without k.
    """
    task, labels, partition = given.task, given.labels, given.partition
    answers = {kind: np.empty(labels.shape, np.float32 if task.takes_probs else bool) for kind in cutoffs}
    for part, rows in enumerate(partition.rows):
        probs = strategy.predictor(part, partition.fit_without(part)).predict(given.scores, rows)
        inner, seen = (None, None) if task.takes_probs else predict_inner(strategy, given, part)
        for kind, answer in answers.items():
            answer[rows] = probs if inner is None else decide(tune_rule(task, kind, inner, labels[seen]), probs)
    whole = strategy.predictor(partition.n_parts, partition.fit_without()).predict(given.scores)
    return [
        CrossFit(
            name, kind, answer, task.score(labels, answer),
            task.score(labels, decide(tune_rule(task, kind, whole, labels), whole)),
        )
        for kind, answer in answers.items()
    ]  # fmt: skip


def predict_inner(strategy, given: Given, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, L) of all rows outside a part, each by a fit that saw neither, and those rows (n,)."""
    partition, tables, seen = given.partition, [], []
    for other in range(partition.n_parts):
        if other != part:
            predictor = strategy.predictor(part, partition.fit_without(part, other))
            tables.append(predictor.predict(given.scores, partition.rows[other]))
            seen.append(partition.rows[other])
    return np.concatenate(tables), np.concatenate(seen)


def predict_outer(strategy, given: Given) -> np.ndarray:
    """Probabilities (N, L), each row by the fit that left out its part."""
    outer = np.empty(given.labels.shape, np.float32)
    for part, rows in enumerate(given.partition.rows):
        predictor = strategy.predictor(part, given.partition.fit_without(part))
        outer[rows] = predictor.predict(given.scores, rows)
    return outer


def tune_final_rule(strategy, given: Given, cutoffs: str) -> Rule:
    """The decoder for new rows, tuned on the cross-fitted probabilities of all rows."""
    return tune_rule(given.task, cutoffs, predict_outer(strategy, given), given.labels)
