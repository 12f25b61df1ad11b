"""A running mean of the trained weights: what is evaluated and predicted with, while training goes on without it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from learners.sharding import like


class WeightAverage:
    """Exponential moving average of every parameter that is trained, kept in float32.

    Source: Polyak and Juditsky 1992; the warm-up of the decay as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.names, self.parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))
        self.averages = [parameter.detach().float().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 0; early steps keep less, (1 + t) / (10 + t).

        Example: decay 0.99 -> 0.1 of the start is kept at step 0, 0.5 at step 8, 0.99 from step 890 on.
        """
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [parameter.float() for parameter in self.parameters], 1 - kept)

    @torch.no_grad()
    def settle(self) -> None:
        """Put the averages into the model, for good."""
        for parameter, average in zip(self.parameters, self.averages):
            parameter.copy_(average)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model holds the averages inside, and exactly its own weights again afterwards."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weights in zip(self.parameters, own):
                    parameter.copy_(weights)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages as `ema.<name>`, for a checkpoint."""
        return {f"ema.{name}": average for name, average in zip(self.names, self.averages)}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """The reverse of `tensors`."""
        for name, average in zip(self.names, self.averages):
            average.copy_(like(tensors[f"ema.{name}"], average))
