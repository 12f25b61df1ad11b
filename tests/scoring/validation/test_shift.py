import numpy as np
import pytest

from foldblend.predictions import TextComparison
from foldblend.scoring.inputs import Task, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.report import correction_lines
from foldblend.scoring.thresholds.rules import Rule, decide
from foldblend.scoring.validation.shift import (
    Correction,
    compare_means,
    correct_shifted,
    find_shifted,
    reestimate_priors,
    simulate_correction,
    weighted_auc,
)


def make_rows(rates, n_rows, seed):
    """Labels at given rates and calibrated probabilities under rates of 0.2."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n_rows, len(rates))) < rates
    evidence = np.where(labels, 1.0, -1.0) + rng.normal(size=labels.shape)  # log likelihood ratio is 2 x evidence
    return labels, sigmoid(2 * evidence + np.log(0.2 / 0.8)).astype(np.float32)


def test_the_alarm_names_the_shifted_label_and_stays_quiet_otherwise():
    _, here = make_rows([0.2, 0.2, 0.2], 8000, 0)
    _, there = make_rows([0.2, 0.35, 0.2], 4000, 1)
    alone = np.arange(8000)
    assert find_shifted(compare_means(here, there[None], alone), here, there[None]).tolist() == [1]
    _, same = make_rows([0.2, 0.2, 0.2], 4000, 2)
    assert find_shifted(compare_means(here, same[None], alone), here, same[None]).tolist() == []


@pytest.mark.parametrize("size", [1, 5])
def test_false_alarms_are_as_rare_as_promised(size):
    """Also if every text stands there several times, here and among the test rows."""
    smallest = []
    for seed in range(300):
        here, there = (
            np.repeat(make_rows([0.2] * 5, n_rows // size, first + seed)[1], size, axis=0)
            for n_rows, first in ((500, 0), (300, 1000))
        )
        smallest.append(compare_means(here, there[None], np.arange(500) // size).min())
    assert np.mean(np.array(smallest) < 0.05) < 0.09


def test_em_finds_the_rates_of_the_new_rows():
    labels, probs = make_rows([0.05, 0.2, 0.6], 20_000, 3)
    adjusted, rates = reestimate_priors(probs, np.full(3, 0.2), "multilabel")
    assert rates == pytest.approx(labels.mean(axis=0), abs=0.01)
    assert adjusted.mean(axis=0) == pytest.approx(labels.mean(axis=0), abs=0.01)


def test_em_with_one_label_a_row():
    rng = np.random.default_rng(4)
    truth = rng.choice(3, 20_000, p=[0.7, 0.2, 0.1])
    likelihood = np.exp(1.5 * np.eye(3)[truth] + rng.normal(size=(20_000, 3)) * 0.01)
    likelihood = np.where(rng.random((20_000, 1)) < 0.3, 1.0, likelihood)
    probs = (likelihood / likelihood.sum(axis=1, keepdims=True)).astype(np.float32)
    adjusted, rates = reestimate_priors(probs, np.full(3, 1 / 3), "multiclass")
    assert rates[0] > probs.mean(axis=0)[0] + 0.05
    assert adjusted.sum(axis=1) == pytest.approx(np.ones(20_000), abs=1e-5)


def compared(auc, n=500):
    """A classifier of texts that sees a difference of `auc` in every row, or none."""
    rng = np.random.default_rng(5)
    shift = 0.0 if auc == 0.5 else 1.0
    return TextComparison(auc, 0.01, np.arange(n), rng.normal(size=n), shift + rng.normal(size=n), 0, n)


def simulate(rates_there, texts, metric="macro_f1"):
    labels, here = make_rows([0.2, 0.2, 0.2], 6000, 0)
    _, there = make_rows(rates_there, 3000, 1)
    rule = Rule(thresholds=np.float32([0.4] * 3))
    return simulate_correction(Task(metric), rule, labels, here, there, np.array([1]), texts, labels, 0)


def test_a_correction_helps_if_rates_changed_and_harms_if_texts_did():
    found = simulate([0.2, 0.5, 0.2], compared(0.5))
    assert found.gain_if_rates > 2 * found.error > 0 > found.gain_if_texts
    assert found.texts_are_the_same and found.is_offered


def test_it_is_not_offered_if_the_texts_changed_or_nobody_compared_them():
    changed, unknown = (simulate([0.2, 0.5, 0.2], texts) for texts in (compared(0.76), None))
    assert changed.gain_if_rates > 0 and not changed.texts_are_the_same and not changed.is_offered
    assert unknown.auc is None and not unknown.is_offered


def test_the_simulated_correction_is_the_one_that_a_recipe_applies():
    _, there = make_rows([0.2, 0.5, 0.2], 500, 1)
    priors = np.full(3, 0.2)
    corrected = correct_shifted(there, priors, (1,), "multilabel")
    assert np.array_equal(corrected[:, [0, 2]], there[:, [0, 2]])
    assert np.array_equal(corrected[:, 1], reestimate_priors(there, priors, "multilabel")[0][:, 1])


def test_weighted_auc_against_all_pairs():
    rng = np.random.default_rng(2)
    low, high, weights = rng.integers(0, 9, 40) * 1.0, rng.integers(2, 12, 30) * 1.0, rng.random(40)
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    assert weighted_auc(low, weights, high) == pytest.approx((wins * weights).sum() / weights.sum() / 30)


@pytest.mark.parametrize("auc, same", [(0.5, True), (0.53, True), (0.47, True), (0.56, False), (0.44, False)])
def test_rates_that_overshoot_are_no_evidence_either(auc, same):
    """Under the EM's rates (0.102 -> 0.241; 0.158 was true) training rows look more like test texts than these do."""
    found = Correction(gain_if_rates=0.02, gain_if_texts=-0.01, error=0.001, auc=auc, auc_error=0.01)
    assert found.texts_are_the_same == found.is_offered == same


