"""FSDP2 at two CPU processes, through the shipped configuration: the same fold as one process makes, killed or not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from safetensors.torch import load_file
from still_model import without_dropout

import train
from learners.devices import join_processes

PROJECT = Path(__file__).resolve().parents[2]
ACCELERATE = os.path.join(os.path.dirname(sys.executable), "accelerate")
CONFIGS = sorted((PROJECT / "configs" / "accelerate").glob("*.yaml"))
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


LEARNERS = {
    "encoder": "learner: encoder\nmodel: {name: %s, head_dropout: 0.0}\n"
    "training: {epochs: 2, global_batch_size: 9, micro_batch_size: 3, precision: fp32, ema_decay: 0.5, "
    "selection: loss_and_score, evaluations_per_epoch: 2, collapse_check_after_steps: 0}\n",
    "decoder": "learner: decoder\nmodel: {name: %s, pooling: last, head_dropout: 0.0}\n"
    "adapter: {dropout: 0.0, rank: 4}\n"
    "training: {epochs: 2, global_batch_size: 9, micro_batch_size: 5, precision: fp32, selection: average_last, "
    "collapse_check_after_steps: 0}\n",
}


@pytest.fixture
def write_run(places, toy_competition, tiny_bert, tmp_path):
    def write(learner, source):
        text = LEARNERS[learner] % without_dropout(source, tmp_path / "still")
        (places.configs / "runs" / "still.yaml").write_text(text + "optimizer: {lr: 2e-3, head_lr: 1e-2}\n")
        return ["--competition", "toy", "--run", "still", "--fold", "1"]

    return write


def launch_sharded(port, *arguments):
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    config = ["--config_file", "configs/accelerate/fsdp2.yaml", "--num_processes", "2", "--main_process_port", port]
    command = [ACCELERATE, "launch", *config, "tests/launch_sharded.py", *arguments]
    return subprocess.Popen(command, env=env, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check_same_fold(places, one, two):
    predictions = [np.load(places.oof("toy") / name / "fold1.npz", allow_pickle=False) for name in (one, two)]
    for name in ("rows", "ids"):
        assert np.array_equal(predictions[0][name], predictions[1][name])
    for name in ("oof", "test"):
        assert predictions[0][name].std() > 0.05
        assert np.allclose(predictions[0][name], predictions[1][name], atol=1e-3)
    stored = [load_file(places.checkpoints("toy", name) / "fold1" / "weights.safetensors") for name in (one, two)]
    assert {k: v.shape for k, v in stored[0].items()} == {k: v.shape for k, v in stored[1].items()}
    assert all(np.allclose(value, stored[1][name], atol=1e-3) for name, value in stored[0].items())


def test_an_encoder_killed_and_resumed(places, write_run, tiny_bert):
    arguments = write_run("encoder", tiny_bert)
    train.main([*arguments, "--name", "one"])
    again = [*arguments, "--name", "two"]
    process = launch_sharded("29561", *again)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "epoch 1 step" in line:
            break
    process.send_signal(signal.SIGKILL)
    seen += process.communicate(timeout=120)[0]
    process = launch_sharded("29563", *again)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, "".join(seen) + output
    assert int(output.split(" sharded modules")[0].split()[-1]) >= 3, output  # two layers and what is around them
    assert "goes on from epoch" in output and "takes evaluation" in output
    check_same_fold(places, "one", "two")


def test_a_decoder_with_adapters(places, write_run, tiny_decoder):
    arguments = write_run("decoder", tiny_decoder("llama"))
    train.main([*arguments, "--name", "one"])
    process = launch_sharded("29565", *arguments, "--name", "two")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    check_same_fold(places, "one", "two")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig) and not config.use_cpu and config.mixed_precision == "no"
    header = path.read_text().split("compute_environment")[0]
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in header and "# Here: " in header


def test_all_configurations_are_there():
    wanted = {"one_gpu", "ddp", "fsdp2", "deepspeed_zero3", "several_machines"}
    assert {path.stem for path in CONFIGS} == wanted


def test_deepspeed_is_refused_before_anything_is_trained(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="launched with DeepSpeed.*configs/accelerate/fsdp2.yaml"):
        join_processes()
