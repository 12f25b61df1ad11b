"""What a loss must offer, and the best constant answer to it: what a model that ignores its input reaches."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from foldblend.errors import UserError

LEAST_BASE = 1e-12
"""Powers of probabilities are taken of at least this: 0 ** a fraction has no finite gradient."""

LARGEST_LOGIT = 30.0
"""Bound of the search for the best constant; a sigmoid of 30 is 1 - 1e-13, which float32 cannot tell from 1."""


# What a loss must offer.
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


# The best constant answer.


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
