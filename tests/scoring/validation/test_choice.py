"""The choice of a strategy and of a row rule, and what may not know of what."""

import numpy as np
import pytest
from made_up import give, make_runs

from foldblend.cores import single_threaded_products
from foldblend.scoring.blending import cross_fit_candidates, make_blend
from foldblend.scoring.ensembling.strategies import STRATEGIES, fit_single
from foldblend.scoring.inputs import Task
from foldblend.scoring.validation.bootstrap import Buckets
from foldblend.scoring.validation.choice import (
    Measured,
    Picked,
    answer_parts,
    buckets_without_parts,
    choose_without_parts,
    compare_lines,
    cross_fit,
    find_critical,
    measure,
    offer_row_rules,
    pick_line,
    pick_row_rule,
)


def lines_of_runs(metric, runs):
    """Each run with exact thresholds: what is given, the strategies, the fits and the buckets without each part."""
    given = give(runs, metric)
    rest = buckets_without_parts(given.partition, 0, runs.group)
    strategies = {name: fit_single(given, run) for run, name in enumerate(runs.names)}
    fits = [cross_fit(name, each, given, ("exact",), rest)[0] for name, each in strategies.items()]
    return given, strategies, fits, rest


# ---------- The rule


def test_of_one_lead_the_critical_value_is_the_normals_and_of_many_it_is_that_of_their_maximum():
    moves = np.random.default_rng(0).normal(size=(1_000, 40))
    assert find_critical(moves[:, :1], 0) == pytest.approx(1.28, abs=0.12)
    drawn = np.random.default_rng(1).normal(size=(20_000, 40)).max(axis=1)
    assert find_critical(moves, 0) == pytest.approx(np.quantile(drawn, 0.9), abs=0.15)
    same = np.repeat(moves[:, :1], 40, axis=1)  # forty names of one lead are one lead
    assert find_critical(same, 0) == pytest.approx(find_critical(moves[:, :1], 0), abs=1e-6)
    assert find_critical(np.zeros((10, 3)), 0) == 0.0


@single_threaded_products()
def test_of_forty_lines_without_any_lead_one_replaces_the_trusted_one_in_a_tenth_of_the_cases():
    """Family-wise: with 1.5 standard errors it was every second case."""
    rng, left, at_one_and_a_half = np.random.default_rng(0), 0, 0
    for seed in range(200):
        rows = 0.3 * rng.normal(size=(500, 1)) + rng.normal(size=(500, 41))
        lines = [Measured(float(row.mean()), (row - row.mean()) / len(row)) for row in rows.T]
        leads = compare_lines(lines, 0, [], seed)
        left += pick_line(leads, 0) != 0
        at_one_and_a_half += bool((leads.gains > 1.5 * leads.errors).any())
    assert 8 <= left <= 34  # 20 expected
    assert at_one_and_a_half > 80


def test_a_clear_lead_is_taken_and_a_line_that_always_scores_the_same_is_not():
    rng = np.random.default_rng(0)
    base = rng.normal(size=400)
    rows = [base, base, base + 0.3 + 0.1 * rng.normal(size=400), base + 0.2]
    lines = [Measured(float(row.mean()), (row - row.mean()) / len(row)) for row in rows]
    leads = compare_lines(lines, 0, [], 0)
    assert pick_line(leads, 0) == 2
    assert leads.sure[1] == 0 and leads.needed[2] == pytest.approx(leads.critical * leads.errors[2])


def test_groups_make_a_lead_less_sure():
    runs = make_runs(n_rows=200, noise=(1.0, 1.1))
    copied = np.repeat(np.arange(200), 5)
    labels, task = runs.labels[copied], Task("macro_f1")
    answers = [run[copied] > 0 for run in runs.scores.runs]
    errors = []
    for group in (None, copied):
        buckets = Buckets(np.zeros(1_000, np.int64), 0, group)
        errors.append(compare_lines([measure(task, labels, each, buckets) for each in answers], 0, [], 0).errors[1])
    assert errors[1] == pytest.approx(errors[0] * np.sqrt(5), rel=0.15)


# ---------- Row rules


def test_rows_that_always_have_a_label_get_one():
    runs = make_runs(n_rows=1500, kind="multiclass", noise=(1.0,))
    blend = make_blend(Task("samples_f1"), runs)
    assert blend.rule.at_least_one and blend.row_rule
    assert blend.why.row_rule_lead > blend.why.row_rule_needed > 0
    assert all(answer.any(axis=1).mean() > 0.95 for answer in blend.honest)  # stitched with its row rules


def test_a_row_rule_that_does_not_help_is_not_taken():
    blend = make_blend(Task("macro_f1"), make_runs(n_rows=600, noise=(0.5,)))
    assert (blend.row_rule, blend.why.row_rule_lead) == ("", 0.0)
    assert not blend.rule.at_least_one and blend.rule.at_most is None and blend.rule.exclusive is None


