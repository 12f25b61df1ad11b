"""Distribution-balanced loss: for long tails of labels that come together."""

import numpy as np
import torch
import torch.nn.functional as F

from learners.losses.base import RowLoss


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
