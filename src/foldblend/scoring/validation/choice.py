"""The choice of one strategy by its cross-fitted score, and of a row rule; and what the choice itself costs.

The best of many noisy scores is too good. So the choice is also made once per part, on the other parts' rows, and the
honest score is that of the answers put together this way. One strategy is trusted beforehand, and another takes its
place only if its lead exceeds the lead's own standard error: what few rows choose holds on few rows. A blend that
scores below the best single run is not chosen.
"""

from dataclasses import dataclass, replace

import numpy as np

from foldblend.scoring.ensembling.strategies import TRUSTED, Given, Strategy
from foldblend.scoring.inputs import Task
from foldblend.scoring.thresholds.rules import Rule, decide, tune_rule
from foldblend.scoring.validation.bootstrap import Additive, Buckets, make_additive, resample

# Cross-fitting: a strategy is scored on rows on which nothing of it was fitted or chosen.


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


# ---------- Candidates


N_CHOICE_RESAMPLES = 200
"""Bootstrap resamples of the rows."""


@dataclass(frozen=True)
class Candidate:
    """One line of the score table: a run or a strategy, with one way of tuning thresholds."""

    is_single: bool
    """Whether it is one run by itself."""
    fits: list[CrossFit]
    """One per repeat of the cross-fitting."""
    additive: list[Additive]
    """The metric of each repeat's answer, as sums over buckets of rows."""

    @property
    def strategy(self) -> str:
        """The name of the run or strategy."""
        return self.fits[0].strategy

    @property
    def tuning(self) -> str:
        """One of `Task.tunings`."""
        return self.fits[0].tuning

    @property
    def name(self) -> str:
        """What `--strategy` and records call it, for example `shrunk_stack + robust`."""
        return f"{self.strategy} + {self.tuning}"

    @property
    def score(self) -> float:
        """Mean cross-fitted score of the repeats."""
        return float(np.mean([fit.score for fit in self.fits]))

    @property
    def in_sample(self) -> float:
        """The score of everything fitted and scored on the same rows."""
        return self.fits[0].in_sample

    def with_fit(self, task: Task, labels: np.ndarray, fit: CrossFit, buckets: Buckets) -> "Candidate":
        """The same line with one repeat more."""
        additive = make_additive(task, labels, fit.answer, buckets)
        return Candidate(self.is_single, [*self.fits, fit], [*self.additive, additive])


def draw_scores(candidates: list[Candidate], among: np.ndarray, seed: int) -> np.ndarray:
    """Paired bootstrap scores of every candidate, the mean of its repeats: float64 (B, C).

    Args: among: bool (G,), the buckets of rows to draw from.
    """
    additive = [each for candidate in candidates for each in candidate.additive]
    drawn = resample(additive, among, 1.0, N_CHOICE_RESAMPLES, seed)
    edges = np.cumsum([len(candidate.additive) for candidate in candidates])[:-1]
    return np.stack([columns.mean(axis=1) for columns in np.split(drawn, edges, axis=1)], axis=1)


# ---------- The choice


SURENESS = 1.5
"""Standard errors of the paired difference by which another strategy must lead the trusted one."""


def choose(candidates: list[Candidate], among: np.ndarray, seed: int) -> int:
    """Position of the best candidate, judged on some buckets of rows.

    Args: candidates: all lines of the table, the trusted strategy and single runs among them.   among: bool (G,).
    """
    scores = np.array([np.mean([each.score(among) for each in candidate.additive]) for candidate in candidates])
    singles = np.array([candidate.is_single for candidate in candidates])
    trusted = [position for position, each in enumerate(candidates) if each.strategy == TRUSTED]
    if not trusted:  # one run alone
        return int(np.argmax(scores))
    drawn = draw_scores(candidates, among, seed)
    error = (drawn - drawn[:, trusted[:1]]).std(axis=0)  # of each candidate's lead over the trusted one
    lead = scores - scores[trusted[0]] - SURENESS * error
    chosen = int(np.argmax(lead)) if lead.max() > 0 else trusted[0]
    best_single = int(np.argmax(np.where(singles, scores, -np.inf)))
    return chosen if scores[chosen] >= scores[best_single] else best_single


def choose_without_parts(candidates: list[Candidate], buckets: Buckets, seed: int) -> list[int]:
    """For each part, the candidate that the other parts' rows alone would choose: P positions."""
    n_parts = int(buckets.part.max()) + 1
    return [choose(candidates, buckets.parts != part, seed) for part in range(n_parts)]


def stitch(answers: list[np.ndarray], part: np.ndarray) -> np.ndarray:
    """The rows of part k from answer k: one answer (N, L) out of P.

    Example: stitch([zeros, ones], part=[0, 1, 0]) -> rows 0, 1, 0.
    """
    stitched = np.empty_like(answers[0])
    for number, answer in enumerate(answers):
        stitched[part == number] = answer[part == number]
    return stitched


# ---------- Row rules: how many labels a row may have, taken only if cross-fitting says that they help


N_ROW_RULE_RESAMPLES = 400
"""Paired bootstrap resamples."""


def offer_row_rules(labels: np.ndarray) -> dict[str, dict]:
    """Row rules worth trying, as fields of `Rule` by name, suggested by the labels; the first is none at all."""
    per_row = labels.sum(axis=1)
    offered: dict[str, dict] = {"": {}, "at least one label": {"at_least_one": True}}
    for most in sorted({int(np.quantile(per_row, share, method="higher")) for share in (0.95, 0.99)} - {0}):
        offered[f"at most {most} labels"] = {"at_most": most}
        offered[f"one to {most} labels"] = {"at_least_one": True, "at_most": most}
    # the label that most often comes alone, of those in more than one row of fifty
    alone = (labels & (per_row == 1)[:, None]).sum(axis=0) / np.maximum(labels.sum(axis=0), 1)
    label = int(np.argmax(alone * (labels.mean(axis=0) > 0.02)))
    offered[f"label {label} only alone"] = {"exclusive": label}
    offered[f"label {label} only alone, at least one label"] = {"exclusive": label, "at_least_one": True}
    return offered


def pick_row_rule(additive: dict[str, Additive], among: np.ndarray, seed: int) -> str:
    """The name of the row rule that leads most over none; empty if no lead is more than luck.

    More than luck: the lower end of the paired 90 % interval is above 0.

    Args: additive: the metric of the answers by the rule's name, none (an empty name) first.   among: bool (G,).
    """
    drawn = resample(list(additive.values()), among, 1.0, N_ROW_RULE_RESAMPLES, seed)
    lead = drawn - drawn[:, [0]]
    sure = np.quantile(lead, 0.05, axis=0) > 0
    return list(additive)[int(np.argmax(np.where(sure, lead.mean(axis=0), 0.0)))]
