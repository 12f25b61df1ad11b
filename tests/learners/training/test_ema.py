from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_encoder import die, stop_after
from torch import nn
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop
from foldblend.learners.training.checkpoints import WEIGHTS
from foldblend.learners.training.loop import build_fold
from foldblend.learners.training.optimizer import WeightAverage
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def walk(model, n_steps):
    """Weights after each of n steps, as numpy."""
    rng = np.random.default_rng(0)
    for _ in range(n_steps):
        for parameter in model.parameters():
            parameter.data += torch.from_numpy(rng.normal(size=parameter.shape).astype(np.float32))
        yield model.weight.detach().numpy().copy()


def test_the_average_is_the_recursion_written_out():
    model = nn.Linear(3, 2)
    average, expected = WeightAverage(model, decay=0.6), model.weight.detach().numpy().copy()
    for step, weights in enumerate(walk(model, 20)):
        average.update(step)
        kept = min(0.6, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weights
    assert average.tensors()["ema.weight"].numpy() == pytest.approx(expected, abs=1e-6)


def test_inside_it_is_the_average_and_afterwards_what_it_was_to_the_bit():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, decay=0.9)
    (own,) = walk(model, 1)
    average.update(0)
    with pytest.raises(RuntimeError), average.swapped():
        assert torch.equal(model.weight, average.tensors()["ema.weight"]) and not np.array_equal(
            model.weight.detach(), own
        )
        raise RuntimeError
    assert np.array_equal(model.weight.detach(), own)
    assert list(average.tensors()) == ["ema.weight"]
    other = WeightAverage(nn.Linear(3, 2), decay=0.9)
    other.names = average.names
    other.restore(average.tensors())
    assert torch.equal(other.tensors()["ema.weight"], average.tensors()["ema.weight"])


@pytest.fixture
def run(tiny_bert):
    training = TrainingSettings(epochs=3, global_batch_size=16, micro_batch_size=16, precision="fp32", ema_decay=0.9)
    optimizer = OptimizerSettings(lr=5e-3, head_lr=5e-3)
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=training, optimizer=optimizer)


def test_the_average_is_what_is_shown_predicted_with_and_kept(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    rows, learner = fold_rows(corpus, tmp_path), EncoderLearner(run, corpus)
    seen, predict = [], learner.predict

    def spy(model, part, **how):
        seen.append(model.head.weight.detach().clone())
        return predict(model, part, **how)

    monkeypatch.setattr(learner, "predict", spy)
    averages, update = [], WeightAverage.update

    def note(self, step):
        update(self, step)
        averages.append(self.tensors()["ema.head.weight"].clone())

    monkeypatch.setattr(WeightAverage, "update", note)
    learner.train_fold(rows)
    at_epoch_ends = [averages[i] for i in (11, 23, 35)]
    assert len(averages) == 36 and all(torch.equal(a, b) for a, b in zip(seen[:3], at_epoch_ends, strict=True))
    stored = load_file(rows.checkpoint_dir / WEIGHTS)
    assert torch.equal(stored["model.head.weight"], averages[-1]) and not [n for n in stored if n.startswith("ema.")]


def test_training_itself_does_not_see_the_average(run, tmp_path):
    """The epoch's evaluation swaps weights in and out: the steps are those of a run without an average."""
    corpus = make_corpus()
    plain = replace(run, training=replace(run.training, ema_decay=0.0))
    folds = []
    for i, settings in enumerate((run, plain)):
        learner = EncoderLearner(settings, corpus)
        fold, state = build_fold(learner, fold_rows(corpus, tmp_path / str(i)))
        if fold.average is not None:
            fold.average.write_into_model = lambda: None
        loop.train(learner, fold, state)
        folds.append(fold.model.state_dict())
    assert all(torch.equal(value, folds[1][name]) for name, value in folds[0].items())


@pytest.mark.parametrize("n_steps", [5, 30])
def test_killed_and_started_again_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch, n_steps):
    corpus = make_corpus()
    run = replace(run, training=replace(run.training, checkpoint_every_minutes=1e-9))
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows = fold_rows(corpus, tmp_path / "killed")
    with monkeypatch.context() as patch:
        stop_after(patch, n_steps, die)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(run, corpus).train_fold(rows)
    again = EncoderLearner(run, corpus).train_fold(rows)
    assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)
