"""What the hardware of this process can do, and how it is shared."""

import ctypes
import os
import platform

import torch
from accelerate import PartialState
from accelerate.utils import is_deepspeed_available

from foldblend.cores import count_cores
from foldblend.errors import UserError


def join_processes() -> PartialState:
    """Meet the other processes of the launch; without GPUs they meet on the CPU.

    Raises: ValueError: the launcher started more processes than met (each would train alone and overwrite the others),
            or asks for DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        _check_deepspeed()
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    wants_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    state = PartialState(cpu=wants_cpu or (launched > 1 and not torch.cuda.is_available()))
    if state.num_processes != launched:
        raise UserError(f"{launched} processes were launched, {state.num_processes} met; set ACCELERATE_USE_CPU=true")
    return state


def _check_deepspeed() -> None:
    if not is_deepspeed_available():
        raise UserError("launched with DeepSpeed, which is not installed. Run: pip install deepspeed")
    if not torch.cuda.is_available():
        raise UserError(
            "launched with DeepSpeed without a GPU; Accelerate has it on GPUs alone. Use "
            "configs/accelerate/ddp.yaml with ACCELERATE_USE_CPU=true"
        )


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3), in bytes."""

NOT_IN_FP16 = ("deberta", "deberta-v2", "gemma2", "gemma3", "gemma3_text")
"""Architectures whose states overflow fp16. DeBERTa-v3 calls itself deberta-v2; Gemmas were pretrained in bf16."""


def choose_precision(wanted: str, device: torch.device, model_type: str = "") -> str:
    """Accelerate's name of the precision: bf16 where the hardware computes in it, else fp16 on CUDA, else none.

    Args: wanted: `auto`, `fp32`, `bf16` or `fp16`.   model_type: the architecture, as its config names it.
    Raises: ValueError: fp16 asked of a CPU, where it would silently be fp32, or of an architecture that overflows.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise UserError("training.precision fp16 does nothing on a CPU; use auto, bf16 or fp32")
    if wanted == "fp16" and model_type in NOT_IN_FP16:
        raise UserError(f"training.precision fp16: {model_type} overflows in it; use auto, bf16 or fp32")
    if wanted != "auto":
        return {"fp32": "no"}.get(wanted, wanted)
    if device.type == "cuda":
        without_bf16 = "no" if model_type in NOT_IN_FP16 else "fp16"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else without_bf16
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "no"


def place(inputs: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Copies of a batch on `device`. To a GPU they are made beside its work; a plain copy would wait for its end."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in inputs.items()}
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in inputs.items()}


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed what is drawn on a device. On a CPU past torch.manual_seed, which without CUDA records where it was called
    from, and that takes longer than all else that it does."""
    (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)


def agree(accelerator, *values: int) -> list[int]:
    """The largest of each value over the processes: what one of them knows, all of them act on at the same step."""
    if accelerator.num_processes == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.int64, device=accelerator.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest.tolist()


def use_cores() -> None:
    """Give torch this process's share of the cores; a launcher's own default is one thread."""
    torch.set_num_threads(max(1, count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def keep_freed_memory() -> None:
    """Let glibc keep what tensors on a CPU leave behind: given back to the system it comes back page by page, zeroed.

    Predictions take a tenth less time so, steps a little. With another C library nothing is changed.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, 32 << 20)  # the most it takes
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def describe_device(device: torch.device, n_processes: int, precision: str) -> str:
    """`2 x NVIDIA H200, bf16`, for the record of a fold."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device.type}"
    return f"{n_processes} x {name}, {'fp32' if precision == 'no' else precision}"
