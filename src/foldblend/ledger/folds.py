"""folds/<competition>.csv (`id,fold,group`) and its .json: drawn once or brought by the user, shared by every run.

`tables` is data.tables.Tables. The .csv's rename is the one moment at which folds change. Its record waits before it
under the name `.next`, and the record that holds the hash of the .csv is the one that counts: see `find_record`.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldblend.errors import UserError
from foldblend.files import OLD, hold_lock, read_bytes, set_aside, sha256_bytes, sha256_file, write_atomically
from foldblend.ledger.records import HASH, Schema, read_record, write_record
from foldblend.predictions import FULL
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.paths import Paths

# ---------- which data a file belongs to, as hashes, and the words for data that differ.


def hash_texts(texts: Iterable[str]) -> str:
    """sha256 of a list of texts; lengths are hashed too, or ["ab", "c"] would equal ["a", "bc"]."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


FEATURES = "features"


def describe_train(tables, with_features: bool = False) -> dict[str, str]:
    """Hashes of the training ids, texts, label names, labels, and shares and unknown labels if there are such.

    Args: with_features: those of the columns beside the text, too; folds do not depend on them.
    """
    labels = np.ascontiguousarray(tables.labels, dtype=bool)
    more = {}  # only what there is: older records have neither
    if tables.soft is not None:
        more["soft"] = hashlib.sha256(np.ascontiguousarray(tables.soft, np.float32).tobytes()).hexdigest()
    if tables.known is not None:
        more["known"] = hashlib.sha256(np.packbits(tables.known).tobytes()).hexdigest()
    if with_features and tables.train_features is not None:
        more[FEATURES] = tables.train_features.sha256()
    return {
        "ids": hash_texts(tables.train_ids),
        "texts": hash_texts(tables.train_texts),
        "label_names": hash_texts(tables.label_names),
        "labels": hash_texts([str(labels.shape), hashlib.sha256(np.packbits(labels).tobytes()).hexdigest()]),
        **more,
    }


def describe_test(tables) -> dict[str, str]:
    """Hashes of the test ids and texts: what test predictions are made on."""
    more = {} if tables.test_features is None else {FEATURES: tables.test_features.sha256()}
    return {"ids": hash_texts(tables.test_ids), "texts": hash_texts(tables.test_texts), **more}


def name_changes(stored: object, now: dict[str, str]) -> list[str]:
    """Which parts differ between a record's hashes and those of now; all of them if the record has none."""
    known = stored if isinstance(stored, dict) else {}
    names = dict.fromkeys([*now, *known])
    return [name.replace("_", " ") for name in names if known.get(name) != now.get(name)]


def compare_ids(found: np.ndarray, expected: np.ndarray, what: str) -> list[str]:
    """Sentences on how one list of ids differs from another; none when they are equal in the same order."""
    if np.array_equal(found, expected):
        return []
    problems = []
    values, counts = np.unique(found, return_counts=True)
    if (counts > 1).any():
        problems.append(f"{int((counts > 1).sum())} ids twice, first {str(values[counts > 1][0])!r}")
    absent, foreign = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    if len(absent):
        problems.append(f"{len(absent)} ids of {what} are not in it, first {str(absent[0])!r}")
    if len(foreign):
        problems.append(f"{len(foreign)} ids are not of {what}, first {str(foreign[0])!r}")
    if not problems:
        row = int(np.flatnonzero(found != expected)[0])
        there, wanted = str(found[row]), str(expected[row])
        problems.append(f"ids in another order than {what}: row {row} is {there!r}, not {wanted!r}")
    return problems


# ---------- the folds.


HEADER = ["id", "fold", "group"]
FOLDS = Schema(
    "folds",
    {
        "n_folds": int,
        "fold_seed?": int,
        "near_duplicates?": float,
        "groups?": str,
        "brought?": {"file": str, "column": str, "sha256": (HASH, None)},
        "adopted?": bool,
        "csv_sha256": HASH,
        "train_sha256": {"*": HASH},
        "rows_per_fold": [int],
        "labels_per_fold": {"*": [int]},
    },
)
"""The .json beside a file of folds."""
Draw = Callable[..., tuple[np.ndarray, np.ndarray]]
"""As folding.draw.draw_folds: (texts, labels, n_folds=, seed=, near_duplicates=) -> fold, group, (N,)."""
BROUGHT, DRAWN, ADOPTED = "brought", "drawn", "adopted"
"""Where folds come from: a file that the settings name, this project, or a file that was put into folds/ by hand."""


