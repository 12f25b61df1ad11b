import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from foldblend.commands import blend, guard, train
from foldblend.errors import UserError
from foldblend.learners.table import build_learner
from foldblend.learners.training import loop
from foldblend.ledger.records import read_record
from foldblend.ledger.runs import find_runs
from foldblend.settings.run import RunSettings

PROJECT = Path(__file__).resolve().parents[2]
ACCELERATE = os.path.join(os.path.dirname(sys.executable), "accelerate")
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def arguments(*more):
    return ["--competition", "toy", "--run", "tiny", *more]


def fold_file(paths, fold, run="tiny"):
    return paths.oof("toy") / run / f"fold{fold}.npz"


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def start(*command, **environment):
    env = {**os.environ, **environment}
    return subprocess.Popen(command, env=env, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, expected=0):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == expected, output
    return output


def test_the_learner_is_told_the_competitions_metric(monkeypatch):
    monkeypatch.setattr(train, "build_learner", lambda run, corpus: corpus)
    paths = SimpleNamespace(tokens=lambda name: None, pretrained=lambda name: None)
    competition = SimpleNamespace(task="multilabel", metric="macro_auc")
    job = SimpleNamespace(paths=paths, competition_name="x", competition=competition, run=RunSettings("tfidf"))
    nothing = dict.fromkeys(("soft", "known", "scale", "allowed", "metric_groups"))
    labels = {"labels": np.ones((1, 2), bool), "label_names": ("x", "y"), "of_learned": lambda each: each}
    tables = SimpleNamespace(train_texts=["a"], test_texts=["b"], **labels, **nothing)
    assert train.load_learner(job, tables).metric == "macro_auc"


def test_bare_launch_then_the_other_folds_then_the_blend(paths, toy_competition, capsys):
    """The card's commands, on a competition and run that default.yaml names."""
    (paths.configs / "default.yaml").write_text("competition: toy\nrun: tiny\nruns: [tiny]\n")
    output = finish(start(ACCELERATE, "launch", "src/train.py", "--fold", "2"))
    assert "to train: fold 2" in output and "held-out macro_f1" in output
    train.main(["--fold", "0", "1"])
    shown = capsys.readouterr().out
    assert "to train: fold 0, 1" in shown
    train.main(["--fold", "all"])
    assert "already trained: fold 0, 1, 2" in capsys.readouterr().out
    blend.main([])
    shown = capsys.readouterr().out
    csv = next(paths.submissions("toy").glob("*.csv"))
    assert f"submissions/toy/{csv.name}" in shown and "files: {kaggle: SLUG}" in shown
    rows = csv.read_text().splitlines()
    assert rows[0] == "id,joy,sadness,anger" and len(rows) == 22 and rows[1].startswith("r90,")


def test_every_heldout_row_once(paths, toy_competition):
    train.main(arguments("--fold", "all", "--training.epochs", "1"))
    parts = [load(fold_file(paths, fold)) for fold in range(3)]
    assert np.array_equal(np.sort(np.concatenate([part["rows"] for part in parts])), np.arange(90))
    assert all(part["test"].shape == (21, 3) and part["oof"].dtype == np.float32 for part in parts)


def test_a_changed_setting_is_refused_by_name_until_told(paths, toy_competition):
    few = ["--training.epochs", "1"]
    train.main(arguments("--fold", "0", *few))
    before = fold_file(paths, 0).read_bytes()
    with pytest.raises(ValueError, match=r"training.epochs was 1, is now 2[\s\S]*--overwrite[\s\S]*--name"):
        train.main(arguments("--fold", "1", "--training.epochs", "2"))
    train.main(arguments("--fold", "0", "--training.epochs", "2", "--name", "longer"))
    assert fold_file(paths, 0).read_bytes() == before and fold_file(paths, 0, "longer").exists()
    train.main(arguments("--fold", "1", *few))
    with pytest.raises(ValueError, match=r"training.epochs was 1, is now 2 \(fold1\)"):
        train.main(arguments("--fold", "0", "--training.epochs", "2", "--overwrite"))
    assert fold_file(paths, 0).read_bytes() == before
    train.main(arguments("--fold", "0", "1", "--training.epochs", "2", "--overwrite"))
    assert fold_file(paths, 0).read_bytes() == fold_file(paths, 0, "longer").read_bytes() != before


@pytest.mark.parametrize("given", [["3"], ["-1"], ["one"], ["all", "0"], ["0.5"]])
def test_a_fold_that_is_none_is_named(paths, toy_competition, given):
    with pytest.raises(ValueError, match=r"expected numbers from 0 to 2, or `all`|Expected|expected one argument"):
        train.main(arguments("--fold", *given))


def test_a_typing_mistake_exits_with_2_and_one_message(paths, toy_competition):
    output = finish(start(sys.executable, "src/train.py", *arguments("--optimizer.l", "1")), expected=2)
    assert output == "error: src/train.py: unknown flag --optimizer.l; did you mean --optimizer.lr?\n"


