"""Thresholds that adapt to the rows they are used on, without a label of these rows."""

import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.inputs import Task, logit, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.thresholds.robust import (
    ADAPT_FROM,
    adapt_thresholds,
)
from foldblend.scoring.thresholds.rules import Rule, decide, rule_from_record, settle, tune_rule

IDENTITY = np.array([[1.0, 1.0], [0.0, 0.0]])


def rows_with_rate(shift, n_rows=4000, seed=0):
    """Calibrated probabilities of two labels, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = sigmoid(rng.normal(shift, 2.0, (n_rows, 2)).astype(np.float32))
    return probs, rng.random(probs.shape) < probs


def test_they_move_half_the_way_to_the_best_expected_f1_of_the_rows():
    probs, _ = rows_with_rate(-1.0)
    ordered = np.sort(probs.astype(float), axis=0)[::-1]
    decided = np.arange(1, len(probs) + 1)[:, None]
    best = (ordered.cumsum(axis=0) / (decided + ordered.sum(axis=0))).max(axis=0)  # half of F1, per label
    adapted = adapt_thresholds(np.float32([0.7, 0.7]), probs, IDENTITY)
    assert logit(adapted) == pytest.approx((logit(best) + logit(np.full(2, 0.7))) / 2, abs=0.02)


@pytest.mark.parametrize("shift, falls", [(-4.0, True), (1.0, False)])
def test_rows_with_other_rates_score_more_than_with_robust_thresholds(shift, falls):
    rule = tune_rule(Task("macro_f1"), "adaptive", *rows_with_rate(-1.0))
    probs, labels = rows_with_rate(shift, n_rows=40_000, seed=1)
    settled = settle(rule, probs)
    assert (settled.thresholds < rule.thresholds).all() == falls
    assert macro_f1(labels, decide(rule, probs)) > macro_f1(labels, probs >= rule.thresholds)


def test_too_few_rows_get_the_robust_thresholds_and_the_answer_of_each_row_hangs_on_no_other():
    task = Task("macro_f1")
    rule = tune_rule(task, "adaptive", *rows_with_rate(-1.0))
    few = rows_with_rate(1.0, n_rows=ADAPT_FROM - 1, seed=2)[0]
    assert (rule.thresholds == tune_rule(task, "robust", *rows_with_rate(-1.0)).thresholds).all()
    assert (decide(rule, few) == (few >= rule.thresholds)).all()
    assert settle(rule, few) is rule


def test_settled_thresholds_stay_and_a_record_keeps_both_kinds():
    rule = tune_rule(Task("weighted_f1"), "adaptive", *rows_with_rate(-1.0))
    probs = rows_with_rate(0.5, seed=3)[0]
    settled = settle(rule, probs)
    assert (decide(settled, probs) == decide(rule, probs)).all()
    assert (decide(settled, probs[:5]) == decide(rule, probs)[:5]).all()  # by the thresholds of all rows
    assert settled.calibration is None and "calibration" not in settled.to_record()
    for each in (rule, settled):
        again = rule_from_record(each.to_record())
        assert (decide(again, probs) == decide(each, probs)).all()
    assert isinstance(rule_from_record({"thresholds": [0.5]}), Rule)  # as older records hold it


def test_the_calibration_comes_from_the_labelled_rows():
    runs = make_runs(n_rows=3000, n_labels=3, noise=(1.0,))
    bent = sigmoid(2 * runs.scores.runs[0] + 1)  # twice too sure and shifted
    rule = tune_rule(Task("macro_f1"), "adaptive", bent, runs.labels)
    plain = tune_rule(Task("macro_f1"), "adaptive", sigmoid(runs.scores.runs[0]), runs.labels)
    assert rule.calibration[0] == pytest.approx(plain.calibration[0] / 2, rel=0.05)
    new = make_runs(n_rows=3000, n_labels=3, noise=(1.0,), seed=1).scores.runs[0]
    agree = decide(rule, sigmoid(2 * new + 1)) == decide(plain, sigmoid(new))
    assert agree.mean() > 0.995
