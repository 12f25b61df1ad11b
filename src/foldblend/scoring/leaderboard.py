"""The scoring room's view of a leaderboard: how local scores have foretold public ones, and which two to be judged by.

Scores are on the metric's own scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z90 = 1.6449
"""Half of a 90 % interval in standard errors."""


@dataclass(frozen=True)
class Line:
    """public = intercept + slope * local, by least squares."""

    intercept: float
    slope: float
    spread: float
    """Standard deviation of the residuals, with two degrees of freedom spent."""
    count: int


@dataclass(frozen=True)
class Candidate:
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

    candidate: Candidate
    disagreement: float
    """With the nearest of those chosen before it; 0 for the first."""


def fit_line(local: Sequence[float], public: Sequence[float]) -> Line | None:
    """The least-squares line through at least three submissions; None where there are fewer or all locals are equal.

    Example: fit_line([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]) -> intercept -0.1, slope 1.0, spread 0.0
    """
    x, y = np.asarray(local, np.float64), np.asarray(public, np.float64)
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    intercept = y.mean() - slope * x.mean()
    residuals = y - intercept - slope * x
    return Line(float(intercept), float(slope), float(np.sqrt((residuals**2).sum() / (len(x) - 2))), len(x))


def disagreement(one: np.ndarray, other: np.ndarray) -> float:
    """How differently two submissions answer: share of rows with another set of labels, or mean distance of probs."""
    if one.dtype == bool:
        return float((one != other).any(axis=1).mean())
    return float(np.abs(one - other).mean())


def choose_finals(
    candidates: Sequence[Candidate], count: int, greater_is_better: bool
) -> tuple[list[Final], list[Candidate]]:
    """The best expected one, then again and again the good one that differs most from all chosen so far.

    Good is what is expected to score within one standard error of the best (the rule of Breiman et al. 1984).

    Returns: at most `count` finals, best first; all good ones, best first. Of equals the first by name.
    """
    sign = 1 if greater_is_better else -1
    ranked = sorted(candidates, key=lambda one: (-sign * one.expected, one.name))
    best = ranked[0]
    good = [one for one in ranked if sign * (best.expected - one.expected) <= best.standard_error]
    finals, rest = [Final(best, 0.0)], good[1:]
    while rest and len(finals) < count:
        nearest = [min(disagreement(one.answers, final.candidate.answers) for final in finals) for one in rest]
        at = int(np.argmax(nearest))
        if nearest[at] == 0.0:
            break  # the others answer as a chosen one does
        finals.append(Final(rest.pop(at), nearest[at]))
    return finals, good


def comparison_lines(rows: Sequence[tuple[str, Sequence[float | None]]], is_private: bool) -> list[str]:
    """The local-against-public table and the fitted line.

    Args: rows: name and (in-sample, cross-fitted, expected, public, private) of each submission, oldest first.
    """
    width = max([len(name) for name, _ in rows], default=4)
    heads = ("in-sample", "cross-fitted", "expected", "public", *(["private"] if is_private else []))
    lines = [f"{'file':{width}}  " + "  ".join(f"{head:>12}" for head in heads) + "  public - expected"]
    for name, scores in rows:
        cells = "  ".join(f"{_shown(score):>12}" for score in scores[: len(heads)])
        gap = None if scores[2] is None or scores[3] is None else scores[3] - scores[2]
        lines.append(f"{name:{width}}  {cells}  {_shown(gap, '+'):>17}".rstrip())
    pairs = [(scores[1], scores[3]) for _, scores in rows if scores[1] is not None and scores[3] is not None]
    line = fit_line(*zip(*pairs, strict=True)) if pairs else None
    if line:
        lines.append(
            f"public = {line.intercept:.4f} {line.slope:+.4f} x cross-fitted, least squares over {line.count} "
            f"submissions, residuals +- {line.spread:.4f}"
        )
    elif len(pairs) < 3:
        lines.append(f"a line is fitted from three scored submissions on; there are {len(pairs)}")
    else:
        lines.append("no line is fitted: all cross-fitted scores are equal")
    return lines


def _shown(score: float | None, sign: str = "") -> str:
    return "" if score is None else f"{score:{sign}.4f}"


def finals_lines(finals: Sequence[Final], good: Sequence[Candidate], n_candidates: int) -> list[str]:
    """The proposal in words."""
    best = finals[0].candidate
    margin = f"within one standard error ({best.standard_error:.4f}) of the best"
    lines = [f"{len(good)} of {n_candidates} submissions are expected to score {margin}"]
    for number, final in enumerate(finals, 1):
        one = final.candidate
        lines.append(f"{number}. {one.name}: expected {one.expected:.4f} +- {one.standard_error:.4f}")
        why = "best expected score" if number == 1 else f"most different good one: {_difference(final)}"
        lines.append(f"   the {why}")
    return lines


def _difference(final: Final) -> str:
    if final.candidate.answers.dtype == bool:
        return f"{final.disagreement:.1%} of its rows are answered otherwise than in the nearest above"
    return f"its probabilities are {final.disagreement:.4f} from the nearest above on average"
