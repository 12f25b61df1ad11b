"""Rows that count differently in the loss of a fold, and a teacher's probabilities that have a loss of their own."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.lessons import Lesson, Teacher


def table_of_targets(lesson: Lesson, n_texts: int) -> torch.Tensor:
    """What each text teaches, float32 (n_texts, L), by its position; nan for texts that teach this fold nothing."""
    table = np.full((n_texts, lesson.targets.shape[1]), np.nan, np.float32)
    table[lesson.rows] = lesson.targets
    return torch.from_numpy(table)


SAMPLED_ROWS = 20_000
"""Rows that the constant answer's loss is measured on if rows count differently."""


def loss_of_constant(
    weighing: "RowWeighing", loss: nn.Module, constant: np.ndarray, prior_loss: float, targets, rows: np.ndarray
) -> float:
    """Mean loss of a constant answer, float32 (L,), if rows count differently or a teacher speaks, too."""
    if weighing.lesson.teacher is None and weighing.lesson.weights is not None:  # the labels' mean is about the same
        return prior_loss * float(weighing.lesson.weights[weighing.position[rows]].mean())
    rows = rows[:: max(1, len(rows) // SAMPLED_ROWS)]
    logits = torch.from_numpy(np.tile(constant, (len(rows), 1))).to(weighing.device)
    with torch.no_grad():
        return float(weighing.of(loss, rows)(logits, targets[rows].to(weighing.device))) / len(rows)


class RowWeighing:
    """Rows that count differently, and a teacher's probabilities of some, of one lesson."""

    def __init__(self, lesson: Lesson, teacher: Teacher | None, n_texts: int, task: str, device: torch.device):
        self.teacher, self.task, self.device = teacher, task, device
        self.position = np.full(n_texts, -1)
        self.position[lesson.rows] = np.arange(len(lesson.rows))
        self.lesson = lesson

    def of(self, loss: nn.Module, rows: np.ndarray) -> nn.Module:
        """The loss of a batch of rows, int64 (B,). Raises UserError: it is a loss of all rows together."""
        lesson, at = self.lesson, self.position[rows]
        weights, probs, share = (
            None if part is None else torch.from_numpy(part[at]).to(self.device, non_blocking=True)
            for part in (lesson.weights, lesson.teacher, lesson.teacher_share)
        )
        return _WeighedLoss(sum_of_rows(loss), weights, probs, share, self.teacher, self.task)


class _WeighedLoss(nn.Module):
    """The sum over a batch of weights * ((1 - share) * loss of the targets + share * distance from the teacher)."""

    def __init__(self, of_rows, weights, probs, share, teacher: Teacher | None, task: str):
        super().__init__()
        self.of_rows, self.parts, self.teacher, self.task = of_rows, (weights, probs, share), teacher, task

    def forward(self, logits: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        weights, probs, share = (part if part is None else part.to(logits.device) for part in self.parts)
        rows = self.of_rows(logits, targets)  # (B,)
        if probs is not None and share is not None and self.teacher is not None:
            distance = distil_rows(logits, probs, self.teacher.loss, self.teacher.temperature, self.task)
            rows = (1 - share) * rows + share * distance
        return (rows if weights is None else rows * weights).sum()


def sum_of_rows(loss: nn.Module) -> Callable[..., torch.Tensor]:
    """The function of a loss that gives the loss of each row, (B,).

    Raises: UserError: the loss is of rows together, so that rows cannot count differently.
    """
    of_rows = getattr(loss, "of_rows", None)
    if of_rows is None:
        raise UserError(
            f"{type(loss).__name__} is a loss of all rows of a batch together, so they cannot count differently. "
            "Remove weight and weight_column of extra_rows and distillation.loss, or set loss.name to auto"
        )
    return of_rows


LEAST_PROB = 1e-6
"""Probabilities of a teacher are taken of at least this, and at most 1 less it: their logits are finite."""


def distil_rows(logits: torch.Tensor, probs: torch.Tensor, kind: str, temperature: float, task: str) -> torch.Tensor:
    """Return how far a model is from its teacher, of each row, (B,), times the temperature's square.

    Args:   logits: float32 (B, L).   probs: float32 (B, L), the teacher's, nan for unknown ones, which cost nothing.
            kind: `bce`: cross-entropy of each label. `kl`: divergence; if each row has one label, of the distribution
            over labels (its sum), otherwise of each label (their mean), like `bce`.
    Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2: both logits are divided by the temperature, and
            the square keeps the size of the gradient.
    """
    known = ~torch.isnan(probs)
    probs = torch.where(known, probs, 0.5).clamp(LEAST_PROB, 1 - LEAST_PROB)
    soft = logits.float() / temperature
    if kind == "kl" and task == "multiclass":
        wanted = (probs.log() / temperature).log_softmax(dim=1)
        rows = (wanted.exp() * (wanted - soft.log_softmax(dim=1))).sum(1) * known.all(1)
    else:
        wanted = torch.sigmoid(torch.logit(probs) / temperature)
        cells = nn.functional.binary_cross_entropy_with_logits(soft, wanted, reduction="none")
        if kind == "kl":
            cells = cells - nn.functional.binary_cross_entropy(wanted, wanted, reduction="none")
        rows = torch.where(known, cells, 0).mean(1)
    return rows * temperature**2
