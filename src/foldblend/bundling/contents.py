"""bundling/: a folder that holds everything a trained blend needs to predict, laid out like the project's own root.

So `src/predict.py` runs in it as it runs at home. It is built beside its place and gets its name when it is whole.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from foldblend.settings.paths import Paths

# ---------- a folder that holds everything a trained blend needs to predict, laid out like the project's own root.


@dataclass(frozen=True)
class BundledModel:
    """The pretrained model of one run."""

    run: str
    name: str
    """As the run's settings name it."""
    folder: Path
    """Where it lies here."""
    patterns: tuple[str, ...]
    """The files of it that predicting needs."""
    proof: dict
    """What a copy of it is known by."""
    attached: bool
    """Whether the notebook gets it from elsewhere, so that it is not copied."""

    @property
    def key(self) -> str:
        """A folder's name; runs that start from the same files share it."""
        words = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.name).strip("-.")
        return f"{words[-60:].strip('-.')}-{self.proof['config_sha256'][:8]}{'-w' if len(self.proof) > 1 else ''}"


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when the block ends well, in the place of what was there."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_sources(code: Path, target: Path) -> None:
    """The project's own code, and nothing that was left beside it.

    Args: code: the folder src/ of the code that runs now.
    """
    for pattern in ("*.py", "*.[ch]"):
        for path in sorted(code.rglob(pattern)):
            _copy(path, target / "src" / path.relative_to(code))
    for name in ("LICENSE", "requirements.txt"):
        _copy(code.parent / name, target / name)


def copy_blend(paths: Paths, record_path: Path, record: dict, runs: Sequence[str], sample: Path, target: Path):
    """The blend's record, the folds, the sample submission, settings, and the records of the runs' folds."""
    competition = record["competition"]
    inside = Paths(target)
    _copy(record_path, inside.submissions(competition) / record_path.name)
    _copy(paths.folds(competition), inside.folds(competition))
    settings = record["settings"]["competition"]
    _copy(sample, inside.data(competition) / settings["files"]["sample_submission"])
    _write_yaml(inside.configs / "competitions" / f"{competition}.yaml", settings)
    _write_yaml(inside.configs / "default.yaml", {"competition": competition, "run": runs[0], "runs": list(runs)})
    for run in runs:
        for path in sorted(paths.oof(competition).joinpath(run).glob("fold*.json")):
            _copy(path, inside.oof(competition) / run / path.name)


def copy_weights(checkpoints: Sequence[Path], weights_name: str, run_folder: Path) -> None:
    """Each fold's weights into `run_folder`/fold<k>."""
    for folder in checkpoints:
        _copy(folder / weights_name, run_folder / folder.name / weights_name)


def copy_model(model: BundledModel, run_folder: Path, note_name: str, target: Path) -> None:
    """A run's pretrained model, unless it is attached, and beside the run's folds the note that says where it is."""
    folder = target / "models" / model.key
    if not model.attached:
        for pattern in model.patterns:
            for path in sorted(model.folder.glob(pattern)):
                _copy(path, folder / path.relative_to(model.folder))
    up = "/".join([".."] * len(run_folder.relative_to(target).parts))
    note = {"name": model.name, "folder": "" if model.attached else f"{up}/models/{model.key}", "proof": model.proof}
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / note_name).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path) -> tuple[int, int]:
    """How many files there are, and how many bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)


def _write_yaml(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


# ---------- packages that Kaggle's image may lack, in the versions that are installed here, as wheels.


PYTHON = "3.12"
"""Of Kaggle's image."""
IMAGE = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}
"""What markers of requirements ask."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
IN_THE_IMAGE = {
    *("torch", "numpy", "scipy", "scikit-learn", "pandas", "numba", "matplotlib", "tqdm", "pyyaml", "jinja2"),
    *("protobuf", "packaging", "typing-extensions", "filelock", "fsspec", "psutil", "setuptools"),
}
"""Packages that the image has and that need not be the newest."""
NOT_FOR_PREDICTING = {"kaggle", "six"}
SECONDS = 300


@dataclass
class Package:
    """One package to carry."""

    name: str
    pin: str
    """`name==version`, as it is installed here."""
    requires: tuple[str, ...]
    """Requirements of its own, of packages that are carried too."""
    file: str = ""
    """The wheel's name, once it is fetched."""


def choose_required(requirements: str, needs_bitsandbytes: bool) -> list[str]:
    """The requirements of predicting that the image may not meet, from the text of requirements.txt."""
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    parsed = [Requirement(line) for line in lines if line]
    left_out = IN_THE_IMAGE | NOT_FOR_PREDICTING | (set() if needs_bitsandbytes else {"bitsandbytes"})
    return [f"{each.name}{each.specifier}" for each in parsed if canonicalize_name(each.name) not in left_out]


def choose_packages(required: list[str]) -> dict[str, Package]:
    """Every package that they need, and those need in turn, which is installed here and not in the image."""
    packages, todo = {}, [Requirement(each) for each in required]
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name not in packages and (found := _installed(name)) is not None:
            needs = [each for each in found[1] if canonicalize_name(each.name) not in IN_THE_IMAGE]
            packages[name] = Package(name, f"{name}=={found[0]}", tuple(f"{e.name}{e.specifier}" for e in needs))
            todo += needs
    return packages


def download_wheel(package: Package, folder: Path) -> str:
    """Fetch a package through pip; empty, or a sentence on why it could not be had."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, "--dest", str(folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    try:
        done = subprocess.run([*command, package.pin], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{package.pin}: no answer in {SECONDS} s"
    fetched = sorted(path.name for path in set(folder.iterdir()) - before)
    if done.returncode or len(fetched) != 1:
        said = (done.stderr.strip().splitlines() or ["pip fetched nothing"])[-1]
        return f"{package.pin}: {said[:200]}"
    package.file = fetched[0]
    return ""


def _installed(name: str) -> tuple[str, list[Requirement]] | None:
    """Version and requirements of what is installed here; None where it is not."""
    try:
        found = distribution(name)
        needs = [Requirement(each) for each in found.requires or []]
    except (PackageNotFoundError, InvalidRequirement):
        return None
    return found.version, [each for each in needs if each.marker is None or each.marker.evaluate(IMAGE)]
