"""fp16's loss scaler: in the checkpoint, across precisions, and a training whose steps all overflow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus

from foldblend.errors import UserError
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def run(tiny_bert):
    training = TrainingSettings(epochs=2, global_batch_size=16, precision="fp32", checkpoint_every_minutes=1e-9)
    optimizer = OptimizerSettings(lr=5e-3, head_lr=5e-3, embedding_updates="every_step")
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=training, optimizer=optimizer)


def with_scaler(run, corpus):
    """A learner that scales its loss as on a T4; what it computes in stays float32, as CPUs have no fp16."""
    learner = EncoderLearner(run, corpus)
    learner.accelerator.scaler = torch.amp.GradScaler("cpu")
    learner.fresh_scaler = learner.accelerator.scaler.state_dict()
    return learner


def train_until(learner, rows, step, monkeypatch):
    plain, taken = loop.take_step, []

    def take(*args):
        taken.append(1)
        if len(taken) == step:
            raise InterruptedError
        plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", take)
        with pytest.raises(InterruptedError):
            learner.train_fold(rows)


def test_a_checkpoint_without_a_scaler_goes_on_with_one(run, tmp_path, monkeypatch):
    """A fold that began in bf16 or float32 goes on where auto means fp16; and the other way round."""
    corpus = make_corpus(120)
    for name, first, then in (("to", EncoderLearner, with_scaler), ("from", with_scaler, EncoderLearner)):
        rows = fold_rows(corpus, tmp_path / name, 40)
        train_until(first(run, corpus), rows, 4, monkeypatch)
        learner = then(run, corpus)
        assert np.isfinite(learner.train_fold(rows).oof).all()
        if then is with_scaler:
            assert learner.accelerator.scaler.get_scale() == 65536


def test_a_training_whose_every_step_overflows_ends_soon(run, tmp_path):
    corpus = make_corpus(400)
    learner = with_scaler(replace(run, training=replace(run.training, epochs=9)), corpus)
    explode_gradients(learner)
    with pytest.raises(UserError, match=r"Gradients overflow fp16: at step 19 .*training.precision fp32"):
        learner.train_fold(fold_rows(corpus, tmp_path, 40))


def test_a_short_training_without_a_step_is_refused(run, tmp_path):
    corpus = make_corpus(120)
    learner = with_scaler(run, corpus)
    explode_gradients(learner)
    with pytest.raises(UserError, match="No step was taken: every gradient overflowed fp16"):
        learner.train_fold(fold_rows(corpus, tmp_path, 40))


def explode_gradients(learner):
    """Every gradient is infinite, the loss is not: as in fp16, whose largest number is 65,504."""
    build = learner.build_fold_model

    def build_exploding(*args):
        model = build(*args)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.register_hook(lambda gradient: gradient * float("inf"))
        return model

    learner.build_fold_model = build_exploding
