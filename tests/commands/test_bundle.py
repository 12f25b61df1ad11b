import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from trained_blend import blend_once

from foldblend.bundling.parity import load_parity, parity_files
from foldblend.bundling.trainer import BLEND, WORKSPACE
from foldblend.commands import bundle, guard, predict
from foldblend.files import hold_lock

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
    sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
    from tiny_decoders import save_tiny_decoder

    return save_tiny_decoder(tmp_path_factory.mktemp("qwen2"), "qwen2")


@pytest.fixture
def blended(paths, toy_competition, tiny_bert, tiny_qwen, kept):
    """TF-IDF, an encoder and adapters on a decoder."""
    return blend_once(paths, kept, NAMES, bert=tiny_bert, decoder=tiny_qwen)


def make_bundle(paths, *flags):
    bundle.main(["--competition", "toy", "--owner", "anna", "--no_wheels", *flags])
    return next(path for path in paths.bundle("toy").iterdir() if path.name[0] != ".")


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


def add_wheel(dataset):
    """A package that no image has, as if it had been fetched, and a requirement of it."""
    wheel = dataset / "wheels" / "foldblend_probe-1.0-py3-none-any.whl"
    wheel.parent.mkdir(exist_ok=True)
    info = "foldblend_probe-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("foldblend_probe.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: foldblend-probe\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    about = json.loads((dataset / "bundle.json").read_text())
    about["required"] += ["foldblend-probe>=1", "foldblend-nowhere"]
    about["packages"]["foldblend-probe"] = {"file": wheel.name, "requires": ["numpy>=1"]}
    (dataset / "bundle.json").write_text(json.dumps(about))


