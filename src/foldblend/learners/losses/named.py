"""The losses that a run can name: per label, over a row's labels or a batch's together, R-Drop, and who builds them.

In the formulas z is a logit, p = sigmoid(z), t the target; shapes are (B, L) unless a comment says otherwise.
"""

from importlib import import_module

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.losses.base import CellLoss, RowLoss, power, refuse_soft_targets, smooth_targets
from foldblend.settings.nets import LossSettings
from foldblend.settings.tables import LOSSES


class BinaryCrossEntropy(CellLoss):
    """-(w t log p + (1 - t) log(1 - p)); the weight w multiplies the positive term only."""

    takes_soft_targets = True

    def __init__(self, pos_weight: torch.Tensor, label_smoothing: float = 0.0):
        """pos_weight: float32 (L,)."""
        super().__init__()
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.label_smoothing = label_smoothing

    def of_cells(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = smooth_targets(targets, self.label_smoothing, 0.5)
        # logits may be bfloat16 under autocast, or float64 in a check
        weight = self.pos_weight.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")


class FocalLoss(CellLoss):
    """-(w t (1 - p)^gamma log p + (1 - t) p^gamma log(1 - p)): labels that are already right weigh little.

    The weight w is the paper's alpha / (1 - alpha). Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """

    takes_soft_targets = True

    def __init__(self, gamma: float, pos_weight: torch.Tensor, label_smoothing: float = 0.0):
        """pos_weight: float32 (L,)."""
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("pos_weight", pos_weight, persistent=False)

    def of_cells(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = smooth_targets(targets, self.label_smoothing, 0.5)
        # 1 - p is sigmoid(-z): exact where p is so near 1 that the difference would be 0
        yes = targets * self.pos_weight * power(torch.sigmoid(-logits), self.gamma) * F.logsigmoid(logits)
        no = (1 - targets) * power(torch.sigmoid(logits), self.gamma) * F.logsigmoid(-logits)
        return -(yes + no)


class AsymmetricLoss(CellLoss):
    """-(t (1 - p)^gamma_positive log p + (1 - t) q^gamma_negative log(1 - q)) with q = max(p - shift, 0).

    A negative with p below the shift costs nothing. Source: Ridnik et al. 2021, arXiv:2009.14119.
    """

    takes_soft_targets = True

    def __init__(self, gamma_positive: float, gamma_negative: float, shift: float):
        super().__init__()
        self.gamma_positive, self.gamma_negative, self.shift = gamma_positive, gamma_negative, shift

    def of_cells(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        p, not_p = torch.sigmoid(logits), torch.sigmoid(-logits)
        yes = targets * power(not_p, self.gamma_positive) * F.logsigmoid(logits)
        shifted = (p - self.shift).clamp_min(0)
        # without a shift log(1 - p) runs to -inf, so it is taken of the logit; with one it ends at log(shift)
        log_not_shifted = (not_p + self.shift).clamp_max(1).log() if self.shift else F.logsigmoid(-logits)
        no = (1 - targets) * power(shifted, self.gamma_negative) * log_not_shifted
        return -(yes + no)


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
        # tiny instead of 0: the ratio becomes large, and the sigmoid below turns it into 1
        ratio = self.inverse_counts / asked.clamp_min(torch.finfo(torch.float32).tiny)
        weight = self.alpha + torch.sigmoid(self.beta * (ratio - self.mu))
        moved = logits - self.shift
        yes = targets * F.softplus(-moved)
        # softplus(z) is log(1 + exp(z)) without overflow
        no = (1 - targets) * F.softplus(self.negative_scale * moved) / self.negative_scale
        return (weight * (yes + no)).mean(1)


# Losses that take all labels of a row, or of a batch, together.
#
# In the formulas z is a logit, t the target; shapes are (B, L) unless a comment says otherwise.


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
        # logsumexp over a row without any true label is 0 by the column of zeros, not -inf
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
        # as a sum over rows, because the step divides by its rows
        return len(logits) * (1 - f1.mean())

    def best_constant(self, labels: np.ndarray, rows_in_batch: int) -> tuple[np.ndarray, float]:
        """As `base.best_constant`: over micro-batches of that many rows, positives in a batch being binomial."""
        # here, as the import takes as long as half of torch's and only this loss needs it
        from scipy.stats import binom

        refuse_soft_targets(type(self).__name__, torch.from_numpy(labels))
        k = np.arange(rows_in_batch + 1)  # positives in a batch
        p = np.linspace(0, 1, 1001)[1:, None]  # the constant probability, tried on a grid
        f1 = (2 * k * p + self.smoothing) / (rows_in_batch * p + k + self.smoothing)  # (1000, rows_in_batch + 1)
        chances = binom.pmf(k[:, None], rows_in_batch, labels.mean(0))  # (rows_in_batch + 1, L)
        expected = f1 @ chances  # (1000, L)
        best = np.clip(p[expected.argmax(0), 0], 1e-6, 1 - 1e-6)
        return np.log(best / (1 - best)).astype(np.float32), float(1 - expected.max(0).mean())


# R-Drop: each text passes through dropout twice, and the two answers must agree.
#
# Source: Liang et al. 2021, arXiv:2106.14448.


def repeat_inputs(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Repeat each tensor (B, ...) to (2B, ...), so that one pass of the model draws two dropout masks per text."""
    return {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}


def sum_r_drop(loss: nn.Module, logits: torch.Tensor, targets: torch.Tensor, alpha: float, task: str) -> torch.Tensor:
    """Return the mean of the two passes' losses, summed over rows, with the gradient of that + alpha * disagreement.

    The disagreement is left out of the value, so the value stays comparable with a run without R-Drop and with the
    best constant answer.

    Args:   logits: float32 (2B, L), of `repeat_inputs`.   targets: float32 (B, L).   task: as in `sum_disagreement`.
    Source: equation 4, which adds up both passes' losses. Here their mean is taken, so that two equal answers have the
            plain loss; so the same alpha weighs twice as much as in the paper.
    """
    first, second = logits.chunk(2)  # (B, L) each
    disagreement = sum_disagreement(first, second, task)
    mean_loss = (loss(first, targets) + loss(second, targets)) / 2
    return mean_loss + alpha * (disagreement - disagreement.detach())  # adds 0, but has a gradient


def sum_disagreement(first: torch.Tensor, second: torch.Tensor, task: str) -> torch.Tensor:
    """Sum over rows the mean of KL(p, q) and KL(q, p), p and q being what two passes answer.

    The two directions add up to sum((p - q) * (log p - log q)). For a yes/no label with probabilities p and q that is
    (p - q) * (logit p - logit q).

    Args: first, second: logits, float32 (B, L).
          task: `multiclass`: of the distribution over labels; `multilabel`: of each label's own, averaged over labels.
    """
    if task == "multiclass":
        first, second = first.log_softmax(-1), second.log_softmax(-1)
        return ((first.exp() - second.exp()) * (first - second)).sum() / 2
    return ((first.sigmoid() - second.sigmoid()) * (first - second)).sum() / (2 * first.shape[1])


# From the name in `loss.name` to the loss of one fold's training rows.
#
# A new loss is a class, a builder and one line in settings/tables.py (losses/base.py says what a loss must offer):
#
#     class HingeLoss(RowLoss):                     # sums over rows; fractions as targets are refused
#         def of_rows(self, logits, targets):       # both (B, L)
#             return (1 - (2 * targets - 1) * logits).clamp_min(0).mean(1)  # (B,)
#
#     def build_hinge(settings, labels, task):      # the run's LossSettings; bool (n, L); "multilabel" or "multiclass"
#         return HingeLoss()
#
# The labels of a builder are the fold's training rows, and nothing of other rows.


def build_bce(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return BinaryCrossEntropy(build_pos_weight(labels, settings), settings.label_smoothing)


def build_cross_entropy(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return CrossEntropy(build_pos_weight(labels, settings), settings.label_smoothing)


def build_focal(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    weight = build_pos_weight(labels, settings)
    if task == "multiclass":
        return CrossEntropy(weight, settings.label_smoothing, settings.focal_gamma)
    return FocalLoss(settings.focal_gamma, weight, settings.label_smoothing)


def build_asymmetric(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return AsymmetricLoss(
        settings.asymmetric_gamma_positive, settings.asymmetric_gamma_negative, settings.asymmetric_shift
    )


def build_distribution_balanced(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return DistributionBalancedLoss(
        labels,
        alpha=settings.balanced_alpha,
        beta=settings.balanced_beta,
        mu=settings.balanced_mu,
        negative_scale=settings.balanced_lambda,
        kappa=settings.balanced_kappa,
    )


def build_soft_macro_f1(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return SoftMacroF1Loss(settings.f1_smoothing)


def build_zlpr(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return ZlprLoss()


def build_auto(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return (build_cross_entropy if task == "multiclass" else build_bce)(settings, labels, task)


def build_loss(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    """Build the loss that the settings name; settings/tables.py lists them all.

    Args:    labels: bool (n, L), the fold's training rows: weights and counts come from them alone.
             task: `multilabel` or `multiclass`.
    Returns: a module of (logits, targets), both float32 (B, L), that returns a scalar: summed over rows, mean over
             labels.
    Raises:  UserError: no such loss, or it is not for this task.
    """
    usable = [name for name, entry in LOSSES.items() if task in entry.tasks]
    if settings.name not in usable:
        raise UserError(f"loss.name is {settings.name}; a {task} competition takes {', '.join(usable)}")
    build = LOSSES[settings.name].build
    if isinstance(build, str):
        module, name = build.split(":")
        build = getattr(import_module(module), name)
    return build(settings, labels, task)


def build_pos_weight(labels: np.ndarray, settings: LossSettings) -> torch.Tensor:
    """(negatives / positives) ** power, capped; 1 for a label that is never or always there.

    Args:    labels: bool (n, L), the fold's training rows.
    Returns: float32 (L,): how much a positive weighs; binary cross-entropy's `pos_weight`.
    """
    positives = labels.sum(0)
    negatives = len(labels) - positives
    varying = (positives > 0) & (negatives > 0)
    ratio = np.where(varying, negatives / np.maximum(positives, 1), 1.0)
    return torch.tensor(np.minimum(ratio**settings.pos_weight_power, settings.pos_weight_cap), dtype=torch.float32)
