"""Ctrl-C, SIGTERM and the launcher's end ask for a stop; the training loop saves itself at its next step and leaves."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when its parent ends."""
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""`accelerate launch` sets the first in every process it starts, torchrun the second."""
QUEUE = "FOLDBLEND_QUEUE"
"""train_all.py sets it to its process id in every process it starts."""


class Interruption:
    """As a context: remembers the first signal instead of dying by it. A second Ctrl-C stops at once."""

    def __enter__(self):
        self.signal_number = 0
        self.before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, signal_number, _frame):
        if self.signal_number == signal.SIGINT == signal_number:
            raise KeyboardInterrupt
        self.signal_number = signal_number


def follow_launcher() -> None:
    """From now on the end of the launcher is a SIGTERM to this process; without a launcher nothing changes.

    `accelerate launch` does not pass a SIGTERM on: it ends, and what it started would go on training unseen; so would
    what a queue started that was ended by kill -9. Linux alone knows this; elsewhere stop the training process itself.
    """
    queue = os.environ.pop(QUEUE, "")  # not handed on: to what this process starts, the queue is no parent
    if sys.platform != "linux" or not (queue or any(name in os.environ for name in LAUNCHED)):
        return
    launcher = int(queue) if queue else os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != launcher:  # it ended before
        os.kill(os.getpid(), signal.SIGTERM)
