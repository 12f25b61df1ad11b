"""The distribution: what `pip install .` installs, and what of it works without a checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import foldblend
from foldblend.commands import COMMANDS

PROJECT = Path(__file__).resolve().parents[1]
BUILT_FROM = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "requirements.txt",
    "requirements",
    "tests/requirements.txt",
    "src/foldblend",
)


def run_python(*arguments, cwd, env=None, check=True):
    """A process that sees this environment's packages and nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FOLDBLEND_ROOT", "PYTHONPATH")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=kept | (env or {}), capture_output=True, text=True, check=check)


def imported(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def required(name="requirements.txt"):
    """A file of requirements."""
    lines = (line.split("#")[0].strip() for line in (PROJECT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def test_the_lock_is_of_these_requirements_and_hashes_every_file():
    """A changed range without `./run.sh lock` would install what nobody asked for."""
    pins = {}
    for block in re.split(r"\n(?=[a-z])", (PROJECT / "requirements.lock").read_text())[1:]:
        first, *hashes = block.replace(" \\", "").splitlines()
        assert hashes and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
        pin = Requirement(first)
        pins.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    for name in ("requirements.txt", "requirements-no-deps.txt", "tests/requirements.txt"):
        for requirement in required(name):
            if requirement.name != "torch":  # run.sh installs the build that fits the machine
                versions = pins[canonicalize_name(requirement.name)]
                assert all(requirement.specifier.contains(version) for version in versions), requirement
    assert not any(name == "torch" or name.startswith("nvidia") for name in pins)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `pip install .` builds, without a network; built in a copy, as a build leaves folders behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(PROJECT / name, source / name)
    quiet = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run_python("-m", "pip", "wheel", *quiet, "--wheel-dir", target, source, cwd=target)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the installed package."""
    target = tmp_path_factory.mktemp("installed")
    run_python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel, cwd=target)
    return target


@pytest.fixture
def run_installed(installed, tmp_path):
    """run_installed("train", "--help") -> what the installed command does in an empty folder."""

    def run(*arguments, cwd=tmp_path, **env):
        path = {"PYTHONPATH": str(installed), **env}
        return run_python("-m", "foldblend", *arguments, cwd=cwd, env=path, check=False)

    return run


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        path for pattern in ("*.py", "*.[ch]", "page.*") for path in (PROJECT / "src" / "foldblend").rglob(pattern)
    }
    sources = {path for path in sources if path.parent.name != "__pycache__"}
    assert files == {path.relative_to(PROJECT / "src").as_posix() for path in sources}


def test_the_metadata_is_what_the_files_say(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"foldblend-{foldblend.__version__}.dist-info"
    assert wheel.name == f"foldblend-{foldblend.__version__}-py3-none-any.whl"
    metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
    found = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert {str(each) for each in found if "extra ==" not in str(each.marker)} == set(map(str, required()))
    assert archive.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]", "foldblend", "=", "foldblend.commands:main",
    ]  # fmt: skip


COMES_WITH = {
    "kagglesdk": "kaggle",
    "requests": "kaggle",
    "tokenizers": "transformers",
    **dict.fromkeys(["fastapi", "starlette", "uvicorn"], "gradio"),
}
"""Packages that are a part of how another one is used."""
OPTIONAL = {"pyarrow", "openpyxl", "openai", "optuna", "gradio"}
"""Packages that few competitions need; the error of the module that misses one says how to install it."""


def test_every_import_is_required():
    """What the package imports is named in requirements.txt, not left to what another package needs."""
    named = {canonicalize_name(each.name) for each in required()}
    owners = packages_distributions()
    for path in (PROJECT / "src" / "foldblend").rglob("*.py"):
        for name in {module.split(".")[0] for module in imported(path)} - sys.stdlib_module_names - {"foldblend"}:
            if name in OPTIONAL:
                assert f"Run: pip install {name}" in path.read_text()
                continue
            if COMES_WITH.get(name) in OPTIONAL:
                continue
            names = {canonicalize_name(COMES_WITH.get(name, owner)) for owner in owners.get(name, [name])}
            assert names & named, f"{path} imports {name}, which requirements.txt does not name"


@pytest.mark.parametrize("command", ["train", "submit", "blend"])
def test_the_installed_command_explains_itself_in_an_empty_folder(run_installed, command):
    done = run_installed(command, "--help")
    assert done.returncode == 0 and "--competition" in done.stdout, done.stderr


def test_without_a_workspace_it_says_how_to_begin(run_installed, tmp_path):
    done = run_installed("blend")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: no workspace found: neither {tmp_path} nor a folder above it holds configs/")
    assert "Work in a clone of the repository, or set FOLDBLEND_ROOT" in done.stderr


def test_the_workspace_is_the_nearest_folder_upward(run_installed, tmp_path):
    for name in ("configs", "elsewhere/configs", "elsewhere/notebooks/old"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "configs" / "default.yaml").write_text("competition: outer\nrun: a\nruns: [a]\n")
    (tmp_path / "elsewhere" / "configs" / "default.yaml").write_text("competition: inner\nrun: a\nruns: [a]\n")
    inside = tmp_path / "elsewhere" / "notebooks" / "old"
    assert "configs/competitions/inner.yaml is missing" in run_installed("blend", cwd=inside).stderr
    named = run_installed("blend", cwd=inside, FOLDBLEND_ROOT=str(tmp_path))
    assert "configs/competitions/outer.yaml is missing" in named.stderr


def test_a_checkout_is_its_own_workspace_from_anywhere(tmp_path):
    code = "from foldblend.settings.paths import find_paths; print(find_paths().root)"
    done = run_python("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(PROJECT / "src")})
    assert done.stdout.strip() == str(PROJECT)


def test_the_commands_are_those_of_src():
    assert {path.stem for path in (PROJECT / "src").glob("*.py")} == set(COMMANDS)
