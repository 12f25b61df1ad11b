import numpy as np
import pytest

from foldblend.scoring.probs import sigmoid
from foldblend.scoring.validation.shift import compare_means, find_shifted, reestimate_priors


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
