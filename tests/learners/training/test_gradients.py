"""Memory that runs out: a step is taken again in smaller parts, with the same gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus
from transformers import PreTrainedModel

from foldblend.errors import UserError
from foldblend.learners.decoder import DecoderLearner
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training.loop import build_fold, gather_gradients
from foldblend.settings.nets import (
    AdapterSettings,
    AdversarialSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert)),
        training=TrainingSettings(epochs=2, global_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3, max_grad_norm=0.0),
    )


def limit_memory(learner, most_tokens, with_recompute=0):
    """Let the learner run out of memory beyond so many padded tokens; returns what it was asked for, and how often."""
    asked, plain = [], learner.batch_loss

    def batch_loss(model, loss, batch):
        tokens = batch[0]["input_ids"].numel()
        asked.append(tokens)
        pretrained = next(m for m in model.modules() if isinstance(m, PreTrainedModel))
        summed = plain(model, loss, batch)
        if tokens > (with_recompute if pretrained.is_gradient_checkpointing else most_tokens):
            summed.backward()  # it may run out anywhere: half of the gradient is there
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return summed

    learner.batch_loss = batch_loss
    return asked


def gradients(learner, tmp_path):
    """Of one step, dropout off, as its draws differ between micro-batches."""
    fold, state = build_fold(learner, fold_rows(learner.corpus, tmp_path))
    fold.model.eval()
    gather_gradients(learner, fold, fold.rows.train[:15], [1, 2], epoch=0)
    return {name: value.grad.clone() for name, value in fold.model.named_parameters() if value.requires_grad}, fold


@pytest.mark.parametrize("adversary", ["none", "fgm"])
def test_a_step_that_does_not_fit_is_taken_in_parts_with_the_same_gradient(run, tmp_path, capsys, adversary):
    corpus = make_corpus()
    run = replace(run, adversarial=AdversarialSettings(adversary, **({"epsilon": 0.5} if adversary == "fgm" else {})))
    whole, _ = gradients(EncoderLearner(run, corpus), tmp_path / "whole")
    learner = EncoderLearner(replace(run, training=replace(run.training, gradient_checkpointing=False)), corpus)
    asked = limit_memory(learner, most_tokens=50)
    parts, fold = gradients(learner, tmp_path / "parts")
    assert max(asked) > 100 and 10 < fold.micro_batches.most_tokens <= 50
    assert "out of memory with" in capsys.readouterr().err
    assert all(torch.allclose(parts[name], value, rtol=1e-4, atol=1e-6) for name, value in whole.items())
    asked.clear()
    gather_gradients(learner, fold, fold.rows.train[:15], [1, 3], epoch=0)
    assert max(asked) <= 50, "the next step starts with what was found to fit"


@pytest.mark.parametrize("learner_class", [EncoderLearner, DecoderLearner])
def test_small_batches_that_do_not_fit_compute_their_states_twice(run, tiny_decoder, tmp_path, capsys, learner_class):
    corpus = make_corpus()
    if learner_class is DecoderLearner:
        model = ModelSettings(name=str(tiny_decoder("qwen2")), pooling="last")
        run = RunSettings("decoder", model=model, training=run.training, adapter=AdapterSettings(rank=4))
    whole, _ = gradients(learner_class(run, corpus), tmp_path / "whole")
    learner = learner_class(run, corpus)
    asked = limit_memory(learner, most_tokens=0, with_recompute=10_000)
    twice, fold = gradients(learner, tmp_path / "twice")
    assert len(asked) == 2 and fold.micro_batches.most_tokens is None
    assert "computed twice" in capsys.readouterr().err
    assert all(torch.allclose(twice[name], value, rtol=1e-4, atol=1e-6) for name, value in whole.items())
    assert any(value.abs().max() > 0 for value in twice.values())


def test_a_whole_training_goes_through_steps_that_do_not_fit(run, tmp_path):
    corpus = make_corpus(n=400)
    learner = EncoderLearner(replace(run, training=replace(run.training, epochs=6)), corpus)
    asked = limit_memory(learner, most_tokens=60, with_recompute=60)
    got = learner.train_fold(fold_rows(corpus, tmp_path, 80))
    assert got.score["macro_f1"] > 0.9 and sum(tokens > 60 for tokens in asked) <= 4


def test_one_text_that_does_not_fit_ends_the_training_with_what_may_help(run, tmp_path):
    learner = EncoderLearner(run, make_corpus())
    limit_memory(learner, most_tokens=0)
    with pytest.raises(UserError, match=r"One text does not fit.*max_length_tokens"):
        gradients(learner, tmp_path)


@pytest.mark.parametrize(
    "error, shown",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. See PYTORCH_ALLOC_CONF"), "2 GiB)"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), "memory)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "allocate memory)"),
    ],
)
def test_a_model_that_does_not_fit_is_one_message(run, tmp_path, monkeypatch, error, shown):
    learner = EncoderLearner(run, make_corpus())

    def no_room(*_):
        raise error

    monkeypatch.setattr(learner, "build_fold_model", no_room)
    with pytest.raises(UserError, match="memory of the device is full.*state_precision 8bit") as found:
        learner.train_fold(fold_rows(learner.corpus, tmp_path))
    assert f"{shown}. Look" in str(found.value) and "\n" not in str(found.value)


def test_another_error_keeps_its_traceback(run, tmp_path, monkeypatch):
    learner = EncoderLearner(run, make_corpus())
    monkeypatch.setattr(learner, "build_fold_model", lambda *_: torch.ones(2, 3) @ torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        learner.train_fold(fold_rows(learner.corpus, tmp_path))


def test_several_processes_do_not_part_ways(run, tmp_path, monkeypatch):
    learner = EncoderLearner(run, make_corpus())
    fold, state = build_fold(learner, fold_rows(learner.corpus, tmp_path))
    limit_memory(learner, most_tokens=0)
    monkeypatch.setattr(type(learner.accelerator), "num_processes", 2)
    monkeypatch.setattr(fold.micro_batches, "n_processes", 2)
    with pytest.raises(UserError, match="Run again with --training.micro_batch_size 4"):
        gather_gradients(learner, fold, np.sort(fold.rows.train[:16]), [1, 2], epoch=0)
