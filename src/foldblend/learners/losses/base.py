"""What a loss must offer, the best constant answer to it, and rows that count differently or have a teacher."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.lessons import Lesson, Teacher

LEAST_BASE = 1e-12
"""Powers of probabilities are taken of at least this: 0 ** a fraction has no finite gradient."""

LARGEST_LOGIT = 30.0
"""Bound of the search for the best constant; a sigmoid of 30 is 1 - 1e-13, which float32 cannot tell from 1."""


# ---------- What a loss must offer
#
# The training calls `loss(logits, targets)`, both float32 (B, L), and wants one number: summed over the rows of the
# batch, not averaged, because the sum is divided once by the rows of the whole optimiser step. Any nn.Module that
# returns such a sum works unchanged. The collapse guard compares the training with `best_constant` below:
#   - for a plain nn.Module it searches with the whole fold as one batch, which is right for every sum over rows;
#   - for a RowLoss it does the same faster, with one row for each distinct set of labels;
#   - a loss that is no sum over rows (soft macro-F1) has a method `best_constant(labels, rows_in_batch)` of its own.


class RowLoss(nn.Module):
    """A loss that is a sum over rows; a subclass gives the loss per row in `of_rows`."""

    takes_soft_targets = False
    """Whether targets may be fractions. The loss must then be linear in them: a target of 0.3 costs what labels cost
    on average that are 1 with probability 0.3."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum the loss over rows.

        Args:   logits: float32 (B, L).   targets: float32 (B, L), in [0, 1].
        Raises: UserError: fractional targets, but the loss takes only 0 and 1. Checked on CPU tensors alone: reading
                a value back would make a GPU wait. `best_constant` checks the whole fold before training starts.
        """
        if not self.takes_soft_targets and targets.device.type == "cpu":
            refuse_soft_targets(type(self).__name__, targets)
        return self.of_rows(logits, targets).sum()

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, (B,), averaged over its labels; logits and targets as in `forward`."""
        raise NotImplementedError


