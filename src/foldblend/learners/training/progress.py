"""What a person sees while a fold trains or predicts: a bar in a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable

from foldblend.console import clock_time, columns, is_terminal

LINE_EVERY_SECONDS = 20
"""Between plain lines; a line is printed only if the percentage has changed, too, so at most 101 per bar."""
DRAW_EVERY_SECONDS = 0.1
LONGEST_BAR = 30

_live: list["Progress"] = []
"""The bars of this process, the one that is drawn last: a prediction inside a training takes its line for a while."""


class Progress:
    """Counts rows that are done. Only the first process shows anything; `close` takes the bar away."""

    def __init__(
        self,
        title: str,
        total_rows: int,
        done_rows: int = 0,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.title, self.total, self.done, self.shown, self.clock = title, total_rows, done_rows, shown, clock
        self.started, self.started_at = clock(), done_rows
        self.last_line, self.last_percent = self.started, percent(done_rows, total_rows)
        self.drawn_at, self.state = -DRAW_EVERY_SECONDS, ""
        self.is_bar = shown and is_terminal(sys.stderr)
        if self.is_bar:
            _live.append(self)

    def advance(self, n_rows: int, state: str) -> None:
        """Count rows and show `state` (epoch, loss, last held-out score) with the time left."""
        self.done, self.state = self.done + n_rows, state
        now = self.clock()
        if self.is_bar and now - self.drawn_at >= DRAW_EVERY_SECONDS:
            self.drawn_at = now
            self._draw(now)
        elif self.shown and not self.is_bar and now - self.last_line >= LINE_EVERY_SECONDS:
            self._print_line(now)

    def say(self, text: str) -> None:
        """One line that stays."""
        if self.shown:
            announce(self.title, text)

    def close(self) -> None:
        """Take the bar away; one that was hidden by it is drawn again at its next step."""
        if self.is_bar and self in _live:
            _wipe()
            _live.remove(self)

    def _draw(self, now: float) -> None:
        line = bar_line(self.title, self.done, self.total, self.state, self._left(now), columns(sys.stderr) - 1)
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def _print_line(self, now: float) -> None:
        reached = percent(self.done, self.total)
        if reached == self.last_percent:
            return
        self.last_line, self.last_percent = now, reached
        rate = (self.done - self.started_at) / (now - self.started)
        self.say(f"{reached:3d}%  {self.state}  {rate:.0f} rows/s  {_time_left(self._left(now))}")

    def _left(self, now: float) -> float | None:
        """Seconds, at the rate since this process began; None before it has done anything."""
        done = self.done - self.started_at
        return (self.total - self.done) * (now - self.started) / done if done else None


def announce(title: str, text: str) -> None:
    """One line on stderr that stays, above the bar if there is one."""
    _wipe()
    print(f"{title}: {text}", file=sys.stderr, flush=True)
    if _live:
        _live[-1]._draw(_live[-1].clock())


def _wipe() -> None:
    if _live:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def bar_line(title: str, done: int, total: int, state: str, seconds_left: float | None, width: int) -> str:
    """`fold 3  45% [####----] epoch 2/4  loss 0.1234  macro_f1 0.5998  1:23 left`, at most `width` characters.

    The bar takes what the words leave. In a terminal too narrow for both, the words stay and the bar goes.
    """
    head = f"{title} {percent(done, total):3d}%"
    words = f"{state.replace('held-out ', '')}  {_time_left(seconds_left)}".strip()
    space = min(width - len(head) - len(words) - len(" [] "), LONGEST_BAR)
    if space < 3:
        return f"{head} {words}"[:width]
    full = space * done // max(total, 1)
    return f"{head} [{'#' * full}{'-' * (space - full)}] {words}"


def _time_left(seconds: float | None) -> str:
    return "time left not known yet" if seconds is None else f"{clock_time(seconds)} left"


def percent(done: int, total: int) -> int:
    """Whole percent, rounded down, so that 100 means the end."""
    return 100 * done // max(total, 1)
