"""Moving and swapping groups makes folds more even, and as even as can be where that can be checked."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

import foldblend.folding.draw as balance_module
from foldblend.folding.draw import balance


def unevenness(kinds, counts):
    """The sum that `balance` lowers, written out."""
    totals = counts.sum(axis=1) @ kinds
    ideal = totals / counts.shape[1]
    return (((counts.T @ kinds - ideal) ** 2) / np.maximum(ideal, 1 / counts.shape[1])).sum()


problems = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(deadline=None)
@given(problems)
def test_never_less_even_and_every_group_stays(rng):
    kinds = rng.integers(0, 3, (rng.integers(1, 9), rng.integers(1, 5)))
    counts = rng.integers(0, 6, (len(kinds), rng.integers(2, 5)))
    result = balance(csr_array(kinds), counts)
    np.testing.assert_array_equal(result.sum(axis=1), counts.sum(axis=1))
    assert result.min() >= 0
    assert unevenness(kinds, result) <= unevenness(kinds, counts) + 1e-9


@settings(deadline=None)
@given(problems)
def test_no_single_step_is_left_that_helps(rng):
    kinds = np.unique(rng.integers(0, 3, (5, 3)), axis=0)
    result = balance(csr_array(kinds), rng.integers(0, 5, (len(kinds), 3)))
    least = unevenness(kinds, result)
    steps = [(None, None), *product(range(len(kinds)), range(3))]
    for (one, a), (two, b) in product(steps[1:], steps):
        for target in range(3):
            changed = result.copy()
            changed[one, a] -= 1
            changed[one, target if two is None else b] += 1
            if two is not None:
                changed[two, b] -= 1
                changed[two, a] += 1
            if changed.min() >= 0:
                assert unevenness(kinds, changed) >= least - 1e-9


@pytest.mark.parametrize("n_folds", [2, 3, 7])
def test_independent_labels_come_out_exact(n_folds):
    """All in one fold at first; every label, and the rows, end within one of their share."""
    kinds = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    counts = np.zeros((4, n_folds), dtype=np.int64)
    counts[:, 0] = [100, 41, 9, 300]
    reached = balance(csr_array(kinds), counts).T @ kinds
    assert np.abs(reached - reached.mean(axis=0)).max() < 1


def test_more_kinds_than_candidates(monkeypatch):
    rng = np.random.default_rng(0)
    kinds = np.unique(np.c_[rng.random((400, 12)) < 0.2, np.ones(400)].astype(np.int64), axis=0)
    counts = rng.integers(0, 3, (len(kinds), 5))
    monkeypatch.setattr(balance_module, "CANDIDATES", 16)
    reached = balance(csr_array(kinds), counts).T @ kinds
    assert np.abs(reached - reached.mean(axis=0)).max() < 1.5
