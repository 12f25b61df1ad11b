"""The table of losses: from the name in `loss.name` to the loss of one fold's training rows."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.losses.labelwise import AsymmetricLoss, BinaryCrossEntropy, DistributionBalancedLoss, FocalLoss
from foldblend.learners.losses.sets import CrossEntropy, SoftMacroF1Loss, ZlprLoss
from foldblend.settings.run import LossSettings

# A new loss is a class, a builder and one line in LOSSES. In ten lines (losses/base.py says what a loss must offer):
#
#     class HingeLoss(RowLoss):                     # sums over rows; fractions as targets are refused
#         def of_rows(self, logits, targets):       # both (B, L)
#             return (1 - (2 * targets - 1) * logits).clamp_min(0).mean(1)  # (B,)
#
#     def build_hinge(settings, labels, task):      # the run's LossSettings; bool (n, L); "multilabel" or "multiclass"
#         return HingeLoss()
#
#     LOSSES["hinge"] = build_hinge

LossBuilder = Callable[[LossSettings, np.ndarray, str], nn.Module]
"""`(settings, labels, task) -> loss`; labels are the fold's training rows, bool (n, L), and nothing of other rows."""


def _build_bce(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return BinaryCrossEntropy(build_pos_weight(labels, settings), settings.label_smoothing)


def _build_cross_entropy(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return CrossEntropy(build_pos_weight(labels, settings), settings.label_smoothing)


def _build_focal(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    weight = build_pos_weight(labels, settings)
    if task == "multiclass":
        return CrossEntropy(weight, settings.label_smoothing, settings.focal_gamma)
    return FocalLoss(settings.focal_gamma, weight, settings.label_smoothing)


def _build_asymmetric(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return AsymmetricLoss(
        settings.asymmetric_gamma_positive, settings.asymmetric_gamma_negative, settings.asymmetric_shift
    )


def _build_distribution_balanced(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return DistributionBalancedLoss(
        labels,
        alpha=settings.balanced_alpha,
        beta=settings.balanced_beta,
        mu=settings.balanced_mu,
        negative_scale=settings.balanced_lambda,
        kappa=settings.balanced_kappa,
    )


def _build_soft_macro_f1(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return SoftMacroF1Loss(settings.f1_smoothing)


def _build_zlpr(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    return ZlprLoss()


LOSSES: dict[str, LossBuilder] = {
    "bce": _build_bce,
    "cross_entropy": _build_cross_entropy,
    "focal": _build_focal,
    "asymmetric": _build_asymmetric,
    "distribution_balanced": _build_distribution_balanced,
    "soft_macro_f1": _build_soft_macro_f1,
    "zlpr": _build_zlpr,
}

AUTO = {"multilabel": "bce", "multiclass": "cross_entropy"}
"""What `loss.name: auto` means for each task."""

OTHER_TASK = {
    "multilabel": ("cross_entropy",),
    "multiclass": ("bce", "asymmetric", "distribution_balanced", "soft_macro_f1", "zlpr"),
}
"""Losses that a task cannot use; all others, registered ones too, serve both tasks."""


def build_loss(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    """Build the loss that the settings name.

    Args:    labels: bool (n, L), the fold's training rows: weights and counts come from them alone.
             task: `multilabel` or `multiclass`.
    Returns: a module of (logits, targets), both float32 (B, L), that returns a scalar: summed over rows, mean over
             labels.
    Raises:  UserError: no such loss, or it is not for this task.
    """
    name = AUTO[task] if settings.name == "auto" else settings.name
    usable = [known for known in LOSSES if known not in OTHER_TASK[task]]
    if name not in usable:
        raise UserError(f"loss.name is {name}; a {task} competition takes auto, {', '.join(usable)}")
    return LOSSES[name](settings, labels, task)


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
