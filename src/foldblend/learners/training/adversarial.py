"""Adversarial training: gradients taken where the loss is higher. Weights move along their gradient and move back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.cpu.waiting_rows import sum_rows
from foldblend.settings.run import AdversarialSettings

TINY = 1e-6


class Adversary:
    """Moves weights for a second gradient of the same step.

    The move follows the gradient of the whole step, from all micro-batches and processes, so it is the same however the
    step was split. Only its direction counts, so the scale of an fp16 loss does not matter.
    """

    keeps_gradient: bool
    """Whether the second gradient is added to the first one; else it replaces it."""

    def __init__(self, model: nn.Module, settings: AdversarialSettings):
        self.model, self.settings = model, settings

    def acts_in(self, epoch: int) -> bool:
        """Whether there is an attack in `epoch`, counted from 0."""
        return epoch + 1 >= self.settings.start_epoch

    @contextmanager
    def attack(self) -> Iterator[None]:
        """Inside, the weights are moved along the gradients that the model holds; afterwards they are as before.

        Raises: UserError: no gradient reached the weights to move.
        """
        targets = [weight for weight in self.targets() if weight.grad is not None]
        if not targets:
            raise UserError(f"adversarial.name {self.settings.name}: no gradient reached the weights it would move")
        restores = [_keep(weight) for weight in targets]
        with torch.no_grad():
            for weight in targets:
                self.move(weight)
        if not self.keeps_gradient:
            self.model.zero_grad(set_to_none=True)
        try:
            yield
        finally:
            with torch.no_grad():
                for restore in restores:
                    restore()

    def targets(self) -> list[nn.Parameter]:
        """The weights that may be moved."""
        raise NotImplementedError

    def move(self, weight: nn.Parameter) -> None:
        """Move one weight, in place, along its gradient."""
        raise NotImplementedError


class FastGradientMethod(Adversary):
    """The word embeddings move by `epsilon` along their gradient; the attacked loss is added to the plain one.

    Source: Miyato et al. 2017, arXiv:1605.07725, eq. 5; on the table of embeddings rather than on each text's.
    """

    keeps_gradient = True

    def targets(self) -> list[nn.Parameter]:
        return [find_embeddings(self.model)]

    def move(self, weight: nn.Parameter) -> None:
        norm = (weight.grad._values() if weight.grad.is_sparse else weight.grad).norm()
        if torch.isfinite(norm) and norm > 0:  # an overflowed fp16 step is skipped by the loss scaler anyway
            weight.add_(weight.grad * (self.settings.epsilon / norm))


class WeightPerturbation(Adversary):
    """Every matrix moves by `awp_lr` of its own norm, no weight by more than `epsilon` of its size.

    Source: Wu et al. 2020, arXiv:2004.05884, eq. 8 to 10; the bound per weight as in Kaggle solutions.
    """

    keeps_gradient = False

    def targets(self) -> list[nn.Parameter]:
        return [weight for weight in self.model.parameters() if weight.requires_grad and weight.ndim >= 2]

    def move(self, weight: nn.Parameter) -> None:
        norm = weight.grad.norm()
        if torch.isfinite(norm) and norm > 0:
            moved = weight + weight.grad * (self.settings.awp_lr * (weight.norm() + TINY) / (norm + TINY))
            most = self.settings.epsilon * weight.abs()
            weight.copy_(torch.clamp(moved, weight - most, weight + most))


def _keep(weight: nn.Parameter) -> Callable[[], None]:
    """What puts `weight` back as it is now; of one with a sparse gradient, the rows that have one."""
    if weight.grad.is_sparse:
        weight.grad = sum_rows(weight.grad)
        rows = weight.grad.indices()[0]
        values = weight.detach()[rows]
        return lambda: weight.index_copy_(0, rows, values)
    whole = weight.detach().clone()
    return lambda: weight.copy_(whole)


ADVERSARIES = {"fgm": FastGradientMethod, "awp": WeightPerturbation}


def build_adversary(model: nn.Module, settings: AdversarialSettings) -> Adversary | None:
    """The adversary that the settings name; None for `none`."""
    return None if settings.name == "none" else ADVERSARIES[settings.name](model, settings)


def find_embeddings(model: nn.Module) -> nn.Parameter:
    """The table of word embeddings of the transformers model inside. Raises UserError: it is not trained."""
    for module in model.modules():
        if hasattr(module, "get_input_embeddings"):
            weight = module.get_input_embeddings().weight
            if weight.requires_grad:
                return weight
    raise UserError("adversarial.name fgm: this model trains no word embeddings; use awp or none")
