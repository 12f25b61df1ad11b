"""What a bundle holds: a folder with all that a blend needs to predict, and the notebook that runs it on Kaggle.

So `foldblend predict` runs in it as it runs at home. The package itself is in it as a wheel, and so are the packages
that Kaggle's image may lack. The folder is built under a hidden name and renamed when it is complete.
"""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from foldblend import __version__
from foldblend.errors import UserError
from foldblend.files import sha256_bytes, sha256_file
from foldblend.predictions import FULL, fold_name
from foldblend.settings.data_files import NO_FILE
from foldblend.settings.paths import Paths, find_checkout

# ---------- The folder


@dataclass(frozen=True)
class BundledModel:
    """The pretrained model of one run."""

    run: str
    name: str
    """As the run's settings name it."""
    folder: Path
    """Where it is here."""
    patterns: tuple[str, ...]
    """The files of it that predicting needs."""
    proof: dict
    """Hashes that a copy of it is recognised by."""
    attached: bool
    """Whether it is attached to the notebook as a Kaggle model, so that it is not copied."""

    @property
    def key(self) -> str:
        """A folder's name; runs that start from the same files share it."""
        words = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.name).strip("-.")
        return f"{words[-60:].strip('-.')}-{self.proof['config_sha256'][:8]}{'-w' if len(self.proof) > 1 else ''}"


@dataclass
class BundleFolder:
    """A folder that is being filled, and what was put into it."""

    root: Path
    files: dict[str, str] = field(default_factory=dict)
    """Name of each file -> the sha256 of what was written. Nothing else may be in the folder: see `prove`."""

    def write(self, name: str, data: bytes) -> None:
        """Write one file. Raises: OSError: the disk refuses."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files[name] = sha256_bytes(data)

    def copy(self, source: Path, name: str) -> None:
        """Copy one file, unless it is there already. Raises: OSError: the disk refuses."""
        if name in self.files:
            return
        path, digest = self.root / name, hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(source, "rb") as read, open(path, "xb") as written:
            while part := read.read(CHUNK):
                digest.update(part)
                written.write(part)
        self.files[name] = digest.hexdigest()

    def note(self, name: str) -> None:
        """Take in a file that another program has just written."""
        self.files[name] = sha256_file(self.root / name)

    def prove(self) -> None:
        """Raises: UserError: the folder holds anything but what was written into it."""
        there = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}
        wrong = sorted(there ^ self.files.keys())
        wrong += [
            name for name in sorted(there & self.files.keys()) if sha256_file(self.root / name) != self.files[name]
        ]
        if wrong:
            raise UserError(
                f"the new bundle is not what was written into it: {len(wrong)} of {len(self.files)} files differ, "
                f"first {wrong[0]}. Another program or the disk changed them. Run the same command again"
            )


CHUNK = 1 << 20


def copy_blend(
    paths: Paths,
    record_path: Path,
    record: dict,
    runs: Sequence[str],
    sample: Path,
    plugins: Sequence[str],
    bundle: BundleFolder,
) -> None:
    """The blend's record, the folds, the sample submission, settings, plugins, and the records of the runs' folds."""
    competition = record["competition"]
    bundle.copy(record_path, f"submissions/{competition}/{record_path.name}")
    bundle.copy(paths.folds(competition), f"folds/{competition}.csv")
    settings = record["settings"]["competition"]
    if settings["files"]["sample_submission"] != NO_FILE:
        bundle.copy(sample, f"data/{competition}/{settings['files']['sample_submission']}")
    bundle.write(f"configs/competitions/{competition}.yaml", as_yaml(settings))
    defaults = {"competition": competition, "run": runs[0], "runs": list(runs)}
    if plugins:
        defaults["plugins"] = list(plugins)
    bundle.write("configs/default.yaml", as_yaml(defaults))
    for run in runs:
        folder, full = f"oof/{competition}/{run}", fold_name(FULL)
        records = sorted(paths.oof(competition).joinpath(run).glob("fold*.json"))
        records += [paths.root / folder / f"{full}.json"] if f"{folder}/{full}.npz" in record["inputs"] else []
        for path in records:
            bundle.copy(path, f"{folder}/{path.name}")


def copy_plugins(plugins: Sequence[str], root: Path, bundle: BundleFolder) -> list[str]:
    """The plugins that are files of the workspace. Returns the names of the others, which are installed packages."""
    installed = []
    for top in dict.fromkeys(name.split(".")[0] for name in plugins):
        files = [*root.glob(f"{top}.py"), *root.glob(f"{top}/**/*.py")]
        for path in files:
            bundle.copy(path, path.relative_to(root).as_posix())
        if not files:
            installed.append(top)
    return installed


def copy_weights(checkpoints: Sequence[Path], weights_name: str, run_folder: str, bundle: BundleFolder) -> None:
    """Each fold's weights into `run_folder`/fold<k>."""
    for folder in checkpoints:
        bundle.copy(folder / weights_name, f"{run_folder}/{folder.name}/{weights_name}")


