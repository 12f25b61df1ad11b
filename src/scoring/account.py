"""The scoring room's record of a blend, for the .json beside a submission: what was printed, as plain numbers."""

from collections.abc import Sequence

import numpy as np

from scoring.blending import Blend
from scoring.contributions import Difference
from scoring.decoders import Task
from scoring.metrics import METRICS
from scoring.outcome import Outcome


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
