"""Ledger room: what one trained fold hands in, and the proofs that it is whole and belongs here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ledger.arrays import load_npz
from ledger.files import sha256_file
from ledger.fingerprints import compare_ids, describe_test, describe_train, name_changes
from ledger.folds import Folds
from ledger.records import read_record

KINDS = ("logits", "probs")


@dataclass(frozen=True)
class FoldFile:
    """What one trained fold hands in."""

    fold: int
    rows: np.ndarray
    """(n_heldout,) int64: positions of the held-out rows in the training file, in any order."""
    oof: np.ndarray
    """(n_heldout, L) float32, in the order of `rows`."""
    test: np.ndarray
    """(n_test, L) float32, in the order of the test file."""
    kind: str
    """`logits` or `probs`."""


def describe_origin(folds: Folds, tables) -> dict:
    """What a fold's record says of where its rows come from; read once, compared with every record."""
    return {
        "n_folds": folds.n_folds,
        "folds_sha256": folds.sha256,
        "label_names": list(tables.label_names),
        "train_sha256": describe_train(tables),
        "test_sha256": describe_test(tables),
    }


def check_fold_file(fold_file: FoldFile, folds: Folds, n_labels: int, n_test: int) -> list[str]:
    """Sentences on what is wrong with one fold's predictions; none when they are whole."""
    k, rows = fold_file.fold, fold_file.rows
    if not 0 <= k < folds.n_folds:
        return [f"fold {k}; folds.csv has 0 to {folds.n_folds - 1}"]
    problems = _compare_rows(rows, np.flatnonzero(folds.fold == k), k)
    for name, array, length in (("oof", fold_file.oof, len(rows)), ("test", fold_file.test, n_test)):
        if array.dtype != np.float32 or array.shape != (length, n_labels):
            problems.append(f"{name} is {array.dtype} {array.shape}; expected float32 {(length, n_labels)}")
        else:
            problems += check_values(array, fold_file.kind, name)
    return problems


def _compare_rows(rows: np.ndarray, heldout: np.ndarray, k: int) -> list[str]:
    if np.array_equal(np.sort(rows), heldout):
        return []
    twice = len(rows) - len(np.unique(rows))
    foreign, absent = len(np.setdiff1d(rows, heldout)), len(np.setdiff1d(heldout, rows))
    return [
        f"{len(rows)} rows, folds.csv holds out {len(heldout)} for fold {k}; {twice} doubled, {absent} missing, "
        f"{foreign} of other folds. Gather inside the loop"
    ]


def check_values(array: np.ndarray, kind: str, name: str) -> list[str]:
    """Sentences on numbers that cannot be predictions of this kind."""
    if kind not in KINDS:
        return [f"kind is {kind!r}; expected logits or probs"]
    bad = ~np.isfinite(array)
    what = "NaN or infinite"
    if not bad.any() and kind == "probs":
        bad = (array < 0) | (array > 1)
        what = "outside [0, 1] (logits?)"
    if not bad.any():
        return []
    row, column = np.argwhere(bad)[0].tolist()
    first = f"the first in row {row}, column {column}: {array[row, column]}"
    return [f"{name}: {int(bad.sum())} values are {what}, {first}"]


def check_record(path: Path, origin: dict) -> dict:
    """The record of one fold, proven to describe its .npz and to be of this origin.

    Raises: ValueError: what differs.
    """
    record = read_record(path.with_suffix(".json"))
    if record.get("folds_sha256") != origin["folds_sha256"]:
        raise ValueError(f"{path}: made on other folds than folds.csv holds now")
    if record.get("label_names") != origin["label_names"]:
        raise ValueError(f"{path}: of labels {record.get('label_names')}; expected {origin['label_names']}")
    changed = [f"training {part}" for part in name_changes(record.get("train_sha256"), origin["train_sha256"])]
    changed += [f"test {part}" for part in name_changes(record.get("test_sha256"), origin["test_sha256"])]
    if changed:
        raise ValueError(f"{path}: made on other data: the {', '.join(changed)} differ")
    if record.get("kind") not in KINDS or not isinstance(record.get("settings"), dict):
        raise ValueError(f"{path.with_suffix('.json')}: lacks kind or settings; written by another version")
    if record.get("fold") != int(path.stem.removeprefix("fold")) or record.get("npz_sha256") != sha256_file(path):
        raise ValueError(f"{path}: not the file its .json describes; damaged, swapped or changed since it was written")
    return record


def load_fold(path: Path, record: dict, folds: Folds, tables) -> FoldFile:
    """Read one fold's arrays and prove them again, whatever the record says.

    Raises: ValueError: a damaged or foreign file, misaligned, doubled or foreign ids, other labels, NaN.
    """
    n_test, n_labels = len(tables.test_ids), len(tables.label_names)
    n_heldout = int((folds.fold == record["fold"]).sum())
    expected = {
        "fold": ("i", ()),
        "label_names": ("U", (n_labels,)),
        "rows": ("i", (n_heldout,)),
        "ids": ("U", (n_heldout,)),
        "oof": ("f", (n_heldout, n_labels)),
        "test_ids": ("U", (n_test,)),
        "test": ("f", (n_test, n_labels)),
    }
    arrays = load_npz(path, expected)
    fold_file = FoldFile(int(arrays["fold"]), arrays["rows"], arrays["oof"], arrays["test"], record["kind"])
    problems = check_fold_file(fold_file, folds, n_labels, n_test)
    if fold_file.fold != record["fold"]:
        problems.append(f"holds fold {fold_file.fold}; its .json says {record['fold']}")
    if arrays["label_names"].tolist() != list(tables.label_names):
        problems.append(f"of labels {arrays['label_names'].tolist()}; expected {list(tables.label_names)}")
    if not problems:
        problems += compare_ids(arrays["ids"], folds.ids[fold_file.rows], "the fold's held-out rows")
        problems += compare_ids(arrays["test_ids"], tables.test_ids, "the test file")
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return fold_file


def load_test(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The test predictions float32 (n_test, L) of a fold that `load_fold` has proven."""
    return load_npz(path, {"test": ("f", shape)}, others=True)["test"]