@dataclass(frozen=True)
class Folds:
    """Which fold holds out which training row; N rows in the order of the training file."""

    ids: np.ndarray
    """(N,) str."""
    fold: np.ndarray
    """(N,) int64, 0..n_folds-1."""
    group: np.ndarray
    """(N,) int64; rows of one group are copies of one text and share a fold."""
    n_folds: int
    """Number of folds."""
    sha256: str
    """Of the CSV's bytes: what files in oof/ are tied to."""


def ensure_folds(paths: Paths, competition_name: str, competition: CompetitionSettings, tables, draw: Draw) -> Folds:
    """Load the folds, or draw them if there are none; processes that start together wait for one draw.

    Raises: UserError: the stored folds were drawn on other data or settings, are damaged, or cannot be drawn.
    """
    path = paths.folds(competition_name)
    if not path.exists():
        with hold_lock(path.with_name(f".{competition_name}.lock")):
            if not path.exists():
                draw_and_write_folds(paths, competition_name, competition, tables, draw)
    return load_folds(paths, competition_name, tables, competition)


def draw_and_write_folds(
    paths: Paths, competition_name: str, competition: CompetitionSettings, tables, draw: Draw
) -> Folds:
    """Draw by the competition's settings and write over whatever is there. Raises as `draw` and `write_folds` do."""
    fold, group = draw(
        tables.compared_texts,
        tables.labels,
        n_folds=competition.n_folds,
        seed=competition.fold_seed,
        near_duplicates=competition.near_duplicates,
    )
    return write_folds(paths, competition_name, competition, tables, fold, group)


def write_folds(
    paths: Paths,
    competition_name: str,
    competition: CompetitionSettings,
    tables,
    fold: np.ndarray,
    group: np.ndarray,
    is_adopted: bool = False,
) -> Folds:
    """Write folds; other ones that are there are kept in `.old/` beside them, see `files.set_aside`.

    Args:   fold, group: int64 (N,), in the order of tables.train_ids.
            is_adopted: whether they were put into folds/ by hand, so that no setting says where they come from.
    Raises: ValueError: an empty fold or a group in two folds, a fault of the caller.
            FileError: the folder cannot be written.
    """
    path = paths.folds(competition_name)
    problems = _check_partition(fold, group, competition.n_folds)
    if problems:
        raise ValueError(f"{path}: refused to write: " + "; ".join(problems))
    data = _folds_bytes(tables.train_ids, fold, group)
    made = (
        {"n_folds": competition.n_folds, ADOPTED: True}
        if is_adopted
        else _made_by(paths, competition_name, competition)
    )
    record = {
        **made,
        "csv_sha256": sha256_bytes(data),
        "train_sha256": describe_train(tables),
        "rows_per_fold": np.bincount(fold, minlength=competition.n_folds).tolist(),
        "labels_per_fold": _count_labels(tables, fold, competition.n_folds),
    }
    if path.exists() and read_bytes(path) != data:
        set_aside([path, path.with_suffix(".json")], copy=True)
    write_record(_next_record(path), record, FOLDS)
    write_atomically(path, data)
    finish_record(path)
    return Folds(tables.train_ids, fold, group, competition.n_folds, record["csv_sha256"])


