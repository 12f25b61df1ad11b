"""Names of commands, and what an error of each kind looks like to the user and to the queue."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foldblend import commands
from foldblend.commands import COMMANDS, guard
from foldblend.errors import UserError
from foldblend.files import BusyError, FileError

PROJECT = Path(__file__).resolve().parents[2]


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "error, status",
    [
        (UserError("found x, expected y"), 2),
        (FileError("found x, expected y"), 2),
        (BusyError("found x, expected y"), 75),
    ],
)
def test_what_a_user_can_fix_is_one_message(capsys, error, status):
    assert guard(raising(error)) == status
    assert capsys.readouterr().err == "error: found x, expected y\n"


def test_a_disk_that_fills_up_anywhere_is_one_message(capsys):
    assert guard(raising(OSError(errno.ENOSPC, "No space left on device", "cache/x"))) == 2
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'cache/x'\n"


def test_a_fault_of_the_program_keeps_its_traceback_without_keys(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345")
    for error in (ValueError("hf_abcdefgh12345"), KeyError("a"), OSError("b"), BrokenPipeError()):
        assert guard(raising(error)) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("Traceback") and type(error).__name__ in shown and "abcdefgh" not in shown
    assert guard(lambda: np.zeros(2) + np.zeros(3)) == 1
    assert "operands could not be broadcast" in capsys.readouterr().err


def test_no_memory_is_one_message_and_no_refusal(capsys):
    assert guard(lambda: np.zeros(1 << 50)) == 1
    assert capsys.readouterr().err.startswith("error: out of memory: Unable to allocate")


def test_ctrl_c_is_no_traceback_even_if_a_library_turns_it_into_its_own_error(capsys):
    def imported():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("half imported") from error

    for main in (raising(KeyboardInterrupt()), imported):
        assert guard(main) == 130
        assert capsys.readouterr().err == commands.STOPPED + "\n"
    assert guard(lambda: None) == 0


@pytest.mark.parametrize("streams", [{}, {"stderr": subprocess.STDOUT}])
def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path, streams):
    code = "import sys; from foldblend.commands import guard\ndef main():\n  for _ in range(10**6): print('x' * 99)\n"
    command = [sys.executable, "-c", code + "sys.exit(guard(main))"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    process = subprocess.Popen(command, cwd=PROJECT / "src", text=True, **streams)
    assert process.stdout.readline() == "x" * 99 + "\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    if process.stderr:
        assert process.stderr.read() == ""


def test_ctrl_c_while_libraries_are_imported_is_one_line(tmp_path):
    """A library on the path that stops the process in the middle of its import."""
    (tmp_path / "pandas.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("train", "blend"):
        command = [sys.executable, str(PROJECT / "src" / f"{name}.py"), "--competition", "sample"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
        assert done.returncode == 128 + signal.SIGINT, done.stderr
        assert done.stderr == commands.STOPPED + "\n"


def test_ctrl_c_that_a_library_swallows_is_one_line_all_the_same(tmp_path):
    """It makes an error of its own of Ctrl-C, without saying where that came from."""
    stop = "import os, signal\ntry:\n  os.kill(os.getpid(), signal.SIGINT)\n  while True: pass\n"
    (tmp_path / "pandas.py").write_text(
        stop + "except BaseException: pass\nraise ImportError('half of it') from None\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(PROJECT / "src" / "blend.py"), "--competition", "sample"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, commands.STOPPED + "\n")


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback_and_no_file_gets_their_number(tmp_path, closing):
    code = (
        "import os, sys; from foldblend.commands import guard\n"
        "def main():\n  print('x'); f = open(sys.argv[1], 'w'); assert f.fileno() > 2; os.write(1, b'stray')\n"
        "  f.write('whole'); raise ValueError('a fault')\nsys.exit(guard(main))"
    )
    path = tmp_path / "file"
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" "$2" {closing}', sys.executable, code, str(path)],
        cwd=PROJECT / "src", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and path.read_text() == "whole"
    assert "2>&-" in closing or (done.stderr.count("Traceback") == 1 and done.stderr.endswith("ValueError: a fault\n"))


AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
"""Before a command: without root's right to read everything."""


@pytest.mark.skipif(bool(AS_A_USER) and not shutil.which("setpriv"), reason="root reads everything")
@pytest.mark.parametrize("home", ["unset", "unreadable", "a file"])
def test_without_a_home_an_error_is_one_message(tmp_path, home):
    folder = tmp_path / "home"
    folder.write_text("") if home == "a file" else folder.mkdir()
    folder.chmod(0)
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "FOLDBLEND_ROOT": "/nowhere"}
    env |= {} if home == "unset" else {"HOME": str(folder)}
    command = [*AS_A_USER, sys.executable, str(PROJECT / "src" / "train.py"), "--competition", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done.stderr


def test_no_memory_in_a_librarys_own_words(capsys):
    words = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 GB"
    for error in (RuntimeError(words), OSError(errno.ENOMEM, "Cannot allocate memory")):
        assert guard(raising(error)) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("error: out of memory: ") and shown.count("\n") == 1


def test_an_error_is_told_without_its_text_if_keys_cannot_be_looked_for(capsys, monkeypatch):
    monkeypatch.setattr("foldblend.errors._forms", lambda: 1 / 0)
    assert guard(raising(UserError("hf_abcdefgh12345"))) == 2
    assert capsys.readouterr().err.startswith("error: <redacted>: the keys in this message could not be found")


def test_the_console_script_lists_its_commands_and_names_the_nearest(capsys):
    assert commands.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].replace("-", "_") for line in lines[2:-2]] == list(COMMANDS)
    assert max(map(len, lines)) <= 80
    assert commands.main(["trian"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'trian'; did you mean 'train'? See `foldblend --help`\n"
    assert commands.main(["zzz"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'zzz'. See `foldblend --help`\n"


@pytest.mark.parametrize("given", ["train-all", "train_all"])
def test_a_command_of_the_console_script_is_the_one_in_src(capsys, given, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["foldblend"])
    assert commands.main([given, "--side_by_sid", "2"]) == 2
    shown = capsys.readouterr().err
    command = [sys.executable, str(PROJECT / "src" / "train_all.py"), "--side_by_sid", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == shown and "did you mean --side_by_side?" in shown


def test_the_package_and_its_commands_are_light_to_import():
    code = (
        "import sys, foldblend, foldblend.commands;"
        "print([name for name in ('numpy', 'pandas', 'torch', 'jsonargparse') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT / "src", capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
