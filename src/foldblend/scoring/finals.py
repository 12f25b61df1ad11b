"""Local scores against the leaderboard's: how well they agree, and which submissions to choose for the final scoring.

Scores are on the metric's own scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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


FAR = 2.0
"""A public score this many times as far from the expected one as the ends of its 90 % interval is a warning: chance
puts it there once in a thousand times, and a public part of the test set a little more often."""


def far_line(name: str, public: float, expected: Mapping[str, float]) -> str:
    """A warning if a public score is far outside the interval that was printed; empty if it is not.

    Args: expected: `score`, `low` and `high`, as a blend's record has them.
    """
    end = expected["high"] if public > expected["score"] else expected["low"]
    if abs(public - expected["score"]) <= FAR * max(abs(end - expected["score"]), 1e-9):
        return ""
    return (
        f"{name}: public score {public:g} is far outside of the expected {expected['low']:.4f} to "
        f"{expected['high']:.4f}. Chance hardly explains it: look for another metric, rows in another order, texts of "
        "another kind, or a leak"
    )


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
    is_good: bool = True
    """Whether it is expected to score within one standard error of the best; if not, it only fills a slot."""


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

    Good: expected to score within one standard error of the best (the rule of Breiman et al. 1984). Slots that are left
    are filled with the next best expected ones, as a final costs nothing; a twin of a chosen one adds nothing.

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
    for one in ranked[len(good) :]:
        distance = min(disagreement(one.answers, final.submission.answers) for final in finals)
        if len(finals) < count and distance > 0:
            finals.append(Final(one, distance, is_good=False))
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
    head = "the most different good one:" if final.is_good else "the next best expected score; no other is as good:"
    if final.submission.answers.dtype == bool:
        how = f"{final.disagreement:.1%} of its rows differ from the nearest above"
    else:
        how = f"its probabilities differ by {final.disagreement:.4f} on average from the nearest above"
    return [f"   {head}", f"   {how}"]
