"""A fold saves itself in one safetensors file, replaced whole, and refuses one that is damaged or of another training.

While it trains, `checkpoint.safetensors` holds weights, AdamW's moments and the place in the data, and
`candidate-*.safetensors` weights that it may end with; when it is done, `weights.safetensors` holds the weights alone.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from learners import zero3
from learners.sharding import like, own_part, publish
from learners.whole_files import WEIGHTS, checksum, cure, write_whole
from settings.older import with_defaults
from settings.strict import describe_differences

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
        raise ValueError(
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
        raise ValueError(f"{path} is damaged ({error}). {cure(path)}") from error
    if stated != _crc32(tensors):
        raise ValueError(f"{path} is damaged (its checksum does not match). {cure(path)}")
    return tensors, place, stored


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a finished fold left in its folder. Raises ValueError: it is not there, or damaged."""
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(f"{path} is missing: the fold was not trained here, or not to its end")
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
        raise ValueError(f"saved weights do not fit the model: {error}") from error
    _write_cut(cut.values())
    missing = [name for name in missing if name not in cut and not name.startswith(_frozen(model))]
    if missing or unknown:
        raise ValueError(f"saved weights do not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")


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
