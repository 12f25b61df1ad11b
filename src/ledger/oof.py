"""Ledger room: oof/<competition>/<run>/fold<k>.npz and .json, the predictions of one trained fold.

The .json is written last and names the .npz by its hash: an .npz without its .json is a fold that was cut off while
it was written, and counts as not trained.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ledger.arrays import write_npz
from ledger.files import remove_file, replacing, sha256_file
from ledger.fold_file import FoldFile, check_fold_file, check_record, describe_origin
from ledger.folds import Folds
from ledger.records import read_record, write_record
from settings.older import merge
from settings.places import Places
from settings.strict import check_name, describe_differences

DROPPED_IN = ("oof.csv", "test.csv")
"""Predictions made elsewhere, see ledger/dropped.py."""


def run_folder(places: Places, competition_name: str, run_name: str) -> Path:
    """The folder of one run. Raises ValueError where a name could leave oof/."""
    check_name(competition_name, "competition")
    return places.oof(competition_name) / check_name(run_name, "run")


def write_fold(
    places: Places, competition_name: str, run_name: str, folds: Folds, tables, fold_file: FoldFile, record: dict
) -> Path:
    """Prove that a fold's predictions are whole and write them, sorted by row.

    Args:   record: what else is known of the training, at least `settings`; plain values that JSON can hold.
    Returns: the .npz's path.
    Raises: ValueError: rows that are not the fold's held-out rows, another shape, NaN or infinity, probabilities
            outside [0, 1], a run that holds dropped-in predictions. OSError: the folder cannot be written.
    """
    path = run_folder(places, competition_name, run_name) / f"fold{fold_file.fold}.npz"
    problems = _refuse_dropped_in(path.parent)
    problems += check_fold_file(fold_file, folds, len(tables.label_names), len(tables.test_ids))
    problems += _check_plain(record)
    if problems:
        raise ValueError(f"{path}: refused to write: {'; '.join(problems)}")
    order = np.argsort(fold_file.rows)
    rows = fold_file.rows[order].astype(np.int64)
    arrays = {
        "fold": np.array(fold_file.fold, dtype=np.int64),
        "label_names": np.array(tables.label_names, dtype=str),
        "rows": rows,
        "ids": folds.ids[rows],
        "oof": fold_file.oof[order],
        "test_ids": tables.test_ids,
        "test": fold_file.test,
    }
    with replacing(path) as file:
        write_npz(file, arrays)
        file.flush()
        remove_file(path.with_suffix(".json"))  # written out; from here on an older fold of this name no longer counts
    described = {
        **describe_origin(folds, tables),
        "fold": fold_file.fold,
        "kind": fold_file.kind,
        "rows": len(rows),
        "test_rows": len(tables.test_ids),
        "npz_sha256": sha256_file(path),
    }
    write_record(path.with_suffix(".json"), {**record, **described})
    return path


def _check_plain(record: dict) -> list[str]:
    """Found out before the .npz is written: a fold must not be lost to its own record."""
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"the record holds a value that JSON cannot: {error}"]
    return [] if isinstance(record.get("settings"), dict) else ["the record has no `settings`"]


def _refuse_dropped_in(folder: Path) -> list[str]:
    there = [name for name in DROPPED_IN if (folder / name).exists()]
    return [f"the run's folder holds {', '.join(there)} made elsewhere; train under another --name"] if there else []


def finished_folds(places: Places, competition_name: str, run_name: str, folds: Folds, tables) -> list[int]:
    """Folds of a run that need no training, rising.

    Raises: ValueError: a fold of other folds, labels or data, or damaged: nothing is retrained or kept in silence.
    """
    folder = run_folder(places, competition_name, run_name)
    done, problems, origin = [], _refuse_dropped_in(folder), describe_origin(folds, tables)
    for k in recorded_folds(folder, folds.n_folds):
        try:
            check_record(folder / f"fold{k}.npz", origin)
            done.append(k)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        cure = f"accelerate launch src/train.py --competition {competition_name} --run {run_name} --fold all"
        raise ValueError("\n".join([*problems, f"To train anew: {cure} --overwrite"]))
    return done


def recorded_folds(folder: Path, n_folds: int) -> list[int]:
    """Folds whose .npz and .json are both there."""
    there = [k for k in range(n_folds) if (folder / f"fold{k}.npz").exists()]
    return [k for k in there if (folder / f"fold{k}.json").exists()]


def check_same_settings(
    places: Places,
    competition_name: str,
    run_name: str,
    settings: dict,
    defaults: dict,
    forgotten: Iterable[int] = (),
) -> None:
    """Refuse to add folds to a run whose folds were trained with other settings.

    Args:   settings: of now, resolved, as `record["settings"]` stores them.
            defaults: of the same form; a setting that is younger than a stored record had its default then.
            forgotten: folds that are about to be trained anew, whatever their settings were.
    Raises: ValueError: every setting that differs, and how to go on.
    """
    folder = run_folder(places, competition_name, run_name)
    differences: dict[str, list[str]] = {}
    kept = set(folder.glob("fold*.json")) - {folder / f"fold{k}.json" for k in forgotten}
    for path in sorted(kept):
        if path.with_suffix(".npz").exists():
            stored = merge(_as_json(defaults), read_record(path).get("settings") or {})
            for difference in describe_differences(stored, _as_json(settings)):
                differences.setdefault(difference, []).append(path.stem)
    if differences:
        lines = [f"{folder}: {difference} ({', '.join(stems)})" for difference, stems in differences.items()]
        raise ValueError(
            "\n".join(lines) + f"\nRun {run_name} was trained with other settings. To retrain it: --fold all "
            "--overwrite. To keep both: --name ANOTHER_NAME"
        )


def _as_json(values: dict) -> dict:
    """Tuples become lists, as they are when they come back from a file."""
    return json.loads(json.dumps(values))


def remove_folds(places: Places, competition_name: str, run_name: str, numbers: Iterable[int]) -> None:
    """Forget folds of a run (`--overwrite`): the .json first, so that a kill in between leaves them not trained."""
    folder = run_folder(places, competition_name, run_name)
    for k in numbers:
        remove_file(folder / f"fold{k}.json")
        remove_file(folder / f"fold{k}.npz")
