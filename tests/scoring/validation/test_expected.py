"""The forecast against worlds whose truth is known."""

import numpy as np
import pytest
from made_up import make_runs

from foldblend.cores import single_threaded_products
from foldblend.scoring.inputs import Task, sigmoid
from foldblend.scoring.metrics.formulas import log_loss, macro_f1
from foldblend.scoring.thresholds.rules import Rule
from foldblend.scoring.validation.bootstrap import Buckets, make_additive
from foldblend.scoring.validation.expected import estimate_score, gain_of_averaging, sharpened, soften

TASK = Task("macro_f1")


@single_threaded_products()
def test_the_interval_holds_the_score_of_new_rows_about_nine_times_in_ten():
    held, thresholds = 0, np.full(4, 0.4, np.float32)
    for seed in range(40):
        runs = make_runs(n_rows=1000, noise=(1.0,), seed=seed)
        answer = sigmoid(runs.scores.runs[0]) >= thresholds
        ours, theirs = slice(0, 400), slice(400, 1000)
        honest = make_additive(TASK, runs.labels[ours], answer[ours], Buckets(runs.fold[ours], 0))
        said = estimate_score([honest], [honest], 400, 600, seed)
        held += said.low < macro_f1(runs.labels[theirs], answer[theirs]) < said.high
    assert 31 <= held <= 40  # 36 expected


def test_a_smaller_test_set_is_less_sure():
    runs = make_runs(n_rows=1000, noise=(1.0,))
    honest = [make_additive(TASK, runs.labels, sigmoid(runs.scores.runs[0]) >= 0.4, Buckets(runs.fold, 0))]
    wide, narrow = (estimate_score(honest, honest, 1000, n_test, 0) for n_test in (100, 10_000))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_gain_of_averaging_is_what_averaging_gains(noise):
    """Fold models: one hidden log-odds, a calibrated view of it each, independent noise."""
    rng = np.random.default_rng(0)
    hidden = 2 * rng.normal(size=(20_000, 3)) - 1.5
    labels = rng.random(hidden.shape) < sigmoid(hidden)
    views = hidden + noise * rng.normal(size=(5, *hidden.shape))
    slope = 4 / (4 + noise**2)  # regression of the hidden value on a view
    fold_probs = sigmoid((slope * (views + 1.5) - 1.5) / np.sqrt(1 + 0.346 * slope * noise**2)).astype(np.float32)
    rule = Rule(thresholds=np.full(3, 0.4, np.float32))
    alone = np.mean([macro_f1(labels, probs >= 0.4) for probs in fold_probs])
    true_gain = macro_f1(labels, fold_probs.mean(axis=0) >= 0.4) - alone
    assert gain_of_averaging(TASK, rule, fold_probs, 0) == pytest.approx(true_gain, abs=0.005)
    if noise == 1.0:
        assert log_loss(labels, sharpened(fold_probs)) < log_loss(labels, fold_probs.mean(axis=0))


def test_one_fold_model_gains_nothing():
    assert gain_of_averaging(TASK, Rule(thresholds=np.float32([0.5])), np.ones((1, 5, 1), np.float32), 0) == 0.0


def test_test_rows_on_which_the_metric_is_not_defined_gain_nothing():
    """One test row has no area under a curve, and rows that are all alike have no noise to tell from signal."""
    for rows in (1, 4):
        fold_probs = np.full((2, rows, 1), 0.3, np.float32)
        assert np.isfinite(sharpened(fold_probs)).all()
        gain = gain_of_averaging(Task("macro_auc"), Rule(), fold_probs, 0)
        assert np.isfinite(gain) and abs(gain) < 1e-9


def test_softened_labels_trust_frequent_labels_and_guess_rare_ones():
    rng = np.random.default_rng(0)
    probs = sigmoid(rng.normal(size=(4_000, 3)) * 2 + [0, -7, -3]).astype(np.float32)
    labels = rng.random(probs.shape) < probs
    labels[:, 1] = False  # a label that these rows happen not to have
    soft = soften(labels, probs)
    assert np.abs(soft[:, 0] - labels[:, 0]).max() < 0.01
    assert (np.diff(soft[np.argsort(probs[:, 1]), 1]) >= 0).all() and 0 < soft[:, 1].mean() < probs[:, 1].mean()
    assert (np.abs(soft - labels).mean(axis=0) < 0.02).all() and soft.min() >= 0 and soft.max() <= 1


def test_softened_labels_say_more_of_a_rare_labels_score_than_its_rows_do():
    """The error of both estimates of macro-F1, over draws of 300 rows in which one label has a handful."""
    errors = {"counted": [], "softened": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        probs = sigmoid(2 * rng.normal(size=(20_300, 2)) + [-6, -1]).astype(np.float32)
        labels, answer = rng.random(probs.shape) < probs, probs >= [0.15, 0.4]
        few, truth = slice(0, 300), macro_f1(labels[300:], answer[300:])
        for name, told in (("counted", labels[few]), ("softened", soften(labels[few], probs[few]))):
            additive = make_additive(TASK, told, answer[few], Buckets(np.zeros(300, np.int64), 0))
            errors[name].append(additive.score(np.ones(len(additive.sums), bool)) - truth)
    assert np.std(errors["softened"]) < 0.7 * np.std(errors["counted"])
