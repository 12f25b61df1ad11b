"""Checks that every fold passes: its loss before the first step, what its first steps move, what is left at its end.

Each fault they name has cost someone a training: weights given to the wrong side of the loss, a head that was never
in the optimiser or never in the file, a base that was not frozen, padding that reaches the prediction.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from learners.losses import build_loss, build_pos_weight
from learners.losses.base import RowLoss
from learners.predicting import TOKENS_PER_BATCH
from learners.sharding import own_part
from settings.run import LossSettings

WATCHED_MATRICES = 16
"""How many are watched of a model that is trained whole and has nothing fresh."""
SAMPLE = 512
"""Elements looked at of a tensor, evenly spread."""
MOVING_LR = 1e-6
"""A step of this size shows in float32 weights up to 8; the first steps of a long warm-up may be lost in rounding."""
TOLERANCE = {"no": 1e-3, "fp16": 1e-2, "bf16": 5e-2}
"""Root mean square of the difference between logits that should be the same, against 1 + that of the logits. The lower
precisions are for bases held in them. Texts alone and in a padded batch, 24 random decoder layers on a CPU: up to 1e-6,
0.003 and 0.02; the rest is for other kernels."""


def check_class_weights(loss: nn.Module, labels: np.ndarray, settings: LossSettings, task: str) -> None:
    """Compare the loss's gradients with those of the same loss without class weights.

    For a row with label i alone, the weights must multiply the gradient of logit i by w_i and leave the others alone;
    where one label a row is the task, all of the row's by w_i.

    Args:   loss: what `build_loss` made, on any device; a loss that is not of label logits is passed over.
            labels: bool (n, L), the fold's training rows.
    Raises: ValueError: they do something else.
    """
    if not isinstance(loss, RowLoss):
        return
    weights = build_pos_weight(labels, settings).double()
    plain = build_loss(replace(settings, pos_weight_power=0.0, label_smoothing=0.0), labels, task)
    weighted = deepcopy(loss).cpu()
    if hasattr(weighted, "label_smoothing"):
        weighted.label_smoothing = 0.0
    found, without = (_gradients_of_single_labels(module.double(), len(weights)) for module in (weighted, plain))
    by_row = weights[:, None].expand(-1, len(weights))
    factors = by_row if task == "multiclass" else torch.where(torch.eye(len(weights), dtype=torch.bool), by_row, 1.0)
    wrong = ~torch.isclose(found, without * factors, rtol=1e-4, atol=1e-9)
    if wrong.any():
        i, j = (int(k) for k in wrong.nonzero()[0])
        raise ValueError(
            f"class weights: a row with label {i} alone pulls logit {j} with {float(found[i, j]):.4g}, expected "
            f"{float(without[i, j]):.4g} x {float(factors[i, j]):.4g}. Weights belong to a label's positives "
            "(pos_weight), not to its column (weight) nor to the row; see learners/losses"
        )


def _gradients_of_single_labels(loss: RowLoss, n_labels: int) -> torch.Tensor:
    """float64 (L, L): row i is the gradient of a row's logits when label i alone is true."""
    logits = torch.linspace(-1, 1, n_labels, dtype=torch.float64).repeat(n_labels, 1).requires_grad_()
    loss.of_rows(logits, torch.eye(n_labels, dtype=torch.float64)).sum().backward()
    return logits.grad


