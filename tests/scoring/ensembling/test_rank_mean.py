"""The mean of ranks: no run outweighs the others, the order of one run stays, a record gives the same again."""

import json

import numpy as np
import pytest
from made_up import give, make_runs

from foldblend.scoring.blending import make_blend
from foldblend.scoring.ensembling.predictors import fit_rank_mean, predictor_from_record, used_runs
from foldblend.scoring.ensembling.strategies import offered
from foldblend.scoring.inputs import Scores, Task


def test_the_order_of_a_single_run_stays_beyond_its_oof_rows_too():
    rng = np.random.default_rng(0)
    formula = fit_rank_mean(Scores([rng.normal(size=(200, 2)).astype(np.float32)]), "multilabel").formula
    new = np.linspace(-9, 9, 50, dtype=np.float32)[:, None].repeat(2, axis=1)
    assert (np.diff(formula.predict(Scores([new])), axis=0) > 0).all()


def test_a_run_on_a_larger_scale_does_not_outweigh_the_others():
    runs = make_runs(n_rows=2000, noise=(0.5, 0.5, 3.0))
    loud = Scores([*runs.scores.runs[:2], runs.scores.runs[2] * 20])
    task, truth = Task("macro_auc"), runs.labels
    by_rank, by_logit = (
        task.score(truth, probs)
        for probs in (fit_rank_mean(loud, "multilabel").formula.predict(loud), np.mean(loud.runs, axis=0))
    )
    assert by_rank > by_logit + 0.02


def test_the_answer_has_the_rates_of_the_mean():
    given = give(make_runs(n_rows=1500), "macro_auc")
    probs = fit_rank_mean(given.scores, "multilabel").formula.predict(given.scores)
    assert probs.min() >= 0 and probs.max() <= 1
    assert probs.mean(axis=0) == pytest.approx(given.labels.mean(axis=0), abs=0.05)


def test_a_record_gives_the_same_formula_which_needs_all_runs():
    given = give(make_runs(), "macro_auc")
    formula = fit_rank_mean(given.scores, "multilabel").formula
    again = predictor_from_record(json.loads(json.dumps(formula.to_record())))
    assert np.array_equal(again.predict(given.scores), formula.predict(given.scores))
    assert used_runs(again, 3) == [0, 1, 2] and again.run_weights(3, 4).sum(axis=1) == pytest.approx(np.ones(4))


def test_it_is_tried_only_if_order_is_all_that_counts():
    assert "mean_ranks" in offered(Task("macro_auc"), 3)
    for task in (Task("macro_f1"), Task("log_loss"), Task("macro_auc", "multiclass")):
        assert "mean_ranks" not in offered(task, 3)


def test_a_blend_by_ranks(monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    blend = make_blend(Task("macro_auc"), make_runs(), "mean_ranks")
    assert blend.choice.strategy == "mean_ranks" and blend.choice.score > 0.7
