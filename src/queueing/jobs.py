"""Queueing room: folds of several runs as one list of jobs, and the part of it that one machine takes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FoldJob:
    """One fold of one run, trained by a process of its own."""

    run: str
    """Its name in oof/."""
    fold: int
    """0..n_folds-1."""
    command: tuple[str, ...]
    """What starts the process; the same command goes on where a killed one stood."""
    shown: str
    """The command as a person types it."""
    log: Path
    """What the process prints is appended here."""
    wants_gpu: bool
    """Whether a GPU saves hours."""

    @property
    def name(self) -> str:
        return f"{self.run} fold {self.fold}"


def take_part(jobs: Sequence[FoldJob], part: str) -> list[FoldJob]:
    """Part I of N of a list: every N-th job from the I-th on, so that parts 0/N to N-1/N hold each job once.

    Args:    part: `I/N`, or nothing for the whole list.
    Example: take_part("abcde", "1/3") -> ["b", "e"]
    Raises:  ValueError: not of that form, or I is not one of 0..N-1.
    """
    if not part:
        return list(jobs)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part, re.ASCII)
    if not found or not int(found[1]) < int(found[2]):
        raise ValueError(f"--part {part}: expected I/N with I from 0 to N-1, as 0/4, 1/4, 2/4, 3/4 for four machines")
    return list(jobs[int(found[1]) :: int(found[2])])


def split_flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A command line as (flag's name, its words): `--runs A B --part=0/2` -> runs, [--runs, A, B]; part, [--part=0/2].

    Raises: ValueError: a word before the first flag.
    """
    flags: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            flags.append((word[2:].split("=", 1)[0], [word]))
        elif flags:
            flags[-1][1].append(word)
        else:
            raise ValueError(f"{word!r} stands before any flag; expected --runs {word}, say; --help lists the flags")
    return flags


def without_flags(argv: Sequence[str], names: set[str]) -> list[str]:
    """A command line without the flags of these names and their values."""
    return [word for name, words in split_flags(argv) if name not in names for word in words]
