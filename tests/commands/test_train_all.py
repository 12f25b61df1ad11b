"""The queue of folds, by its command: real trainings of a few TF-IDF folds, each a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from small_job import TFIDF, table_lines

from foldblend.commands import train, train_all

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(PROJECT / "src" / "train_all.py")]


@pytest.fixture
def words(paths):
    """Competition `toy` with two folds and the runs `words` and `other` (TF-IDF), which default.yaml names."""
    data = paths.data("toy")
    data.mkdir(parents=True)
    for name, lines in table_lines(60, 20).items():
        (data / name).write_text("\n".join([*lines, ""]))
    (paths.configs / "competitions" / "toy.yaml").write_text("id_column: id\nn_folds: 2\nnear_duplicates: 1.0\n")
    for name in ("words", "other"):
        (paths.configs / "runs" / f"{name}.yaml").write_text(TFIDF)
    (paths.configs / "default.yaml").write_text("competition: toy\nrun: words\nruns: [words, other]\n")
    return paths


def fold_bytes(paths, run, fold):
    return (paths.oof("toy") / run / f"fold{fold}.npz").read_bytes()


def kill_once(log):
    """kill -9 the first child of this process that has begun to train."""
    while not log.exists() or "to train" not in log.read_text():
        time.sleep(0.01)
    for child in psutil.Process().children():
        if "train.py" in " ".join(child.cmdline()):
            child.kill()


def test_a_slurm_task_trains_its_part_and_the_queue_the_rest_killed_or_not(words, capsys, tmp_path):
    """One run, two folds: fold 1 by the written array's task 1, fold 0 here, killed on its way."""
    for fold in "01":
        train.main(["--run", "words", "--name", "whole", "--fold", fold])
    file = tmp_path / "folds.sbatch"
    train_all.main(["--runs", "words", "--write_slurm", str(file), "--machines", "2"])
    assert not (words.oof("toy") / "words").exists()
    task = subprocess.run(
        ["bash", str(file)], env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"}, capture_output=True, text=True, check=False
    )
    assert task.returncode == 0 and "1 of 1 folds to train" in task.stdout, task.stdout + task.stderr
    killer = threading.Thread(target=kill_once, args=[words.checkpoints("toy", "words") / "fold0.log"], daemon=True)
    killer.start()
    capsys.readouterr()
    train_all.main(["--runs", "words"])
    killer.join(timeout=60)
    shown = capsys.readouterr().out
    assert "competition toy: words\nalready trained: words fold 1\n1 of 2 folds to train" in shown
    assert "words fold 0: was killed by SIGKILL" in shown and "words fold 0: started, attempt 2 of 3" in shown
    rows = [line.split() for line in shown.splitlines()[-3:]]
    assert rows[0] == ["run", "fold", "held-out", "seconds", "attempts"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        ("words", "0", "macro_f1", "2"),
        ("words", "1", "macro_f1", "0"),
    ]
    assert all(fold_bytes(words, "words", fold) == fold_bytes(words, "whole", fold) for fold in range(2))
    train_all.main(["--runs", "words", "--fold", "all"])
    assert "0 of 2 folds to train" in capsys.readouterr().out


@pytest.fixture
def fake_training(monkeypatch, tmp_path):
    """In train.py's place, a script that notes its command and does what it is told."""
    (tmp_path / "src").mkdir()
    monkeypatch.setattr("foldblend.commands.PROJECT", tmp_path)

    def put(body):
        head = f"import signal, sys, time\nprint(*sys.argv[1:], file=open({str(tmp_path / 'calls')!r}, 'a'))\n"
        (tmp_path / "src" / "train.py").write_text(head + body)

    return put, tmp_path / "calls"


def test_the_list_is_run_by_run_fold_by_fold_with_the_competitions_flags(words, fake_training, capsys):
    put, calls = fake_training
    put("sys.exit('broken')")
    with pytest.raises(SystemExit) as stop:
        train_all.main(["--seed", "42", "7", "--attempts", "1", "--side_by_side", "1", "--metric", "micro_f1"])
    assert stop.value.code == 1
    runs = [f"--run {run}{seed}" for run in ("words", "other") for seed in ("", " --seed 7")]
    wanted = [f"--competition toy {run} --fold {fold} --metric micro_f1" for run in runs for fold in range(2)]
    assert calls.read_text().splitlines() == wanted
    shown = capsys.readouterr().out
    assert f"to repeat it: python src/train.py {wanted[-1]}" in shown
    assert f"log: {words.checkpoints('toy', 'other-seed7') / 'fold1.log'}" in shown
    assert shown.splitlines()[-1].split() == ["other-seed7", "1", "failed", "1"]


