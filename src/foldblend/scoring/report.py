"""The report of a blend: what it is worth, in numbers, in the record of a submission, and in words for 80 columns."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldblend.cores import single_threaded_products
from foldblend.scoring.blending import Blend
from foldblend.scoring.ensembling.strategies import Given, fit_strategies
from foldblend.scoring.inputs import Partition, Scores, Task
from foldblend.scoring.thresholds.rules import Rule
from foldblend.scoring.validation.bootstrap import Additive, Buckets, Difference, compare, make_additive
from foldblend.scoring.validation.choice import cross_fit
from foldblend.scoring.validation.expected import (
    ExpectedScore,
    compare_means,
    estimate_score,
    find_shifted,
    gain_of_averaging,
    soften,
)

# ---------- Numbers


CONTRIBUTION_ROWS = 8_000
"""Rows on which the blend is refitted without each run."""


@dataclass(frozen=True)
class Shift:
    """A label's mean probability on the OOF rows against the test rows, float64 (L,) each."""

    oof_mean: np.ndarray
    test_mean: np.ndarray
    p: np.ndarray
    """p-values of no shift."""
    shifted: np.ndarray
    """int64: labels whose shift is more than chance and large enough to matter."""


@dataclass(frozen=True)
class BlendReport:
    """What is printed and stored beside the table of candidates; scores as the task compares them, more is better."""

    honest: float
    """Cross-fitted score of the whole procedure, its choice included."""
    one_fold: ExpectedScore
    """Of one fold's models on the test rows."""
    gain: float
    """What averaging the fold models should add."""
    n_folds: int
    """Fold models that are averaged."""
    best_single: str
    lead: Difference
    """Of the honest answers over the best single run's."""
    contributions: dict[str, Difference]
    """What is lost without each run; empty if a single run is chosen."""
    shift: Shift | None
    """None without test rows."""


@single_threaded_products()
def describe_blend(task: Task, blend: Blend, fold_probs: np.ndarray | None, seed: int) -> BlendReport:
    """What a blend is worth.

    Args: fold_probs: float32 (K, n, L), the test rows by each fold's models; None if there are no test rows: then the
          expected score is for as many new rows as the blend was made from.
    """
    labels, buckets = blend.compared.labels, Buckets(blend.compared.fold, seed)
    honest = [make_additive(task, labels, answer, buckets) for answer in blend.honest]
    best = max((each for each in blend.candidates if each.is_single), key=lambda candidate: candidate.score)
    n_test = len(blend.oof_probs) if fold_probs is None else fold_probs.shape[1]
    return BlendReport(
        honest=float(np.mean([task.score(labels, answer) for answer in blend.honest])),
        one_fold=estimate_score(honest, soften_answers(task, blend, buckets), len(labels), n_test, seed),
        gain=0.0 if fold_probs is None else gain_of_averaging(task, blend.rule, fold_probs, seed),
        n_folds=1 if fold_probs is None else len(fold_probs),
        best_single=best.name,
        lead=compare(task, labels, blend.honest[0], best.fits[0].answer, buckets),
        contributions=measure_contributions(task, blend, seed),
        shift=None if fold_probs is None else compare_rates(blend.oof_probs, fold_probs),
    )


def soften_answers(task: Task, blend: Blend, buckets: Buckets) -> list[Additive]:
    """The metric of the answers that say what the score is, against softened labels for macro-F1.

    The honest answers score a little too low: what is lucky on the other parts is unlucky on this one. The chosen
    candidate's own score a little too high, for it was chosen by them. Half of each.
    """
    labels = blend.compared.labels
    truth = soften(labels, blend.compared_probs) if task.metric == "macro_f1" else labels
    return [make_additive(task, truth, answer, buckets) for answer in [*blend.honest, *blend.own]]


