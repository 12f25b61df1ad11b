"""The bucketed bootstrap against one that draws rows, and sums against the metrics themselves."""

import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.inputs import Task, sigmoid
from foldblend.scoring.metrics.formulas import row_f1
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.validation.bootstrap import Additive, Buckets, jackknife, make_additive, resample


def make_case(metric, n_rows=600):
    kind = "multiclass" if metric == "accuracy" or METRICS[metric].is_ordered else "multilabel"
    runs = make_runs(n_rows=n_rows, noise=(1.0,), kind=kind)
    probs, task = sigmoid(runs.scores.runs[0]), Task(metric, kind)
    if task.takes_probs:
        return task, runs, probs
    return task, runs, probs >= 0.4 if kind == "multilabel" else np.eye(4, dtype=bool)[probs.argmax(axis=1)]


@pytest.mark.parametrize("metric", METRICS)
def test_sums_over_all_buckets_give_the_metric(metric):
    task, runs, answer = make_case(metric)
    buckets = Buckets(runs.fold, 0)
    additive = make_additive(task, runs.labels, answer, buckets)
    everything = np.ones(len(buckets.starts), bool)
    assert additive.score(everything) == pytest.approx(task.score(runs.labels, answer), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_spread_equals_that_of_a_bootstrap_of_rows(metric):
    task, runs, answer = make_case(metric)
    buckets = Buckets(runs.fold, 0)
    additive = make_additive(task, runs.labels, answer, buckets)
    ours = resample([additive], np.ones(len(buckets.starts), bool), 1.0, 1500, 0)[:, 0].std()
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(0, len(answer), len(answer))
        drawn.append(task.score(runs.labels[rows], answer[rows]))
    assert ours == pytest.approx(np.std(drawn), rel=0.2)


def test_buckets_stay_within_parts_and_hold_every_row_once():
    part = np.random.default_rng(0).integers(0, 3, 9_001)
    buckets = Buckets(part, 0)
    assert sorted(buckets.order.tolist()) == list(range(9_001))
    for start, stop, name in zip(buckets.starts, [*buckets.starts[1:], 9_001], buckets.parts, strict=True):
        assert (part[buckets.order[start:stop]] == name).all()
    sums = buckets.add_up(np.ones((9_001, 1), bool))
    assert sums.sum(axis=0).tolist() == [9_001, 9_001]


def test_fewer_rows_drawn_spread_more():
    task, runs, answer = make_case("macro_f1")
    buckets = Buckets(runs.fold, 0)
    additive = make_additive(task, runs.labels, answer, buckets)
    everything = np.ones(len(buckets.starts), bool)
    all_rows, quarter = (resample([additive], everything, share, 1500, 0).std() for share in (1.0, 0.25))
    assert quarter == pytest.approx(2 * all_rows, rel=0.15)


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_without_a_formula_spreads_as_the_formula_says(metric):
    """The jackknife, which only calls the metric, against the sums and influences of the package's own metrics."""
    task, runs, answer = make_case(metric, n_rows=2000)
    buckets = Buckets(runs.fold, 0)
    known = make_additive(task, runs.labels, answer, buckets)
    value, influence = jackknife(task.score, runs.labels, answer, buckets)
    called = Additive(buckets.add_up(influence[:, None]), lambda sums: value + sums[:, 0] / sums[:, 1])
    assert called.score(buckets.everything) == pytest.approx(value, abs=1e-6)
    drawn = resample([known, called], buckets.everything, 1.0, 1500, 0)
    assert drawn[:, 1].std() == pytest.approx(drawn[:, 0].std(), rel=0.25)
    assert drawn[:, 1].mean() == pytest.approx(drawn[:, 0].mean(), abs=0.01)
    rest = buckets.parts != 0
    assert called.score(rest) == pytest.approx(known.score(rest), abs=0.01)


def test_of_a_mean_over_rows_the_jackknife_is_exact():
    task, runs, answer = make_case("samples_f1", n_rows=100)
    buckets = Buckets(runs.fold, 0)
    value, influence = jackknife(task.score, runs.labels, answer, buckets)
    assert influence + value == pytest.approx(row_f1(runs.labels, answer))  # 100 blocks of one row
