"""What the hardware of this process can do, how processes meet, and what they agree on while they train."""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob

import torch
from accelerate import DistributedType, PartialState
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from foldblend.cores import count_cores
from foldblend.errors import UserError

# 1. Meeting the other processes of a launch


def join_processes() -> PartialState:
    """Meet the other processes of the launch; without GPUs they meet on the CPU.

    Raises: UserError: the launcher started more processes than met (each would train alone and overwrite the others),
            it launched with DeepSpeed, or this machine has a GPU that torch cannot use.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise UserError(
            "DeepSpeed is not supported: this launch sets ACCELERATE_USE_DEEPSPEED=true. FSDP2 spreads a model over "
            "GPUs in the same way. Run: accelerate launch --config_file configs/accelerate/fsdp2.yaml src/train.py ..."
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    wants_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if not wants_cpu:
        check_gpus()
    state = PartialState(cpu=wants_cpu or (launched > 1 and not torch.cuda.is_available()))
    if state.num_processes != launched:
        raise UserError(
            f"Launched processes did not meet: {launched} were started, {state.num_processes} met. "
            "Set ACCELERATE_USE_CPU=true for processes on CPUs"
        )
    return state


def check_gpus() -> None:
    """Refuse to train on the CPU unasked where this process was given GPUs.

    Raises: UserError: the driver shows GPUs, CUDA_VISIBLE_DEVICES does not hide them, and torch cannot use any.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() in ("", "-1", "NoDevFiles")
    gpus = find_nvidia_devices()
    if hidden or not gpus or torch.cuda.is_available():
        return
    reason = (
        f"the driver does not run CUDA {torch.version.cuda}, or CUDA_VISIBLE_DEVICES names none of them; see nvidia-smi"
        if torch.version.cuda
        else "this torch is a build for CPUs. Install one for CUDA: pip install torch"
    )
    raise UserError(
        f"torch cannot use the GPU of this machine ({', '.join(gpus)}): {reason}. "
        "To train on the CPU, set CUDA_VISIBLE_DEVICES= (empty)"
    )


def find_nvidia_devices() -> list[str]:
    """Device files of the GPUs that this process may open; a container has only those that it was given."""
    return sorted(glob("/dev/nvidia[0-9]*"))


def find_device() -> torch.device:
    """The first GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_cores() -> None:
    """Give torch this process's share of the cores; a launcher's own default is one thread."""
    torch.set_num_threads(max(1, count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


# 2. Agreement of the processes


def agree(accelerator, *values: int) -> list[int]:
    """The largest of each value over the processes, now: waits for the device and for the slowest process."""
    if accelerator.num_processes == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.int64, device=accelerator.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest.tolist()


class Agreement:
    """Numbers that all processes act on at the same step, without a step that waits for the device.

    Each process hands over its numbers after every step and gets back the largest of each as of one step earlier. That
    is the same on all processes, and the device has computed it while the step in between was prepared. Reading the
    newest numbers instead would stop every process until its device has done all of its work.
    """

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.read_previous: Callable[[], list[int]] | None = None

    def exchange(self, *values: int) -> list[int]:
        """The largest of each value of the last call, zeros at the first; with one process, these values.

        Every process calls it equally often, with as many values.
        """
        if self.accelerator.num_processes == 1:
            return list(values)
        read, self.read_previous = self.read_previous, self._start(values)
        return read() if read is not None else [0] * len(values)

    def _start(self, values: tuple[int, ...]) -> Callable[[], list[int]]:
        """Begin to reduce the values. Returns what reads the result later."""
        largest = place({"values": torch.tensor(values, dtype=torch.int64)}, self.accelerator.device)["values"]
        work = torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, async_op=True)
        if largest.device.type != "cuda":

            def read() -> list[int]:
                work.wait()
                return largest.tolist()

            return read
        work.wait()  # NCCL: the device's queue waits, this process does not
        copy = torch.empty(len(values), dtype=torch.int64, pin_memory=True).copy_(largest, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def read_copy() -> list[int]:
            copied.synchronize()  # of the earlier step alone: what was queued since goes on
            return copy.tolist()

        return read_copy


# 3. Precision, seeds, memory and batches on a device

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3), in bytes."""

NOT_IN_FP16 = ("gemma2", "gemma3", "gemma3_text")
"""Architectures whose states overflow fp16: they were pretrained in bf16."""
RISKY_IN_FP16 = ("deberta", "deberta-v2")
"""DeBERTa (version 3 is deberta-v2, too) trains in fp16 with many weights and not with all: only if it is asked to.
Source: huggingface/transformers pull request 24116, which scales the keys before the product that overflowed."""


