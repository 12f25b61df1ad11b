"""What a neural fold keeps on disk, so that it can be killed at any moment and go on with the same command.

While it trains, `checkpoint.safetensors` holds weights, the optimizer's moments and how far the fold has come, and
`candidate-*.safetensors` weights that it may end with. When it is done, `weights.safetensors` holds the weights alone.
Each file is written whole or not at all, and refused if it is damaged or of another training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.processes.devices import gather_whole, like
from foldblend.learners.training.weights import UNREADABLE, WEIGHTS, checksum, damaged, find_weights_file, write_tensors
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.nets import TrainingSettings
from foldblend.settings.records import describe_differences, with_defaults

CHECKPOINT = "checkpoint.safetensors"

# 1. The state of a training, and the file that holds it beside the tensors


@dataclass
class TrainState:
    """How far a fold has come. Everything else that changes is in the model, the optimizer and the weight average.

    The names of the fields are keys in the files of earlier releases too.
    """

    epoch: int = 0
    """Epochs that have ended."""
    step: int = 0
    """Optimizer steps done in the current epoch."""
    mean_loss: float = 0.0
    """Running mean of the training loss per row."""
    seconds: float = 0.0
    """Time spent on the fold up to the last save, earlier starts included."""
    history: list[dict] = field(default_factory=list)
    """Scores and loss of the held-out rows, one dict per evaluation."""
    scaler: dict = field(default_factory=dict)
    """State of the fp16 loss scaler; empty in other precisions."""


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], state: TrainState, identity: dict) -> None:
    """Write tensors, state and identity as one file, whole or not at all.

    Raises: OSError: the disk refused; an earlier file is untouched.
    """
    # safetensors refuses tensors that share memory or lie in strides
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # "place" is what the first release called the state
    metadata = {"place": json.dumps(vars(state)), "identity": json.dumps(identity), "crc32": _crc32(tensors)}
    write_tensors(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_checkpoint(path: Path, identity: dict) -> tuple[dict[str, torch.Tensor], TrainState] | None:
    """Read a file of `save_checkpoint`; None if it does not exist.

    Raises: UserError: the file is damaged, or belongs to other settings, data or folds.
    """
    if not path.exists():
        return None
    tensors, state, stored = read_checkpoint(path)
    # through JSON, as the stored one came: tuples are lists there
    differences = describe_differences(with_defaults(stored), json.loads(json.dumps(identity)))
    if differences:
        raise UserError(
            f"{path} is of another training: {'; '.join(differences)}. "
            "Start over with --overwrite, or keep both with --name NEW"
        )
    return tensors, state


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], TrainState, dict]:
    """Tensors, state and identity of a file of `save_checkpoint`, of any training. Raises UserError: it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state, stored = TrainState(**json.loads(metadata["place"])), json.loads(metadata["identity"])
        stated = metadata["crc32"]
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if stated != _crc32(tensors):
        raise damaged(path, "its checksum does not match")
    return tensors, state, stored


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a finished fold. Raises UserError: its file is missing or damaged."""
    return read_checkpoint(find_weights_file(folder))[0]


def _crc32(tensors: dict[str, torch.Tensor]) -> str:
    return checksum({name: tensor.reshape(-1).view(torch.uint8).numpy() for name, tensor in tensors.items()})


# 2. Model and optimizer as named tensors, and back


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state as `model.<name>`, without what is frozen: a fold of adapters does not save their base."""
    frozen = _frozen(model)
    state = model.state_dict(keep_vars=True)  # the parameters themselves, as they know how they are sharded
    return {f"model.{name}": value for name, value in state.items() if not name.startswith(frozen)}


