"""What all losses are: modules of logits (B, L) and targets (B, L), summed over rows, averaged over labels."""

import torch
from torch import nn

LEAST_BASE = 1e-12
"""Powers of probabilities are taken of at least this: 0 ** a fraction has no finite gradient."""


class RowLoss(nn.Module):
    """A loss that is a sum over rows; a subclass says the loss of each row."""

    takes_soft_targets = True
    """Targets may be fractions; the loss is then linear in them: the mean over labels drawn with these chances."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over rows. logits, targets: float32 (B, L), targets in [0, 1].

        Raises: ValueError: fractional targets where the loss knows only 0 and 1 (seen on CPU tensors alone, as
                looking would hold up a GPU; `best_constant` looks at a whole fold).
        """
        if not self.takes_soft_targets and targets.device.type == "cpu":
            refuse_soft_targets(type(self).__name__, targets)
        return self.of_rows(logits, targets).sum()

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each row, (B,), averaged over its labels."""
        raise NotImplementedError


def refuse_soft_targets(loss_name: str, targets: torch.Tensor) -> None:
    """Raise ValueError where a target is neither 0 nor 1."""
    soft = targets[(targets != 0) & (targets != 1)]
    if len(soft):
        raise ValueError(
            f"{loss_name} needs targets of 0 and 1, found {float(soft[0]):.4g}; soft targets go with loss.name bce, "
            "focal, asymmetric or cross_entropy"
        )


def smooth_targets(targets: torch.Tensor, smoothing: float, towards: float) -> torch.Tensor:
    """Move targets by a share of `smoothing` to a constant. Source: Szegedy et al. 2016, arXiv:1512.00567."""
    return targets if smoothing == 0 else targets * (1 - smoothing) + smoothing * towards


def power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """base ** exponent for base >= 0, with a finite gradient at 0 whatever the exponent."""
    return torch.ones_like(base) if exponent == 0 else base.clamp_min(LEAST_BASE) ** exponent
