"""A blend as a teacher: calibrated labels without each fold, two folds, and which cells are the surest."""

import numpy as np
import pytest

from foldblend.errors import UserError
from foldblend.scoring.blending import fit_without_folds, keep_most_certain, teach_without_folds
from foldblend.scoring.inputs import Runs, Scores, Task, sigmoid

N, L = 3000, 2


def made_runs(n_folds, shift=1.5, seed=0):
    """Runs whose log-odds are `shift` too high, as class weights make them; and the true probabilities."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(N, L)) - [0.5, 2.0]
    labels = rng.random((N, L)) < sigmoid(truth)
    runs = [(truth + shift + 0.3 * rng.normal(size=truth.shape)).astype(np.float32) for _ in range(2)]
    fold = np.arange(N) % n_folds
    return Runs(("a", "b"), Scores(runs), labels, fold, np.arange(N)), sigmoid(truth)


@pytest.mark.parametrize("forced", ["", "mean_probs", "b"])
def test_probabilities_are_calibrated(forced):
    runs, truth = made_runs(3)
    task = Task("macro_f1")
    teachers = fit_without_folds(task, runs, 3, forced)
    probs = teach_without_folds(teachers, [[run] * 3 for run in runs.scores.runs], "multilabel")
    assert probs.shape == (3, N, L) and probs.dtype == np.float32
    assert probs.mean(axis=1) == pytest.approx(np.tile(runs.labels.mean(axis=0), (3, 1)), abs=0.02)
    assert np.abs(probs - truth).mean() < 0.06


def test_two_folds_need_a_strategy_that_is_not_fitted():
    runs, _ = made_runs(2)
    with pytest.raises(UserError, match="--strategy mean_probs"):
        fit_without_folds(Task("macro_f1"), runs, 2)
    teachers = fit_without_folds(Task("macro_f1"), runs, 2, "mean_probs")
    flipped = Runs(runs.names, runs.scores, runs.labels ^ (runs.fold == 0)[:, None], runs.fold, runs.group)
    others = fit_without_folds(Task("macro_f1"), flipped, 2, "mean_probs")
    for own, other in zip(teachers[0].calibration, others[0].calibration, strict=True):
        np.testing.assert_array_equal(own, other)  # fold 0's labels have no share in what teaches it
    assert np.abs(teachers[1].calibration[1] - others[1].calibration[1]).max() > 0.1


def test_the_surest_cells_of_both_ends_are_kept():
    probs = np.float32([[[0.9], [0.8], [0.3], [0.1], [np.nan]]])
    kept = keep_most_certain(probs, 0.5)[0, :, 0]
    np.testing.assert_array_equal(np.isnan(kept), [False, True, True, False, True])
    np.testing.assert_array_equal(keep_most_certain(probs, 1.0), probs)


def test_with_one_label_per_row_whole_rows_are_kept():
    probs = np.float32([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]]])
    kept = keep_most_certain(probs, 0.5, "multiclass")[0]
    np.testing.assert_array_equal(np.isnan(kept), [[False] * 2, [True] * 2, [False] * 2, [True] * 2])
