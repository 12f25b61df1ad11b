"""AdamW with its parameter groups, and the learning rate as a pure function of the step."""

import math

import torch
from torch import nn

from settings.run import OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Four groups: encoder and head, each with and without weight decay. `peak_lr` is kept in each group."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            peak_lr = settings.head_lr if name.startswith("head.") else settings.lr
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((peak_lr, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": lr, "peak_lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()],
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def lr_factor(step: int, n_steps: int, settings: OptimizerSettings) -> float:
    """Share of the peak rate at optimiser step `step`, counted from 0.

    Example: linear, n_steps=10, warmup_fraction=0.2 -> 0.5, 1.0, 1.0, 0.875, ..., 0.125
    """
    n_warmup = math.ceil(settings.warmup_fraction * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[settings.schedule]


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
