"""A fold's history in TensorBoard, W&B, MLflow and Trackio, each the real package in its offline or local mode.

The packages want other versions of libraries than the lock has, so they may be in an environment of their own:
$FOLDBLEND_TRACKERS_PYTHON is its interpreter (.ci/run makes one from requirements/tracking.txt).
"""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foldblend.errors import UserError
from foldblend.learners.training import tracking
from foldblend.learners.training.tracking import PACKAGES, TrackedFold, TrackedHistory, check_tracker
from foldblend.ledger.history import FoldHistory, read_history

OPTIONAL_PYTHON = os.environ.get("FOLDBLEND_TRACKERS_PYTHON", sys.executable)
SETTINGS = {"learner": "encoder", "optimizer.lr": 1e-4, "tfidf.word_ngrams": [1, 2], "loss.bias_from_prior": True}
KEY = "k" * 40


def entry(step, **more):
    return {"step": step, "steps": 40, "epoch": 1.0, "rows": 8 * step, "seconds": step / 10, "loss": 1 / step, **more}


def open_tracked(tmp_path, kind):
    fold = TrackedFold("toy", "minilm", 2, tmp_path / "tracking", tmp_path / "fold2")
    return TrackedHistory(kind, fold, SETTINGS, FoldHistory(tmp_path / "fold2.history.jsonl"))


def train(tmp_path, kind):
    """A training that is stopped after step 20 and goes on from its checkpoint of step 10."""
    first = open_tracked(tmp_path, kind)
    first.start(0)
    first.add(entry(10))
    first.add(entry(20, heldout_macro_f1=0.4))
    first.tracker.finish()
    second = open_tracked(tmp_path, kind)
    second.start(10)
    for step in (20, 30, 40):
        second.add(entry(step))
    second.finish({"macro_f1": 0.5})
    assert [each["step"] for each in read_history(tmp_path / "fold2.history.jsonl")] == [10, 20, 30, 40]


def needs(kind):
    """A mark that skips a test if the package is not there; it is looked for once, when the file is collected."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({PACKAGES[kind]!r}) is None)"
    missing = subprocess.run([OPTIONAL_PYTHON, "-c", code], check=False).returncode
    return pytest.mark.skipif(missing, reason=f"{kind} is not installed: requirements/tracking.txt")


def run_in_a_process(tmp_path, kind, **env):
    """The trackers keep threads, processes and state of their own."""
    code = "import sys, test_tracking, pathlib; test_tracking.train(pathlib.Path(sys.argv[1]), sys.argv[2])"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(tracking.__file__).parents[3])])
    keys = {"WANDB_API_KEY": KEY, "HF_TOKEN": KEY, "MLFLOW_TRACKING_PASSWORD": KEY}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_"))}
    done = subprocess.run(
        [OPTIONAL_PYTHON, "-c", code, str(tmp_path), kind],
        env={**kept, **keys, **env, "PYTHONPATH": path, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


READ_EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in ("loss", "final_macro_f1")}))
"""


@needs("tensorboard")
def test_tensorboard(tmp_path):
    run_in_a_process(tmp_path, "tensorboard")
    folder = tmp_path / "tracking/tensorboard/toy/minilm/fold2"
    words = [OPTIONAL_PYTHON, "-c", READ_EVENTS, str(folder)]
    events = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    steps, losses = zip(*events["loss"], strict=True)
    assert steps == (10, 20, 30, 40)  # what was trained twice is there once
    assert losses == pytest.approx([0.1, 0.05, 1 / 30, 0.025])
    assert events["final_macro_f1"][0][1] == pytest.approx(0.5)
    (stored, *_) = sorted((tmp_path / "tracking/tensorboard").rglob("hparams.yml"))
    assert "optimizer.lr: 0.0001" in stored.read_text() and "'[1, 2]'" in stored.read_text()


@needs("wandb")
def test_wandb_offline(tmp_path):
    run_in_a_process(tmp_path, "wandb", WANDB_MODE="offline")
    files = list((tmp_path / "tracking/wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.stem for file in files}) == 1  # two starts, one run: `wandb sync` joins them
    data = b"".join(file.read_bytes() for file in files)
    for word in (b"optimizer.lr", b"final_macro_f1", b"heldout_macro_f1", b"foldblend-toy", b"minilm fold 2"):
        assert word in data


@needs("mlflow")
def test_mlflow_local(tmp_path):
    run_in_a_process(tmp_path, "mlflow")
    database = sqlite3.connect(tmp_path / "tracking/mlflow.db")
    assert database.execute("select count(*) from runs").fetchone() == (1,)
    steps = {step for (step,) in database.execute("select step from metrics where key = 'loss'")}
    assert steps == {10, 20, 30, 40}
    settings = dict(database.execute("select key, value from params"))
    assert settings["optimizer.lr"] == "0.0001" and settings["learner"] == "encoder"
    tags = dict(database.execute("select key, value from tags"))
    assert tags["run"] == "minilm" and tags["fold"] == "2" and tags["mlflow.runName"] == "minilm fold 2"
    final = database.execute("select value from metrics where key = 'final_macro_f1'").fetchone()
    assert final == pytest.approx((0.5,))


@needs("trackio")
def test_trackio_local(tmp_path):
    run_in_a_process(tmp_path, "trackio")
    (path,) = (tmp_path / "tracking/trackio").glob("foldblend-toy*.db")
    rows = [json.loads(row) for (row,) in sqlite3.connect(path).execute("select metrics from metrics order by step")]
    assert any(row.get("final_macro_f1") == 0.5 for row in rows) and any("heldout_macro_f1" in row for row in rows)


class FailingTracker:
    def __init__(self, fail_at):
        self.fail_at, self.logged = fail_at, []

    def store_init_configuration(self, values):
        self.values = values

    def log(self, values, step):
        if step == self.fail_at:
            raise ConnectionError(f"401 for {os.environ.get('WANDB_API_KEY')}")
        self.logged.append(step)

    def finish(self):
        self.logged.append("finished")


def test_a_tracker_that_fails_ends_the_tracking_and_not_the_training(tmp_path, monkeypatch, capsys):
    tracker = FailingTracker(20)
    monkeypatch.setattr(tracking, "_start", lambda *_: tracker)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    history = open_tracked(tmp_path, "wandb")
    history.start(0)
    for step in (10, 20, 30):
        history.add(entry(step))
    assert tracker.logged == [10] and len(read_history(tmp_path / "fold2.history.jsonl")) == 3
    shown = capsys.readouterr()
    assert "tracker wandb failed, the training goes on" in shown.out + shown.err and KEY not in shown.out + shown.err
    assert all(np.isscalar(value) for value in tracker.values.values())


def test_a_tracker_that_cannot_be_started_is_refused_without_the_key(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError(f"bad key {KEY}")

    monkeypatch.setattr(tracking, "_start", refuse)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(UserError, match="tracker wandb cannot be started: bad key <redacted>"):
        open_tracked(tmp_path, "wandb").start(0)


def test_a_learner_without_steps_sends_its_settings_and_scores(tmp_path, monkeypatch):
    tracker = FailingTracker(None)
    monkeypatch.setattr(tracking, "_start", lambda *_: tracker)
    open_tracked(tmp_path, "mlflow").finish({"macro_f1": 0.5})
    assert tracker.logged == [0, "finished"] and tracker.values["optimizer.lr"] == 1e-4
    assert not (tmp_path / "fold2.history.jsonl").exists()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    check_tracker("none")
    with pytest.raises(UserError, match="tracker trackio needs the package trackio. Run: pip install trackio"):
        check_tracker("trackio")
