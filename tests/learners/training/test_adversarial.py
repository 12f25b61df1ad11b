from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_encoder import die, stop_after
from torch import nn
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop
from foldblend.learners.training.loop import add_gradients, build_fold, take_step
from foldblend.learners.training.optimizer import build_adversary
from foldblend.settings.nets import AdversarialSettings, ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
FGM = AdversarialSettings("fgm", epsilon=0.5)
AWP = AdversarialSettings("awp", epsilon=0.05, awp_lr=0.1)
PROJECT = Path(__file__).resolve().parents[3]


class Bag(nn.Module):
    """The mean of word embeddings under a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

    def get_input_embeddings(self):
        return self.words

    def forward(self, ids):
        return self.head(self.words(ids).mean(1))


IDS, TARGETS = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def loss_of(model):
    return nn.functional.binary_cross_entropy_with_logits(model(IDS), TARGETS)


@pytest.fixture
def bag():
    model = Bag()
    loss_of(model).backward()
    return model


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("settings", [FGM, AWP], ids=["fgm", "awp"])
def test_the_loss_is_worse_inside_and_the_weights_are_exactly_back_afterwards(bag, settings):
    before, plain = weights_of(bag), loss_of(bag).item()
    with pytest.raises(RuntimeError), build_adversary(bag, settings).attack():
        assert loss_of(bag).item() > plain + 1e-3
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in weights_of(bag).items())


def test_fgm_moves_the_embeddings_by_epsilon_along_their_gradient_and_keeps_all_gradients(bag):
    before, gradient = weights_of(bag), bag.words.weight.grad.clone()
    with build_adversary(bag, FGM).attack():
        moved = weights_of(bag)
        assert torch.equal(bag.words.weight.grad, gradient)
    move = moved["words.weight"] - before["words.weight"]
    assert float(move.norm()) == pytest.approx(0.5, rel=1e-5)
    assert torch.allclose(move / move.norm(), gradient / gradient.norm(), atol=1e-5)
    assert torch.equal(moved["head.weight"], before["head.weight"])


def test_awp_moves_every_matrix_inside_its_box_and_forgets_the_gradient(bag):
    before = weights_of(bag)
    gradients = {name: value.grad.clone() for name, value in bag.named_parameters()}
    with build_adversary(bag, AWP).attack():
        moved = weights_of(bag)
        assert all(value.grad is None for value in bag.parameters())
    for name in ("words.weight", "head.weight"):
        weight, gradient = before[name], gradients[name]
        wanted = weight + 0.1 * weight.norm() * gradient / gradient.norm()
        expected = torch.minimum(torch.maximum(wanted, weight - 0.05 * weight.abs()), weight + 0.05 * weight.abs())
        assert torch.allclose(moved[name], expected, atol=1e-5) and not torch.equal(moved[name], weight)
    assert torch.equal(moved["head.bias"], before["head.bias"])


@pytest.mark.parametrize("settings", [FGM, AWP], ids=["fgm", "awp"])
def test_a_gpu_that_is_not_asked_moves_the_weights_to_the_same_bits(bag, settings, monkeypatch):
    adversary, moved = build_adversary(bag, settings), []
    for asks in (True, False):
        bag.zero_grad()
        loss_of(bag).backward()
        monkeypatch.setattr(type(adversary), "asks", staticmethod(lambda weight, asks=asks: asks))
        with adversary.attack():
            moved.append(weights_of(bag))
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in moved[0])


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("settings", [FGM, AWP], ids=["fgm", "awp"])
@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_gradient_without_direction_moves_nothing(bag, settings, value, asks, monkeypatch):
    """An fp16 step that overflowed is skipped by the loss scaler; it must not leave rubbish in the weights."""
    monkeypatch.setattr("foldblend.learners.training.optimizer.Adversary.asks", staticmethod(lambda weight: asks))
    before = weights_of(bag)
    for parameter in bag.parameters():
        parameter.grad.fill_(value)
    with build_adversary(bag, settings).attack():
        assert all(torch.equal(value, before[name]) for name, value in weights_of(bag).items())


def test_what_cannot_be_attacked_is_refused(bag):
    bag.zero_grad()
    with (
        pytest.raises(ValueError, match="adversarial.name fgm: no gradient reached"),
        build_adversary(bag, FGM).attack(),
    ):
        pass
    bag.words.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="trains no word embeddings"), build_adversary(bag, FGM).attack():
        pass


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "fgm"}, "adversarial.epsilon is 0.0; fgm expects more than 0"),
        ({"name": "fgm", "epsilon": 1.0, "awp_lr": 1.0}, "adversarial.awp_lr is set, but adversarial.name is fgm"),
        ({"name": "awp", "epsilon": 0.01}, "adversarial.awp_lr is 0.0; awp expects"),
        ({"epsilon": 1.0}, "adversarial.epsilon is set, but adversarial.name is none"),
        ({"name": "fgm", "epsilon": 1.0, "start_epoch": 3}, "start_epoch is 3; expected 1 to training.epochs, 2"),
        ({"start_epoch": 2}, "start_epoch is set, but adversarial.name is none"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RunSettings("encoder", adversarial=AdversarialSettings(**settings))


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert)),
        training=TrainingSettings(epochs=2, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3, max_grad_norm=0.0),
    )


def gradients_of_one_step(run, tmp_path, **training):
    """The gradients that AdamW is handed; dropout off, as its draws differ between micro-batches."""
    corpus = make_corpus()
    run = replace(run, training=replace(run.training, **training))
    learner = EncoderLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    fold.model.eval()
    fold.optimizer.step = fold.optimizer.zero_grad = lambda *_, **__: None
    take_step(learner, fold, state, fold.rows.train[:15])
    return learner, fold, {name: value.grad.clone() for name, value in fold.model.named_parameters()}


@pytest.mark.parametrize("settings", [FGM, AWP], ids=["fgm", "awp"])
def test_a_steps_gradient_is_the_sum_or_the_attacked_one_alone(run, tmp_path, settings):
    learner, fold, plain = gradients_of_one_step(run, tmp_path)
    before = weights_of(fold.model)
    with build_adversary(fold.model, settings).attack():
        fold.model.zero_grad()
        add_gradients(learner, fold, fold.rows.train[:15], np.random.default_rng(0))
    attacked = {name: value.grad.clone() for name, value in fold.model.named_parameters()}
    _, same, got = gradients_of_one_step(replace(run, adversarial=settings), tmp_path)
    for name, gradient in got.items():
        expected = attacked[name] + (plain[name] if settings is FGM else 0)
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6), name
    assert all(torch.equal(value, before[name]) for name, value in weights_of(same.model).items())
    assert any(not torch.allclose(got[name], plain[name], rtol=1e-2) for name in got)


@pytest.mark.parametrize("settings", [FGM, AWP], ids=["fgm", "awp"])
def test_micro_batches_make_the_same_attack(run, tmp_path, settings):
    run = replace(run, adversarial=settings)
    (_, one, whole), (*_, parts) = (gradients_of_one_step(run, tmp_path, micro_batch_size=n) for n in (16, 4))
    assert all(torch.allclose(whole[name], parts[name], rtol=1e-4, atol=1e-6) for name in whole)
    _, plain, _ = gradients_of_one_step(replace(run, adversarial=AdversarialSettings()), tmp_path)
    assert one.losses.read().loss == plain.losses.read().loss  # the loss shown is the one without an adversary


def test_before_its_first_epoch_nothing_differs_and_then_everything(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    seen = []
    for i, settings in enumerate((AdversarialSettings(), replace(FGM, start_epoch=2))):
        learner = EncoderLearner(replace(run, adversarial=settings), corpus)
        fold, state = build_fold(learner, fold_rows(corpus, tmp_path / str(i)))
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(loop, "end_epoch", lambda *_: die())
            loop.train(learner, fold, state)
        first = weights_of(fold.model)
        state.epoch, state.step = 1, 0
        take_step(learner, fold, state, fold.rows.train[:16])
        seen.append((first, weights_of(fold.model)))
    (first, then), (same, other) = seen
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(then[name], other[name]) for name in then)


@pytest.mark.parametrize(
    "settings, precision", [(replace(FGM, epsilon=0.05), "bf16"), (AWP, "fp32")], ids=["fgm-bf16", "awp-fp32"]
)
def test_learns_all_the_same(run, tmp_path, settings, precision):
    training = replace(run.training, epochs=12, precision=precision)
    optimizer = OptimizerSettings(lr=2e-3, head_lr=2e-2)
    corpus = make_corpus()
    learner = EncoderLearner(replace(run, adversarial=settings, training=training, optimizer=optimizer), corpus)
    assert learner.train_fold(fold_rows(corpus, tmp_path)).score["macro_f1"] > 0.9


def test_killed_and_started_again_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    training = replace(run.training, checkpoint_every_minutes=1e-9)
    run = replace(run, adversarial=replace(AWP, start_epoch=2), training=training)
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows = fold_rows(corpus, tmp_path / "killed")
    with monkeypatch.context() as patch:
        stop_after(patch, 17, die)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(run, corpus).train_fold(rows)
    assert np.array_equal(EncoderLearner(run, corpus).train_fold(rows).oof, whole.oof)


@pytest.mark.parametrize("settings", [FGM, AWP], ids=["fgm", "awp"])
def test_a_scaled_loss_makes_the_same_attack(bag, settings):
    """fp16's loss is scaled by a power of two, and so are its gradients."""
    moved = []
    for scale in (1.0, 2.0**16):
        for parameter in bag.parameters():
            parameter.grad *= scale
        gradients = {name: parameter.grad.clone() for name, parameter in bag.named_parameters()}
        with build_adversary(bag, settings).attack():
            moved.append(weights_of(bag))
        for name, parameter in bag.named_parameters():
            parameter.grad = gradients[name]
    assert all(torch.allclose(moved[0][name], moved[1][name], atol=1e-6) for name in moved[0])
