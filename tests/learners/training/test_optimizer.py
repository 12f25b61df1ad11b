from types import SimpleNamespace

import pytest
import torch
from torch import nn

from foldblend.learners.training.optimizer import (
    build_optimizer,
    check_warmup,
    layer_shares,
    lr_factor,
    set_lr,
)
from foldblend.settings.nets import OptimizerSettings
from foldblend.settings.run import RunSettings


def test_linear_example():
    settings = OptimizerSettings(schedule="linear", warmup_fraction=0.2)
    got = [lr_factor(step, 10, settings) for step in range(10)]
    assert got == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
def test_rates_climb_then_never_climb_again(schedule, warmup):
    settings = OptimizerSettings(schedule=schedule, warmup_fraction=warmup)
    got = [lr_factor(step, 100, settings) for step in range(100)]
    top = got.index(max(got))
    assert max(got) == 1.0 and min(got) >= 0
    assert got[: top + 1] == sorted(got[: top + 1]) and got[top:] == sorted(got[top:], reverse=True)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def test_groups_by_rate_and_decay_leave_the_frozen_out():
    model = Two()
    optimizer = build_optimizer(model, OptimizerSettings(lr=1e-3, head_lr=1e-2, weight_decay=0.1))
    found = {(group["peak_lr"], group["weight_decay"]): group["params"] for group in optimizer.param_groups}
    assert found[1e-3, 0.1][0] is model.body.weight and found[1e-3, 0.0][0] is model.body.bias
    assert found[1e-2, 0.1][0] is model.head.weight and found[1e-2, 0.0][0] is model.head.bias
    assert sum(len(params) for params in found.values()) == 4
    set_lr(optimizer, 0.5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [5e-4, 5e-4, 5e-3, 5e-3]


def test_equal_rates_share_a_group():
    optimizer = build_optimizer(Two(), OptimizerSettings(lr=1e-3, head_lr=1e-3, weight_decay=0.0))
    assert len(optimizer.param_groups) == 1
    assert all(torch.is_tensor(p) for p in optimizer.param_groups[0]["params"])


class Encoder(nn.Module):
    """Layers as transformers name them, at one of the places where its encoders keep them."""

    def __init__(self, layers_name, n_layers=3):
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=n_layers)
        self.embeddings = nn.ModuleDict({"word_embeddings": nn.Embedding(5, 4), "norm": nn.LayerNorm(4)})
        self.decoy = nn.ModuleList([nn.Linear(4, 4)])
        self.inner = nn.ModuleDict({layers_name: nn.ModuleList([nn.Linear(4, 4) for _ in range(n_layers)])})
        self.final_norm = nn.LayerNorm(4)


class Classifier(nn.Module):
    def __init__(self, layers_name):
        super().__init__()
        self.encoder, self.head, self.head_dense = Encoder(layers_name), nn.Linear(4, 2), nn.Linear(4, 4)


@pytest.mark.parametrize("layers_name", ["layer", "layers"])
def test_each_layer_learns_at_its_share_and_every_parameter_stands_once(layers_name):
    model = Classifier(layers_name)
    optimizer = build_optimizer(model, OptimizerSettings(lr=1e-3, head_lr=1e-2, layer_decay=0.5, weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sorted(rates) == sorted(names.values())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    shares = {"embeddings": 0.125, "decoy": 1, "final_norm": 1}
    shares |= {f"inner.{layers_name}.{i}": 0.5 ** (2 - i) for i in range(3)}
    for part, share in shares.items():
        found = {rate for name, rate in rates.items() if name.startswith(f"encoder.{part}.")}
        assert list(found) == [pytest.approx(1e-3 * share)], part
    assert {rate for name, rate in rates.items() if name.startswith("head")} == {1e-2}


def test_a_decay_of_one_asks_for_no_layers():
    assert layer_shares(Two(), 1.0) == {}
    with pytest.raises(ValueError, match="layer_decay: Two has no list of layers"):
        layer_shares(Two(), 0.9)


def test_warmup_in_steps():
    settings = OptimizerSettings(schedule="constant", warmup_fraction=0.0, warmup_steps=4)
    assert [lr_factor(step, 10, settings) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    with pytest.raises(ValueError, match="warmup_steps is 4, the training has 4 steps"):
        check_warmup(4, settings)
    check_warmup(5, settings)
    check_warmup(1, OptimizerSettings(warmup_fraction=0.9))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"warmup_steps": 300}, "warmup_steps is 300 and optimizer.warmup_fraction is 0.1; set one of them to 0"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; expected more than 0, at most 1"),
        ({"layer_decay": 1.1}, "layer_decay is 1.1"),
        ({"warmup_steps": -1, "warmup_fraction": 0.0}, "warmup_steps is -1; expected 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RunSettings("encoder", optimizer=OptimizerSettings(**settings))