def test_the_first_line_names_what_differs_from_the_defaults(paths, toy_competition, capsys):
    train.main(arguments("--fold", "0", "--training.epochs", "1", "--optimizer.weight_decay", "0.25", "--name", "x"))
    lines = capsys.readouterr().out.split("\nto train: fold 0\n")[0].splitlines()
    shown = " ".join(line.strip() for line in lines)
    assert shown.startswith("competition toy, run x (encoder): ")
    assert "training.epochs 1," in shown and "optimizer.weight_decay 0.25" in shown and "seed" not in shown
    assert all(len(line) <= 80 or " " not in line.strip() for line in lines)


@pytest.mark.parametrize("error, status", [(None, 1), (UserError("found x"), 2)])
def test_an_error_of_numpy_in_a_learner_is_a_crash_and_no_refusal(
    paths, toy_competition, monkeypatch, capsys, error, status
):
    class Broken:
        uses_all_processes = False

        def train_fold(self, rows):
            if error:
                raise error
            return np.zeros(2) + np.zeros(3)

    monkeypatch.setattr(train, "build_learner", lambda run, corpus: Broken())
    assert guard(lambda: train.main(arguments("--fold", "0"))) == status
    shown = capsys.readouterr().err
    assert ("Traceback" in shown and "operands could not be broadcast" in shown) == (status == 1)


def test_a_second_training_of_the_same_fold_is_refused(paths, toy_competition):
    from foldblend.files import hold_lock

    lock = paths.checkpoints("toy", "tiny") / ".fold0.lock"
    with hold_lock(lock), pytest.raises(ValueError, match="another process trains this fold now"):
        train.main(arguments("--fold", "0"))
    train.main(arguments("--fold", "0", "--training.epochs", "1"))


def test_kill_9_at_any_moment_changes_nothing(paths, toy_competition):
    """Killed again and again after its first save, the fold ends as the one that ran through, to the last bit."""
    command = [sys.executable, "src/train.py", *(flags := arguments("--fold", "0", "--training.epochs", "8"))]
    train.main([*flags, "--name", "whole"])
    rng = np.random.default_rng(0)
    folder = paths.checkpoints("toy", "tiny") / "fold0"
    kills = 0
    for _ in range(2):
        process = start(*command)
        while process.poll() is None and not list(folder.glob("*.safetensors")):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5) if kills == 0 else rng.uniform(4, 7))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 1
    train.main(flags)
    assert fold_file(paths, 0).read_bytes() == fold_file(paths, 0, "whole").read_bytes()


