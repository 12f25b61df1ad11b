"""JSON records that describe the file beside them, with a hash of themselves, so that every later change shows."""

import json
import math
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


# ---------- what a record holds: the fields of each kind of record, by name and type.


VERSION = 2
"""Of the records that are written now. Records of before 0.3 have no version and count as 1."""
VERSION_KEY = "schema_version"
HASH = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"(?!/)(?!(.*/)?\.\.(/|$))[^\0]*")
"""A file inside the folder it belongs to."""
ANY = object()
"""A value that nobody reads without checking it again."""

Kind = Any
"""str, bool, int, float (any finite number), None, a pattern that the text matches, ANY, [kind] for a list,
{name: kind} for an object (`name?` may be missing, `*` is every other name), or a tuple of kinds of which one fits."""


@dataclass(frozen=True)
class Schema:
    """One kind of record. Fields that it does not name may be there."""

    name: str
    """What such a record is, for messages."""
    fields: dict[str, Kind]
    migrations: Mapping[int, Callable[[dict], dict]] = field(default_factory=dict)
    """Version -> the function that makes of such a record one of the next version; without one nothing changes."""


def find_mismatch(value: object, kind: Kind, where: str = "") -> str:
    """How a value differs from a kind, as `score.macro_f1 is 'high'; expected a number`; empty if it fits."""
    if kind is ANY:
        return ""
    if isinstance(kind, tuple):
        mismatches = [find_mismatch(value, each, where) for each in kind]
        if "" in mismatches:
            return ""
        farthest = max(mismatches, key=_depth)  # of the alternatives, the one that fits farthest in
        if _depth(farthest) > _depth(where):
            return farthest
    if isinstance(kind, dict) and isinstance(value, dict):
        return _find_field(value, kind, f"{where}." if where else "")
    if isinstance(kind, list) and isinstance(value, list):
        found = (find_mismatch(each, kind[0], f"{where}[{k}]") for k, each in enumerate(value))
        return next(filter(None, found), "")
    if _is_of(value, kind):
        return ""
    return f"{where or 'the record'} is {repr(value)[:60]}; expected {_describe(kind)}"


def _depth(mismatch: str) -> int:
    where = mismatch.split(" is ")[0]
    return where.count(".") + where.count("[")


def _find_field(value: dict, kind: dict, prefix: str) -> str:
    names = {name.removesuffix("?"): each for name, each in kind.items()}
    for name in kind:
        if name != "*" and not name.endswith("?") and name not in value:
            return f"{prefix}{name} is missing; expected {_describe(kind[name])}"
    for name, each in value.items():
        wanted = names.get(name, names.get("*", ANY))
        found = find_mismatch(name, str, "a name") or find_mismatch(each, wanted, f"{prefix}{name}")
        if found:
            return found
    return ""


def _is_of(value: object, kind: Kind) -> bool:
    if kind is None:
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return abs(value) < 2**1023 and math.isfinite(value)
    if isinstance(value, str) and (kind is str or isinstance(kind, re.Pattern)):
        is_text = not any("\ud800" <= character <= "\udfff" for character in value)
        return is_text and (not isinstance(kind, re.Pattern) or kind.fullmatch(value) is not None)
    return False


def _describe(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return " or ".join(dict.fromkeys(map(_describe, kind)))
    if isinstance(kind, re.Pattern):
        return "a sha256" if kind is HASH else "a file name" if kind is FILE else f"text like {kind.pattern}"
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number", None: "null"}
    return "a list" if isinstance(kind, list) else "an object" if isinstance(kind, dict) else words[kind]


# ---------- writing and reading.


SEAL = "record_sha256"
"""The key of a record that holds the hash of all its other keys."""
FIX = "Restore it, or make what it describes again, with --overwrite"


def write_record(path: Path, record: dict, schema: Schema | None = None) -> None:
    """Write a JSON record with a hash of itself, so that a later change of any value shows.

    Args:   schema: of which kind it is; its version goes into the record.
    Raises: ValueError: a value that JSON does not know (NaN, an array) or that is not of the schema, a fault of the
            caller.   FileError: see `files.replacing`.
    """
    try:
        body = json.loads(json.dumps(record, allow_nan=False))  # as it will come back: keys are text
        sealed = {key: value for key, value in body.items() if key != SEAL}
        if schema is not None:
            sealed[VERSION_KEY] = VERSION
        sealed[SEAL] = _seal(sealed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the record holds a value that JSON cannot: {error}") from None
    if schema is not None and (wrong := find_mismatch(sealed, schema.fields)):
        raise ValueError(f"{path}: refused to write: {wrong}")
    write_atomically(path, (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode())


def read_record(path: Path, schema: Schema | None = None) -> dict:
    """Read a record that `write_record` wrote, without its hash.

    Args:   schema: what kind of record the caller needs. An older one comes back as one of this version.
    Raises: UserError: no JSON object, cut off, a key twice, NaN, changed since it was written, of a newer version, or
            a field that is missing or of another type than the schema's.
    """
    record = _read_json(path)
    seal = record.pop(SEAL, None)
    if seal is None:
        raise UserError(f"{path}: no {SEAL}, so written by another program or an older version. {FIX}")
    if seal != _seal(record):
        raise UserError(f"{path}: changed or damaged since it was written (its {SEAL} is of other contents). {FIX}")
    return record if schema is None else _of_this_version(path, record, schema)


def _of_this_version(path: Path, record: dict, schema: Schema) -> dict:
    version = record.pop(VERSION_KEY, 1)
    if not _is_of(version, int) or version < 1:
        raise UserError(f"{path}: {VERSION_KEY} is {version!r}; expected 1 to {VERSION}. {FIX}")
    if version > VERSION:
        raise UserError(
            f"{path}: written by a newer version of Foldblend ({VERSION_KEY} {version}, this one reads up to "
            f"{VERSION}). Update this project: git pull, or pip install -U foldblend"
        )
    for each in range(version, VERSION):
        record = schema.migrations.get(each, dict)(record)
    wrong = find_mismatch(record, schema.fields)
    if wrong:
        raise UserError(f"{path}: is not a record of {schema.name}: {wrong}. {FIX}")
    return record


def _seal(body: dict) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


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
    found: dict = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:60]!r} appears twice")
        found[key] = value
    return found


def _no_constant(name: str):
    raise ValueError(f"{name} is not a number that JSON knows")
