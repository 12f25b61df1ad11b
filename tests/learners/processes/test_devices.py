import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from foldblend.cores import count_cores
from foldblend.errors import UserError
from foldblend.learners.processes import devices
from foldblend.learners.processes.devices import (
    Agreement,
    choose_precision,
    describe_device,
    join_processes,
    warn_of_fp16,
)

CPU = torch.device("cpu")
SRC = Path(__file__).resolve().parents[3] / "src"


def test_precision_asked_for_is_given():
    assert choose_precision("fp32", CPU) == "no" and choose_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize("able, name", [(True, "bf16"), (False, "no")])
def test_auto_follows_the_processor(monkeypatch, able, name):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    assert choose_precision("auto", CPU) == name


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="fp16 does nothing on a CPU"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3", "gemma3_text"])
def test_architectures_that_overflow_fp16_are_kept_out_of_it(monkeypatch, model_type):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu, model_type) == "no" and choose_precision("auto", gpu, "qwen3") == "fp16"
    with pytest.raises(ValueError, match=f"fp16: {model_type} overflows"):
        choose_precision("fp16", gpu, model_type)


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2"])
def test_deberta_is_trained_in_fp16_only_if_asked_to_and_with_a_warning(monkeypatch, model_type):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu, model_type) == "no" and choose_precision("fp16", gpu, model_type) == "fp16"
    assert warn_of_fp16("fp16", model_type).startswith(f"{model_type} in fp16: some of its weights overflow it")
    assert not warn_of_fp16("bf16", model_type) and not warn_of_fp16("fp16", "roberta")


def test_the_device_says_how_many_and_how():
    assert describe_device(CPU, 2, "no").startswith("2 x ") and describe_device(CPU, 2, "no").endswith("cpu, fp32")


def test_cores_are_the_variable_or_what_there_is(monkeypatch):
    monkeypatch.setenv("FOLDBLEND_THREADS", "3")
    assert count_cores() == 3
    monkeypatch.delenv("FOLDBLEND_THREADS")
    assert 1 <= count_cores() <= os.cpu_count()
    for wrong in ("0", "two", "-1", ""):
        monkeypatch.setenv("FOLDBLEND_THREADS", wrong)
        with pytest.raises(ValueError, match="FOLDBLEND_THREADS"):
            count_cores()


GIVEN_BACK = """
import resource, sys, torch
from foldblend.learners.processes.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
parts = [torch.ones(30 << 18) for _ in range(4)]  # 30 MiB each
held = resident()
del parts
print(held - resident())
"""


def test_a_launch_with_deepspeed_is_refused_and_told_of_fsdp2(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match=r"^DeepSpeed is not supported: .*configs/accelerate/fsdp2.yaml"):
        join_processes()


class LateWork:
    """A reduction that is done only when somebody waits for it."""

    def __init__(self, tensor, others):
        self.tensor, self.others, self.waited = tensor, others, False

    def wait(self):
        self.tensor.copy_(torch.maximum(self.tensor, torch.tensor(self.others)))
        self.waited = True


def test_processes_agree_one_step_later_and_do_not_wait_for_the_step_of_now(monkeypatch):
    """What another process says at its second step is known at the third, on both."""
    works, others = [], iter([[0, 0], [15, 0], [15, 1], [15, 1]])

    def all_reduce(tensor, op, async_op=False):
        assert async_op and op == torch.distributed.ReduceOp.MAX
        works.append(LateWork(tensor, next(others)))
        return works[-1]

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    agreement = Agreement(SimpleNamespace(num_processes=2, device=torch.device("cpu")))
    known = []
    for own in ([0, 0], [0, 0], [2, 0], [2, 0]):
        known.append(agreement.exchange(*own))
        assert [work.waited for work in works] == [True] * (len(works) - 1) + [False]
    assert known == [[0, 0], [0, 0], [15, 0], [15, 1]]


def test_one_process_knows_at_once():
    agreement = Agreement(SimpleNamespace(num_processes=1, device=torch.device("cpu")))
    assert agreement.exchange(15, True) == [15, True]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_not_given_back():
    given_back = {}
    for how in ("keep", "give back"):
        env = {**os.environ, "PYTHONPATH": str(SRC)}
        command = [sys.executable, "-c", GIVEN_BACK, how]
        given_back[how] = float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert given_back["give back"] > 100 and given_back["keep"] < 20


@pytest.mark.parametrize("cuda, words", [(None, "a build for CPUs"), ("13.0", "does not run CUDA 13.0")])
def test_a_gpu_that_torch_cannot_use_is_no_silent_training_on_the_cpu(monkeypatch, cuda, words):
    monkeypatch.setattr(devices, "find_nvidia_devices", lambda: ["/dev/nvidia0"])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for chosen in (None, "0", "GPU-8932f937"):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        with pytest.raises(UserError, match=rf"cannot use the GPU .*nvidia0.*{words}.*CUDA_VISIBLE_DEVICES="):
            join_processes()


@pytest.mark.parametrize("name, value", [("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1"),
                                         ("ACCELERATE_USE_CPU", "true")])  # fmt: skip
def test_a_cpu_that_was_asked_for_is_used_beside_a_gpu(monkeypatch, name, value):
    monkeypatch.setattr(devices, "find_nvidia_devices", lambda: ["/dev/nvidia0"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(name, value)
    assert join_processes().device.type == "cpu"
