"""What is left today, and waiting for a score that comes late, not at all, or between lost answers."""

import time
from types import SimpleNamespace

import pytest

from foldblend.kaggle import client as kaggle_waiting
from foldblend.kaggle.client import KaggleError, Limits, describe_limits, wait_for_score


def test_limits_are_told():
    assert describe_limits(Limits(2, 14, 3, False)) == "Submissions: 3 left today; 2 used today, 14 in all"
    assert "rules accepted?" in describe_limits(Limits(0, 0, 0, False))


def test_a_reached_limit_says_how_long_until_the_next_day(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 86400 * 20000 + 3600 * 21.5)
    with pytest.raises(ValueError, match="limit of today is reached: 5 used today, 14 in all.*in 2 h 30 min"):
        describe_limits(Limits(5, 14, 0, False))
    with pytest.raises(ValueError, match="limit of the whole competition"):
        describe_limits(Limits(5, 100, 0, True))


class Client:
    """Answers in turn; an error is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def submission(self, ref):
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return SimpleNamespace(ref=ref, status=answer)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes only by sleeping."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(kaggle_waiting.time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(kaggle_waiting.time, "sleep", lambda s: setattr(now, "seconds", now.seconds + s))
    return now


@pytest.mark.parametrize("last", ["complete", "error"])
def test_the_score_is_waited_for_over_lost_answers(clock, last):
    shown = []
    client = Client("pending", KaggleError("cut", "network", False), "pending", last)
    assert wait_for_score(client, 7, 10, shown.append).status == last
    assert len(shown) == 3 and "no answer just now: network" in shown[1] and 9 < clock.seconds < 16


def test_waiting_ends_with_the_minutes_or_the_patience():
    assert wait_for_score(Client(*["pending"] * 1000), 7, 2, lambda line: None) is None
    assert wait_for_score(Client("pending", KeyboardInterrupt()), 7, 2, lambda line: None) is None
    assert wait_for_score(Client(), 7, 0, lambda line: None) is None
