"""data/<competition>/ filled if files are missing: made here, copied, downloaded, or asked for; never overwritten."""

import hashlib
import http.client
import os
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from foldblend.data.formats import find_file
from foldblend.data.reading import quoted, shown_path, table_bytes
from foldblend.data.sample import sample_files
from foldblend.errors import UserError
from foldblend.files import read_bytes, replacing
from foldblend.kaggle.client import KaggleClient, find_wide_permissions
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.data_files import FilesSettings
from foldblend.settings.paths import Paths

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
"""Our name for a file -> its name in the public copy."""
TIMEOUT_SECONDS = 60


def goemotions_files(answered: tuple[str, ...] = ()) -> tuple[dict[str, bytes], str]:
    """The four files by name, and where the rows came from; texts stay as they are, exact duplicates included.

    They come from $FOLDBLEND_SHARED/data/goemotions if all four are there, else from the public copy.

    Args:   answered: the label columns of the sample submission if labels are grouped; empty takes the 28 labels.
    Raises: UserError: a file is not the official one, or cannot be downloaded.
    """
    folder = _shared_folder()
    origin = shown_path(folder) if folder else PUBLIC
    raw = {name: read_bytes(folder / name) if folder else _download(name) for name in SHA256}
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


def _shared_folder() -> Path | None:
    """data/goemotions in `$FOLDBLEND_SHARED`, if that holds all four files."""
    named = os.environ.get("FOLDBLEND_SHARED")
    folder = Path(named) / "data" / "goemotions" if named else None
    return folder if folder and all((folder / name).is_file() for name in SHA256) else None


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


# ---------- a competition's files, out of an archive that is not trusted.


DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError, UnicodeDecodeError,
)  # fmt: skip
"""What zipfile raises on damaged archives."""
SUSPICIOUS_BYTES = 1 << 28
SUSPICIOUS_RATIO = 200
"""A member that unpacks to more than so many bytes, at more than so many times its size, is a zip bomb."""
CHUNK = 1 << 20


def download_files(slug: str, folder: Path, names: Sequence[str]) -> str:
    """Fetch the archive of a competition and unpack the named files into `folder`.

    Returns: where they came from.
    Raises: UserError: Kaggle refuses, or the archive is damaged, hostile, or lacks a file; every file in `folder`
            is whole all the same.
    """
    place = folder.with_name(f".{folder.name}-download")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        with KaggleClient(slug) as client:
            found = client.download(place)
        archives = [place / name for name in found if name.endswith(".zip")]
        if len(archives) != 1:
            raise UserError(f"the download of {slug} is {quoted(found)}; expected one .zip")
        rest = unpack(archives[0], folder, names)
        return f"from Kaggle's {slug}{f', left packed: {quoted(rest)}' if rest else ''}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def unpack(archive: Path, folder: Path, names: Sequence[str]) -> list[str]:
    """Write the named members, and only them, into `folder`; the caller holds the competition's lock.

    A name may be in any folder of the archive, if only one such file is there, or in a .zip of its own, as in old
    competitions.
    Returns: the names of all other members.
    Raises: UserError: no archive, damaged, one of its members is hostile, or a name is not in it.
    """
    where = f"the download {archive.name}"
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {member.filename: member for member in opened.infolist() if not member.is_dir()}
            _refuse_hostile(where, opened.infolist())
            chosen = {_inside(folder, name): _find(where, list(members), name) for name in names}
            for found in chosen.values():
                _refuse_bomb(where, members[found])
            for path, found in chosen.items():
                with opened.open(members[found]) as source, replacing(path, exclusive=True) as target:
                    if found.endswith(".zip") and path.suffix != ".zip":
                        _copy_inner(f"{where}: {found}", source, path.name, target)
                    else:
                        _copy_table(f"{where}: {found}", source, path.name, target)
            return sorted(members.keys() - set(chosen.values()))
    except DAMAGE as error:
        raise UserError(f"{where} is not a whole .zip ({error}). Run the same command again") from None


def _find(where: str, there: list[str], name: str) -> str:
    """The member with a name. Raises: UserError: none or several have it."""
    for wanted in (name, f"{name}.zip"):
        if wanted in there:
            return wanted
        same = [member for member in there if PurePosixPath(member).name == wanted]
        if len(same) > 1:
            raise UserError(f"{where} holds {quoted(same)}: say under files: which one is meant")
        if same:
            return same[0]
    raise UserError(f"{where} has no {name}; it holds {quoted(there)}. Put the right name under files:")


