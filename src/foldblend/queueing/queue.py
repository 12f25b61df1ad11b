"""Queueing room: jobs wait, run in the slots of one machine, are started again when they die, and are stopped whole."""

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foldblend.errors import UserError
from foldblend.learners.processes.interruption import QUEUE, Interruption
from foldblend.queueing.screen import Screen, clock, time_left
from foldblend.queueing.slots import Slot

# ---------- folds of several runs as one list of jobs, and the part of it that one machine takes.


@dataclass(frozen=True)
class FoldJob:
    """One fold of one run, trained by a process of its own."""

    run: str
    """Its name in oof/."""
    fold: int
    """0..n_folds-1."""
    command: tuple[str, ...]
    """What starts the process; the same command goes on where a killed one stood."""
    shown: str
    """The command as a person types it."""
    log: Path
    """What the process prints is appended here."""
    wants_gpu: bool
    """Whether a GPU saves hours."""

    @property
    def name(self) -> str:
        return f"{self.run} fold {self.fold}"


def take_part(jobs: Sequence[FoldJob], part: str) -> list[FoldJob]:
    """Part I of N of a list: every N-th job from the I-th on, so that parts 0/N to N-1/N hold each job once.

    Args:    part: `I/N`, or nothing for the whole list.
    Example: take_part("abcde", "1/3") -> ["b", "e"]
    Raises:  ValueError: not of that form, or I is not one of 0..N-1.
    """
    if not part:
        return list(jobs)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part, re.ASCII)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"--part {part}: expected I/N with I from 0 to N-1, as 0/4, 1/4, 2/4, 3/4 for four machines")
    return list(jobs[int(found[1]) :: int(found[2])])


