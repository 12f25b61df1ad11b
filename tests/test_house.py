"""Who may import whom; README, Architecture."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SRC = PROJECT / "src"
MAY_NOT = {
    "scoring": {"torch", "transformers", "accelerate", "pandas", "competition", "ledger", "learners", "settings"},
    "ledger": {"torch", "transformers", "accelerate", "competition", "learners", "scoring", "folding"},
    "folding": {"torch", "transformers", "accelerate", "competition", "ledger", "learners", "scoring"},
    "competition": {"torch", "transformers", "accelerate", "ledger", "learners", "scoring", "folding"},
    "learners": {"pandas", "competition", "ledger", "folding"},
    "bundling": {"torch", "numpy", "pandas", "competition", "ledger", "learners", "scoring", "folding"},
    "queueing": {
        "torch",
        "numpy",
        "pandas",
        "transformers",
        "accelerate",
        "competition",
        "ledger",
        "scoring",
        "folding",
    },
    "settings": {"torch", "numpy", "pandas", "competition", "ledger", "learners", "folding"},
}
DOORS = sorted(path.stem for path in SRC.glob("*.py"))


def imported(path):
    """Top-level names of every import of a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("room", sorted(path.name for path in SRC.iterdir() if path.is_dir() and path.name[0] != "_"))
def test_a_room_imports_only_what_it_may(room):
    files = sorted((SRC / room).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(SRC)} imports {name}"
        for path in files
        for name in imported(path)
        if name.split(".")[0] in MAY_NOT[room] | set(DOORS)
    ]
    assert not wrong


@pytest.mark.parametrize("room", ["learners", "settings"])
def test_metrics_alone_are_taken_from_scoring(room):
    names = {name for path in (SRC / room).rglob("*.py") for name in imported(path)}
    assert {name for name in names if name.startswith("scoring")} <= {"foldblend.scoring.metrics.table"}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_imports_another(door):
    assert not set(imported(SRC / f"{door}.py")) & set(DOORS)


def test_no_module_shadows_a_library():
    """src/ comes first on the path of a door, so src/datasets.py would break transformers."""
    names = {path.stem for path in SRC.iterdir()}
    code = f"import importlib.util as u; print([n for n in {sorted(names)} if u.find_spec(n)])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True).stdout
    assert found == "[]\n"


@pytest.mark.parametrize("door", DOORS)
def test_every_door_explains_itself(door):
    command = [sys.executable, str(SRC / f"{door}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--competition" in done.stdout and "--n_folds" in done.stdout


def run_sh(*arguments):
    env = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(["./run.sh", *arguments], capture_output=True, text=True, cwd=PROJECT, env=env, check=False)


def test_run_sh_explains_itself():
    done = run_sh("--help")
    assert done.returncode == 0 and "./run.sh test" in done.stdout


@pytest.mark.parametrize("arguments", [("--competitoin", "x"), ("--runs",), ("stray",)])
def test_run_sh_names_what_it_does_not_know(arguments):
    done = run_sh(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and arguments[0] in done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout
