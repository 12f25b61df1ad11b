"""Losses on logits, summed over a micro-batch so that numerators and denominators can be gathered before dividing."""

from learners.losses.build import build_loss, build_pos_weight
from learners.losses.prior import best_constant

__all__ = ["best_constant", "build_loss", "build_pos_weight"]
