import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import foldblend
from foldblend.bundling import dataset as contents
from foldblend.bundling.dataset import (
    IN_THE_IMAGE,
    BundleFolder,
    Package,
    choose_packages,
    choose_required,
    download_wheel,
    own_requirements,
    write_package_wheel,
)

PROJECT = Path(__file__).resolve().parents[2]
REQUIREMENTS = own_requirements()


def test_what_the_image_has_is_not_carried():
    required = [Requirement(each) for each in choose_required(REQUIREMENTS, needs_bitsandbytes=False)]
    names = {each.name for each in required}
    assert {"peft", "iterative-stratification", "jsonargparse", "transformers"} <= names
    assert not names & {"torch", "numpy", "kaggle", "bitsandbytes"}
    assert "bitsandbytes" in " ".join(choose_required(REQUIREMENTS, needs_bitsandbytes=True))
    assert next(each for each in required if each.name == "peft").specifier.contains(version("peft"))


def test_packages_are_closed_under_what_they_need():
    """Everything that a carried package asks for is carried in a version that will do, or is in the image."""
    packages = choose_packages(choose_required(REQUIREMENTS, needs_bitsandbytes=False))
    assert packages["peft"].pin == f"peft=={version('peft')}" and "tokenizers" in packages
    for package in packages.values():
        for requirement in map(Requirement, package.requires):
            name = requirement.name.lower().replace("_", "-")
            assert name not in IN_THE_IMAGE
            assert requirement.specifier.contains(packages[name].pin.split("==")[1], prereleases=True)


def test_a_package_that_is_not_installed_here_is_not_promised():
    assert choose_packages(["no-such-package-here>=1"]) == {}


@pytest.mark.parametrize(
    "outcome, said",
    [
        ("whole", ""),
        ("refused", "peft==1: No matching distribution found"),
        ("nothing", "peft==1: pip fetched nothing"),
        ("late", "peft==1: no answer in 300 s"),
    ],
)
def test_what_pip_does_is_noted(tmp_path, monkeypatch, outcome, said):
    def pip(command, **_):
        assert command[-1] == "peft==1" and "--no-deps" in command and "--only-binary=:all:" in command
        if outcome == "late":
            raise subprocess.TimeoutExpired(command, 300)
        if outcome == "whole":
            (tmp_path / "wheels" / "peft-1-py3-none-any.whl").touch()
        error = "looking\nNo matching distribution found" if outcome == "refused" else ""
        return subprocess.CompletedProcess(command, int(outcome == "refused"), "", error)

    monkeypatch.setattr("foldblend.bundling.dataset.subprocess.run", pip)
    package = Package("peft", "peft==1", ())
    assert download_wheel(package, tmp_path / "wheels") == said
    assert package.file == ("peft-1-py3-none-any.whl" if outcome == "whole" else "")


def test_the_package_is_a_wheel_that_pip_installs(tmp_path):
    bundle, target = BundleFolder(tmp_path), tmp_path / "installed"
    left_out = write_package_wheel(bundle)
    (name,) = bundle.files
    assert name == f"wheels/foldblend-{foldblend.__version__}-py3-none-any.whl"
    wheel = tmp_path / name
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True)
    package = PROJECT / "src" / "foldblend"
    sources = {path for pattern in ("*.py", "*.c", "*.h") for path in package.rglob(pattern)}
    sources -= {package / each for each in left_out}
    for path in sources:
        assert (target / "foldblend" / path.relative_to(package)).read_bytes() == path.read_bytes()
    assert (target / "bin" / "foldblend").is_file()
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.read(f"foldblend-{foldblend.__version__}.dist-info/RECORD").decode().splitlines()
        assert sorted(line.split(",")[0] for line in listed) == sorted(archive.namelist())
        files = {each for each in archive.namelist() if not each.startswith("foldblend-")}
    assert files == {f"foldblend/{path.relative_to(package).as_posix()}" for path in sources}


def test_the_same_package_gives_the_same_wheel(tmp_path):
    first, second = BundleFolder(tmp_path / "a"), BundleFolder(tmp_path / "b")
    assert write_package_wheel(first) == write_package_wheel(second) and first.files == second.files


def test_a_stray_file_of_the_source_folder_does_not_travel(tmp_path, monkeypatch):
    """As notes or keys that someone left beside the code; git knows what belongs to it."""
    package = tmp_path / "src" / "foldblend"
    (package / "bundling").mkdir(parents=True)
    for name in ("__init__.py", "bundling/dataset.py", "my_keys.py"):
        (package / name).write_text("")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "src/foldblend/__init__.py", "src/foldblend/bundling/dataset.py"], check=True)
    monkeypatch.setattr(contents, "__file__", str(package / "bundling" / "dataset.py"))
    bundle = BundleFolder(tmp_path / "dataset")
    assert write_package_wheel(bundle) == ["my_keys.py"]
    with zipfile.ZipFile(bundle.root / next(iter(bundle.files))) as wheel:
        assert not [name for name in wheel.namelist() if "my_keys" in name]


def test_an_installed_package_names_its_requirements(monkeypatch):
    monkeypatch.setattr(contents, "find_checkout", lambda: None)
    monkeypatch.setattr(contents, "requires", lambda name: ["torch>=2", 'pytest>=8; extra == "dev"'])
    assert own_requirements() == ["torch>=2"]
    assert "torch>=2.11,<3" in REQUIREMENTS
