"""Checks that every fold passes, so that a training that went wrong ends with a message and not with a bad score.

while it trains   the loss is finite, fits fp16 and falls below a constant answer's      LossWindow, CollapseGuard
before step one   class weights multiply what they should                             check_class_weights
first two steps   head and adapters move                                              MovementWatch
at the end        frozen weights are as they were; the saved file holds all that was
                  trained; padding does not change a prediction                       FrozenWatch, check_end
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from foldblend.console import announce
from foldblend.errors import UserError
from foldblend.learners.losses.base import RowLoss
from foldblend.learners.losses.named import build_loss, build_pos_weight
from foldblend.learners.processes.devices import is_sharded, own_part
from foldblend.learners.training.checkpoints import restore_model
from foldblend.learners.training.predicting import TOKENS_PER_BATCH
from foldblend.predictions import fold_title
from foldblend.settings.nets import LossSettings

# 1. A training that learns nothing is stopped early

ADVICE = "Try a lower --optimizer.lr, a longer --optimizer.warmup_fraction, or --training.precision fp32"
LEAST_SPREAD = 1e-3
"""Logits of a model that tells texts apart spread by far more than this between rows."""
LEAST_STEPS = 50
"""A shorter training is not judged by its losses at its end: it may be right and not have learned much yet."""
MEAN_OVER_READS = 10
"""The loss is read every ten steps. A generator starts far above a constant answer's loss, as it does not know the form
of an answer; a mean that remembered that for long would stop it."""


@dataclass(frozen=True)
class LossReading:
    """The steps since the last reading."""

    loss: float
    """Mean per row; 0 if there was no step."""
    norm: float
    """Mean gradient norm before clipping; 0 if it is not known, see `clip_gradients`."""
    bad_rows: np.ndarray | None
    """int64 (B,): rows of the first step with a loss or gradient that is not finite; None if all are."""


class LossWindow:
    """Losses and gradient norms of the last few steps, kept on the device until they are read.

    Reading waits for the device, so the loop reads every few steps and not after each.
    """

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.losses: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.rows: list[np.ndarray] = []

    def add(self, loss: torch.Tensor, norm: torch.Tensor, rows: np.ndarray) -> None:
        """Add one step: summed loss and gradient norm of this process, scalars; its rows, int64 (B,), of all."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.rows.append(rows)

    def read(self) -> LossReading:
        """What `peek` returns; then the window is empty."""
        seen = self.peek()
        self.losses, self.norms, self.rows = [], [], []
        return seen

    def peek(self) -> LossReading:
        """The steps since the last reading."""
        if not self.losses:
            return LossReading(0.0, 0.0, None)
        # one transfer from the device for all of them
        seen = torch.stack([torch.stack(self.losses), torch.stack(self.norms)])  # (2, steps)
        # each process holds the loss of its own rows: summed here, divided by all rows below
        losses, norms = self.accelerator.reduce(seen, "sum")
        finite = (torch.isfinite(losses) & torch.isfinite(norms)).tolist()
        # the first one: later steps are spoilt by it
        bad = None if all(finite) else self.rows[finite.index(False)]
        norm = float(norms.mean()) / self.accelerator.num_processes  # each process has clipped the same gradients
        return LossReading(float(losses.sum()) / sum(map(len, self.rows)), norm, bad)


