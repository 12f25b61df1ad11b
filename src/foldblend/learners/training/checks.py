"""What a trained fold must show before it predicts: its file holds all of it, and padding does not reach its logits."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.losses.base import RowLoss
from foldblend.learners.losses.table import build_loss, build_pos_weight
from foldblend.learners.processes.sharding import is_sharded, own_part, publish
from foldblend.learners.training.checkpoints import restore_model
from foldblend.learners.training.predicting import TOKENS_PER_BATCH
from foldblend.settings.run import LossSettings

# ---------- A training that learns nothing is stopped early, with what was seen and what to try.


CURE = "Try a lower --optimizer.lr, a longer --optimizer.warmup_fraction, or --training.precision fp32"
LEAST_SPREAD = 1e-3
"""Logits of a model that tells texts apart spread by far more than this between rows."""
LEAST_STEPS = 50
"""A shorter training is not judged by its losses at its end: it may be honest and not have got anywhere yet."""
MEAN_OVER_READS = 10
"""The loss is read every ten steps. A generator starts far above the prior, having no idea of the answer's form; a mean
that remembered that for long would stop it."""


class CollapseGuard:
    """Watches the training loss against the best constant answer's, and the logits for being constant."""

    def __init__(self, prior_loss: float, check_after_steps: int):
        self.prior_loss, self.check_after_steps = prior_loss, check_after_steps

    def check_loss(self, step: int, loss: float, mean_loss: float) -> None:
        """Raises ValueError when the loss is not finite, or after the set steps no better than a constant answer's.

        Args: loss: of the last few steps, which a mean that began far above may not have followed yet.
        """
        self.check_finite(step, loss)
        judged = self.check_after_steps and step >= self.check_after_steps
        if judged and min(loss, mean_loss) >= self.prior_loss:
            raise UserError(
                f"step {step}: the mean training loss is {mean_loss:.4f}; answering every text with the label rates "
                f"alone has {self.prior_loss:.4f}, so the model has collapsed to a constant. {CURE}"
            )

    def check_end(self, n_steps: int, mean_loss: float, heldout_loss: float, heldout_prior: float) -> None:
        """Raises ValueError when a training of n_steps ends without having got below a constant answer anywhere.

        Training rows alone would condemn a short training for its first steps, held-out rows alone an overfitted one;
        who has learned something is better on one of them.

        Args: mean_loss: of the last training steps.   heldout_loss, heldout_prior: of the held-out rows, the model's
              and that of the constant that is best on the rows taught.
        """
        judged = self.check_after_steps and n_steps >= min(LEAST_STEPS, self.check_after_steps)
        if judged and mean_loss >= self.prior_loss and heldout_loss >= heldout_prior:
            raise UserError(
                f"after {n_steps} steps the mean training loss is {mean_loss:.4f} and the held-out loss "
                f"{heldout_loss:.4f}; answering every text with the label rates alone has {self.prior_loss:.4f} and "
                f"{heldout_prior:.4f}, so the model has learned nothing. {CURE}, or more training.epochs; "
                "training.collapse_check_after_steps 0 turns the check off"
            )

    def check_finite(self, step: int, loss: float, bad_rows: np.ndarray | None = None) -> None:
        """Raises ValueError when the loss, or the gradient of some rows, is not finite.

        Args: bad_rows: int64 (B,), the rows of the first step whose loss or gradient was not finite, if known.
        """
        if math.isfinite(loss) and bad_rows is None:
            return
        what = "the gradient is not finite" if math.isfinite(loss) else f"the training loss is {loss}"
        where = "" if bad_rows is None else f", first on rows {_name_rows(bad_rows)} of the training file"
        raise UserError(
            f"step {step}: {what}{where}. An overflow in fp16, a rate too high, or those "
            f"texts. {CURE} (bf16 where the hardware has it)"
        )

    def check_heldout(self, loss: float) -> None:
        """Raises ValueError when the held-out rows' loss is not finite: no weights could be chosen by it."""
        if not math.isfinite(loss):
            raise UserError(f"the held-out rows' loss is {loss}. {CURE}")


