"""Losses that take each label as a yes/no question of its own.

In the formulas z is a logit, p = sigmoid(z), t the target; shapes are (B, L) unless a comment says otherwise.
"""

import numpy as np
import torch
import torch.nn.functional as F

from foldblend.learners.losses.base import RowLoss, power, smooth_targets


class BinaryCrossEntropy(RowLoss):
    """-(w t log p + (1 - t) log(1 - p)); the weight w multiplies the positive term only."""

    takes_soft_targets = True

    def __init__(self, pos_weight: torch.Tensor, label_smoothing: float = 0.0):
        """pos_weight: float32 (L,)."""
        super().__init__()
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.label_smoothing = label_smoothing

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = smooth_targets(targets, self.label_smoothing, 0.5)
        weight = self.pos_weight.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none").mean(1)


class FocalLoss(RowLoss):
    """-(w t (1 - p)^gamma log p + (1 - t) p^gamma log(1 - p)): labels that are already right weigh little.

    The weight w is the paper's alpha / (1 - alpha). Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """

    takes_soft_targets = True

    def __init__(self, gamma: float, pos_weight: torch.Tensor, label_smoothing: float = 0.0):
        """pos_weight: float32 (L,)."""
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("pos_weight", pos_weight, persistent=False)

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = smooth_targets(targets, self.label_smoothing, 0.5)
        # 1 - p is sigmoid(-z): exact where p is so near 1 that the difference would be 0
        yes = targets * self.pos_weight * power(torch.sigmoid(-logits), self.gamma) * F.logsigmoid(logits)
        no = (1 - targets) * power(torch.sigmoid(logits), self.gamma) * F.logsigmoid(-logits)
        return -(yes + no).mean(1)


class AsymmetricLoss(RowLoss):
    """-(t (1 - p)^gamma_positive log p + (1 - t) q^gamma_negative log(1 - q)) with q = max(p - shift, 0).

    A negative with p below the shift costs nothing. Source: Ridnik et al. 2021, arXiv:2009.14119.
    """

    takes_soft_targets = True

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


class DistributionBalancedLoss(RowLoss):
    """For long tails of labels that come together: re-balanced weights, and negatives that stop pushing early.

    Weights. Drawing rows so that every label comes equally often would draw a row with label i alone 1 / n_i times,
    and a row with several labels sum_j(1 / n_j) times. The ratio r of the two, smoothed to
    alpha + sigmoid(beta (r - mu)), weighs the term of label i.
    Negatives. Logits move by nu = kappa log((N - n) / n), and the negative term is log(1 + exp(lambda (z - nu))) /
    lambda, which is flat as soon as the label is clearly denied.
    Source: Wu et al. 2020, arXiv:2007.09654, section 3 (without the focal term that its code adds).
    """

    def __init__(self, labels: np.ndarray, alpha: float, beta: float, mu: float, negative_scale: float, kappa: float):
        """labels: bool (n, L), the fold's training rows.   negative_scale: lambda."""
        super().__init__()
        # a label that is never or always there counts half a row, so that no logarithm is infinite
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
