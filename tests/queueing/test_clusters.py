import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from foldblend.queueing.machines import skypilot_text, slurm_text

TRAINING = """trap 'echo saved >>out; exit 143' TERM
echo "$@ root=${FOLDBLEND_ROOT:-}" >>out
case "$(cat mode)" in long) while :; do sleep 0.02; done ;; esac
exit "$(cat mode)"
"""


@pytest.fixture
def task(tmp_path):
    """Starts task 1 of 3 of a written array, as Slurm would: a stand-in for train_all.py notes what it is given."""
    project = tmp_path / "a folder"
    project.mkdir()
    (project / "stub.sh").write_text(TRAINING)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" >>'{project}/requeued'\n")
    (tmp_path / "scontrol").chmod(0o755)
    command = ["bash", "stub.sh", "--runs", "a b", "--fold", "0"]
    text = slurm_text("f.sbatch", "toy", command, 3, True, project, "/some root")
    (tmp_path / "f.sbatch").write_text(text)

    def start(mode):
        (project / "mode").write_text(mode)
        given = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "70", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.Popen(["bash", str(tmp_path / "f.sbatch")], env={**os.environ, **given}, cwd="/")

    return start, project


def test_the_head_is_what_sbatch_reads(tmp_path):
    text = slurm_text("f", "toy", ["python"], 4, True, Path("/x"), "")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    head = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --array=0-3", "#SBATCH --requeue", "#SBATCH --signal=B:USR1@300", "#SBATCH --gres=gpu:1"} < {*head}
    first_command = next(k for k, line in enumerate(text.splitlines()) if line and line[0] != "#")
    assert not any(line.startswith("#SBATCH") for line in text.splitlines()[first_command:])
    assert "gres" not in slurm_text("f", "toy", ["python"], 4, False, Path("/x"), "")


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_task_trains_its_part_and_ends_as_the_training_did(task, status):
    start, project = task
    assert start(str(status)).wait(timeout=20) == status
    assert (project / "out").read_text() == "--runs a b --fold 0 --part 1/3 root=/some root\n"
    assert not (project / "requeued").exists()


@pytest.mark.parametrize("number, requeued", [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_before_the_limit_it_saves_and_is_queued_again_but_not_after_scancel(task, number, requeued):
    start, project = task
    process = start("long")
    while not (project / "out").exists() or not (project / "out").read_text():
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=20) == 143
    assert (project / "out").read_text().endswith("saved\n")
    assert (project / "requeued").exists() is requeued
    if requeued:
        assert (project / "requeued").read_text() == "requeue 70_1\n"


def test_a_signal_before_the_training_has_a_number_ends_it_too(task, tmp_path):
    start, project = task
    text = (tmp_path / "f.sbatch").read_text()
    assert text.count("queue=$!\n") == 1
    (tmp_path / "f.sbatch").write_text(text.replace("queue=$!\n", "kill -TERM $$\nqueue=$!\n"))
    assert start("long").wait(timeout=20) == 143 and not (project / "requeued").exists()


def test_the_skypilot_task_is_yaml_and_gives_each_node_its_part():
    command = ["python", "src/train_all.py", "--text.template", "{a}: {b}"]
    task = yaml.safe_load(skypilot_text("f.yaml", "toy", command, 4, True, {"data/toy": "/my: data/toy"}))
    assert task["num_nodes"] == 4 and task["workdir"] == "." and task["resources"] == {"accelerators": "A100:1"}
    assert task["setup"] == "./run.sh setup\n" and task["file_mounts"] == {"~/sky_workdir/data/toy": "/my: data/toy"}
    script = task["run"].replace("exec python", "printf '%s\\n'")
    done = subprocess.run(["bash", "-c", script], env={"SKYPILOT_NODE_RANK": "3"}, capture_output=True, text=True)
    assert done.stdout.split("\n")[-4:] == ["{a}: {b}", "--part", "3/4", ""]
    bare = yaml.safe_load(skypilot_text("f.yaml", "toy", command, 1, False, {}))
    assert "file_mounts" not in bare and bare["resources"] == {"cpus": "8+"}
