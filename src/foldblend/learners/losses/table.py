"""The loss that a run asks for, made for one fold's training rows."""

import numpy as np
import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.losses.labelwise import AsymmetricLoss, BinaryCrossEntropy, DistributionBalancedLoss, FocalLoss
from foldblend.learners.losses.sets import CrossEntropy, SoftMacroF1Loss, ZlprLoss
from foldblend.settings.run import LossSettings

NAMES = {
    "multilabel": ("bce", "focal", "asymmetric", "distribution_balanced", "soft_macro_f1", "zlpr"),
    "multiclass": ("cross_entropy", "focal"),
}
"""Losses of each task; the first is what `auto` means."""


def build_loss(settings: LossSettings, labels: np.ndarray, task: str) -> nn.Module:
    """A module of (logits, targets), both float32 (B, L), that returns a scalar: summed over rows, mean over labels.

    Args:   labels: bool (n, L), the fold's training rows: weights and counts come from them alone.
            task: `multilabel` or `multiclass`.
    Raises: ValueError: the loss is not one for this task.
    """
    name = NAMES[task][0] if settings.name == "auto" else settings.name
    if name not in NAMES[task]:
        raise UserError(f"loss.name is {name}; a {task} competition takes auto, {', '.join(NAMES[task])}")
    pos_weight, smoothing = build_pos_weight(labels, settings), settings.label_smoothing
    if task == "multiclass":
        return CrossEntropy(pos_weight, smoothing, settings.focal_gamma if name == "focal" else 0.0)
    if name == "bce":
        return BinaryCrossEntropy(pos_weight, smoothing)
    if name == "focal":
        return FocalLoss(settings.focal_gamma, pos_weight, smoothing)
    if name == "asymmetric":
        gammas = settings.asymmetric_gamma_positive, settings.asymmetric_gamma_negative
        return AsymmetricLoss(*gammas, settings.asymmetric_shift)
    if name == "distribution_balanced":
        weights = settings.balanced_alpha, settings.balanced_beta, settings.balanced_mu
        return DistributionBalancedLoss(labels, *weights, settings.balanced_lambda, settings.balanced_kappa)
    return SoftMacroF1Loss(settings.f1_smoothing) if name == "soft_macro_f1" else ZlprLoss()


def build_pos_weight(labels: np.ndarray, settings: LossSettings) -> torch.Tensor:
    """(negatives / positives) ** power, capped; 1 for a label that is never or always there.

    Args:    labels: bool (n, L), the fold's training rows.
    Returns: float32 (L,), for `pos_weight` of binary cross-entropy (it multiplies the positive term only).
    """
    positives = labels.sum(0)
    negatives = len(labels) - positives
    varying = (positives > 0) & (negatives > 0)
    ratio = np.where(varying, negatives / np.maximum(positives, 1), 1.0)
    return torch.tensor(np.minimum(ratio**settings.pos_weight_power, settings.pos_weight_cap), dtype=torch.float32)