class CollapseGuard:
    """Proves that the model learns more than the label rates: its loss must get below a constant answer's.

    Args: prior_loss: the mean training loss per row of the best answer that ignores the text.
          check_after_steps: the loss is compared from this step on; 0 is never.   n_own: rows of the training file;
          rows from this number on are of `extra_rows`.
    """

    def __init__(self, prior_loss: float, check_after_steps: int, n_own: int):
        self.prior_loss, self.check_after_steps, self.n_own = prior_loss, check_after_steps, n_own

    def check_loss(self, step: int, loss: float, mean_loss: float) -> None:
        """Raise UserError if the loss is not finite, or after the set steps no better than a constant answer's.

        Args: loss: of the last few steps, which a mean that began far above may not have followed yet.
        """
        self.check_finite(step, loss)
        judged = self.check_after_steps and step >= self.check_after_steps
        # either of the two below is enough: the mean may lag behind, the last reading may be unlucky
        if judged and min(loss, mean_loss) >= self.prior_loss:
            raise UserError(
                f"The model has collapsed to a constant: at step {step} the mean training loss is {mean_loss:.4f}, "
                f"that of answering every text with the label rates is {self.prior_loss:.4f}. {ADVICE}"
            )

    def check_end(self, n_steps: int, mean_loss: float, heldout_loss: float, heldout_prior: float) -> None:
        """Raise UserError if a training of n_steps ends without having got below a constant answer anywhere.

        Training rows alone would refuse a short training for its first steps, held-out rows alone an overfitted one; a
        model that has learned something is better on one of them.

        Args: mean_loss: of the last training steps.   heldout_loss, heldout_prior: of the held-out rows, the model's
              and that of the constant that is best on the rows taught; infinite if no row is held out.
        """
        judged = self.check_after_steps and n_steps >= min(LEAST_STEPS, self.check_after_steps)
        if judged and mean_loss >= self.prior_loss and heldout_loss >= heldout_prior:
            heldout = f" and the held-out loss {heldout_loss:.4f}" if math.isfinite(heldout_prior) else ""
            constant = f" and {heldout_prior:.4f}" if heldout else ""
            raise UserError(
                f"The model has learned nothing: after {n_steps} steps the mean training loss is {mean_loss:.4f}"
                f"{heldout}; answering every text with the label rates has {self.prior_loss:.4f}{constant}. "
                f"{ADVICE}, or more --training.epochs; --training.collapse_check_after_steps 0 turns this check off"
            )

    def check_finite(self, step: int, loss: float, bad_rows: np.ndarray | None = None) -> None:
        """Raise UserError if the loss, or the gradient of some rows, is not finite.

        Args: bad_rows: int64 (B,), the rows of the first step whose loss or gradient was not finite, if known.
        """
        if math.isfinite(loss) and bad_rows is None:
            return
        what = "The gradient is not finite" if math.isfinite(loss) else f"The training loss is {loss}"
        where = "" if bad_rows is None else f", first on {_name_rows(bad_rows, self.n_own)}"
        raise UserError(
            f"{what} at step {step}{where}. Possible reasons: an overflow in fp16, a learning rate that is too high, "
            f"or those texts. {ADVICE} (bf16 if the hardware has it)"
        )

    def check_scale(self, step: int, scale: float) -> None:
        """Raise UserError if fp16's loss scaler has fallen below 1: not the scaled gradients overflow, but their own.

        Each step that overflows is skipped and halves the scale, which begins at 65,536; so a training whose every step
        overflows ends here at its 17th, with weights as they were.
        """
        if scale < 1:
            raise UserError(
                f"Gradients overflow fp16: at step {step} the loss scale is {scale:.1e}, and steps that overflow are "
                "skipped. Set --training.precision fp32, or bf16 if the hardware has it"
            )

    def check_heldout(self, loss: float) -> None:
        """Raise UserError if the held-out rows' loss is not finite: no weights could be chosen by it."""
        if not math.isfinite(loss):
            raise UserError(f"The held-out loss is {loss}. {ADVICE}")


def _name_rows(rows: np.ndarray, n_own: int) -> str:
    """Rows of the training file by number; extra rows are only counted, as their files may have lost rows since."""
    own = rows[rows < n_own]
    shown = ", ".join(map(str, own[:32].tolist())) + (f" and {len(own) - 32} more" if len(own) > 32 else "")
    said = [f"rows {shown} of the training file (counted from 0)"] if len(own) else []
    n_extra = len(rows) - len(own)
    return " and ".join([*said, *([f"{n_extra} of the extra rows"] if n_extra else [])])


def update_mean(mean_loss: float, loss: float, read: int) -> float:
    """Running mean over about the last MEAN_OVER_READS losses; the plain mean before that. `read` counts from 0."""
    # the first readings are averaged, so that the mean does not begin at 0
    return mean_loss + (loss - mean_loss) / min(read + 1, MEAN_OVER_READS)


