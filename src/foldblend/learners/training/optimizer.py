"""AdamW and its parameter groups, the learning rate of a step, clipping, adversarial steps, the mean of the weights."""

import importlib.util
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.cpu.waiting_rows import RowAdamW, choose_table, clip_rows, sum_rows
from foldblend.learners.processes.devices import as_part, like, own_part
from foldblend.settings.nets import AdversarialSettings, OptimizerSettings
from foldblend.settings.run import RunSettings

# 1. The optimizer and its parameter groups


def build_fold_optimizer(model: nn.Module, run: RunSettings, accelerator) -> torch.optim.Optimizer:
    """The optimizer of one fold; on a CPU it may leave rows of the word embeddings alone until they are read.

    Raises: UserError: the settings ask for what this launch, or this machine, cannot do.
    """
    table = choose_table(model, run, accelerator.device, accelerator.num_processes)
    return build_optimizer(model, run.optimizer, table)


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, table: nn.Embedding | None = None
) -> torch.optim.Optimizer:
    """AdamW with one group per peak rate (encoder, head, or one per layer) and weight decay.

    Each group keeps its `peak_lr`, which `set_lr` scales. Biases and norms, of one dimension, have no weight decay.

    Args:   table: the embeddings whose rows wait until they are read, of `choose_table`; None if all rows move.
    Raises: UserError: 8-bit moments without the package that keeps them.
    """
    shares = layer_shares(model, settings.layer_decay)
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            peak_lr = settings.head_lr if name.startswith("head") else settings.lr * shares.get(name, 1.0)
            # decay would pull a norm's gain to 0, which scales the layer away rather than keeping it simple
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((peak_lr, decay), []).append(parameter)
    listed = [{"params": p, "lr": lr, "peak_lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    betas = (settings.beta1, settings.beta2)
    if settings.state_precision == "8bit":
        optimizer = _build_8bit(listed, model, betas, settings.eps)
    elif table is not None:
        optimizer = RowAdamW(listed, table, betas, settings.eps)
    else:
        optimizer = torch.optim.AdamW(listed, betas=betas, eps=settings.eps, fused=True)
    # a checkpoint of the other kind would load without an error and train something else
    optimizer.register_load_state_dict_pre_hook(_check_same_rows)
    return optimizer


def _build_8bit(listed: list[dict], model: nn.Module, betas: tuple[float, float], eps: float):
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("optimizer.state_precision 8bit needs the package bitsandbytes. Run: pip install bitsandbytes")
    return _adamw_8bit()(listed, model, betas, eps)


@cache
def _adamw_8bit() -> type[torch.optim.Optimizer]:
    """AdamW whose moments take 8 bits per weight; its state is saved and restored as plain tensors.

    The class is made when it is first needed: importing bitsandbytes takes seconds and 45 MB, in every process.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on CPUs it asks for one more package of kernels
    from bitsandbytes import optim

    class AdamW8bit(optim.AdamW8bit):
        """bitsandbytes' AdamW: moments as 8-bit numbers, every 256 of them with a float32 scale of their own.

        Embeddings, whose gradients differ widely in size, and tensors below 4,096 weights keep float32 moments.

        Source: Dettmers et al. 2022, arXiv:2110.02861, sections 2.1 and 2.3.
        """

        def __init__(self, groups: list[dict], model: nn.Module, betas: tuple[float, float], eps: float):
            super().__init__(groups, betas=betas, eps=eps)
            tables = (module.weight for module in model.modules() if isinstance(module, nn.Embedding))
            self.tables = {id(weight) for weight in tables}

        def get_config(self, gindex, pindex, group):
            """What bitsandbytes calls for each tensor's settings at each step."""
            config = super().get_config(gindex, pindex, group)
            is_table = id(group["params"][pindex]) in self.tables
            return config | {"optim_bits": 32} if is_table else config

        def state_dict(self) -> dict:
            """As torch's own: every value of the state is a tensor, none shares its memory with another."""
            saved = super().state_dict()
            for state in saved["state"].values():
                state |= state.pop(self._FSDP_WRAPPED_QUANT_STATE_KEY, {})
                # an int there, which no file of tensors holds
                state["step"] = torch.tensor(state["step"])
                for name in state.keys() & {"qmap1", "qmap2"}:  # one table of the 256 values serves all
                    state[name] = state[name].clone()
            return saved

        def load_state_dict(self, state_dict: dict) -> None:
            """The reverse of `state_dict`."""
            state = {i: {**values, "step": int(values["step"])} for i, values in state_dict["state"].items()}
            super().load_state_dict({**state_dict, "state": state})

    return AdamW8bit


def layer_shares(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Parameter name -> share of the encoder's learning rate, if it is below 1.

    The top layer has 1, each layer below `layer_decay` times the one above it, and everything called embedding the
    least.
    Example: 2 layers, 0.9 -> embeddings 0.81, first layer 0.9, second layer 1.
    Raises: UserError: the model has no list of as many layers as its config counts.
    Source: Howard and Ruder 2018, arXiv:1801.06146, section 3.2; Clark et al. 2020, arXiv:2003.10555, appendix A.
    """
    if layer_decay == 1:
        return {}
    prefix, layers = _find_layers(model)
    n_layers, shares = len(layers), {}
    for name, _ in model.named_parameters():
        if name.startswith(prefix):
            below_top = n_layers - 1 - int(name.removeprefix(prefix).split(".", 1)[0])
            shares[name] = layer_decay**below_top
        elif "embed" in name:
            shares[name] = layer_decay**n_layers
    return shares


def _find_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """What the names of the layers' parameters begin with, and the layers."""
    for module in model.modules():
        n_layers = getattr(getattr(module, "config", None), "num_hidden_layers", None)
        for name, layers in model.named_modules():
            if n_layers and isinstance(layers, nn.ModuleList) and len(layers) == n_layers:
                return f"{name}.", layers
    raise UserError(
        f"optimizer.layer_decay: {type(model).__name__} has no list of layers as long as its config says; set it to 1"
    )


def _check_same_rows(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    """Raise UserError if a saved state has rows that wait and this optimizer has none, or the reverse."""
    there = any("drift" in state for state in saved["state"].values())
    here = isinstance(optimizer, RowAdamW)
    if saved["state"] and there != here:
        kinds = {True: "the touched rows of the embeddings", False: "all rows of the embeddings"}
        raise UserError(
            f"The checkpoint updated {kinds[there]}, this training would update {kinds[here]} (another device or "
            "number of processes). Go on where it began, or start over with --overwrite"
        )


# 2. One step: learning rate and clipping


def lr_factor(step: int, n_steps: int, settings: OptimizerSettings) -> float:
    """Share of the peak rate at optimizer step `step`, counted from 0.

    Example: linear, n_steps=10, warmup_fraction=0.2 -> 0.5, 1.0, 1.0, 0.875, ..., 0.125
    """
    # rounded up, and counted from 1: the first step has a rate above 0, or it would be wasted
    n_warmup = settings.warmup_steps or math.ceil(settings.warmup_fraction * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[settings.schedule]


def check_warmup(n_steps: int, settings: OptimizerSettings) -> None:
    """Raise UserError if the warm-up is as long as the training: the peak rate would never be reached."""
    if settings.warmup_steps >= n_steps:
        raise UserError(
            f"optimizer.warmup_steps is {settings.warmup_steps}, the training has {n_steps} steps; "
            "lower it, or set it to 0 and --optimizer.warmup_fraction 0.1"
        )


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def clip_gradients(accelerator, prepared, model: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale all gradients down to `max_norm` together; 0 leaves them. Returns the norm they had, a scalar.

    Of sharded gradients it is the norm of this process's part. With fp16's loss scaler it is 0: the scaler itself
    skips a step that overflows.

    Args: prepared: the optimizer that Accelerate made of `build_optimizer`'s.
    """
    # with an infinite bound nothing is scaled, and the norm is still measured for the history
    bound = max_norm or math.inf
    if isinstance(prepared.optimizer, RowAdamW):
        return clip_rows([weight for group in prepared.param_groups for weight in group["params"]], bound)
    norm = own_part(accelerator.clip_grad_norm_(model.parameters(), bound))
    # an overflowed fp16 step has an infinite norm, which is no fault: the scaler skips it and lowers its scale
    return torch.zeros_like(norm) if accelerator.scaler else norm


# 3. Adversarial training: gradients taken where the loss is higher; weights move along theirs and move back

TINY = 1e-6


class Adversary:
    """Moves weights for a second gradient of the same step.

    The move follows the gradient of the whole step, from all micro-batches and processes, so it is the same however the
    step was split. Only its direction counts, so the scale of an fp16 loss does not matter.
    """

    keeps_gradient: bool
    """Whether the second gradient is added to the first one; else it replaces it."""

    def __init__(self, model: nn.Module, settings: AdversarialSettings):
        self.model, self.settings = model, settings

    @staticmethod
    def asks(weight: nn.Parameter) -> bool:
        """Whether a gradient without a direction is found by asking for its norm. On a GPU each answer would wait for
        all work so far, twice per matrix; there the weights that stay are chosen on the device, with the same bits."""
        return weight.device.type == "cpu"

    def acts_in(self, epoch: int) -> bool:
        """Whether there is an attack in `epoch`, counted from 0."""
        return epoch + 1 >= self.settings.start_epoch

    @contextmanager
    def attack(self) -> Iterator[None]:
        """Inside, the weights are moved along the gradients that the model holds; afterwards they are as before.

        Raises: UserError: no gradient reached the weights to move.
        """
        targets = [weight for weight in self.targets() if weight.grad is not None]
        if not targets:
            raise UserError(f"adversarial.name {self.settings.name}: no gradient reached the weights it would move")
        # a copy rather than a move back: weight + d - d is not weight in floating point
        restores = [_keep(weight) for weight in targets]
        with torch.no_grad():
            for weight in targets:
                self.move(weight)
        if not self.keeps_gradient:
            self.model.zero_grad(set_to_none=True)
        try:
            yield
        finally:
            with torch.no_grad():
                for restore in restores:
                    restore()

    def targets(self) -> list[nn.Parameter]:
        """The weights that may be moved."""
        raise NotImplementedError

    def move(self, weight: nn.Parameter) -> None:
        """Move one weight, in place, along its gradient."""
        raise NotImplementedError


class FastGradientMethod(Adversary):
    """The word embeddings move by `epsilon` along their gradient; the attacked loss is added to the plain one.

    Source: Miyato et al. 2017, arXiv:1605.07725, eq. 5; on the table of embeddings rather than on each text's.
    """

    keeps_gradient = True

    def targets(self) -> list[nn.Parameter]:
        return [find_embeddings(self.model)]

    def move(self, weight: nn.Parameter) -> None:
        norm = (weight.grad._values() if weight.grad.is_sparse else weight.grad).norm()
        shows_direction = torch.isfinite(norm) & (norm > 0)  # an overflowed fp16 step is skipped by the loss scaler
        if not self.asks(weight):
            weight.add_(torch.where(shows_direction, weight.grad * (self.settings.epsilon / norm), 0.0))
        elif shows_direction:
            weight.add_(weight.grad * (self.settings.epsilon / norm))


class WeightPerturbation(Adversary):
    """Every matrix moves by `awp_lr` of its own norm, no weight by more than `epsilon` of its size.

    Source: Wu et al. 2020, arXiv:2004.05884, eq. 8 to 10; the bound per weight as in Kaggle solutions.
    """

    keeps_gradient = False

    def targets(self) -> list[nn.Parameter]:
        return [weight for weight in self.model.parameters() if weight.requires_grad and weight.ndim >= 2]

    def move(self, weight: nn.Parameter) -> None:
        norm = weight.grad.norm()
        shows_direction = torch.isfinite(norm) & (norm > 0)
        if not self.asks(weight) or shows_direction:
            # relative to the matrix's own size, as layers' weights differ by orders of magnitude
            moved = weight + weight.grad * (self.settings.awp_lr * (weight.norm() + TINY) / (norm + TINY))
            most = self.settings.epsilon * weight.abs()
            moved = torch.clamp(moved, weight - most, weight + most)
            weight.copy_(moved if self.asks(weight) else torch.where(shows_direction, moved, weight))


def _keep(weight: nn.Parameter) -> Callable[[], None]:
    """What puts `weight` back as it is now; of one with a sparse gradient, the rows that have one."""
    if weight.grad.is_sparse:
        weight.grad = sum_rows(weight.grad)
        rows = weight.grad.indices()[0]
        values = weight.detach()[rows]
        return lambda: weight.index_copy_(0, rows, values)
    whole = weight.detach().clone()
    return lambda: weight.copy_(whole)


ADVERSARIES = {"fgm": FastGradientMethod, "awp": WeightPerturbation}


def build_adversary(model: nn.Module, settings: AdversarialSettings) -> Adversary | None:
    """The adversary that the settings name; None for `none`."""
    return None if settings.name == "none" else ADVERSARIES[settings.name](model, settings)


def find_embeddings(model: nn.Module) -> nn.Parameter:
    """The table of word embeddings of the transformers model inside. Raises UserError: it is not trained."""
    for module in model.modules():
        if hasattr(module, "get_input_embeddings"):
            weight = module.get_input_embeddings().weight
            if weight.requires_grad:
                return weight
    raise UserError("adversarial.name fgm: this model trains no word embeddings; use awp or none")


# 4. The weights that are evaluated and saved


@contextmanager
def evaluated_weights(prepared, average: "WeightAverage | None") -> Iterator[None]:
    """Inside, the model holds the weights to evaluate or keep: every row up to date, the running mean if there is one.

    Args: prepared: the optimizer that Accelerate made of `build_optimizer`'s.
    """
    if isinstance(prepared.optimizer, RowAdamW):
        prepared.optimizer.update_waiting_rows()
    with average.swapped() if average is not None else nullcontext():
        yield


class WeightAverage:
    """Exponential moving average of every trained parameter, in float32; evaluations and predictions use it.

    Source: Polyak and Juditsky 1992; the warm-up of the decay as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.names, self.parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))
        self.averages = [part.float().clone() for part in self._parts()]

    def _parts(self) -> list[torch.Tensor]:
        """What this process holds of each parameter."""
        return [own_part(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after optimizer step `step`, counted from 0; early steps keep less, (1 + t) / (10 + t).

        Example: decay 0.99 -> 0.1 of the start is kept at step 0, 0.5 at step 8, 0.99 from step 890 on.
        """
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [part.float() for part in self._parts()], 1 - kept)

    def write_into_model(self) -> None:
        """Put the averages into the model, for good."""
        self._write(self.averages)

    @torch.no_grad()
    def _write(self, parts: list[torch.Tensor]) -> None:
        for own, part in zip(self._parts(), parts):
            own.copy_(part)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model holds the averages inside, and exactly its own weights again afterwards."""
        own = [part.clone() for part in self._parts()]
        self.write_into_model()
        try:
            yield
        finally:
            self._write(own)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages as `ema.<name>`, for a checkpoint."""
        named = zip(self.names, self.averages, self.parameters)
        return {f"ema.{name}": as_part(average, parameter) for name, average, parameter in named}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """The reverse of `tensors`."""
        for name, average, parameter in zip(self.names, self.averages, self.parameters):
            average.copy_(own_part(like(tensors[f"ema.{name}"], parameter)))
