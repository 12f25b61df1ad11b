import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trained_blend import blend_once

import bundle
import predict

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NAMES = ("words", "tiny", "adapted")
OFFLINE = """import socket

def refuse(*_, **__):
    raise OSError("the network is switched off")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""
"""A sitecustomize for every Python below the notebook, beside a network namespace without a network."""
HIDDEN = ["id,text", "h7,today it was happy", 'h2,"a ""furious"", sad day"', "h5,", "h1,the plain calm day"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    sys.path.insert(0, str(Path(__file__).parent / "learners"))
    from tiny_decoders import save_tiny_decoder

    return save_tiny_decoder(tmp_path_factory.mktemp("qwen2"), "qwen2")


@pytest.fixture
def blended(places, toy_competition, tiny_bert, tiny_qwen, kept):
    """TF-IDF, an encoder and adapters on a decoder."""
    return blend_once(places, kept, NAMES, bert=tiny_bert, decoder=tiny_qwen)


def make_bundle(places, *flags):
    bundle.main(["--competition", "toy", "--owner", "anna", "--no_wheels", *flags])
    return next(places.bundle("toy").iterdir())


def mount(folder, root, name="wherever"):
    """/kaggle as a notebook sees it: our dataset, and the competition with hidden rows."""
    shutil.copytree(folder / "dataset", root / "input" / name)
    competition = root / "input" / "competitions" / "toy"
    competition.mkdir(parents=True)
    (competition / "test.csv").write_text("\n".join([*HIDDEN, ""]))
    ids = sorted(line.split(",")[0] for line in HIDDEN[1:])
    (competition / "sample_submission.csv").write_text(
        "\n".join(["id,joy,sadness,anger", *(f"{i},0,0,0" for i in ids), ""])
    )
    (root / "working").mkdir()


def run_notebook(folder, root, expected=0):
    """The notebook's cells as one script, in a clean environment without a network; what it printed."""
    cells = json.loads((folder / "notebook" / "predict.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "/kaggle/" in code
    (root / "script.py").write_text(code.replace("/kaggle/", f"{root}/"))
    (root / "offline").mkdir(exist_ok=True)
    (root / "offline" / "sitecustomize.py").write_text(OFFLINE)
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "PYTHONPATH": str(root / "offline"), "OMP_NUM_THREADS": "1"}
    alone = (
        ["unshare", "-rn"] if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0 else []
    )
    command = [*alone, sys.executable, str(root / "script.py")]
    done = subprocess.run(command, cwd=root / "working", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_notebook_predicts_hidden_rows_without_a_network(places, blended, tiny_bert, tiny_qwen, tmp_path):
    folder, root = make_bundle(places), tmp_path / "kaggle"
    mount(folder, root)
    hidden = root / "input" / "competitions" / "toy"
    here = ["--input", str(hidden / "test.csv"), "--sample", str(hidden / "sample_submission.csv")]
    predict.main(["--competition", "toy", *here, "--answer", str(tmp_path / "expected.csv"), "--precision", "fp32"])
    aside = [folder.rename(folder.with_name(f"{folder.name}-aside")) for folder in (tiny_bert, tiny_qwen)]
    try:
        shown = run_notebook(folder, root)
    finally:
        for moved in aside:
            moved.rename(moved.with_name(moved.name.removesuffix("-aside")))
    written = (root / "working" / "submission.csv").read_bytes()
    lines = written.decode().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", "h1", "h2", "h5", "h7"]
    assert written == (tmp_path / "expected.csv").read_bytes()
    assert "to install: nothing" in shown and "look: 1 empty texts" in shown and lines[1] in shown
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 4e9, f"{peak / 1e9:.2f} GB"
    print(f"peak memory of the notebook: {peak / 1e9:.2f} GB")


def test_the_environment_of_that_test_has_no_network(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "the network is switched off" in done.stderr
