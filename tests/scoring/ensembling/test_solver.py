"""The shared solver against scikit-learn, subset by subset."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from foldblend.scoring.ensembling.stacking import fit_logistic
from foldblend.scoring.inputs import Partition


def make_problem(n_rows=400, n_features=4, rate=0.3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    labels = rng.random(n_rows) < 1 / (1 + np.exp(-(features @ rng.normal(size=n_features) + np.log(rate))))
    return np.c_[features, np.ones(n_rows, np.float32)], labels, Partition(rng.integers(0, 4, n_rows))


def test_every_subset_has_the_coefficients_of_its_own_regression():
    features, labels, partition = make_problem()
    features, labels, part = features[partition.order], labels[partition.order], partition.part[partition.order]
    penalty = np.r_[np.full(4, 3.0), 0.0]
    coefs = fit_logistic(features, labels, partition.slices, partition.subsets, np.zeros(5), penalty)
    for fit, out in enumerate(partition.left_out):
        rows = ~np.isin(part, out)
        model = LogisticRegression(C=1 / 3, tol=1e-10, max_iter=1000).fit(features[rows, :4], labels[rows])
        assert coefs[:4, fit] == pytest.approx(model.coef_[0], abs=2e-3)
        assert coefs[4, fit] == pytest.approx(model.intercept_[0], abs=2e-3)


def test_a_strong_penalty_keeps_the_prior():
    features, labels, partition = make_problem()
    prior = np.array([1.0, -1.0, 0.5, 0.0, 0.2])
    coefs = fit_logistic(
        features[partition.order], labels[partition.order], partition.slices, partition.subsets, prior, np.full(5, 1e7)
    )
    assert coefs == pytest.approx(np.repeat(prior[:, None], len(partition.subsets), axis=1), abs=1e-3)


def test_separable_rows_of_a_rare_label_stay_finite():
    features, _, partition = make_problem(n_rows=60)
    labels = np.zeros(60, bool)
    labels[:2] = True
    features[:2, 0] += 20
    coefs = fit_logistic(
        features[partition.order], labels[partition.order], partition.slices, partition.subsets,
        np.zeros(5), np.r_[np.ones(4), 1e-2],
    )  # fmt: skip
    assert np.isfinite(coefs).all()
    assert np.abs(coefs).max() < 50
