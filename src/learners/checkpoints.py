"""A fold saves itself in one safetensors file, replaced whole, and refuses one that is damaged or of another training.

While it trains, `checkpoint.safetensors` holds weights, AdamW's moments and the place in the data; when it is done,
`weights.safetensors` holds the weights alone.
"""

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from settings.strict import describe_differences

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"


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
    """Scores shown at the end of each epoch."""
    scaler: dict = field(default_factory=dict)
    """State of the fp16 loss scaler."""


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], place: Place, identity: dict) -> None:
    """Write tensors, place and identity as one file, whole or not at all.

    Raises: OSError: the disk refused; the file of before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"place": json.dumps(vars(place)), "identity": json.dumps(identity), "crc32": _crc32(tensors)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        cure = "Free space or choose another disk; what was saved before is whole"
        raise OSError(f"{path}: cannot be saved ({error}). {cure}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, identity: dict) -> tuple[dict[str, torch.Tensor], Place] | None:
    """Read a file of `save_checkpoint`; None where there is none.

    Raises: ValueError: the file is damaged, or belongs to other settings, data or folds.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        place, stored = Place(**json.loads(metadata["place"])), json.loads(metadata["identity"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}). {_cure(path)}") from error
    if metadata["crc32"] != _crc32(tensors):
        raise ValueError(f"{path} is damaged (its checksum does not match). {_cure(path)}")
    differences = describe_differences(stored, json.loads(json.dumps(identity)))
    if differences:
        raise ValueError(
            f"{path} is of another training: {'; '.join(differences)}. "
            "Start over with --overwrite, or keep both with --name NEW"
        )
    return tensors, place


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state as `model.<name>`, without what is frozen: a fold of adapters does not save their base."""
    frozen = _frozen(model)
    return {f"model.{name}": value for name, value in model.state_dict().items() if not name.startswith(frozen)}


def restore_model(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `model_tensors`. Raises ValueError when names are missing or unknown."""
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    missing, unknown = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith(_frozen(model))]
    if missing or unknown:
        raise ValueError(f"saved weights do not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")


def _frozen(model: nn.Module) -> tuple[str, ...]:
    """All names of frozen parameters, also of one that stands in two places; a quantised one's scales begin with it."""
    named = model.named_parameters(remove_duplicate=False)
    return tuple(name for name, parameter in named if not parameter.requires_grad)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as flat names, `optimizer.<parameter number>.<key>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    state: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _crc32(tensors: dict[str, torch.Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def _cure(path: Path) -> str:
    return f"Train the fold anew: rm '{path}' and run the same command again"
