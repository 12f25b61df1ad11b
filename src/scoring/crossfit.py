"""The scoring room's cross-fitting: every score of a strategy is of rows on which nothing of it was fitted or chosen."""

from dataclasses import dataclass

import numpy as np

from scoring.decoders import Rule, Task, decide, tune_rule
from scoring.scores import Scores
from scoring.subsets import Partition


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
    rule: Rule
    """The decoder for new rows, tuned on the cross-fitted probabilities of all rows."""


def cross_fit(
    name: str, strategy, task: Task, scores: Scores, labels: np.ndarray, partition: Partition
) -> list[CrossFit]:
    """Cross-fit one fitted strategy with every kind of cut-offs of the task.

    For part k the cut-offs are tuned on the other parts, whose probabilities come from fits without k and without the
    part itself; part k's probabilities come from the fit without k.
    """
    n_parts = partition.n_parts
    outer = np.empty(labels.shape, np.float32)
    answers = {cutoffs: None if task.takes_probs else np.empty(labels.shape, bool) for cutoffs in task.cutoffs}
    for part, rows in enumerate(partition.rows):
        outer[rows] = strategy.predictor(part, partition.fit_without(part)).predict(scores, rows)
        if not task.takes_probs:
            _decide_part(part, rows, outer, answers, strategy, task, scores, labels, partition)
    whole = strategy.predictor(n_parts, partition.fit_without()).predict(scores)
    results = []
    for cutoffs, answer in answers.items():
        answer = outer if answer is None else answer
        in_sample = task.score(labels, decide(tune_rule(task, cutoffs, whole, labels), whole))
        rule = tune_rule(task, cutoffs, outer, labels)
        results.append(CrossFit(name, cutoffs, answer, task.score(labels, answer), in_sample, rule))
    return results


def _decide_part(part, rows, outer, answers, strategy, task, scores, labels, partition):
    """Tune on the other parts, decide this one."""
    seen = [other for other in range(partition.n_parts) if other != part]
    inner = np.concatenate(
        [
            strategy.predictor(part, partition.fit_without(part, other)).predict(scores, partition.rows[other])
            for other in seen
        ]
    )
    inner_labels = labels[np.concatenate([partition.rows[other] for other in seen])]
    for cutoffs, answer in answers.items():
        answer[rows] = decide(tune_rule(task, cutoffs, inner, inner_labels), outer[rows])