def check_logits(logits: np.ndarray, what: str) -> None:
    """Raise UserError if logits (n, L) are not finite, or the same for every row. Args: what: the rows, in words."""
    bad = int((~np.isfinite(logits)).any(1).sum())
    if bad:
        raise UserError(f"Logits are not finite: {what}, {bad} of {len(logits)} rows. {ADVICE}")
    if len(logits) > 1 and float(logits.std(0).max()) < LEAST_SPREAD:
        raise UserError(f"Every text gets the same logits: {what}. The model has collapsed to a constant. {ADVICE}")


# 2. Before and during the first steps: class weights, frozen weights, weights that must move

WATCHED_MATRICES = 16
"""Matrices watched in a model that is trained whole and has no fresh part."""
SAMPLE = 512
"""Elements compared per tensor, evenly spread."""
MOVING_LR = 1e-6
"""A step of this size shows in float32 weights up to 8; the first steps of a long warm-up may be lost in rounding."""
TOLERANCE = {"no": 1e-3, "fp16": 1e-2, "bf16": 5e-2}
"""Root mean square of the difference between logits that should be the same, against 1 + that of the logits. The lower
precisions are for bases held in them. Texts alone and in a padded batch, 24 random decoder layers on a CPU: up to 1e-6,
0.003 and 0.02; the rest is for other kernels."""


def check_class_weights(loss: nn.Module, labels: np.ndarray, settings: LossSettings, task: str) -> None:
    """Prove that class weights weigh the positives of a label: compare gradients with those of the unweighted loss.

    A weight on the wrong axis trains without an error and costs score. For a row with label i alone, the weights must
    multiply the gradient of logit i by w_i and leave the others alone; if the task has one label per row, they must
    multiply all of the row's gradients by w_i.

    Args:   loss: what `build_loss` made, on any device; a loss that is not of label logits is not checked.
            labels: bool (n, L), the fold's training rows.
    Raises: UserError: they do something else.
    """
    if not isinstance(loss, RowLoss):
        return
    # float64, so that the comparison below is not one of roundings
    weights = build_pos_weight(labels, settings).double()
    plain = build_loss(replace(settings, pos_weight_power=0.0, label_smoothing=0.0), labels, task)
    weighted = deepcopy(loss).cpu()
    # smoothing gives a true label a negative part, whose gradient no weight multiplies
    if hasattr(weighted, "label_smoothing"):
        weighted.label_smoothing = 0.0
    found, without = (_gradients_of_single_labels(module.double(), len(weights)) for module in (weighted, plain))
    by_row = weights[:, None].expand(-1, len(weights))
    factors = by_row if task == "multiclass" else torch.where(torch.eye(len(weights), dtype=torch.bool), by_row, 1.0)
    wrong = ~torch.isclose(found, without * factors, rtol=1e-4, atol=1e-9)
    if wrong.any():
        i, j = (int(k) for k in wrong.nonzero()[0])
        raise UserError(
            f"Class weights change the wrong gradients: for a row with label {i} alone, logit {j} has gradient "
            f"{float(found[i, j]):.4g}, expected {float(without[i, j]):.4g} x {float(factors[i, j]):.4g}. Weights "
            "belong to a label's positives (pos_weight), not to its column (weight) nor to the row; see learners/losses"
        )


def _gradients_of_single_labels(loss: RowLoss, n_labels: int) -> torch.Tensor:
    """float64 (L, L): row i is the gradient of a row's logits when label i alone is true."""
    # different logits, so that a weight on a wrong label shows
    logits = torch.linspace(-1, 1, n_labels, dtype=torch.float64).repeat(n_labels, 1).requires_grad_()
    loss.of_rows(logits, torch.eye(n_labels, dtype=torch.float64)).sum().backward()
    return logits.grad


