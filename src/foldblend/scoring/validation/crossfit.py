"""Cross-fitting: a strategy is scored on rows on which nothing of it was fitted or chosen."""

from dataclasses import dataclass, replace

import numpy as np

from foldblend.scoring.ensembling.strategies import Given, Strategy
from foldblend.scoring.thresholds.rules import Rule, decide, tune_rule


@dataclass(frozen=True)
class CrossFit:
    """One strategy with one way of tuning thresholds, cross-fitted over one partition."""

    strategy: str
    tuning: str
    """One of `Task.tunings`."""
    stored: np.ndarray
    """The answer, decisions as bits: a table of candidates holds dozens of them."""
    shape: tuple[int, int]
    score: float
    """The metric of `answer`; more is better."""
    in_sample: float
    """The same with everything fitted and scored on all rows."""
    rules: tuple[Rule, ...] = ()
    """For each part, the thresholds that were tuned on the others."""

    @property
    def answer(self) -> np.ndarray:
        """bool (N, L) decisions, or float32 probs if the metric takes them, each row by what never saw it."""
        return unpack_answer(self.stored, self.shape)


def pack_answer(answer: np.ndarray) -> np.ndarray:
    """Decisions as bits, probabilities as they are."""
    return np.packbits(answer) if answer.dtype == bool else answer


def unpack_answer(stored: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The answer (N, L) that `pack_answer` stored."""
    if stored.dtype != np.uint8:
        return stored
    return np.unpackbits(stored, count=shape[0] * shape[1]).reshape(shape).view(bool)


def cross_fit(name: str, strategy: Strategy, given: Given, tunings: tuple[str, ...]) -> list[CrossFit]:
    """Cross-fit one fitted strategy with each way of tuning thresholds.

    For part k the thresholds are tuned on the other parts, whose probabilities come from fits without k and without
    the part itself; part k's probabilities come from the fit without k.
    """
    task, labels, partition = given.task, given.labels, given.partition
    answers = {tuning: np.empty(labels.shape, np.float32 if task.takes_probs else bool) for tuning in tunings}
    rules: dict[str, list[Rule]] = {tuning: [] for tuning in tunings}
    for part, probs in enumerate(strategy.predict_parts(given.scores, partition)):
        held = partition.part == part
        seen = None if task.takes_probs else (probs[~held], labels[~held])
        for tuning, answer in answers.items():
            rules[tuning].append(tune_rule(task, tuning, *seen) if seen else Rule())
            answer[held] = decide(rules[tuning][-1], probs[held])
    whole = strategy.predictor(partition.n_parts, partition.fit_without()).predict(given.scores)
    return [
        CrossFit(
            name, tuning, pack_answer(answer), labels.shape, task.score(labels, answer),
            task.score(labels, decide(tune_rule(task, tuning, whole, labels), whole)), tuple(rules[tuning]),
        )
        for tuning, answer in answers.items()
    ]  # fmt: skip


def cross_fit_row_rules(
    fit: CrossFit, outer: np.ndarray, part: np.ndarray, row_rules: dict[str, dict]
) -> dict[str, np.ndarray]:
    """The answers of a cross-fit with each of several row rules added: bool (N, L) by the name of the rule.

    Args: outer: float32 (N, L), `predict_outer` of the same strategy.   part: int64 (N,), of the same partition.
          row_rules: fields of `Rule` by name, as `offer_row_rules` gives them.
    """
    answers = {name: np.empty(outer.shape, bool) if fields else fit.answer for name, fields in row_rules.items()}
    for number, rule in enumerate(fit.rules):
        held = part == number
        for name, fields in row_rules.items():
            if fields:
                answers[name][held] = decide(replace(rule, **fields), outer[held])
    return answers


def predict_outer(strategy: Strategy, given: Given) -> np.ndarray:
    """Probabilities float32 (N, L), each row by the fit that left out its part."""
    outer = np.empty(given.labels.shape, np.float32)
    for part, rows in enumerate(given.partition.rows):
        predictor = strategy.predictor(part, given.partition.fit_without(part))
        outer[rows] = predictor.predict(given.scores, rows)
    return outer