def test_a_refused_run_does_not_hold_up_the_others(words, fake_training, capsys):
    put, calls = fake_training
    put("if 'words' in sys.argv: print('error: no such thing', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(SystemExit) as stop:
        train_all.main(["--side_by_side", "1"])
    assert stop.value.code == 1 and len(calls.read_text().splitlines()) == 2
    shown = capsys.readouterr().out
    assert "\nerror: no such thing\nnot started: words fold 1\n" in shown and "dropped" in shown


def test_a_signal_is_passed_on_and_the_way_to_go_on_is_said(words, fake_training, capsys):
    put, calls = fake_training
    put("signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\nprint('up')\ntime.sleep(60)")
    log = words.checkpoints("toy", "other") / "fold0.log"

    def interrupt():
        while not log.exists() or "up" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as stop:
        train_all.main(["--runs", "other", "--side_by_side", "1"])
    assert stop.value.code == 130 and calls.read_text().count("\n") == 1
    shown = capsys.readouterr().out
    assert "stopped; every training that ran is saved. To go on: python src/train_all.py --runs other --side" in shown


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--run", "words"], "unknown flag --run; did you mean --runs?"),
        (["--side_by_sid", "2"], "unknown flag --side_by_sid; did you mean --side_by_side?"),
        (["--optimizer.lr", "1"], "unknown flag --optimizer.lr"),
        (["--runs", "word"], "configs/runs/word.yaml is missing; did you mean 'words'?"),
        (["--fold", "2"], "--fold 2: expected numbers from 0 to 1, or `all`"),
        (["--fold", "0-2"], "--fold 0-2: expected numbers from 0 to 1, or `all`"),
        (["--seed", "a"], "--seed a: expected whole numbers"),
        (["--name", "x"], "--name x is for one run with one seed; there are words, other"),
        (["--write_slurm", "x", "--machines", "2", "--overwrite"], "--overwrite is for this machine"),
        (["--part", "2/2"], "expected I/N with I from 0 to N-1"),
        (["--attempts", "0"], "--attempts from 1"),
        (["--write_slurm", "x"], "--machines N and --write_slurm FILE"),
        (["--machines", "2"], "--machines N and --write_slurm FILE"),
        (["--write_slurm", "x", "--machines", "2", "--part", "0/2"], "--part is for one machine"),
        (["--runs", "minilm_lr", "--seed", "1"], "its learner embeddings has no seed"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(words, fake_training, flags, message):
    with pytest.raises(ValueError) as refused:
        train_all.main(flags)
    assert message in str(refused.value)
    assert not fake_training[1].exists() and not Path("x").exists()


def test_what_it_advises_it_takes(words, fake_training, capsys):
    """--overwrite, --name, commas, ranges; after a stop the printed command does not begin again."""
    put, calls = fake_training
    put("sys.exit('broken')")
    with pytest.raises(SystemExit):
        train_all.main(["--runs", "words,other", "--fold", "0-1", "--seed", "42,7", "--attempts", "1"])
    assert len(calls.read_text().splitlines()) == 8
    calls.unlink()
    with pytest.raises(SystemExit):
        train_all.main(["--runs", "words", "--name", "mine", "--fold", "1,0", "--attempts", "1"])
    assert calls.read_text().splitlines() == [f"--competition toy --run words --name mine --fold {k}" for k in range(2)]


def test_a_run_of_other_settings_is_trained_again_with_overwrite(words, capsys):
    train.main(["--run", "words", "--fold", "0"])
    before = fold_bytes(words, "words", 0)
    (words.configs / "runs" / "words.yaml").write_text(TFIDF + "logistic: {inverse_regularization: 2.0}\n")
    with pytest.raises(ValueError, match=r"To go on with its settings, add: --logistic.inverse_regularization 1.0\."):
        train_all.main(["--runs", "words"])
    capsys.readouterr()
    train_all.main(["--runs", "words", "--overwrite", "--fold", "0"])
    assert "1 of 1 folds to train" in capsys.readouterr().out and fold_bytes(words, "words", 0) != before


def test_the_missing_folds_of_a_run_with_a_name_are_trained_from_its_record(words, capsys):
    """A trial under a name of its own: what blend.py prints for it works as it stands."""
    train.main(["--run", "words", "--fold", "1", "--name", "words-c2", "--logistic.inverse_regularization", "2.0"])
    capsys.readouterr()
    train.main(["--run", "words-c2", "--fold", "0"])
    assert "run words-c2 (tfidf): " in (shown := " ".join(capsys.readouterr().out.split()))
    assert "logistic.inverse_regularization 2.0" in shown
    train_all.main(["--runs", "words-c2"])
    assert "already trained: words-c2 fold 0, words-c2 fold 1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="configs/runs/words-c3.yaml is missing"):
        train.main(["--run", "words-c3", "--fold", "0"])
    with pytest.raises(ValueError, match="run words-c2 has no YAML in configs/runs/"):
        train_all.main(["--runs", "words-c2", "--overwrite"])


def test_a_run_of_other_settings_is_refused_at_once(words):
    train.main(["--run", "words", "--fold", "0"])
    (words.configs / "runs" / "words.yaml").write_text(TFIDF + "logistic: {inverse_regularization: 2.0}\n")
    with pytest.raises(ValueError, match=r"inverse_regularization was 1.0, is now 2.0[\s\S]*other settings"):
        train_all.main(["--runs", "other", "words"])


def test_the_files_for_clusters_hold_the_whole_list(words, tmp_path, capsys):
    sky, slurm = tmp_path / "folds.yaml", tmp_path / "folds.sbatch"
    flags = ["--fold", "1", "--write_slurm", str(slurm), "--write_skypilot", str(sky), "--machines", "2", "--n_folds=2"]
    train_all.main(flags)
    command = "src/train_all.py --competition toy --runs words other --fold 1 --n_folds=2 --part "
    assert command + '"$SLURM_ARRAY_TASK_ID/2" &' in slurm.read_text()
    task = yaml.safe_load(sky.read_text())
    assert task["run"] == f'exec .venv/bin/python {command}"$SKYPILOT_NODE_RANK/2"\n'
    assert task["file_mounts"]["~/sky_workdir/data/toy"] == str(words.data("toy"))
    assert "accelerators" not in task["resources"] and "gres" not in slurm.read_text()
    shown = capsys.readouterr().out
    assert f"sbatch {slurm}" in shown and f"sky launch -c foldblend {sky}" in shown


def test_torch_is_left_to_the_trainings():
    code = "import sys; sys.path.insert(0, 'src'); import foldblend.commands.train_all; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
