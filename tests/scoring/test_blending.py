from dataclasses import replace

import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.blending import make_blend
from foldblend.scoring.inputs import Task, split_into_parts
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.report import describe_blend
from foldblend.scoring.thresholds.rules import decide
from foldblend.scoring.validation.bootstrap import Buckets
from foldblend.scoring.validation.choice import Candidate, choose
from foldblend.scoring.validation.crossfit import CrossFit, pack_answer


def candidate(task, name, labels, answer, buckets, is_single=False):
    fit = CrossFit(name, "robust", pack_answer(answer), answer.shape, task.score(labels, answer), 0.0)
    return Candidate(is_single, [], []).with_fit(task, labels, fit, buckets)


def noisy(labels, share, seed):
    return labels ^ (np.random.default_rng(seed).random(labels.shape) < share)


def test_two_folds_are_halved_so_that_something_is_left_to_tune_on():
    fold, group = np.array([0, 1, 0, 0, 1, 1, 0]), np.array([7, 3, 7, 5, 3, 9, 1])
    part = split_into_parts(fold, group)
    assert sorted(set(part.tolist())) == [0, 1, 2, 3]
    assert all(len(set(part[group == name].tolist())) == 1 for name in set(group.tolist()))
    assert all(len(set(fold[part == k].tolist())) == 1 for k in range(4))
    assert split_into_parts(np.array([0, 1, 2]), np.arange(3)).tolist() == [0, 1, 2]
    assert sorted(set(split_into_parts(np.array([0, 1, 0]), np.arange(3)).tolist())) == [0, 1, 2]
    with pytest.raises(ValueError, match="has 2; a blend needs 3"):
        split_into_parts(np.array([0, 0, 1]), np.array([4, 4, 2]))


def test_runs_of_two_folds_blend():
    runs = make_runs(n_rows=40)
    halved = replace(runs, fold=split_into_parts(runs.fold % 2, runs.group))
    blend = make_blend(Task("macro_f1"), halved)
    assert np.isfinite(blend.oof_probs).all() and all(np.isfinite(each.score) for each in blend.candidates)


@pytest.mark.parametrize(
    "rates, expected",
    [
        ({"run": 0.3, "shrunk_stack": 0.2, "label_weights": 0.199}, "shrunk_stack"),
        ({"run": 0.3, "shrunk_stack": 0.2, "label_weights": 0.02}, "label_weights"),
        ({"run": 0.05, "shrunk_stack": 0.2, "label_weights": 0.2}, "run"),
    ],
)
def test_the_trusted_strategy_gives_way_only_to_a_clear_lead(rates, expected):
    task, labels = Task("macro_f1"), make_runs().labels
    buckets = Buckets(np.arange(len(labels)) % 5, 0)
    table = [
        candidate(task, name, labels, noisy(labels, rate, seed), buckets, is_single=name == "run")
        for seed, (name, rate) in enumerate(rates.items())
    ]
    assert table[choose(table, np.ones(len(buckets.starts), bool), 0)].strategy == expected


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_walks_through(metric, monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    kind = "multiclass" if metric == "accuracy" else "multilabel"
    runs, task = make_runs(n_rows=120, n_labels=3, noise=(1.0, 1.0, 1.5), kind=kind), Task(metric, kind)
    blend = make_blend(task, runs)
    singles = [each.score for each in blend.candidates if each.is_single]
    assert blend.choice.score >= max(singles)
    new = make_runs(n_rows=90, n_labels=3, noise=(1.0, 1.0, 1.5), seed=1, kind=kind)
    fold_probs = np.stack([blend.predictor.predict(new.scores)] * 2)
    outcome = describe_blend(task, blend, fold_probs, 0)
    assert outcome.one_fold.low < outcome.one_fold.expected < outcome.one_fold.high
    assert outcome.gain == pytest.approx(0, abs=1e-6)  # two equal fold models
    assert set(outcome.contributions) == set(runs.names) or blend.choice.is_single
    answer = decide(blend.rule, fold_probs[0])
    assert task.score(new.labels, answer) > task.score(new.labels, np.roll(answer, 1, axis=0))


def test_of_two_runs_each_contribution_is_measured_as_well():
    runs, task = make_runs(n_rows=400, noise=(0.5, 3.0)), Task("macro_f1")
    blend = make_blend(task, runs, "shrunk_stack")
    fold_probs = np.stack([blend.predictor.predict(runs.scores)] * 2)
    lost = describe_blend(task, blend, fold_probs, 0).contributions
    assert lost["run0"].gain > 0.05 > abs(lost["run1"].gain)


def test_a_forced_strategy_is_handed_in_and_an_unknown_one_refused():
    runs, task = make_runs(n_rows=100, n_labels=3), Task("macro_f1")
    assert make_blend(task, runs, "mean_logits").choice.name == "mean_logits + robust"
    assert make_blend(task, runs, "run1 + exact").choice.name == "run1 + exact"
    with pytest.raises(ValueError, match="unknown --strategy best. There are: run0"):
        make_blend(task, runs, "best")


def test_one_run_alone_is_handed_in():
    blend = make_blend(Task("macro_f1"), make_runs(n_rows=100, noise=(1.0,)))
    assert blend.choice.is_single


def test_the_same_input_gives_the_same_blend():
    one, other = (make_blend(Task("macro_f1"), make_runs(n_rows=100, n_labels=3)) for _ in range(2))
    assert np.array_equal(one.rule.thresholds, other.rule.thresholds)
    assert one.predictor.to_record() == other.predictor.to_record()


def test_groups_are_never_parted_and_a_sample_keeps_them_whole():
    runs = make_runs(n_rows=1000)
    object.__setattr__(runs, "group", np.arange(1000) // 4)
    for partition in runs.partitions(3, 0)[1:]:
        assert all(len(set(partition.part[runs.group == group])) == 1 for group in range(250))
    few = runs.sample(300, 0)
    assert 200 < len(few.labels) < 400
    assert (np.unique(few.group, return_counts=True)[1] == 4).all()
