"""Tokens on disk: made once, named by the hash of what they were made of, shared by runs, folds and processes."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
import transformers

from learners.tokens import Tokens
from learners.whole_files import checksum

FORMAT = 1
"""Raised when tokens are made in another way."""

TOKENIZER_FILES = (
    *("*token*.json", "vocab*", "merges.txt", "*.model", "config.json"),
    *("*.jinja", "additional_chat_templates/*.jinja"),
)
"""What a tokenizer and its chat templates are read from, in a folder of weights."""


def load_or_make(
    cache_dir: Path | None, weights: Path, texts: Sequence[str], settings: dict, make: Callable[[], Tokens]
) -> Tokens:
    """The tokens that `make` makes, mapped from disk where they lie there whole; else made, and written.

    Args:   cache_dir: None is no cache.   weights: the folder with the tokenizer's files.
            settings: everything else that the tokens follow from, as JSON knows it.
    Raises: OSError: the disk refused.
    """
    if cache_dir is None:
        return make()
    stem = cache_dir / hash_inputs(weights, texts, settings)
    found = _read(stem)
    if found is None:
        _write(stem, make())
        found = _read(stem)
    if found is None:
        raise OSError(f"{stem}.json: the tokens just written do not read back; look at the disk, or empty {cache_dir}")
    return found


def hash_inputs(weights: Path, texts: Sequence[str], settings: dict) -> str:
    """32 hex digits of texts, tokenizer files, settings and the versions of what tokenizes."""
    versions = [FORMAT, tokenizers.__version__, transformers.__version__]
    total = hashlib.sha256(json.dumps([versions, settings], sort_keys=True).encode())
    for path in sorted({path for pattern in TOKENIZER_FILES for path in weights.glob(pattern)}):
        name = path.relative_to(weights).as_posix()
        total.update(f"{name}:{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        total.update(f"{len(encoded)}:".encode() + encoded)
    return total.hexdigest()[:32]


def _read(stem: Path) -> Tokens | None:
    """None where a file is missing or is not what was written."""
    try:
        record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(_array_path(stem, name), mmap_mode="r", allow_pickle=False) for name in ("ids", "starts")
        }
        whole = record["crc32"] == checksum(arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if not whole:
        return None
    frame = tuple(record["frame"])
    return Tokens(arrays["ids"], arrays["starts"], record["pad_id"], frame, record["room"], record["mask_id"])


def _write(stem: Path, tokens: Tokens) -> None:
    """The arrays first, the record that vouches for them last; each file takes its place whole."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"ids": tokens.ids, "starts": tokens.starts}
    record = {"pad_id": tokens.pad_id, "frame": tokens.frame, "room": tokens.room, "mask_id": tokens.mask_id}
    for name, array in arrays.items():
        _replace(_array_path(stem, name), lambda file, array=array: np.save(file, array, allow_pickle=False))
    text = json.dumps({**record, "crc32": checksum(arrays)})
    _replace(stem.with_suffix(".json"), lambda file: file.write(text.encode()))


def _replace(path: Path, write: Callable) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _array_path(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}.npy")
