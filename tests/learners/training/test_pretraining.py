"""Pretraining on the competition's own texts: what is guessed, that it teaches, is kept, and goes on after a kill."""

import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_encoders import ARCHITECTURES
from toy_corpus import fold_rows, make_corpus

from foldblend.errors import UserError
from foldblend.learners.decoder import DecoderLearner
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.tokens.tokens import Tokens
from foldblend.learners.training import pretraining
from foldblend.learners.training.checkpoints import load_weights
from foldblend.learners.training.pretraining import IGNORED, TaughtModel, choose_guessed
from foldblend.settings.nets import AdapterSettings, ModelSettings, TrainingSettings
from foldblend.settings.run import RunSettings
from foldblend.settings.sources import PretrainingSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def encoder_run(folder, epochs=2, **more):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(folder), max_length_tokens=32),
        pretraining=PretrainingSettings(epochs=epochs, lr=3e-3, global_batch_size=16, **more),
        training=TrainingSettings(epochs=1, global_batch_size=16, precision="fp32", checkpoint_every_minutes=1e-6),
    )


def corpus_in(tmp_path, n=80):
    return replace(make_corpus(n), pretrained_dir=tmp_path / "pretrained")


def test_text_tokens_alone_are_guessed_and_one_at_least():
    lengths = np.array([12, 3, 30] * 60)
    ids = np.concatenate([[2, *range(10, 8 + n), 3] for n in lengths]).astype(np.int32)
    tokens = Tokens(ids, np.r_[0, lengths.cumsum()], 0, frame=(1, 1), mask_id=4)
    rng, rows = np.random.default_rng(0), np.arange(180)
    inputs, targets = choose_guessed(tokens, rows, 0.15, 40, rng)
    guessed, given = (targets != IGNORED).numpy(), tokens.batch(rows)["input_ids"].numpy()
    assert guessed.any(axis=1).all() and not guessed[np.isin(given, [0, 2, 3])].any()
    assert np.array_equal(targets.numpy()[guessed], given[guessed])
    assert np.array_equal(inputs["input_ids"].numpy()[~guessed], given[~guessed])
    shown = inputs["input_ids"].numpy()[guessed]
    assert 0.7 < (shown == 4).mean() < 0.9 and 0.12 < guessed[given > 3].mean() < 0.25
    inputs, targets = choose_guessed(tokens, rows, 1, 40, rng)
    assert np.array_equal(inputs["input_ids"].numpy(), given) and ((targets.numpy() == given) == (given >= 10)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_head_reads_the_guessed_tokens_alone(tmp_path, tiny_encoder, architecture):
    """As good as a language model over all tokens, and in the very parts that a fold takes over."""
    learner = EncoderLearner(encoder_run(tiny_encoder(architecture)), corpus_in(tmp_path, 20))
    taught = TaughtModel(learner, None)
    taught.model.eval()
    inputs, targets = choose_guessed(learner.tokens, np.arange(9), 0.3, 20, np.random.default_rng(1))
    loss = taught.loss(inputs, targets)
    taught.guessed = None
    logits = taught.model(**inputs).logits
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    assert float(loss) == pytest.approx(float(whole), rel=1e-4)
    model = learner.build_fold_model(fold_rows(learner.corpus, tmp_path, 5), 0)
    mine = {name for name in model.state_dict() if not name.startswith("head")}
    assert mine == {name for name in taught.of_folds() if ".pooler." not in name}


def test_folds_start_from_what_was_learned_and_the_next_one_reads_it(tmp_path, tiny_bert, monkeypatch):
    corpus = replace(corpus_in(tmp_path), unlabelled=("today it was calm", "a dull happy day"))
    learner = EncoderLearner(encoder_run(tiny_bert, epochs=6), corpus)
    rows = fold_rows(corpus, tmp_path, 20)
    predictions = learner.train_fold(rows)
    facts = predictions.pretraining
    assert facts["texts"] == 84 and facts["loss"] < 3.9  # ln 73 = 4.3 before the first step
    kept = next((tmp_path / "pretrained").glob("*/weights.safetensors"))
    assert not list(kept.parent.glob("checkpoint*")) and len(facts["weights_sha256"]) == 64
    model = learner.build_fold_model(rows, 1)
    before = model.state_dict()["encoder.encoder.layer.0.output.dense.weight"].clone()
    learner.go_on_from_start(model)
    after = model.state_dict()["encoder.encoder.layer.0.output.dense.weight"]
    assert not torch.equal(before, after)
    assert torch.equal(after, load_weights(kept.parent)["encoder.encoder.layer.0.output.dense.weight"])
    monkeypatch.setattr(pretraining, "_train", lambda *_: pytest.fail("trained again"))
    again = EncoderLearner(replace(learner.run, seed=7), corpus)  # seeds share it
    assert torch.equal(again.start_weights["encoder.encoder.layer.0.output.dense.weight"], after)
    monkeypatch.undo()
    other = EncoderLearner(encoder_run(tiny_bert, epochs=6, masked_share=0.3), corpus)
    assert not torch.equal(other.start_weights["encoder.encoder.layer.0.output.dense.weight"], after)
    assert len(list((tmp_path / "pretrained").glob("*/weights.safetensors"))) == 2


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_killed_one_goes_on_with_the_same_bits(tmp_path, tiny_bert, tiny_decoder, monkeypatch, kind):
    def start(folder):
        corpus = replace(make_corpus(50), pretrained_dir=folder)
        run = encoder_run(tiny_bert)
        if kind == "encoder":
            return EncoderLearner(run, corpus).start_weights
        model = ModelSettings(name=str(tiny_decoder("qwen3")), pooling="last", max_length_tokens=32)
        run = replace(run, learner="decoder", model=model, adapter=AdapterSettings(rank=2, alpha=4))
        return DecoderLearner(run, corpus).start_weights

    whole, take_step, taken = start(tmp_path / "whole"), pretraining._take_step, []

    def dies(*arguments):
        if len(taken) == 5:
            raise MemoryError
        taken.append(0)
        return take_step(*arguments)

    monkeypatch.setattr(pretraining, "_take_step", dies)
    with pytest.raises(MemoryError):
        start(tmp_path / "killed")
    monkeypatch.undo()
    found = start(tmp_path / "killed")
    assert whole.keys() == found.keys() and all(torch.equal(whole[name], found[name]) for name in whole)
    if kind == "decoder":
        assert any("lora_B" in name and value.any() for name, value in whole.items())
        assert all("lora_" in name for name in whole)


def test_other_processes_wait_for_the_one_that_pretrains(tmp_path, tiny_bert, monkeypatch):
    """The second of two starts first, waits, and then has the weights of the first."""
    corpus = corpus_in(tmp_path)
    first, second = (EncoderLearner(encoder_run(tiny_bert), corpus) for _ in range(2))
    waiting = SimpleNamespace(is_main_process=False)
    waits = []

    def trains_meanwhile(seconds):
        waits.append(seconds)
        pretraining.pretrain(first, None)

    monkeypatch.setattr(pretraining, "time", SimpleNamespace(sleep=trains_meanwhile, monotonic=time.monotonic))
    second.accelerator = waiting
    found, facts = pretraining.pretrain(second, None)
    assert len(waits) == 1 and facts["texts"] == 82
    assert all(torch.equal(value, first.start_weights[name]) for name, value in found.items())


def test_a_waiting_process_can_be_stopped(tmp_path, monkeypatch):
    stopping = SimpleNamespace(sleep=lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(pretraining, "time", stopping)
    with pytest.raises(SystemExit) as stopped:
        pretraining._wait_for(tmp_path / "never")
    assert stopped.value.code == 128 + signal.SIGTERM


def test_a_decoders_fold_takes_the_pretrained_adapters(tmp_path, tiny_decoder):
    corpus = corpus_in(tmp_path, 40)
    run = replace(
        encoder_run(tiny_decoder("llama"), epochs=1),
        learner="decoder",
        model=ModelSettings(name=str(tiny_decoder("llama")), pooling="last", max_length_tokens=32),
        adapter=AdapterSettings(rank=2, alpha=4),
    )
    learner = DecoderLearner(run, corpus)
    model = learner.build_fold_model(fold_rows(corpus, tmp_path, 10), 3)
    learner.go_on_from_start(model)
    named = {name: value for name, value in model.state_dict().items() if "lora_B" in name}
    assert named and all(torch.equal(value, learner.start_weights[name]) for name, value in named.items())


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"epochs": 0, "lr": 1e-4}, "pretraining.lr is set, but pretraining.epochs is 0"),
        ({"epochs": 1, "file": "../x.csv"}, "expected the name of a file inside data/<competition>/"),
        ({"epochs": 1, "file_sha256": "0"}, "names no file"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        RunSettings("encoder", pretraining=PretrainingSettings(**settings))


def test_what_pretraining_cannot_teach_is_refused():
    some = PretrainingSettings(epochs=1)
    with pytest.raises(UserError, match=r"model.pooling is pooler, which pretraining does not teach"):
        RunSettings("encoder", model=ModelSettings(pooling="pooler"), pretraining=some)
    with pytest.raises(UserError, match=r"set adapter.kind lora"):
        RunSettings("decoder", model=ModelSettings(pooling="last"), pretraining=some, adapter=AdapterSettings("none"))
