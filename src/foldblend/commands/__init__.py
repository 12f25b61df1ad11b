"""The commands by name, and how each is run: `foldblend train --fold 3` is `python src/train.py --fold 3`."""

import atexit
import difflib
import errno
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from foldblend.console import clean_streams, is_first_process, print_error
from foldblend.errors import UserError, redact

COMMANDS = {
    "make_folds": "draw a competition's folds, or show those it has",
    "train": "train folds of one run",
    "train_all": "train the folds of several runs on all GPUs or cores",
    "tune": "search better settings of a run",
    "runs": "compare runs, or two of them; watch what trains",
    "report": "show data, runs, labels and errors on one HTML page",
    "blend": "weight the runs, tune thresholds, write a submission",
    "submit": "submit to Kaggle and log the score",
    "teach": "let a blend or a language model label texts for training",
    "predict": "predict new texts with a blend's models",
    "bundle": "pack a blend for a Kaggle notebook without internet",
    "check": "compare every file with its record; list and remove old ones",
}
"""Name of the module in foldblend/commands/ -> what it does."""
PROJECT = Path(__file__).resolve().parents[3]
"""The cloned project; of an installed package some folder without src/."""
STOPPED = "stopped; what was finished is saved, and the same command goes on from there"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(argv: list[str] | None = None) -> int:
    """The console script `foldblend`: run the command that the first word names. Returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    name = argv[0].replace("-", "_")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        guess = f"; did you mean {shown_name(close[0])!r}?" if close else "."
        print_error(f"unknown command {argv[0]!r}{guess} See `foldblend --help`")
        return 2
    sys.argv = [f"foldblend {argv[0]}", *argv[1:]]
    return run_command(name)


def help_text() -> str:
    """One line per command."""
    lines = [f"  {shown_name(name):<12}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: foldblend COMMAND [flags]", "", *lines, "", "`foldblend COMMAND --help` lists a command's flags."]
    )


def shown_name(name: str) -> str:
    """train_all -> train-all."""
    return name.replace("_", "-")


def run_command(name: str) -> int:
    """Import one command and run it with the process's flags. Returns its exit status."""

    def main() -> None:
        import_module(f"foldblend.commands.{name}").main()  # here, so that Ctrl-C while it imports is caught, too

    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        return guard(main)
    _interrupted.clear()
    before = signal.signal(signal.SIGINT, _interrupt)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)  # while Python ends, Ctrl-C would print a traceback
    try:
        return guard(main)
    finally:
        signal.signal(signal.SIGINT, before)


_interrupted: list[int] = []
"""Ctrl-C so far: a library that is imported or called at that moment may make an error of its own of it."""


def _interrupt(number, frame) -> None:
    _interrupted.append(number)
    raise KeyboardInterrupt


def start_words(name: str) -> list[str]:
    """The first words of a command line that runs a command in a process of its own, cloned or installed."""
    script = PROJECT / "src" / f"{name}.py"
    return [sys.executable, str(script)] if script.is_file() else [sys.executable, "-m", "foldblend", shown_name(name)]


def guard(main: Callable[[], None]) -> int:
    """Run a command. What the user can fix becomes one message; a fault of the program keeps its traceback.

    Returns: the exit status: 0; a UserError's own (2); 1 after any other error; 130 after Ctrl-C; 141 if whoever read
             the output is gone (`| head`). `FOLDBLEND_TRACEBACK=1` shows where a UserError was raised. Under
             `accelerate launch` the launcher ends with a status other than 0, too, and prints no traceback of its own.
    """
    with clean_streams():
        status = _run(main)
    if status and any(name.startswith("ACCELERATE_") for name in os.environ):
        from foldblend.learners.processes.interruption import end_launcher

        end_launcher()
    return status


def _run(main: Callable[[], None]) -> int:
    try:
        main()
        sys.stdout.flush()  # a closed pipe shows here, and not while the interpreter ends
    except UserError as error:
        return _show_user_error(error, error.exit_status)
    except KeyboardInterrupt:
        return _show_stopped()
    except MemoryError as error:
        print_error(f"out of memory{_because(error)}. Close other programs, or train fewer folds side by side")
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return _show_user_error(error, UserError.exit_status)
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 141  # 128 + SIGPIPE, as a shell reports it
        if _interrupted or _began_with_interrupt(error):
            return _show_stopped()
        if NO_MEMORY.search(str(error)) or getattr(error, "errno", 0) == errno.ENOMEM:
            print_error(f"out of memory: {error}. Close other programs, or train fewer folds side by side")
            return 1
        _show_traceback()
        return 1
    return 0


NO_MEMORY = re.compile(r"can't allocate memory|[Cc]annot allocate memory|not enough memory|can't start new thread")
"""What libraries say that raise another error than MemoryError."""


def _show_traceback() -> None:
    with suppress(OSError, ValueError):  # stderr is gone: the status says it
        print(redact(traceback.format_exc()), end="", file=sys.stderr, flush=True)


FIRST_SPEAKS_SECONDS = 5
"""All processes of a launch are refused for the same reason: in this time the first one says it and ends the others."""


def _show_user_error(error: Exception, status: int) -> int:
    if not is_first_process():
        time.sleep(FIRST_SPEAKS_SECONDS)
    if os.environ.get("FOLDBLEND_TRACEBACK"):
        _show_traceback()
    print_error(str(error))
    return status


def _show_stopped() -> int:
    if is_first_process():  # one line for all processes of a launch
        with suppress(OSError, ValueError):
            print(STOPPED, file=sys.stderr)
    return 130


def _because(error: MemoryError) -> str:
    return f": {error}" if str(error) else ""


def _began_with_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C came first: a library that is imported then may raise an error of its own from it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reader_is_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads; if so, what is left to be said goes nowhere."""
    gone = False
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):  # poll(2): the read end has been closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            gone = True
    return gone
