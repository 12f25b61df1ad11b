"""Files from and to Kaggle: a competition's archive unpacked safely, a dataset and its notebook uploaded."""

import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from foldblend.data.reading import quoted, shown_path
from foldblend.errors import UserError, redact
from foldblend.files import replacing
from foldblend.kaggle.client import KaggleClient

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
                        shutil.copyfileobj(source, target, CHUNK)
            return sorted(members.keys() - set(chosen.values()))
    except DAMAGE as error:
        raise UserError(f"{where} is no whole .zip ({error}). Run the same command again") from None


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
            shutil.copyfileobj(unpacked, target, CHUNK)


def _inside(folder: Path, name: str) -> Path:
    """The path of a name from files:. Raises: UserError: it is outside the competition's folder."""
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"files: names {name!r}, which is not inside {shown_path(folder)}")
    return path


# ---------- a dataset and the notebook that reads it, uploaded.


POLL_SECONDS = 5.0
READY_MINUTES = 30
"""Kaggle unpacks a dataset before it can be mounted."""


def default_owner() -> str:
    """The Kaggle name in the user's credentials; empty if they have none, as tokens."""
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    path = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("username", ""))
    except (ValueError, AttributeError):
        return ""


def push(dataset: Path, notebook: Path, note: str, show: Callable[[str], None], pause: float = POLL_SECONDS) -> None:
    """Upload the dataset, wait until it can be mounted, then upload the notebook, which Kaggle runs at once.

    Args:   dataset, notebook: folders with their metadata.   note: of the dataset's version.   pause: seconds per poll.
    Raises: UserError: Kaggle refuses, or is not done in READY_MINUTES; nothing after that was uploaded.
    """
    slug = json.loads((notebook / "kernel-metadata.json").read_text(encoding="utf-8"))["competition_sources"][0]
    with KaggleClient(slug) as client:
        show(f"uploading {dataset.parent.name}/dataset")
        made = _accepted("dataset", client.push_dataset(dataset, note))
        show(f"dataset: {made['url']}")
        _wait_until_ready(client, made["ref"], show, pause)
        made = _accepted("notebook", client.push_notebook(notebook))
        show(f"notebook: {made['url']}")


def _accepted(what: str, answer: dict) -> dict:
    if answer["error"]:
        raise UserError(f"Kaggle refuses the {what}: {redact(answer['error'])}")
    return answer


def _wait_until_ready(client: KaggleClient, ref: str, show: Callable[[str], None], pause: float) -> None:
    started = time.monotonic()
    while (status := client.dataset_status(ref)) != "ready":
        waited = time.monotonic() - started
        if status in ("failed", "deleted") or waited > 60 * READY_MINUTES:
            raise UserError(f"dataset {ref} is {status or 'unknown'} after {waited:.0f} s; the notebook was not pushed")
        show(f"waiting for the dataset: {status or 'not there yet'}")
        time.sleep(pause)