def sample_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU of up to about SAMPLE elements that this process holds of it."""
    flat = own_part(tensor).reshape(-1)
    # copied: the tensor itself goes on changing
    return flat[:: max(1, len(flat) // SAMPLE)].to("cpu", copy=True)


class FrozenWatch:
    """Proves that frozen parameters stay as they were: they are not saved with the fold. Remembers a sample of each."""

    def __init__(self, model: nn.Module):
        self.before = {name: sample_tensor(p) for name, p in model.named_parameters() if not p.requires_grad}

    def check(self, model: nn.Module) -> None:
        """Raise UserError if a parameter that was frozen has changed."""
        now = {name: sample_tensor(p) for name, p in model.named_parameters() if name in self.before}
        moved = [name for name, was in self.before.items() if not _same_bits(now[name], was)]
        if moved:
            raise UserError(
                f"Frozen parameters changed while training: {len(moved)} of {len(self.before)}, first {moved[0]}. They "
                "are not saved with the fold, so it could not be loaded again. Look for what writes to the base: "
                "adapters that were merged and not taken out, or an optimizer built before freezing"
            )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    # bits, as NaN is not equal to itself and quantised weights have no arithmetic
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


class MovementWatch:
    """Proves that training reaches what it should: head and adapters, or else some matrices, move in the first steps.

    Two steps are watched whose learning rate is large enough to show: LoRA's A has no gradient while its B is 0.
    """

    def __init__(self, model: nn.Module, scaler=None):
        """scaler: fp16's loss scaler, if there is one."""
        self.still = {name: sample_tensor(parameter) for name, parameter in _watched_parameters(model)}
        self.n_watched, self.steps_left, self.was_taken = len(self.still), 2, False
        self.scaler, self.scale = scaler, scaler.get_scale() if scaler else 0.0

    def after_step(self, model: nn.Module, optimizer, is_at_peak: bool) -> None:
        """Compare after an optimizer step. Raise UserError if some parameter has not moved by now."""
        if self._was_skipped(optimizer):
            return
        self.was_taken = True
        largest_lr = max(group["lr"] for group in optimizer.param_groups)
        parameters = dict(_watched_parameters(model))
        # those that have not moved since the start; a step back to the very same bits does not happen
        self.still = {name: was for name, was in self.still.items() if _same_bits(sample_tensor(parameters[name]), was)}
        self.steps_left -= bool(largest_lr >= MOVING_LR or is_at_peak)
        # a shard of this process may hold none of a parameter
        still = [name for name, was in self.still.items() if len(was)]
        if not self.steps_left and still:
            raise UserError(
                f"Trained parameters have not moved in the first steps: {len(still)} of {self.n_watched} watched (head "
                f"and adapters, or else some matrices of the layers), first {still[0]}. They are frozen, not in the "
                "optimizer, or get no gradient: see optimizer.lr, optimizer.head_lr and adapter.targets"
            )

    def check_end(self) -> None:
        """Raise UserError if every step of the whole training was skipped."""
        if self.scaler and not self.was_taken:
            raise UserError(
                "No step was taken: every gradient overflowed fp16, so the weights are as they were. "
                "Set --training.precision fp32, or bf16 if the hardware has it"
            )

    def _was_skipped(self, optimizer) -> bool:
        """Whether gradients overflowed. A fused optimizer skips in its own kernel: only the lowered scale shows it."""
        before, self.scale = self.scale, self.scaler.get_scale() if self.scaler else 0.0
        return getattr(optimizer, "step_was_skipped", False) or self.scale < before


