"""The choice of a strategy and of a row rule, and what may not know of what."""

import numpy as np
from made_up import give, make_runs

from foldblend.scoring.blending import choose_answers
from foldblend.scoring.ensembling.strategies import fit_single
from foldblend.scoring.validation.bootstrap import Buckets
from foldblend.scoring.validation.choice import Candidate, cross_fit, offer_row_rules, predict_outer, stitch


def answers_of_one_run(metric, runs):
    """What `choose_answers` makes of one run with exact thresholds."""
    given, buckets = give(runs, metric), Buckets(runs.fold, 0)
    strategy = fit_single(given, 0)
    fit = cross_fit("run0", strategy, given, ("exact",))[0]
    candidate = Candidate(True, [], []).with_fit(given.task, runs.labels, fit, buckets)
    return choose_answers(given, {0: predict_outer(strategy, given)}, [candidate], 0, [0] * 5, buckets), fit


def test_rows_that_always_have_a_label_get_one():
    answers, _ = answers_of_one_run("samples_f1", make_runs(n_rows=1500, kind="multiclass", noise=(1.0,)))
    assert answers.fields["at_least_one"]
    assert answers.row_rule
    assert answers.honest[0].any(axis=1).mean() > 0.95


def test_a_row_rule_that_does_not_help_is_not_taken():
    answers, fit = answers_of_one_run("macro_f1", make_runs(n_rows=1500, noise=(0.5,)))
    assert (answers.fields, answers.row_rule) == ({}, "")
    assert np.array_equal(answers.own[0], fit.answer)


def test_with_a_row_rule_each_part_is_answered_by_what_was_chosen_without_it():
    """The honest answers were once those of the strategy that was chosen on all rows."""
    runs = make_runs(n_rows=1500, kind="multiclass", noise=(0.5, 2.0))
    given, buckets = give(runs, "samples_f1"), Buckets(runs.fold, 0)
    table, outer = [], {}
    for run in (0, 1):
        strategy = fit_single(given, run)
        fit = cross_fit(f"run{run}", strategy, given, ("exact",))[0]
        table.append(Candidate(True, [], []).with_fit(given.task, runs.labels, fit, buckets))
        outer[run] = predict_outer(strategy, given)
    alone = [choose_answers(given, {run: outer[run]}, table, run, [run] * 5, buckets) for run in (0, 1)]
    mixed = choose_answers(given, outer, table, 0, [1, 0, 0, 0, 0], buckets)
    assert mixed.row_rule
    first = runs.fold == 0
    assert np.array_equal(mixed.honest[0][first], alone[1].honest[0][first])
    assert np.array_equal(mixed.honest[0][~first], alone[0].honest[0][~first])
    assert not np.array_equal(mixed.honest[0][first], alone[0].honest[0][first])


def test_stitched_rows_come_from_the_answer_of_their_part():
    part = np.array([1, 0, 2, 1])
    answers = [np.full((4, 2), number) for number in range(3)]
    assert stitch(answers, part)[:, 0].tolist() == part.tolist()


def test_offers_follow_the_labels():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]] * 30, bool)
    offered = offer_row_rules(labels)
    assert offered["one to 2 labels"] == {"at_least_one": True, "at_most": 2}
    assert offered["label 0 only alone"] == {"exclusive": 0}
