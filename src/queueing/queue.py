"""Queueing room: jobs wait, run in the slots of one machine, are started again when they die, and are stopped whole."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from learners.interruption import Interruption
from queueing.child import BUSY, REFUSED, Child, describe_exit
from queueing.jobs import FoldJob
from queueing.screen import Screen, clock, time_left
from queueing.slots import Slot

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