def copy_model_files(model: BundledModel, bundle: BundleFolder) -> None:
    """A pretrained model's files into models/."""
    for pattern in model.patterns:
        for path in sorted(model.folder.glob(pattern)):
            bundle.copy(path, f"models/{model.key}/{path.relative_to(model.folder).as_posix()}")


def copy_model(model: BundledModel, run_folder: str, note_name: str, bundle: BundleFolder) -> None:
    """A run's pretrained model, unless it is attached, and next to the run's folds a note on where it is."""
    folder = f"models/{model.key}"
    if not model.attached:
        copy_model_files(model, bundle)
    up = "/".join([".."] * len(run_folder.split("/")))
    note = {"name": model.name, "folder": "" if model.attached else f"{up}/{folder}", "proof": model.proof}
    bundle.write(f"{run_folder}/{note_name}", as_json(note).encode())


def measure(folder: Path) -> tuple[int, int]:
    """How many files there are, and how many bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def as_yaml(values: dict) -> bytes:
    """The bytes of a YAML file."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()


# ---------- This package as a wheel


def write_package_wheel(bundle: BundleFolder) -> list[str]:
    """Write this package's own wheel into wheels/ from the files that run now.

    A wheel of pure Python is a zip file with a list of its contents. Written here, it needs neither a network nor a
    build backend, and works in a checkout and in an installed package alike. `pip wheel .` packs the same files.
    Returns: source files that are left out, as git does not know them.
    Source: packaging.python.org, "Binary distribution format".
    """
    package, info = Path(__file__).resolve().parents[1], f"foldblend-{__version__}.dist-info"
    files, stray = _own_files(package)
    contents = {f"foldblend/{name}": (package / name).read_bytes() for name in files}
    metadata = ["Metadata-Version: 2.1", "Name: foldblend", f"Version: {__version__}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in own_requirements()]
    tags = "Wheel-Version: 1.0\nGenerator: foldblend\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{info}/METADATA"] = "\n".join([*metadata, ""]).encode()
    contents[f"{info}/WHEEL"] = tags.encode()
    contents[f"{info}/entry_points.txt"] = b"[console_scripts]\nfoldblend = foldblend.commands:main\n"
    record = [f"{name},sha256={_record_hash(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()

    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # ZipInfo: no times, the same bytes
    bundle.write(f"wheels/foldblend-{__version__}-py3-none-any.whl", wheel.getvalue())
    return stray


def _own_files(package: Path) -> tuple[list[str], list[str]]:
    """This package's source files, and files beside them that are not the package's: git knows which in a checkout."""
    patterns = ("*.py", "*.[ch]")
    there = [path.relative_to(package).as_posix() for pattern in patterns for path in sorted(package.rglob(pattern))]
    if not find_checkout():
        return there, []
    command = ["git", "-C", str(package), "ls-files", "-z", "."]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return there, []
    known = set(done.stdout.decode(errors="replace").split("\0"))
    if done.returncode or "__init__.py" not in known:  # no git, or a copy that is no clone
        return there, []
    return [name for name in there if name in known], [name for name in there if name not in known]


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def own_requirements() -> list[str]:
    """What this package needs: requirements.txt of the checkout, or the metadata of the installed package."""
    if checkout := find_checkout():
        lines = (checkout / "requirements.txt").read_text(encoding="utf-8").splitlines()
        return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    return [each for each in requires("foldblend") or [] if "extra ==" not in each]


# ---------- Packages that Kaggle's image may lack, as wheels in the versions that are installed here


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
"""Values of the environment markers in requirements."""
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
    """One package that is bundled."""

    name: str
    pin: str
    """`name==version`, as it is installed here."""
    requires: tuple[str, ...]
    """Its own requirements, of packages that are bundled too."""
    file: str = ""
    """The wheel's name, once it is fetched."""


def choose_required(requirements: Sequence[str], needs_bitsandbytes: bool) -> list[str]:
    """The requirements of predicting that the image may not meet, of this package's own."""
    parsed = [Requirement(each) for each in requirements]
    left_out = IN_THE_IMAGE | NOT_FOR_PREDICTING | (set() if needs_bitsandbytes else {"bitsandbytes"})
    return [f"{each.name}{each.specifier}" for each in parsed if canonicalize_name(each.name) not in left_out]


def choose_packages(required: list[str]) -> dict[str, Package]:
    """The required packages and all that these need in turn, if they are installed here and not in the image."""
    packages, todo = {}, [Requirement(each) for each in required]
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name not in packages and (found := _installed(name)) is not None:
            needs = [each for each in found[1] if canonicalize_name(each.name) not in IN_THE_IMAGE]
            packages[name] = Package(name, f"{name}=={found[0]}", tuple(f"{e.name}{e.specifier}" for e in needs))
            todo += needs
    return packages


def download_wheel(package: Package, folder: Path) -> str:
    """Download a package with pip. Returns an empty text, or why it failed in one sentence."""
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
    """Version and requirements of an installed package; None if it is not installed."""
    try:
        found = distribution(name)
        needs = [Requirement(each) for each in found.requires or []]
    except (PackageNotFoundError, InvalidRequirement):
        return None
    return found.version, [each for each in needs if each.marker is None or each.marker.evaluate(IMAGE)]


# The notebook that predicts on Kaggle without internet, and the metadata files of it and of its dataset.


SETTINGS = """PRECISION = "AUTO"  # auto, fp32, bf16, fp16; auto: bf16 if the GPU has it, else fp16 where it is safe
PARITY = "yes"  # no: do not compare predictions with those of training's machine first
"""
FIND = '''import importlib.metadata, json, os, subprocess, sys, tempfile
from pathlib import Path
from packaging.requirements import Requirement

SETTINGS
INPUT, WORKING = Path("/kaggle/input"), Path("/kaggle/working")
NAME, SLUG, DATASET = json.loads(VALUES)

bundles = [path.parent for depth in range(6) for path in sorted(INPUT.glob("*/" * depth + "bundle.json"))
           if json.loads(path.read_text())["name"] == NAME]
if not bundles:
    raise FileNotFoundError(f"no bundle {NAME} below {INPUT}: attach the dataset {DATASET}")
BUNDLE = bundles[0]
ABOUT = json.loads((BUNDLE / "bundle.json").read_text())
missing = [file for file in ABOUT["files"] if not (BUNDLE / file).is_file()]
if missing:
    raise FileNotFoundError(f"{BUNDLE} lacks {len(missing)} of its files, first {missing[0]}: upload the dataset again")


def find(name):
    """The competition's file of that name, wherever it is mounted; None if it is not."""
    found = [path for path in INPUT.glob(f"**/{SLUG}/**/{name}") if BUNDLE not in path.parents]
    return min(found, key=lambda path: len(path.parts), default=None)


TEST, SAMPLE = find(ABOUT["test"]), find(ABOUT["sample_submission"])
if TEST is None:
    raise FileNotFoundError(f"no {SLUG}/**/{ABOUT['test']} below {INPUT}: attach the competition {SLUG}")
print(BUNDLE, TEST, SAMPLE, sep="\\n")
'''
INSTALL = """def is_met(requirement):
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


todo, files = list(ABOUT["required"]), {"foldblend": str(next((BUNDLE / "wheels").glob("foldblend-*.whl")))}
while todo:
    requirement = todo.pop()
    name = Requirement(requirement).name.lower().replace("_", "-")
    if name in files or is_met(requirement):
        continue
    package = ABOUT["packages"].get(name)
    if package is None:
        print("warning: the image lacks", requirement, "and the bundle has no wheel of it")
        continue
    files[name] = str(BUNDLE / "wheels" / package["file"])
    todo += package["requires"]  # a package of the image that meets its requirement stays as it is
print("to install:", ", ".join(sorted(files)))
command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *files.values()]
subprocess.run(command, check=True)
"""
CHECK = """offline = {"FOLDBLEND_ROOT": str(BUNDLE), "HF_HUB_OFFLINE": "1", "NUMBA_CACHE_DIR": tempfile.mkdtemp()}
command = [sys.executable, "-m", "foldblend", "predict", "--competition", ABOUT["competition"]]
command += ["--from", str(BUNDLE / ABOUT["record"]), "--parity", str(BUNDLE / "parity"), "--models", str(INPUT)]
if PARITY == "yes":
    done = subprocess.run([*command, "--precision", PRECISION], env={**os.environ, **offline}, stderr=subprocess.PIPE)
    said = done.stderr.decode(errors="replace")
    print(said, file=sys.stderr)
    if done.returncode:
        raise RuntimeError(said[max(0, said.rfind("error: ")):].strip() or f"exit status {done.returncode}")
"""
PREDICT = """command = [sys.executable, "-m", "foldblend", "predict", "--competition", ABOUT["competition"]]
command += ["--from", str(BUNDLE / ABOUT["record"]), "--input", str(TEST), "--models", str(INPUT)]
command += ["--precision", PRECISION, "--answer", str(WORKING / "submission.csv"), "--overwrite"]
if ABOUT["sample"]:
    command += ["--sample", str(SAMPLE or BUNDLE / ABOUT["sample"])]
offline = {"FOLDBLEND_ROOT": str(BUNDLE), "HF_HUB_OFFLINE": "1", "NUMBA_CACHE_DIR": tempfile.mkdtemp()}
subprocess.run(command, env={**os.environ, **offline}, check=True)
"""
SHOW = """lines = (WORKING / "submission.csv").read_text(encoding="utf-8").splitlines()
print(f"{len(lines):,} lines", *lines[:5], sep="\\n")
"""


def notebook(
    name: str, slug: str, dataset: str, flags: Sequence[str] = (), precision: str = "auto", has_parity: bool = False
) -> dict:
    """The notebook as .ipynb holds it.

    Args: name: of the blend.   slug: of the competition.   dataset: `owner/slug` of the bundle's dataset.
          flags: more of them for the predicting command.   precision: what it predicts in.
          has_parity: whether the bundle has a parity check.
    """
    title = f"# {name}\nPredicts `{slug}` with the trained folds in the dataset `{dataset}`. Needs no internet."
    values = json.dumps(json.dumps([name, slug, dataset]))  # a text of ASCII: JSON writes it as Python reads it
    more = f"command += {json.dumps(list(flags))}\n" if flags else ""
    settings = SETTINGS.replace('"AUTO"', json.dumps(precision))
    find = FIND.replace("SETTINGS\n", settings).replace("VALUES", values)
    sources = [find, INSTALL, *([CHECK] if has_parity else [])]
    sources += [PREDICT.replace("offline = ", f"{more}offline = ", 1), SHOW]
    return code_notebook(title, sources)


def code_notebook(title: str, sources: Sequence[str]) -> dict:
    """A notebook as .ipynb holds it: a title in Markdown, then cells of Python."""
    cells = [{"cell_type": "markdown", "id": "about", "metadata": {}, "source": _lines(title)}]
    for number, source in enumerate(sources, start=1):
        empty = {"execution_count": None, "metadata": {}, "outputs": []}
        cells.append({"cell_type": "code", "id": f"step{number}", "source": _lines(source.rstrip("\n")), **empty})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def dataset_metadata(owner: str, title: str) -> dict:
    """dataset-metadata.json."""
    return {"title": title, "id": f"{owner}/{title}", "licenses": [{"name": "other"}]}


def kernel_metadata(
    owner: str, title: str, slug: str, gpu: bool, model_sources: list[str], what: str = "predict"
) -> dict:
    """kernel-metadata.json; a GPU without a machine_shape is one T4. Args: what: the notebook does."""
    return {
        "id": f"{owner}/{title}-{what}",
        "title": f"{title}-{what}",
        "code_file": f"{what}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": gpu,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{title}"],
        "competition_sources": [slug],
        "kernel_sources": [],
        "model_sources": model_sources,
    }


def make_title(competition: str, name: str) -> str:
    """A title that is its own slug: 6 to 42 letters, digits and single hyphens, so that `-predict` still fits."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{competition}-{name}".lower()).strip("-")
    return words[-42:].strip("-").rjust(6, "b")


def as_json(values: dict) -> str:
    """The text of a JSON file."""
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)
