"""Losses on a device that is not the CPU: tensors without numbers, on torch's own `meta`; and a step as one graph.

Operations refuse to mix them with tensors of the CPU, as CUDA would, and nothing can be asked of their numbers: what
would make the host wait for a GPU is an error here.
"""

import numpy as np
import pytest
import torch
from torch.func import functional_call

from foldblend.learners.losses.base import masked
from foldblend.learners.losses.named import build_loss, sum_r_drop
from foldblend.learners.nets.classifier import build_model
from foldblend.settings.nets import LossSettings, ModelSettings
from foldblend.settings.tables import LOSSES

ELSEWHERE = torch.device("meta")
LABELS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]] * 4, bool)
NAMES = sorted(set(LOSSES) - {"auto"})
WHOLE = ("zlpr", "soft_macro_f1", "distribution_balanced")
"""Losses that need every label of a row."""
TINY = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [5, 6, 2, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
}


def put(tensor):
    """A tensor like this one, elsewhere."""
    placed = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=ELSEWHERE)
    return placed.requires_grad_(tensor.requires_grad)


def call(module, *args, **kwargs):
    """The module's answer and its parameters by name; these, its buffers and what it is given are elsewhere."""
    held = {name: put(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    args, kwargs = [put(each) for each in args], {name: put(each) for name, each in kwargs.items()}
    return functional_call(module, held, tuple(args), kwargs), held


def test_a_mix_of_devices_and_a_question_are_found_here():
    """What the tests below rely on."""
    with pytest.raises(RuntimeError, match="meta"):
        put(torch.zeros(3)) + torch.zeros(3)
    with pytest.raises(RuntimeError, match="meta"):
        put(torch.zeros(3)).sum().item()


@pytest.mark.parametrize("name, task", [(name, task) for name in NAMES for task in LOSSES[name].tasks])
def test_every_loss_stays_on_its_device(name, task):
    labels = LABELS if task == "multilabel" else np.eye(3, dtype=bool)[np.arange(16) % 3]
    power = 0.5 if "pos_weight_power" in LOSSES[name].reads else 0.0
    loss = build_loss(LossSettings(name=name, pos_weight_power=power), labels, task)
    given = torch.zeros(4, 3, requires_grad=True), torch.from_numpy(labels[:4].astype(np.float32))
    some_unknown = [masked(loss, name)] if task == "multilabel" and name not in WHOLE else []
    for module in (loss, *some_unknown):
        total, _ = call(module, *given)
        total.backward()
        assert total.device == ELSEWHERE and total.shape == ()


def test_r_drop_stays_on_its_device():
    loss = build_loss(LossSettings(name="bce"), LABELS, "multilabel").to(ELSEWHERE)
    logits = put(torch.zeros(4, 3, requires_grad=True))
    total = sum_r_drop(loss, logits, put(torch.zeros(2, 3)), 1.0, "multilabel")
    total.backward()
    assert total.device == ELSEWHERE


def test_a_step_of_one_shape_is_one_graph(tiny_encoder):
    """What a CUDA graph needs: nothing in a step that depends on the numbers, so that it is captured as a whole."""
    model = build_model(tiny_encoder("bert"), ModelSettings(str(tiny_encoder("bert"))), None, 3, seed=0).train()
    loss = build_loss(LossSettings(name="bce"), LABELS, "multilabel")
    targets = torch.from_numpy(LABELS[:2].astype(np.float32))

    def step(inputs, targets):
        return loss(model(**inputs), targets)

    torch.manual_seed(0)
    captured = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=False)(TINY, targets)
    torch.manual_seed(0)
    assert torch.allclose(captured, step(TINY, targets))
    captured.backward()
    assert model.head.weight.grad is not None
