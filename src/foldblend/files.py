"""Ledger room: how a file reaches the disk (whole or not at all), its hash, and its lock."""

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes `path`'s place when the block ends, and nothing takes it when the block fails.

    The bytes go to a hidden file in the same folder, are forced to the disk, and get the name in one step
    (rename(2) is atomic), so a reader finds the old file or the new one, never a mixture.
    What a killed writer left hidden is removed by the next writer of the same path.

    Raises: OSError: the folder is read-only or the disk full; the message names the path and what to do.
    """
    temporary = path.parent / f".{_owner()}-{secrets.token_hex(4)}.{path.name}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises: OSError: see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def remove_file(path: Path) -> None:
    """Remove a file if it is there, for good. Raises: OSError: the folder is read-only."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)
    except OSError as error:
        raise _explained(error, path) from error


def _owner() -> str:
    return f"{os.uname().nodename[:40]}-{os.getpid()}"


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of this machine left of `path`: a night of kills must not fill the disk."""
    host = os.uname().nodename[:40]
    for left in path.parent.iterdir():
        if left.name.startswith(f".{host}-") and left.name.endswith(f".{path.name}.tmp"):
            pid = left.name[len(host) + 2 :].split("-")[0]
            if pid.isdecimal() and not _is_alive(int(pid)):
                left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; a few network filesystems cannot sync a folder, and say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _explained(error: OSError, path: Path) -> OSError:
    """The same kind of error with the path, what was found and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        cure = "no space is left there. Free some and run the same command again"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        cure = "the folder cannot be written. Make it writable (chmod u+w), or set $FOLDBLEND_ROOT to a folder that is"
    else:
        cure = f"{error.strerror or error}. Put that right and run the same command again"
    explained = type(error)(f"{path}: not written: {cure}; an earlier file of that name is whole")
    explained.errno = error.errno
    return explained


class BusyError(ValueError):
    """Another process holds what this one needs; trying again later is right."""

    exit_status = 75
    """Of the door that ends with it; EX_TEMPFAIL of sysexits.h."""


@contextmanager
def hold_lock(path: Path, busy: str = "") -> Iterator[None]:
    """Let one process at a time into the block; the lock dies with its process, however that ends.

    Args:   path: the lock's file, made here and removed on leaving.   busy: what to say when another holds it.
    Raises: BusyError: another process holds the lock and `busy` is given; without it, wait.
            OSError: the folder cannot be written.
    """
    descriptor = _open_lock(path, busy)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_lock(path: Path, busy: str) -> int:
    """A locked descriptor of the file that bears the lock's name when it is locked."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _explained(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its last holder has just removed it
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(busy) from None
        except OSError as error:  # a filesystem without locks
            os.close(descriptor)
            raise _explained(error, path) from error
        os.close(descriptor)


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
