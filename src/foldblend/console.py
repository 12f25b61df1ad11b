"""How text reaches a person: colour in a terminal only, 80 columns in a pipe, few lines in a notebook."""

import os
import sys
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
    width = min(columns(), 100)
    return fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def warn(text: str) -> None:
    """Print `warning: <text>` on stdout."""
    print(f"{coloured('warning:', 'yellow')} {redact(text)}", flush=True)


def print_error(text: str) -> None:
    """Print `error: <text>` on stderr, without keys and tokens."""
    print(f"{coloured('error:', 'red', sys.stderr)} {redact(text)}", file=sys.stderr, flush=True)
