"""competition/: a dataset and the notebook that reads it, uploaded through Kaggle's client."""

import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from foldblend.data.reading import quoted, shown_path
from foldblend.errors import UserError
from foldblend.kaggle.client import KaggleClient
from foldblend.redact import redact

# ---------- a competition's files through Kaggle's client, out of an archive of which nothing is believed.


DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError, UnicodeDecodeError,
)  # fmt: skip
"""What zipfile raises on damaged archives."""
SUSPICIOUS_BYTES = 1 << 28
SUSPICIOUS_RATIO = 200
"""A member that unpacks to more bytes than the one, at more than the other times its size, is a bomb, not a table."""
CHUNK = 1 << 20
Writer = Callable[[Path], AbstractContextManager[BinaryIO]]
"""Opens a file that gets its name when it is whole."""


def download_files(slug: str, folder: Path, names: Sequence[str], writing: Writer) -> str:
    """Fetch the archive of a competition and unpack the named files into `folder`.

    Returns: where they came from.
    Raises: ValueError: Kaggle refuses, or the archive is damaged, hostile, or lacks a file; every file that lies in
            `folder` then is whole.
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
        rest = unpack(archives[0], folder, names, writing)
        return f"from Kaggle's {slug}{f', left packed: {quoted(rest)}' if rest else ''}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def unpack(archive: Path, folder: Path, names: Sequence[str], writing: Writer) -> list[str]:
    """Write the named members, and only them, into `folder`; the names of all others.

    A name may lie in a folder of the archive, where only one such file does, or in a .zip of its own, as old
    competitions have it.
    Raises: ValueError: no archive, damaged, one of its members is hostile, or a name is not in it.
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
                with opened.open(members[found]) as source, writing(path) as target:
                    if found.endswith(".zip") and path.suffix != ".zip":
                        _copy_inner(f"{where}: {found}", source, path.name, target)
                    else:
                        shutil.copyfileobj(source, target, CHUNK)
            return sorted(members.keys() - set(chosen.values()))
    except DAMAGE as error:
        raise UserError(f"{where} is no whole .zip ({error}). Run the same command again") from None


def _find(where: str, there: list[str], name: str) -> str:
    """The member that holds a name. Raises ValueError where none or several do."""
    for wanted in (name, f"{name}.zip"):
        if wanted in there:
            return wanted
        same = [member for member in there if PurePosixPath(member).name == wanted]
        if len(same) > 1:
            raise UserError(f"{where} holds {quoted(same)}: state under files: which one is meant")
        if same:
            return same[0]
    raise UserError(f"{where} has no {name}; it holds {quoted(there)}. State the right name under files:")


def _refuse_hostile(where: str, members: list[zipfile.ZipInfo]) -> None:
    """One member that would leave its folder, stands twice, or is no plain file spoils the whole archive."""
    if len({member.filename for member in members}) < len(members):
        raise UserError(f"{where} holds a name twice. Nothing was unpacked")
    for member in members:
        if member.header_offset < 0:
            raise zipfile.BadZipFile(f"{quoted([member.filename])} lies before its beginning")
        name = member.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
            raise UserError(f"{where} holds {quoted([member.filename])}, which leaves its folder. Nothing was unpacked")
        kind = member.external_attr >> 28  # the file type of Unix modes; 0 where none is stated
        if kind not in (0, 0o4, 0o10):
            raise UserError(f"{where} holds {quoted([name])}, a link or device; expected files. Nothing was unpacked")
        if member.flag_bits & 1:
            raise UserError(f"{where} holds {quoted([name])} behind a password. Unpack it by hand")


def _refuse_bomb(where: str, member: zipfile.ZipInfo) -> None:
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > SUSPICIOUS_BYTES and ratio > SUSPICIOUS_RATIO:
        raise UserError(
            f"{where}: {member.filename} unpacks {member.compress_size:,} bytes to {member.file_size:,}, as no table "
            "does. Look at it by hand"
        )


def _copy_inner(where: str, source: BinaryIO, name: str, target: BinaryIO) -> None:
    """Copy the one member of an archive within the archive."""
    with zipfile.ZipFile(source) as inner:
        _refuse_hostile(where, inner.infolist())
        found = inner.getinfo(_find(where, [member.filename for member in inner.infolist()], name))
        _refuse_bomb(where, found)
        with inner.open(found) as unpacked:
            shutil.copyfileobj(unpacked, target, CHUNK)


def _inside(folder: Path, name: str) -> Path:
    """The path of a stated name. Raises ValueError where it lies outside the competition's folder."""
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"files: names {name!r}, which is not inside {shown_path(folder)}")
    return path


# ---------- a dataset and the notebook that reads it, uploaded through Kaggle's client.


POLL_SECONDS = 5.0
READY_MINUTES = 30
"""Kaggle unpacks a dataset before it can be mounted."""


def default_owner() -> str:
    """The Kaggle name of the user's credentials; empty where they hold none, as tokens do."""
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

    Args:   dataset, notebook: folders with their metadata.   note: of the dataset's version.   pause: between looks.
    Raises: ValueError: Kaggle refuses, or is not done in READY_MINUTES; nothing after that was uploaded.
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
