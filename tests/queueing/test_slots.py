import os

import psutil
import pytest

from foldblend.queueing.machines import BYTES_PER_PROCESS, Slot, describe_slots, find_gpus, plan_slots

TWO = "GPU 0: NVIDIA H200 (UUID: GPU-aa)\nGPU 1: NVIDIA H200 (UUID: GPU-bb)\n"
DIVIDED = TWO.splitlines()[0] + "\n  MIG 1g.18gb Device 0: (UUID: MIG-cc)\n  MIG 1g.18gb Device 1: (UUID: MIG-dd)\n"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the PATH that answers with a given text and status."""

    def put(text, status=0):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && cat <<'END'\n{text}END\nexit {status}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


@pytest.mark.parametrize(
    "listed, chosen, found",
    [
        (TWO, None, {"GPU-aa": "0", "GPU-bb": "1"}),
        (TWO, "1", {"1": "1"}),
        (TWO, "GPU-bb, GPU-aa", {"GPU-bb": "1", "GPU-aa": "0"}),
        (TWO, "", {}),
        (TWO, "-1", {}),
        (TWO, "0,-1,1", {"0": "0"}),
        (DIVIDED, None, {"MIG-cc": "0.0", "MIG-dd": "0.1"}),
        (DIVIDED + TWO.splitlines()[1] + "\n", None, {"MIG-cc": "0.0", "MIG-dd": "0.1", "GPU-bb": "1"}),
        ("", "0", {}),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists_and_the_environment_allows(
    nvidia_smi, monkeypatch, listed, chosen, found
):
    nvidia_smi(listed)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert find_gpus() == found


def test_a_broken_or_absent_driver_is_no_gpu(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(TWO, status=9)
    assert find_gpus() == {}
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_gpus() == {}


def test_slots_beside_gpus():
    nets, words = [True] * 5, [False] * 2
    two = {"0": "0", "1": "1"}
    assert plan_slots(nets, two, 0, 8) == [Slot("0"), Slot("1")]
    assert plan_slots(nets + words, two, 2, 8) == [Slot("0"), Slot("1"), Slot("0"), Slot("1"), Slot("")]
    assert plan_slots([True], two, 3, 8) == [Slot("0")]
    assert plan_slots(words, two, 2, 8) == [Slot(""), Slot("")]


def test_slots_of_a_cpu_are_bounded_by_cores_memory_and_jobs(monkeypatch):
    memory = type("Memory", (), {"available": 5 * BYTES_PER_PROCESS + 1})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr("sys.platform", "linux")
    assert plan_slots([True] * 9, {}, 0, 4) == [Slot(None)] * 4
    assert plan_slots([True] * 9, {}, 0, 64) == [Slot(None)] * 5
    assert plan_slots([True, False], {}, 0, 64) == [Slot(None)] * 2
    assert plan_slots([True] * 9, {}, 8, 2) == [Slot(None)] * 8
    memory.available = 1
    assert plan_slots([True] * 9, {}, 0, 4) == [Slot(None)]


def test_a_gpu_is_shown_by_its_number_and_named_by_its_uuid():
    slots = plan_slots([True] * 3, {"GPU-aa": "0", "GPU-bb": "1"}, 0, 8)
    assert [(slot.gpu, slot.shown) for slot in slots] == [("GPU-aa", "GPU 0"), ("GPU-bb", "GPU 1")]
    assert describe_slots(slots, 4) == "2 trainings side by side on GPU 0, 1, threads per training: 4"
    assert Slot("").shown == Slot(None).shown == "" and Slot("MIG-cc").shown == "GPU MIG-cc"


def test_a_job_without_use_for_a_gpu_keeps_off_it_and_the_others_keep_to_it():
    assert [Slot(gpu).takes(True) for gpu in ("0", "", None)] == [True, False, True]
    assert [Slot(gpu).takes(False) for gpu in ("0", "", None)] == [False, True, True]