def choose_precision(wanted: str, device: torch.device, model_type: str = "") -> str:
    """Accelerate's name of the precision: bf16 if the hardware computes in it, else fp16 on CUDA, else none.

    Args: wanted: `auto`, `fp32`, `bf16` or `fp16`.   model_type: the architecture, as its config names it.
    Raises: UserError: fp16 on a CPU, which would silently compute in fp32, or for an architecture that overflows.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise UserError("training.precision fp16 does nothing on a CPU; use auto, bf16 or fp32")
    if wanted == "fp16" and model_type in NOT_IN_FP16:
        raise UserError(f"training.precision fp16: {model_type} overflows in it; use auto, bf16 or fp32")
    if wanted != "auto":
        return {"fp32": "no"}.get(wanted, wanted)
    if device.type == "cuda":
        without_bf16 = "no" if model_type in NOT_IN_FP16 + RISKY_IN_FP16 else "fp16"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else without_bf16
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "no"


def warn_of_fp16(precision: str, model_type: str) -> str:
    """A sentence on an architecture that may overflow in this precision; empty if there is nothing to say."""
    if precision != "fp16" or model_type not in RISKY_IN_FP16:
        return ""
    return (
        f"{model_type} in fp16: some of its weights overflow it, others train well and twice as fast as in fp32. Steps "
        "that overflow are skipped, and a training of nothing else is stopped; then set --training.precision fp32"
    )


def short_reason(error: BaseException) -> str:
    """What torch says first of a lack of memory; advice on its allocator and a list of processes follow it."""
    return ". ".join(str(error).splitlines()[0].split(". ")[:2])


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Of a GPU, of the driver before torch's allocator has begun, of CPUs; not every one is a torch.OutOfMemoryError."""


@contextmanager
def explained_memory() -> Iterator[None]:
    """A lack of memory inside ends as one message. Steps and predictions have tried smaller parts before."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise UserError(
            f"The memory of the device is full ({short_reason(error)}). Look with nvidia-smi for other processes on "
            "it; else set --adapter.quantization nf4 (decoders), --optimizer.state_precision 8bit or a smaller "
            "--model.max_length_tokens, or take a larger device. The same command goes on from the last save"
        ) from error


def place(inputs: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Copies of a batch on `device`. To a GPU they are made while it works; a plain copy would wait for its work."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in inputs.items()}
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in inputs.items()}


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed what is drawn on a device.

    On a CPU torch.manual_seed is passed by: without CUDA it records where it was called from, and that takes longer
    than everything else it does.
    """
    (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors: memory that was given back is zeroed again, page by page.

    Predictions on a CPU take a tenth less time, steps a little less. With another C library nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, 32 << 20)  # the most it takes
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def describe_device(device: torch.device, n_processes: int, precision: str) -> str:
    """`2 x NVIDIA H200, bf16`, for the record of a fold."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device.type}"
    return f"{n_processes} x {name}, {'fp32' if precision == 'no' else precision}"


# Models that FSDP2 has spread over processes: whole tensors for a file, shards of whole tensors, a process's part.
#
# All of it also takes plain tensors and models, so callers need not ask how a launch holds its model.


# 1. Tensors


def gather_whole(tensors: dict[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Copies on the CPU, with shards put together; empty unless `keep`. Every process calls it with the same names."""
    whole = {}
    for name, tensor in tensors.items():
        value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            whole[name] = value.detach().to("cpu", copy=True).contiguous()
    return whole


def like(whole: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`whole` sharded as `reference` is; every process holds the same `whole`."""
    if not isinstance(reference, DTensor):
        return whole
    return distribute_tensor(whole.to(reference.device), reference.device_mesh, reference.placements)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor, to read or to write into; a plain tensor is held whole."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_part(part: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """The tensor, sharded as `parameter` is, of which this process holds `part`; `gather_whole` makes it whole."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


# 2. Models


def spreads(accelerator) -> bool:
    """Whether Accelerate will spread a model over the processes."""
    return accelerator.distributed_type == DistributedType.FSDP


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter is spread over the processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def gather_as_held(accelerator) -> None:
    """Let FSDP2 gather weights in the precision that they are held in.

    By itself Accelerate would gather them, and return what the model returns, in bf16, but heads compute in float32.
    `prepare` runs everything else under autocast.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


def prepare(accelerator, model: nn.Module, optimizer: torch.optim.Optimizer):
    """Accelerate's model and optimizer, which compute on its device and with the other processes."""
    _name_layers(model)
    model, optimizer = accelerator.prepare(model, optimizer)
    if accelerator.distributed_type == DistributedType.FSDP:
        model.forward = accelerator.autocast()(model.forward)  # as Accelerate does in every other launch
    return model, optimizer


def _name_layers(model: nn.Module) -> None:
    """Tell Accelerate which modules of the pretrained model FSDP2 gathers one at a time: its layers.

    Without it the whole model would be gathered at once.
    """
    for module in model.modules():
        layers = getattr(module, "_no_split_modules", None)
        if layers:
            model._no_split_modules = list(layers)
            return
