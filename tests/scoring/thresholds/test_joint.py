"""Joint thresholds: micro F1 against every combination, row-wise scores against moving any one of them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.scoring.metrics.formulas import micro_f1
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.thresholds.exact import ROW_VALUES, common_threshold, tune_micro_thresholds, tune_row_thresholds


def draw(n_rows, n_labels, seed, levels=5):
    rng = np.random.default_rng(seed)
    probs = (rng.integers(0, levels + 1, (n_rows, n_labels)) / levels).astype(np.float32)
    return probs, rng.random((n_rows, n_labels)) < 0.2 + 0.6 * probs


@settings(max_examples=60, deadline=None)
@given(n_rows=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_micro_cuts_are_the_best_of_all_combinations(n_rows, seed):
    probs, labels = draw(n_rows, 3, seed)
    options = [[*np.unique(probs[:, label]), 2.0] for label in range(3)]
    best = max(micro_f1(labels, probs >= np.float32(cuts)) for cuts in product(*options))
    assert micro_f1(labels, probs >= tune_micro_thresholds(probs, labels)) == pytest.approx(best)


@pytest.mark.parametrize("metric", ROW_VALUES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_single_cut_can_be_moved_for_the_better(metric, seed):
    probs, labels = draw(25, 3, seed)
    score, thresholds = METRICS[metric].score, tune_row_thresholds(probs, labels, metric)
    reached = score(labels, probs >= thresholds)
    assert reached >= score(labels, probs >= common_threshold(probs, labels, ROW_VALUES[metric])) - 1e-9
    for label in range(3):
        for cut in [*np.unique(probs[:, label]), 2.0]:
            moved = thresholds.copy()
            moved[label] = cut
            assert score(labels, probs >= moved) <= reached + 1e-9