def restore_model(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `model_tensors`. Raises UserError: names are missing or unknown, or a shape differs."""
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    here = model.state_dict(keep_vars=True)
    state = {name: like(value, here[name]) if name in here else value for name, value in state.items()}
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise UserError(f"saved weights do not fit the model: {error}") from error
    frozen = _frozen(model)  # once: a decoder's base has hundreds of names that are not saved
    missing = [name for name in missing if not name.startswith(frozen)]
    if missing or unknown:
        raise UserError(f"saved weights do not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")


def _frozen(model: nn.Module) -> tuple[str, ...]:
    """All names of frozen parameters, both names of a shared one; a quantised one's scales begin with its name."""
    named = model.named_parameters(remove_duplicate=False)
    return tuple(name for name, parameter in named if not parameter.requires_grad)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as flat names, `optimizer.<parameter number>.<key>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    # parameters are numbered in the order of the groups, so both starts must build the same groups
    state: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for i, values in state.items():
        for key, value in values.items():
            values[key] = like(value, parameters[i]) if value.shape == parameters[i].shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# 3. Selection: which weights a fold ends with, and the few candidates that are kept until that is known

BY_HELDOUT = ("best_score", "lowest_loss", "loss_and_score")
"""These choose by held-out rows."""


def choose(evaluations: Sequence[dict], how: str, near: float, metric: str) -> int:
    """Position of the evaluation whose weights are taken; `metric`: the score, a name in METRICS.

    Of equal ones the first is taken, after the better of the other measure. `loss_and_score` takes the best score
    among the evaluations whose loss is at most (1 + near) times the lowest.
    Example: losses .30 .25 .254 .29, scores .50 .55 .56 .60 -> best_score 3, lowest_loss 1, loss_and_score 2 at .02.
    """
    if how == "lowest_loss":
        return min(range(len(evaluations)), key=lambda i: (evaluations[i]["loss"], -_merit(evaluations[i], metric)))
    near_ones = range(len(evaluations)) if how == "best_score" else _near_lowest(evaluations, near)
    return min(near_ones, key=lambda i: (-_merit(evaluations[i], metric), evaluations[i]["loss"]))


def may_be_chosen(evaluations: Sequence[dict], how: str, near: float, metric: str) -> list[int]:
    """Positions that `choose` may still return once more evaluations have been appended, new ones aside."""
    if how != "loss_and_score" or not evaluations:
        return [choose(evaluations, how, near, metric)] if evaluations else []
    near_ones = _near_lowest(evaluations, near)
    # A later evaluation may lower the lowest loss, and with it the limit: i can then win only if nothing beats it in
    # both loss and score. This bounds how many files a fold keeps.
    return [i for i in near_ones if not any(_beats(evaluations, j, i, metric) for j in near_ones)]


def _merit(evaluation: dict, metric: str) -> float:
    """The score, larger being better."""
    return evaluation[metric] if METRICS[metric].greater_is_better else -evaluation[metric]


def _near_lowest(evaluations: Sequence[dict], near: float) -> list[int]:
    limit = min(each["loss"] for each in evaluations) * (1 + near)
    return [i for i, each in enumerate(evaluations) if each["loss"] <= limit]


def _beats(evaluations: Sequence[dict], j: int, i: int, metric: str) -> bool:
    """Whether j is taken before i wherever i could be: no further from the lowest loss, and no worse."""
    loss = evaluations[j]["loss"] - evaluations[i]["loss"]
    score = _merit(evaluations[j], metric) - _merit(evaluations[i], metric)
    return loss <= 0 <= score and (loss < 0 < score or loss != score or j < i)


class Selection:
    """The candidates of one fold, `candidate-<number>.safetensors` beside its checkpoint.

    Args: identity: what the fold learns from, of `describe_training`; a candidate of another training is refused.
    """

    def __init__(self, training: TrainingSettings, metric: str, folder: Path, identity: dict):
        self.training, self.metric, self.folder, self.identity = training, metric, folder, identity

    @property
    def by_heldout(self) -> bool:
        """Whether held-out rows decide."""
        return self.training.selection in BY_HELDOUT

    def needed(self, state: TrainState) -> list[int]:
        """Numbers of the candidates that a training in this state may still end with."""
        if self.by_heldout:
            near = self.training.loss_tolerance
            return may_be_chosen(state.history, self.training.selection, near, self.metric)
        averages = self.training.selection == "average_last" and self._averaged(state.epoch) > 0
        return [state.epoch] if averages else []

    def wants(self, state: TrainState, at_epoch_end: bool) -> bool:
        """Whether the weights of now, just evaluated if evaluations decide, must be kept."""
        # candidates are numbered by evaluation, or by epoch if no held-out row is read
        newest = len(state.history) - 1 if self.by_heldout else state.epoch
        return (self.by_heldout or at_epoch_end) and newest in self.needed(state)

    def keep(self, state: TrainState, tensors: dict[str, torch.Tensor]) -> None:
        """Write the newest candidate: these weights, or their mean with those of the epochs before."""
        number = len(state.history) - 1
        if not self.by_heldout:
            number, n_averaged = state.epoch, self._averaged(state.epoch)
            if n_averaged > 1:
                # the mean so far is the file of the epoch before, so that a resumed fold has it, too
                tensors = add_to_mean(self.load(number - 1), tensors, n_averaged)
        save_checkpoint(self._path(number), tensors, state, self.identity)

    def drop_all_but(self, numbers: Sequence[int]) -> None:
        """Remove the other candidates' files."""
        kept = {self._path(number) for number in numbers}
        for path in set(self.folder.glob("candidate-*.safetensors")) - kept:
            path.unlink(missing_ok=True)

    def check(self, state: TrainState) -> None:
        """Raise UserError if a candidate that `state` needs is missing, or its evaluations have another metric."""
        if any(self.metric not in evaluation for evaluation in state.history):
            raise UserError(
                f"{self.folder}: the checkpoint's evaluations have no {self.metric}; the competition's metric was "
                f"another one. {self._advice()}"
            )
        for number in self.needed(state):
            if not self._path(number).exists():
                raise UserError(f"{self._path(number)} is missing; the checkpoint needs it. {self._advice()}")

    def final(self, state: TrainState) -> int | None:
        """Number of the candidate that the fold ends with; None if it keeps the weights it has."""
        if self.by_heldout:
            return choose(state.history, self.training.selection, self.training.loss_tolerance, self.metric)
        return next(iter(self.needed(state)), None)

    def load(self, number: int) -> dict[str, torch.Tensor]:
        """A candidate's tensors. Raises UserError: it is damaged, missing or of another training."""
        found = load_checkpoint(self._path(number), self.identity)
        if found is None:
            raise UserError(f"{self._path(number)} is missing. {self._advice()}")
        return found[0]

    def _averaged(self, epoch: int) -> int:
        """How many of the epochs to average have ended when `epoch` epochs have."""
        return epoch - (self.training.epochs - self.training.average_last_epochs)

    def _path(self, number: int) -> Path:
        return self.folder / f"candidate-{number}.safetensors"

    def _advice(self) -> str:
        return f"Train the fold again: rm -r '{self.folder}' and run the same command"


def add_to_mean(mean: dict[str, torch.Tensor], new: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
    """The mean of n tensors per name, from the mean of n - 1 and the new one; integers are the new ones."""
    return {
        name: torch.lerp(mean[name], tensor, 1 / n) if tensor.is_floating_point() else tensor
        for name, tensor in new.items()
    }


# 4. The files of one fold


class FoldStore:
    """Saves and restores one fold. Every process calls every method, as shards are gathered; the first one writes.

    Args: model, optimizer: as Accelerate prepared them.   average: the running mean of the weights, if there is one.
    """

    def __init__(self, accelerator, model, optimizer, average, selection: Selection):
        self.accelerator, self.optimizer, self.average, self.selection = accelerator, optimizer, average, selection
        self.model, self.folder, self.identity = accelerator.unwrap_model(model), selection.folder, selection.identity

    def save_checkpoint(self, state: TrainState) -> None:
        """Everything that a resumed fold needs; then remove the candidates that are no longer needed."""
        tensors = model_tensors(self.model) | optimizer_tensors(self.optimizer)
        tensors |= self.average.tensors() if self.average is not None else {}
        state.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        self._write(CHECKPOINT, tensors, state)
        if self.accelerator.is_main_process:
            # only now: the checkpoint before this one may need what is dropped
            self.selection.drop_all_but(self.selection.needed(state))

    def save_candidate(self, state: TrainState) -> None:
        """The model's weights of now, as the newest candidate."""
        tensors = gather_whole(model_tensors(self.model), self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            self.selection.keep(state, tensors)
        self.accelerator.wait_for_everyone()

    def save_weights(self, state: TrainState) -> None:
        """The finished weights; checkpoint and candidates are removed."""
        self._write(WEIGHTS, model_tensors(self.model), state)
        self._remove_the_rest()

    @staticmethod
    def has_saved(folder: Path) -> bool:
        """Whether there is something to restore."""
        return any((folder / name).exists() for name in (WEIGHTS, CHECKPOINT))

    def restore(self) -> TrainState:
        """Load the finished weights, else the checkpoint, else start at the beginning."""
        found = load_checkpoint(self.folder / WEIGHTS, self.identity)
        if found is not None:
            tensors, state = found
            restore_model(self.model, tensors)
            self._remove_the_rest()
            return state
        found = load_checkpoint(self.folder / CHECKPOINT, self.identity)
        if found is None:
            return TrainState()
        tensors, state = found
        # before anything is loaded: a missing candidate would show only at the end of the training
        self.selection.check(state)
        restore_model(self.model, tensors)
        restore_optimizer(self.optimizer, tensors)
        if self.average is not None:
            self.average.restore(tensors)
        # empty if the checkpoint was written in another precision: the scaler then begins as in a new fold
        if self.accelerator.scaler and state.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        return state

    def load_weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the finished fold's file, on every process."""
        self.accelerator.wait_for_everyone()
        found = load_checkpoint(self.folder / WEIGHTS, self.identity)
        if found is None:
            raise UserError(
                f"{self.folder / WEIGHTS} is missing on a machine of this launch: the first process has written it. "
                "Share that folder between the machines"
            )
        return found[0]

    def _write(self, name: str, tensors: dict[str, torch.Tensor], state: TrainState) -> None:
        tensors = gather_whole(tensors, self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder / name, tensors, state, self.identity)

    def _remove_the_rest(self) -> None:
        if self.accelerator.is_main_process:
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
            self.selection.drop_all_but([])
