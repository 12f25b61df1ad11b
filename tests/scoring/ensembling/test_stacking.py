import numpy as np
import pytest
from made_up import give, make_runs

from foldblend.scoring.ensembling.stacking import fit_shared_weights, fit_stack
from foldblend.scoring.ensembling.strategies import STRATEGIES, fit_single, fit_strategies
from foldblend.scoring.inputs import Partition, sigmoid
from foldblend.scoring.metrics.formulas import log_loss


def test_shared_weights_prefer_the_better_run():
    given = give(make_runs(n_rows=3000, noise=(0.3, 3.0)))
    good, bad = fit_shared_weights(given.scores, given.labels, given.partition)[:2, 0]
    assert good > 5 * abs(bad)


def test_a_stack_is_better_calibrated_than_its_best_run():
    runs = make_runs(n_rows=3000, noise=(1.0, 1.0, 1.0))
    given = give(runs)
    shared = fit_shared_weights(given.scores, given.labels, given.partition)
    stack = fit_stack(given.scores, given.labels, given.partition, shared, "multilabel", (10.0, 100.0))
    held, rest = given.partition.rows[0], given.partition.fit_without(0)
    ours = log_loss(runs.labels[held], stack.predictor(0, rest).predict(given.scores, held))
    assert ours < min(log_loss(runs.labels[held], sigmoid(run[held])) for run in runs.scores.runs)


def test_runs_of_very_different_scales_blend_as_if_they_had_one():
    runs = make_runs(n_rows=2000, noise=(1.0, 1.0))
    given = give(runs)
    plain = fit_strategies(given, ["label_weights"])["label_weights"].predictor(5, 0).predict(given.scores)
    runs.scores.runs[1] = runs.scores.runs[1] * np.float32(6) - np.float32(5)
    scaled = fit_strategies(give(runs), ["label_weights"])["label_weights"].predictor(5, 0).predict(runs.scores)
    assert np.abs(plain - scaled).max() < 0.05


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_part_k_gets_knows_nothing_of_part_k(name, monkeypatch):
    """The labels of part 2 are turned over: every formula for its rows must stay what it was."""
    monkeypatch.setattr(
        "foldblend.scoring.ensembling.stacking.TOLERANCE", 1e-9
    )  # or fits on different labels stop at different last digits
    runs = make_runs(n_rows=200)
    before = fit_strategies(give(runs), [name])[name]
    runs.labels[runs.fold == 2] ^= True
    after = fit_strategies(give(runs), [name])[name]
    partition = Partition(runs.fold)
    for other in range(5):
        fit = partition.fit_without(2, other)
        pair = [strategy.predictor(2, fit).predict(runs.scores) for strategy in (before, after)]
        assert np.abs(pair[0] - pair[1]).max() < 1e-4, other
    whole = [strategy.predictor(5, 0).predict(runs.scores) for strategy in (before, after)]
    assert name.startswith("mean") or np.abs(whole[0] - whole[1]).max() > 1e-2


def test_a_single_run_is_itself():
    given = give(make_runs())
    assert fit_single(given, 1).predictor(0, 0).predict(given.scores) == pytest.approx(sigmoid(given.scores.runs[1]))
