"""R-Drop: each text passes through dropout twice, and the two answers must agree."""

import torch
from torch import nn


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
