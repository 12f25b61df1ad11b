"""The choice of one strategy by its cross-fitted score, and of a row rule; and what the choice itself costs.

The best of many noisy scores is too good. So one strategy is trusted beforehand, and one rule decides about everything
that would replace it, be it another strategy, a single run, or a row rule on top: its lead must be larger than luck
makes the largest of all these leads in nine cases of ten. And the choice is also made once without each part, by
scores in which the part's labels had no share: the honest score is that of the answers put together this way.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from foldblend.scoring.ensembling.strategies import Given, Strategy
from foldblend.scoring.inputs import Partition, Task
from foldblend.scoring.thresholds.rules import Rule, decide, tune_rule
from foldblend.scoring.validation.bootstrap import Buckets, make_additive

# ---------- Scores that are compared


@dataclass(frozen=True)
class Measured:
    """A score, and how far each bucket of rows moves it."""

    score: float
    """More is better."""
    moves: np.ndarray
    """float64 (G,), as `Additive.moves`: squares sum to the score's variance."""


def measure(task: Task, labels: np.ndarray, answer: np.ndarray, buckets: Buckets) -> Measured:
    """The metric of an answer (N, L) and its moves."""
    additive = make_additive(task, labels, answer, buckets)
    return Measured(additive.score(buckets.everything), additive.moves(buckets.everything))


def mean_measured(repeats: Iterable[Measured]) -> Measured:
    """The mean of several on the same buckets."""
    scores, moves = zip(*((each.score, each.moves) for each in repeats), strict=True)
    return Measured(float(np.mean(scores)), np.mean(moves, axis=0))


# ---------- Cross-fitting: a strategy is scored on rows on which nothing of it was fitted or chosen


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
    without: tuple[Measured, ...] = ()
    """For each part, the score on the other parts' rows by what never saw the part; its thresholds are tuned on these
    rows, so it is a little too good."""

    @property
    def answer(self) -> np.ndarray:
        """bool (N, L) decisions, or float32 probs if the metric takes them, each row by what never saw it."""
        return unpack_answer(self.stored, self.shape)


def pack_answer(answer: np.ndarray) -> np.ndarray:
    """Decisions as bits, probabilities as they are."""
    # eight decisions in a byte
    return np.packbits(answer) if answer.dtype == bool else answer


