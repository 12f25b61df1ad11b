"""Scores where some cells are unknown: each label on the rows in which it is known, whatever stands in the others."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.blending import make_blend
from foldblend.scoring.inputs import Scores, Task, score_known, to_probs
from foldblend.scoring.metrics.table import METRICS, score_cells
from foldblend.scoring.report import TestFacts, describe_blend, find_shift
from foldblend.scoring.thresholds.robust import count_scores, expected_f1_thresholds
from foldblend.scoring.validation.bootstrap import Buckets, make_additive, resample
from foldblend.scoring.validation.comparing import Predicted
from foldblend.scoring.validation.decided import decide_run
from foldblend.scoring.validation.shift import mean_run_probs

RNG = np.random.default_rng(0)
LABELS, PROBS = RNG.random((80, 3)) < 0.4, RNG.random((80, 3)).astype(np.float32)
KNOWN = RNG.random((80, 3)) < [0.9, 0.5, 0.3]
BY_LABEL = ["macro_auc", "macro_ap", "log_loss"]


def by_hand(metric, labels, probs, known):
    scores = [METRICS[metric].score(labels[k][:, [c]], probs[k][:, [c]]) for c, k in enumerate(known.T)]
    return np.mean(scores)


@pytest.mark.parametrize("metric", [*BY_LABEL, "rmse", "pearson"])
def test_each_label_is_scored_where_it_is_known(metric):
    entry, labels = METRICS[metric], LABELS if metric in BY_LABEL else PROBS[::-1]
    assert score_cells(entry, labels, PROBS, KNOWN) == pytest.approx(by_hand(metric, labels, PROBS, KNOWN))
    whole = score_cells(entry, labels, PROBS, np.ones_like(KNOWN))
    assert whole == pytest.approx(entry.score(labels, PROBS), rel=1e-6)


def test_what_cannot_be_scored_is_left_out():
    known = KNOWN.copy()
    known[LABELS[:, 2], 2] = False  # no positive of label 2 is known, and nothing of label 1
    known[:, 1] = False
    one = METRICS["macro_auc"].score(LABELS[known[:, 0]][:, [0]], PROBS[known[:, 0]][:, [0]])
    assert score_cells(METRICS["macro_auc"], LABELS, PROBS, known) == pytest.approx(one)
    assert score_cells(METRICS["macro_ap"], LABELS, PROBS, known) < 1
    assert score_cells(METRICS["map_at_3"], LABELS, PROBS, np.zeros_like(KNOWN)) == 0


@pytest.mark.parametrize("metric", BY_LABEL)
def test_unknown_cells_change_no_score(metric):
    """Every row has an unknown cell, so that no row is known as a whole."""
    runs = make_runs(300, 3)
    known = np.arange(300)[:, None] % 3 != np.arange(3)
    task = Task(metric)
    found = []
    for filler in (-9.0, 9.0):  # what models say of cells that nobody knows
        scores = [np.where(known, run, np.float32(filler)) for run in runs.scores.runs]
        masked = score_known(replace(runs, scores=Scores(scores), labels=runs.labels & known), known, task)
        blend = make_blend(task, masked)
        found.append([candidate.score for candidate in blend.candidates])
        probs = to_probs(runs.scores.runs[0], "multilabel")
        single = next(each for each in blend.candidates if each.name.startswith("run0"))
        sign = METRICS[metric].sign
        assert sign * single.score == pytest.approx(by_hand(metric, runs.labels, probs, known), rel=1e-5)
        described = describe_blend(task, blend, None, 0)
        assert described.one_fold.low < described.one_fold.expected < described.one_fold.high
    assert found[0] == found[1]
    rows = replace(runs, names=(), scores=Scores([]), labels=runs.labels & known)
    decided = decide_run(task, rows, Predicted("run0", np.arange(300), runs.scores.runs[0]), known)
    assert decided.score == pytest.approx(sign * by_hand(metric, runs.labels, probs, known), rel=1e-5)


@pytest.mark.parametrize("metric", [*BY_LABEL, "rmse"])
def test_the_bootstrap_is_as_wide_as_rows_drawn_anew(metric):
    """The standard deviation by influences against scores of resampled rows."""
    labels = LABELS if metric in BY_LABEL else np.where(LABELS, 0.7, 0.2)
    task = Task(metric, known=KNOWN)
    buckets = Buckets(np.zeros(80, np.int64), 0, np.arange(80))
    fast = resample([make_additive(task, labels, PROBS, buckets)], buckets.everything, 1.0, 400, 0)
    rng, slow = np.random.default_rng(1), []
    for _ in range(400):
        rows = rng.integers(0, 80, 80)
        slow.append(task.at(rows).score(labels[rows], PROBS[rows]))
    assert fast.std() == pytest.approx(np.std(slow), rel=0.25)
    assert fast.mean() == pytest.approx(task.score(labels, PROBS), abs=0.02)


def test_unknown_labels_are_no_shift():
    """Half of the cells of a label are unknown, and test rows are of the same kind."""
    runs, task = make_runs(2_000, 3), Task("macro_f1")
    known = np.ones((1_000, 3), bool)
    known[:, 0] = np.arange(1_000) % 2 == 0
    here, test = runs.at(np.arange(1_000)), np.stack([to_probs(run[1_000:], "multilabel") for run in runs.scores.runs])
    masked = score_known(replace(here, labels=here.labels & known), known, task)
    blend = make_blend(task, masked, "run0")
    there = test[:1]
    means = mean_run_probs(task, Scores(here.scores.runs[:1])), there
    facts = TestFacts(means, training=(here.labels & known, here.group))
    assert not len(find_shift(task, blend, there, facts, 0).shifted)
    assert 0 in find_shift(task, blend, there, TestFacts(), 0).shifted  # as it was, by rows of which nobody knows
    far = TestFacts((means[0], there**4), training=facts.training)
    found = find_shift(task, blend, there**4, far, 0)
    assert 0 in found.shifted and found.correction is not None


def test_an_interval_has_a_width_even_if_no_row_is_wrong():
    labels = make_runs(90, 2).labels
    runs = replace(make_runs(90, 2, noise=(1.0,)), scores=Scores([np.where(labels, 6.0, -6.0).astype(np.float32)]))
    for metric in ("macro_f1", "subset_accuracy"):
        found = describe_blend(Task(metric), make_blend(Task(metric), runs), None, 0).one_fold
        assert found.low <= found.expected - 0.9 * 3 / 90 and found.high <= 1


def test_a_steep_calibration_of_rows_without_a_label_decides_nothing():
    counted = count_scores(np.full((40, 2), 1e-7, np.float32))
    wanted = expected_f1_thresholds(counted, np.float64([400, 1]), np.zeros(2))
    assert np.isfinite(wanted).all()