def measure_contributions(task: Task, blend: Blend, seed: int) -> dict[str, Difference]:
    """What is lost, cross-fitted, if the strategy is refitted without each run in turn."""
    choice = blend.choice
    if choice.is_single:
        return {}
    few = blend.compared.sample(CONTRIBUTION_ROWS, seed)
    given = Given(task, few.scores, few.labels, Partition(few.fold), seed)

    def answer(scores: Scores) -> np.ndarray:
        without = replace(given, scores=scores)
        fitted = fit_strategies(without, [choice.strategy])[choice.strategy]
        return cross_fit(choice.strategy, fitted, without, (choice.tuning,))[0].answer

    whole, buckets = answer(few.scores), Buckets(few.fold, seed)
    return {
        name: compare(task, few.labels, whole, answer(few.scores.without(run)), buckets)
        for run, name in enumerate(few.names)
    }


def compare_rates(oof_probs: np.ndarray, fold_probs: np.ndarray) -> Shift:
    """Each label's mean probability here and there: float32 (N, L) against (K, n, L)."""
    p = compare_means(oof_probs, fold_probs)
    return Shift(oof_probs.mean(axis=0), fold_probs.mean(axis=(0, 1)), p, find_shifted(p, oof_probs, fold_probs))


# ---------- The record beside a submission


def report_record(task: Task, blend: Blend, report: BlendReport, label_names: Sequence[str]) -> dict:
    """Plain values that JSON holds; scores on the metric's own scale."""
    sign = task.entry.sign
    return {
        "metric": task.metric,
        "chosen": blend.choice.name,
        "row_rule": row_rule_words(blend.rule, label_names),
        "rows_compared": len(blend.compared.labels),
        "in_sample": sign * blend.choice.in_sample,
        "cross_fitted": sign * report.honest,
        "expected_one_fold": _expected_record(report.one_fold, 0.0, sign),
        "expected_fold_mean": _expected_record(report.one_fold, report.gain, sign),
        "best_single": report.best_single,
        "above_best_single": vars(report.lead),
        "lost_without": {name: vars(lost) for name, lost in report.contributions.items()},
        "label_shift": _shift_record(report.shift, label_names) if report.shift else {},
        "table": table_record(task, blend),
    }


def table_record(task: Task, blend: Blend) -> list[dict]:
    """The score table as one dictionary per candidate; scores on the metric's own scale."""
    return [
        {
            "name": candidate.name,
            "in_sample": task.entry.sign * candidate.in_sample,
            "cross_fitted": task.entry.sign * candidate.score,
            "spread": float(spread),
            "repeats": len(candidate.fits),
        }
        for candidate, spread in zip(blend.candidates, blend.spread, strict=True)
    ]


def _expected_record(expected: ExpectedScore, gain: float, sign: int) -> dict[str, float]:
    low, high = sorted(sign * (end + gain) for end in (expected.low, expected.high))
    return {"score": sign * (expected.expected + gain), "low": low, "high": high}


