"""Learners on two CPU processes: the fold that one process makes. One launch trains them all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from still_model import without_dropout

from foldblend.commands import train

ACCELERATE = os.path.join(os.path.dirname(sys.executable), "accelerate")
PROJECT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")
DECODER = (
    "learner: decoder\nmodel: {name: %s, pooling: last, head_dropout: 0.0}\nadapter: {%s}\n"
    "optimizer: {lr: 5e-3, head_lr: 1e-2}\n"
    "training: {epochs: 1, global_batch_size: 7, micro_batch_size: 2, precision: fp32}\n"
)
GENERATOR = (
    "learner: generator\nmodel: {name: %s}\nprompt: {form: chat, template: 'Text: {text}'}\n"
    "adapter: {rank: 4, dropout: 0.0}\nanswer: {%s}\noptimizer: {lr: 5e-3}\n"
    "training: {epochs: 1, global_batch_size: 7, precision: fp32}\n"
)
ADAPTERS = {
    "lora": "rank: 8, dropout: 0.0",
    "dora": "rank: 4, dropout: 0.0, dora: true, rslora: true",
    "pissa": "rank: 4, dropout: 0.0, start: pissa, bias: all",
    "prefix": "kind: prefix_tuning, virtual_tokens: 4",
    "prompt": "kind: prompt_tuning, virtual_tokens: 4",
    "nf4": "rank: 4, dropout: 0.0, quantization: nf4",
    "full": "kind: none",
}
ALL_OPTIONS = (
    "learner: encoder\nmodel: {name: %s, pooling: concat_last, concat_layers: 2, head: mlp, concat_states: mean, "
    "head_dropout: 0.0}\noptimizer: {lr: 2e-3, head_lr: 1e-2, layer_decay: 0.9}\n"
    "loss: {r_drop_alpha: 1.0}\nadversarial: {name: fgm, epsilon: 0.5, start_epoch: 2}\n"
    "training: {epochs: 3, global_batch_size: 7, micro_batch_size: 2, precision: fp32, ema_decay: 0.5, "
    "gradient_checkpointing: true}\n"
)
PLAIN = (
    "learner: encoder\nmodel: {name: %s, pooling: label_attention, head_init: label_names, head_dropout: 0.0}\n"
    "optimizer: {lr: 5e-3, head_lr: 5e-3}\n"
    "training: {epochs: 4, global_batch_size: 6, precision: fp32}\n"
)
ENCODERS = {"encoder": PLAIN, "all_options": ALL_OPTIONS}
RUNS = {
    **{name: (DECODER, settings) for name, settings in ADAPTERS.items()},
    "list": (GENERATOR, "form: list"),
    "yes_no": (GENERATOR, "form: yes_no"),
}


def arguments(run, number, *more):
    return ["--competition", "toy", "--run", run, "--fold", "1", "--name", f"{run}-{number}", *more]


def test_two_processes_make_the_fold_of_one(paths, toy_competition, tiny_decoder, tiny_bert, tmp_path):
    """Every kind of adapter, both forms of answers, an encoder plain, accumulating and with every option; a linear
    learner is the first process's alone."""
    texts = {name: text % (tiny_decoder("qwen2"), settings) for name, (text, settings) in RUNS.items()}
    still = without_dropout(tiny_bert, tmp_path / "still")
    texts |= {name: text % still for name, text in ENCODERS.items()}
    for name, text in texts.items():
        (paths.configs / "runs" / f"{name}.yaml").write_text(text)
    runs = [*texts, "tfidf"]
    for run in runs:
        train.main(arguments(run, "one"))
    smaller = {"encoder": ["--training.micro_batch_size", "2"]}
    calls = [arguments(run, "two", *smaller.get(run, [])) for run in runs]
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    command = [ACCELERATE, "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "29547"]
    command += ["tests/launch_several.py", str(tmp_path / "calls.json")]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=env, cwd=PROJECT, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout  # the processes' lines may run into one another
    spread = {run: 0.1 if run in ENCODERS else 0.05 for run in runs}
    far = {run: check_same_fold(paths, f"{run}-one", f"{run}-two", spread[run]) for run in runs}
    assert all(distance < (1e-3 if run in ENCODERS else 2e-3) for run, distance in far.items()), far
    assert said.count("to train: fold 1") == len(runs)
    for run in runs:
        trained = {f"process {rank} trains {run}-two" for rank in range(2 if run in texts else 1)}
        assert set(re.findall(rf"process \d trains {run}-two", said)) == trained
        assert re.findall(rf"process \d writes {run}-two", said) == [f"process 0 writes {run}-two"]
        device = json.loads((paths.oof("toy") / f"{run}-two" / "fold1.json").read_text())["device"]
        assert device.startswith("2 x" if run in texts else "cpu")


def check_same_fold(paths, one, two, spread):
    """How far two runs' predictions of the same rows are apart at most; they differ by `spread` among themselves."""
    first, second = (np.load(paths.oof("toy") / name / "fold1.npz", allow_pickle=False) for name in (one, two))
    assert np.array_equal(first["rows"], second["rows"]) and np.array_equal(first["ids"], second["ids"])
    assert min(first[part].std() for part in ("oof", "test")) > spread, one
    return max(np.abs(first[part] - second[part]).max() for part in ("oof", "test"))
