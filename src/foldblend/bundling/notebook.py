"""The notebook that predicts on Kaggle without internet, and the metadata files of it and of its dataset."""

import json
import re

FIND = '''import importlib.metadata, json, os, subprocess, sys, tempfile
from pathlib import Path
from packaging.requirements import Requirement

INPUT, WORKING = Path("/kaggle/input"), Path("/kaggle/working")
NAME, SLUG = {name!r}, {slug!r}

bundles = [path.parent for depth in range(6) for path in sorted(INPUT.glob("*/" * depth + "bundle.json"))
           if json.loads(path.read_text())["name"] == NAME]
if not bundles:
    raise FileNotFoundError(f"no bundle {{NAME}} below {{INPUT}}: attach the dataset {dataset}")
BUNDLE = bundles[0]
ABOUT = json.loads((BUNDLE / "bundle.json").read_text())


def find(name):
    """The competition's file of that name, wherever it is mounted; None if it is not."""
    found = [path for path in INPUT.glob(f"**/{{SLUG}}/**/{{name}}") if BUNDLE not in path.parents]
    return min(found, key=lambda path: len(path.parts), default=None)


TEST, SAMPLE = find(ABOUT["test"]), find(ABOUT["sample_submission"])
if TEST is None:
    raise FileNotFoundError(f"no {{SLUG}}/**/{{ABOUT['test']}} below {{INPUT}}: attach the competition {{SLUG}}")
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
PREDICT = """command = [sys.executable, "-m", "foldblend", "predict", "--competition", ABOUT["competition"]]
command += ["--from", str(BUNDLE / ABOUT["record"]), "--input", str(TEST), "--models", str(INPUT)]
command += ["--sample", str(SAMPLE or BUNDLE / ABOUT["sample"]), "--precision", "auto"]
command += ["--answer", str(WORKING / "submission.csv")]
offline = {{"FOLDBLEND_ROOT": str(BUNDLE), "HF_HUB_OFFLINE": "1", "NUMBA_CACHE_DIR": tempfile.mkdtemp()}}
subprocess.run(command, env={{**os.environ, **offline}}, check=True)
"""
SHOW = """lines = (WORKING / "submission.csv").read_text(encoding="utf-8").splitlines()
print(f"{len(lines):,} lines", *lines[:5], sep="\\n")
"""


def notebook(name: str, slug: str, dataset: str) -> dict:
    """The notebook as .ipynb holds it.

    Args: name: of the blend.   slug: of the competition.   dataset: `owner/slug` of the bundle's dataset.
    """
    title = f"# {name}\nPredicts `{slug}` with the trained folds in the dataset `{dataset}`. Needs no internet."
    sources = [FIND.format(name=name, slug=slug, dataset=dataset), INSTALL, PREDICT.format(), SHOW]
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


def kernel_metadata(owner: str, title: str, slug: str, gpu: bool, model_sources: list[str]) -> dict:
    """kernel-metadata.json; a GPU without a machine_shape is one T4."""
    return {
        "id": f"{owner}/{title}-predict",
        "title": f"{title}-predict",
        "code_file": "predict.ipynb",
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
