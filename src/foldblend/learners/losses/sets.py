"""Losses that take all labels of a row, or of a batch, together.

In the formulas z is a logit, t the target; shapes are (B, L) unless a comment says otherwise.
"""

import numpy as np
import torch
from scipy.stats import binom
from torch import nn

from foldblend.learners.losses.base import RowLoss, power, refuse_soft_targets, smooth_targets


class CrossEntropy(RowLoss):
    """-sum_l t_l w_l (1 - p_l)^gamma log p_l with p the softmax; gamma 0 is plain cross-entropy, otherwise focal.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5, over classes.
    """

    takes_soft_targets = True

    def __init__(self, label_weight: torch.Tensor, label_smoothing: float = 0.0, gamma: float = 0.0):
        """label_weight: float32 (L,)."""
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("label_weight", label_weight, persistent=False)

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, (B,); rows of `targets` sum to 1."""
        targets = smooth_targets(targets, self.label_smoothing, 1 / targets.shape[1])
        log_probs = logits.log_softmax(-1)
        return -(targets * self.label_weight * power(1 - log_probs.exp(), self.gamma) * log_probs).sum(1)


class ZlprLoss(RowLoss):
    """log(1 + sum over true labels of exp(-z)) + log(1 + sum over the others of exp(z)): true labels go above 0.

    Source: Su et al. 2022, arXiv:2208.02955.
    """

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        true = targets > 0.5
        zero = logits.new_zeros(len(logits), 1)  # exp(0) is the 1 inside both logarithms
        yes = torch.cat([(-logits).masked_fill(~true, -torch.inf), zero], 1).logsumexp(1)
        no = torch.cat([logits.masked_fill(true, -torch.inf), zero], 1).logsumexp(1)
        return yes + no


class SoftMacroF1Loss(nn.Module):
    """Rows of the batch x (1 - mean over labels of (2 tp + s) / (2 tp + fp + fn + s)), counts made of probabilities.

    F1 is no sum over rows, so the loss depends on how rows are put into micro-batches and on the number of devices.
    Smoothing s > 0 lets a label learn from a batch that does not hold it.
    Source: Benedict et al. 2021, arXiv:2108.10566 (counts); Li et al. 2020, arXiv:1911.02855 (smoothing).
    """

    takes_soft_targets = False

    def __init__(self, smoothing: float):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """logits, targets: float32 (B, L). Raises UserError for fractional targets, as `RowLoss` does."""
        if targets.device.type == "cpu":
            refuse_soft_targets(type(self).__name__, targets)
        probs = torch.sigmoid(logits)
        shared = 2 * (probs * targets).sum(0) + self.smoothing  # (L,), 2 tp + s
        f1 = shared / (probs.sum(0) + targets.sum(0) + self.smoothing).clamp_min(torch.finfo(probs.dtype).tiny)
        return len(logits) * (1 - f1.mean())

    def best_constant(self, labels: np.ndarray, rows_in_batch: int) -> tuple[np.ndarray, float]:
        """As `base.best_constant`: over micro-batches of that many rows, positives in a batch being binomial."""
        refuse_soft_targets(type(self).__name__, torch.from_numpy(labels))
        k = np.arange(rows_in_batch + 1)  # positives in a batch
        p = np.linspace(0, 1, 1001)[1:, None]  # the constant probability, tried on a grid
        f1 = (2 * k * p + self.smoothing) / (rows_in_batch * p + k + self.smoothing)  # (1000, rows_in_batch + 1)
        chances = binom.pmf(k[:, None], rows_in_batch, labels.mean(0))  # (rows_in_batch + 1, L)
        expected = f1 @ chances  # (1000, L)
        best = np.clip(p[expected.argmax(0), 0], 1e-6, 1 - 1e-6)
        return np.log(best / (1 - best)).astype(np.float32), float(1 - expected.max(0).mean())
