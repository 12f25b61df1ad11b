"""A folder for a Space of Hugging Face: the page of a blend with its weights, its package and pinned requirements.

A Space installs requirements.txt before it sees any other file, so it cannot install a wheel that is beside it. The app
unpacks the package's own wheel at its start instead.
"""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from foldblend.bundling.dataset import NOT_FOR_PREDICTING, BundleFolder, as_json
from foldblend.errors import UserError

PYTHON = "3.12"
MANIFEST = "manifest.json"
"""Names and sha256 of all other files."""
APP = '''"""The page of this Space. All it needs is in this folder; `load` makes it, `main` serves it."""

import os
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORD = "..."


def load():
    """The page with the blend's models behind it: `load().read_texts("a text")` is its answer as HTML."""
    os.environ["FOLDBLEND_ROOT"] = str(HERE)
    package = tempfile.mkdtemp(prefix="foldblend-package-")
    with zipfile.ZipFile(next((HERE / "wheels").glob("foldblend-*.whl"))) as wheel:
        wheel.extractall(package)
    sys.path.insert(0, package)
    from foldblend.commands import predict
    from foldblend.settings.loading import open_job

    return predict.load_page(open_job("predict.py", ["--serve", "--from", str(HERE / RECORD)], predict.add_flags))


def main():
    page = load()
    from foldblend.commands.demo import serve

    serve(page, os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), int(os.environ.get("GRADIO_SERVER_PORT", "7860")))


if __name__ == "__main__":
    main()
'''
LARGE_FILES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.whl filter=lfs diff=lfs merge=lfs -text\n"
"""What Git keeps elsewhere: the hub refuses files of over 10 MB without it."""


def fill_space(
    bundle: BundleFolder, competition: str, blend: str, runs: Sequence[str], required: Sequence[str]
) -> None:
    """The app, its requirements, its description and the manifest, beside the blend that is there already.

    Args:   required: the package's own requirements.
    Raises: UserError: gradio, or a requirement, is not installed here, so its version cannot be pinned.
    """
    pins = pin_versions([*required, "gradio"])
    gradio = next(pin.split("==")[1] for pin in pins if pin.startswith("gradio=="))
    record = json.dumps(f"submissions/{competition}/{blend}.json")
    bundle.write("app.py", APP.replace('"..."', record).encode())
    bundle.write("requirements.txt", "".join(f"{pin}\n" for pin in pins).encode())
    bundle.write("README.md", readme(competition, blend, runs, gradio).encode())
    bundle.write(".gitattributes", LARGE_FILES.encode())
    bundle.write(MANIFEST, as_json(dict(sorted(bundle.files.items()))).encode())


def pin_versions(required: Sequence[str]) -> list[str]:
    """`name==version` of each, as installed here, in the order of names. Raises: UserError: one is not installed."""
    pins = {}
    for each in required:
        parsed = Requirement(each)
        name = canonicalize_name(parsed.name)
        if name in NOT_FOR_PREDICTING or (parsed.marker is not None and not parsed.marker.evaluate()):
            continue
        try:
            found = version(name)
        except PackageNotFoundError as error:
            said = f"--space pins the versions that are installed, and {name} is not. Run: pip install {name}"
            raise UserError(said) from error
        pins[name] = f"{name}=={found.split('+')[0]}"  # a build for this machine alone (+cpu) is on no index
    return [pins[name] for name in sorted(pins)]


def readme(competition: str, blend: str, runs: Sequence[str], gradio: str) -> str:
    """The Space's README with the settings that the hub reads from its front matter."""
    head = {
        "title": f'"{competition}"', "emoji": '"\\U0001F9ED"', "colorFrom": "blue", "colorTo": "gray", "sdk": "gradio",
        "sdk_version": f'"{gradio}"', "python_version": f'"{PYTHON}"', "app_file": "app.py", "pinned": "false",
    }  # fmt: skip
    lines = ["---", *(f"{name}: {value}" for name, value in head.items()), "---", "", f"# {competition}", ""]
    lines += [f"Labels of texts by {blend}, a blend of {', '.join(runs)}, made with foldblend. `{MANIFEST}` lists the"]
    lines += ["sha256 of every file. Training texts are not in it."]
    return "\n".join([*lines, ""])
