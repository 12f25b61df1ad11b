import json

import numpy as np
import pytest
from made_up import make_runs

from foldblend.scoring.inputs import Task, sigmoid
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.thresholds.rules import Rule, decide, rule_from_record, tune_rule

PROBS = np.float32([[0.9, 0.6, 0.1], [0.2, 0.3, 0.1], [0.6, 0.1, 0.8]])
HALF = np.full(3, 0.5, np.float32)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, [[1, 1, 0], [0, 0, 0], [1, 0, 1]]),
        ({"at_least_one": True}, [[1, 1, 0], [0, 1, 0], [1, 0, 1]]),
        ({"at_most": 1}, [[1, 0, 0], [0, 0, 0], [0, 0, 1]]),
        ({"at_most": 1, "at_least_one": True}, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ({"exclusive": 0}, [[1, 0, 0], [0, 0, 0], [0, 0, 1]]),
        ({"exclusive": 1}, [[1, 0, 0], [0, 0, 0], [1, 0, 1]]),
    ],
)
def test_row_rules(fields, expected):
    assert decide(Rule(thresholds=HALF, **fields), PROBS).astype(int).tolist() == expected


def test_offsets_pick_one_class():
    assert decide(Rule(offsets=np.float32([0, 0, 3])), PROBS).astype(int).tolist() == [[0, 0, 1]] * 3


STEPS = Rule(steps=np.float32([0.4] * (PROBS.shape[1] - 1)))


def test_without_thresholds_the_probabilities_are_the_answer():
    assert decide(Rule(), PROBS) is PROBS


@pytest.mark.parametrize(
    "rule", [Rule(thresholds=HALF / 3, at_most=2, at_least_one=True), Rule(offsets=-HALF), Rule(), STEPS]
)
def test_a_rule_survives_json(rule):
    again = rule_from_record(json.loads(json.dumps(rule.to_record())))
    assert np.array_equal(decide(again, PROBS), decide(rule, PROBS))


@pytest.mark.parametrize(
    "metric", [name for name, entry in METRICS.items() if not (entry.takes_probs or entry.is_ordered)]
)
def test_tuned_thresholds_beat_one_half(metric):
    runs = make_runs(n_rows=1500, noise=(1.0,))
    task, probs = Task(metric), sigmoid(runs.scores.runs[0] - np.float32(1.5))
    plain = task.score(runs.labels, probs >= 0.5)
    for tuning in task.tunings:
        assert task.score(runs.labels, decide(tune_rule(task, tuning, probs, runs.labels), probs)) > plain


def test_a_loss_is_turned_so_that_more_is_better():
    labels = np.array([[True], [False]])
    good, bad = np.float32([[0.9], [0.1]]), np.float32([[0.2], [0.8]])
    assert Task("log_loss").score(labels, good) > Task("log_loss").score(labels, bad)
