import numpy as np
import pytest

from foldblend.predictions import TextComparison
from foldblend.scoring.inputs import Task, sigmoid
from foldblend.scoring.thresholds.rules import Rule
from foldblend.scoring.validation.shift import (
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
    assert find_shifted(compare_means(here, there[None]), here, there[None]).tolist() == [1]
    _, same = make_rows([0.2, 0.2, 0.2], 4000, 2)
    assert find_shifted(compare_means(here, same[None]), here, same[None]).tolist() == []


def test_false_alarms_are_as_rare_as_promised():
    smallest = [
        compare_means(make_rows([0.2] * 5, 500, seed)[1], make_rows([0.2] * 5, 300, seed + 1000)[1][None]).min()
        for seed in range(300)
    ]
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
    assert found.texts_are_the_same and found.is_advised


def test_it_is_not_advised_if_the_texts_changed_or_nobody_compared_them():
    changed, unknown = (simulate([0.2, 0.5, 0.2], texts) for texts in (compared(0.76), None))
    assert changed.gain_if_rates > 0 and not changed.texts_are_the_same and not changed.is_advised
    assert unknown.auc is None and not unknown.is_advised


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
