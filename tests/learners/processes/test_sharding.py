"""FSDP2 at two CPU processes, through the shipped configuration: the fold that one process makes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from safetensors.torch import load_file
from still_model import without_dropout
from tiny_chat import save_tiny_chat

from foldblend.commands import train

PROJECT = Path(__file__).resolve().parents[3]
ACCELERATE = os.path.join(os.path.dirname(sys.executable), "accelerate")
CONFIGS = sorted((PROJECT / "configs" / "accelerate").glob("*.yaml"))
PATIENCE = 540
"""Seconds; tens of them are needed where no other work is done."""
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


LEARNERS = {
    "encoder": "learner: encoder\n"
    "model: {name: %s, pooling: label_attention, head_init: label_names, head_dropout: 0.0}\n"
    "training: {epochs: 2, global_batch_size: 9, micro_batch_size: 3, precision: fp32, ema_decay: 0.5, "
    "selection: loss_and_score, evaluations_per_epoch: 2, collapse_check_after_steps: 0}\n",
    "decoder": "learner: decoder\nmodel: {name: %s, pooling: last, head_dropout: 0.0}\n"
    "adapter: {dropout: 0.0, rank: 4}\n"
    "training: {epochs: 2, global_batch_size: 9, micro_batch_size: 5, precision: fp32, selection: average_last, "
    "collapse_check_after_steps: 0}\n",
    "generator": "learner: generator\nmodel: {name: %s}\nprompt: {template: 'Text: {text} Labels:'}\n"
    "adapter: {dropout: 0.0, rank: 4}\n"
    "training: {epochs: 1, global_batch_size: 9, micro_batch_size: 5, precision: fp32, "
    "collapse_check_after_steps: 0}\n",
}


@pytest.fixture
def write_run(paths, toy_competition, tiny_bert, tmp_path):
    def write(learner, source):
        text = LEARNERS[learner] % without_dropout(source, tmp_path / f"still-{learner}")
        rates = "lr: 2e-3" if learner == "generator" else "lr: 2e-3, head_lr: 1e-2"
        (paths.configs / "runs" / f"{learner}.yaml").write_text(f"{text}optimizer: {{{rates}, weight_decay: 2.0}}\n")
        return ["--competition", "toy", "--run", learner]

    return write


def launch(port, *arguments):
    """Starts two CPU processes under the shipped configuration of FSDP2."""
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    config = ["--config_file", "configs/accelerate/fsdp2.yaml", "--num_processes", "2", "--main_process_port", port]
    command = [ACCELERATE, "launch", *config, "tests/launch_sharded.py", *arguments]
    return subprocess.Popen(command, env=env, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check_same_fold(paths, one, two, k=1, apart=1e-3):
    predictions = [np.load(paths.oof("toy") / name / f"fold{k}.npz", allow_pickle=False) for name in (one, two)]
    for name in ("rows", "ids"):
        assert np.array_equal(predictions[0][name], predictions[1][name])
    for name in ("oof", "test"):
        assert predictions[0][name].std() > 0.05
        assert predictions[1][name].dtype == np.float32
        assert np.allclose(predictions[0][name], predictions[1][name], atol=apart)
    stored = [load_file(paths.checkpoints("toy", name) / f"fold{k}" / "weights.safetensors") for name in (one, two)]
    assert {k: v.shape for k, v in stored[0].items()} == {k: v.shape for k, v in stored[1].items()}
    assert all(np.allclose(value, stored[1][name], atol=apart) for name, value in stored[0].items())


def run_killed(port, *arguments):
    """Trains in two processes, is killed in the middle and started again; returns what it said the second time."""
    process = launch(port, *arguments)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "epoch 1" in line:
            break
    process.send_signal(signal.SIGKILL)
    seen += process.communicate(timeout=PATIENCE)[0]
    output = run_through(str(int(port) + 2), *arguments)
    assert "goes on from epoch" in output, "".join(seen) + output
    return output


def run_through(port, *arguments):
    process = launch(port, *arguments)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def test_an_encoder_killed_and_resumed(paths, write_run, tiny_bert):
    arguments = write_run("encoder", tiny_bert)
    train.main([*arguments, "--fold", "1", "--name", "one"])
    output = run_killed("29561", *arguments, "--fold", "1", "--name", "two")
    assert int(output.split(" sharded modules")[0].split()[-1]) >= 3, output  # two layers and what is around them
    assert "takes evaluation" in output
    check_same_fold(paths, "one", "two")


def test_in_bfloat16_heads_compute_in_float32_as_by_one_process(paths, write_run, tiny_bert, tiny_decoder, tmp_path):
    """One launch for an encoder and a decoder."""
    calls = [
        [*write_run("encoder", tiny_bert), "--fold", "1", "--training.precision", "bf16", "--training.ema_decay", "0"],
        [*write_run("decoder", tiny_decoder("llama")), "--fold", "1", "--training.precision", "bf16"],
    ]
    for number, arguments in enumerate(calls):
        train.main([*arguments, "--name", f"one-{number}"])
    (tmp_path / "calls.json").write_text(json.dumps([[*call, "--name", f"two-{k}"] for k, call in enumerate(calls)]))
    output = run_through("29571", str(tmp_path / "calls.json"))
    assert output.count("predicted in {torch.bfloat16}") == 2 * len(calls), output
    for number in range(len(calls)):
        check_same_fold(paths, f"one-{number}", f"two-{number}", apart=0.03)
        oof = np.load(paths.oof("toy") / f"two-{number}" / "fold1.npz", allow_pickle=False)["oof"]
        in_bf16 = torch.from_numpy(oof).bfloat16().float().numpy()
        assert not np.array_equal(oof, in_bf16)


def test_adapters_of_two_folds_on_one_base_then_a_generator(paths, write_run, tiny_decoder, tmp_path):
    """The second fold finds the base as it was loaded. One launch for both learners."""
    decoder = [*write_run("decoder", tiny_decoder("llama")), "--fold", "1", "2"]
    generator = [*write_run("generator", save_tiny_chat(tmp_path / "chat", "qwen2")), "--fold", "1"]
    for arguments, name in ((decoder, "one"), (generator, "answers-one")):
        train.main([*arguments, "--name", name])
    calls = [[*decoder, "--name", "two"], [*generator, "--name", "answers-two"]]
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    run_through("29565", str(tmp_path / "calls.json"))
    for fold in (1, 2):
        check_same_fold(paths, "one", "two", fold)
    check_same_fold(paths, "answers-one", "answers-two")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig) and not config.use_cpu and config.mixed_precision == "no"
    header = path.read_text().split("compute_environment")[0]
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in header and "Not yet run on" in header


def test_all_configurations_are_there():
    wanted = {"one_gpu", "ddp", "fsdp2", "several_machines"}
    assert {path.stem for path in CONFIGS} == wanted
