"""A queue of trainings on one machine: each fold is a process, started again if it crashes, saved if we are stopped."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foldblend.console import Screen, clock_time, coloured, job_line
from foldblend.errors import UserError
from foldblend.learners.processes.interruption import QUEUE, Interruption
from foldblend.predictions import fold_title
from foldblend.queueing.machines import Slot

# ---------- The list of jobs, and the part of it that one machine takes.


@dataclass(frozen=True)
class FoldJob:
    """One fold of one run, trained by a process of its own."""

    run: str
    """Its name in oof/."""
    fold: int
    """0..n_folds-1, or FULL."""
    command: tuple[str, ...]
    """What starts the process; the same command goes on where a killed process was last saved."""
    shown: str
    """The command as a person types it."""
    log: Path
    """Everything the process prints is appended here."""
    wants_gpu: bool
    """Whether it uses a GPU if there is one."""

    @property
    def name(self) -> str:
        return f"{self.run} {fold_title(self.fold)}"


def take_part(jobs: Sequence[FoldJob], part: str) -> list[FoldJob]:
    """Part I of N of a list: every N-th job from the I-th on, so that the parts 0/N to N-1/N hold each job once.

    Args:    part: `I/N`, or empty for the whole list.
    Example: take_part("abcde", "1/3") -> ["b", "e"]
    Raises:  UserError: not of that form, or I is not one of 0..N-1.
    """
    if not part:
        return list(jobs)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part, re.ASCII)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(
            f"--part {part}: expected I/N with I from 0 to N-1, such as 0/4, 1/4, 2/4, 3/4 for four machines"
        )
    return list(jobs[int(found[1]) :: int(found[2])])


def split_flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A command line as (flag's name, its words): `--runs A B --part=0/2` -> runs, [--runs, A, B]; part, [--part=0/2].

    Raises: UserError: a word before the first flag.
    """
    flags: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            flags.append((word[2:].split("=", 1)[0], [word]))
        elif flags:
            flags[-1][1].append(word)
        else:
            raise UserError(f"no flag before {word!r}; expected for example --runs {word}; --help lists the flags")
    return flags


def without_flags(argv: Sequence[str], names: set[str]) -> list[str]:
    """A command line without the flags of these names and their values."""
    return [word for name, words in split_flags(argv) if name not in names for word in words]


# ---------- One training as a process, and what it prints.


REFUSED, BUSY = 2, 75
"""Exit statuses of train.py: the user has to fix something first; another process trains this fold. Any other than 0
is a crash."""
PROGRESS = re.compile(r"^(?:fold \d+|prediction): +(\d+%.*)$")
"""A line that only says how far the training is."""
LASTING = re.compile(r"^(?:fold \d+: |(?=error: |warning: |oof/))(.*)$")
"""A line that stays worth reading."""
KEPT_LINES = 200


class Training:
    """A running process of train.py.

    Its output goes straight into the log, from which we read it: the process can go on if we are killed.
    """

    def __init__(self, job: FoldJob, slot: Slot, threads: int):
        self.job, self.slot = job, slot
        self.progress, self.lines, self.incomplete = "", deque(maxlen=KEPT_LINES), b""
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
                start_new_session=True,  # a terminal's Ctrl-C reaches only us, and we pass it on
            )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    def ask_to_stop(self) -> None:
        """Send SIGTERM: it saves its state and ends."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def new_lines(self) -> list[str]:
        """Lines printed since the last call that stay worth reading; `progress` becomes the last progress line."""
        with open(self.job.log, "rb") as log:
            log.seek(self.read_to)
            data = self.incomplete + log.read()
            self.read_to = log.tell()
        *complete, self.incomplete = data.split(b"\n")
        lines = [line.decode(errors="replace").rstrip("\r") for line in complete]
        self.lines.extend(lines)
        for line in lines:
            if found := PROGRESS.match(line):
                self.progress = found[1]
        return [found[1] for line in lines if not PROGRESS.match(line) and (found := LASTING.match(line))]

    def error_lines(self) -> list[str]:
        """The error it ended with: its last lines from `error:` on, or all that are kept."""
        lines = list(self.lines)
        starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
        return lines[starts[-1] :] if starts else lines


def environment(slot: Slot, threads: int) -> dict[str, str]:
    """Our environment, with the training's share of the cores, its GPU, and our process id."""
    env = {
        **os.environ,
        "FOLDBLEND_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",  # its last words must be in the log if it is killed
        QUEUE: str(os.getpid()),
    }
    env.setdefault("GOMP_SPINCOUNT", "2000")  # OpenMP threads that wait soon leave their core to another training
    if slot.gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = slot.gpu
    return env


def describe_exit(status: int) -> str:
    """What an exit status means, in words."""
    if status == -signal.SIGKILL:
        return "was killed by SIGKILL (probably out of memory)"
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


# ---------- The queue: jobs wait for a slot, run, and end in one of a few ways.