def load_folds(paths: Paths, competition_name: str, tables, competition: CompetitionSettings | None = None) -> Folds:
    """Read the folds and prove that they were drawn on this training file and, if given, with these settings.

    Raises: UserError: missing, damaged, of a different training file, drawn with other settings.
    """
    path = paths.folds(competition_name)
    draw_again = f"Run: python src/make_folds.py --competition {competition_name}"
    if not path.exists():
        raise UserError(f"{path}: missing. {draw_again}")
    if not is_described(path):
        raise UserError(f"{path}: has no .json beside it, so its training file is not known. {draw_again}")
    data = read_bytes(path)
    record = find_record(path, data)
    if record is None:
        raise UserError(
            f"{path}: not the file its .json describes; edited or damaged. Restore both files (earlier ones may be in "
            f"{path.parent.name}/{OLD}/), or draw new folds. {draw_again} --overwrite"
        )
    made = _made_by(paths, competition_name, competition) if competition else None
    problems = _compare_record(record, tables, made)
    if problems:
        how = "take the folds of folds.file" if competition and competition.folds.file else "draw new folds"
        raise UserError(
            f"{path}: {'; '.join(problems)}. Restore what was there, or {how}, which need "
            f"every run in oof/{competition_name}/ trained again. {draw_again} --overwrite"
        )
    ids, fold, group = _parse_folds(path, data)
    n_folds = int(record["n_folds"])
    problems = compare_ids(ids, tables.train_ids, "the training file") + _check_partition(fold, group, n_folds)
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}. {draw_again} --overwrite")
    return Folds(tables.train_ids, fold, group, n_folds, record["csv_sha256"])


FOLD_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
"""3, or 0-2."""


