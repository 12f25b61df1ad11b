"""What a model that ignores its input reaches: the baseline of the collapse guard."""

from copy import deepcopy

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import binom
from torch import nn

from foldblend.learners.losses.labelwise import RowLoss, refuse_soft_targets
from foldblend.learners.losses.sets import SoftMacroF1Loss

LARGEST_LOGIT = 30.0


def best_constant(loss: nn.Module, labels: np.ndarray, rows_in_batch: int = 32) -> tuple[np.ndarray, float]:
    """The logits, float32 (L,), that have the lowest mean loss when every row gets them, and that loss.

    Args:   loss: what `build_loss` returned, on any device; the search runs on the CPU.
            labels: (n, L), the fold's training rows: bool, or float targets in [0, 1].
            rows_in_batch: rows of a micro-batch; read by soft macro-F1 alone, which depends on it.
    Raises: ValueError: fractional targets that the loss does not take.
    """
    if isinstance(loss, SoftMacroF1Loss):
        refuse_soft_targets(type(loss).__name__, torch.from_numpy(labels))
        return _soft_f1_prior(labels.mean(0), rows_in_batch, loss.smoothing)
    loss = deepcopy(loss).cpu()
    targets, shares = _gather_alike(loss, labels)
    rates = np.clip(labels.mean(0, dtype=np.float64), 1e-6, 1 - 1e-6)
    return _minimise(loss, targets, shares, np.log(rates / (1 - rates)))


def _gather_alike(loss: RowLoss, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct targets (m, L) and their shares (m,), float64; one mean row where the loss is linear in targets."""
    if loss.takes_soft_targets:
        return torch.from_numpy(labels.mean(0, keepdims=True, dtype=np.float64)), torch.ones(1, dtype=torch.float64)
    rows, counts = np.unique(labels, axis=0, return_counts=True)
    targets = torch.from_numpy(rows.astype(np.float64))
    refuse_soft_targets(type(loss).__name__, targets)
    return targets, torch.from_numpy(counts / len(labels))


def _minimise(
    loss: RowLoss, targets: torch.Tensor, shares: torch.Tensor, start: np.ndarray
) -> tuple[np.ndarray, float]:
    def value_and_gradient(constant: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.tensor(constant, requires_grad=True)
        value = (loss.of_rows(logits.expand_as(targets), targets) * shares).sum()
        value.backward()
        return float(value.detach()), logits.grad.numpy()

    bounds = [(-LARGEST_LOGIT, LARGEST_LOGIT)] * len(start)
    to_the_end = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=to_the_end)
    return found.x.astype(np.float32), float(found.fun)


def _soft_f1_prior(rates: np.ndarray, rows_in_batch: int, smoothing: float) -> tuple[np.ndarray, float]:
    """The best constant probabilities' logits, and 1 - their expected soft F1, positives in a batch being binomial."""
    k = np.arange(rows_in_batch + 1)
    p = np.linspace(0, 1, 1001)[1:, None]
    f1 = (2 * k * p + smoothing) / (rows_in_batch * p + k + smoothing)  # (1000, rows_in_batch + 1)
    chances = binom.pmf(k[:, None], rows_in_batch, rates)  # (rows_in_batch + 1, L)
    expected = f1 @ chances  # (1000, L)
    best = np.clip(p[expected.argmax(0), 0], 1e-6, 1 - 1e-6)
    return np.log(best / (1 - best)).astype(np.float32), float(1 - expected.max(0).mean())