def split_flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A command line as (flag's name, its words): `--runs A B --part=0/2` -> runs, [--runs, A, B]; part, [--part=0/2].

    Raises: ValueError: a word before the first flag.
    """
    flags: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            flags.append((word[2:].split("=", 1)[0], [word]))
        elif flags:
            flags[-1][1].append(word)
        else:
            raise UserError(f"{word!r} stands before any flag; expected --runs {word}, say; --help lists the flags")
    return flags


def without_flags(argv: Sequence[str], names: set[str]) -> list[str]:
    """A command line without the flags of these names and their values."""
    return [word for name, words in split_flags(argv) if name not in names for word in words]


# ---------- one training as a process of its own, and what it prints.


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


# ---------- jobs wait, run in the slots of one machine, are started again when they die, and are stopped whole.


LOOK_EVERY_SECONDS = 0.2
AGAIN_AFTER_SECONDS = 10.0
"""A fold that another process trains is tried again after this; each time twice as late, up to the next."""
AGAIN_AFTER_AT_MOST = 300.0
TAIL_LINES = 15


@dataclass
class Ticket:
    """A job and how it stands."""

    job: FoldJob
    state: str = "waiting"
    """`waiting`, `running`, `done`, `failed`, `refused` or `dropped` (another fold of its run was refused)."""
    attempts: int = 0
    alone: bool = False
    """Killed for want of memory, as it seems: nothing may run beside it."""
    busy: int = 0
    """How often in a row another process trained its fold."""
    not_before: float = 0.0


class Queue:
    """Runs every job once, in order, as slots become free."""

    def __init__(self, jobs: Sequence[FoldJob], slots: Sequence[Slot], threads: int, attempts: int, screen: Screen):
        self.tickets = [Ticket(job) for job in jobs]
        self.threads, self.attempts, self.screen = threads, attempts, screen
        self.n_slots, self.free = len(slots), list(slots)
        self.running: list[tuple[Ticket, Child]] = []
        self.seconds: dict[str, list[float]] = {}

    def run(self) -> int:
        """Work until nothing waits or runs, or a signal comes; then the children save themselves and are waited for.

        Returns: the signal's number, 0 where none came.
        """
        try:
            with Interruption() as interruption:
                while not interruption.signal_number and any(t.state in ("waiting", "running") for t in self.tickets):
                    self._start_ready()
                    self._look(stopping=False)
                if interruption.signal_number:
                    self._stop()
        finally:
            self.screen.show([])
            for _, child in self.running:  # an error of ours, or a second Ctrl-C
                child.ask_to_stop()
        return interruption.signal_number

    def _start_ready(self) -> None:
        for slot in list(self.free):
            ticket = self._next_for(slot)
            if ticket is not None:
                self.free.remove(slot)
                ticket.state, ticket.attempts = "running", ticket.attempts + 1
                self.running.append((ticket, Child(ticket.job, slot, self.threads)))
                where = f" on GPU {slot.gpu}" if slot.gpu else ""
                again = f", attempt {ticket.attempts} of {self.attempts}" if ticket.attempts > 1 else ""
                self.screen.say(f"{ticket.job.name}: started{where}{again}")

    def _next_for(self, slot: Slot) -> Ticket | None:
        """The first job that may start in this slot now; one that must run alone waits for all others."""
        if any(ticket.alone for ticket, _ in self.running):
            return None
        now = time.monotonic()
        ready = [ticket for ticket in self.tickets if ticket.state == "waiting" and ticket.not_before <= now]
        shared = [ticket for ticket in ready if not ticket.alone]
        if not shared and self.running:
            return None
        return next((ticket for ticket in shared or ready if slot.takes(ticket.job.wants_gpu)), None)

    def _look(self, stopping: bool) -> None:
        """Wait a moment, show what was printed, and settle what has ended."""
        time.sleep(LOOK_EVERY_SECONDS)
        for ticket, child in list(self.running):
            status = child.process.poll()  # before the lines are read, so that none is left behind
            for line in child.new_lines():
                self.screen.say(f"{ticket.job.name}: {line}")
            if status is not None:
                self.running.remove((ticket, child))
                self.free.append(child.slot)
                self._settle(ticket, child, status, stopping)
        self.screen.show(self._live_lines())

    def _settle(self, ticket: Ticket, child: Child, status: int, stopping: bool) -> None:
        if status == 0:
            ticket.state = "done"
            self.seconds.setdefault(ticket.job.run, []).append(child.seconds)
        elif stopping:
            ticket.state = "waiting"
        elif status == BUSY:
            self._wait_for_the_other(ticket)
        elif status == REFUSED:
            self._refuse(ticket, child)
        elif ticket.attempts >= self.attempts:
            self._give_up(ticket, child, describe_exit(status))
        else:
            ticket.state, ticket.alone = "waiting", ticket.alone or status == -9
            when = "again once nothing runs beside it" if ticket.alone else "again"
            self.screen.say(f"{ticket.job.name}: {describe_exit(status)}; will be started {when}")

    def _wait_for_the_other(self, ticket: Ticket) -> None:
        pause = min(AGAIN_AFTER_SECONDS * 2**ticket.busy, AGAIN_AFTER_AT_MOST)
        ticket.state, ticket.attempts, ticket.busy = "waiting", ticket.attempts - 1, ticket.busy + 1
        ticket.not_before = time.monotonic() + pause
        self.screen.say(f"{ticket.job.name}: another process trains it now; looked at again in {pause:.0f} s")

    def _refuse(self, ticket: Ticket, child: Child) -> None:
        """Settings or data are wrong: the same command, and the run's other folds, would only say so again."""
        ticket.state = "refused"
        dropped = [t for t in self.tickets if t.state == "waiting" and t.job.run == ticket.job.run]
        for other in dropped:
            other.state = "dropped"
        self.screen.say(f"{ticket.job.name}: refused, see {ticket.job.log}\n" + "\n".join(child.refusal()))
        if dropped:
            self.screen.say(f"not started: {', '.join(other.job.name for other in dropped)}")

    def _give_up(self, ticket: Ticket, child: Child, ending: str) -> None:
        ticket.state = "failed"
        tail = "\n".join(f"  {line}" for line in list(child.lines)[-TAIL_LINES:])
        self.screen.say(
            f"{ticket.job.name}: failed, attempt {ticket.attempts} of {self.attempts} {ending}. Its last lines:\n"
            f"{tail}\n  log: {ticket.job.log}\n  to repeat it: {ticket.job.shown}"
        )

    def _stop(self) -> None:
        """The running trainings save themselves at their next step."""
        if self.running:
            self.screen.say(f"stopping: {', '.join(ticket.job.name for ticket, _ in self.running)} save themselves")
        for _, child in self.running:
            child.ask_to_stop()
        while self.running:
            self._look(stopping=True)

    def _live_lines(self) -> list[str]:
        """One line for all, one for each running job."""
        count = {state: sum(t.state == state for t in self.tickets) for state in ("done", "running", "failed")}
        waiting = [ticket.job.run for ticket in self.tickets if ticket.state == "waiting"]
        runs = [(ticket.job.run, child.seconds) for ticket, child in self.running]
        left = time_left(self.seconds, waiting, runs, self.n_slots)
        lines = [f"{count['done']} of {len(self.tickets)} folds done, {count['running']} running"]
        lines[0] += f", {count['failed']} failed" if count["failed"] else ""
        lines[0] += f", about {clock(left)} left" if left is not None else ""
        for ticket, child in self.running:
            lines.append(f"  {ticket.job.name}  {clock(child.seconds)}  {child.tick}")
        return lines