def _refuse_hostile(where: str, members: list[zipfile.ZipInfo]) -> None:
    """Refuse the whole archive if a member would leave its folder, appears twice, or is no plain file."""
    if len({member.filename for member in members}) < len(members):
        raise UserError(f"{where} holds a name twice. Nothing was unpacked")
    for member in members:
        if member.header_offset < 0:
            raise zipfile.BadZipFile(f"{quoted([member.filename])} starts before the archive does")
        name = member.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
            raise UserError(f"{where} holds {quoted([member.filename])}, which leaves its folder. Nothing was unpacked")
        kind = member.external_attr >> 28  # the file type of Unix modes; 0 if there is none
        if kind not in (0, 0o4, 0o10):
            raise UserError(f"{where} holds {quoted([name])}, a link or device; expected files. Nothing was unpacked")
        if member.flag_bits & 1:
            raise UserError(f"{where} holds {quoted([name])} behind a password. Unpack it by hand")


def _refuse_bomb(where: str, member: zipfile.ZipInfo) -> None:
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > SUSPICIOUS_BYTES and ratio > SUSPICIOUS_RATIO:
        raise UserError(
            f"{where}: {member.filename} unpacks {member.compress_size:,} bytes to {member.file_size:,}, more "
            "than any table does. Look at it by hand"
        )


def _copy_inner(where: str, source: BinaryIO, name: str, target: BinaryIO) -> None:
    """Copy the one member of an archive in the archive."""
    with zipfile.ZipFile(source) as inner:
        _refuse_hostile(where, inner.infolist())
        found = inner.getinfo(_find(where, [member.filename for member in inner.infolist()], name))
        _refuse_bomb(where, found)
        with inner.open(found) as unpacked:
            _copy_table(where, unpacked, name, target)


def _copy_table(where: str, source: IO[bytes], name: str, target: BinaryIO) -> None:
    """Copy one file. Raises: UserError: it is an archive under the name of a table."""
    start = source.read(4)
    if start == b"PK\x03\x04" and PurePosixPath(name).suffix.lower() not in (".zip", ".xlsx"):
        raise UserError(f"{where} is a .zip under the name {quoted([name])}; expected a table. Unpack it by hand")
    target.write(start)
    shutil.copyfileobj(source, target, CHUNK)


def _inside(folder: Path, name: str) -> Path:
    """The path of a name from files:. Raises: UserError: it is outside the competition's folder."""
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"files: names {name!r}, which is not inside {shown_path(folder)}")
    return path


# ---------- one competition's files, whatever their source.


TRUTH = "truth.csv"
"""Labels of the test rows, which a competition keeps secret; only bench/score_submission.py reads it."""
FILLED = ("train.csv", "test.csv", "sample_submission.csv", TRUTH)
"""The files of the sources `sample` and `goemotions`."""


def ensure_data(competition_name: str, competition: CompetitionSettings, paths: Paths) -> list[str]:
    """Write the files of data/<competition>/ that are missing, never over one that exists.

    One process at a time: the caller holds the competition's lock.
    Returns: what was done, as sentences.
    Raises:  UserError: files are missing and only the user can get them, a source was changed, or there is no network.
    """
    files = competition.files
    folder = paths.data(competition_name)
    stated = list(files.stated)
    by_us = files.source in ("sample", "goemotions")
    if by_us and not set(stated) <= set(FILLED):
        raise UserError(f"files.source {files.source} fills {', '.join(FILLED[:3])}, not {', '.join(stated)}")
    missing = [name for name in (FILLED if by_us else stated) if find_file(folder / name) is None]
    if not missing:
        return []
    where = shown_path(folder)
    if files.source == "by_hand":
        if len(missing) < len(stated):
            return []  # whoever reads the files names the missing ones and whatever is wrong with the others
        raise UserError(f"{where}: {', '.join(missing)} missing. {how_to_get(competition_name, files)}")
    if files.source == "kaggle":
        origin = _fill_from_kaggle(competition_name, files, folder, missing)
    else:
        groups = tuple(competition.labels.groups)
        contents, origin = sample_files() if files.source == "sample" else goemotions_files(groups)
        for name in missing:
            with replacing(folder / name, exclusive=True) as file:
                file.write(contents[name])
    warnings = [f"warning: {finding}" for finding in find_wide_permissions()] if files.source == "kaggle" else []
    return [*warnings, f"{where}: {', '.join(missing)} written ({origin})"]


def _fill_from_kaggle(competition_name: str, files: FilesSettings, folder: Path, missing: list[str]) -> str:
    """Where they came from. Raises: UserError: with the commands that do the same by hand."""
    try:
        return download_files(files.kaggle or competition_name, folder, missing)
    except UserError as error:
        where = f"{shown_path(folder)}: {', '.join(missing)} missing, and not fetched: {error}"
        raise UserError(f"{where}. By hand: {how_to_get(competition_name, files)}") from error


def how_to_get(competition_name: str, files: FilesSettings) -> str:
    """How to fill data/<competition>/, as a sentence."""
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
        return f"Put it into {folder}/, or put its name under files: in configs/competitions/{competition_name}.yaml"
    return f"Run: python src/make_folds.py --competition {competition_name} (files.source {files.source} fills it)"