def parse_fold_numbers(given: list[str], n_folds: int) -> list[int]:
    """The folds that a command's --fold names, rising: `3`, `0 1`, `0,1`, `0-2`, `all`; `full` is FULL, the last.

    Raises: UserError: it names what is not a fold.
    """
    words = [word for part in given for word in part.split(",") if word]
    full = [FULL] if "full" in words else []
    if set(words) - {"full"} == {"all"}:
        return [*range(n_folds), *full]
    numbers, wrong = set(full), []
    for word in words:
        if word == "full":
            continue
        found = FOLD_RANGE.fullmatch(word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last >= n_folds:
            wrong.append(word)
        numbers |= set(range(first, min(last + 1, n_folds)))
    if wrong or not words:
        raise UserError(
            f"--fold {' '.join(wrong)}: expected numbers from 0 to {n_folds - 1}, or `all`; 0,1 and 0-1 are two folds; "
            "`full` trains on all rows"
        )
    return sorted(numbers)


def load_fold_numbers(paths: Paths, competition_name: str, sha256: str) -> np.ndarray:
    """Which fold holds out which training row, int64 (N,), of the folds with this hash; without the training file.

    Raises: UserError: missing, or other folds by now.
    """
    path = paths.folds(competition_name)
    data = read_bytes(path) if path.exists() else b""
    if sha256_bytes(data) != sha256:
        found = "other folds than the blend was made on" if data else "missing"
        raise UserError(f"{path}: {found}. Restore it, or train and blend again")
    return _parse_folds(path, data)[1]


def is_described(path: Path) -> bool:
    """Whether a .csv has a record, be it the right one or not."""
    return path.with_suffix(".json").exists() or _next_record(path).exists()


def find_record(path: Path, data: bytes) -> dict | None:
    """The record of a .csv with these bytes, also if its writer was killed before the record had its final name.

    Returns: None if neither record is of these bytes.   Raises: UserError: the only record is damaged.
    """
    there = [each for each in (_next_record(path), path.with_suffix(".json")) if each.exists()]
    for each in there:
        try:
            record = read_record(each, FOLDS)
        except UserError:
            if each == there[-1]:
                raise
            continue
        if record["csv_sha256"] == sha256_bytes(data):
            return record
    return None


def finish_record(path: Path) -> None:
    """Give the waiting record of a .csv its final name, if it is that file's; the caller holds the folds' lock."""
    waiting = _next_record(path)
    if path.exists() and waiting.exists() and read_record(waiting, FOLDS)["csv_sha256"] == sha256_file(path):
        os.replace(waiting, path.with_suffix(".json"))


def _next_record(path: Path) -> Path:
    return path.with_name(f".{path.stem}.next.json")


def _made_by(paths: Paths, competition_name: str, competition: CompetitionSettings) -> dict:
    """The settings that decide about the folds, as their record has them; nothing that a setting turns off."""
    folds = competition.folds
    if folds.file:
        source = paths.data(competition_name) / folds.file
        found = sha256_bytes(read_bytes(source)) if source.is_file() else None
        return {"n_folds": competition.n_folds, BROUGHT: {"file": folds.file, "column": folds.column, "sha256": found}}
    drawn = {
        "n_folds": competition.n_folds,
        "fold_seed": competition.fold_seed,
        "near_duplicates": competition.near_duplicates,
    }
    return {**drawn, **({"groups": competition.groups} if competition.groups else {})}


def _compare_record(record: dict, tables, made: dict | None) -> list[str]:
    """What is wrong with stored folds. Args: made: `_made_by` the settings of now; None takes any."""
    changed = name_changes(record.get("train_sha256"), describe_train(tables))
    problems = [f"drawn on a different training file: its {', '.join(changed)} differ"] if changed else []
    problems += _compare_origin(record, made) if made else []
    if not isinstance(record.get("n_folds"), int) or not 2 <= record["n_folds"] <= len(tables.train_ids):
        problems.append(f"its .json says n_folds {record.get('n_folds')!r}; expected 2 to {len(tables.train_ids)}")
    return problems


def _compare_origin(record: dict, made: dict) -> list[str]:
    """How the settings that stored folds were made by differ from those of now."""
    asked, stored = made.get(BROUGHT), record.get(BROUGHT)
    if asked and not stored:
        return [f"not those of folds.file {asked['file']}, which you asked for"]
    if asked and stored:
        if asked["sha256"] is None:  # the file is gone; what was read from it is still here
            asked = {**asked, "sha256": stored.get("sha256")}
        if asked["sha256"] != stored.get("sha256") or asked["column"] != stored.get("column"):
            return [f"{asked['file']}, column {asked['column']!r}, is not what they were read from"]
    elif stored:
        return [f"read from {stored.get('file')}, which folds.file no longer names"]
    if stored or record.get(ADOPTED):  # no other setting says how they were made
        made = {"n_folds": made["n_folds"]}
    return [
        f"drawn with {key} {record.get(key, '(none)')}, you asked for {made.get(key, '(none)')}"
        for key in (*made, *(["groups"] if record.get("groups") and "groups" not in made else []))
        if record.get(key) != made.get(key)
    ]


def _folds_bytes(ids: np.ndarray, fold: np.ndarray, group: np.ndarray) -> bytes:
    """The CSV; ids are quoted by our own rule, since what the csv module quotes depends on Python's version."""
    text = io.StringIO()
    text.write(",".join(HEADER) + "\n")
    for name, k, g in zip(ids.tolist(), fold.tolist(), group.tolist(), strict=True):
        plain = not any(c in name for c in ',"\r\n')
        text.write(f"{name},{k},{g}\n" if plain else '"{}",{},{}\n'.format(name.replace('"', '""'), k, g))
    return text.getvalue().encode("utf-8", "surrogatepass")


def _parse_folds(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8", "surrogatepass"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error})") from None
    if not rows or rows[0] != HEADER:
        raise UserError(f"{path}: starts with {rows[0] if rows else 'nothing'}; expected {','.join(HEADER)}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 3 or not (row[1] + row[2]).isdecimal() or len(row[1] + row[2]) > 18:
            raise UserError(f"{path}: row {number} is {','.join(row)[:80]!r}; expected an id and two whole numbers")
    ids = np.array([row[0] for row in rows[1:]], dtype=str)
    numbers = np.array([[int(row[1]), int(row[2])] for row in rows[1:]], dtype=np.int64).reshape(-1, 2)
    return ids, numbers[:, 0], numbers[:, 1]


def _check_partition(fold: np.ndarray, group: np.ndarray, n_folds: int) -> list[str]:
    """Every row has a fold, every fold has rows, no group is in two folds."""
    outside = np.flatnonzero((fold < 0) | (fold >= n_folds))
    if len(outside):
        return [f"row {outside[0]} is in fold {fold[outside[0]]}; expected 0 to {n_folds - 1}"]
    problems = [f"fold {k} holds no row" for k in range(n_folds) if not (fold == k).any()]
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    torn = np.flatnonzero(fold != fold[first][member])
    if len(torn):
        problems.append(f"group {group[torn[0]]} crosses folds {fold[first][member][torn[0]]} and {fold[torn[0]]}")
    return problems


def _count_labels(tables, fold: np.ndarray, n_folds: int) -> dict[str, list[int]]:
    """Label name -> its positives in each fold."""
    counts = np.stack([tables.labels[fold == k].sum(axis=0) for k in range(n_folds)])
    return dict(zip(tables.label_names, counts.T.tolist(), strict=True))
