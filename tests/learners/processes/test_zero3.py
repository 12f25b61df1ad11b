"""What ZeRO-3 needs no DeepSpeed for; two processes train with it in test_sharding.py."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldblend.learners.processes import devices, zero3
from foldblend.learners.processes.devices import join_processes
from foldblend.learners.processes.sharding import gather_whole, like, own_part
from foldblend.settings.run import AdapterSettings, AdversarialSettings, OptimizerSettings, RunSettings


def cut_parameter(whole, n_processes, requires_grad=False):
    """What DeepSpeed makes of a weight: on every process a stretch of equal length, the last one's end is padding."""
    n_each = -(-whole.numel() // n_processes)
    parameter = torch.nn.Parameter(torch.empty(0), requires_grad=requires_grad)
    parameter.ds_id, parameter.ds_shape, parameter.ds_numel = 0, whole.shape, whole.numel()
    parameter.ds_tensor, parameter.ds_process_group = torch.full((n_each,), torch.nan), None
    return parameter


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), n_processes=st.integers(1, 9))
def test_stretches_make_up_the_whole(shape, n_processes):
    """Also where some processes hold nothing but padding."""
    whole = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
    parameter, parts = cut_parameter(whole, n_processes), []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(n_processes):
            patch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
            part = own_part(like(whole, parameter))
            assert own_part(parameter).shape == part.shape
            parts.append(part)

        def all_gather(gathered, mine, group):
            padded = [torch.cat([part, torch.full((len(mine) - len(part),), -1.0)]) for part in parts]
            assert torch.equal(mine[: len(part)], part) and not mine[len(part) :].any()
            gathered.copy_(torch.cat(padded))

        patch.setattr(torch.distributed, "get_world_size", lambda group: n_processes)
        patch.setattr(torch.distributed, "all_gather_into_tensor", all_gather)
        kept = gather_whole({"w": like(whole, parameter)}, keep=True)
        assert torch.equal(kept["w"], whole) and not gather_whole({"w": like(whole, parameter)}, keep=False)


def test_a_tensor_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"do not fit the model: \(2, 3\) for \(3, 2\)"):
        zero3.cut(torch.zeros(2, 3), cut_parameter(torch.zeros(3, 2), 2))


def plugin(stage=3, **offload):
    return SimpleNamespace(zero_stage=stage, get_value=lambda key, default: offload.get(key.split(".")[1], default))


RUN = RunSettings("encoder", optimizer=OptimizerSettings())


def test_a_plain_run_is_taken():
    for precision in ("bf16", "no"):
        zero3.check_fit(RUN, plugin(), precision)


@pytest.mark.parametrize(
    "run, of, precision, message",
    [
        (RUN, plugin(stage=2), "no", "expected ZeRO stage 3 without offloading"),
        (RUN, plugin(offload_optimizer="cpu"), "no", "expected ZeRO stage 3 without offloading"),
        (RUN, plugin(offload_param="nvme"), "no", "expected ZeRO stage 3 without offloading"),
        (RUN, plugin(), "fp16", "set training.precision to fp32 or bf16"),
        (
            replace(RUN, adversarial=AdversarialSettings("awp", epsilon=1e-3, awp_lr=1e-2)),
            plugin(),
            "no",
            "set adversarial.name none",
        ),
        (
            RunSettings("decoder", adapter=AdapterSettings(quantization="nf4")),
            plugin(),
            "no",
            "set adapter.quantization none",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(run, of, precision, message):
    with pytest.raises(ValueError, match=message):
        zero3.check_fit(run, of, precision)


@pytest.mark.parametrize("installed, message", [(False, "Run: pip install deepspeed"), (True, "without a GPU")])
def test_a_launch_that_cannot_be_is_refused_before_anything_is_loaded(monkeypatch, installed, message):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(devices, "is_deepspeed_available", lambda: installed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        join_processes()
