"""Two trainings at once: of one fold the second is refused, of two folds both go on; a dead one holds nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def wait_for(process, path):
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.usefixtures("fresh_accelerate")
def test_the_same_fold_twice_and_another_fold_beside_it(paths, toy_competition, run_command):
    flags = ["--run", "tiny", "--training.epochs", "40"]
    command = [sys.executable, "src/train.py", "--competition", "toy", *flags, "--fold", "0"]
    first = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = paths.checkpoints("toy", "tiny")
    wait_for(first, folder / "fold0" / "checkpoint.safetensors")
    status, _, error = run_command("train", *flags, "--fold", "0")
    assert status == 75 and "fold0: another process trains this fold now; wait for it" in error
    first.send_signal(signal.SIGSTOP)  # it still holds its fold, and is not done before we are
    few = ["--run", "tiny", "--name", "few", "--training.epochs", "1"]
    assert run_command("train", *few, "--fold", "1")[0] == 0
    assert run_command("train", *flags, "--fold", "0")[0] == 75
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL and (folder / ".fold0.lock").exists()
    done = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while done.poll() is None and "goes on from epoch" not in (line := done.stdout.readline()):
        assert "another process" not in line
    os.kill(done.pid, signal.SIGINT)
    output, _ = done.communicate()
    assert done.returncode == 128 + signal.SIGINT and "stopped" in output and "Traceback" not in output
    assert not (folder / ".fold0.lock").exists()


def test_all_folds_started_together_blend_as_if_one_by_one(paths, words, run_command):
    command = [sys.executable, "src/train.py", "--competition", "toy", "--run", words]
    started = [subprocess.Popen([*command, "--fold", str(k)], cwd=PROJECT, stdout=subprocess.DEVNULL) for k in (0, 1)]
    assert run_command("train", "--run", words, "--name", "alone")[0] == 0
    assert [process.wait(120) for process in started] == [0, 0]
    assert run_command("train", "--run", words)[0] == 0
    for k in range(3):
        together, alone = (paths.oof("toy") / name / f"fold{k}.npz" for name in (words, "alone"))
        assert together.read_bytes() == alone.read_bytes()