def test_test_texts_cannot_tell_new_rates_from_new_texts_so_nothing_is_advised():
    """A label that went from 0.10 to 0.16 with its texts: its mean probability is right, the EM says far more, and a
    classifier that sees all there is to see agrees with the EM. The report must leave it to those who know."""
    rng = np.random.default_rng(0)
    hidden = 2 * rng.normal(size=(40_000, 3)) + [-2.0, -3.6, -2.0]
    said = sigmoid(hidden).astype(np.float32)  # calibrated
    labels = rng.random(hidden.shape) < said
    is_test = np.arange(40_000) >= 20_000  # more of the texts that seem to have label 1, whether they have it or not
    there = is_test & (rng.random(40_000) < np.where(hidden[:, 1] > -1.5, 1.0, 0.5))
    here, rule = ~is_test, Rule(thresholds=np.float32([0.35] * 3))
    true_rate, moved = labels[there, 1].mean(), said[there, 1].mean()
    assert moved == pytest.approx(true_rate, abs=0.01) and true_rate > 1.3 * said[here, 1].mean()
    priors = labels[here].mean(axis=0)
    assert reestimate_priors(said[there], priors, "multilabel")[1][1] > true_rate + 0.03
    texts = TextComparison(0.58, 0.01, np.arange(20_000), hidden[here, 1], hidden[there, 1], 0, int(there.sum()))
    found = simulate_correction(
        Task("macro_f1"), rule, labels[here], said[here], said[there], np.array([1]), texts, labels[here], 0
    )
    assert found.is_offered  # nothing speaks against it, and still:
    corrected = correct_shifted(said[there], priors, (1,), "multilabel")
    with_it, without = (macro_f1(labels[there], decide(rule, each)) for each in (corrected, said[there]))
    assert with_it < without
    (line,) = correction_lines(Task("macro_f1"), found)
    assert "Test texts cannot tell the two apart. Use it only if you know that the rates alone changed" in line
