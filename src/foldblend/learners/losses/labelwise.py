"""Distribution-balanced loss: for long tails of labels that come together."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foldblend.errors import UserError

# ---------- What all losses are: modules of logits (B, L) and targets (B, L), summed over rows, averaged over labels.


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
        raise UserError(
            f"{loss_name} needs targets of 0 and 1, found {float(soft[0]):.4g}; soft targets go with loss.name bce, "
            "focal, asymmetric or cross_entropy"
        )


def smooth_targets(targets: torch.Tensor, smoothing: float, towards: float) -> torch.Tensor:
    """Move targets by a share of `smoothing` to a constant. Source: Szegedy et al. 2016, arXiv:1512.00567."""
    return targets if smoothing == 0 else targets * (1 - smoothing) + smoothing * towards


def power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """base ** exponent for base >= 0, with a finite gradient at 0 whatever the exponent."""
    return torch.ones_like(base) if exponent == 0 else base.clamp_min(LEAST_BASE) ** exponent


# ---------- Losses that take each label as a yes/no question of its own.


class BinaryCrossEntropy(RowLoss):
    """-(w t log p + (1 - t) log(1 - p)); the weight w multiplies the positive term only."""

    def __init__(self, pos_weight: torch.Tensor, label_smoothing: float = 0.0):
        super().__init__()
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.label_smoothing = label_smoothing

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = smooth_targets(targets, self.label_smoothing, 0.5)
        weight = self.pos_weight.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none").mean(1)


class FocalLoss(RowLoss):
    """-(w t (1 - p)^gamma log p + (1 - t) p^gamma log(1 - p)): rows that are already right weigh little.

    `pos_weight` is the paper's alpha / (1 - alpha). Source: Lin et al. 2017, arXiv:1708.02002.
    """

    def __init__(self, gamma: float, pos_weight: torch.Tensor, label_smoothing: float = 0.0):
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("pos_weight", pos_weight, persistent=False)

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = smooth_targets(targets, self.label_smoothing, 0.5)
        yes = targets * self.pos_weight * power(torch.sigmoid(-logits), self.gamma) * F.logsigmoid(logits)
        no = (1 - targets) * power(torch.sigmoid(logits), self.gamma) * F.logsigmoid(-logits)
        return -(yes + no).mean(1)


class AsymmetricLoss(RowLoss):
    """-(t (1 - p)^gamma_positive log p + (1 - t) q^gamma_negative log(1 - q)) with q = max(p - shift, 0).

    Negatives below the shift count nothing. Source: Ridnik et al. 2021, arXiv:2009.14119.
    """

    def __init__(self, gamma_positive: float, gamma_negative: float, shift: float):
        super().__init__()
        self.gamma_positive, self.gamma_negative, self.shift = gamma_positive, gamma_negative, shift

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        p, not_p = torch.sigmoid(logits), torch.sigmoid(-logits)
        yes = targets * power(not_p, self.gamma_positive) * F.logsigmoid(logits)
        shifted = (p - self.shift).clamp_min(0)
        # without a shift log(1 - p) runs to -inf, so it is taken of the logit; with one it ends at log(shift)
        log_not_shifted = (not_p + self.shift).clamp_max(1).log() if self.shift else F.logsigmoid(-logits)
        no = (1 - targets) * power(shifted, self.gamma_negative) * log_not_shifted
        return -(yes + no).mean(1)


# ---------- Distribution-balanced loss: for long tails of labels that come together.


class DistributionBalancedLoss(RowLoss):
    """Re-balanced weights, and a negative side that stops pushing once a label is clearly denied.

    A row is drawn as often as its labels ask for: label i alone would have it 1 / n_i, all its labels together
    sum(1 / n_j); their ratio r, smoothed to alpha + sigmoid(beta (r - mu)), weighs the term of label i.
    Logits move by nu = kappa log((N - n) / n), and the negative term is log(1 + exp(lambda (z - nu))) / lambda.
    Source: Wu et al. 2020, arXiv:2007.09654, section 3 (without the focal term that its code adds).
    """

    takes_soft_targets = False

    def __init__(self, labels: np.ndarray, alpha: float, beta: float, mu: float, negative_scale: float, kappa: float):
        """labels: bool (n, L), the fold's training rows. A label that is never or always there counts half a row."""
        super().__init__()
        counts = np.clip(labels.sum(0), 0.5, len(labels) - 0.5)
        self.alpha, self.beta, self.mu, self.negative_scale = alpha, beta, mu, negative_scale
        shift = kappa * np.log(len(labels) / counts - 1)
        self.register_buffer("inverse_counts", torch.tensor(1 / counts, dtype=torch.float32), persistent=False)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32), persistent=False)

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        asked = (targets * self.inverse_counts).sum(1, keepdim=True)  # (B, 1); 0 for a row without labels
        ratio = self.inverse_counts / asked.clamp_min(torch.finfo(torch.float32).tiny)
        weight = self.alpha + torch.sigmoid(self.beta * (ratio - self.mu))
        moved = logits - self.shift
        yes = targets * F.softplus(-moved)
        no = (1 - targets) * F.softplus(self.negative_scale * moved) / self.negative_scale
        return (weight * (yes + no)).mean(1)
