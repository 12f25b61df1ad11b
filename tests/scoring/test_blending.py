from dataclasses import replace

import numpy as np
import pytest
from made_up import make_runs

from foldblend.errors import UserError
from foldblend.scoring.arrays import blend_arrays
from foldblend.scoring.blending import make_blend
from foldblend.scoring.ensembling.strategies import STRATEGIES, find_trusted, quick_score, search_weights
from foldblend.scoring.inputs import Runs, Scores, Task, find_noise, logit, sigmoid, split_into_parts, without_runs
from foldblend.scoring.metrics.table import METRICS, Metric
from foldblend.scoring.report import describe_blend
from foldblend.scoring.thresholds.rules import decide
from foldblend.scoring.validation.bootstrap import Buckets
from foldblend.scoring.validation.choice import compare_lines, measure, pick_line


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
        (
            {"run": 0.195, "shrunk_stack": 0.2, "label_weights": 0.2},
            "shrunk_stack",
        ),  # a run's lead needs to be sure, too
    ],
)
def test_the_trusted_strategy_gives_way_only_to_a_clear_lead(rates, expected):
    task, labels = Task("macro_f1"), make_runs().labels
    buckets = Buckets(np.arange(len(labels)) % 5, 0)
    lines = [measure(task, labels, noisy(labels, rate, seed), buckets) for seed, rate in enumerate(rates.values())]
    trusted = find_trusted(list(rates))
    assert list(rates)[pick_line(compare_lines(lines, trusted, [], 0), trusted)] == expected


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_walks_through(metric, quick_blends):
    kind = "multiclass" if metric == "accuracy" or METRICS[metric].is_ordered else "multilabel"
    runs, task = make_runs(n_rows=120, n_labels=3, noise=(1.0, 1.0, 1.5), kind=kind), Task(metric, kind)
    blend = make_blend(task, runs)
    assert (blend.why.leads.sure <= 0).all() or blend.chosen == int(np.argmax(blend.why.leads.sure))
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


def test_a_forced_strategy_is_taken_and_an_unknown_one_refused():
    runs, task = make_runs(n_rows=100, n_labels=3), Task("macro_f1")
    assert make_blend(task, runs, "mean_logits").choice.name == "mean_logits + robust"
    assert make_blend(task, runs, "run1 + exact").choice.name == "run1 + exact"
    with pytest.raises(ValueError, match="unknown --strategy best. There are: run0"):
        make_blend(task, runs, "best")


def test_one_run_alone_is_taken():
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


@pytest.mark.parametrize("name", ["shrunk_stack", "mean_probs", "steady", "greedy"])
def test_a_run_named_like_a_strategy_is_refused(name):
    """It took the strategy's line in the table, and `shrunk_stack` the place of the trusted one."""
    runs = replace(make_runs(n_rows=100, n_labels=3), names=("run0", name, "run2"))
    with pytest.raises(UserError, match=f"run {name} is named like a strategy"):
        make_blend(Task("macro_f1"), runs)


def test_an_old_strategy_name_is_still_understood():
    runs, task = make_runs(n_rows=100, n_labels=3), Task("macro_f1")
    assert make_blend(task, runs, "steady").choice.name == "shrunk_stack + robust"
    assert make_blend(task, runs, "label + exact").choice.name == "label_weights + exact"


