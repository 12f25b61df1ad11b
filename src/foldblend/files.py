"""How a file reaches the disk, whole or not at all, how it is read and hashed, and how processes take turns.

Every stage may be killed at any moment and many write to one shared disk, so nothing here ever changes a file in place.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
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

    rename(2) is atomic, so a reader finds the old file or the new one, never a mixture.
    """
    temporary = path.parent / f".{_owner()}-{secrets.token_hex(4)}.{path.name}.tmp"
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path, exclusive)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)  # or a power cut could undo the rename
        finally:
            with suppress(OSError):
                temporary.unlink()


def remove_file(path: Path) -> None:
    """Remove a file if it is there, for good. Raises: FileError: the folder is read-only."""
    with _writing(path):
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync(path.parent)


HIDDEN_FILE = re.compile(r"\..+-\d+-[0-9a-f]{8}\..+\.tmp")
"""The name of a hidden file: host, process id, chance, the name it is to get."""


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


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
    """The whole file. Raises: FileError: it is missing or may not be read; the message names the path."""
    with reading(path):
        return path.read_bytes()


def sha256_bytes(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """64 hex digits of a file's bytes. Raises: FileError: as `read_bytes`."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
