"""JSON records that describe the file beside them, with a hash of themselves, so that every later change shows."""

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foldblend.errors import UserError
from foldblend.files import FileError, read_bytes, sha256_bytes, write_atomically

# ---------- where a record was made: library versions and the commit of the code.


PACKAGES = ("torch", "transformers", "accelerate", "scikit-learn", "numpy", "pandas", "iterative-stratification")


def describe_environment(code: Path) -> dict:
    """Python and package versions, and the git commit of the folder `code` (`+` if files have changed since)."""
    return {"python": platform.python_version(), **_versions(), "git_commit": _commit(code)}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit(code: Path) -> str:
    try:
        command = ["git", "-C", str(code), "describe", "--always", "--abbrev=12", "--dirty=+"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown: git did not answer"
    return answer.stdout.strip() or "unknown: not a git checkout"


# ---------- writing and reading.


SEAL = "record_sha256"
"""The key of a record that holds the hash of all its other keys."""
FIX = "Restore it, or make what it describes again, with --overwrite"


def write_record(path: Path, record: dict) -> None:
    """Write a JSON record with a hash of itself, so that a later change of any value shows.

    Raises: ValueError: a value that JSON does not know (NaN, an array), a fault of the caller.
            FileError: see `files.replacing`.
    """
    try:
        body = json.loads(json.dumps(record, allow_nan=False))  # as it will come back: keys are text
        sealed = {key: value for key, value in body.items() if key != SEAL}
        sealed[SEAL] = _seal(sealed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the record holds a value that JSON cannot: {error}") from None
    write_atomically(path, (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode())


def read_record(path: Path) -> dict:
    """Read a record that `write_record` wrote, without its hash.

    Raises: UserError: no JSON object, cut off, a key twice, NaN, or changed since it was written.
    """
    record = _read_json(path)
    seal = record.pop(SEAL, None)
    if seal is None:
        raise UserError(f"{path}: no {SEAL}, so written by another program or an older version. {FIX}")
    if seal != _seal(record):
        raise UserError(f"{path}: changed or damaged since it was written (its {SEAL} is of other contents). {FIX}")
    return record


def _seal(body: dict) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return sha256_bytes(text.encode())


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(read_bytes(path).decode(), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except FileError:  # a ValueError, too
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not readable as JSON ({error}); cut off or not written by this project. {FIX}"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a JSON {type(value).__name__}; expected an object")
    return value


def _no_key_twice(pairs: list) -> dict:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} appears twice")
    return dict(pairs)


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON number")
