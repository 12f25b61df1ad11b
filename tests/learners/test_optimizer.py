import pytest
import torch
from torch import nn

from learners.optimizer import build_optimizer, lr_factor, set_lr
from settings.run import OptimizerSettings


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
