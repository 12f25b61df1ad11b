import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from foldblend.learners.table import label_log_odds, prior_logits, score_heldout


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


def test_the_competitions_metric_is_among_them():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 3)).astype(np.float32), rng.random((300, 3)) < 0.3
    logits += labels
    rates = labels.mean(0)
    decisions = logits >= [np.quantile(column, 1 - rate) for column, rate in zip(logits.T, rates)]
    expected = {
        "weighted_f1": f1_score(labels, decisions, average="weighted"),
        "subset_accuracy": accuracy_score(labels, decisions),
        "macro_auc": roc_auc_score(labels, logits),
        "log_loss": np.mean([log_loss(labels[:, j], expit(logits[:, j].astype(float))) for j in range(3)]),
    }
    for metric, value in expected.items():
        got = score_heldout(logits, labels, rates, "multilabel", metric)
        assert got.keys() == {"macro_f1", metric} and got[metric] == pytest.approx(value, abs=1e-6)
    one = np.eye(3, dtype=bool)[logits.argmax(1) * (rng.random(300) < 0.7)]
    got = score_heldout(logits, one, one.mean(0), "multiclass", "log_loss")
    assert got["log_loss"] == pytest.approx(log_loss(one.argmax(1), softmax(logits.astype(float), axis=1)), abs=1e-6)
    assert got.keys() == {"macro_f1", "accuracy", "log_loss"}


def test_auc_is_of_the_labels_that_a_fold_has_both_kinds_of():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 3)).astype(np.float32), rng.random((50, 3)) < 0.3
    labels[:, 1] = False
    got = score_heldout(logits, labels, labels.mean(0), "multilabel", "macro_auc")["macro_auc"]
    assert got == pytest.approx(roc_auc_score(labels[:, [0, 2]], logits[:, [0, 2]]))
    nobody = np.zeros_like(labels)
    assert score_heldout(logits, nobody, labels.mean(0), "multilabel", "macro_auc")["macro_auc"] == 0.5


def test_priors_are_the_rates_and_never_infinite():
    labels = np.zeros((1000, 3), bool)
    labels[:200, 1], labels[:, 2] = True, True
    odds = label_log_odds(labels)
    assert np.isfinite(odds).all() and odds.dtype == np.float32
    assert 1 / (1 + np.exp(-odds[1])) == pytest.approx(0.2, abs=1e-3)
    one = np.eye(3, dtype=bool)[np.r_[np.zeros(700, int), np.ones(300, int)]]
    logits = prior_logits(one, "multiclass")
    assert np.exp(logits) / np.exp(logits).sum() == pytest.approx([0.7, 0.3, 0.0], abs=1e-3)
