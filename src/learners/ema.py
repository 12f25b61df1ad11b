"""A running mean of the trained weights: what is evaluated and predicted with, while training goes on without it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from learners.sharding import as_part, like, own_part, publish


class WeightAverage:
    """Exponential moving average of every parameter that is trained, kept in float32.

    Source: Polyak and Juditsky 1992; the warm-up of the decay as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.names, self.parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))
        self.averages = [part.float().clone() for part in self._parts()]

    def _parts(self) -> list[torch.Tensor]:
        """What this process holds of each parameter."""
        return [own_part(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 0; early steps keep less, (1 + t) / (10 + t).

        Example: decay 0.99 -> 0.1 of the start is kept at step 0, 0.5 at step 8, 0.99 from step 890 on.
        """
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [part.float() for part in self._parts()], 1 - kept)

    @torch.no_grad()
    def settle(self) -> None:
        """Put the averages into the model, for good."""
        self._write(self.averages)

    def _write(self, parts: list[torch.Tensor]) -> None:
        for own, part in zip(self._parts(), parts):
            own.copy_(part)
        publish(self.parameters)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model holds the averages inside, and exactly its own weights again afterwards."""
        own = [part.clone() for part in self._parts()]
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                self._write(own)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages as `ema.<name>`, for a checkpoint."""
        named = zip(self.names, self.averages, self.parameters)
        return {f"ema.{name}": as_part(average, parameter) for name, average, parameter in named}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """The reverse of `tensors`."""
        for name, average, parameter in zip(self.names, self.averages, self.parameters):
            average.copy_(own_part(like(tensors[f"ema.{name}"], parameter)))
