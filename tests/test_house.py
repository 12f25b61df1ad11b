"""Who may import whom (docs/architecture.md), and the measures of the house: files per folder, light commands."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SRC = PROJECT / "src"
PACKAGE = SRC / "foldblend"
COMMANDS = sorted(path.stem for path in SRC.glob("*.py"))
PACKAGES = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] not in "_.")
BASE = {"errors", "files", "npz", "cores", "plugins", "predictions", "console", "features"}
"""Modules that every package may import."""
MAY = {
    "settings": {"scoring", "learners"},
    "data": {"settings", "kaggle"},
    "submission": {"settings", "data", "scoring"},
    "kaggle": {"settings"},
    "folding": {"settings"},
    "ledger": {"settings"},
    "learners": {"settings", "scoring"},
    "scoring": set(),
    "teaching": {"settings"},
    "queueing": {"learners"},
    "tuning": {"settings"},
    "bundling": {"settings"},
    "reports": {"scoring"},
    "commands": set(PACKAGES),
}
"""Package -> the other packages that it may import."""
MAY_ONLY = {
    ("settings", "scoring"): {"foldblend.scoring.metrics.table"},
    ("settings", "learners"): {"foldblend.learners.table"},
    ("submission", "scoring"): {"foldblend.scoring.metrics.table"},
    ("learners", "scoring"): {"foldblend.scoring.metrics.table"},
    ("data", "kaggle"): {"foldblend.kaggle.client"},
    ("queueing", "learners"): {"foldblend.learners.processes.interruption"},
}
"""(package, other package) -> the only modules of the other that it may import."""
NETS = {"torch", "transformers", "accelerate", "peft"}
MAY_NOT = {
    "settings": {*NETS, "numpy", "pandas", "sklearn"},
    "data": NETS,
    "submission": NETS,
    "kaggle": {*NETS, "numpy", "pandas", "sklearn"},
    "folding": {*NETS, "pandas"},
    "ledger": NETS,
    "learners": {"pandas", "kaggle"},
    "scoring": {*NETS, "pandas"},
    "teaching": {*NETS, "pandas", "sklearn"},
    "queueing": {*NETS, "numpy", "pandas", "sklearn"},
    "tuning": {*NETS, "numpy", "pandas", "sklearn"},
    "bundling": {*NETS, "pandas", "sklearn"},
    "reports": {*NETS, "pandas"},
    "commands": NETS,
}
"""Package -> libraries that it may not import."""


def imported(path):
    """Full names of the modules that a file imports, wherever in it; `from foldblend.a import b` may be module a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = Path(SRC, *node.module.split("."))
            for alias in node.names:
                inside = (module / f"{alias.name}.py").is_file() or (module / alias.name).is_dir()
                yield f"{node.module}.{alias.name}" if inside else node.module


def test_every_package_has_its_rule():
    assert set(MAY) == set(MAY_NOT) == set(PACKAGES)
    assert {path.stem for path in PACKAGE.glob("*.py")} == BASE | {"__init__", "__main__", "api"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package):
    files = sorted((PACKAGE / package).rglob("*.py"))
    assert files
    wrong = []
    for path in files:
        for name in imported(path):
            first, *rest = name.split(".")
            if first == "foldblend" and rest:
                known = rest[0] in BASE | MAY[package] | {package}
                only = MAY_ONLY.get((package, rest[0]))
                bad = not known or (only is not None and name not in only)
            else:
                bad = first in MAY_NOT[package] | set(COMMANDS)
            wrong += [f"{path.relative_to(SRC)} imports {name}"] * bad
    assert not wrong


@pytest.mark.parametrize("base", sorted(BASE - {"plugins"}))  # plugins fills the tables of other packages
def test_a_base_module_imports_only_base_modules(base):
    ours = {name.split(".")[1] for name in imported(PACKAGE / f"{base}.py") if name.startswith("foldblend.")}
    assert ours <= BASE


def test_no_command_imports_another():
    for command in COMMANDS:
        others = {f"foldblend.commands.{other}" for other in COMMANDS} - {f"foldblend.commands.{command}"}
        assert not others & set(imported(PACKAGE / "commands" / f"{command}.py"))
        lines = (SRC / f"{command}.py").read_text().splitlines()
        assert set(imported(SRC / f"{command}.py")) == {"sys", "foldblend.commands"} and len(lines) < 15


def test_no_folder_shows_more_than_15_files():
    for folder in [SRC, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name[0] not in "_.")]:
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= 15, folder


def test_no_module_shadows_a_library():
    """src/ comes first on the path of a command, so src/datasets.py would break transformers; bench/ on a bench's."""
    names = {path.stem for path in SRC.iterdir() if path.suffix == ".py" or path.is_dir()} - {"foldblend"}
    names |= {path.stem for path in (PROJECT / "bench").glob("*.py")}
    assert not names & {"coverage", "pkg_resources"}  # not installed here, but libraries import them if they are there
    code = f"import importlib.util as u; print([n for n in {sorted(names)} if u.find_spec(n)])"
    # -I: without the current folder, or a folder of that name beside it would count as a library.
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"


def test_no_two_test_files_have_one_name():
    """pytest imports them by it; with a cached module the second one would go unseen."""
    names = [path.name for path in (PROJECT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), [name for name in sorted(set(names)) if names.count(name) > 1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    words = [sys.executable, str(SRC / f"{command}.py"), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--competition" in done.stdout and "--n_folds" in done.stdout


@pytest.mark.parametrize("command", ["train", "train_all", "make_folds", "blend", "report", "bundle", "submit"])
def test_the_first_line_comes_before_slow_libraries(paths, command, tmp_path):
    """Libraries that take seconds end the command here as soon as one is imported."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name in ("torch", "transformers", "sklearn", "accelerate"):
        (stubs / f"{name}.py").write_text("import os; os._exit(3)\n")
    env = {**os.environ, "PYTHONPATH": str(stubs), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, str(SRC / f"{command}.py"), "--competition", "sample"]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False, timeout=120)
    assert done.stdout.startswith("competition sample"), done.stderr


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
