"""The bucketed bootstrap against one that draws rows, and sums against the metrics themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import make_runs

from foldblend.cores import single_threaded_products
from foldblend.scoring.inputs import Task, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1, row_f1
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.validation.bootstrap import (
    Additive,
    Buckets,
    jackknife,
    make_additive,
    measure_widths,
    resample,
)
from foldblend.scoring.validation.expected import estimate_score


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


# ---------- Groups of rows


@given(data=st.data(), n_rows=st.integers(2, 60), n_parts=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_bucket_holds_whole_groups_of_one_part(data, n_rows, n_parts):
    group = np.array(data.draw(st.lists(st.integers(0, 20), min_size=n_rows, max_size=n_rows)))
    part = np.random.default_rng(0).integers(0, n_parts, 21)[group]
    buckets = Buckets(part, data.draw(st.integers(0, 5)), group)
    assert sorted(buckets.order.tolist()) == list(range(n_rows))
    bucket = np.repeat(np.arange(len(buckets.starts)), np.diff(buckets.starts, append=n_rows))
    pairs = {(name, number) for name, number in zip(group[buckets.order], bucket, strict=True)}
    assert len(pairs) == len(set(group.tolist())) == len(buckets.starts)  # few groups: each one by itself
    assert (part[buckets.order][buckets.starts] == buckets.parts).all()
    values = np.random.default_rng(1).random((n_rows, 2))
    by_hand = {name: values[group == name].sum(axis=0) for name in set(group.tolist())}
    sums = buckets.add_up(values)
    for start, found in zip(buckets.starts, sums, strict=True):
        name = group[buckets.order[start]]
        assert found == pytest.approx([*by_hand[name], (group == name).sum()], rel=1e-5)


def test_thousands_of_groups_stay_whole_in_a_thousand_buckets():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4_000, 20_000)
    part = rng.integers(0, 3, 4_000)[group]
    buckets = Buckets(part, 0, group)
    bucket = np.repeat(np.arange(len(buckets.starts)), np.diff(buckets.starts, append=20_000))
    assert len({*zip(group[buckets.order], bucket, strict=True)}) == len(np.unique(group))
    assert 900 < len(buckets.starts) <= 1_003


def test_rows_alone_are_drawn_as_they_were_without_groups():
    part = np.random.default_rng(0).integers(0, 3, 5_001)
    plain, grouped = Buckets(part, 4), Buckets(part, 4, np.arange(5_001) * 7 + 3)
    assert np.array_equal(plain.order, grouped.order) and np.array_equal(plain.starts, grouped.starts)


@pytest.mark.parametrize("metric", ["macro_f1", "micro_f1", "samples_f1", "macro_auc", "matthews"])
def test_spread_of_groups_equals_that_of_a_bootstrap_that_copies_whole_groups(metric):
    """Brute force: groups drawn with replacement, their rows laid side by side, the metric called."""
    task, runs, answer = make_case(metric, n_rows=150)
    copied = np.repeat(np.arange(150), 4)  # every text four times
    labels, answer = runs.labels[copied], answer[copied]
    buckets = Buckets(copied % 5, 0, copied)
    additive = make_additive(task, labels, answer, buckets)
    ours = resample([additive], buckets.everything, 1.0, 1500, 0)[:, 0].std()
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(copied == name) for name in rng.integers(0, 150, 150)])
        drawn.append(task.score(labels[rows], answer[rows]))
    assert ours == pytest.approx(np.std(drawn), rel=0.2)
    rows_alone = Buckets(copied % 5, 0)
    alone = resample([make_additive(task, labels, answer, rows_alone)], rows_alone.everything, 1.0, 1500, 0).std()
    if metric != "matthews":  # left out in blocks, of which one may be half a group
        assert ours > 1.6 * alone


def test_moves_are_what_leaving_out_each_group_changes():
    task, runs, answer = make_case("macro_f1", n_rows=60)
    group = np.arange(60) // 3
    buckets = Buckets(np.zeros(60, np.int64), 0, group)
    moves = make_additive(task, runs.labels, answer, buckets).moves(buckets.everything)
    without = np.array(
        [task.score(runs.labels[group != name], answer[group != name]) for name in group[buckets.order[buckets.starts]]]
    )
    assert moves == pytest.approx((without.mean() - without) * np.sqrt(19 / 20), abs=1e-6)


def test_few_groups_widen_and_hundreds_of_rows_do_not():
    moves = np.full(1_000, 0.01)
    scale, tails = measure_widths(moves, float(np.sqrt((moves**2).sum())))
    assert scale == pytest.approx(1) and 1 <= tails < 1.003
    few = np.r_[np.full(5, 1.0), np.full(500, 0.01)]
    scale, tails = measure_widths(few, 1.5)
    assert scale == pytest.approx(np.sqrt(5.05) / 1.5) and 1.2 < tails < 1.25  # Student's t with five groups
    assert measure_widths(np.zeros(3), 0.0) == (1.0, 1.0)


@single_threaded_products()
@pytest.mark.parametrize("size, least", [(5, 0.82), (20, 0.8)])
def test_the_interval_holds_with_half_of_the_rows_in_groups(size, least):
    """Rows drawn one by one held it in 66 % (groups of 5) and 33 % (of 20)."""
    held, task, threshold = [], Task("macro_f1"), np.float32(0.4)
    for seed in range(60):
        runs = make_runs(n_rows=4_000, noise=(1.0,), seed=seed)
        sizes = np.r_[np.full(500 // size, size), np.ones(500, np.int64)]
        rows = np.repeat(np.arange(len(sizes)), sizes)  # half of 1,000 rows are copies
        tests = np.r_[np.repeat(np.arange(1_000, 1_000 + 1_000 // size), size), np.arange(2_000, 3_000)]
        answer = sigmoid(runs.scores.runs[0]) >= threshold
        honest = [make_additive(task, runs.labels[rows], answer[rows], Buckets(rows % 5, 0, rows))]
        said = estimate_score(honest, honest, len(rows), len(tests), seed)
        held.append(said.low < macro_f1(runs.labels[tests], answer[tests]) < said.high)
    assert least <= np.mean(held) <= 0.98
