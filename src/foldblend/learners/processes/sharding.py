"""Tensors that FSDP2 or ZeRO-3 has spread over processes: whole ones for a file, shards of whole ones, one's own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from foldblend.learners.processes import zero3


def gather_whole(tensors: dict[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Copies on the CPU, shards put together; empty where not `keep`. Every process calls it with the same names."""
    whole = {}
    for name, tensor in tensors.items():
        tensor = as_part(own_part(tensor), tensor) if zero3.is_cut(tensor) else tensor
        value = tensor.full_tensor() if isinstance(tensor, DTensor | zero3.Cut) else tensor
        if keep:
            whole[name] = value.detach().to("cpu", copy=True).contiguous()
    return whole


def like(whole: torch.Tensor, reference: torch.Tensor) -> torch.Tensor | zero3.Cut:
    """`whole` cut and placed as `reference` is; every process holds the same `whole`."""
    if zero3.is_cut(reference):
        return zero3.cut(whole, reference)
    if not isinstance(reference, DTensor):
        return whole
    return distribute_tensor(whole.to(reference.device), reference.device_mesh, reference.placements)


def own_part(tensor: torch.Tensor | zero3.Cut) -> torch.Tensor:
    """What this process holds of it: to write into as well, where `publish` follows."""
    if isinstance(tensor, zero3.Cut):
        return tensor.part
    if zero3.is_cut(tensor):
        return zero3.own_part(tensor)
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_part(part: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor | zero3.Cut:
    """The tensor, cut as `parameter` is, of which this process holds `part`; `gather_whole` makes it whole."""
    if zero3.is_cut(parameter):
        return zero3.Cut(part, parameter)
    if not isinstance(parameter, DTensor):
        return part
    at = (parameter.device_mesh, parameter.placements)
    return DTensor.from_local(part, *at, run_check=False, shape=parameter.shape, stride=parameter.stride())


def publish(parameters: Iterable[torch.nn.Parameter]) -> None:
    """After trained parameters were written through `own_part`: let the model compute with them."""
    written = [parameter for parameter in parameters if zero3.is_cut(parameter)]
    if written:
        zero3.publish(written)


@contextmanager
def hold_back(accelerator, model: torch.nn.Module) -> Iterator[None]:
    """Inside, gradients are of a step that goes on: no exchange between processes, or, with ZeRO-3, no update yet."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        with accelerator.no_sync(model):
            yield
        return
    accelerator.sync_gradients = (
        False  # DeepSpeed's engine takes the optimiser's step in a backward pass where it is True
    )
    try:
        yield
    finally:
        accelerator.sync_gradients = True


def spreads(accelerator) -> bool:
    """Whether Accelerate will spread a model over the processes."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def gather_as_held(accelerator) -> None:
    """Let FSDP2 gather weights as they are held. Accelerate would have it gather them, and hand out what the model
    returns, in bf16, where heads compute in float32; `cast_by_autocast` casts the rest.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


def cast_by_autocast(model: torch.nn.Module, accelerator) -> None:
    """Under FSDP2 do to a prepared model what Accelerate does to all others: its forward runs under autocast."""
    if accelerator.distributed_type == DistributedType.FSDP:
        model.forward = accelerator.autocast()(model.forward)


def make_ready(model: torch.nn.Module, accelerator) -> None:
    """What comes before Accelerate's `prepare`; the optimiser is built by now, as weights may lose their shapes."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero3.cut_up(model, accelerator)
    else:
        _name_layers(model)


def _name_layers(model: torch.nn.Module) -> None:
    """Tell Accelerate which of the inner pretrained model's modules are gathered one at a time: its layers.

    Without it the whole model would be gathered at once.
    """
    for module in model.modules():
        layers = getattr(module, "_no_split_modules", None)
        if layers:
            model._no_split_modules = list(layers)
            return


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether any parameter is spread over the processes."""
    return any(isinstance(parameter, DTensor) or zero3.is_cut(parameter) for parameter in model.parameters())
