"""Signals that ask for a stop: remembered once, and not again by what a launcher sends on."""

import os
import signal

import pytest

from foldblend.learners.processes import interruption
from foldblend.learners.processes.interruption import LAUNCHED, Interruption


@pytest.fixture(autouse=True)
def handlers_as_before(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_the_first_signal_is_remembered_and_a_second_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interruption() as asked:
        send(signal.SIGINT)
        assert asked.signal_number == signal.SIGINT
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_ctrl_c_that_torchrun_sends_on_is_the_same_one(monkeypatch):
    """A terminal sends it to every process, and torchrun then to its own: both must end with a save."""
    monkeypatch.setenv(LAUNCHED[1], "id")
    with Interruption() as asked:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert asked.signal_number == signal.SIGINT
    send(signal.SIGTERM)  # and while it leaves, nothing that the launcher sends makes a traceback
    send(signal.SIGINT)


def test_under_a_launcher_a_second_ctrl_c_of_a_person_stops_at_once(monkeypatch):
    monkeypatch.setenv(LAUNCHED[0], "no")
    monkeypatch.setattr(interruption, "SAME_CTRL_C_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt), Interruption():
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_without_a_signal_the_handlers_are_as_before(monkeypatch):
    monkeypatch.setenv(LAUNCHED[0], "no")
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as asked:
        assert asked.signal_number == 0
    assert signal.getsignal(signal.SIGTERM) == before
