"""Launches of one and two processes that are stopped or struck: what was trained is kept, and nobody waits forever."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[2]
ACCELERATE = os.path.join(os.path.dirname(sys.executable), "accelerate")
TRAIN = ["src/train.py", "--competition", "toy", "--run", "tiny", "--fold", "0"]
TWO = ["--multi_gpu", "--num_processes", "2", "--main_process_port"]


@pytest.fixture
def launch():
    """Starts `accelerate launch`; whatever a failed test leaves running is ended after it."""
    groups = []

    def start(*arguments):
        env = {**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        command, pipes = [ACCELERATE, "launch", *arguments], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=env, cwd=PROJECT, text=True, start_new_session=True, **pipes)
        groups.append(process.pid)
        return process

    yield start
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def wait_for_a_save(paths, process, name="tiny"):
    while not list(paths.checkpoints("toy", name).rglob("checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def children(pid):
    """Process ids of the trainings below a launcher."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_launcher_is_the_trainings_too(paths, toy_competition, launch, number):
    """Its output ends only with the training, which holds the pipe's other end."""
    process = launch(*TRAIN, "--training.epochs", "300")
    wait_for_a_save(paths, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "stopped by signal 15, saved; the same command goes on from here" in output


def test_ctrl_c_ends_with_saved_and_no_traceback(paths, toy_competition, launch):
    """A terminal sends it to the launcher and to the training; the launcher alone would print a traceback."""
    process = launch(*TRAIN, "--training.epochs", "300")
    wait_for_a_save(paths, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in output
    assert output.splitlines()[-1].endswith("saved; the same command goes on from here")


def test_two_processes_stop_at_the_same_step_and_the_death_of_one_ends_the_launch(paths, toy_competition, launch):
    command = [*TWO, "29551", *TRAIN, "--training.epochs", "300"]
    process = launch(*command)
    wait_for_a_save(paths, process)
    os.kill(children(process.pid)[1], signal.SIGTERM)  # the one that does not write
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "stopped by signal 15, saved" in output, output
    process = launch(*command)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "goes on from epoch" in line:
            break
    assert "goes on from epoch" in seen[-1], "".join(seen)
    victim = children(process.pid)[np.random.default_rng().integers(2)]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode != 0, output
    assert not (paths.oof("toy") / "tiny" / "fold0.npz").exists()


@pytest.mark.parametrize("processes", [[], [*TWO, "29555"]], ids=["one", "two"])
def test_a_refusal_under_the_launcher_is_one_message(paths, toy_competition, launch, processes):
    """Accelerate's own 25 lines about the exit status of its child are not printed; the status is an error's."""
    process = launch(*processes, "src/train.py", "--competition", "toy", "--run", "tini", "--fold", "0")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "Traceback" not in output and "torch" not in output
    assert output.count("configs/runs/tini.yaml is missing; did you mean 'tiny'?") == 1