def test_a_row_rule_needs_the_critical_value_of_all_leads():
    base = np.random.default_rng(0).normal(size=400) / 20  # a standard error of 1
    ruled = {"": Measured(0.5, 0 * base), "sure": Measured(0.53, 0.01 * base), "larger": Measured(0.55, 0.04 * base)}
    assert pick_row_rule(ruled, 2.4)[0] == "sure"  # 3 standard errors; the larger one has 1.25
    assert pick_row_rule(ruled, 0.5)[0] == "larger"
    assert pick_row_rule(ruled, 3.5) == ("", 0.0, 0.0)


def test_each_part_is_answered_by_what_was_picked_without_it():
    """The honest answers were once those of the strategy that was chosen on all rows."""
    runs = make_runs(n_rows=300, kind="multiclass", noise=(0.5, 2.0))
    given, strategies, fits, _ = lines_of_runs("samples_f1", runs)
    rule = {"at_least_one": True}
    plain, ruled = (answer_parts([Picked(0, fields)] * 5, given, strategies, fits) for fields in ({}, rule))
    assert np.array_equal(plain, fits[0].answer) and ruled.any(axis=1).all() and not plain.any(axis=1).all()
    mixed = answer_parts([Picked(1, {}), *[Picked(0, rule)] * 4], given, strategies, fits)
    first = runs.fold == 0
    assert np.array_equal(mixed[first], fits[1].answer[first])
    assert np.array_equal(mixed[~first], ruled[~first])


def test_offers_follow_the_labels():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]] * 30, bool)
    offered = offer_row_rules(labels)
    assert offered["one to 2 labels"] == {"at_least_one": True, "at_most": 2}
    assert offered["label 0 only alone"] == {"exclusive": 0}


# ---------- What a part's answers may not know: its labels


def flip(runs, rows):
    flipped = runs.labels.copy()
    flipped[rows] ^= True
    return flipped


def honest_answers(task, runs, labels, forced=""):
    """The honest answers of every repeat, and the partitions they were made over."""
    changed = type(runs)(runs.names, runs.scores, labels, runs.fold, runs.group)
    honest = cross_fit_candidates(task, changed, Buckets(runs.fold, 0, runs.group), forced, 0)[2]
    return list(zip(runs.partitions(len(honest), 0), honest, strict=True))


@single_threaded_products()
@pytest.mark.parametrize("metric, n_repeats", [("macro_f1", 2), ("samples_f1", 1), ("log_loss", 2), ("macro_auc", 2)])
def test_no_answer_of_a_part_changes_with_the_parts_labels_choice_and_row_rule_included(metric, n_repeats, monkeypatch):
    """In every repeat: the choice, the row rule, thresholds and weights for a part know nothing of its labels."""
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", n_repeats)
    runs, task = make_runs(n_rows=120, n_labels=3, noise=(0.5, 1.5), kind="multiclass"), Task(metric)
    before = honest_answers(task, runs, runs.labels)
    for repeat, (partition, answer) in enumerate(before):
        rows = partition.rows[3]
        after = honest_answers(task, runs, flip(runs, rows))[repeat][1]
        assert np.array_equal(answer[rows], after[rows])
        others = np.setdiff1d(np.arange(120), rows)
        assert not np.array_equal(answer[others], after[others])


LINES = [(name, tuning) for name in STRATEGIES if name != "mean_ranks" for tuning in Task("macro_f1").tunings]


@single_threaded_products()
@pytest.mark.parametrize("name, tuning", [*LINES, ("mean_of_blends", "adaptive")])
def test_no_answer_of_any_strategy_changes_with_the_parts_labels(name, tuning, monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    runs, task = make_runs(n_rows=200, n_labels=3, noise=(0.5, 1.5)), Task("macro_f1")
    monkeypatch.setattr("foldblend.scoring.ensembling.strategies.offered", lambda task, n_labels: [name])
    rows = np.flatnonzero(runs.fold == 2)
    asked = f"{name} + {tuning}"
    before, after = (honest_answers(task, runs, each, asked)[0][1] for each in (runs.labels, flip(runs, rows)))
    assert np.array_equal(before[rows], after[rows])


@single_threaded_products()
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_no_probability_of_any_strategy_changes_with_the_parts_labels(name):
    """To the last bit: the solver started all fits from one on all rows, and they shared their Hessians."""
    runs = make_runs(n_rows=200, n_labels=3, noise=(0.5, 1.5))
    tables = []
    for labels in (runs.labels, flip(runs, runs.fold == 2)):
        given = give(type(runs)(runs.names, runs.scores, labels, runs.fold, runs.group))
        tables.append(list(STRATEGIES[name](given).predict_parts(given.scores, given.partition)))
    assert np.array_equal(tables[0][2], tables[1][2])  # the whole table of part 2 does without its labels


def test_the_choice_without_a_part_sees_a_lead_that_all_parts_have():
    runs = make_runs(n_rows=400, noise=(3.0, 0.3))
    given, strategies, fits, rest = lines_of_runs("macro_f1", runs)
    picked = choose_without_parts(given, strategies, fits, rest, 0, is_forced=False, has_row_rules=True)
    assert [each.position for each in picked] == [1] * 5
    forced = choose_without_parts(given, strategies, fits, rest, 0, is_forced=True, has_row_rules=True)
    assert [each.position for each in forced] == [0] * 5