def _shift_record(shift: Shift, label_names: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = zip(label_names, shift.oof_mean, shift.test_mean, shift.p, strict=True)
    return {name: {"oof_mean": float(here), "test_mean": float(there), "p": float(p)} for name, here, there, p in rows}


# ---------- Words


COLUMNS = 80
"""Width of a line."""
NAME_COLUMNS = 20
"""Longer names get a line of their own."""
TUNING_WORDS = {"robust": "robust thresholds", "exact": "exact thresholds", "offsets": "tuned offsets"}
"""What follows a strategy's name; nothing if there is nothing to tune."""


def table_lines(task: Task, blend: Blend, notes: Mapping[str, str]) -> list[str]:
    """The candidates: in-sample, cross-fitted, and how far the latter moves over resamples of rows and over repeats.

    Args: notes: a remark by run name, shown below its lines.
    """
    better = "higher" if task.entry.greater_is_better else "lower"
    lines = [
        f"Score table: {task.metric}, {better} is better",
        "  in-sample     tuned and scored on the same rows: too good",
        "  cross-fitted  tuned on the other folds: what new rows should get",
        "  +- rows       standard deviation if other rows had been drawn",
        "  +- repeats    standard deviation over other splits into folds",
        "",
        f"  {'run or strategy':{NAME_COLUMNS}}  thresholds  in-sample  cross-fitted  +- rows  +- repeats",
    ]
    for position, candidate in enumerate(blend.candidates):
        is_first = not position or candidate.strategy != blend.candidates[position - 1].strategy
        lines += _candidate_lines(task, blend, position, is_first)
        is_last = candidate.strategy not in {each.strategy for each in blend.candidates[position + 1 :]}
        if is_last and candidate.strategy in notes:
            lines.append(f"    {candidate.strategy}: {notes[candidate.strategy]}")
    return lines


def _candidate_lines(task: Task, blend: Blend, position: int, is_first: bool) -> list[str]:
    """One candidate, `>` before the chosen one. A long name gets a line of its own above its first candidate."""
    candidate, sign = blend.candidates[position], task.entry.sign
    repeats = [fit.score for fit in candidate.fits]
    between = f"{np.std(repeats):.4f}" if len(repeats) > 1 else ""
    numbers = (
        f"{candidate.tuning:10}  {sign * candidate.in_sample:9.4f}  {sign * candidate.score:12.4f}"
        f"  {blend.spread[position]:7.4f}  {between:>10}"
    ).rstrip()
    mark = ">" if position == blend.chosen else " "
    if len(candidate.strategy) > NAME_COLUMNS:
        head = [f"  {candidate.strategy}"] if is_first else []
        return [*head, f"{mark} {'':{NAME_COLUMNS}}  {numbers}"]
    return [f"{mark} {candidate.strategy:{NAME_COLUMNS}}  {numbers}"]


def seed_lines(task: Task, blend: Blend, groups: Iterable[list[str]]) -> list[str]:
    """Mean and standard deviation of cross-fitted scores over runs that differ in their seed alone.

    Args: groups: names of such runs, one list per group. A gain of one setting over another counts beyond this spread.
    """
    lines, sign = [], task.entry.sign
    for names in groups:
        scores: dict[str, list[float]] = {}
        for candidate in blend.candidates:
            if candidate.strategy in names:
                scores.setdefault(candidate.tuning, []).append(sign * candidate.score)
        lines += [
            f"  {len(of)} seeds of {names[0]}, {tuning}: mean {np.mean(of):.4f}, sd {np.std(of, ddof=1):.4f}"
            for tuning, of in scores.items()
        ]
    return lines


def report_lines(task: Task, blend: Blend, report: BlendReport, label_names: Sequence[str]) -> list[str]:
    """The chosen blend in words: its honest score, what to expect on the test rows, what each run is worth."""
    sign, n_compared, n_rows = task.entry.sign, len(blend.compared.labels), len(blend.oof_probs)
    row_rule = row_rule_words(blend.rule, label_names)
    lines = [f"Chosen: {candidate_words(blend.choice.name)}" + (f", {row_rule}" if row_rule else "")]
    if n_compared < n_rows:
        lines.append(f"Strategies were compared on {n_compared:,} of {n_rows:,} rows, drawn in whole groups")
    lines += _fit(
        f"Honest CV score, choice included: {sign * report.honest:.4f}",
        f"(tuned and scored on the same rows: {sign * blend.choice.in_sample:.4f})",
    )
    lines += _fit("Expected on the test set, a single fold:", _interval(report.one_fold, 0.0, sign))
    if report.n_folds > 1:
        average = f"{report.n_folds}-fold average"
        lines += _fit(f"Expected on the test set, {average}:", _interval(report.one_fold, report.gain, sign))
        if not task.takes_probs:
            tuned = "Thresholds" if task.kind == "multilabel" else "Offsets"
            lines += _fit(f"{tuned} were tuned on single-fold predictions", f"and are applied to the {average}")
    best = candidate_words(report.best_single)
    lines += _fit(f"Above the best single run ({best}):", _span(report.lead))
    if report.contributions:
        lines.append("Score lost if a run is removed (refitted on up to 8,000 rows):")
        width = min(max(map(len, report.contributions)), COLUMNS - 46)
        lines += [f"  {name:{width}}  {_span(lost)}" for name, lost in report.contributions.items()]
    return wrap(lines)


def shift_lines(report: BlendReport, label_names: Sequence[str]) -> list[str]:
    """A warning that names the labels whose rate on the test rows the models see differently; nothing without any."""
    shift = report.shift
    if shift is None or not len(shift.shifted):
        return []
    width = max(len(label_names[label]) for label in shift.shifted)
    head = (
        "warning: label rates differ on the test rows. The mean probability changes from OOF to test as below; "
        "--reestimate_priors corrects for it"
    )
    return wrap([head]) + [
        f"  {label_names[label]:{width}}  {shift.oof_mean[label]:.4f} -> {shift.test_mean[label]:.4f}"
        f"  p {shift.p[label]:.1e}"
        for label in shift.shifted
    ]


def candidate_words(name: str) -> str:
    """A candidate's name as a reader says it. Example: "shrunk_stack + robust" -> "shrunk_stack, robust thresholds"."""
    strategy, _, tuning = name.rpartition(" + ")
    return f"{strategy}, {TUNING_WORDS[tuning]}" if tuning in TUNING_WORDS else strategy


def row_rule_words(rule: Rule, label_names: Sequence[str]) -> str:
    """The row rule in words; empty without one. Example: Rule(at_most=3) -> "at most 3 labels per row"."""
    words = []
    if rule.exclusive is not None:
        words.append(f"{label_names[rule.exclusive]} only alone")
    if rule.at_most is not None:
        words.append(f"at most {rule.at_most} label{'s' if rule.at_most > 1 else ''} per row")
    if rule.at_least_one:
        words.append("at least one label per row")
    return ", ".join(words)


def wrap(lines: Iterable[str]) -> list[str]:
    """Lines of at most 80 columns; what is cut goes on indented. Names are never broken."""
    wrapper = textwrap.TextWrapper(COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in wrapper.wrap(line)]


def _fit(head: str, tail: str) -> list[str]:
    """Both on one line if 80 columns hold them, else the tail indented below."""
    line = f"{head} {tail}"
    return [line] if len(line) <= COLUMNS else [head, f"  {tail}"]


def _interval(expected: ExpectedScore, gain: float, sign: int) -> str:
    low, high = sorted(sign * (end + gain) for end in (expected.low, expected.high))
    return f"{sign * (expected.expected + gain):.4f}, 90 % interval {low:.4f} to {high:.4f}"


def _span(difference: Difference) -> str:
    return f"{difference.gain:+.4f}, 90 % interval {difference.low:+.4f} to {difference.high:+.4f}"


# Local scores against the leaderboard's: how well they agree, and which submissions to choose for the final scoring.
#
# Scores are on the metric's own scale.


Z90 = 1.6449
"""Half of a 90 % interval in standard errors."""

# ---------- Local against public


@dataclass(frozen=True)
class FittedLine:
    """public = intercept + slope * local, by least squares."""

    intercept: float
    slope: float
    spread: float
    """Standard deviation of the residuals, with two degrees of freedom spent."""
    count: int


def fit_line(local: Sequence[float], public: Sequence[float]) -> FittedLine | None:
    """The least-squares line through at least three submissions; None if there are fewer or all locals are equal.

    Example: fit_line([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]) -> intercept -0.1, slope 1.0, spread 0.0
    """
    x, y = np.asarray(local, np.float64), np.asarray(public, np.float64)
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    intercept = y.mean() - slope * x.mean()
    residuals = y - intercept - slope * x
    spread = np.sqrt((residuals**2).sum() / (len(x) - 2))
    return FittedLine(float(intercept), float(slope), float(spread), len(x))


def comparison_lines(rows: Sequence[tuple[str, Sequence[float | None]]], is_private: bool) -> list[str]:
    """The table of local and public scores, and the fitted line, for 80 columns.

    Args: rows: name and (in-sample, cross-fitted, expected, public, private) of each submission, oldest first.
    """
    width = max([len(name) for name, _ in rows], default=4)
    heads = ("in-sample", "cross-fitted", "expected", " public", *(["private"] if is_private else []))
    lines = [f"{'file':{width}}  {'  '.join(heads)}      gap"]
    for name, scores in rows:
        cells = "  ".join(f"{_number(score):>{len(head)}}" for score, head in zip(scores, heads, strict=False))
        gap = None if scores[2] is None or scores[3] is None else scores[3] - scores[2]
        lines.append(f"{name:{width}}  {cells}  {_number(gap, '+'):>7}".rstrip())
    lines.append("gap: public - expected")
    pairs = [(scores[1], scores[3]) for _, scores in rows if scores[1] is not None and scores[3] is not None]
    line = fit_line(*zip(*pairs, strict=True)) if pairs else None
    if line:
        lines += [
            f"public = {line.intercept:.4f} {line.slope:+.4f} x cross-fitted, by least squares:",
            f"  {line.count} submissions, residuals +- {line.spread:.4f}",
        ]
    elif len(pairs) < 3:
        lines.append(f"A line is fitted from three scored submissions on; there are {len(pairs)}")
    else:
        lines.append("No line is fitted: all cross-fitted scores are equal")
    return lines


def _number(score: float | None, sign: str = "") -> str:
    return "" if score is None else f"{score:{sign}.4f}"


# ---------- Final submissions


@dataclass(frozen=True)
class ScoredSubmission:
    """A submission that could be one of the finals."""

    name: str
    expected: float
    standard_error: float
    """Of `expected`, from its 90 % interval."""
    answers: np.ndarray
    """(n_test, L) bool decisions or float probs."""


@dataclass(frozen=True)
class Final:
    """A chosen submission and why."""

    submission: ScoredSubmission
    disagreement: float
    """With the nearest of those chosen before it; 0 for the first."""


def disagreement(one: np.ndarray, other: np.ndarray) -> float:
    """How differently two submissions answer: share of rows with another set of labels, or mean distance of probs.

    Args: one, other: bool or float (n_test, L).
    """
    if one.dtype == bool:
        return float((one != other).any(axis=1).mean())
    return float(np.abs(one - other).mean())


def choose_finals(
    submissions: Sequence[ScoredSubmission], count: int, greater_is_better: bool
) -> tuple[list[Final], list[ScoredSubmission]]:
    """The best expected one, then again and again the good one that differs most from all chosen so far.

    Good: expected to score within one standard error of the best (the rule of Breiman et al. 1984).

    Returns: at most `count` finals, best first; all good ones, best first. Of equals the first by name.
    """
    sign = 1 if greater_is_better else -1
    ranked = sorted(submissions, key=lambda one: (-sign * one.expected, one.name))
    best = ranked[0]
    good = [one for one in ranked if sign * (best.expected - one.expected) <= best.standard_error]
    finals, rest = [Final(best, 0.0)], good[1:]
    while rest and len(finals) < count:
        nearest = [min(disagreement(one.answers, final.submission.answers) for final in finals) for one in rest]
        at = int(np.argmax(nearest))
        if nearest[at] == 0.0:
            break  # the others answer as a chosen one does
        finals.append(Final(rest.pop(at), nearest[at]))
    return finals, good


def finals_lines(finals: Sequence[Final], good: Sequence[ScoredSubmission], n_submissions: int) -> list[str]:
    """The proposal in words, for 80 columns."""
    best = finals[0].submission
    within = f"Within one standard error ({best.standard_error:.4f}) of the best"
    lines = [f"{within}: {len(good)} of {n_submissions} submissions"]
    for number, final in enumerate(finals, 1):
        one = final.submission
        lines.append(f"{number}. {one.name}: expected {one.expected:.4f} +- {one.standard_error:.4f}")
        lines += ["   the best expected score"] if number == 1 else _difference_lines(final)
    return lines


def _difference_lines(final: Final) -> list[str]:
    if final.submission.answers.dtype == bool:
        how = f"{final.disagreement:.1%} of its rows differ from the nearest above"
    else:
        how = f"its probabilities differ by {final.disagreement:.4f} on average from the nearest above"
    return ["   the most different good one:", f"   {how}"]