def sample_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU of up to about SAMPLE elements that this process holds of it."""
    flat = own_part(tensor).reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLE)].to("cpu", copy=True)


class FrozenWatch:
    """Remembers a sample of every frozen parameter."""

    def __init__(self, model: nn.Module):
        self.before = {name: sample_tensor(p) for name, p in model.named_parameters() if not p.requires_grad}

    def check(self, model: nn.Module) -> None:
        """Raises ValueError where a parameter that was frozen is not as it was."""
        now = {name: sample_tensor(p) for name, p in model.named_parameters() if name in self.before}
        moved = [name for name, was in self.before.items() if not _same_bits(now[name], was)]
        if moved:
            raise ValueError(
                f"{len(moved)} of {len(self.before)} frozen parameters changed while training, first {moved[0]}; "
                "expected none. They are not saved with the fold, so it could not be loaded again. Look at what "
                "writes to the base: adapters merged and not taken out, or an optimiser made before freezing"
            )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


class MovementWatch:
    """Head and adapters, or else some matrices, must move in the first two steps whose rate is large enough to show."""

    def __init__(self, model: nn.Module, scaler=None):
        """scaler: fp16's loss scaler, where there is one."""
        self.still = {name: sample_tensor(parameter) for name, parameter in _watched_parameters(model)}
        self.n_watched, self.steps_left = len(self.still), 2
        self.scaler, self.scale = scaler, scaler.get_scale() if scaler else 0.0

    def after_step(self, model: nn.Module, optimizer, is_at_peak: bool) -> None:
        """Look after an optimiser step. Raises ValueError where some parameter has not moved when it must have."""
        if self._was_skipped(optimizer):
            return
        largest_lr = max(group["lr"] for group in optimizer.param_groups)
        parameters = dict(_watched_parameters(model))
        self.still = {name: was for name, was in self.still.items() if _same_bits(sample_tensor(parameters[name]), was)}
        self.steps_left -= bool(largest_lr >= MOVING_LR or is_at_peak)
        still = [name for name, was in self.still.items() if len(was)]
        if not self.steps_left and still:
            raise ValueError(
                f"{len(still)} of {self.n_watched} parameters watched (head and adapters, or else some of the layers') "
                f"have not moved in the first steps, first {still[0]}; expected all. They are frozen, not in the "
                "optimiser, or no gradient reaches them: see optimizer.lr, optimizer.head_lr and adapter.targets"
            )

    def _was_skipped(self, optimizer) -> bool:
        """Whether gradients overflowed. A fused optimiser skips in its own kernel: only the scale, lowered, tells."""
        before, self.scale = self.scale, self.scaler.get_scale() if self.scaler else 0.0
        return getattr(optimizer, "step_was_skipped", False) or self.scale < before


def _watched_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What is fresh; where nothing is, linear layers' matrices, evenly spread: every step reaches all of each."""
    fresh = list(_fresh_parameters(model))
    if fresh:
        return fresh
    own = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [(name, weight) for name, weight in model.named_parameters() if id(weight) in own - tables]
    return matrices[:: -(-len(matrices) // WATCHED_MATRICES) or 1]


def _fresh_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Head and adapters: what begins with `head`, and beside a frozen base everything that is trained."""
    has_frozen = any(not parameter.requires_grad for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("head") or (has_frozen and parameter.requires_grad):
            yield name, parameter


def choose_rows(lengths: np.ndarray, rows: np.ndarray, n_processes: int, device: str) -> np.ndarray:
    """A handful of `rows` of lengths as different as they come that make one padded batch on every process."""
    n_rows = min(len(rows), max(4, 2 * n_processes))
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    fitting = ordered[lengths[ordered] * n_rows <= TOKENS_PER_BATCH.get(device, 16384) * n_processes]
    fitting = fitting if len(fitting) else ordered[:1]
    return fitting[np.unique(np.linspace(0, len(fitting) - 1, n_rows).round().astype(int))]


def compare_logits(found: np.ndarray, expected: np.ndarray, precision: str, found_as: str, cure: str) -> None:
    """Raise ValueError where logits float32 (n, L) differ by more than the precision explains."""
    difference = float(np.sqrt(np.mean((found - expected) ** 2, dtype=np.float64)))
    allowed = TOLERANCE[precision] * (1 + float(np.sqrt(np.mean(expected**2, dtype=np.float64))))
    if not difference <= allowed:
        name = "fp32" if precision == "no" else precision
        raise ValueError(
            f"{found_as} {len(found)} held-out rows have other logits: they differ by {difference:.4g} in the root "
            f"mean square, at most {allowed:.4g} is expected in {name}. {cure}"
        )
