"""Scores of single runs and their differences, against what they are made of, done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from foldblend.scoring.inputs import Partition, Runs, Scores, Task, sigmoid
from foldblend.scoring.thresholds.rules import decide, tune_rule
from foldblend.scoring.validation.comparing import PENALTY, Comparer, Predicted, compare_over_seeds, fit_weights

TASK = Task("macro_f1")
N = 600


@pytest.fixture(scope="module")
def world():
    """Hidden log-odds, labels drawn from them, five folds of single rows."""
    rng = np.random.default_rng(0)
    hidden = 2 * rng.normal(size=(N, 4)) - [0.0, 0.5, 1.0, 1.5]
    labels = rng.random(hidden.shape) < sigmoid(hidden)
    return hidden, Runs((), Scores([]), labels, np.arange(N) % 5, np.arange(N))


def run_of(hidden, name, noise, rows=None, seed=1):
    rows = np.arange(N) if rows is None else rows
    seen = hidden + noise * np.random.default_rng(seed).normal(size=hidden.shape)
    return Predicted(name, rows, seen[rows].astype(np.float32))


def test_a_score_is_tuned_on_the_other_folds(world):
    hidden, rows = world
    run = run_of(hidden, "a", 0.5)
    answer = np.empty(rows.labels.shape, bool)
    probs = sigmoid(run.scores)
    for fold in range(5):
        held = rows.fold == fold
        answer[held] = decide(tune_rule(TASK, "robust", probs[~held], rows.labels[~held]), probs[held])
    found = Comparer(TASK, rows).score(run)
    assert found.score == pytest.approx(TASK.score(rows.labels, answer), abs=1e-6)
    alone = [TASK.score(rows.labels[rows.fold == k], answer[rows.fold == k]) for k in range(5)]
    assert found.spread == pytest.approx(np.std(alone, ddof=1), abs=1e-6)
    assert 0.005 < found.error < 0.05


@pytest.mark.parametrize("n_folds", [1, 2, 3])
def test_a_half_trained_run_is_scored_on_its_own_rows(world, n_folds):
    hidden, rows = world
    own = np.flatnonzero(rows.fold < n_folds)
    found = Comparer(TASK, rows).score(run_of(hidden, "a", 0.5, own))
    whole = Comparer(TASK, rows).score(run_of(hidden, "a", 0.5))
    assert abs(found.score - whole.score) < 4 * found.error
    assert (found.spread is None) == (n_folds == 1)


def test_runs_are_compared_on_the_rows_that_both_have(world):
    hidden, rows = world
    good, bad = run_of(hidden, "good", 0.2), run_of(hidden, "bad", 3.0, np.flatnonzero(rows.fold < 2), seed=2)
    found = Comparer(TASK, rows).compare(good, bad)
    assert found.high < 0
    again = Comparer(TASK, rows).compare(bad, good)
    assert again.gain == pytest.approx(-found.gain)
    assert Comparer(TASK, rows).compare(good, good).gain == 0
    nowhere = Predicted("c", np.array([], int), np.empty((0, 4), np.float32))
    assert Comparer(TASK, rows).compare(good, nowhere) is None


def test_the_rows_outside_the_common_ones_change_nothing(world):
    hidden, rows = world
    first, second = run_of(hidden, "a", 0.2), run_of(hidden, "b", 1.0, np.flatnonzero(rows.fold != 4), seed=2)
    changed = first.scores.copy()
    changed[rows.fold == 4] *= -1
    found = Comparer(TASK, rows).compare(Predicted("a", first.rows, changed), second)
    assert found == Comparer(TASK, rows).compare(first, second)


def test_what_a_run_adds_is_large_for_news_and_nothing_for_noise(world):
    hidden, rows = world
    one, other = run_of(hidden, "one", 3.0, seed=1), run_of(hidden, "other", 3.0, seed=2)
    noise = Predicted("noise", one.rows, np.random.default_rng(3).normal(size=hidden.shape).astype(np.float32))
    added = Comparer(TASK, rows).measure_additions([one, other, noise])
    assert added["one"].low > 0
    assert added["other"].low > 0
    assert added["noise"].low <= 0.005
    assert Comparer(TASK, rows).measure_additions([one]) == {}


def test_unknown_labels_do_not_count(world):
    hidden, rows = world
    known = np.ones_like(rows.labels)
    known[::7, 2] = False
    masked = replace(rows, labels=rows.labels & known)
    run = run_of(hidden, "a", 0.5)
    changed = run.scores.copy()
    changed[::7, 2] = 9.0
    found = Comparer(TASK, masked, known).score(Predicted("a", run.rows, changed))
    assert found == Comparer(TASK, masked, known).score(run)


def test_weights_are_those_of_scikit_learn(world):
    from sklearn.linear_model import LogisticRegression

    hidden, rows = world
    runs = Scores([run_of(hidden, "a", 1.0, seed=1).scores, run_of(hidden, "b", 2.0, seed=2).scores])
    found = fit_weights(runs, rows.labels, Partition(rows.fold))
    assert found.shape == (6, 2)
    for part in range(6):
        kept = rows.fold != part
        features = np.column_stack([run[kept].reshape(-1) for run in runs.runs])
        model = LogisticRegression(C=1 / PENALTY, tol=1e-8, max_iter=500).fit(features, rows.labels[kept].reshape(-1))
        assert found[part] == pytest.approx(model.coef_[0], abs=2e-3)


def test_a_gain_over_seeds_has_the_error_of_rows_and_of_seeds(world):
    hidden, rows = world
    comparer = Comparer(TASK, rows)
    worse = [run_of(hidden, f"a{seed}", 1.5, seed=seed) for seed in (1, 2, 3)]
    better = [run_of(hidden, f"b{seed}", 0.3, seed=seed) for seed in (4, 5, 6)]
    found = compare_over_seeds(comparer, list(zip(worse, better, strict=True)))
    singles = [comparer.compare(*pair) for pair in zip(worse, better, strict=True)]
    assert found.gains == tuple(each.gain for each in singles) and found.gain == pytest.approx(np.mean(found.gains))
    of_rows = np.mean([(each.high - each.low) / 3.29 for each in singles])
    assert found.error == pytest.approx(np.hypot(of_rows, np.std(found.gains, ddof=1) / np.sqrt(3)), rel=1e-6)
    assert found.exceeds_error and found.is_more_than_noise
    same = compare_over_seeds(comparer, list(zip(worse, worse[1:] + worse[:1], strict=True)))
    assert not same.is_more_than_noise
    alone = compare_over_seeds(comparer, [(worse[0], better[0])])
    assert alone.error == pytest.approx((singles[0].high - singles[0].low) / 3.29)
