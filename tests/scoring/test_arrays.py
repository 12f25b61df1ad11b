"""Arrays in, a blend out: the seam that the notebook API is built on."""

import numpy as np
import pytest
from made_up import make_runs

from foldblend.errors import UserError
from foldblend.scoring.arrays import blend_arrays
from foldblend.scoring.inputs import Task, sigmoid


def tables(n_rows=200, noise=(0.5, 1.0), seed=0, **more):
    runs = make_runs(n_rows=n_rows, n_labels=3, noise=noise, seed=seed, **more)
    return {name: sigmoid(run) for name, run in zip(runs.names, runs.scores.runs, strict=True)}, runs


def test_everything_comes_back_and_new_rows_get_the_answer_of_the_test_rows():
    oof, runs = tables()
    test, _ = tables(n_rows=80, seed=1)
    result = blend_arrays(Task("macro_f1"), oof, runs.labels, runs.fold, test)
    assert result.decisions.shape == (80, 3) and result.decisions.dtype == bool
    assert result.thresholds.shape == (3,)
    assert {name: weights.shape for name, weights in result.weights.items()} == {"run0": (3,), "run1": (3,)}
    assert result.expected["low"] < result.expected["score"] < result.expected["high"]
    assert result.chosen in {row["name"] for row in result.record["table"]}
    assert max(map(len, result.lines)) <= 80
    probs, decisions = result.apply(test)
    assert np.array_equal(probs, result.probs) and np.array_equal(decisions, result.decisions)


def test_each_folds_predictions_tell_what_averaging_gains():
    oof, runs = tables()
    rng = np.random.default_rng(0)
    test = {
        name: np.clip(table + 0.2 * rng.normal(size=(5, 200, 3)), 0, 1) for name, table in tables(seed=1)[0].items()
    }
    result = blend_arrays(Task("macro_f1"), oof, runs.labels, runs.fold, test, strategy="mean_probs")
    assert result.report.n_folds == 5 and result.report.gain > 0
    assert any("5-fold average" in line for line in result.lines)
    assert result.weights["run0"] == pytest.approx([0.5] * 3)


def test_without_test_rows_there_is_a_score_and_a_rule():
    oof, runs = tables()
    result = blend_arrays(Task("macro_auc"), oof, runs.labels.astype(int), runs.fold)
    assert result.decisions is None and result.probs is None and result.thresholds is None
    assert 0.5 < result.expected["score"] <= 1
    probs, decisions = result.apply(oof)
    assert probs.shape == (200, 3) and decisions is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.ones((200, 2))}, r"oof of run run0: shape \(200, 3\); expected \(200, 2\)"),
        ({"labels": np.full((200, 3), 2)}, "expected .N, L. of 0 and 1"),
        ({"folds": np.zeros(200, int)}, "one fold only"),
        ({"folds": np.arange(200) % 5 + 1}, "whole numbers 0 to K-1"),
        ({"oof": {}}, "no runs"),
        ({"oof": {"run0": np.full((200, 3), np.nan)}}, "600 values are not finite"),
        ({"oof": {"run0": np.full((200, 3), 7.0)}}, "Are these logits"),
        ({"oof": {"shrunk_stack": np.full((200, 3), 0.5)}}, "run shrunk_stack is named like a strategy"),
        ({"oof": {"steady": np.full((200, 3), 0.5)}}, "run steady is named like a strategy"),
        ({"test": {"run0": np.zeros((9, 3))}}, "test predictions missing of run run1"),
        ({"test": {"run0": np.zeros((9, 3)), "run1": np.zeros((8, 3))}}, "runs differ in their rows: run0 9, run1 8"),
        ({"strategy": "best"}, "unknown --strategy best"),
    ],
)
def test_refusals(change, message):
    oof, runs = tables()
    given = {"oof": oof, "labels": runs.labels, "folds": runs.fold, **change}
    with pytest.raises(UserError, match=message):
        blend_arrays(Task("macro_f1"), **given)
