import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from foldblend.learners.linear import learner as logistic
from foldblend.learners.linear.learner import fit_labels, fit_multiclass
from foldblend.settings.run import LogisticSettings


def made_up(n=300, n_features=40, n_labels=5, seed=0):
    """Sparse features (n, D) and labels (n, L) that follow from them, some rare."""
    rng = np.random.default_rng(seed)
    features = sp.random(n, n_features, 0.2, "csr", np.float32, rng)
    logits = features @ rng.normal(0, 3, (n_features, n_labels)) + np.linspace(-3, 1, n_labels)
    return features, rng.random((n, n_labels)) < 1 / (1 + np.exp(-logits))


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(logistic, "GAP", 1e-7)


def reference(features, column, C, balanced):
    """scikit-learn's weights and bias; the bias is a feature of 1 in every row, regularised as ours is."""
    whole = np.hstack([features.toarray().astype(float), np.ones((features.shape[0], 1))])
    weighing = "balanced" if balanced else None
    model = LogisticRegression(C=C, class_weight=weighing, fit_intercept=False, tol=1e-10, max_iter=10_000)
    coefficients = model.fit(whole, column).coef_[0]
    return coefficients[:-1], coefficients[-1]


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
def test_it_is_scikit_learns_solution(exact, balanced, C):
    features, labels = made_up()
    weights, bias = fit_labels(features, labels, LogisticSettings(C, balanced), 0)
    for k, column in enumerate(labels.T):
        expected, expected_bias = reference(features, column, C, balanced)
        assert weights[:, k] == pytest.approx(expected, abs=5e-3) and bias[k] == pytest.approx(expected_bias, abs=5e-3)


def test_ratios_are_features_multiplied(exact):
    features, labels = made_up(n_labels=3)
    ratios = np.random.default_rng(1).normal(0, 2, (features.shape[1], 3)).astype(np.float32)
    ratios[0] = 0.0  # a feature that says nothing of a label
    weights, bias = fit_labels(features, labels, LogisticSettings(), 0, ratios)
    for k, column in enumerate(labels.T):
        expected, expected_bias = reference(features.multiply(ratios[:, k]).tocsr(), column, 1.0, True)
        assert weights[:, k] == pytest.approx(expected * ratios[:, k], abs=5e-3)
        assert bias[k] == pytest.approx(expected_bias, abs=5e-3)
    assert (weights[0] == 0).all()


@pytest.mark.parametrize("n_labels", [1, 16, 17, 40])
def test_cores_change_no_bit(monkeypatch, n_labels):
    features, labels = made_up(n_labels=n_labels)
    results = []
    for n_cores in ("1", "4"):
        monkeypatch.setenv("FOLDBLEND_THREADS", n_cores)
        results.append(np.vstack(fit_labels(features, labels, LogisticSettings(), 0)))
    assert np.array_equal(*results)


@given(seed=st.integers(0, 10_000), C=st.sampled_from([1e-3, 1.0, 100.0]), n=st.integers(3, 60))
@settings(max_examples=40, deadline=None)
def test_no_other_weights_do_better(seed, C, n):
    """The value at the answer is within the gap of what any nearby weights reach."""
    features, labels = made_up(n, 12, 2, seed)
    weights, bias = fit_labels(features, labels, LogisticSettings(C, False), 0)
    rng = np.random.default_rng(seed)
    for k in np.flatnonzero(labels.any(0) & ~labels.all(0)):
        signs = np.where(labels[:, k], 1, -1)

        def value(w, b, signs=signs):
            return (w @ w + b * b) / 2 + C * np.logaddexp(0, -signs * (features @ w + b)).sum()

        found = value(weights[:, k], bias[k])
        for _ in range(20):
            step = rng.normal(0, 0.1, 13)
            assert found <= value(weights[:, k] + step[:-1], bias[k] + step[-1]) * (1 + 2 * logistic.GAP)


def test_what_does_not_end_is_said(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_PASSES", 2)
    monkeypatch.setattr(logistic, "GAP", 0.0)
    features, labels = made_up()
    with pytest.raises(ValueError, match="did not converge in .* Lower --logistic.inverse_regularization"):
        fit_labels(features, labels, LogisticSettings(1e4), 0)


@pytest.mark.parametrize("balanced", [True, False])
def test_shares_and_unknown_labels_are_weights_of_rows(exact, balanced):
    """As scikit-learn with each row twice, weighed by its share and by the rest; unknown rows are left out."""
    features, labels = made_up(n_labels=3)
    rng = np.random.default_rng(1)
    shares = np.clip(labels + rng.choice([-0.3, 0, 0, 0.3], labels.shape), 0, 1).astype(np.float32)
    shares[:, 1] = labels[:, 1]
    shares[rng.random(labels.shape) < 0.2] = np.nan
    weights, bias = fit_labels(features, shares, LogisticSettings(2.0, balanced), 0)
    whole = np.hstack([features.toarray().astype(float), np.ones((len(labels), 1))])
    for k, column in enumerate(shares.T.astype(float)):
        rows = np.flatnonzero(~np.isnan(column))
        share, n = column[rows], len(rows)
        scale = (n / (2 * share.sum()), n / (2 * (n - share.sum()))) if balanced else (1, 1)
        weight = np.r_[share * scale[0], (1 - share) * scale[1]]
        model = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
        model.fit(np.vstack([whole[rows]] * 2), np.repeat([1, 0], n), sample_weight=weight)
        assert weights[:, k] == pytest.approx(model.coef_[0][:-1], abs=2e-3)
        assert bias[k] == pytest.approx(model.coef_[0][-1], abs=2e-3)


def test_whole_shares_give_the_bits_of_labels():
    features, labels = made_up()
    expected = fit_labels(features, labels, LogisticSettings(), 0)
    for found, own in zip(
        fit_labels(features, labels.astype(np.float32), LogisticSettings(), 0), expected, strict=True
    ):
        assert np.array_equal(found, own)


def test_a_label_that_no_row_of_the_fold_has_gets_its_log_odds_alone():
    features, labels = made_up()
    labels[:, 0], labels[:, 1] = False, True
    weights, bias = fit_labels(features, labels, LogisticSettings(), 0)
    assert not weights[:, :2].any() and bias[0] < -6 and bias[1] > 6


def test_shares_of_classes_weigh_the_rows_of_each_class():
    features, labels = made_up(n_labels=3)
    classes = np.eye(3, dtype=bool)[labels.argmax(1)]
    hard = fit_multiclass(features, classes, LogisticSettings())
    soft = fit_multiclass(features, classes.astype(np.float32), LogisticSettings())
    assert soft[0] == pytest.approx(hard[0], abs=1e-3)
    mixed = np.where(classes, 0.6, 0.2).astype(np.float32)
    flat = fit_multiclass(features, mixed, LogisticSettings())
    assert np.abs(flat[0]).max() < np.abs(hard[0]).max() / 2
    only = np.zeros_like(classes)
    only[:, 1] = True
    weights, bias = fit_multiclass(features, only, LogisticSettings())
    assert not weights.any() and bias.argmax() == 1
