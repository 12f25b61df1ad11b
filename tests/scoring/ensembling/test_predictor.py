import json
from dataclasses import replace

import numpy as np
import pytest
from made_up import give, make_runs

from foldblend.scoring.ensembling.predictors import Recipe, predict_folds, recipe_from_record
from foldblend.scoring.ensembling.strategies import FOR_ORDER, STRATEGIES, fit_strategies
from foldblend.scoring.inputs import Scores
from foldblend.scoring.thresholds.rules import Rule


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_recipe_survives_json_bit_for_bit(name, kind):
    given = give(make_runs(n_rows=120, kind=kind), "macro_f1", kind)
    predictor = fit_strategies(given, [name])[name].predictor(5, 0)
    rule = (
        Rule(thresholds=np.full(4, 0.3, np.float32)) if kind == "multilabel" else Rule(offsets=np.zeros(4, np.float32))
    )
    recipe = Recipe(kind, predictor, rule, given.labels.mean(axis=0), (1,))
    again = recipe_from_record(json.loads(json.dumps(recipe.to_record())))
    test_folds = [np.stack([run, run + 1]) for run in given.scores.runs]
    fold_probs = recipe.fold_probs(test_folds)
    assert np.array_equal(again.fold_probs(test_folds), fold_probs)
    for one, other in zip(recipe.answer(fold_probs), again.answer(fold_probs), strict=True):
        assert np.array_equal(one, other)
    if kind == "multiclass" and name not in FOR_ORDER:  # ranks are for labels one by one
        assert fold_probs.sum(axis=2).ravel() == pytest.approx(np.ones(240), abs=1e-4)


def test_a_run_without_fold_models_joins_every_fold():
    given = give(make_runs(n_rows=50, noise=(1.0, 1.0)))
    predictor = fit_strategies(given, ["mean_probs"])["mean_probs"].predictor(5, 0)
    first, second = given.scores.runs
    both = predict_folds(predictor, [np.stack([first, first]), second[None]])
    assert np.array_equal(both[0], both[1])
    assert both.shape == (2, 50, 4)


def test_only_shifted_labels_are_moved():
    rng = np.random.default_rng(0)
    fold_probs = rng.random((1, 400, 3), np.float32)
    recipe = Recipe("multilabel", None, Rule(), np.full(3, 0.1), (2,))
    probs, _ = recipe.answer(fold_probs)
    assert np.array_equal(probs[:, :2], fold_probs[0, :, :2])
    assert not np.array_equal(probs[:, 2], fold_probs[0, :, 2])


@pytest.mark.parametrize("name", ["mean_probs", "mean_logits", "shrunk_stack", "mean_ranks"])
def test_a_recipe_of_groups_reads_their_means_and_needs_only_the_runs_that_it_uses(name):
    given = give(make_runs(n_rows=60, noise=(1.0, 1.0, 1.0, 1.0)))
    runs = given.scores.runs
    means = [(runs[0] + runs[3]) / 2, runs[1]]
    predictor = fit_strategies(replace(given, scores=Scores(means)), [name])[name].predictor(5, 0)
    recipe = Recipe("multilabel", predictor, Rule(), groups=((0, 3), (1,)))
    again = recipe_from_record(json.loads(json.dumps(recipe.to_record())))
    expected = predict_folds(predictor, [table[None] for table in means])
    assert again.used_runs(4) == [0, 1, 3]  # run 2 belongs to no group
    found = again.of_used_runs(4).fold_probs([runs[k][None] for k in again.used_runs(4)])
    assert np.allclose(found, expected, atol=1e-6)