def test_sigterm_saves_and_the_next_start_goes_on(paths, toy_competition):
    command = [sys.executable, "src/train.py", *arguments("--fold", "0", "--training.epochs", "60")]
    process = start(*command)
    while not list(paths.checkpoints("toy", "tiny").rglob("*.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.terminate()
    assert "saved; the same command goes on from here" in finish(process, expected=128 + signal.SIGTERM)
    assert not fold_file(paths, 0).exists()


def test_weights_chosen_on_held_out_rows_are_marked_up_to_the_blend(paths, toy_competition, capsys):
    few = ["--fold", "all", "--training.epochs", "2"]
    train.main(arguments(*few, "--training.selection", "best_score"))
    train.main(arguments(*few, "--seed", "1"))
    marks = [
        read_record(fold_file(paths, k, run).with_suffix(".json"))["selected_on_heldout"]
        for run in ("tiny", "tiny-seed1")
        for k in range(3)
    ]
    assert marks == [True] * 3 + [False] * 3
    assert (paths.checkpoints("toy", "tiny-seed1") / "fold0").is_dir()
    capsys.readouterr()
    blend.main(["--competition", "toy"])
    lines = capsys.readouterr().out.splitlines()
    noted = [line for line in lines if "selected on its held-out rows" in line]
    assert noted == ["    tiny: selected on its held-out rows, so its scores are too good"]


def test_tfidf_needs_no_torch(paths, toy_competition):
    code = (
        "import sys; sys.path.insert(0, 'src'); from foldblend.commands import train;"
        "train.main(['--competition', 'toy', '--run', 'tfidf', '--fold', '0']); assert 'torch' not in sys.modules"
    )
    finish(start(sys.executable, "-c", code))
    assert fold_file(paths, 0, "tfidf").exists()


def test_the_learner_reads_clean_texts_and_the_ledger_the_given_ones(paths, toy_competition, monkeypatch):
    data = paths.data("toy") / "train.csv"
    data.write_text(data.read_text().replace("r0,", "r0,@me https://x.y #so ", 1))
    seen = []
    build = lambda run, corpus: seen.append(corpus) or build_learner(run, corpus)  # noqa: E731
    monkeypatch.setattr(train, "build_learner", build)
    flags = ["--cleaning.urls", "true", "--cleaning.users", "true", "--cleaning.hashtags", "true"]
    train.main(["--competition", "toy", "--run", "tfidf", "--fold", "0", *flags])
    train.main(["--competition", "toy", "--run", "tfidf", "--fold", "0", "--name", "as-given"])
    clean, given = (corpus.texts[0] for corpus in seen)
    assert clean.startswith("<USER> <URL> <HASHTAG> so ") and given.startswith("@me https://x.y #so ")
    assert seen[0].texts[1:] == seen[1].texts[1:]


def test_the_recorded_seconds_are_those_of_all_starts(paths, toy_competition, monkeypatch):
    """A fold that trained for an hour, was stopped and ends within seconds took an hour."""
    save, steps = loop.save, []

    def save_as_after_an_hour(fold, state):
        save(fold, state)
        state.seconds += 3600
        fold.store.save_checkpoint(state)
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(loop, "save", save_as_after_an_hour)
        train.main(arguments("--fold", "0"))
    train.main(arguments("--fold", "0"))
    assert 3600 < read_record(fold_file(paths, 0).with_suffix(".json"))["seconds"] < 2 * 3600


def test_a_trial_of_a_study_learns_from_a_share_of_the_rows_and_stands_apart_from_the_runs(paths, toy_competition):
    trial = ["--competition", "toy", "--run", "tfidf", "--name", "trial-0001", "--fold", "0"]
    train.main([*trial, "--study", "s", "--fidelity", "0.25"])
    folder = paths.oof("toy") / ".studies/s/trial-0001"
    record = json.loads((folder / "fold0.json").read_text())
    assert record["fidelity"] == 0.25 and (folder / "fold0.npz").exists()
    assert (paths.root / "checkpoints/toy/.studies/s/trial-0001/fold0").is_dir()
    assert find_runs(paths, "toy") == [] and not paths.checkpoints("toy", "trial-0001").exists()
    for flags, message in ((["--fidelity", "0.5"], "give --study, too"), (["--fidelity", "0"], "expected more than 0")):
        with pytest.raises(UserError, match=message):
            train.main([*trial, *flags])
    with pytest.raises(UserError, match="--study is '../x'"):
        train.main([*trial, "--study", "../x"])


def test_a_tracker_changes_no_record_and_no_prediction(paths, toy_competition, monkeypatch):
    sent = []

    class Tracker:
        def store_init_configuration(self, values):
            sent.append(values)

        def log(self, values, step):
            sent.append((step, values))

        def finish(self):
            sent.append("finished")

    monkeypatch.setattr("foldblend.learners.training.tracking._start", lambda *_: Tracker())
    monkeypatch.setattr("foldblend.commands.train.check_tracker", lambda kind: None)
    for name, flags in (("plain", []), ("tracked", ["--tracker", "wandb"])):
        train.main(["--competition", "toy", "--run", "tfidf", "--fold", "0", "--name", name, *flags])
    plain, tracked = (json.loads((paths.oof("toy") / name / "fold0.json").read_text()) for name in ("plain", "tracked"))
    assert plain["settings"] == tracked["settings"] and plain["npz_sha256"] == tracked["npz_sha256"]
    assert plain.keys() == tracked.keys() and "tracker" not in json.dumps(tracked)
    assert sent[0]["learner"] == "tfidf" and sent[-1] == "finished"
    assert sent[1] == (0, {f"final_{name}": value for name, value in tracked["score"].items()})
    with pytest.raises(UserError, match=r"--tracker is 'wndb'; did you mean 'wandb'\?"):
        train.main(["--competition", "toy", "--run", "tfidf", "--tracker", "wndb"])


def test_gpus_that_share_every_step_are_said_and_a_fold_per_gpu_is_offered(monkeypatch):
    """As `accelerate launch` does by itself on two GPUs."""
    from accelerate import DistributedType

    from foldblend.learners.training.neural import NeuralLearner

    job = SimpleNamespace(competition_name="toy", run_name="tiny")
    several = train.offer_fold_per_gpu(job, 2, [0, 2])
    assert several.startswith("2 GPUs share every step of a fold (DDP)")
    assert several.endswith("src/train_all.py --competition toy --runs tiny --fold 0 2")
    assert train.offer_fold_per_gpu(job, 2, [1]).endswith("accelerate launch --num_processes 1 src/train.py ...")
    assert not train.offer_fold_per_gpu(job, 0, [0, 1])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for kind, n, expected in (("MULTI_GPU", 2, 2), ("MULTI_GPU", 4, 0), ("FSDP", 2, 0), ("MULTI_CPU", 2, 0)):
        launched = SimpleNamespace(accelerator=SimpleNamespace(distributed_type=DistributedType(kind), num_processes=n))
        assert NeuralLearner.gpus_per_fold.fget(launched) == expected
