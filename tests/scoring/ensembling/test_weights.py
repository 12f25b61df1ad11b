import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.ensembling.predictors import mix
from foldblend.scoring.ensembling.strategies import climb_hill, quick_score, search_coordinates
from foldblend.scoring.inputs import Task, sigmoid


@pytest.mark.parametrize("search", [climb_hill, search_coordinates])
@pytest.mark.parametrize("metric", ["macro_f1", "micro_f1", "macro_auc", "log_loss"])
def test_searched_weights_are_a_mixture_no_worse_than_the_best_run(search, metric):
    runs, task = make_runs(n_rows=250, noise=(1.0, 1.2, 3.0)), Task(metric)
    probs = [sigmoid(run) for run in runs.scores.runs]
    weights = search(task, probs, runs.labels, np.random.default_rng(0))
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = max(quick_score(task, run, runs.labels) for run in probs)
    assert quick_score(task, mix(probs, weights), runs.labels) >= best - 1e-3
