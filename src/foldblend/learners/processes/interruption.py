"""Ctrl-C, SIGTERM and the end of the launcher ask for a stop; the training loop then saves and leaves, quietly.

It imports no torch, so a command can use it before anything slow is loaded.
"""

import ctypes
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when its parent ends."""
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""`accelerate launch` sets the first in every process it starts, torchrun the second."""
QUEUE = "FOLDBLEND_QUEUE"
"""train_all.py sets it to its process id in every process it starts."""
SAME_CTRL_C_SECONDS = 2.0
"""A terminal sends Ctrl-C to every process, and torchrun then sends it on to its own: within this time it is the same
one."""


class Interruption:
    """As a context: remembers the first signal in `signal_number` instead of dying by it.

    A second Ctrl-C stops at once. Under a launcher a process that leaves after a signal no longer reacts to signals:
    its launcher sends more of them while the process ends.
    """

    def __enter__(self):
        self.signal_number, self.received = 0, 0.0
        self.before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        ends_by_launcher = self.signal_number and _is_launched()
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_IGN if ends_by_launcher else handler)

    def _remember(self, signal_number, _frame):
        now = time.monotonic()
        is_second = self.signal_number == signal.SIGINT == signal_number
        if is_second and not (_is_launched() and now - self.received < SAME_CTRL_C_SECONDS):
            raise KeyboardInterrupt
        if not is_second:
            self.signal_number, self.received = signal_number, now


def follow_launcher() -> None:
    """From now on the end of the launcher is a SIGTERM to this process; without a launcher nothing changes.

    `accelerate launch` does not pass a SIGTERM on: it ends, and what it started would go on training unseen. The same
    holds for a queue that was ended by kill -9. Only Linux can do this; elsewhere stop the training process itself.
    """
    queue = os.environ.pop(QUEUE, "")  # the queue is not the parent of what this process starts
    if sys.platform != "linux" or not (queue or _is_launched()):
        return
    launcher = int(queue) if queue else os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != launcher:  # it ended before
        os.kill(os.getpid(), signal.SIGTERM)


def _is_launched() -> bool:
    return any(name in os.environ for name in LAUNCHED)


# Ctrl-C under `accelerate launch` ends the launcher before it prints a traceback of its own.


def end_launcher_on_ctrl_c() -> None:
    """From now on Ctrl-C ends the `accelerate launch` that started this process by SIGTERM, which prints nothing.

    It waits for us in Popen.wait, which goes on for 0.25 s after Ctrl-C and then raises KeyboardInterrupt; a machine
    with no core free for so long shows the traceback after all.

    Without such a launcher nothing changes; torchrun, with several processes, ends its workers in its own way. The
    training itself saves and leaves as ever (Interruption).
    """
    launcher = find_launcher()
    if not launcher:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers run between two bytecodes, which may be seconds apart; this is written at once
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(reading, launcher), daemon=True).start()


def end_launcher() -> None:
    """End the `accelerate launch` that started this process, which is about to end with an error that it has printed.

    The launcher would print 25 lines of its own about our exit status. Ended by SIGTERM it prints none, and its status
    is 143. With several processes it is torchrun, which would print as much after SIGTERM, so it is ended by SIGKILL
    and its folder of error files is removed; the other processes end with it (`follow_launcher`).
    """
    launcher, number = find_launcher(), signal.SIGTERM
    if not launcher and is_one_of_several():
        launcher, number = os.getppid(), signal.SIGKILL
        scratch = next((each for each in Path(os.environ[ERROR_FILE]).parents if each.name.startswith(SCRATCH)), None)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    if launcher:
        sys.stdout.flush()
        sys.stderr.flush()
        os.kill(launcher, number)


ERROR_FILE, SCRATCH = "TORCHELASTIC_ERROR_FILE", "torchelastic_"
"""Where torchrun asks for an error, and what its temporary folder is called."""


def is_one_of_several() -> bool:
    """Whether `accelerate launch` started this process beside others, all of them on this machine."""
    started = "TORCHELASTIC_RUN_ID" in os.environ and ERROR_FILE in os.environ
    is_alone = os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE")
    return started and is_alone and _is_accelerate(os.getppid())


def find_launcher() -> int:
    """The process id of the `accelerate launch` that started this process, and no other one; 0 without it."""
    launcher = os.getppid()
    return launcher if "TORCHELASTIC_RUN_ID" not in os.environ and _is_accelerate(launcher) else 0


def _is_accelerate(pid: int) -> bool:
    """Whether a process is `accelerate launch`; only Linux shows it."""
    if sys.platform != "linux":
        return False
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"launch" in words and any(word.endswith(b"accelerate") for word in words)


def _end(reading: int, launcher: int) -> None:
    while os.read(reading, 1) != bytes([signal.SIGINT]):
        pass
    if os.getppid() == launcher:
        os.kill(launcher, signal.SIGTERM)
