"""Models that FSDP2 has spread over processes: whole tensors for a file, shards of whole tensors, a process's part.

All of it also takes plain tensors and models, so callers need not ask how a launch holds its model.
"""

import torch
from accelerate import DistributedType
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

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
