"""Ledger room: what data a file belongs to, as hashes, and the words for data that is not the same."""

import hashlib
from collections.abc import Iterable

import numpy as np


def hash_texts(texts: Iterable[str]) -> str:
    """sha256 of a list of texts; lengths are hashed too, so moving a border between two texts shows."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def describe_train(tables) -> dict[str, str]:
    """Hashes of the training ids, texts, label names and labels: what folds are drawn on."""
    labels = np.ascontiguousarray(tables.labels, dtype=bool)
    return {
        "ids": hash_texts(tables.train_ids),
        "texts": hash_texts(tables.train_texts),
        "label_names": hash_texts(tables.label_names),
        "labels": hash_texts([str(labels.shape), hashlib.sha256(np.packbits(labels)).hexdigest()]),
    }


def describe_test(tables) -> dict[str, str]:
    """Hashes of the test ids and texts: what test predictions are made on."""
    return {"ids": hash_texts(tables.test_ids), "texts": hash_texts(tables.test_texts)}


def name_changes(stored: object, now: dict[str, str]) -> list[str]:
    """Which parts differ between a record's hashes and those of now; all of them where the record has none."""
    known = stored if isinstance(stored, dict) else {}
    return [name.replace("_", " ") for name, value in now.items() if known.get(name) != value]


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