class CellLoss(RowLoss):
    """A row loss that is the mean over labels of a loss per label; a subclass gives that in `of_cells`."""

    def of_cells(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each label of each row, (B, L); logits and targets as in `forward`."""
        raise NotImplementedError

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.of_cells(logits, targets).mean(1)


class MaskedLoss(nn.Module):
    """A loss per label in which a target of nan, a label that nobody knows, costs nothing and has no gradient.

    A row's loss is still divided by the number of all labels, so that what one label teaches does not depend on others.
    """

    def __init__(self, loss: CellLoss):
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over rows; logits: float32 (B, L).   targets: float32 (B, L), in [0, 1], or nan."""
        return self.of_rows(logits, targets).sum()

    def of_rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, (B,); logits and targets as in `forward`."""
        known = ~torch.isnan(targets)
        # nan is replaced before the loss: masked afterwards, 0 * nan would still be nan in the gradient
        cells = self.loss.of_cells(logits, torch.where(known, targets, 0))
        return torch.where(known, cells, 0).mean(1)

    def best_constant(self, labels: np.ndarray, rows_in_batch: int) -> tuple[np.ndarray, float]:
        """As the function `best_constant`: a label's mean target over the rows in which it is known stands for them."""
        known = ~np.isnan(labels)
        # (L,): a label that is rarely known costs as much less
        shares = torch.from_numpy(known.mean(0))
        means = np.nansum(labels, axis=0, dtype=np.float64) / np.maximum(known.sum(0), 1)
        loss, targets = deepcopy(self.loss).cpu().double(), torch.from_numpy(means)[None]

        def mean_loss(logits: torch.Tensor) -> torch.Tensor:
            return (loss.of_cells(logits[None], targets)[0] * shares).mean()

        rates = np.clip(means, 1e-6, 1 - 1e-6)
        return _minimise(mean_loss, start=np.log(rates / (1 - rates)))


def masked(loss: nn.Module, name: str) -> nn.Module:
    """The loss for targets some of which are unknown.

    Raises: UserError: `loss.name` is a loss over all labels of a row together, to which each must be known.
    """
    if not isinstance(loss, CellLoss):
        raise UserError(
            f"loss.name is {name}, which needs every label of a row, and some are not known (by labels.unknown, or of "
            "extra_rows). Set loss.name to auto, bce, focal or asymmetric"
        )
    return MaskedLoss(loss)


def refuse_soft_targets(loss_name: str, targets: torch.Tensor) -> None:
    """Raise UserError if a target is neither 0 nor 1."""
    soft = targets[(targets != 0) & (targets != 1)]
    if len(soft):
        raise UserError(
            f"{loss_name} needs targets of 0 and 1, found {float(soft[0]):.4g}. Remove loss.soft_targets, or set "
            "loss.name to bce, focal, asymmetric or cross_entropy"
        )


def smooth_targets(targets: torch.Tensor, smoothing: float, towards: float) -> torch.Tensor:
    """Mix targets with a constant: (1 - smoothing) * targets + smoothing * towards.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    return targets if smoothing == 0 else targets * (1 - smoothing) + smoothing * towards


def power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """base ** exponent for base >= 0, with a finite gradient at 0 for every exponent."""
    return torch.ones_like(base) if exponent == 0 else base.clamp_min(LEAST_BASE) ** exponent


# ---------- The best constant answer: what a model that ignores its input reaches


def best_constant(loss: nn.Module, labels: np.ndarray, rows_in_batch: int = 32) -> tuple[np.ndarray, float]:
    """Find the logits that have the lowest mean loss if every row gets them; a training that learns gets below it.

    Args:    loss: what `build_loss` returned, on any device; the search runs on a copy on the CPU.
             labels: (n, L), the fold's training rows: bool, or float targets in [0, 1].
             rows_in_batch: rows per micro-batch, for a loss that depends on how rows are batched.
    Returns: the logits, float32 (L,), and their mean loss per row.
    Raises:  UserError: fractional targets that the loss does not take.
    """
    if hasattr(loss, "best_constant"):
        return loss.best_constant(labels, rows_in_batch)
    loss = deepcopy(loss).cpu().double()
    if isinstance(loss, RowLoss):
        targets, shares = _distinct_targets(loss, labels)

        def mean_loss(logits: torch.Tensor) -> torch.Tensor:
            return (loss.of_rows(logits.expand_as(targets), targets) * shares).sum()
    else:
        targets = torch.from_numpy(labels.astype(np.float64))

        def mean_loss(logits: torch.Tensor) -> torch.Tensor:
            return loss(logits.expand_as(targets), targets) / len(targets)

    # The labels' log-odds are the answer for plain cross-entropy, and near it for its relatives.
    rates = np.clip(labels.mean(0, dtype=np.float64), 1e-6, 1 - 1e-6)
    return _minimise(mean_loss, start=np.log(rates / (1 - rates)))


def _distinct_targets(loss: RowLoss, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distinct targets, float64 (m, L), and the share of rows that has each, float64 (m,)."""
    if loss.takes_soft_targets:  # linear in targets, so the mean row stands for all of them
        return torch.from_numpy(labels.mean(0, keepdims=True, dtype=np.float64)), torch.ones(1, dtype=torch.float64)
    rows, counts = np.unique(labels, axis=0, return_counts=True)
    targets = torch.from_numpy(rows.astype(np.float64))
    refuse_soft_targets(type(loss).__name__, targets)
    return targets, torch.from_numpy(counts / len(labels))


def _minimise(mean_loss: Callable[[torch.Tensor], torch.Tensor], start: np.ndarray) -> tuple[np.ndarray, float]:
    """Minimise a function of logits, float64 (L,), by L-BFGS within +-LARGEST_LOGIT."""

    def value_and_gradient(constant: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.tensor(constant, requires_grad=True)
        value = mean_loss(logits)
        value.backward()
        return float(value.detach()), logits.grad.numpy()

    bounds = [(-LARGEST_LOGIT, LARGEST_LOGIT)] * len(start)
    # far below what the guard needs: the answer must not depend on where the search stopped
    tolerances = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=tolerances)
    return found.x.astype(np.float32), float(found.fun)


# ---------- Rows that count differently, and a teacher's probabilities that have a loss of their own


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
        # the log of a softmax is its logits up to a constant, which the softmax takes out again
        wanted = (probs.log() / temperature).log_softmax(dim=1)
        rows = (wanted.exp() * (wanted - soft.log_softmax(dim=1))).sum(1) * known.all(1)
    else:
        wanted = torch.sigmoid(torch.logit(probs) / temperature)
        cells = nn.functional.binary_cross_entropy_with_logits(soft, wanted, reduction="none")
        if kind == "kl":
            # less the entropy of the teacher, which has no gradient: cross-entropy becomes a divergence, 0 if both
            # agree
            cells = cells - nn.functional.binary_cross_entropy(wanted, wanted, reduction="none")
        rows = torch.where(known, cells, 0).mean(1)
    return rows * temperature**2