def rare_runs(n_rows=4000, n_positives=2):
    """Three labels, the second with a few positives, the third with a few negatives."""
    runs = make_runs(n_rows=n_rows, n_labels=3, noise=(1.0, 2.0))
    labels = runs.labels.copy()
    labels[:, 1], labels[:, 2] = False, True
    labels[:n_positives, 1], labels[-n_positives:, 2] = True, False
    return replace(runs, labels=labels, group=np.arange(n_rows) // 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_loses_no_label(seed):
    """Above MAX_FIT_ROWS a label without positives made macro-AUC nan for every candidate."""
    runs = rare_runs()
    few, again = runs.sample(400, seed), runs.sample(400, seed)
    assert few.labels.any(axis=0).all() and (~few.labels).any(axis=0).all()
    assert 300 < len(few.labels) < 500
    assert (np.unique(few.group, return_counts=True)[1] == 2).all()
    assert np.array_equal(few.labels, again.labels) and np.array_equal(few.group, again.group)
    assert runs.sample(len(runs.labels), seed) is runs


def test_a_large_competition_with_a_rare_label_has_an_auc(monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.MAX_FIT_ROWS", 300)
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    blend = make_blend(Task("macro_auc"), rare_runs(n_positives=3))
    assert len(blend.compared.labels) < 400
    assert all(np.isfinite(each.score) for each in blend.candidates)


def macro_f2(labels, decisions):
    """A metric that the package has no formula for."""
    hits = (labels & decisions).sum(axis=0)
    return float((5 * hits / np.maximum(4 * labels.sum(axis=0) + decisions.sum(axis=0), 1)).mean())


def brier(labels, probs):
    return float(((labels - probs) ** 2).mean())


@pytest.mark.parametrize(
    "metric, kind",
    [
        (Metric(macro_f2, "decisions"), "multilabel"),
        (Metric(macro_f2, "decisions"), "multiclass"),
        (Metric(brier, "probs", greater_is_better=False), "multilabel"),
    ],
)
def test_a_metric_of_one_function_walks_through(metric, kind, monkeypatch, quick_blends):
    """It failed in the bootstrap before."""
    monkeypatch.setitem(METRICS, "mine", metric)
    task, runs = Task("mine", kind), make_runs(n_rows=150, n_labels=3, noise=(0.7, 1.0), kind=kind)
    blend = make_blend(task, runs)
    fold_probs = np.stack([blend.predictor.predict(runs.scores)] * 2)
    report = describe_blend(task, blend, fold_probs, 0)
    assert report.one_fold.low < report.one_fold.expected < report.one_fold.high
    answer = decide(blend.rule, fold_probs[0])
    assert task.score(runs.labels, answer) > task.score(runs.labels, np.roll(answer, 1, axis=0))


def best_run(task, runs, labels, rng):
    """A strategy of one function: all weight on the best run."""
    return np.eye(len(runs))[np.argmax([quick_score(task, run, labels) for run in runs])]


def test_a_strategy_of_one_function_walks_through(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "best_run", lambda given: search_weights(given, best_run))
    runs = make_runs(n_rows=120, n_labels=3, noise=(0.3, 3.0))
    blend = make_blend(Task("macro_f1"), runs, "best_run")
    assert blend.predictor.coefs.tolist() == [1.0, 0.0]
    assert "best_run + exact" in {each.name for each in blend.candidates}


# ---------- Runs that say nothing


def with_noise(runs, n_noise, seed=77):
    rng = np.random.default_rng(seed)
    noise = [rng.normal(size=runs.labels.shape).astype(np.float32) for _ in range(n_noise)]
    names = (*runs.names, *(f"noise{number}" for number in range(n_noise)))
    return replace(runs, names=names, scores=Scores([*runs.scores.runs, *noise]))


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_hundred_runs_of_noise_are_told_from_runs_that_know_something(kind):
    runs = make_runs(n_rows=300, noise=(0.5, 2.0, 8.0), kind=kind)
    found = find_noise(with_noise(runs, 100))
    assert not set(found) & set(runs.names)
    assert len(found) >= 98  # one of a thousand looks as if it agreed
    few = without_runs(with_noise(runs, 100), found)
    assert few.names[:3] == runs.names and len(few.scores.runs) == len(few.names) == 103 - len(found)


def test_a_run_that_knows_one_label_alone_is_kept():
    runs = with_noise(make_runs(n_rows=400, n_labels=12, noise=(1.0, 1.0)), 1)
    runs.scores.runs[2][:, 0] += 2 * runs.labels[:, 0]
    assert find_noise(runs) == []


def test_one_run_that_knows_something_is_kept_among_noise_and_nothing_is_left_out_if_all_is_noise():
    runs = with_noise(make_runs(n_rows=300, noise=(1.0,)), 4)
    assert "run0" not in find_noise(runs) and len(find_noise(runs)) >= 3
    assert find_noise(without_runs(runs, ["run0"])) == []
    assert find_noise(with_noise(make_runs(noise=(1.0,)), 1)) == []  # of two nobody can tell


def test_runs_of_noise_cost_nothing(monkeypatch):
    """The same blend, to the last bit, as without them."""
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    runs = make_runs(n_rows=150, n_labels=3, noise=(1.0, 1.5))
    noisy_runs = with_noise(runs, 20, seed=3)
    plain, noisy_blend = (
        blend_arrays(
            Task("macro_f1"), dict(zip(each.names, each.scores.runs, strict=True)), runs.labels, runs.fold,
            kind="logits",
        )
        for each in (runs, noisy_runs)
    )  # fmt: skip
    assert len(noisy_blend.noise) == 20
    assert noisy_blend.chosen == plain.chosen and np.array_equal(noisy_blend.thresholds, plain.thresholds)
    assert "Left out, as their predictions agree with no label and no other run: noise0" in "\n".join(noisy_blend.lines)
    assert set(noisy_blend.weights) == set(runs.names)


@pytest.mark.parametrize("metric", ["rmse", "spearman"])
def test_values_are_blended_and_scored_on_their_own_scale(metric):
    """Runs that predict shares of a range from -2 to 8, each with noise of its own."""
    rng = np.random.default_rng(0)
    shares = rng.beta(2, 3, (400, 2)).astype(np.float32)
    drawn = [(logit(shares) + rng.normal(0, 0.8, shares.shape)).astype(np.float32) for _ in range(3)]
    runs = Runs(("a", "b", "c"), Scores(drawn), shares, np.arange(400) % 5, np.arange(400))
    task = Task(metric, scale=np.array([[-2.0, 8.0], [-2.0, 8.0]]))
    blend = make_blend(task, runs)
    report = describe_blend(task, blend, np.stack([blend.oof_probs[:100]] * 3), 0)
    single = max(task.score(shares, sigmoid(run)) for run in drawn)
    assert report.honest > single + 0.02 and blend.choice.strategy not in runs.names
    assert report.one_fold.low <= report.honest <= report.one_fold.high
    if metric == "rmse":  # an error of the values, not of their shares
        error = 10 * np.sqrt(((blend.honest[0] - shares) ** 2).mean(axis=0)).mean()
        assert report.honest == pytest.approx(-error, abs=0.02)
