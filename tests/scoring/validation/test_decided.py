"""A run's cross-fitted decisions of all rows, its labels' scores and curves, and the labels that it doubts."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from foldblend.scoring.inputs import Runs, Scores, Task, sigmoid
from foldblend.scoring.thresholds.rules import tune_rule, tune_without_parts
from foldblend.scoring.validation.comparing import Comparer, Predicted
from foldblend.scoring.validation.decided import (
    CUTS,
    RECALLS,
    compare_decided,
    decide_run,
    find_suspects,
    row_losses,
    score_labels,
    trace_curves,
)

N, L = 400, 3


def made(metric="macro_f1", kind="multilabel", seed=0):
    """A task, rows without runs, and two runs, the second one worse."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(N, L)) * 2 - [0, 1, 2]
    labels = rng.random((N, L)) < sigmoid(hidden)
    if kind == "multiclass":
        labels = np.eye(L, dtype=bool)[hidden.argmax(axis=1)]
    rows = Runs((), Scores([]), labels, np.arange(N) % 5, np.arange(N))
    task = Task(metric, kind)
    runs = [
        Predicted(f"run{k}", np.arange(N), task.to_scores(hidden + noise * rng.normal(size=(N, L)), "logits"))
        for k, noise in enumerate((0.3, 2.0))
    ]
    return task, rows, runs


@pytest.mark.parametrize(
    "metric, kind",
    [("macro_f1", "multilabel"), ("macro_auc", "multilabel"), ("log_loss", "multiclass"), ("accuracy", "multiclass")],
)
def test_scores_are_those_of_the_comparison(metric, kind):
    task, rows, runs = made(metric, kind)
    comparer = Comparer(task, rows)
    first, second = (decide_run(task, rows, run) for run in runs)
    for run, decided in zip(runs, (first, second), strict=True):
        found = comparer.score(run)
        assert decided.score == pytest.approx(found.score) and decided.error == pytest.approx(found.error)
    behind, expected = compare_decided(first, second), comparer.compare(*runs)
    assert behind.gain == pytest.approx(expected.gain) and behind.high < 0
    if kind == "multiclass":
        assert (first.decisions.sum(axis=1) == 1).all()


def test_a_row_is_decided_without_its_own_label():
    task, rows, runs = made()
    before = decide_run(task, rows, runs[0])
    labels = rows.labels.copy()
    labels[0] = ~labels[0]
    after = decide_run(task, Runs((), rows.scores, labels, rows.fold, rows.group), runs[0])
    assert (before.decisions[rows.fold == 0] == after.decisions[rows.fold == 0]).all()


def test_a_run_of_some_folds_and_unknown_labels():
    task, rows, runs = made()
    part = np.flatnonzero(rows.fold < 2)
    known = np.ones((N, L), bool)
    known[part[0]] = False
    run = decide_run(task, rows, Predicted("part", part, runs[0].scores[part]), known)
    assert run.rows.tolist() == part[1:].tolist() and sorted(run.fold_scores) == [0, 1]


def test_label_scores_are_scikit_learns():
    task, rows, runs = made()
    run = decide_run(task, rows, runs[0])
    found = score_labels(run)
    for ours, theirs in ((found.precision, precision_score), (found.recall, recall_score), (found.f1, f1_score)):
        assert ours == pytest.approx(theirs(run.labels, run.decisions, average=None, zero_division=0))
    assert found.ap == pytest.approx(average_precision_score(run.labels, run.probs, average=None))
    low, high = found.f1_interval
    assert (low < found.f1).all() and (found.f1 < high).all()


