"""Losses that see a row's labels, or a batch's, together."""

import torch
from torch import nn

from foldblend.learners.losses.labelwise import RowLoss, power, refuse_soft_targets, smooth_targets

# ---------- Losses that see a row's labels, or a batch's, together.


class CrossEntropy(RowLoss):
    """-sum_l t_l w_l (1 - p_l)^gamma log p_l with p the softmax; gamma 0 is plain cross-entropy, else focal.

    Source: Lin et al. 2017, arXiv:1708.02002, its form over classes.
    """

    def __init__(self, label_weight: torch.Tensor, label_smoothing: float = 0.0, gamma: float = 0.0):
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("label_weight", label_weight, persistent=False)

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each row, (B,). Rows of `targets` sum to 1."""
        targets = smooth_targets(targets, self.label_smoothing, 1 / targets.shape[1])
        log_probs = logits.log_softmax(-1)
        return -(targets * self.label_weight * power(1 - log_probs.exp(), self.gamma) * log_probs).sum(1)


class ZlprLoss(RowLoss):
    """log(1 + sum over true labels of exp(-z)) + log(1 + sum over the others of exp(z)): the true ones go above 0.

    Source: Su et al. 2022, arXiv:2208.02955.
    """

    takes_soft_targets = False

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        true = targets > 0.5
        zero = logits.new_zeros(len(logits), 1)
        yes = torch.cat([(-logits).masked_fill(~true, -torch.inf), zero], 1).logsumexp(1)
        no = torch.cat([logits.masked_fill(true, -torch.inf), zero], 1).logsumexp(1)
        return yes + no


class SoftMacroF1Loss(nn.Module):
    """Rows of the batch x (1 - mean over labels of (2 tp + s) / (2 tp + fp + fn + s)), counts made of probabilities.

    F1 is no sum over rows: the loss depends on how rows are put into micro-batches, so on the number of devices.
    Smoothing s > 0 lets labels that a batch does not hold learn too.
    Source: Benedict et al. 2021, arXiv:2108.10566 (counts); Li et al. 2020, arXiv:1911.02855 (smoothing).
    """

    takes_soft_targets = False

    def __init__(self, smoothing: float):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """logits, targets: float32 (B, L). Raises ValueError for fractional targets, as `RowLoss` does."""
        if targets.device.type == "cpu":
            refuse_soft_targets(type(self).__name__, targets)
        probs = torch.sigmoid(logits)
        shared = 2 * (probs * targets).sum(0) + self.smoothing  # (L,)
        f1 = shared / (probs.sum(0) + targets.sum(0) + self.smoothing).clamp_min(torch.finfo(probs.dtype).tiny)
        return len(logits) * (1 - f1.mean())


# ---------- R-Drop: each text passes through dropout twice, and the two answers must agree.


def repeat_inputs(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor (B, ...) twice, one after the other, (2B, ...): one pass of the model draws two dropouts a text."""
    return {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}


def sum_r_drop(loss: nn.Module, logits: torch.Tensor, targets: torch.Tensor, alpha: float, task: str) -> torch.Tensor:
    """The mean of the two passes' losses, summed over rows; its gradient is that of it + alpha * their disagreement.

    The disagreement is left out of the value, which stays comparable with a run without it and with a blind answer's.

    Args:   logits: float32 (2B, L), of `repeat_inputs`.   targets: float32 (B, L).
    Source: Liang et al. 2021, arXiv:2106.14448, eq. 4, which adds up both passes' losses; their mean is taken here, so
            that agreeing answers have the plain loss, and an alpha weighs as twice as much does there.
    """
    first, second = logits.chunk(2)
    disagreement = sum_disagreement(first, second, task)
    return (loss(first, targets) + loss(second, targets)) / 2 + alpha * (disagreement - disagreement.detach())


def sum_disagreement(first: torch.Tensor, second: torch.Tensor, task: str) -> torch.Tensor:
    """The mean of KL(p, q) and KL(q, p), summed over rows: of the labels' distribution (multiclass), or of each
    label's own, averaged over labels (multilabel). logits, float32 (B, L).

    Both directions together are (p - q) * (log p - log q); of a coin, (p - q) times the difference of the logits.
    """
    if task == "multiclass":
        first, second = first.log_softmax(-1), second.log_softmax(-1)
        return ((first.exp() - second.exp()) * (first - second)).sum() / 2
    return ((first.sigmoid() - second.sigmoid()) * (first - second)).sum() / (2 * first.shape[1])