POLL_EVERY_SECONDS = 0.2
AGAIN_AFTER_SECONDS = 10.0
"""A fold that another process trains is tried again after this; each time after twice as long, up to the next."""
AGAIN_AFTER_AT_MOST = 300.0
TAIL_LINES = 15


@dataclass
class Ticket:
    """A job and what has become of it."""

    job: FoldJob
    state: str = "waiting"
    """`waiting`, `running`, `done`, `failed`, `refused` or `dropped` (another fold of its run was refused)."""
    attempts: int = 0
    alone: bool = False
    """It was killed, probably for lack of memory: it runs again only while nothing else does."""
    busy: int = 0
    """How often in a row another process was training its fold."""
    not_before: float = 0.0
    """time.monotonic() at which it may start."""
    is_dropped: bool = False
    """Nobody wants its result any more: it was asked to stop."""


class Queue:
    """Runs every job once, in order, as slots become free.

    A crash (any exit status but 0, 2 and 75, or a signal) is tried again; the run's other folds go on. After a refusal
    (2) the same command would only be refused again, so the run's other folds are dropped.
    """

    def __init__(self, jobs: Sequence[FoldJob], slots: Sequence[Slot], threads: int, attempts: int, screen: Screen):
        self.tickets = [Ticket(job) for job in jobs]
        self.threads, self.attempts, self.screen = threads, attempts, screen
        self.n_slots, self.free = len(slots), list(slots)
        self.running: list[tuple[Ticket, Training]] = []
        self.seconds: dict[str, list[float]] = {}  # run -> of its finished folds
        self.headline: Callable[[], str] | None = None  # what the first line says instead of counting folds

    def run(self, follow: Callable[[], bool] | None = None) -> int:
        """Work until nothing waits or runs, or a signal comes; then wait until the trainings have saved themselves.

        Args:    follow: is called all the time; may `add` and `drop` jobs, and says whether more may come.
        Returns: the signal's number, 0 if none came.
        """
        try:
            with Interruption() as interruption:
                while not interruption.signal_number:
                    may_grow = follow is not None and follow()
                    if not may_grow and not any(t.state in ("waiting", "running") for t in self.tickets):
                        break
                    self._start_ready()
                    self._poll(stopping=False)
                if interruption.signal_number:
                    self._stop()
        finally:
            self.screen.show([])
            for _, training in self.running:  # after an error of ours, or a second Ctrl-C
                training.ask_to_stop()
        return interruption.signal_number

    def add(self, jobs: Sequence[FoldJob]) -> None:
        """More jobs, behind those that wait."""
        self.tickets += [Ticket(job) for job in jobs]

    def drop(self, run: str) -> None:
        """Stop what runs of a run, and start nothing more of it."""
        for ticket in self.tickets:
            if ticket.job.run == run and ticket.state == "waiting":
                ticket.state = "dropped"
        for ticket, training in self.running:
            if ticket.job.run == run:
                ticket.is_dropped = True
                training.ask_to_stop()

    @property
    def n_idle(self) -> int:
        """Slots that no job runs in or waits for."""
        return len(self.free) - sum(ticket.state == "waiting" for ticket in self.tickets)

    def _start_ready(self) -> None:
        for slot in list(self.free):
            ticket = self._next_for(slot)
            if ticket is not None:
                self.free.remove(slot)
                ticket.state, ticket.attempts = "running", ticket.attempts + 1
                self.running.append((ticket, Training(ticket.job, slot, self.threads)))
                where = f" on {slot.shown}" if slot.gpu else ""
                again = f", attempt {ticket.attempts} of {self.attempts}" if ticket.attempts > 1 else ""
                self.screen.say(f"{ticket.job.name}: started{where}{again}")

    def _next_for(self, slot: Slot) -> Ticket | None:
        """The first job that may start in this slot now; one that must run alone waits for all others."""
        if any(ticket.alone for ticket, _ in self.running):
            return None
        now = time.monotonic()
        ready = [ticket for ticket in self.tickets if ticket.state == "waiting" and ticket.not_before <= now]
        sociable = [ticket for ticket in ready if not ticket.alone]
        if not sociable and self.running:
            return None
        return next((ticket for ticket in sociable or ready if slot.takes(ticket.job.wants_gpu)), None)

    def _poll(self, stopping: bool) -> None:
        """Wait a moment, show what was printed, and settle what has ended."""
        time.sleep(POLL_EVERY_SECONDS)
        for ticket, training in list(self.running):
            status = training.process.poll()  # before the lines are read, so that none is missed
            for line in training.new_lines():
                self.screen.say(f"{ticket.job.name}: {line}")
            if status is not None:
                self.running.remove((ticket, training))
                self.free.append(training.slot)
                self._end(ticket, training, status, stopping)
        self.screen.show(self._status_lines())

    def _end(self, ticket: Ticket, training: Training, status: int, stopping: bool) -> None:
        if status == 0:
            ticket.state = "done"
            self.seconds.setdefault(ticket.job.run, []).append(training.seconds)
        elif ticket.is_dropped:
            ticket.state = "dropped"
        elif stopping:
            ticket.state = "waiting"
        elif status == BUSY:
            self._wait_for_other_process(ticket)
        elif status == REFUSED:
            self._refuse(ticket, training)
        elif ticket.attempts >= self.attempts:
            self._give_up(ticket, training, describe_exit(status))
        else:
            ticket.state, ticket.alone = "waiting", ticket.alone or status == -signal.SIGKILL
            when = "again when nothing else runs" if ticket.alone else "again"
            self.screen.say(f"{ticket.job.name}: {describe_exit(status)}; will be started {when}")

    def _wait_for_other_process(self, ticket: Ticket) -> None:
        pause = min(AGAIN_AFTER_SECONDS * 2**ticket.busy, AGAIN_AFTER_AT_MOST)
        ticket.state, ticket.attempts, ticket.busy = "waiting", ticket.attempts - 1, ticket.busy + 1
        ticket.not_before = time.monotonic() + pause
        self.screen.say(f"{ticket.job.name}: another process trains it now; tried again in {pause:.0f} s")

    def _refuse(self, ticket: Ticket, training: Training) -> None:
        ticket.state = "refused"
        dropped = [t for t in self.tickets if t.state == "waiting" and t.job.run == ticket.job.run]
        for other in dropped:
            other.state = "dropped"
        lines = [f"{ticket.job.name}: {coloured('refused', 'red')}, see {ticket.job.log}", *training.error_lines()]
        self.screen.say("\n".join(lines))
        if dropped:
            self.screen.say(f"not started: {', '.join(other.job.name for other in dropped)}")

    def _give_up(self, ticket: Ticket, training: Training, ending: str) -> None:
        ticket.state = "failed"
        tail = "\n".join(f"  {line}" for line in list(training.lines)[-TAIL_LINES:])
        failed = coloured("failed", "red")
        self.screen.say(
            f"{ticket.job.name}: {failed}, attempt {ticket.attempts} of {self.attempts} {ending}. Its last lines:\n"
            f"{tail}\n  log: {ticket.job.log}\n  to repeat it: {ticket.job.shown}"
        )

    def _stop(self) -> None:
        """The running trainings save themselves at their next step; wait for them."""
        if self.running:
            names = ", ".join(ticket.job.name for ticket, _ in self.running)
            self.screen.say(f"stopping; waiting until saved: {names}")
        for _, training in self.running:
            training.ask_to_stop()
        while self.running:
            self._poll(stopping=True)

    def _status_lines(self) -> list[str]:
        """One line for all folds, then one per running fold."""
        count = {state: sum(t.state == state for t in self.tickets) for state in ("done", "running", "failed")}
        waiting = [ticket.job.run for ticket in self.tickets if ticket.state == "waiting"]
        running = [(ticket.job.run, one.seconds, said_left(one.progress)) for ticket, one in self.running]
        left = time_left(self.seconds, waiting, running, self.n_slots)
        words = [self.headline() if self.headline else f"{count['done']} of {len(self.tickets)} folds done"]
        words += [f"{count['running']} running"]
        words += [f"{count['failed']} failed"] if count["failed"] else []
        words += [f"about {clock_time(left)} left"] if left is not None and not self.headline else []
        width = shutil.get_terminal_size().columns if self.screen.is_terminal else 80
        jobs = [job_line(ticket.job.name, one.seconds, one.progress, width) for ticket, one in self.running]
        return [", ".join(words), *jobs]


