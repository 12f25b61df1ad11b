"""A fold saves itself in one safetensors file, replaced whole, and refuses one that is damaged or of another training.

While it trains, `checkpoint.safetensors` holds weights, AdamW's moments and the place in the data, and
`candidate-*.safetensors` weights that it may end with; when it is done, `weights.safetensors` holds the weights alone.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.processes import zero3
from foldblend.learners.processes.sharding import gather_whole, like, own_part, publish
from foldblend.learners.training.weights import WEIGHTS, checksum, cure, write_whole
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.loading import describe_differences, with_defaults
from foldblend.settings.run import TrainingSettings

# ----------
# A fold saves itself in one safetensors file, replaced whole, and refuses one that is damaged or of another training.


CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Place:
    """How far a fold has come."""

    epoch: int = 0
    step: int = 0
    """Optimiser steps done in `epoch`."""
    mean_loss: float = 0.0
    """Running mean of the training loss."""
    seconds: float = 0.0
    """Time spent, earlier starts included."""
    history: list[dict] = field(default_factory=list)
    """Scores and loss of the held-out rows, one dict a look at them."""
    scaler: dict = field(default_factory=dict)
    """State of the fp16 loss scaler."""


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], place: Place, identity: dict) -> None:
    """Write tensors, place and identity as one file, whole or not at all.

    Raises: OSError: the disk refused; the file of before is untouched.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"place": json.dumps(vars(place)), "identity": json.dumps(identity), "crc32": _crc32(tensors)}
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_checkpoint(path: Path, identity: dict) -> tuple[dict[str, torch.Tensor], Place] | None:
    """Read a file of `save_checkpoint`; None where there is none.

    Raises: ValueError: the file is damaged, or belongs to other settings, data or folds.
    """
    if not path.exists():
        return None
    tensors, place, stored = read_checkpoint(path)
    differences = describe_differences(with_defaults(stored), json.loads(json.dumps(identity)))
    if differences:
        raise UserError(
            f"{path} is of another training: {'; '.join(differences)}. "
            "Start over with --overwrite, or keep both with --name NEW"
        )
    return tensors, place


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], Place, dict]:
    """Tensors, place and identity of a file of `save_checkpoint`, whatever it is of.

    Raises: ValueError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        place, stored = Place(**json.loads(metadata["place"])), json.loads(metadata["identity"])
        stated = metadata["crc32"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}). {cure(path)}") from error
    if stated != _crc32(tensors):
        raise UserError(f"{path} is damaged (its checksum does not match). {cure(path)}")
    return tensors, place, stored


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a finished fold left in its folder. Raises ValueError: it is not there, or damaged."""
    path = folder / WEIGHTS
    if not path.exists():
        raise UserError(f"{path} is missing: the fold was not trained here, or not to its end")
    return read_checkpoint(path)[0]


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state as `model.<name>`, without what is frozen: a fold of adapters does not save their base."""
    frozen, state = _frozen(model), model.state_dict(keep_vars=True)  # parameters themselves say how they are cut
    return {f"model.{name}": value for name, value in state.items() if not name.startswith(frozen)}


def restore_model(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `model_tensors`. Raises ValueError when names are missing or unknown."""
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    here = model.state_dict(keep_vars=True)
    state = {name: like(value, here[name]) if name in here else value for name, value in state.items()}
    cut = {name: value for name, value in state.items() if isinstance(value, zero3.Cut)}
    try:
        missing, unknown = model.load_state_dict({n: v for n, v in state.items() if n not in cut}, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise UserError(f"saved weights do not fit the model: {error}") from error
    _write_cut(cut.values())
    missing = [name for name in missing if name not in cut and not name.startswith(_frozen(model))]
    if missing or unknown:
        raise UserError(f"saved weights do not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")


@torch.no_grad()
def _write_cut(values: Iterable[zero3.Cut]) -> None:
    """Put them where their parameters' stretches are."""
    for value in values:
        own_part(value.parameter).copy_(value.part)
    publish(value.parameter for value in values)


def _frozen(model: nn.Module) -> tuple[str, ...]:
    """All names of frozen parameters, also of one that stands in two places; a quantised one's scales begin with it."""
    named = model.named_parameters(remove_duplicate=False)
    return tuple(name for name, parameter in named if not parameter.requires_grad)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as flat names, `optimizer.<parameter number>.<key>`."""
    if zero3.owns(optimizer):
        return zero3.optimizer_tensors(optimizer)
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    state: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = value
    if zero3.owns(optimizer):
        zero3.restore_optimizer(optimizer, state)
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for i, values in state.items():
        for key, value in values.items():
            values[key] = like(value, parameters[i]) if value.shape == parameters[i].shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _crc32(tensors: dict[str, torch.Tensor]) -> str:
    return checksum({name: tensor.reshape(-1).view(torch.uint8).numpy() for name, tensor in tensors.items()})


# ---------- Which weights a fold ends with, and the few candidates that are kept on disk until that is known.


LOOKING = ("best_score", "lowest_loss", "loss_and_score")
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


def still_in_play(evaluations: Sequence[dict], how: str, near: float, metric: str) -> list[int]:
    """Positions that `choose` may still return once more evaluations have been appended, the new ones aside."""
    if how != "loss_and_score" or not evaluations:
        return [choose(evaluations, how, near, metric)] if evaluations else []
    near_ones = _near_lowest(evaluations, near)
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
    """The candidates of one fold, `candidate-<number>.safetensors` beside its checkpoint."""

    def __init__(self, training: TrainingSettings, metric: str, folder: Path, identity: dict):
        self.training, self.metric, self.folder, self.identity = training, metric, folder, identity

    @property
    def looks(self) -> bool:
        """Whether held-out rows decide."""
        return self.training.selection in LOOKING

    def needed(self, place: Place) -> list[int]:
        """Numbers of the candidates that a training at `place` counts on."""
        if self.looks:
            return still_in_play(place.history, self.training.selection, self.training.loss_tolerance, self.metric)
        averages = self.training.selection == "average_last" and self._averaged(place.epoch) > 0
        return [place.epoch] if averages else []

    def wants(self, place: Place, at_epoch_end: bool) -> bool:
        """Whether the weights at `place`, just evaluated where evaluations decide, must be kept."""
        newest = len(place.history) - 1 if self.looks else place.epoch
        return (self.looks or at_epoch_end) and newest in self.needed(place)

    def keep(self, place: Place, tensors: dict[str, torch.Tensor]) -> None:
        """Write the candidate of `place`: its weights, or their mean with the epochs before."""
        number = len(place.history) - 1
        if not self.looks:
            number, n_averaged = place.epoch, self._averaged(place.epoch)
            if n_averaged > 1:
                tensors = add_to_mean(self.load(number - 1), tensors, n_averaged)
        save_checkpoint(self._path(number), tensors, place, self.identity)

    def drop_all_but(self, numbers: Sequence[int]) -> None:
        """Remove the other candidates' files."""
        kept = {self._path(number) for number in numbers}
        for path in set(self.folder.glob("candidate-*.safetensors")) - kept:
            path.unlink(missing_ok=True)

    def check(self, place: Place) -> None:
        """Raise ValueError where a candidate that `place` counts on is gone, or its scores are of another metric."""
        if any(self.metric not in evaluation for evaluation in place.history):
            raise UserError(
                f"{self.folder}: the checkpoint there has no {self.metric} of its looks at the held-out rows; the "
                f"competition's metric was another one. {self._cure()}"
            )
        for number in self.needed(place):
            if not self._path(number).exists():
                raise UserError(f"{self._path(number)} is gone, the checkpoint beside it counts on it. {self._cure()}")

    def final(self, place: Place) -> int | None:
        """Number of the candidate that a fold at its end takes; None where it keeps the weights it has."""
        if self.looks:
            return choose(place.history, self.training.selection, self.training.loss_tolerance, self.metric)
        return next(iter(self.needed(place)), None)

    def load(self, number: int) -> dict[str, torch.Tensor]:
        """A candidate's tensors. Raises ValueError where it is damaged, gone or of another training."""
        found = load_checkpoint(self._path(number), self.identity)
        if found is None:
            raise UserError(f"{self._path(number)} is gone. {self._cure()}")
        return found[0]

    def _averaged(self, epoch: int) -> int:
        """How many of the epochs to average have ended when `epoch` epochs have."""
        return epoch - (self.training.epochs - self.training.average_last_epochs)

    def _path(self, number: int) -> Path:
        return self.folder / f"candidate-{number}.safetensors"

    def _cure(self) -> str:
        return f"Train the fold anew: rm -r '{self.folder}' and run the same command again"


def add_to_mean(mean: dict[str, torch.Tensor], new: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
    """The mean of n tensors of each name, from the mean of n - 1 and the new one; whole numbers are the new ones."""
    return {
        name: torch.lerp(mean[name], tensor, 1 / n) if tensor.is_floating_point() else tensor
        for name, tensor in new.items()
    }


# ---------- What a fold keeps on disk while it trains: its checkpoint, its candidates, and in the end its weights.


class FoldStore:
    """Files of one fold. Every process calls every method, as shards are gathered; the first one writes."""

    def __init__(self, accelerator, model, optimizer, average, folder: Path, identity: dict):
        self.accelerator, self.optimizer, self.average = accelerator, optimizer, average
        self.model, self.folder, self.identity = accelerator.unwrap_model(model), folder, identity

    def save_checkpoint(self, place: Place, selection: Selection) -> None:
        """Everything that going on takes; then the candidates it does not count on are removed."""
        tensors = model_tensors(self.model) | optimizer_tensors(self.optimizer)
        tensors |= self.average.tensors() if self.average is not None else {}
        place.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        self._write(CHECKPOINT, tensors, place)
        if self.accelerator.is_main_process:
            selection.drop_all_but(selection.needed(place))

    def save_candidate(self, place: Place, selection: Selection) -> None:
        """The model's weights as they stand, as the newest candidate."""
        tensors = gather_whole(model_tensors(self.model), self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            selection.keep(place, tensors)
        self.accelerator.wait_for_everyone()

    def save_weights(self, place: Place, selection: Selection) -> None:
        """The finished weights; they replace checkpoint and candidates."""
        self._write(WEIGHTS, model_tensors(self.model), place)
        if self.accelerator.is_main_process:
            self._tidy(selection)

    @staticmethod
    def has_saved(folder: Path) -> bool:
        """Whether there is something to restore."""
        return any((folder / name).exists() for name in (WEIGHTS, CHECKPOINT))

    def restore(self, selection: Selection) -> Place:
        """Load the finished weights, else the checkpoint, else stand at the beginning."""
        found = load_checkpoint(self.folder / WEIGHTS, self.identity)
        if found is not None:
            restore_model(self.model, found[0])
            if self.accelerator.is_main_process:
                self._tidy(selection)
            return found[1]
        found = load_checkpoint(self.folder / CHECKPOINT, self.identity)
        if found is None:
            return Place()
        tensors, place = found
        selection.check(place)
        restore_model(self.model, tensors)
        restore_optimizer(self.optimizer, tensors)
        if self.average is not None:
            self.average.restore(tensors)
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(place.scaler)
        return place

    def load_weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the finished fold's file."""
        self.accelerator.wait_for_everyone()
        found = load_checkpoint(self.folder / WEIGHTS, self.identity)
        if found is None:
            raise UserError(
                f"{self.folder / WEIGHTS} is not there for every process; share its folder between machines"
            )
        return found[0]

    def _write(self, name: str, tensors: dict[str, torch.Tensor], place: Place) -> None:
        tensors = gather_whole(tensors, self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder / name, tensors, place, self.identity)

    def _tidy(self, selection: Selection) -> None:
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        selection.drop_all_but([])
