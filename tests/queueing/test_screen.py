import sys

import pytest

from foldblend.queueing.screen import Screen, clock, table_lines, time_left


@pytest.mark.parametrize(
    "seconds, waiting, running, n_slots, left",
    [
        ({}, ["a"], [], 1, None),
        ({"a": [10.0, 20.0]}, ["a", "a"], [], 1, 30.0),
        ({"a": [10.0], "b": [30.0]}, ["c"], [], 1, 20.0),
        ({"a": [10.0]}, ["a", "a"], [("a", 4.0), ("a", 99.0)], 2, 13.0),
        ({"a": [10.0]}, [], [("a", 1.0)], 4, 9.0),
        ({"a": []}, ["a"], [], 1, None),
    ],
)
def test_time_left_by_what_was_seen(seconds, waiting, running, n_slots, left):
    assert time_left(seconds, waiting, running, n_slots) == left


def test_clock():
    assert [clock(value) for value in (0, 65, 3599.6, 36005)] == ["0:00", "1:05", "1:00:00", "10:00:05"]


def test_columns_stand_below_each_other():
    assert table_lines([("run", "score"), ("tfidf", "0.5"), ("a", "")]) == [
        "run    score",
        "tfidf    0.5",
        "a           ",
    ]


def test_live_lines_stay_below_and_keys_are_hidden(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    screen = Screen()
    screen.show(["one", "two"])
    screen.say("lasting hf_abcdefgh12345")
    assert capsys.readouterr().out == "one\ntwo\n\x1b[2F\x1b[Jlasting <redacted>\none\ntwo\n"
    screen.show([])
    assert capsys.readouterr().out == "\x1b[2F\x1b[J"


def test_without_a_terminal_nothing_is_live(capsys):
    screen = Screen()
    screen.show(["live"])
    screen.say("lasting")
    assert capsys.readouterr().out == "lasting\n"
