"""How a file reaches the disk, whole or not at all, how it is read and hashed, and how processes take turns.

Every stage may be killed at any moment and many write to one shared disk, so nothing here ever changes a file in place.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from foldblend.errors import UserError

# ---------- errors of the operating system that the user can fix.


class FileError(UserError, OSError):
    """A file could not be read or written; `errno` says why. The file that was there before is unchanged."""


class BusyError(UserError):
    """Another process holds what this one needs; trying again later is right."""

    exit_status = 75
    """Of the command that ends with it; EX_TEMPFAIL of sysexits.h."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a FileError that names `path`, the reason and what to do."""
    try:
        yield
    except FileError:  # of a file that was written inside the block: it names its own path
        raise
    except OSError as error:
        if error.errno in FULL:
            reason = "no space is left there. Free some and run the same command again"
        elif error.errno in FORBIDDEN:
            reason = (
                "the folder cannot be written. Make it writable (chmod u+w), or set $FOLDBLEND_ROOT to a folder that is"
            )
        else:
            reason = f"{error.strerror or error}. Fix that and run the same command again"
        explained = FileError(f"{path}: not written: {reason}; a file that was there before is unchanged")
        explained.errno = error.errno
        raise explained from error


# ---------- writing: the bytes go to a hidden file beside the path, which takes the name when it is whole.


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises: FileError: see `replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, exclusive: bool = False) -> Iterator[BinaryIO]:
    """Open a file that takes `path`'s place when the block ends; if the block fails, `path` stays as it was.

    Args:   exclusive: as for `write_whole`.
    Raises: FileError: the folder is read-only or the disk is full; the message names the path and what to do.
    """
    with _taking_place(path, exclusive) as temporary, open(temporary, "xb") as file:
        yield file


def write_whole(path: Path, write: Callable[[Path], object], exclusive: bool = False) -> None:
    """Let `write` fill a hidden file that then takes `path`'s place; for libraries that write to a path of their own.

    Args:   write: is given the hidden file's path; the file is not there yet.
            exclusive: the caller holds a lock on the folder, so every hidden file in it was left by a writer that was
            killed, on whatever machine, and is removed first. Checkpoints of some GB must not pile up.
    Raises: FileError: see `replacing`.
    """
    with _taking_place(path, exclusive) as temporary:
        write(temporary)


@contextmanager
def _taking_place(path: Path, exclusive: bool) -> Iterator[Path]:
    """A hidden path beside `path`: what the block wrote there is forced to the disk and renamed to `path`.

    rename(2) is atomic, so a reader finds the old file or the new one, never a mixture. The file keeps the
    permissions of the one that it replaces; a new one gets those of the umask, whatever a library made of it.
    """
    temporary = _hidden_name(path)
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path, exclusive)
            yield temporary
            with suppress(PermissionError):  # a filesystem without permissions
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)  # or a power cut could undo the rename
        finally:
            with suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    """It can be read only by setting it; in that moment, files of other threads are private instead of public."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty hidden folder that takes `path`'s place when the block ends; what was there moves to `.old/` beside it.

    The caller holds a lock on `path`. Whatever happens at any moment, `path` is the old folder or the new one.
    Raises: FileError: see `replacing`.
    """
    temporary = _hidden_name(path)
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f".*.{path.name}.tmp"):
                if HIDDEN_FILE.fullmatch(left.name):
                    shutil.rmtree(left)
            temporary.mkdir()
            yield temporary
            for each in temporary.rglob("*"):
                _sync(each)
            if path.exists():
                waiting = _new_old_folder(path) / path.name
                os.rename(temporary, waiting)
                _exchange(waiting, path)
            else:
                os.rename(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders' names at once; a system that cannot is given two renames, undone if the second fails."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of renameat2(2)
    if rename and rename(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0:
        return
    between = one.with_name(f"{one.name}.before")  # in .old/, where nothing is removed unless it is asked for
    try:
        os.rename(other, between)
        os.rename(one, other)
        os.rename(between, one)
    except BaseException:  # Ctrl-C, too
        if not other.exists():
            os.rename(between, other)
        raise


OLD = ".old"
"""The folder beside a file or folder in which earlier ones are kept: `.old/<UTC time>-<chance>/<name>`."""


def set_aside(paths: Sequence[Path], copy: bool = False) -> Path | None:
    """Move those of `paths` that are there, all in one folder, into a new folder of `.old/` beside them.

    Args:   copy: leave them there, too; for small files whose replacement must be one rename.
    Returns: that new folder; None if none of them was there.
    Raises: FileError: see `replacing`.
    """
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    with _writing(there[0]):
        folder = _new_old_folder(there[0])
        for path in there:
            if copy:
                shutil.copy2(path, folder / path.name)
                _sync(folder / path.name)
            else:
                os.rename(path, folder / path.name)
        _sync(folder)
        _sync(there[0].parent)
    return folder


def list_old(folder: Path) -> list[Path]:
    """What was set aside in a folder, oldest first."""
    return sorted((folder / OLD).iterdir()) if (folder / OLD).is_dir() else []


def describe_old(root: Path, kept: Sequence[Path]) -> str:
    """Where something was moved, as a sentence without a full stop."""
    shown = ", ".join(os.path.relpath(each, root) for each in kept)
    return f"what was there before is now in {shown} (python src/check.py --clean lists and removes such folders)"


def _new_old_folder(path: Path) -> Path:
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = path.parent / OLD / f"{now}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder


def remove_file(path: Path) -> None:
    """Remove a file if it is there, for good. Raises: FileError: the folder is read-only."""
    with _writing(path):
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync(path.parent)


HIDDEN_FILE = re.compile(r"\..+-\d+-[0-9a-f]{8}\..+\.tmp")
"""The name of a hidden file: host, process id, chance, the name it is to get."""


def _hidden_name(path: Path) -> Path:
    return path.parent / f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{path.name}.tmp"


def _host() -> str:
    return os.uname().nodename[:40]


def _remove_abandoned(path: Path, exclusive: bool) -> None:
    """Remove what killed writers left: those of this path and machine, or with `exclusive` all in the folder."""
    mine = f".{_host()}-"
    for left in path.parent.iterdir():
        if not HIDDEN_FILE.fullmatch(left.name):
            continue
        if not exclusive:
            # Only this machine knows whether its processes are alive, and other paths have writers of their own.
            if not (left.name.startswith(mine) and left.name.endswith(f".{path.name}.tmp")):
                continue
            pid = left.name[len(mine) :].split("-")[0]
            if not pid.isdecimal() or _is_alive(int(pid)):
                continue
        if not left.is_dir():  # a folder has a lock and a writer of its own
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # a few network filesystems cannot sync a folder and say EINVAL
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def check_outputs(
    outputs: Mapping[str, str], inputs: Mapping[str, str], project: Sequence[Path], overwrite: bool | None = None
) -> None:
    """Refuse to write where something of value is.

    Args:   outputs: flag -> the file it names; an empty name is none.   inputs: likewise, what is read.
            project: folders of this project. What is in them was given or has a record, and is never written over.
            overwrite: whether any other file that exists may be replaced; None if the command has no such flag.
    Raises: UserError: an output is an input, another output, a file of the project, or a file that exists.
    """
    named = {flag: name for flag, name in outputs.items() if name}
    taken = {Path(name).resolve(): flag for flag, name in inputs.items() if name}
    for flag, name in named.items():
        path = Path(name).resolve()
        same = taken.get(path) or next((f for other, f in taken.items() if _is_same_file(path, other)), None)
        if same:
            raise UserError(f"{flag} {name} is the file of {same}: it would be overwritten. Name another file")
        taken[path] = flag
        if any(path.is_relative_to(folder) for folder in project) and os.path.lexists(path):
            raise UserError(f"{flag} {name} is a file of this project and is not overwritten. Name another file")
        if path.exists() and not overwrite:
            way = "remove it" if overwrite is None else "add --overwrite"
            raise UserError(f"{flag} {name} exists. Name another file, or {way}")


def _is_same_file(one: Path, other: Path) -> bool:
    """Also by two names of one file (hard links)."""
    return one.exists() and other.exists() and os.path.samefile(one, other)


# ---------- locks: one process at a time; the kernel frees a lock when its process ends, however it ends.


@contextmanager
def hold_lock(path: Path, busy: str = "") -> Iterator[None]:
    """Let one process at a time into the block.

    Args:   path: the lock's file, made here and removed on leaving.
            busy: the message if another process holds the lock; without it this one waits.
    Raises: BusyError: another process holds the lock and `busy` is given.   FileError: the folder cannot be written.
    """
    descriptor = _open_lock(path, busy)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_lock(path: Path, busy: str) -> int:
    """A locked descriptor of the file that has the lock's name at the moment of locking.

    Its last holder may have removed the file between our open and our flock; then the lock is of a file without a
    name, which keeps nobody out, and we try again.
    """
    while True:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its last holder has just removed it
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(busy) from None
        except OSError:  # a filesystem without locks
            os.close(descriptor)
            with _writing(path):
                raise
        os.close(descriptor)


# ---------- reading and hashing.


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises: FileError: it is missing, is no file, or may not be read; the message names the path."""
    with reading(path), _open_file(path) as file:
        return file.read()


def sha256_bytes(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def add_texts(digest, texts: Iterable[str]) -> None:
    """Add texts to a hash of hashlib; their lengths as well, or ["ab", "c"] would equal ["a", "bc"]."""
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)


def sha256_file(path: Path) -> str:
    """64 hex digits of a file's bytes. Raises: FileError: as `read_bytes`."""
    with reading(path), _open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_file(path: Path) -> BinaryIO:
    """Open for reading. A pipe in place of a file would wait for ever, and a device might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise OSError(errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL, "it is a folder, a pipe or a device")
    return open(descriptor, "rb")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a FileError that names `path` and what to do."""
    try:
        yield
    except OSError as error:
        fix = "Make it readable (chmod u+r)" if error.errno in FORBIDDEN else "Restore it"
        explained = FileError(f"{path}: cannot be read: {error.strerror or error}. {fix} and run the same again")
        explained.errno = error.errno
        raise explained from error
