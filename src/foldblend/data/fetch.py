"""competition/: data/<competition>/ filled where it is empty: made here, copied, downloaded, or asked for."""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from foldblend.data.reading import shown_path
from foldblend.data.reading import table_bytes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from foldblend.kaggle.transfers import download_files
from foldblend.kaggle.client import find_wide_permissions
from foldblend.data.reading import shown_path
from foldblend.data.sample import sample_files
from foldblend.settings.competition import CompetitionSettings, FilesSettings
from foldblend.settings.paths import Paths
from foldblend.errors import UserError


# ---------- the GoEmotions rows (Demszky et al. 2020, arXiv:2005.00547) as a competition's four files.


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
            raise UserError(
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
        raise UserError(
            f"{url} cannot be downloaded: {error}. With a network, start again; without one, put "
            f"{', '.join(SHA256)} into a folder data/goemotions and set FOLDBLEND_SHARED to the folder above data"
        ) from error


# ---------- data/<competition>/ filled where it is empty: made here, copied, downloaded, or asked for.


TRUTH = "truth.csv"
"""Labels of the test rows, kept aside; only bench/score_submission.py reads it."""
FILLED = ("train.csv", "test.csv", "sample_submission.csv", TRUTH)
"""What the sources `sample` and `goemotions` fill."""


def ensure_data(competition_name: str, competition: CompetitionSettings, paths: Paths) -> list[str]:
    """Fill data/<competition>/ where its files are absent, never over one that is there; what was done, as sentences.

    Raises: ValueError: files are absent and only the user can get them, a source was changed, or there is no network.
    """
    files = competition.files
    folder = paths.data(competition_name)
    stated = [files.train, files.test, files.sample_submission]
    by_us = files.source in ("sample", "goemotions")
    if by_us and not set(stated) <= set(FILLED):
        raise UserError(f"files.source {files.source} fills {', '.join(FILLED[:3])}, not {', '.join(stated)}")
    absent = [name for name in (FILLED if by_us else stated) if not (folder / name).is_file()]
    if not absent:
        return []
    where = shown_path(folder)
    if files.source == "by_hand":
        raise UserError(f"{where}: {', '.join(absent)} not there. {how_to_get(competition_name, files)}")
    if files.source == "kaggle":
        origin = _fill_from_kaggle(competition_name, files, folder, absent)
    else:
        groups = tuple(competition.labels.groups)
        contents, origin = sample_files() if files.source == "sample" else goemotions_files(paths.root, groups)
        for name in absent:
            with _writing(folder / name) as file:
                file.write(contents[name])
    warnings = [f"warning: {finding}" for finding in find_wide_permissions()] if files.source == "kaggle" else []
    return [*warnings, f"{where}: {', '.join(absent)} written ({origin})"]


def _fill_from_kaggle(competition_name: str, files: FilesSettings, folder: Path, absent: list[str]) -> str:
    """Where they came from. Raises ValueError with the commands that do the same by hand."""
    try:
        return download_files(files.kaggle or competition_name, folder, absent, _writing)
    except ValueError as error:
        where = f"{shown_path(folder)}: {', '.join(absent)} not there, and not fetched: {error}"
        raise UserError(f"{where}. By hand: {how_to_get(competition_name, files)}") from error


def how_to_get(competition_name: str, files: FilesSettings) -> str:
    """What fills data/<competition>/, as a sentence."""
    folder = f"data/{competition_name}"
    if files.instructions:
        return f"{files.instructions} (into {folder}/)"
    if files.source == "kaggle" or files.kaggle:
        slug = files.kaggle or competition_name
        return (
            f"Run: kaggle competitions download -c {slug} -p {folder} && unzip {folder}/{slug}.zip -d {folder} "
            f"(accept the rules on https://www.kaggle.com/competitions/{slug}/rules first)"
        )
    if files.source == "by_hand":
        return f"Put it into {folder}/, or state its name under files: in configs/competitions/{competition_name}.yaml"
    return f"Run: python src/make_folds.py --competition {competition_name} (files.source {files.source} fills it)"


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the block ends, so that a kill leaves it whole or absent.

    What a killed one left is removed: a door fills one competition's folder at a time, under its lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f".{path.name}-*"):
        abandoned.unlink()
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
