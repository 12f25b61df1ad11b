import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foldblend.cores import count_cores
from foldblend.learners.processes.devices import choose_precision, describe_device

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


@pytest.mark.parametrize("model_type", ["deberta-v2", "gemma2", "gemma3", "gemma3_text"])
def test_architectures_that_overflow_fp16_are_kept_out_of_it(monkeypatch, model_type):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu, model_type) == "no" and choose_precision("auto", gpu, "qwen3") == "fp16"
    with pytest.raises(ValueError, match=f"fp16: {model_type} overflows"):
        choose_precision("fp16", gpu, model_type)


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_not_given_back():
    given_back = {}
    for how in ("keep", "give back"):
        env = {**os.environ, "PYTHONPATH": str(SRC)}
        command = [sys.executable, "-c", GIVEN_BACK, how]
        given_back[how] = float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert given_back["give back"] > 100 and given_back["keep"] < 20
