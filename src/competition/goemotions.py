"""competition/: the GoEmotions rows (Demszky et al. 2020, arXiv:2005.00547) as a competition's four files."""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from competition.problems import shown_path
from competition.reading import table_bytes

SHA256 = {
    "train.tsv": "1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
    "dev.tsv": "575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
    "test.tsv": "0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
    "labels.txt": "45c3ef86782d2a4d7fedcd6d8c111aa0d0e94720689bd164fac94fefb4495a89",
}
"""The official split: 43,410, 5,426 and 5,427 lines of text, label numbers, id; and the 28 label names."""
PUBLIC = "https://raw.githubusercontent.com/google-research/google-research/master/goemotions/data"
PUBLIC_NAMES = {"labels.txt": "emotions.txt"}
"""Where the public copy calls a file something else."""
TIMEOUT_SECONDS = 60


def goemotions_files(root: Path, answered: tuple[str, ...] = ()) -> tuple[dict[str, bytes], str]:
    """The four files by name, and where the rows came from; texts stay as they are, exact duplicates included.

    `answered` are the label columns of the sample submission where they are groups; empty takes the 28 labels.

    Raises: ValueError: a file is not the official one, or it is not at hand and cannot be downloaded.
    """
    folder = _shared_folder(root)
    origin = shown_path(folder) if folder else PUBLIC
    raw = {name: (folder / name).read_bytes() if folder else _download(name) for name in SHA256}
    for name, data in raw.items():
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256[name]:
            raise ValueError(
                f"{origin}: {name} is not the official file: {len(data)} bytes, sha256 {found}, "
                f"expected {SHA256[name]}. Remove it, or unset FOLDBLEND_SHARED to download it"
            )
    return _converted(raw, answered), f"from {origin}, checked by sha256"


def _converted(raw: dict[str, bytes], answered: tuple[str, ...]) -> dict[str, bytes]:
    train = [_fields(line) for line in _lines(raw["train.tsv"])]
    heldout = [(part, *_fields(line)) for part in ("dev", "test") for line in _lines(raw[f"{part}.tsv"])]
    names = answered or tuple(_lines(raw["labels.txt"]))
    return {
        "train.csv": table_bytes(("id", "text", "labels"), [(row, text, labels) for text, labels, row in train]),
        "test.csv": table_bytes(("id", "text"), [(row, text) for _, text, _, row in heldout]),
        "sample_submission.csv": table_bytes(("id", *names), [(row, *["0"] * len(names)) for _, _, _, row in heldout]),
        "truth.csv": table_bytes(("id", "part", "labels"), [(row, part, labels) for part, _, labels, row in heldout]),
    }


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8").removesuffix("\n").split("\n")


def _fields(line: str) -> tuple[str, str, str]:
    text, labels, row = line.split("\t")
    return text, labels, row


def _shared_folder(root: Path) -> Path | None:
    """The folder that holds all four files: below `$FOLDBLEND_SHARED` or below `shared` beside the project."""
    named = os.environ.get("FOLDBLEND_SHARED")
    for shared in ([Path(named)] if named else []) + [root.parent / "shared"]:
        folder = shared / "data" / "goemotions"
        if all((folder / name).is_file() for name in SHA256):
            return folder
    return None


def _download(name: str) -> bytes:
    url = f"{PUBLIC}/{PUBLIC_NAMES.get(name, name)}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(
            f"{url} cannot be downloaded: {error}. With a network, start again; without one, put "
            f"{', '.join(SHA256)} into a folder data/goemotions and set FOLDBLEND_SHARED to the folder above data"
        ) from error
