"""The folder of a Space: whole, pinned, and an app that answers with nothing else beside it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from trained_blend import blend_once

from foldblend.bundling import space
from foldblend.commands import bundle
from foldblend.errors import UserError
from foldblend.files import sha256_file

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ASK = "import app; page = app.load(); print(page.read_texts('today it was <b>happy</b>'))"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def blended(paths, toy_competition, tiny_bert, kept):
    return blend_once(paths, kept, ("words", "tiny"), bert=tiny_bert)


@pytest.fixture
def gradio(monkeypatch):
    """As if gradio 6.31.0 were installed."""
    installed = space.version
    monkeypatch.setattr(space, "version", lambda name: "6.31.0" if name == "gradio" else installed(name))


def test_a_space_answers_from_its_folder_alone(paths, blended, gradio, tmp_path_factory, capsys):
    bundle.main(["--competition", "toy", "--space"])
    made = next(path for path in paths.bundle("toy").iterdir() if path.name.endswith("-space"))
    assert "hf upload YOUR_NAME/toy" in capsys.readouterr().out
    listed = json.loads((made / space.MANIFEST).read_text())
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()} - {space.MANIFEST}
    assert there == set(listed) and all(sha256_file(made / name) == digest for name, digest in listed.items())
    assert not any(name.endswith("train.csv") for name in there)
    head = yaml.safe_load((made / "README.md").read_text().split("---")[1])
    assert head["sdk"] == "gradio" and head["sdk_version"] == "6.31.0" and head["app_file"] == "app.py"
    pins = (made / "requirements.txt").read_text().splitlines()
    assert "gradio==6.31.0" in pins and all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    away = tmp_path_factory.mktemp("space") / "app"
    shutil.move(made, away)
    shutil.rmtree(paths.root / "checkpoints")
    stubs = tmp_path_factory.mktemp("stubs")
    (stubs / "gradio.py").write_text("")
    env = {name: value for name, value in os.environ.items() if name != "FOLDBLEND_ROOT"}
    env["PYTHONPATH"] = str(stubs)
    done = subprocess.run([sys.executable, "-c", ASK], cwd=away, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "joy" in done.stdout and "threshold" in done.stdout and "&lt;b&gt;happy" in done.stdout


def test_what_a_space_cannot_have_is_said(paths, blended, monkeypatch):
    with pytest.raises(UserError, match="--space and --push do not go together"):
        bundle.main(["--competition", "toy", "--space", "--push"])

    def missing(name):
        raise space.PackageNotFoundError(name)

    monkeypatch.setattr(space, "version", missing)
    with pytest.raises(UserError, match="pip install"):
        bundle.main(["--competition", "toy", "--space"])
    assert not [path for path in paths.bundle("toy").iterdir() if path.name.endswith("-space")]
