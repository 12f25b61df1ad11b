"""R-Drop: each text passes through dropout twice, and the two answers must agree.

Source: Liang et al. 2021, arXiv:2106.14448.
"""

import torch
from torch import nn


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
