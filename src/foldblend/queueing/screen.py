"""Queueing room: what a person sees of the queue: lasting lines, live ones below them on a terminal, a table."""

import shutil
import sys
from collections.abc import Mapping, Sequence

from foldblend.redact import redact


class Screen:
    """Lasting lines on stdout; where that is a terminal, a block of live lines stays below them."""

    def __init__(self):
        self.is_terminal = sys.stdout.isatty()
        self.live: list[str] = []

    def say(self, text: str) -> None:
        """One lasting message; keys and tokens are hidden."""
        self._wipe()
        print(redact(text), flush=True)
        self._draw()

    def show(self, lines: list[str]) -> None:
        """Replace the live lines; without a terminal there are none."""
        if self.is_terminal:
            self._wipe()
            self.live = [redact(line) for line in lines]
            self._draw()

    def _wipe(self) -> None:
        if self.live:
            print(f"\x1b[{len(self.live)}F\x1b[J", end="")

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        for line in self.live:
            print(line[:width])
        sys.stdout.flush()


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


def clock(seconds: float) -> str:
    """65 -> 1:05, 3665 -> 1:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text side by side, the first row above them; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
