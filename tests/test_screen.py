import sys

import pytest

from foldblend.console import FIRST_STATUS_SECONDS, NOTEBOOK_VARIABLES, Screen, fit, job_line, table_lines
from foldblend.queueing.queue import said_left, time_left


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    for name in NOTEBOOK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    "seconds, waiting, running, n_slots, left",
    [
        ({}, ["a"], [], 1, None),
        ({"a": [10.0, 20.0]}, ["a", "a"], [], 1, 30.0),
        ({"a": [10.0], "b": [30.0]}, ["c"], [], 1, None),  # another run's folds say nothing of c's
        ({"a": [10.0]}, ["a", "a"], [("a", 4.0, None), ("a", 99.0, None)], 2, 13.0),
        ({"a": [10.0]}, [], [("a", 1.0, None)], 4, 9.0),
        ({"a": []}, ["a"], [], 1, None),
        ({"a": [2.0, 2.0]}, ["b"], [("b", 30.0, 170.0)], 1, 370.0),  # as b's running fold says
        ({"a": [2.0, 2.0]}, ["b"], [("b", 30.0, None)], 1, None),
        ({"b": [100.0]}, [], [("b", 5.0, 20.0)], 1, 20.0),  # it goes on from a save
    ],
)
def test_time_left_by_what_was_seen(seconds, waiting, running, n_slots, left):
    assert time_left(seconds, waiting, running, n_slots) == left


@pytest.mark.parametrize(
    "progress, left",
    [
        ("17%  epoch 1/2  loss 0.3910  3:43 left", 223.0),
        ("63%  epoch 2/2  macro_f1 0.6695  1:02:05 left", 3725.0),
        ("1%  time left not known yet", None),
        ("", None),
    ],
)
def test_what_a_training_says_is_left(progress, left):
    assert said_left(progress) == left


def test_columns_are_aligned():
    assert table_lines([("run", "score"), ("tfidf", "0.5"), ("a", "")]) == [
        "run    score",
        "tfidf    0.5",
        "a           ",
    ]


def test_live_lines_stay_below_and_keys_are_redacted(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    screen = Screen()
    screen.show(["one", "two"])
    screen.say("lasting hf_abcdefgh12345")
    assert capsys.readouterr().out == "one\ntwo\n\x1b[2F\x1b[Jlasting <redacted>\none\ntwo\n"
    screen.show(["one", "two"])
    assert capsys.readouterr().out == "", "nothing is written while nothing changes"
    screen.show([])
    assert capsys.readouterr().out == "\x1b[2F\x1b[J"


@pytest.mark.parametrize("variable", ["", "JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE"])
def test_a_night_in_a_notebook_or_pipe_is_few_plain_lines(capsys, monkeypatch, variable):
    """Eight hours, polled five times a second, with two folds running and their seconds on show."""
    if variable:  # a notebook's cell gives its processes a terminal
        monkeypatch.setenv(variable, "1")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    clock = Clock()
    screen = Screen(clock)
    hours = []
    for _ in range(8):
        for _ in range(5 * 3600):
            clock.now += 0.2
            screen.show(["1 of 9 folds done", f"  a fold 0  {clock.now:.0f}", "  b fold 0"])
        hours.append(capsys.readouterr().out)
    assert all("\x1b" not in text and "\r" not in text for text in hours)
    statuses = [text.count("folds done") for text in hours]
    assert 6 <= statuses[0] <= 12 and all(5 <= number <= 7 for number in statuses[1:])
    assert sum(text.count("\n") for text in hours) <= 3 * 60


def test_the_first_status_in_a_pipe_comes_soon(capsys):
    clock = Clock()
    screen = Screen(clock)
    screen.show(["0 of 9 folds done"])
    screen.say("lasting")
    clock.now += FIRST_STATUS_SECONDS
    screen.show(["1 of 9 folds done"])
    assert capsys.readouterr().out == "lasting\n1 of 9 folds done\n"


def test_more_jobs_than_the_screen_has_lines():
    lines = ["all", *(f"job {k}" for k in range(64))]
    assert fit(lines, 80, 24) == [*lines[:9], "  and 56 more"]
    assert fit(lines, 6, 6) == ["all", "job 0", "job 1", "job 2", "  and"]
    assert fit([], 80, 24) == []


STATE = "100%  epoch 10/10  loss 0.0123  held-out macro_f1 0.5998  1234 rows/s  1:23:45 left"


@pytest.mark.parametrize("name", ["a fold 0", "deberta-v3-large-with-a-very-long-name-seed1234 fold 10"])
def test_what_a_training_says_is_visible_in_80_columns_whatever_its_name(name):
    line = job_line(name, 45296, STATE, 80)
    assert len(line) < 80 and line.endswith("100%  epoch 10/10  loss 0.0123  macro_f1 0.5998  1:23:45 left")
    assert line.startswith("  a fold 0" if name[0] == "a" else "  debert") and name[-6:] in line
    assert job_line(name, 65, "", 200) == f"  {name}  1:05"