def said_left(progress: str) -> float | None:
    """Seconds that a training says are left, by its last progress line. Example: "17%  epoch 1/2  3:43 left" -> 223."""
    found = re.search(r"(\d+(?::\d\d)+) left\s*$", progress)
    if not found:
        return None
    left = 0.0
    for part in found[1].split(":"):
        left = 60 * left + int(part)
    return left


def time_left(
    seconds: Mapping[str, Sequence[float]],
    waiting: Sequence[str],
    running: Sequence[tuple[str, float, float | None]],
    n_slots: int,
) -> float | None:
    """Seconds until all jobs are done, if each takes as long as its run's finished ones, else as its running ones will.

    Args:    seconds: run -> of its finished jobs.   waiting: a run's name for each waiting job.
             running: run, for how long, and how long it says it still takes (None is unknown), of each running job.
    Returns: None as long as nothing is known of a run that waits or is running: another run's folds say nothing of it.
    """
    seen: dict[str, list[float]] = {run: list(values) for run, values in seconds.items() if values}
    for run, passed, left in running:
        if left is not None and not seconds.get(run):
            seen.setdefault(run, []).append(passed + left)
    if not {*waiting, *(run for run, _, _ in running)} <= seen.keys():
        return None
    means = {run: sum(values) / len(values) for run, values in seen.items()}
    rests = [max(means[run] - passed, 0.0) if left is None else left for run, passed, left in running]
    work = sum(rests) + sum(means[run] for run in waiting)
    return max([work / n_slots, *rests])
