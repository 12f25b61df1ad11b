"""The table of losses: from the name in `loss.name` to the loss of one fold's training rows."""

from importlib import import_module

import numpy as np
import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.losses.named import (
    AsymmetricLoss,
    BinaryCrossEntropy,
    CrossEntropy,
    DistributionBalancedLoss,
    FocalLoss,
    SoftMacroF1Loss,
    ZlprLoss,
)
from foldblend.settings.run import LossSettings
from foldblend.settings.tables import LOSSES

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
