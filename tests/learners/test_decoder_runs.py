"""Decoders as they are run: by the name of a YAML, by train.py; by two processes in test_two_processes.py."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_corpus import fold_rows, make_corpus

from foldblend.commands import blend, train
from foldblend.learners.decoder import DecoderLearner
from foldblend.learners.nets.adapters import SharedBase
from foldblend.learners.training import loop
from foldblend.settings.loading import load_run
from foldblend.settings.paths import Paths

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ARCHITECTURES = {
    "google/gemma-2-2b": "gemma2",
    "meta-llama/Llama-3.2-1B": "llama",
    "dunzhang/stella_en_1.5B_v5": "qwen2",
    "intfloat/e5-mistral-7b-instruct": "mistral",
    "google/gemma-3-1b-pt": "gemma3_text",
    "google/gemma-3-4b-pt": "gemma3",
    "google/gemma-3-12b-pt": "gemma3",
    **{f"Qwen/Qwen3-{size}-Base": "qwen3" for size in ("0.6B", "1.7B", "8B", "14B")},
}
RUNS = [path.stem for path in (PROJECT / "configs" / "runs").rglob("*.yaml") if "learner: decoder" in path.read_text()]


@cache
def load_shipped(name):
    return load_run(Paths(PROJECT), name)


def test_every_architecture_has_a_run():
    assert {load_shipped(name).model.name for name in RUNS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_by_name_takes_two_steps_and_predicts(tiny_decoder, tmp_path, name):
    """On a tiny model of the same architecture; all else is the run's own."""
    run = load_shipped(name)
    model = replace(run.model, name=str(tiny_decoder(ARCHITECTURES[run.model.name])))
    training = replace(run.training, epochs=1, precision="fp32", collapse_check_after_steps=0)
    run = replace(run, model=model, training=training, optimizer=replace(run.optimizer, warmup_steps=0))
    corpus = make_corpus(n=20 + 2 * training.global_batch_size)
    learner = DecoderLearner(run, corpus)
    got = learner.train_fold(fold_rows(corpus, tmp_path, 20))
    assert got.oof.shape == (20, 3) and np.isfinite(got.oof).all()
    if run.model.pad_token:
        assert learner.tokens.pad_id == learner.tokenizer.convert_tokens_to_ids(run.model.pad_token)


def test_the_collapse_guard_looks_well_behind_every_runs_warm_up():
    names = {path.stem for path in (PROJECT / "configs" / "runs").rglob("*.yaml")}
    warmed = {name: load_shipped(name) for name in names if load_shipped(name).optimizer.warmup_steps}
    assert {"distilroberta-a3", "llama-3.2-1b", "qwen2.5-coder-14b-instruct-sft"} == set(warmed)
    for run in warmed.values():
        assert run.training.collapse_check_after_steps >= 1.5 * run.optimizer.warmup_steps


def test_a_warm_up_as_long_as_the_training_is_refused_before_the_base_is_loaded(tiny_decoder, tmp_path, monkeypatch):
    run = load_shipped("llama-3.2-1b")
    run = replace(run, model=replace(run.model, name=str(tiny_decoder("llama"))))
    monkeypatch.setattr(SharedBase, "_load", lambda _: pytest.fail("the base was loaded"))
    learner = DecoderLearner(run, make_corpus(n=20 + 32))
    with pytest.raises(ValueError, match="warmup_steps is 300, the training has 3 steps"):
        learner.train_fold(fold_rows(learner.corpus, tmp_path, 20))


@pytest.fixture
def decoder_run(paths, toy_competition, tiny_decoder):
    """Run `adapted` of competition `toy`."""
    (paths.configs / "runs" / "adapted.yaml").write_text(
        f"learner: decoder\nmodel: {{name: {tiny_decoder('llama')}, pooling: last, head_dropout: 0.0}}\n"
        "optimizer: {lr: 5e-3, head_lr: 1e-2}\nadapter: {dropout: 0.0, rank: 8}\n"
        "training: {epochs: 2, global_batch_size: 6, precision: fp32, collapse_check_after_steps: 0}\n"
    )
    return ["--competition", "toy", "--run", "adapted", "--fold", "1"]


def test_all_folds_of_one_base_then_the_blend(paths, decoder_run, capsys):
    train.main([*decoder_run[:-1], "all", "--training.epochs", "4"])
    blend.main(["--competition", "toy", "--runs", "adapted"])
    assert "adapted" in capsys.readouterr().out
    (csv,) = paths.submissions("toy").glob("*.csv")
    assert len(csv.read_text().splitlines()) == 22


def test_adapters_go_on_from_another_competitions(paths, toy_competition, tiny_decoder, monkeypatch, capsys):
    """`other` has the rows of `toy` in other words, so that nothing that is held out was seen."""
    lines = (paths.data("toy") / "train.csv").read_text().splitlines()
    other = paths.data("other")
    other.mkdir()
    texts = [line.split(",") for line in lines[1:]]
    rows = [",".join([f"o{k}", f"other {chr(97 + k % 26)} {chr(97 + k // 26)} {cells[1]}", *cells[2:]])
            for k, cells in enumerate(texts)]  # fmt: skip
    (other / "train.csv").write_text("\n".join([lines[0], *rows, ""]))
    for name in ("test.csv", "sample_submission.csv"):
        (other / name).write_bytes((paths.data("toy") / name).read_bytes())
    folder = paths.configs / "competitions"
    (folder / "other.yaml").write_bytes((folder / "toy.yaml").read_bytes())
    model = f"{{name: {tiny_decoder('qwen3')}, pooling: last, max_length_tokens: 32}}"
    (paths.configs / "runs" / "lora.yaml").write_text(
        f"learner: decoder\nmodel: {model}\nadapter: {{rank: 2, alpha: 4}}\noptimizer: {{lr: 5e-3}}\n"
        "training: {epochs: 1, global_batch_size: 16, precision: fp32}\n"
    )
    train.main(["--competition", "other", "--run", "lora", "--fold", "1"])
    learned = load_file(paths.checkpoints("other", "lora") / "fold1" / "weights.safetensors")
    learned = {name: value for name, value in learned.items() if "lora_" in name}
    assert any(value.any() for name, value in learned.items() if "lora_B" in name)
    first, prepare = [], loop.prepare

    def watch(accelerator, model, optimizer):
        first.append({f"model.{name}": value.detach().numpy().copy() for name, value in model.state_dict().items()})
        return prepare(accelerator, model, optimizer)

    monkeypatch.setattr(loop, "prepare", watch)
    train.main(["--competition", "toy", "--run", "lora", "--fold", "0", "--model.start_from", "other/lora/fold1"])
    assert all(np.array_equal(first[0][name], value) for name, value in learned.items())
    assert "starts from other/lora/fold1" in " ".join(capsys.readouterr().out.split())
