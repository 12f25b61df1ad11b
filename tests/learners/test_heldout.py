import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from learners.heldout import label_log_odds, prior_logits, score_heldout


def test_cut_offs_give_the_training_rates():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(1000, 3)).astype(np.float32), rng.random((1000, 3)) < 0.3
    rates = np.array([0.1, 0.5, 0.02])
    ranks = logits.argsort(axis=0).argsort(axis=0)
    decisions = ranks >= 1000 - np.round(1000 * rates)
    assert score_heldout(logits, labels, rates, "multilabel") == {
        "macro_f1": pytest.approx(f1_score(labels, decisions, average="macro"), abs=0.005)
    }


def test_one_label_a_row_is_the_largest_logit():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(200, 4)).astype(np.float32), rng.integers(0, 4, 200)
    got = score_heldout(logits, np.eye(4, dtype=bool)[truth], np.full(4, 0.25), "multiclass")
    assert got["accuracy"] == pytest.approx(accuracy_score(truth, logits.argmax(1)))
    assert got["macro_f1"] == pytest.approx(f1_score(truth, logits.argmax(1), average="macro"))


def test_priors_are_the_rates_and_never_infinite():
    labels = np.zeros((1000, 3), bool)
    labels[:200, 1], labels[:, 2] = True, True
    odds = label_log_odds(labels)
    assert np.isfinite(odds).all() and odds.dtype == np.float32
    assert 1 / (1 + np.exp(-odds[1])) == pytest.approx(0.2, abs=1e-3)
    one = np.eye(3, dtype=bool)[np.r_[np.zeros(700, int), np.ones(300, int)]]
    logits = prior_logits(one, "multiclass")
    assert np.exp(logits) / np.exp(logits).sum() == pytest.approx([0.7, 0.3, 0.0], abs=1e-3)
