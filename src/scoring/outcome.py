"""The scoring room's account of a blend: what to expect of it, against what, from which runs, on which test rows."""

from dataclasses import dataclass

import numpy as np

from scoring.blending import Blend
from scoring.bootstrap import Additive, Buckets, make_additive
from scoring.contributions import Difference, compare, measure_contributions
from scoring.decoders import Task
from scoring.expected import Forecast, forecast, gain_of_averaging, soften
from scoring.parallel import single_threaded_products
from scoring.shift import compare_means, find_shifted
from scoring.strategies import Given
from scoring.subsets import Partition

CONTRIBUTION_ROWS = 8_000
"""Rows on which the blend is refitted without each run."""


@dataclass(frozen=True)
class Outcome:
    """What is printed and stored beside the table of candidates; scores as the task compares them, more is better."""

    headline: float
    """Cross-fitted score of the whole procedure, its choice included."""
    one_fold: Forecast
    """Of one fold's models on the test rows."""
    gain: float
    """What averaging the fold models should add."""
    best_single: str
    lead: Difference
    """Of the headline's answers over the best single run's."""
    contributions: dict[str, Difference]
    """What is lost without each run; empty where a single run is handed in."""
    shift: np.ndarray
    """float64 (L,): p-values of no label shift."""
    shifted: np.ndarray
    """int64: labels whose shift is beyond chance and large enough to matter."""


@single_threaded_products()
def describe_blend(task: Task, blend: Blend, fold_probs: np.ndarray, seed: int) -> Outcome:
    """Everything about a blend that takes its test predictions to know.

    Args: fold_probs: float32 (K, n, L), the test rows by each fold's models.
    """
    labels, buckets = blend.fitted.labels, Buckets(blend.fitted.fold, seed)
    honest = [make_additive(task, labels, answer, buckets) for answer in blend.honest]
    singles = [candidate for candidate in blend.candidates if candidate.is_single]
    best = max(singles, key=lambda candidate: candidate.score)
    shift = compare_means(blend.oof_probs, fold_probs)
    return Outcome(
        float(np.mean([task.score(labels, answer) for answer in blend.honest])),
        forecast(honest, soften_answers(task, blend, buckets), len(labels), fold_probs.shape[1], seed),
        gain_of_averaging(task, blend.rule, fold_probs, seed),
        best.name,
        compare(task, labels, blend.honest[0], best.fits[0].answer, buckets),
        _contributions(task, blend, seed),
        shift,
        find_shifted(shift, blend.oof_probs, fold_probs),
    )


def soften_answers(task: Task, blend: Blend, buckets: Buckets) -> list[Additive]:
    """The metric of the answers that say where the score lies, against softened labels for macro-F1.

    The stitched answers are a little worse than the truth: what is lucky on the other parts is unlucky on this one. The
    chosen strategy's own are a little better, for it was chosen by them. Half of each.
    """
    labels, answers = blend.fitted.labels, blend.honest
    if not blend.row_rule:
        answers = [*answers, *(fit.answer for fit in blend.candidates[blend.chosen].fits[: len(answers)])]
    truth = soften(labels, blend.fitted_probs) if task.metric == "macro_f1" else labels
    return [make_additive(task, truth, answer, buckets) for answer in answers]


def _contributions(task: Task, blend: Blend, seed: int) -> dict[str, Difference]:
    chosen = blend.candidates[blend.chosen]
    if chosen.is_single:
        return {}
    few = blend.fitted.sample(CONTRIBUTION_ROWS, seed)
    given = Given(task, few.scores, few.labels, Partition(few.fold), seed)
    fit = chosen.fits[0]
    return dict(zip(few.names, measure_contributions(given, fit.strategy, fit.cutoffs), strict=True))
