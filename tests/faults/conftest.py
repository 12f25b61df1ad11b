"""What several files of faults need: commands as they are run, disks of their own, a fast run."""

import ctypes
import os
from contextlib import contextmanager

import pytest

from foldblend.commands import blend, guard, make_folds, train

COMMANDS = {"make_folds": make_folds.main, "train": train.main, "blend": blend.main}
READ_ONLY, REMOUNT = 1, 32
"""Flags of mount(2)."""


@pytest.fixture(autouse=True)
def blend_quickly(quick_blends):
    """What becomes of a fault is the same, in half of the time."""


@pytest.fixture
def words(paths, toy_competition):
    """Run `words` of competition `toy`: TF-IDF, a fold in milliseconds."""
    settings = "learner: tfidf\ntfidf: {word_ngrams: [1, 1], char_ngrams: [0, 0], min_rows: 1}\n"
    (paths.configs / "runs" / "words.yaml").write_text(settings)
    return "words"


@pytest.fixture
def run_command(paths, capsys):
    """run_command("train", ...) -> (exit status, what was printed, the error)."""

    def run(name, *flags):
        capsys.readouterr()
        status = guard(lambda: COMMANDS[name](["--competition", "toy", *flags]))
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return status, shown.out, shown.err

    return run


class Disk:
    """A small tmpfs in a folder."""

    def __init__(self, folder):
        self.folder, self.ballast = folder, folder / ".ballast"

    def fill(self):
        with open(self.ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return

    def free(self):
        self.ballast.unlink()

    def make_read_only(self):
        if ctypes.CDLL(None).mount(b"none", bytes(self.folder), b"tmpfs", REMOUNT | READ_ONLY, None):
            pytest.skip("this user may not mount")


@pytest.fixture
def disk():
    """disk(folder) mounts a tmpfs of 1 MB there; the test is skipped where that is not allowed."""
    mounted, libc = [], ctypes.CDLL(None, use_errno=True)

    @contextmanager
    def unmounted():
        yield
        for folder in mounted:
            libc.umount2(bytes(folder), 2)  # lazily: a failed test may hold a file

    def mount(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not hasattr(libc, "mount") or libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=1m"):
            pytest.skip(f"this user may not mount a small tmpfs ({os.strerror(ctypes.get_errno())})")
        mounted.append(folder)
        return Disk(folder)

    with unmounted():
        yield mount
