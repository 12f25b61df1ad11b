import sys

import pytest

from foldblend import console
from foldblend.console import NOTEBOOK_VARIABLES, Progress, bar_line


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    for name in NOTEBOOK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def terminal(capsys, monkeypatch):
    """What was written to a terminal of unknown size, 80 columns then."""
    monkeypatch.setattr(console, "is_terminal", lambda stream: stream is sys.stderr)
    yield lambda: capsys.readouterr().err
    assert console._live == []


STATE = "epoch 10/10  loss 0.0123  held-out macro_f1 0.5998"


def test_bar_loss_and_score_fit_80_columns():
    line = bar_line("fold 10", 1000, 1000, STATE, 5025, 79)
    assert line == "fold 10 100% [########] epoch 10/10  loss 0.0123  macro_f1 0.5998  1:23:45 left" and len(line) < 80
    assert bar_line("fold 3", 50, 200, STATE, 83, 79).startswith("fold 3  25% [###---------] epoch 10/10")
    assert len(bar_line("fold 3", 0, 200, "", 0, 200)) < 60
    assert bar_line("fold 3", 50, 200, STATE, 83, 40) == "fold 3  25% epoch 10/10  loss 0.0123  ma"


def test_lines_that_stay_are_above_the_bar(terminal):
    bar = Progress("fold 0", 100)
    bar.advance(50, "epoch 1/2")
    bar.say("epoch 1 ended")
    bar.close()
    shown = terminal()
    assert "]" in shown and "\r\x1b[Kfold 0: epoch 1 ended\n\rfold 0  50% [" in shown and shown.endswith("\r\x1b[K")


def test_a_prediction_takes_the_line_of_the_training_for_a_while(terminal):
    clock = Clock()
    outer = Progress("fold 0", 100, clock=clock)
    outer.advance(10, "epoch 1/2")
    inner = Progress("prediction", 10, clock=clock)
    inner.advance(5, "")
    assert "\rprediction  50% [" in terminal()
    inner.close()
    clock.now += 1
    outer.advance(10, "epoch 1/2")
    assert terminal().rsplit("\r", 1)[1].startswith("fold 0  20% [")
    outer.close()


def test_a_pipe_gets_percent_and_time_left_and_never_more_than_a_line_per_percent(capsys):
    clock = Clock()
    bar = Progress("fold 0", 8 * 3600, clock=clock)
    for _ in range(8 * 3600):
        clock.now += 1
        bar.advance(1, "epoch 1/1  loss 0.5000")
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert 90 <= len(lines) <= 101
    assert lines[49] == "fold 0:  50%  epoch 1/1  loss 0.5000  1 rows/s  4:00:00 left"


def test_a_short_training_in_a_pipe_prints_every_20_seconds(capsys):
    clock = Clock()
    bar = Progress("fold 0", 60, clock=clock)
    for _ in range(60):
        clock.now += 1
        bar.advance(1, "")
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["33%", "66%", "100%"]


def test_a_notebook_gets_lines_though_its_cells_have_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    clock = Clock()
    bar = Progress("fold 0", 10, clock=clock)
    clock.now = 30.0
    bar.advance(5, "epoch 1/1")
    bar.close()
    assert capsys.readouterr().err == "fold 0:  50%  epoch 1/1  0 rows/s  0:30 left\n"


def test_other_processes_show_nothing(terminal):
    bar = Progress("fold 0", 10, shown=False)
    bar.advance(5, "")
    bar.say("quiet")
    bar.close()
    assert terminal() == ""
