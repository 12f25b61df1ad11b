"""bundling/: packages that Kaggle's image may lack, in the versions that are installed here, as wheels."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

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
