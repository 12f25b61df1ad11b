"""How text reaches a person: colour and live lines in a terminal, 80 columns in a pipe, few lines in a notebook."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from textwrap import fill
from typing import TextIO

from foldblend.errors import redact

COLOURS = {"red": "31", "yellow": "33", "green": "1;32", "bold": "1"}
"""Red for an error, yellow for a warning, green for what was chosen; SGR codes of ECMA-48."""
NOTEBOOK_VARIABLES = ("JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG")
"""Set by Jupyter, Kaggle and Colab in a kernel and in every process that a cell starts."""


def in_notebook() -> bool:
    """Whether a notebook shows the output. `!python ...` in a cell gets a terminal that keeps every line for ever."""
    return "ipykernel" in sys.modules or any(name in os.environ for name in NOTEBOOK_VARIABLES)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream in a terminal that understands cursor codes."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not in_notebook()


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour of COLOURS if `stream` (stdout) is a terminal and $NO_COLOR is unset; else unchanged.

    Source: no-color.org.
    """
    if os.environ.get("NO_COLOR") or not is_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def columns(stream: TextIO | None = None) -> int:
    """Characters per line: of the terminal that `stream` (stdout) is, 80 in a pipe or notebook."""
    stream = stream or sys.stdout
    if not is_terminal(stream):
        return 80
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that has no size
        return 80


def clock_time(seconds: float) -> str:
    """65 -> 1:05, 3665 -> 1:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def wrapped(text: str, indent: str = "  ") -> str:
    """The text in lines as long as the terminal, at most 100, all but the first indented; no word is broken."""
    how = {"width": min(columns(), 100), "break_long_words": False, "break_on_hyphens": False}
    first, *others = text.splitlines() or [""]
    lines = [fill(first, subsequent_indent=indent, **how)]
    lines += [fill(line, initial_indent=indent, subsequent_indent=indent, **how) for line in others]
    return "\n".join(lines)


def is_first_process() -> bool:
    """Whether this is the first process of an `accelerate launch`, or the only one: the others stay silent."""
    return os.environ.get("RANK", "0") == "0"


def print_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines as they are, at once, so that a pipe sees them while the command goes on; by the first process.

    The head of a warning and the line of what was chosen are in colour, and no key or token is shown.
    """
    text = "\n".join(_colour(redact(line), stream or sys.stdout) for line in lines)
    if text and is_first_process():
        print(text, file=stream or sys.stdout, flush=True)


def _colour(line: str, stream: TextIO) -> str:
    if line.startswith("warning:"):
        return coloured("warning:", "yellow", stream) + line.removeprefix("warning:")
    return coloured(line, "green", stream) if line.startswith(("> ", "Chosen: ")) else line


def say(*texts: str) -> None:
    """Print each text on stdout, in lines as long as the terminal."""
    print_lines(map(wrapped, texts))


def warn(*texts: str, stream: TextIO | None = None) -> None:
    """Print `warning: <text>` for each text on `stream` (stdout), in lines as long as the terminal."""
    # a no-break space, so that a first word as long as a line does not leave the head alone
    print_lines((wrapped(f"warning:\xa0{text}").replace("\xa0", " ", 1) for text in texts), stream)


def print_error(text: str) -> None:
    """Print `error: <text>` on stderr, without keys and tokens. It never fails: it is the last thing that is said."""
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed, full or missing: nobody can be told
        print(f"{coloured('error:', 'red', sys.stderr)} {redact(text)}", file=sys.stderr, flush=True)


# ---------- what a terminal must not be told by text that comes from files and servers.


OURS = r"\x1b\[(?:\d{1,3}(?:;\d{1,3})?m|\d{1,3}F|[JK])"
"""Colours, cursor up, clear: what this project sends itself. Whoever else sends them can do no harm with them."""
CONTROL = re.compile(
    rf"{OURS}|(?P<bad>(?!^)\r(?!\n)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069])"
)
"""Control codes, and codes that turn the direction of text; a carriage return may begin a line or end one."""


def without_control_codes(text: str) -> str:
    """The text with control codes spelt out, so that a terminal shows them and does not obey them.

    Example: "\\x1b]0;title\\x07" -> "\\\\x1b]0;title\\\\x07"
    """
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1] if found["bad"] else found[0], text)


class CleanStream:
    """A stream that writes text without control codes and never fails over a character that it cannot write."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        text = without_control_codes(text)
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding or "ascii"
            return self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


@contextmanager
def clean_streams() -> Iterator[None]:
    """Let stdout and stderr be CleanStreams in the block. A stream that was closed (`>&-`) is replaced by nothing.

    Without that a file that is opened next would get the closed stream's number, and be written into by whoever
    prints, such as a C library.
    """
    before = sys.stdout, sys.stderr
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        sys.stdout, sys.stderr = (CleanStream(stream or nothing) for stream in before)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


# ---------- a fold that trains or predicts: a bar in a terminal, a plain line now and then elsewhere.

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


# ---------- the queue: lines that stay, live lines below them in a terminal, a status line elsewhere.

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


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; the first row is the head, the first column is left-aligned and all others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
