"""What a person sees of the queue: lines that stay, live lines below them in a terminal, a status line elsewhere."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from foldblend.console import clock_time, is_terminal
from foldblend.errors import redact

FIRST_STATUS_SECONDS, LAST_STATUS_SECONDS = 30.0, 600.0
"""Without a terminal the status is printed after the first, then each time after twice as long, up to the last: at
most 11 times in the first hour, 6 in every later one."""
MOST_JOBS = 8
"""Running jobs that one status lists."""
SHORT_NAME, MIN_NAME = 16, 8
"""Characters of a name: fewer are not left by the time since the start, and fewer are never left."""
RATE = re.compile(r" +\d+ rows/s")


class Screen:
    """Prints lines that stay on stdout. In a terminal live lines follow them; in a notebook or pipe they are rare."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.is_terminal, self.clock = is_terminal(sys.stdout), clock
        self.live: list[str] = []
        self.pause, self.next_status = FIRST_STATUS_SECONDS, clock() + FIRST_STATUS_SECONDS

    def say(self, text: str) -> None:
        """Print one message that stays; keys and tokens are redacted."""
        self._wipe()
        print(redact(text), flush=True)
        self._draw()

    def show(self, lines: list[str]) -> None:
        """Show the queue's status: at once in a terminal, now and then elsewhere. No lines take the live ones away."""
        if self.is_terminal:
            self._replace(fit(lines, *shutil.get_terminal_size()))
        elif lines and self.clock() >= self.next_status:
            self.pause = min(2 * self.pause, LAST_STATUS_SECONDS)
            self.next_status = self.clock() + self.pause
            print("\n".join(redact(line) for line in fit(lines, 80, 24)), flush=True)

    def _replace(self, lines: list[str]) -> None:
        lines = [redact(line) for line in lines]
        if lines != self.live:
            self._wipe()
            self.live = lines
            self._draw()

    def _wipe(self) -> None:
        if self.live:
            print(f"\x1b[{len(self.live)}F\x1b[J", end="")  # up to the first live line, then clear to the end

    def _draw(self) -> None:
        for line in self.live:
            print(line)
        sys.stdout.flush()


def fit(lines: Sequence[str], width: int, height: int) -> list[str]:
    """The first line and as many of the others as the screen and MOST_JOBS allow, none longer than `width` - 1."""
    most = min(MOST_JOBS, max(height - 3, 1))
    first, others = list(lines[:1]), list(lines[1:])
    more = [f"  and {len(others) - most} more"] if len(others) > most else []
    return [line[: width - 1] for line in [*first, *others[:most], *more]]


def job_line(name: str, seconds: float, state: str, width: int) -> str:
    """`  minilm fold 3  12:34   45%  epoch 2/4  loss 0.1234  macro_f1 0.5998  1:23 left` in `width` - 1 characters.

    What the training says of itself is kept. If not all fits, a long name loses its middle, and the time since the
    start is left out.

    Args: state: percent, epoch, loss, score and time left as train.py prints them; empty before it does.
    """
    state = RATE.sub("", state).replace("held-out ", "")
    clock = f"  {clock_time(seconds)}"
    space = width - 1 - len(f"    {state}")
    if space - len(clock) < min(len(name), SHORT_NAME):
        clock = ""
    space = max(space - len(clock), MIN_NAME)
    if len(name) > space:
        end = space // 2
        name = f"{name[: space - end - 1]}…{name[-end:]}"
    return f"  {name}{clock}  {state}".rstrip()[: width - 1]


def time_left(
    seconds: Mapping[str, Sequence[float]], waiting: Sequence[str], running: Sequence[tuple[str, float]], n_slots: int
) -> float | None:
    """Seconds until all jobs are done, if each takes as long as its run's finished ones, or as all of them.

    Args:    seconds: run -> of its finished jobs.   waiting: a run's name for each waiting job.
             running: run, and for how long, of each running job.
    Returns: None before the first job is done.
    """
    every = [value for values in seconds.values() for value in values]
    if not every:
        return None
    means = {run: sum(values) / len(values) for run, values in seconds.items() if values}
    others = sum(every) / len(every)
    rests = [max(means.get(run, others) - passed, 0.0) for run, passed in running]
    work = sum(rests) + sum(means.get(run, others) for run in waiting)
    return max([work / n_slots, *rests])


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; the first row is the head, the first column is left-aligned and all others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
