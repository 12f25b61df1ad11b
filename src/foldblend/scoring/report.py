"""The scoring room's words: the score table and what to expect, as plain text for 120 columns."""

from collections.abc import Sequence

import numpy as np

from foldblend.scoring.blending import Blend, Outcome
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.thresholds.rules import Task
from foldblend.scoring.validation.choice import Difference
from foldblend.scoring.validation.expected import Forecast

# ---------- record of a blend, for the .json beside a submission: what was printed, as plain numbers.


def account_of(
    task: Task, blend: Blend, outcome: Outcome, fold_probs: np.ndarray, label_names: Sequence[str]
) -> dict:  # fmt: skip
    """Plain values that JSON holds; scores on the metric's own scale."""
    sign = 1 if METRICS[task.metric].greater_is_better else -1
    one, gain = outcome.one_fold, outcome.gain
    ends = sorted((sign * one.low, sign * one.high))
    return {
        "metric": task.metric,
        "handed_in": blend.name,
        "row_rule": blend.row_rule,
        "rows_compared": len(blend.fitted.labels),
        "in_sample": sign * blend.candidates[blend.chosen].in_sample,
        "cross_fitted": sign * outcome.headline,
        "expected_one_fold": {"score": sign * one.expected, "low": ends[0], "high": ends[1]},
        "expected_fold_mean": {
            "score": sign * (one.expected + gain), "low": ends[0] + sign * gain, "high": ends[1] + sign * gain,
        },
        "best_single": outcome.best_single,
        "above_best_single": _difference(outcome.lead),
        "lost_without": {name: _difference(lost) for name, lost in outcome.contributions.items()},
        "label_shift": {
            name: {
                "oof_mean": float(blend.oof_probs[:, label].mean()),
                "test_mean": float(fold_probs[:, :, label].mean()),
                "p": float(outcome.shift[label]),
            }
            for label, name in enumerate(label_names)
        },
        "table": [
            {
                "name": candidate.name, "in_sample": sign * candidate.in_sample,
                "cross_fitted": sign * candidate.score, "spread": float(spread), "repeats": len(candidate.fits),
            }
            for candidate, spread in zip(blend.candidates, blend.spread, strict=True)
        ],
    }  # fmt: skip


def _difference(difference: Difference) -> dict:
    return {"gain": difference.gain, "low": difference.low, "high": difference.high}


# ---------- words: the score table and what to expect, as plain text for 120 columns.


def _sign(task: Task) -> int:
    return 1 if METRICS[task.metric].greater_is_better else -1


def table_lines(task: Task, blend: Blend, notes: dict[str, str]) -> list[str]:
    """The candidates: in-sample, cross-fitted, and how far the latter moves over resamples of rows and over repeats.

    Args: notes: a remark by run name, shown at the end of its line.
    """
    width, sign = max(len(candidate.name) for candidate in blend.candidates), _sign(task)
    lines = [f"  {task.metric:{width}}  in-sample  cross-fitted  +- rows  +- repeats"]
    for position, (candidate, spread) in enumerate(zip(blend.candidates, blend.spread, strict=True)):
        mark = ">" if position == blend.chosen else " "
        repeats = [fit.score for fit in candidate.fits]
        between = f"{np.std(repeats):.4f}" if len(repeats) > 1 else ""
        line = f"{mark} {candidate.name:{width}}  {sign * candidate.in_sample:9.4f}  {sign * candidate.score:12.4f}"
        note = notes.get(candidate.fits[0].strategy, "")
        lines.append(f"{line}  {spread:7.4f}  {between:>10}  {note}".rstrip())
    return lines


def seed_lines(task: Task, blend: Blend, groups: list[list[str]]) -> list[str]:
    """Mean and standard deviation of cross-fitted scores over runs that differ in their seed alone.

    Args: groups: names of such runs, one list a group. A gain of one setting over another counts beyond this spread.
    """
    lines, sign = [], _sign(task)
    for names in groups:
        scores: dict[str, list[float]] = {}
        for candidate in blend.candidates:
            if candidate.fits[0].strategy in names:
                scores.setdefault(candidate.fits[0].cutoffs, []).append(sign * candidate.score)
        lines += [
            f"  over {len(of)} seeds of {names[0]} + {cutoffs}: {np.mean(of):.4f}, sd {np.std(of, ddof=1):.4f}"
            for cutoffs, of in scores.items()
        ]
    return lines


def outcome_lines(task: Task, blend: Blend, outcome: Outcome, n_folds: int, n_rows: int) -> list[str]:
    """The chosen blend in words: its honest score, what to expect on the test rows, what each run is worth."""
    sign, fitted = _sign(task), len(blend.fitted.labels)
    lines = [f"handed in: {blend.name}" + (f", {blend.row_rule}" if blend.row_rule else "")]
    if fitted < n_rows:
        lines.append(f"strategies were fitted and compared on {fitted:,} of {n_rows:,} rows, whole groups at random")
    in_sample = sign * blend.candidates[blend.chosen].in_sample
    lines += [
        f"cross-fitted, the choice included: {sign * outcome.headline:.4f} (in-sample, too good: {in_sample:.4f})",
        f"expected on the test rows, one fold's models: {_interval(outcome.one_fold, 0.0, sign)}",
    ]
    if n_folds > 1:
        averaged = _interval(outcome.one_fold, outcome.gain, sign)
        lines.append(f"expected on the test rows, mean of {n_folds} folds (what is handed in): {averaged}")
        lines.append(
            "  cut-offs tuned on single models' OOF rows are used on the mean of the fold models' probabilities"
        )
    lead = outcome.lead
    lines.append(f"above the best single run ({outcome.best_single}): {lead.gain:+.4f}, 90 % {_span(lead)}")
    if outcome.contributions:
        lines.append("lost without a run (refitted on up to 8,000 rows), with its 90 % interval:")
        width = max(map(len, outcome.contributions))
        lines += [f"  {name:{width}}  {lost.gain:+.4f}  {_span(lost)}" for name, lost in outcome.contributions.items()]
    return lines


def _interval(forecast: Forecast, gain: float, sign: int) -> str:
    ends = sorted(sign * (end + gain) for end in (forecast.low, forecast.high))
    return f"{sign * (forecast.expected + gain):.4f}, 90 % from {ends[0]:.4f} to {ends[1]:.4f}"


def _span(difference) -> str:
    return f"from {difference.low:+.4f} to {difference.high:+.4f}"


def shift_lines(blend: Blend, outcome: Outcome, fold_probs: np.ndarray, label_names: tuple[str, ...]) -> list[str]:
    """The labels whose rate on the test rows the models see differently, if any."""
    if not len(outcome.shifted):
        return ["label shift: none that matters"]
    here, there = blend.oof_probs.mean(axis=0), fold_probs.mean(axis=(0, 1))
    width = max(len(label_names[label]) for label in outcome.shifted)
    return ["label shift: mean probability on the test rows against OOF (--reestimate_priors corrects for it)"] + [
        f"  {label_names[label]:{width}}  {here[label]:.4f} -> {there[label]:.4f}  p {outcome.shift[label]:.1e}"
        for label in outcome.shifted
    ]
