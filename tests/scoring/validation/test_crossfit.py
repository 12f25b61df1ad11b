import numpy as np
import pytest
from made_up import give, make_runs

from foldblend.scoring.ensembling.strategies import fit_strategies
from foldblend.scoring.inputs import Partition
from foldblend.scoring.thresholds.rules import settle, tune_rule
from foldblend.scoring.validation.choice import cross_fit, predict_outer


def test_a_partition_knows_every_set_that_is_left_out():
    partition = Partition(np.array([2, 0, 1, 0, 2]))
    assert partition.left_out == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    assert partition.fit_without(2, 0) == 5
    assert partition.fit_without(1, 1) == 2
    assert [rows.tolist() for rows in partition.rows] == [[1, 3], [2], [0, 4]]
    assert partition.subsets[5].tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["shrunk_stack", "hill_climbing", "mean_of_blends"])
def test_answers_of_a_part_do_not_change_with_its_own_labels(name):
    runs = make_runs(n_rows=200)

    def answers():
        given = give(runs)
        tunings = ("adaptive", "robust", "exact")
        return [fit.answer for fit in cross_fit(name, fit_strategies(given, [name])[name], given, tunings)]

    before = answers()
    runs.labels[runs.fold == 3] ^= True
    for one, other in zip(before, answers(), strict=True):
        assert np.array_equal(one[runs.fold == 3], other[runs.fold == 3])
        assert not np.array_equal(one[runs.fold != 3], other[runs.fold != 3])


def test_adaptive_thresholds_of_a_part_are_for_its_own_rows_and_calibrated_on_the_others():
    given = give(make_runs(n_rows=400))
    strategy = fit_strategies(given, ["mean_of_blends"])["mean_of_blends"]
    fit = cross_fit("mean_of_blends", strategy, given, ("adaptive",))[0]
    for part, probs in enumerate(strategy.predict_parts(given.scores, given.partition)):
        held = given.partition.part == part
        rule = settle(tune_rule(given.task, "adaptive", probs[~held], given.labels[~held]), probs[held])
        assert np.array_equal(fit.answer[held], probs[held] >= rule.thresholds)


def test_noise_scores_no_better_than_luck_cross_fitted_and_better_in_sample():
    """Runs that know nothing: the in-sample score flatters, the cross-fitted one is what new rows give."""
    rng, gaps = np.random.default_rng(0), []
    for seed in range(8):
        runs = make_runs(n_rows=150, seed=seed)
        runs.scores.runs[:] = [rng.normal(size=run.shape).astype(np.float32) for run in runs.scores.runs]
        given = give(runs)
        fit = cross_fit("label_weights", fit_strategies(given, ["label_weights"])["label_weights"], given, ("exact",))[
            0
        ]
        gaps.append(fit.in_sample - fit.score)
    assert np.mean(gaps) > 0.03


def test_a_metric_of_probabilities_gets_the_cross_fitted_probabilities():
    given = give(make_runs(), "macro_auc")
    strategy = fit_strategies(given, ["label_weights"])["label_weights"]
    fit = cross_fit("label_weights", strategy, given, given.task.tunings)[0]
    assert np.abs(fit.answer - predict_outer(strategy, given)).max() < 1e-5  # other products, other last digits


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "log_loss"])
def test_one_label_a_row(metric):
    given = give(make_runs(kind="multiclass"), metric, "multiclass")
    for fit in cross_fit(
        "shrunk_stack", fit_strategies(given, ["shrunk_stack"])["shrunk_stack"], given, given.task.tunings
    ):
        assert fit.answer.sum(axis=1) == pytest.approx(np.ones(len(fit.answer)), abs=1e-5)