def run_notebook(folder, root, expected=0, what="predict"):
    """The notebook's cells as one script, in a clean environment without a network; what it printed."""
    cells = json.loads((folder / "notebook" / f"{what}.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "/kaggle/" in code
    (root / "script.py").write_text(code.replace("/kaggle/", f"{root}/"))
    (root / "offline").mkdir(exist_ok=True)
    (root / "offline" / "sitecustomize.py").write_text(OFFLINE)
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "OMP_NUM_THREADS": "1"}
    env["PIP_TARGET"] = str(root / "installed")  # not into the packages that the tests run on
    env["PYTHONPATH"] = os.pathsep.join([str(root / "offline"), env["PIP_TARGET"]])
    alone = (
        ["unshare", "-rn"] if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0 else []
    )
    command = [*alone, sys.executable, str(root / "script.py")]
    done = subprocess.run(command, cwd=root / "working", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_notebook_predicts_hidden_rows_without_a_network(paths, blended, tiny_bert, tiny_qwen, tmp_path):
    folder, root = make_bundle(paths), tmp_path / "kaggle"
    add_wheel(folder / "dataset")
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
    assert "to install: foldblend, foldblend-probe\n" in shown and (root / "installed" / "foldblend_probe.py").exists()
    assert "warning: the image lacks foldblend-nowhere and the bundle has no wheel of it" in shown
    assert "warning: 1 empty texts" in shown and lines[1] in shown
    assert "parity check passed: 64 rows, runs words, tiny, adapted" in shown
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 4e9, f"{peak / 1e9:.2f} GB"
    print(f"peak memory of the notebook: {peak / 1e9:.2f} GB")


def test_the_notebook_stops_if_it_predicts_something_else(paths, blended, tmp_path):
    """A drift of one run by a third of a logit, planted into what its first fold predicted at home."""
    folder, root = make_bundle(paths, "--precision", "fp32"), tmp_path / "kaggle"
    parity = load_parity(folder / "dataset" / "parity")
    first = parity.runs[0]
    drifted = replace(first, tables=first.tables * 0.9, versions={**first.versions, "scikit-learn": "0.1"})
    for name, data in parity_files(replace(parity, runs=(drifted, *parity.runs[1:]))).items():
        (folder / "dataset" / name).write_bytes(data)
    mount(folder, root)
    shown = run_notebook(folder, root, expected=1)
    assert "RuntimeError: error: The parity check failed: run words, fold 0 predicts something else" in shown
    assert "other versions of the libraries: scikit-learn 0.1 then" in shown
    assert not (root / "working" / "submission.csv").exists()
    code = (folder / "notebook" / "predict.ipynb").read_text()
    assert 'PRECISION = \\"fp32\\"' in code and 'PARITY = \\"yes\\"' in code


def in_fp16(model, squeeze):
    """Let an encoder's states pass through half precision, as on a T4, scaled so that they leave its range."""
    return model.encoder.embeddings.register_forward_hook(
        lambda module, inputs, states: ((states.float() * squeeze).half() / squeeze).float()
    )


def test_half_precision_that_leaves_its_range_is_caught(paths, blended, monkeypatch, capsys):
    from foldblend.learners.encoder import EncoderLearner

    folder, whole = make_bundle(paths) / "dataset" / "parity", EncoderLearner.build_trained_model
    parity = load_parity(folder)
    for name, data in parity_files(replace(parity, runs=parity.runs[1:2])).items():  # the encoder alone
        (folder.parent / name).write_bytes(data)
    monkeypatch.setattr("foldblend.learners.trained.describe_here", lambda *_: ("1 x Tesla T4", "fp16"))
    cases = {
        1: r"parity check passed: 64 rows, runs tiny",
        1e5: r"32 of 32 rows get NaN or infinite values",  # above 65504
        2e-8: r"on \d+ rows probabilities are up to 0\.\d+ apart",  # below the smallest number
    }
    for squeeze, found in cases.items():

        def built(learner, squeeze=squeeze):
            model = whole(learner)
            in_fp16(model, squeeze)
            return model

        monkeypatch.setattr(EncoderLearner, "build_trained_model", built)
        status = guard(lambda: predict.main(["--competition", "toy", "--parity", str(folder)]))
        shown = capsys.readouterr()
        assert re.search(found, shown.out + shown.err) and status == (0 if squeeze == 1 else 2)
        if status:
            assert "run tiny, fold 0 predicts something else" in shown.err
            assert 'Set PRECISION = "fp32" in the notebook' in shown.err and "fp16 after training in fp32" in shown.err


def test_the_parity_check_holds_no_labels_and_can_be_left_out(paths, blended, capsys):
    folder = make_bundle(paths)
    stored = load_parity(folder / "dataset" / "parity")
    assert len(stored.texts) == 64 and [run.tables.shape for run in stored.runs] == [(3, 64, 3)] * 3
    known = ~np.isnan(stored.runs[1].tables).all(axis=2)  # 21 test rows of every fold, a training row of one
    assert known[:, :21].all() and (known[:, 21:].sum(axis=0) == 1).all()
    asked = ["--competition", "toy", "--parity", str(folder / "dataset" / "parity")]
    assert guard(lambda: predict.main([*asked, "--text", "a"])) == 2
    assert "--parity predicts rows of its own" in capsys.readouterr().err
    folder = make_bundle(paths, "--no_parity")
    assert not (folder / "dataset" / "parity").exists()
    assert "--parity" not in (folder / "notebook" / "predict.ipynb").read_text()


def test_hours_are_estimated_before_anything_is_packed(paths, blended, capsys):
    asked = ["--competition", "toy", "--plan"]
    bundle.main([*asked, "--rows_per_second", "words=1000", "tiny=0.005", "adapted=10"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "tiny 3 0.005 14.17 given adapted 3 10 0.01 given words 3 1,000 0.00 given" in shown
    assert "21 rows take about 14.26 h of 9 h" in shown and "hours are for the 21 test rows here" in shown
    assert "warning: the notebook takes too long: about 14.3 h of 9 h. Predict with one model per run" in shown
    bundle.main([*asked, "--rows_per_second", "tiny=50", "adapted=10", "--files.hidden_test_rows", "1000"])
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"words 3 [\d,.]+ [\d.]+ measured here", shown) and "test rows here" not in shown
    assert re.search(r"1,000 rows take about [\d.]+ h of 9 h", shown)
    assert "The notebook's GPU has another speed than this machine" in shown
    assert not paths.bundle("toy").exists()
    assert guard(lambda: bundle.main([*asked, "--limit_hours", "0"])) == 2
    assert "--limit_hours is 0.0; expected more than 0" in capsys.readouterr().err


def test_the_environment_of_that_test_has_no_network(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "the network is switched off" in done.stderr


def test_what_kaggle_is_told(paths, blended):
    folder = make_bundle(paths)
    kernel = json.loads((folder / "notebook" / "kernel-metadata.json").read_text())
    dataset = json.loads((folder / "dataset" / "dataset-metadata.json").read_text())
    assert kernel["enable_internet"] is False and kernel["enable_gpu"] is True and kernel["is_private"] is True
    assert kernel["dataset_sources"] == [dataset["id"]] == [f"anna/toy-{blended.stem}"]
    assert kernel["competition_sources"] == ["toy"] and kernel["model_sources"] == []
    assert (folder / "notebook" / kernel["code_file"]).is_file() and 6 <= len(dataset["title"]) <= 50
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(folder / "notebook" / kernel["code_file"], as_version=4))


def test_what_is_in_the_dataset(paths, blended, tiny_qwen):
    """An encoder's pretrained weights are not, as its folds hold them; a decoder's are, unless they are attached."""
    dataset = make_bundle(paths) / "dataset"
    assert (
        not list(dataset.rglob("train.csv"))
        and not list(dataset.rglob("fold*.npz"))
        and not list(dataset.rglob("*.pyc"))
    )
    with zipfile.ZipFile(next(dataset.glob("wheels/foldblend-*.whl"))) as wheel:
        assert {"attention.c", "lanes.h", "layers.c"} <= {Path(name).name for name in wheel.namelist()}
    assert not (dataset / "src").exists()
    whole = [path.parent.name for path in dataset.glob("models/*/model.safetensors")]
    assert len(list(dataset.glob("models/*"))) == 2 and len(whole) == 1 and tiny_qwen.name in whole[0]
    assert len(list(dataset.glob("checkpoints/toy/*/fold*/weights.safetensors"))) == 9
    source = "qwen-lm/qwen-3/transformers/0.6b/1"
    folder = make_bundle(paths, "--model_sources", source)
    assert json.loads((folder / "notebook" / "kernel-metadata.json").read_text())["model_sources"] == [source]
    assert not list((folder / "dataset").glob("models/*/*.safetensors"))


def test_an_attached_model_is_known_by_its_files(paths, blended, tiny_qwen, tmp_path, monkeypatch, capsys):
    folder = make_bundle(paths, "--model_sources", "qwen-lm/qwen-3/transformers/0.6b/1")
    monkeypatch.setenv("FOLDBLEND_ROOT", str(folder / "dataset"))
    asked = ["--competition", "toy", "--text", "a sad day", "--models", str(tmp_path / "input"), "--from", blended.stem]
    other = tmp_path / "input" / "a" / "other"
    shutil.copytree(tiny_qwen, other)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    assert guard(lambda: predict.main(asked)) == 2
    assert "(1 config.json looked at). Attach the model to the notebook" in capsys.readouterr().err
    shutil.copytree(tiny_qwen, tmp_path / "input" / "b" / "right")
    predict.main(asked)
    assert "adapted: fold 3 of 3" in capsys.readouterr().out


def test_a_bundle_replaces_the_one_before_only_when_it_is_whole(paths, blended, monkeypatch):
    folder = make_bundle(paths)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    (folder / "stale").touch()
    monkeypatch.setattr(bundle, "write_metadata", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    assert guard(lambda: make_bundle(paths)) == 2
    assert (folder / "stale").exists() and list(folder.parent.iterdir()) == [folder]
    monkeypatch.undo()
    monkeypatch.setenv("FOLDBLEND_ROOT", str(paths.root))
    make_bundle(paths)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    (old,) = folder.parent.glob(".old/*/*")
    assert old.name == folder.name and (old / "stale").exists()


def test_without_weights_or_name_it_says_so(paths, blended, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert guard(lambda: bundle.main(["--competition", "toy", "--no_wheels", "--push"])) == 2
    assert "--push needs your Kaggle name: add --owner NAME" in capsys.readouterr().err
    bundle.main(["--competition", "toy", "--no_wheels"])
    assert "warning: your Kaggle name is unknown: replace OWNER by it" in capsys.readouterr().out
    (paths.checkpoints("toy", "tiny") / "fold1" / "weights.safetensors").unlink()
    assert guard(lambda: make_bundle(paths)) == 2
    assert "--run tiny --fold 1 --overwrite" in capsys.readouterr().err


def test_a_second_bundle_at_once_is_refused_and_the_files_are_listed(paths, blended, capsys):
    folder = make_bundle(paths)
    about = json.loads((folder / "dataset" / "bundle.json").read_text())
    there = {
        path.relative_to(folder / "dataset").as_posix() for path in (folder / "dataset").rglob("*") if path.is_file()
    }
    assert there == about["files"].keys() | {"bundle.json", "dataset-metadata.json"}
    with hold_lock(folder.with_name(f".{folder.name}.lock")):
        assert guard(lambda: make_bundle(paths)) == 75
    assert "another bundle.py makes or uploads this bundle now" in capsys.readouterr().err


@pytest.mark.parametrize("owner", ['a"b', "a b", "../x", "$(id)"])
def test_an_owner_that_is_no_name_is_refused(paths, blended, capsys, owner):
    assert guard(lambda: bundle.main(["--competition", "toy", "--no_wheels", "--owner", owner])) == 2
    assert "expected your name as in" in capsys.readouterr().err


# ---------- The notebook that trains


def mount_training(folder, root, paths):
    """/kaggle as that notebook sees it: our dataset and all files of the competition."""
    shutil.copytree(folder / "dataset", root / "input" / "bundled")
    shutil.copytree(paths.data("toy"), root / "input" / "competitions" / "toy")
    (root / "working").mkdir(exist_ok=True)


def test_a_notebook_trains_folds_stops_at_its_limit_and_goes_on_from_its_own_output(paths, toy_competition, tmp_path):
    (paths.configs / "runs" / "base_words.yaml").write_text("learner: tfidf\n")
    (paths.configs / "runs" / "words.yaml").write_text("base: base_words\ntfidf: {word_ngrams: [1, 1]}\n")
    asked = ["--competition", "toy", "--owner", "anna", "--no_wheels", "--train", "--runs", "words"]
    bundle.main([*asked, "--fold", "1"])
    folder = next(path for path in paths.bundle("toy").iterdir() if path.name[0] != ".")
    dataset = folder / "dataset"
    there = {path.relative_to(dataset).as_posix() for path in dataset.rglob("*") if path.is_file()}
    about = json.loads((dataset / "bundle.json").read_text())
    assert there == about["files"].keys() | {"bundle.json", "dataset-metadata.json"}
    assert {"configs/runs/words.yaml", "configs/runs/base_words.yaml", "folds/toy.csv", "folds/toy.json"} < there
    assert not any("train.csv" in name for name in there) and not re.search(r"/(tmp|home|root)/", json.dumps(about))
    kernel = json.loads((folder / "notebook" / "kernel-metadata.json").read_text())
    assert kernel["code_file"] == "train.ipynb" and kernel["enable_internet"] is False

    notebook, root = folder / "notebook" / "train.ipynb", tmp_path / "kaggle"
    mount_training(folder, root, paths)
    whole = notebook.read_text()
    assert "HOURS = 9.0" in whole
    notebook.write_text(whole.replace("HOURS = 9.0", "HOURS = 0.0001"))
    shown = run_notebook(folder, root, what="train")
    assert "hours are over: every training saves itself" in shown and "Not finished. Attach this" in shown
    assert not (root / "working" / "submission.csv").exists()
    (root / "working" / "foldblend").rename(root / "input" / "earlier")
    notebook.write_text(whole)
    shown = run_notebook(folder, root, what="train")
    assert f"goes on from {root}/input/earlier" in shown and "1 of 1 folds to train" in shown
    made = sorted(path.name for path in (root / "working" / "foldblend" / "oof" / "toy" / "words").glob("*.npz"))
    assert made == ["fold1.npz"] and not (root / "working" / "submission.csv").exists()  # not all folds are trained


def test_a_notebook_that_has_all_folds_blends_them(tmp_path):
    root = tmp_path / "foldblend"
    written = root / "submissions" / "toy"
    written.mkdir(parents=True)
    (written / "old.csv").write_text("old")
    os.utime(written / "old.csv", (1, 1))

    def run(command, env, cwd, check):
        assert command[-5:] == ["--competition", "toy", "--runs", "a", "b"] and (env, cwd, check) == ({}, root, True)
        (written / "blend-1.csv").write_text("new")

    given = {"ABOUT": {"competition": "toy", "runs": ["a", "b"], "blends": True}, "WORKING": tmp_path, "ROOT": root}
    given |= {"sys": sys, "env": {}, "shutil": shutil, "subprocess": SimpleNamespace(run=run)}
    for status, blends in ((143, True), (0, False)):
        exec(BLEND, {**given, "ABOUT": {**given["ABOUT"], "blends": blends}, "status": status})
        assert not (tmp_path / "submission.csv").exists()
    exec(BLEND, {**given, "status": 0})
    assert (tmp_path / "submission.csv").read_text() == "new"


def test_models_stand_where_the_runs_look_for_them(paths, toy_competition, tiny_bert, tmp_path, monkeypatch):
    """A hub name in a cache of the hub's form, a folder where the settings name it."""
    from huggingface_hub import snapshot_download

    from foldblend.learners.nets.pretrained import find_weights

    root, there = tmp_path / "kaggle", tmp_path / "input" / "b" / "models" / "m"
    shutil.copytree(tiny_bert, there)
    (tmp_path / "input" / "toy").mkdir()
    for name in ("train.csv", "test.csv"):
        (tmp_path / "input" / "toy" / name).write_text(name)
    for name in ("configs", "folds"):
        (tmp_path / "input" / "b" / name).mkdir()
    models = [
        {"name": "org/mini", "revision": "main", "folder": "models/m", "is_folder": False},
        {"name": "refs", "revision": "refs/pr/3", "folder": "models/m", "is_folder": False},
        {"name": "../mine/mini", "revision": "main", "folder": "models/m", "is_folder": True},
    ]
    given = {
        "ABOUT": {"competition": "toy", "data": ["train.csv", "test.csv"], "models": models},
        "INPUT": tmp_path / "input", "BUNDLE": tmp_path / "input" / "b", "WORKING": root, "SLUG": "toy", "NAME": "x",
        "TEST": tmp_path / "input" / "toy" / "test.csv", "json": json, "os": os, "Path": Path, "tempfile": tempfile,
    }  # fmt: skip
    exec(WORKSPACE, given)
    for model in models[:2]:
        found = snapshot_download(
            model["name"], revision=model["revision"], cache_dir=given["HUB"], local_files_only=True
        )
        assert (Path(found) / "config.json").read_text() == (tiny_bert / "config.json").read_text()
    monkeypatch.setenv("FOLDBLEND_ROOT", given["env"]["FOLDBLEND_ROOT"])
    assert (find_weights("../mine/mini", "main")[0] / "model.safetensors").is_file()
    assert (root / "foldblend" / "data" / "toy" / "train.csv").read_text() == "train.csv"


@pytest.mark.parametrize(
    "yaml, says",
    [
        ("model: {name: /somewhere/mini}", r"run odd: the folder /somewhere/mini has no place in a notebook. Move it"),
        (
            "model: {name: x/y}\npretraining: {epochs: 1, file: more.txt}",
            "cannot be trained in a notebook: pretraining",
        ),
    ],
)
def test_runs_that_need_more_than_a_bundle_holds_are_refused(paths, toy_competition, capsys, yaml, says):
    (paths.configs / "runs" / "odd.yaml").write_text(f"learner: encoder\n{yaml}\n")
    asked = ["--competition", "toy", "--owner", "anna", "--no_wheels"]
    assert guard(lambda: bundle.main([*asked, "--train", "--runs", "odd"])) == 2
    assert re.search(says, " ".join(capsys.readouterr().err.split()))
    assert guard(lambda: bundle.main([*asked, "--runs", "odd"])) == 2
    assert "--runs and --fold are for --train" in capsys.readouterr().err