def test_curves_are_what_counting_says():
    rng = np.random.default_rng(1)
    probs = rng.random(300).astype(np.float32)
    labels = rng.random(300) < probs**2
    found = trace_curves(probs, labels, rng)
    for k in range(0, len(CUTS), 9):
        assert found.f1[k] == pytest.approx(f1_score(labels, probs >= CUTS[k], zero_division=0))
    for k, recall in enumerate(RECALLS[::7]):
        cut = np.sort(probs[labels])[::-1][int(np.ceil(recall * labels.sum())) - 1]
        assert found.precision[7 * k] == pytest.approx(labels[probs >= cut].mean())
    best = CUTS[found.f1.argmax()]
    assert found.best[0] <= best <= found.best[1] and found.best[1] - found.best[0] < 0.5
    mean, share, rows = found.bins
    assert (
        rows.sum() == 300
        and share @ rows == pytest.approx(labels.sum())
        and mean @ rows == pytest.approx(probs.sum(), rel=1e-5)
    )


def test_row_losses_are_the_log_loss():
    task, rows, runs = made()
    run = decide_run(task, rows, runs[0])
    p = run.probs.astype(float)
    assert row_losses(run) == pytest.approx(-np.where(run.labels, np.log(p), np.log(1 - p)).sum(axis=1), rel=1e-4)


def test_planted_errors_come_first():
    task, rows, runs = made(seed=3)
    probs = np.where(rows.labels, 0.9, 0.1).astype(np.float32)
    wrong = rows.labels.copy()
    wrong[7, 1], wrong[11, 0] = ~wrong[7, 1], ~wrong[11, 0]
    found = find_suspects(wrong, probs, "multilabel")
    assert set(found.order[:2].tolist()) == {7, 11} and found.label[7] == 1 and found.label[11] == 0


def test_of_one_label_the_given_one_is_doubted():
    labels = np.eye(3, dtype=bool)
    probs = np.float32([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    found = find_suspects(labels, probs, "multiclass")
    assert found.order.tolist() == [0, 2, 1] and found.label.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_the_blend_is_cross_fitted_and_better(kind):
    task, rows, runs = made("log_loss", kind)
    blend = Comparer(task, rows).blend(runs, "blend")
    scores = [decide_run(task, rows, run).score for run in (*runs, blend)]
    assert scores[2] > min(scores[:2])
    labels = rows.labels.copy()
    labels[rows.fold == 0] = labels[rows.fold == 0][::-1]
    other = Comparer(task, Runs((), rows.scores, labels, rows.fold, rows.group)).blend(runs, "blend")
    assert (other.scores[rows.fold == 0] == blend.scores[rows.fold == 0]).all()
    assert (other.scores[rows.fold == 1] != blend.scores[rows.fold == 1]).any()


@pytest.mark.parametrize("metric", ["macro_f1", "micro_f1"])
def test_rules_without_parts_are_those_of_the_other_rows_to_the_last_bit(metric):
    rng = np.random.default_rng(5)
    labels = rng.random((240, 4)) < [0.4, 0.2, 0.05, 0.0]
    probs = np.clip(0.4 * labels + rng.random(labels.shape) * 0.6, 0, 1).astype(np.float32)
    task, part = Task(metric), rng.integers(0, 3, 240)
    *without, whole = tune_without_parts(task, "robust", probs, labels, part)
    assert len(without) == 3
    for rule, kept in zip([*without, whole], [*(part != k for k in range(3)), part >= 0], strict=True):
        expected = tune_rule(task.at(kept), "robust", probs[kept], labels[kept])
        assert np.array_equal(rule.thresholds, expected.thresholds)


def test_rows_with_equal_probs_have_one_curve_in_any_order():
    rng = np.random.default_rng(2)
    probs, labels = rng.choice(np.float32([0, 0.1, 0.3, 0.31, 1]), 400), rng.random(400) < 0.3
    first = trace_curves(probs, labels, np.random.default_rng(0))
    order = rng.permutation(400)
    second = trace_curves(probs[order], labels[order], np.random.default_rng(0))
    assert np.array_equal(first.precision, second.precision) and np.array_equal(first.f1, second.f1)
    for k in (20, 38, 39, 108):  # of a cut that many rows have exactly, all of them are decided
        assert first.f1[k] == pytest.approx(f1_score(labels, probs >= CUTS[k], zero_division=0))
