"""Queueing room: one training as a process of its own, and what it prints."""

import os
import re
import signal
import subprocess
import time
from collections import deque

from learners.interruption import QUEUE
from queueing.jobs import FoldJob
from queueing.slots import Slot

REFUSED, BUSY = 2, 75
"""Exit statuses of train.py: settings or data it cannot work with; another process trains this fold."""
TICK = re.compile(r"^fold \d+: +(\d+%.*)$")
"""A line that only says how far the training is."""
LASTING = re.compile(r"^(?:fold \d+: |(?=error: |oof/))(.*)$")
"""A line that stays worth reading."""
KEPT_LINES = 200


class Child:
    """Started as it is made. Its output goes into the log without passing through us: it outlives our death."""

    def __init__(self, job: FoldJob, slot: Slot, threads: int):
        self.job, self.slot = job, slot
        self.tick, self.lines, self.rest = "", deque(maxlen=KEPT_LINES), b""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as log:
            log.write(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {job.shown}\n".encode())
            log.flush()
            self.read_to = log.tell()
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(slot, threads),
                start_new_session=True,  # a terminal's Ctrl-C comes to us alone, and we pass it on
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def ask_to_stop(self) -> None:
        """SIGTERM: it saves itself and ends."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def new_lines(self) -> list[str]:
        """Lines printed since the last call that stay worth reading; the last tick is kept in `tick`."""
        with open(self.job.log, "rb") as log:
            log.seek(self.read_to)
            data = self.rest + log.read()
            self.read_to = log.tell()
        *whole, self.rest = data.split(b"\n")
        lines = [line.decode(errors="replace").rstrip("\r") for line in whole]
        self.lines.extend(lines)
        for line in lines:
            if found := TICK.match(line):
                self.tick = found[1]
        return [found[1] for line in lines if not TICK.match(line) and (found := LASTING.match(line))]

    def refusal(self) -> list[str]:
        """The error it ended with: its last lines from `error:` on, or all that are kept."""
        lines = list(self.lines)
        starts = [at for at, line in enumerate(lines) if line.startswith("error: ")]
        return lines[starts[-1] :] if starts else lines


def environment(slot: Slot, threads: int) -> dict[str, str]:
    """Ours, and what makes one of several neighbours: its share of the cores, its GPU, who started it."""
    env = {
        **os.environ,
        "FOLDBLEND_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",  # what it said last must be in the log when it is killed
        QUEUE: str(os.getpid()),
    }
    env.setdefault("GOMP_SPINCOUNT", "2000")  # waiting threads soon give their core to a neighbour
    if slot.gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = slot.gpu
    return env


def describe_exit(status: int) -> str:
    """What an exit status means, in words."""
    if status == -signal.SIGKILL:
        return "was killed by SIGKILL (out of memory, most likely)"
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
