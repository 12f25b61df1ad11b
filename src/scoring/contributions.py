"""The scoring room's answer to `what is this run worth`: the blend refitted without it."""

from dataclasses import dataclass, replace

import numpy as np

from scoring.bootstrap import Buckets, make_additive, resample
from scoring.crossfit import cross_fit
from scoring.strategies import Given, fit_strategies

N_RESAMPLES = 1_000
"""Paired bootstrap resamples."""


@dataclass(frozen=True)
class Difference:
    """How much one answer scores above another on the same rows."""

    gain: float
    low: float
    high: float
    """The 90 % interval of the paired bootstrap."""


def compare(task, labels: np.ndarray, better: np.ndarray, worse: np.ndarray, buckets: Buckets) -> Difference:
    """Paired bootstrap of two answers (N, L): the first one's score minus the second one's."""
    pair = [make_additive(task, labels, answer, buckets) for answer in (better, worse)]
    everything = np.ones(len(buckets.starts), bool)
    drawn = resample(pair, everything, 1.0, N_RESAMPLES, buckets.seed)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.05, 0.95])
    return Difference(pair[0].score(everything) - pair[1].score(everything), float(low), float(high))


def measure_contributions(given: Given, strategy: str, cutoffs: str) -> list[Difference]:
    """What is lost, cross-fitted, when the strategy is refitted without each run in turn: M differences."""

    def answer(scores):
        without = replace(given, scores=scores)
        fitted = fit_strategies(without, [strategy])[strategy]
        return cross_fit(strategy, fitted, without, (cutoffs,))[0].answer

    whole, buckets = answer(given.scores), Buckets(given.partition.part, given.seed)
    return [
        compare(given.task, given.labels, whole, answer(given.scores.without(run)), buckets)
        for run in range(len(given.scores.runs))
    ]