def _watched_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Fresh parameters; if there are none, linear layers' matrices, evenly spread: a step changes all of each."""
    fresh = list(_fresh_parameters(model))
    if fresh:
        return fresh
    # a table of embeddings would not do: a step moves the rows that were read, and the sample may hold none of these
    own = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [(name, weight) for name, weight in model.named_parameters() if id(weight) in own - tables]
    return matrices[:: -(-len(matrices) // WATCHED_MATRICES) or 1]


def _fresh_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Head and adapters: names that begin with `head`, and all that is trained if the base is frozen."""
    has_frozen = any(not parameter.requires_grad for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("head") or (has_frozen and parameter.requires_grad):
            yield name, parameter


# 3. At the end, before the fold predicts: the file holds all of it, and padding does not change a prediction

UNSAVED = (
    "A part that was trained is not in weights.safetensors: it is not a parameter of the model, or was marked frozen "
    "after training. The fold could not be loaded again, so it is not written"
)
PADDED = (
    "Padding changes the prediction: a wrong pad token or padding side, an attention mask that is not used, or a "
    "pooling that counts positions from the end. See model.pad_token and model.pooling"
)


def choose_rows(lengths: np.ndarray, rows: np.ndarray, n_processes: int, device: str) -> np.ndarray:
    """A few of `rows`, of lengths as different as possible, that make one padded batch on every process."""
    n_rows = min(len(rows), max(4, 2 * n_processes))
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    # one batch, so that the longest row pads all others
    fitting = ordered[lengths[ordered] * n_rows <= TOKENS_PER_BATCH.get(device, 16384) * n_processes]
    fitting = fitting if len(fitting) else ordered[:1]
    return fitting[np.unique(np.linspace(0, len(fitting) - 1, n_rows).round().astype(int))]


def compare_logits(found: np.ndarray, expected: np.ndarray, precision: str, found_as: str, reasons: str) -> None:
    """Raise UserError if logits, float32 (n, L), differ by more than the precision explains.

    Args: found_as: how `found` was predicted, in words.   reasons: what may cause a difference.
    """
    difference = float(np.sqrt(np.mean((found - expected) ** 2, dtype=np.float64)))
    # in proportion to the logits, with 1 added for logits near 0
    allowed = TOLERANCE[precision] * (1 + float(np.sqrt(np.mean(expected**2, dtype=np.float64))))
    # not `>`: a difference of NaN must fail
    if not difference <= allowed:
        name = "fp32" if precision == "no" else precision
        raise UserError(
            f"Logits differ when predicted {found_as}: by {difference:.4g} in the root mean square over {len(found)} "
            f"held-out rows, at most {allowed:.4g} is expected in {name}. {reasons}"
        )


def check_end(learner, fold) -> None:
    """Prove that the saved file is the model, and that padding does not change predictions.

    A few held-out rows (training rows if none are held out) are predicted as the fold will be, after reloading the
    file, and each row alone. This is done in float32 if the weights are held in it, whatever the training computed in:
    rounding would hide a mistake. Of other weights a difference by padding is only a warning: on a GPU another shape of
    a batch means another kernel, and a finished fold is worth more than the suspicion.

    Args:   learner: a NeuralLearner.   fold: a trained BuiltFold whose weights are saved.
    Raises: UserError: what differs, by how much, and where to look.
    """
    accelerator = learner.accelerator
    model = accelerator.unwrap_model(fold.model)
    fold.frozen.check(model)
    if fold.movement is not None:
        fold.movement.check_end()
    lengths, checked = learner.tokens.lengths, fold.rows.heldout if len(fold.rows.heldout) else fold.rows.train
    rows = choose_rows(lengths, checked, accelerator.num_processes, accelerator.device.type)
    exact = is_held_in_float32(model)
    precision = "no" if exact else learner.precision
    with without_autocast(accelerator, model) if exact else nullcontext():
        together = learner.predict(fold.model, rows)
        reloaded = learner.predict(reload(learner, fold, model), rows)
        compare_logits(reloaded, together, precision, "after saving and reloading", UNSAVED)
        alone = learner.predict(fold.model, rows, tokens_in_batch=1)
        with nullcontext() if exact else only_warned(fold, alone):
            compare_logits(alone, together, precision, "each alone instead of in a padded batch", PADDED)


@contextmanager
def only_warned(fold, logits: np.ndarray) -> Iterator[None]:
    """A refusal inside becomes a line of the fold, unless the logits are no numbers."""
    try:
        yield
    except UserError as error:
        if not np.isfinite(logits).all():
            raise
        announce(fold_title(fold.rows.fold), f"warning: {error} The fold is kept, as kernels of a GPU differ by shape")


def reload(learner, fold, model: torch.nn.Module) -> torch.nn.Module:
    """The model as another process would load it: into a new one; or into this one, its trained weights zeroed before,
    if the base is shared by all folds or spread over processes."""
    tensors = fold.store.load_weights()
    if learner.builds_whole_model and not is_sharded(model):
        # the next seed draws another head, so a part that the file does not hold shows
        model = learner.build_fold_model(fold.rows, fold.seed + 1).to(learner.accelerator.device)
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
    """Inside, `model` computes in the precision of its weights; Accelerate has put an autocast around its forward."""
    prepared = {name: vars(model)[name] for name in ("forward", "_original_forward") if name in vars(model)}
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    try:
        yield
    finally:
        # Accelerate keeps the wrapped forward as an attribute of the instance
        vars(model).update(prepared)


@torch.no_grad()
def wipe(model: torch.nn.Module) -> None:
    """Zero everything that was trained."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            own_part(parameter).zero_()
