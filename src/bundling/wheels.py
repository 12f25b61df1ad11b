"""bundling/: the packages that Kaggle's image lacks, in the versions that are installed here, as wheels."""

import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PYTHON = "3.12"
"""Of Kaggle's image."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
IN_THE_IMAGE = {
    *("torch", "numpy", "scipy", "scikit-learn", "pandas", "numba", "matplotlib", "tqdm", "pyyaml", "jinja2"),
    *("protobuf", "kaggle", "six"),
}
"""Requirements that the image has; what cannot be used there must not be carried there."""
COMPANIONS = {"transformers": ("tokenizers",), "huggingface-hub": ("hf-xet",)}
"""Packages that move in step with a requirement."""
SECONDS = 300


@dataclass
class Wheels:
    """The files for one requirement."""

    requirement: str
    """As in requirements.txt, such as `peft>=0.21`; the notebook installs the files where it is not met."""
    pins: list[str]
    """`name==version` of each file."""
    files: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What could not be had, with the reason."""


def choose_wheels(requirements: str, needs_bitsandbytes: bool) -> list[Wheels]:
    """What to fetch, from the text of requirements.txt."""
    chosen = []
    for line in requirements.splitlines():
        requirement = line.split("#")[0].split(";")[0].strip()
        name = _name(requirement)
        if not requirement or name in IN_THE_IMAGE or (name == "bitsandbytes" and not needs_bitsandbytes):
            continue
        there = [(each, _version(each)) for each in (name, *COMPANIONS.get(name, ()))]
        wheels = Wheels(requirement, [f"{each}=={found}" for each, found in there if found])
        wheels.missing = [f"{each}: not installed here" for each, found in there if not found]
        chosen.append(wheels)
    return chosen


def download_wheels(wheels: Wheels, folder: Path) -> None:
    """Fetch the files of one requirement through pip; what cannot be had is noted, and the rest is still tried."""
    folder.mkdir(parents=True, exist_ok=True)
    for pin in wheels.pins:
        before = set(folder.iterdir())
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, "--dest", str(folder)]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        try:
            done = subprocess.run([*command, pin], capture_output=True, text=True, timeout=SECONDS, check=False)
            said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            said = [f"no answer in {SECONDS} s"]
        wheels.missing += [f"{pin}: {sentence[:200]}" for sentence in said]
        wheels.files += sorted(path.name for path in set(folder.iterdir()) - before)


def _name(requirement: str) -> str:
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end].lower().replace("_", "-")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
