"""Losses on logits, summed over a micro-batch so that numerators and denominators can be gathered before dividing."""

import numpy as np
import torch
import torch.nn.functional as F

from settings.run import LossSettings


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


def sum_bce(logits: torch.Tensor, labels: torch.Tensor, pos_weight: torch.Tensor) -> torch.Tensor:
    """Weighted binary cross-entropy summed over rows, averaged over labels. logits, labels: float32 (B, L)."""
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=pos_weight, reduction="sum") / labels.shape[1]


def sum_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, pos_weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the one true label summed over rows; a row weighs what its label weighs."""
    return -(labels * pos_weight * logits.log_softmax(-1)).sum()


SUMMED_LOSSES = {"multilabel": sum_bce, "multiclass": sum_cross_entropy}


def prior_loss(labels: np.ndarray, pos_weight: torch.Tensor, task: str) -> float:
    """Mean loss a row of the best constant answer: what a model that ignores its input reaches.

    Args: labels: bool (n, L), the fold's training rows.   pos_weight: float32 (L,).
    """
    rates = torch.tensor(labels.mean(0), dtype=torch.float64)
    weighted = pos_weight.double() * rates
    if task == "multiclass":
        constant = weighted / weighted.sum()
        return float(-(weighted * constant.clamp_min(1e-12).log()).sum())
    constant = (weighted / (weighted + 1 - rates)).clamp(1e-12, 1 - 1e-12)
    return float(-(weighted * constant.log() + (1 - rates) * (1 - constant).log()).mean())