def unpack_answer(stored: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The answer (N, L) that `pack_answer` stored."""
    if stored.dtype != np.uint8:
        return stored
    return np.unpackbits(stored, count=shape[0] * shape[1]).reshape(shape).view(bool)


def cross_fit(
    name: str, strategy: Strategy, given: Given, tunings: tuple[str, ...], rest: list[Buckets] | None = None
) -> list[CrossFit]:
    """Cross-fit one fitted strategy with each way of tuning thresholds.

    For part k the thresholds are tuned on the other parts, whose probabilities come from fits without k and without
    the part itself; part k's probabilities come from the fit without k.

    Args: rest: `buckets_without_parts`, if the choice without each part is to be made.
    """
    task, labels, partition = given.task, given.labels, given.partition
    answers = {tuning: np.empty(labels.shape, np.float32 if task.takes_probs else bool) for tuning in tunings}
    rules: dict[str, list[Rule]] = {tuning: [] for tuning in tunings}
    without: dict[str, list[Measured]] = {tuning: [] for tuning in tunings}
    for part, probs in enumerate(strategy.predict_parts(given.scores, partition)):
        held = partition.part == part
        seen, seen_labels, seen_task = probs[~held], labels[~held], task.at(~held)
        for tuning, answer in answers.items():
            rule = Rule() if task.takes_probs else tune_rule(task, tuning, seen, seen_labels)
            rules[tuning].append(rule)
            answer[held] = decide(rule, probs[held], given.scores.allowed_at(held))
            if rest is not None:
                decided = decide(rule, seen, given.scores.allowed_at(~held))
                without[tuning].append(measure(seen_task, seen_labels, decided, rest[part]))
    # fitted and scored on the same rows: only for the column that shows how much too good that is
    whole = strategy.predictor(partition.n_parts, partition.fit_without()).predict(given.scores)
    return [
        CrossFit(
            name, tuning, pack_answer(answer), labels.shape, task.score(labels, answer),
            task.score(labels, decide(tune_rule(task, tuning, whole, labels), whole, given.scores.allowed)),
            tuple(rules[tuning]), tuple(without[tuning]),
        )
        for tuning, answer in answers.items()
    ]  # fmt: skip


def buckets_without_parts(partition: Partition, seed: int, group: np.ndarray) -> list[Buckets]:
    """For each part, buckets of the other parts' rows. Args: group: int64 (N,)."""
    kept = (partition.part != part for part in range(partition.n_parts))
    return [Buckets(partition.part[rows], seed, group[rows]) for rows in kept]


def cross_fit_row_rules(
    fit: CrossFit, outer: np.ndarray, part: np.ndarray, row_rules: Mapping[str, dict], allowed: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The answers of a cross-fit with each of several row rules added: bool (N, L) by the name of the rule.

    Args: outer: float32 (N, L), `predict_outer` of the same strategy.   part: int64 (N,), of the same partition.
          row_rules: fields of `Rule` by name, as `offer_row_rules` gives them.   allowed: as in `Scores`.
    """
    answers = {name: np.empty(outer.shape, bool) if fields else fit.answer for name, fields in row_rules.items()}
    for number, rule in enumerate(fit.rules):
        held = part == number
        for name, fields in row_rules.items():
            if fields:
                mask = None if allowed is None else allowed[held]
                answers[name][held] = decide(replace(rule, **fields), outer[held], mask)
    return answers


def predict_outer(strategy: Strategy, given: Given) -> np.ndarray:
    """Probabilities float32 (N, L), each row by the fit that left out its part."""
    outer = np.empty(given.labels.shape, np.float32)
    for part, rows in enumerate(given.partition.rows):
        predictor = strategy.predictor(part, given.partition.fit_without(part))
        outer[rows] = predictor.predict(given.scores, rows)
    return outer


# ---------- Candidates


@dataclass(frozen=True)
class Candidate:
    """One line of the score table: a run or a strategy, with one way of tuning thresholds."""

    is_single: bool
    """Whether it is one run by itself."""
    fits: list[CrossFit]
    """One per repeat of the cross-fitting."""
    measured: list[Measured]
    """Of each repeat's answer."""

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

    @property
    def spread(self) -> float:
        """The score's standard deviation if other rows had been drawn."""
        return float(np.sqrt((mean_measured(self.measured).moves ** 2).sum()))

    def with_fit(self, task: Task, labels: np.ndarray, fit: CrossFit, buckets: Buckets) -> "Candidate":
        """The same line with one repeat more."""
        measured = measure(task, labels, fit.answer, buckets)
        return Candidate(self.is_single, [*self.fits, fit], [*self.measured, measured])


# ---------- The one rule of the choice


SURE = 0.9
"""The chance that no lead is taken for real which is not."""
N_DRAWS = 1_000
"""Resamples that the critical value is read from."""


@dataclass(frozen=True)
class Leads:
    """What each of several lines scores above the trusted one, and how much of it luck explains."""

    gains: np.ndarray
    """float64 (C,)."""
    errors: np.ndarray
    """float64 (C,): their standard errors."""
    critical: float
    """Standard errors that a lead must exceed: the largest of all leads does by luck once in ten times."""
    n_compared: int
    """Lines and row rules that were compared."""

    @property
    def needed(self) -> np.ndarray:
        """The lead from which on a line replaces the trusted one, float64 (C,)."""
        return self.critical * self.errors

    @property
    def sure(self) -> np.ndarray:
        """What is left of each lead, float64 (C,); a line that always scores the same as the trusted one leads by 0."""
        return np.where(self.errors > 0, self.gains - self.needed, np.minimum(self.gains, 0.0))


def compare_lines(lines: list[Measured], trusted: int, more: list[np.ndarray], seed: int) -> Leads:
    """The leads of all lines over the trusted one.

    Args:   more: moves (G,) of further leads that are judged together with these: row rules on the trusted line.
    Source: max-T: a lead in standard errors is compared with the largest such value of all leads under luck alone,
            which the same resamples give for all of them, so that their correlation counts (Westfall and Young 1993;
            Romano and Wolf 2005). The resamples are Poisson weights of the buckets on each bucket's move (the
            multiplier bootstrap, Chernozhukov, Chetverikov and Kato 2013), the standard errors delete-a-group
            jackknifes: both take a group of rows as one.
    """
    moves = np.nan_to_num(np.stack([line.moves - lines[trusted].moves for line in lines], axis=1))  # (G, C)
    gains = np.array([line.score - lines[trusted].score for line in lines])
    gains[np.isnan(gains)] = -np.inf  # too few rows for the metric to be defined: nothing leads
    critical = find_critical(np.column_stack([moves, *more]), seed)
    return Leads(gains, np.sqrt((moves**2).sum(axis=0)), critical, len(lines) + len(more))


def find_critical(moves: np.ndarray, seed: int) -> float:
    """Standard errors that the largest of several leads exceeds by luck in one of ten cases; 0 if there is none.

    Args: moves: float64 (G, C).
    """
    errors = np.sqrt((np.nan_to_num(moves) ** 2).sum(axis=0))
    moves, errors = moves[:, errors > 0], errors[errors > 0]
    if not len(errors):
        return 0.0
    # each row is one world without any real lead: buckets' moves with random weights of mean 0, in standard errors
    drawn = _draw_weights(len(moves), seed) @ (moves / errors).astype(np.float32)
    # one-sided, the largest and not the largest in size: a line that is worse replaces nothing
    return max(0.0, float(np.quantile(drawn.max(axis=1), SURE)))


@lru_cache(maxsize=2)
def _draw_weights(n_buckets: int, seed: int) -> np.ndarray:
    """Poisson weights of buckets less their mean, float32 (B, G); every part asks twice for nearly the same."""
    return np.random.default_rng(seed).poisson(1.0, (N_DRAWS, n_buckets)).astype(np.float32) - np.float32(1)


def pick_line(leads: Leads, trusted: int) -> int:
    """The line whose lead is largest after what luck explains; the trusted one if nothing is left of any."""
    # by what is left of the gain, not by the gain itself: a large one that varies much may be luck
    best = int(np.argmax(leads.sure))
    return best if leads.sure[best] > 0 else trusted


def pick_row_rule(ruled: Mapping[str, Measured], critical: float) -> tuple[str, float, float]:
    """The row rule with the largest lead over none after what luck explains: name, lead and the lead it needed.

    Args: ruled: by name of the row rule, none (an empty name) among them.   critical: of all leads together.
    """
    found, most = ("", 0.0, 0.0), 0.0
    for name, measured in ruled.items():
        lead = measured.score - ruled[""].score
        needed = critical * float(np.sqrt(((measured.moves - ruled[""].moves) ** 2).sum()))
        if needed > 0 and lead - needed > most:
            found, most = (name, lead, needed), lead - needed
    return found


def row_rule_moves(ruled: Mapping[str, Measured]) -> list[np.ndarray]:
    """Moves of each row rule's lead over none."""
    return [measured.moves - ruled[""].moves for name, measured in ruled.items() if name]


# ---------- The choice without each part


@dataclass(frozen=True)
class Picked:
    """What the other parts' rows alone would choose for a part."""

    position: int
    """Of the line."""
    fields: dict
    """The row rule as fields of `Rule`; empty without one."""


def choose_without_parts(
    given: Given, strategies: Mapping[str, Strategy], fits: list[CrossFit], rest: list[Buckets], trusted: int,
    is_forced: bool, has_row_rules: bool,
) -> list[Picked]:  # fmt: skip
    """For each part, what the other parts' rows alone would choose of the lines of one partition.

    No number in here knows the part's labels: the probabilities come from fits without it, and the thresholds of each
    other part are tuned without both. That takes its time, so only lines that may win get them: those that have half of
    the lead they need if thresholds are tuned on the rows they are scored on, as they are for the trusted one.

    Args: strategies: as fitted on the partition.   fits: its lines, with `without`.   rest: `buckets_without_parts`.
          trusted: position of the line that another one must beat.   is_forced: whether it is taken whatever they do.
    """
    parts = range(given.partition.n_parts)
    offered = [
        offer_row_rules(given.labels[given.partition.part != part]) if has_row_rules else {"": {}} for part in parts
    ]

    def measure_line(position: int, row_rules: dict[int, dict[str, dict]]) -> dict[int, dict[str, Measured]]:
        fit = fits[position]
        return measure_without_parts(strategies[fit.strategy], fit.tuning, given, row_rules, rest)

    inner = {trusted: measure_line(trusted, dict(enumerate(offered)))}  # by line and part
    if not is_forced:
        near: dict[int, dict[int, dict]] = {}
        for part in parts:
            leads = compare_lines([fit.without[part] for fit in fits], trusted, [], given.seed)
            for position in np.flatnonzero((leads.gains > leads.needed / 2) & (leads.errors > 0)).tolist():
                near.setdefault(position, {})[part] = {"": {}}
        inner |= {position: measure_line(position, row_rules) for position, row_rules in near.items()}
    picked = []
    for part in parts:
        lines = [
            # a line that was not measured cannot win; its moves still raise the critical value, as luck could have
            # lifted it
            inner[position][part][""] if part in inner.get(position, {}) else replace(fit.without[part], score=-np.inf)
            for position, fit in enumerate(fits)
        ]
        leads = compare_lines(lines, trusted, row_rule_moves(inner[trusted][part]), given.seed)
        line = pick_line(leads, trusted)
        ruled = inner[line][part]
        # of the trusted line the row rules are measured already
        if line != trusted and has_row_rules:
            ruled = measure_line(line, {part: offered[part]})[part]
        picked.append(Picked(line, offered[part][pick_row_rule(ruled, leads.critical)[0]]))
    return picked


def measure_without_parts(
    strategy: Strategy, tuning: str, given: Given, row_rules: dict[int, dict[str, dict]], rest: list[Buckets]
) -> dict[int, dict[str, Measured]]:
    """A line's score, cross-fitted within the other parts, for some parts and with each of some row rules.

    Args: row_rules: by part, fields of `Rule` by name.   rest: `buckets_without_parts`.
    """
    task, part = given.task, given.partition.part
    found = {}
    for left_out, probs in enumerate(strategy.predict_parts(given.scores, given.partition)):
        if left_out not in row_rules:
            continue
        kept = np.flatnonzero(part != left_out)
        probs, labels, within, scores = probs[kept], given.labels[kept], part[kept], given.scores
        kind = np.float32 if task.takes_probs else bool
        answers = {name: np.empty(labels.shape, kind) for name in row_rules[left_out]}
        for inner in np.unique(within):
            held = within == inner
            rule = Rule() if task.takes_probs else tune_rule(task, tuning, probs[~held], labels[~held])
            for name, fields in row_rules[left_out].items():
                allowed = scores.allowed_at(kept[held])
                answers[name][held] = decide(replace(rule, **fields), probs[held], allowed)
        scored = task.at(kept)
        found[left_out] = {name: measure(scored, labels, answer, rest[left_out]) for name, answer in answers.items()}
    return found


def answer_parts(
    picked: list[Picked], given: Given, strategies: Mapping[str, Strategy], fits: list[CrossFit]
) -> np.ndarray:
    """The answer (N, L) in which each part's rows come from what was picked without the part."""
    stitched = np.empty_like(fits[0].answer)
    for part, (each, rows) in enumerate(zip(picked, given.partition.rows, strict=True)):
        fit = fits[each.position]
        if each.fields:
            predictor = strategies[fit.strategy].predictor(part, given.partition.fit_without(part))
            probs, allowed = predictor.predict(given.scores, rows), given.scores.allowed_at(rows)
            stitched[rows] = decide(replace(fit.rules[part], **each.fields), probs, allowed)
        else:
            stitched[rows] = fit.answer[rows]
    return stitched


# ---------- Row rules: how many labels a row may have


def offer_row_rules(labels: np.ndarray) -> dict[str, dict]:
    """Row rules worth trying, as fields of `Rule` by name, suggested by the labels; the first is none at all."""
    per_row = labels.sum(axis=1)
    offered: dict[str, dict] = {"": {}, "at least one label": {"at_least_one": True}}
    # limits that nearly all training rows keep: a lower one would cut true labels
    for most in sorted({int(np.quantile(per_row, share, method="higher")) for share in (0.95, 0.99)} - {0}):
        offered[f"at most {most} labels"] = {"at_most": most}
        offered[f"one to {most} labels"] = {"at_least_one": True, "at_most": most}
    # the label that most often comes alone, of those in more than one row of fifty
    alone = (labels & (per_row == 1)[:, None]).sum(axis=0) / np.maximum(labels.sum(axis=0), 1)
    label = int(np.argmax(alone * (labels.mean(axis=0) > 0.02)))
    offered[f"label {label} only alone"] = {"exclusive": label}
    offered[f"label {label} only alone, at least one label"] = {"exclusive": label, "at_least_one": True}
    return offered
