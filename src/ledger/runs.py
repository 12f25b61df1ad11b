"""Ledger room: whole runs out of oof/, every fold proven, in the order of the training and test files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ledger.dropped import load_dropped
from ledger.files import sha256_file
from ledger.fold_file import check_record, describe_origin, load_fold, load_test
from ledger.folds import Folds
from ledger.oof import DROPPED_IN, recorded_folds, run_folder
from ledger.records import read_record
from settings.older import with_defaults
from settings.places import Places
from settings.strict import describe_differences


@dataclass(frozen=True)
class RunPredictions:
    """All predictions of one run; K folds, or K = 1 for a run that was made elsewhere."""

    name: str
    oof: np.ndarray
    """(N, L) float32, in the order of the training file; each row from the one model that did not see it."""
    test_folds: Sequence[np.ndarray]
    """K tables (n_test, L) float32, in the order of the test file; K = 1 for a run that was made elsewhere. A fold's
    table is read from disk each time it is asked for: there are K times as many as anything needs at once."""
    kind: str
    """`logits` or `probs`."""
    records: list[dict]
    """One a fold; empty for a run made elsewhere."""
    files: dict[str, str]
    """Path relative to the root -> sha256."""


@dataclass(frozen=True)
class StoredTestFolds(Sequence):
    """The test predictions in the files of a run's folds."""

    paths: list[Path]
    shape: tuple[int, int]
    """(n_test, L)."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, fold: int) -> np.ndarray:
        return load_test(self.paths[fold], self.shape)


def load_run(places: Places, competition_name: str, run_name: str, folds: Folds, tables) -> RunPredictions:
    """Load one run. Raises ValueError as `load_runs` does."""
    return load_runs(places, competition_name, [run_name], folds, tables)[0]


def load_runs(
    places: Places, competition_name: str, run_names: Sequence[str] | None, folds: Folds, tables
) -> list[RunPredictions]:
    """Load the named runs, or all in oof/<competition>/ in the order of their names.

    Raises: ValueError: every problem of every run, one a line, each with what to do.
    """
    names = find_runs(places, competition_name) if run_names is None else list(run_names)
    if not names:
        raise ValueError(
            f"{places.oof(competition_name)}: no run is there. Run: accelerate launch src/train.py "
            f"--competition {competition_name} --fold all"
        )
    origin = describe_origin(folds, tables)
    runs, problems = [], [f"run {name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for name in names:
        try:
            runs.append(_load_run(places, run_folder(places, competition_name, name), folds, tables, origin))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return runs


def find_runs(places: Places, competition_name: str) -> list[str]:
    """Names of the folders in oof/<competition>/, sorted; hidden ones are not runs."""
    folder = places.oof(competition_name)
    there = folder.iterdir() if folder.is_dir() else []
    return sorted(entry.name for entry in there if entry.is_dir() and not entry.name.startswith("."))


def find_stale_runs(places: Places, competition_name: str, folds: Folds) -> list[str]:
    """Names of runs that hold a fold made on other folds than these."""
    stale = []
    for name in find_runs(places, competition_name):
        records = (places.oof(competition_name) / name).glob("fold*.json")
        trained = [read_record(path) for path in records if path.with_suffix(".npz").exists()]
        if any(record.get("folds_sha256") != folds.sha256 for record in trained):
            stale.append(name)
    return stale


def _load_run(places: Places, folder: Path, folds: Folds, tables, origin: dict) -> RunPredictions:
    if not folder.is_dir():
        there = ", ".join(find_runs(places, folder.parent.name)) or "none"
        raise ValueError(f"{folder}: no such run. There are: {there}")
    dropped = [name for name in DROPPED_IN if (folder / name).exists()]
    trained = sorted(path.name for path in folder.glob("fold*.npz"))
    if dropped and trained:
        raise ValueError(f"{folder}: holds both {dropped[0]} and {trained[0]}; move one kind to another run's folder")
    if len(dropped) == 1:
        absent = next(name for name in DROPPED_IN if name not in dropped)
        raise ValueError(f"{folder}: {dropped[0]} is there, {absent} is not; a run made elsewhere needs both")
    if dropped:
        return _load_made_elsewhere(places, folder, tables)
    return _load_trained(places, folder, folds, tables, origin)


def _load_made_elsewhere(places: Places, folder: Path, tables) -> RunPredictions:
    oof = load_dropped(folder / "oof.csv", tables.train_ids, tables.label_names, "the training file")
    test = load_dropped(folder / "test.csv", tables.test_ids, tables.label_names, "the test file")
    return RunPredictions(folder.name, oof, test[np.newaxis], "probs", [], _hash_files(places, folder, DROPPED_IN))


def _load_trained(places: Places, folder: Path, folds: Folds, tables, origin: dict) -> RunPredictions:
    _check_complete(folder, folds.n_folds)
    paths = [folder / f"fold{k}.npz" for k in range(folds.n_folds)]
    records = [check_record(path, origin) for path in paths]
    _check_agreement(folder, records)
    n_labels = len(tables.label_names)
    oof = np.empty((len(folds.ids), n_labels), dtype=np.float32)
    for path, record in zip(paths, records, strict=True):
        fold_file = load_fold(path, record, folds, tables)
        oof[fold_file.rows] = fold_file.oof
    test_folds = StoredTestFolds(paths, (len(tables.test_ids), n_labels))
    files = {**_relative(places, paths, records), **_hash_files(places, folder, [f"{p.stem}.json" for p in paths])}
    return RunPredictions(folder.name, oof, test_folds, records[0]["kind"], records, files)


def _check_complete(folder: Path, n_folds: int) -> None:
    """Exactly the folds 0..n_folds-1: the held-out rows of folds.csv are a partition, so these cover each row once."""
    known = {f"fold{k}.npz" for k in range(n_folds)}
    foreign = sorted(path.name for path in folder.glob("fold*.npz") if path.name not in known)
    if foreign:
        raise ValueError(f"{folder}: {foreign[0]} is of other folds; folds.csv has fold 0 to {n_folds - 1}. Remove it")
    missing = sorted(set(range(n_folds)) - set(recorded_folds(folder, n_folds)))
    if missing:
        which = f"fold {missing[0]} of {n_folds}" if len(missing) == 1 else f"folds {missing} of {n_folds}"
        raise ValueError(
            f"oof/{folder.parent.name}/{folder.name}: {which} missing. Run: accelerate launch src/train.py "
            f"--competition {folder.parent.name} --run {folder.name} --fold {' '.join(map(str, missing))}"
        )


def _check_agreement(folder: Path, records: list[dict]) -> None:
    """All folds of a run come from one recipe and speak in one kind of number."""
    settings = [with_defaults(record["settings"]) for record in records]
    for record, own in zip(records[1:], settings[1:]):
        problems = describe_differences(settings[0], own)
        if record["kind"] != records[0]["kind"]:
            problems.append(f"kind was {records[0]['kind']}, is now {record['kind']}")
        if problems:
            raise ValueError(
                f"{folder}: folds {records[0]['fold']} and {record['fold']} are of different recipes: "
                f"{'; '.join(problems)}. Retrain with --fold all --overwrite, or keep them in two runs (--name)"
            )


def _relative(places: Places, paths: list[Path], records: list[dict]) -> dict[str, str]:
    pairs = zip(paths, records, strict=True)
    return {path.relative_to(places.root).as_posix(): record["npz_sha256"] for path, record in pairs}


def _hash_files(places: Places, folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {(folder / name).relative_to(places.root).as_posix(): sha256_file(folder / name) for name in names}
