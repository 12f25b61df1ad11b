"""Ledger room: what a record says of where it was made: library versions and the commit of the code."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "accelerate", "scikit-learn", "numpy", "pandas", "iterative-stratification")


def describe_environment(code: Path) -> dict:
    """Python and package versions, and the git commit of the folder `code` (`+` where files have changed since)."""
    return {"python": platform.python_version(), **_versions(), "git_commit": _commit(code)}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit(code: Path) -> str:
    try:
        command = ["git", "-C", str(code), "describe", "--always", "--abbrev=12", "--dirty=+"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown: git did not answer"
    return answer.stdout.strip() or "unknown: not a git checkout"
