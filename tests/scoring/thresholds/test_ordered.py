"""Thresholds on the expected class against all that there are, and against the likeliest class."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from foldblend.scoring.metrics.formulas import quadratic_weighted_kappa
from foldblend.scoring.thresholds.rules import Task, decide, decide_by_steps, expected_class, tune_rule, tune_steps


def graded(n, n_labels, seed=0, noise=1.2):
    """Grades, most of them in the middle, and probabilities of a reader who sees them through noise."""
    rng = np.random.default_rng(seed)
    grades = np.clip(np.round(rng.normal((n_labels - 1) / 2, 1.1, n)), 0, n_labels - 1).astype(int)
    seen = grades + noise * rng.normal(size=n)
    probs = np.exp(-((seen[:, None] - np.arange(n_labels)) ** 2) / 2 / noise**2)
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32), np.eye(n_labels, dtype=bool)[grades]


def test_a_row_gets_the_class_whose_step_it_reaches():
    probs = np.float32([[1, 0, 0], [0.2, 0.2, 0.6], [0, 0, 1]])
    assert expected_class(probs) == pytest.approx([0, 1.4, 2])
    assert decide_by_steps(np.float32([0.5, 1.5]), probs).argmax(axis=1).tolist() == [0, 1, 2]
    assert decide_by_steps(np.float32([0, 1.2]), probs).argmax(axis=1).tolist() == [1, 2, 2]


@pytest.mark.parametrize("seed", range(5))
def test_no_thresholds_are_better_on_few_rows(seed):
    probs, labels = graded(25, 3, seed)
    values = [*np.unique(expected_class(probs)), 9.0]
    best = max(
        quadratic_weighted_kappa(labels, decide_by_steps(np.float32(steps), probs))
        for steps in combinations_with_replacement(values, 2)
    )
    ours = quadratic_weighted_kappa(labels, decide_by_steps(tune_steps(probs, labels), probs))
    assert ours >= best - 0.02


def test_they_beat_the_likeliest_class_on_new_rows():
    task = Task("quadratic_weighted_kappa", "multiclass")
    (probs, labels), (new_probs, new_labels) = graded(3000, 6), graded(3000, 6, seed=1)
    scores = {
        tuning: task.score(new_labels, decide(tune_rule(task, tuning, probs, labels), new_probs))
        for tuning in task.tunings
    }
    assert scores["steps"] > scores["argmax"] + 0.005


def test_one_class_alone_and_equal_rows_are_answered():
    labels = np.zeros((4, 3), bool)
    labels[:, 1] = True
    probs = np.full((4, 3), 1 / 3, np.float32)
    assert decide_by_steps(tune_steps(probs, labels), probs).sum(axis=1).tolist() == [1] * 4
