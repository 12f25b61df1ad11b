"""Exact thresholds against exhaustive search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.scoring.metrics.formulas import label_f1
from foldblend.scoring.thresholds.exact import midpoints, tune_thresholds


def best_f1(probs, labels):
    """The highest F1 that any cut of one label reaches, by trying every distinct prob and a cut above all."""
    cuts = [*np.unique(probs), 2.0]
    return max(label_f1(labels[:, None], (probs >= cut)[:, None])[0] for cut in cuts)


@settings(max_examples=200, deadline=None)
@given(n_rows=st.integers(1, 14), seed=st.integers(0, 10**6), levels=st.sampled_from([2, 6, 1000]))
def test_no_cut_is_better(n_rows, seed, levels):
    rng = np.random.default_rng(seed)
    probs = (rng.integers(0, levels + 1, (n_rows, 3)) / levels).astype(np.float32)
    labels = rng.random((n_rows, 3)) < 0.5
    reached = label_f1(labels, probs >= tune_thresholds(probs, labels))
    assert reached == pytest.approx([best_f1(probs[:, label], labels[:, label]) for label in range(3)])


def test_the_example_of_the_docstring():
    labels = np.array([[0], [1], [1]], bool)
    assert tune_thresholds(np.float32([[0.2], [0.6], [0.9]]), labels) == pytest.approx([0.4])


def test_a_label_without_a_positive_is_cut_at_one_half():
    assert tune_thresholds(np.float32([[0.2], [0.9]]), np.zeros((2, 1), bool)) == [0.5]


def test_neighbouring_floats_are_still_parted():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    cut = midpoints(np.array([low]), np.array([high]))[0]
    assert low < cut <= high


@pytest.mark.parametrize("probs, message", [([[0.5, 0.5]], "same"), ([[3.0]], "logits")])
def test_refusals(probs, message):
    with pytest.raises(ValueError, match=message):
        tune_thresholds(np.float32(probs), np.ones((1, 1), bool))
