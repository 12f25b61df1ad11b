"""The scoring room's choice: one strategy, by its cross-fitted score, and what the choice itself costs.

The best of many noisy scores is too good. So the choice is made once a part, on the other parts' rows, and the
headline is the score of the answers stitched together that way. One strategy is trusted beforehand, and another takes
its place only where its lead exceeds the lead's own standard error: few rows then choose what holds on few rows. A
blend that scores below the best single run is not handed in.
"""

from dataclasses import dataclass, replace

import numpy as np

from foldblend.scoring.ensembling.strategies import Given, fit_strategies
from foldblend.scoring.thresholds.rules import Rule, Task, decide, tune_rule
from foldblend.scoring.validation.bootstrap import Additive, Buckets, make_additive, resample
from foldblend.scoring.validation.crossfit import CrossFit, cross_fit

# ---------- choice: one strategy, by its cross-fitted score, and what the choice itself costs.


TRUSTED = "steady"
"""The strategy that needs no proof: a log-loss stack with as much of the equal mean as the rows are too few for it."""
SURENESS = 1.5
"""Standard errors of the paired difference by which another strategy must lead."""
N_CHOICE_RESAMPLES = 200
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
    drawn = resample(
        [each for candidate in candidates for each in candidate.additive], among, 1.0, N_CHOICE_RESAMPLES, seed
    )
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


# ---------- row rules: how many labels a row may have, taken only where cross-fitting says they help.


N_ROW_RULE_RESAMPLES = 400
"""Paired bootstrap resamples."""


def offer_row_rules(labels: np.ndarray) -> dict[str, dict]:
    """Row rules worth trying, as fields of `Rule` by name: what the labels' own habits suggest."""
    per_row = labels.sum(axis=1)
    offered = {"at least one label": {"at_least_one": True}}
    for most in sorted({int(np.quantile(per_row, share, method="higher")) for share in (0.95, 0.99)} - {0}):
        offered[f"at most {most} labels"] = {"at_most": most}
        offered[f"one to {most} labels"] = {"at_least_one": True, "at_most": most}
    alone = (labels & (per_row == 1)[:, None]).sum(axis=0) / np.maximum(labels.sum(axis=0), 1)
    label = int(np.argmax(alone * (labels.mean(axis=0) > 0.02)))
    offered[f"label {label} stands alone"] = {"exclusive": label}
    offered[f"label {label} stands alone, at least one label"] = {"exclusive": label, "at_least_one": True}
    return offered


def choose_row_rule(
    task: Task, cutoffs: str, probs: np.ndarray, labels: np.ndarray, part: np.ndarray, seed: int
) -> tuple[dict, str, np.ndarray | None]:
    """The row rule whose lead over none is beyond luck: the lower end of the paired 90 % interval is above 0.

    Args:    probs: float32 (N, L), cross-fitted.   part: int64 (N,): cut-offs for a part are tuned on the others.
    Returns: fields of `Rule` (none where none helps), the rule in words, and the answers (N, L) in which each part's
             row rule was chosen on the other parts; None where none is taken.
    """
    if task.takes_probs or task.kind == "multiclass":
        return {}, "", None
    offered, buckets = {"": {}, **offer_row_rules(labels)}, Buckets(part, seed)
    rules = [tune_rule(task, cutoffs, probs[part != held], labels[part != held]) for held in range(part.max() + 1)]
    answers = {name: _decide_parts(rules, fields, probs, part) for name, fields in offered.items()}
    additive = {name: make_additive(task, labels, answer, buckets) for name, answer in answers.items()}
    picked = _pick(additive, np.ones(len(buckets.starts), bool), seed)
    if not picked:
        return {}, "", None
    honest = answers[""].copy()
    for held in range(part.max() + 1):
        rows = part == held
        honest[rows] = answers[_pick(additive, buckets.parts != held, seed)][rows]
    return offered[picked], picked, honest


def _decide_parts(rules: list[Rule], fields: dict, probs: np.ndarray, part: np.ndarray) -> np.ndarray:
    answer = np.empty(probs.shape, bool)
    for held, rule in enumerate(rules):
        answer[part == held] = decide(replace(rule, **fields), probs[part == held])
    return answer


def _pick(additive: dict[str, Additive], among: np.ndarray, seed: int) -> str:
    """The name of the best rule that beats none on some buckets of rows; empty where none does."""
    drawn = resample(list(additive.values()), among, 1.0, N_ROW_RULE_RESAMPLES, seed)
    lead = drawn - drawn[:, [0]]
    sure = np.quantile(lead, 0.05, axis=0) > 0
    return list(additive)[int(np.argmax(np.where(sure, lead.mean(axis=0), 0.0)))]


# ---------- answer to `what is this run worth`: the blend refitted without it.


N_CONTRIBUTION_RESAMPLES = 1_000
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
    drawn = resample(pair, everything, 1.0, N_CONTRIBUTION_RESAMPLES, buckets.seed)
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
