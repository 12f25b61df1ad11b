"""Searches that only call the metric, against those that know its formula, and against all thresholds there are."""

from itertools import product

import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.inputs import sigmoid
from foldblend.scoring.metrics.formulas import macro_f1, micro_f1, samples_f1
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.thresholds.exact import climb_offsets, climb_thresholds, shift_thresholds, tune_thresholds
from foldblend.scoring.thresholds.rules import EXACT_SEARCHES


def case(n_rows=600, n_labels=4, seed=0):
    runs = make_runs(n_rows=n_rows, n_labels=n_labels, noise=(1.0,), seed=seed)
    return sigmoid(runs.scores.runs[0]), runs.labels


@pytest.mark.parametrize("metric", EXACT_SEARCHES)
def test_a_climb_comes_near_the_metrics_own_search(metric):
    probs, labels = case()
    score = METRICS[metric].score
    ours = climb_thresholds(score, tune_thresholds(probs, labels), probs, labels)
    own = EXACT_SEARCHES[metric](probs, labels)
    assert score(labels, probs >= ours) >= score(labels, probs >= own) - 0.01


def test_no_thresholds_are_better_on_few_rows():
    for seed in range(10):
        probs, labels = case(n_rows=12, n_labels=2, seed=seed)
        found = climb_thresholds(macro_f1, tune_thresholds(probs, labels), probs, labels)
        tried = product(*([*probs[:, label], 2.0] for label in range(2)))
        best = max(macro_f1(labels, probs >= np.array(each)) for each in tried)
        assert macro_f1(labels, probs >= found) == pytest.approx(best)


@pytest.mark.parametrize("score", [macro_f1, micro_f1, samples_f1])
def test_a_step_for_all_labels_is_never_worse_than_none(score):
    probs, labels = case()
    start = np.full(4, 0.9, np.float32)
    moved = shift_thresholds(score, start, probs, labels)
    assert score(labels, probs >= moved) > score(labels, probs >= start)
    assert moved.dtype == np.float32


def test_offsets_undo_a_known_bias():
    rng = np.random.default_rng(0)
    labels = np.eye(3, dtype=bool)[rng.integers(0, 3, 1000)]
    plain = (2 * labels + rng.normal(size=labels.shape)).astype(np.float32)
    biased = plain + np.float32([1.5, 0, -1])

    def accuracy(offsets, values):
        return ((values + offsets).argmax(axis=1) == labels.argmax(axis=1)).mean()

    found = climb_offsets(METRICS["accuracy"].score, biased, labels)
    assert accuracy(found, biased) >= accuracy(np.zeros(3), plain) - 0.01 > accuracy(np.zeros(3), biased)
