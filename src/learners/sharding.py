"""Tensors that FSDP2 has spread over the processes: whole ones for a file, shards out of whole ones, one's own part."""

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def gather_whole(tensors: dict[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Copies on the CPU, shards put together; empty where not `keep`. Every process calls it with the same names."""
    whole = {}
    for name, tensor in tensors.items():
        value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            whole[name] = value.detach().to("cpu", copy=True).contiguous()
    return whole


def like(whole: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`whole` cut and placed as `reference` is; every process holds the same `whole`."""
    if not isinstance(reference, DTensor):
        return whole
    return distribute_tensor(whole.to(reference.device), reference.device_mesh, reference.placements)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of it."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def name_layers(model: torch.nn.Module) -> None:
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
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
