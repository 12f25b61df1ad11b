"""How weights are moved: AdamW, its schedule, and steps taken against an adversary."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule."""

    lr: float = 5e-5
    """Peak learning rate of the encoder."""
    head_lr: float = 5e-4
    """Peak learning rate of the fresh head."""
    layer_decay: float = 1.0
    """Each layer learns at this share of the rate of the layer above it, the embeddings slowest; 1 is off."""
    weight_decay: float = 0.01
    """On matrices; biases and norms have none."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.999
    """AdamW's second moment."""
    eps: float = 1e-8
    """AdamW's denominator."""
    moments: Literal["float32", "8bit"] = "float32"
    """How AdamW keeps its two moments: `8bit` takes a quarter of their memory (bitsandbytes; not under FSDP2 or ZeRO-3,
    embeddings stay in float32), for models whose 12 bytes a trained weight would not fit."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 is off."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after the warm-up."""
    warmup_fraction: float = 0.1
    """Share of all optimiser steps in which the rate climbs from 0."""
    warmup_steps: int = 0
    """The same as a number of steps; 0 leaves it to warmup_fraction, which must be 0 where this is not."""
    embedding_rows: Literal["auto", "all", "touched"] = "auto"
    """`touched`: a word's embedding is moved when a text next reads it, by what all steps since would have moved it:
    the same result in less time. `auto`: so on one CPU process where the table is a large part of the model."""


@dataclass(frozen=True)
class AdversarialSettings:
    """Each step is taken again where the loss is worse: on weights moved a little along its gradient."""

    name: Literal["none", "fgm", "awp"] = "none"
    """`fgm` moves the word embeddings and adds that gradient; `awp` moves every matrix and uses that gradient alone."""
    epsilon: float = 0.0
    """fgm: length of the move, 1.0 is usual.   awp: no weight leaves this share of its size, 0.01 is usual."""
    awp_lr: float = 0.0
    """awp: length of the move as a share of the matrix's own norm; 0.0001 to 1.0 is usual."""
    start_epoch: int = 1
    """The first epoch, counted from 1, with an adversary."""


def optimizer_conflicts(optimizer: OptimizerSettings) -> Iterator[str]:
    """Every value that cannot work, as sentences."""
    for name in ("lr", "head_lr", "eps"):
        if not getattr(optimizer, name) > 0:
            yield f"optimizer.{name} is {getattr(optimizer, name)}; expected more than 0"
    for name in ("weight_decay", "max_grad_norm", "warmup_steps"):
        if not getattr(optimizer, name) >= 0:
            yield f"optimizer.{name} is {getattr(optimizer, name)}; expected 0 or more"
    for name in ("beta1", "beta2", "warmup_fraction"):
        if not 0 <= getattr(optimizer, name) < 1:
            yield f"optimizer.{name} is {getattr(optimizer, name)}; expected 0 up to, but not, 1"
    if not 0 < optimizer.layer_decay <= 1:
        yield f"optimizer.layer_decay is {optimizer.layer_decay}; expected more than 0, at most 1"
    if optimizer.moments == "8bit" and optimizer.embedding_rows == "touched":
        yield "optimizer.embedding_rows touched keeps moments of its own; with optimizer.moments 8bit use auto or all"
    if optimizer.warmup_steps and optimizer.warmup_fraction:
        yield (
            f"optimizer.warmup_steps is {optimizer.warmup_steps} and optimizer.warmup_fraction is "
            f"{optimizer.warmup_fraction}; set one of them to 0"
        )


def adversarial_conflicts(adversarial: AdversarialSettings, epochs: int) -> Iterator[str]:
    """Every value that cannot work or that the chosen adversary does not read, as sentences."""
    read = {"none": (), "fgm": ("epsilon",), "awp": ("epsilon", "awp_lr")}[adversarial.name]
    for name in ("epsilon", "awp_lr"):
        value = getattr(adversarial, name)
        if name in read and not value > 0:
            yield f"adversarial.{name} is {value}; {adversarial.name} expects more than 0"
        if name not in read and value:
            yield f"adversarial.{name} is set, but adversarial.name is {adversarial.name}, which does not read it"
    if adversarial.name == "none" and adversarial.start_epoch != 1:
        yield "adversarial.start_epoch is set, but adversarial.name is none, which does not read it"
    if not 1 <= adversarial.start_epoch <= epochs:
        yield f"adversarial.start_epoch is {adversarial.start_epoch}; expected 1 to training.epochs, {epochs}"
