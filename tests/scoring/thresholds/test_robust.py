import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.inputs import logit, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1, micro_f1
from foldblend.scoring.thresholds.exact import tune_micro_thresholds, tune_thresholds
from foldblend.scoring.thresholds.robust import (
    count_scores,
    expected_f1_thresholds,
    fit_calibration,
    shrink,
    tune_robust_joint,
    tune_robust_thresholds,
)


def test_calibration_recovers_the_curve_that_made_the_labels():
    rng = np.random.default_rng(0)
    scores = rng.normal(-1, 2, (40_000, 2))
    labels = rng.random(scores.shape) < sigmoid(scores * [0.5, 2.0] + [1.0, -1.0])
    slope, shift = fit_calibration(count_scores(sigmoid(scores).astype(np.float32), labels))
    assert slope == pytest.approx([0.5, 2.0], rel=0.05)
    assert shift == pytest.approx([1.0, -1.0], abs=0.08)


def test_the_label_free_cut_is_half_the_best_expected_f1():
    probs = np.random.default_rng(1).beta(0.5, 3, (20_000, 1)).astype(np.float32)
    counted = count_scores(probs, np.zeros(probs.shape, bool))
    cut = sigmoid(expected_f1_thresholds(counted, np.ones(1), np.zeros(1)))[0]
    ordered = np.sort(probs[:, 0])[::-1].astype(float)
    expected = (2 * ordered.cumsum() / (np.arange(1, len(ordered) + 1) + ordered.sum())).max()
    assert cut == pytest.approx(expected / 2, abs=0.01)


def test_robust_cuts_hold_better_on_new_rows_where_rows_are_few():
    gains = []
    for seed in range(15):
        runs = make_runs(n_rows=4000, n_labels=6, noise=(1.0,), seed=seed)
        probs, labels, few = sigmoid(runs.scores.runs[0]), runs.labels, slice(0, 60)
        robust, exact = (tune(probs[few], labels[few]) for tune in (tune_robust_thresholds, tune_thresholds))
        gains.append(macro_f1(labels[60:], probs[60:] >= robust) - macro_f1(labels[60:], probs[60:] >= exact))
    assert np.mean(gains) > 0.005


def test_with_many_rows_robust_and_exact_cuts_agree():
    runs = make_runs(n_rows=20_000, noise=(1.0,))
    probs = sigmoid(runs.scores.runs[0])
    robust, exact = (tune(probs, runs.labels) for tune in (tune_robust_thresholds, tune_thresholds))
    scores = [macro_f1(runs.labels, probs >= cuts) for cuts in (robust, exact)]
    assert scores[0] == pytest.approx(scores[1], abs=0.005)


def test_a_label_without_a_positive_moves_as_all_labels_do():
    runs = make_runs(n_rows=500, noise=(1.0,))
    labels = runs.labels.copy()
    labels[:, 3] = False
    cuts = tune_robust_thresholds(sigmoid(runs.scores.runs[0]), labels)
    assert ((cuts > 0) & (cuts < 1)).all()
    assert shrink(np.array([1.0, 0.0]), np.array([20, 0])) == pytest.approx([1.0, 1.0])


def test_cuts_follow_a_monotone_change_of_scale():
    runs = make_runs(n_rows=3000, noise=(1.0,))
    probs = sigmoid(runs.scores.runs[0])
    squeezed = sigmoid(np.float32(0.3) * logit(probs) - np.float32(2))
    before = probs >= tune_robust_thresholds(probs, runs.labels)
    after = squeezed >= tune_robust_thresholds(squeezed, runs.labels)
    assert (before == after).mean() > 0.99


def test_robust_joint_cuts_stay_near_the_exact_score():
    runs = make_runs(n_rows=5000, noise=(1.0,))
    probs = sigmoid(runs.scores.runs[0])
    robust = micro_f1(runs.labels, probs >= tune_robust_joint(tune_micro_thresholds, probs, runs.labels))
    assert robust >= micro_f1(runs.labels, probs >= tune_micro_thresholds(probs, runs.labels)) - 0.01
