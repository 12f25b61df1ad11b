"""Losses that take each label as a yes/no question of its own."""

import torch
import torch.nn.functional as F

from learners.losses.base import RowLoss, power, smooth_targets


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