def _name_rows(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:32].tolist()))
    return shown + (f" and {len(rows) - 32} more (counted from 0)" if len(rows) > 32 else " (counted from 0)")


def update_mean(mean_loss: float, loss: float, read: int) -> float:
    """Running mean over about the last MEAN_OVER_READS losses; the plain mean before that. `read` counts from 0."""
    return mean_loss + (loss - mean_loss) / min(read + 1, MEAN_OVER_READS)


def check_logits(logits: np.ndarray, what: str) -> None:
    """Raises ValueError when logits (n, L) are not finite, or the same for every row."""
    bad = int((~np.isfinite(logits)).any(1).sum())
    if bad:
        raise UserError(f"{what}: {bad} of {len(logits)} rows have logits that are not finite. {CURE}")
    if len(logits) > 1 and float(logits.std(0).max()) < LEAST_SPREAD:
        raise UserError(f"{what}: every text gets the same logits, so the model has collapsed to a constant. {CURE}")


# ----------
# Checks that every fold passes: its loss before the first step, what its first steps move, what is left at its end.


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
        raise UserError(
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
            raise UserError(
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
            raise UserError(
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
        raise UserError(
            f"{found_as} {len(found)} held-out rows have other logits: they differ by {difference:.4g} in the root "
            f"mean square, at most {allowed:.4g} is expected in {name}. {cure}"
        )


# ----------
# What a trained fold must show before it predicts: its file holds all of it, and padding does not reach its logits.


def check_end(learner, fold) -> None:
    """Predict a handful of held-out rows as they are, after reloading, and each alone; the base must be untouched.

    In float32 where the weights are, whatever the training computed in: rounding would hide a fault.

    Raises: ValueError: what differs, by how much, and where to look.
    """
    model = fold.accelerator.unwrap_model(fold.model)
    fold.frozen.check(model)
    device, n_processes = fold.accelerator.device.type, fold.accelerator.num_processes
    rows = choose_rows(learner.tokens.lengths, fold.rows.heldout, n_processes, device)
    exact = is_held_in_float32(model)
    precision = "no" if exact else learner.precision
    with without_autocast(fold.accelerator, model) if exact else nullcontext():
        together = learner.predict(fold.model, rows)
        reloaded = learner.predict(reload(learner, fold, model), rows)
        compare_logits(reloaded, together, precision, "after saving and reloading,", UNSAVED)
        alone = learner.predict(fold.model, rows, tokens_in_batch=1)
        compare_logits(alone, together, precision, "each alone instead of in a padded batch,", PADDED)


def reload(learner, fold, model: torch.nn.Module) -> torch.nn.Module:
    """The model as another process would load it: into one built anew, or, where the base is shared by all folds or
    spread over processes, into this one after its trained weights are wiped out."""
    tensors = fold.store.load_weights()
    if learner.builds_anew and not is_sharded(model):
        model = learner.build_fold_model(fold.rows, fold.seed + 1).to(fold.accelerator.device)
        restore_model(model, tensors)
        return model
    wipe(model)
    restore_model(model, tensors)
    return fold.model


def is_held_in_float32(model: torch.nn.Module) -> bool:
    """Whether every weight is float32 and whole; a shard is gathered in what the training computes in."""
    return not is_sharded(model) and all(weight.dtype == torch.float32 for weight in model.parameters())


@contextmanager
def without_autocast(accelerator, model: torch.nn.Module) -> Iterator[None]:
    """Inside, `model` computes in what its weights are held in; Accelerate has put an autocast around its forward."""
    prepared = {name: vars(model)[name] for name in ("forward", "_original_forward") if name in vars(model)}
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    try:
        yield
    finally:
        vars(model).update(prepared)


@torch.no_grad()
def wipe(model: torch.nn.Module) -> None:
    """Zero everything that was trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        own_part(parameter).zero_()
    publish(trained)


UNSAVED = (
    "A part that was trained is not in weights.safetensors: a parameter that is no parameter of the model, or marked "
    "frozen after training. The fold cannot be loaded again, so it is not written"
)
PADDED = (
    "Padding reaches the prediction: a wrong pad token or padding side, an attention mask not used, or a pooling "
    "that counts places from the end. See model.pad_token and model.pooling"
)
