"""oof/<competition>/<run>/fold<k>.npz and .json: the predictions of one trained fold, checked before and after.

The .json is written last and names the .npz by its hash: an .npz without its .json is a fold that was cut off while
it was written, and counts as not trained.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from foldblend.errors import UserError
from foldblend.files import hold_lock, remove_file, replacing, set_aside, sha256_file
from foldblend.ledger.folds import FEATURES, Folds, compare_ids, describe_test, describe_train, name_changes
from foldblend.ledger.records import ANY, HASH, Schema, read_record, write_record
from foldblend.npz import load_npz, write_npz
from foldblend.predictions import FULL, FoldPredictions, fold_name
from foldblend.settings.paths import Paths
from foldblend.settings.records import describe_differences, flags_to, merge, with_new_names
from foldblend.settings.yaml_files import check_name

# ---------- proofs that a fold is whole and belongs to these folds and data.


KINDS = ("logits", "probs")


def describe_origin(folds: Folds, tables) -> dict:
    """The folds, labels and data that predictions belong to: computed once, compared with every record.

    `test_file` is the name of the file for a message; records do not have it.
    """
    return {
        "test_file": tables.test_file,
        "n_folds": folds.n_folds,
        "folds_sha256": folds.sha256,
        "label_names": list(tables.label_names),
        "train_sha256": describe_train(tables, with_features=True),
        "test_sha256": describe_test(tables),
    }


def _as_read(hashes: Any, settings: object) -> Any:
    """The hashes of `train_sha256` or `test_sha256` that matter to a run: without features if it reads none."""
    reads_them = isinstance(settings, dict) and settings.get("use_features")
    if reads_them or not isinstance(hashes, dict):
        return hashes
    return {name: value for name, value in hashes.items() if name != FEATURES}


def check_fold(predictions: FoldPredictions, folds: Folds, n_labels: int, n_test: int) -> list[str]:
    """Sentences on what is wrong with one fold's predictions; none if they are whole."""
    k, rows = predictions.fold, predictions.rows
    if k != FULL and not 0 <= k < folds.n_folds:
        return [f"fold {k}; folds.csv has 0 to {folds.n_folds - 1}"]
    problems = _compare_rows(rows, np.flatnonzero(folds.fold == k), k)
    for name, array, length in (("oof", predictions.oof, len(rows)), ("test", predictions.test, n_test)):
        if array.dtype != np.float32 or array.shape != (length, n_labels):
            problems.append(f"{name} is {array.dtype} {array.shape}; expected float32 {(length, n_labels)}")
        else:
            problems += check_values(array, predictions.kind, name)
    return problems


def _compare_rows(rows: np.ndarray, heldout: np.ndarray, k: int) -> list[str]:
    if np.array_equal(np.sort(rows), heldout):
        return []
    twice = len(rows) - len(np.unique(rows))
    foreign, absent = len(np.setdiff1d(rows, heldout)), len(np.setdiff1d(heldout, rows))
    return [
        f"{len(rows)} rows, folds.csv holds out {len(heldout)} for fold {k}; {twice} twice, {absent} missing, "
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
    """The record of one fold, proven to describe its .npz and to belong to this origin (`describe_origin`).

    Raises: UserError: what differs.
    """
    record = read_record(path.with_suffix(".json"), FOLD)
    if record.get("folds_sha256") != origin["folds_sha256"]:
        raise UserError(f"{path}: trained on other folds than those in folds/ now")
    if record.get("label_names") != origin["label_names"]:
        raise UserError(f"{path}: its labels are {record.get('label_names')}; expected {origin['label_names']}")
    changed = []
    for part in ("train", "test"):
        stored, now = (_as_read(each.get(f"{part}_sha256"), record.get("settings")) for each in (record, origin))
        changed += [f"{'training' if part == 'train' else part} {name}" for name in name_changes(stored, now)]
    if changed:
        what = f"{path}: trained on other data: the {', '.join(changed)} differ"
        is_test = all(part.startswith("test ") for part in changed)
        raise UserError(f"{what}{_answer_new_test_rows(path, origin['test_file']) if is_test else ''}")
    # last, as it reads the whole file
    if fold_name(record["fold"]) != path.stem or record.get("npz_sha256") != sha256_file(path):
        raise UserError(f"{path}: not the file its .json describes; damaged, swapped or edited")
    return record


def _answer_new_test_rows(path: Path, test_file: str) -> str:
    """The models of a run fit any test file; only what they said of the old one is out of date."""
    competition_name = path.parent.parent.name
    said = ". If a blend was made before, its models answer the new test file without training. "
    if not test_file:
        return f"{said}Put the rows into a file of their own and give it to src/predict.py as --input"
    return (
        f"{said}Run: python src/predict.py --competition {competition_name} --input "
        f"data/{competition_name}/{test_file} --answer submission.csv"
    )


def load_fold(path: Path, record: dict, folds: Folds, tables) -> FoldPredictions:
    """Read one fold's arrays and check them again, whatever the record says.

    Raises: UserError: a damaged or foreign file, misaligned, repeated or foreign ids, other labels, NaN.
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
    predictions = FoldPredictions(
        int(arrays["fold"]),
        arrays["rows"],
        arrays["oof"],
        arrays["test"],
        record["kind"],
        score=record.get("score") or {},
        device=str(record.get("device", "")),
        selected_on_heldout=record.get("selected_on_heldout") is True,
    )
    problems = check_fold(predictions, folds, n_labels, n_test)
    if predictions.fold != record["fold"]:
        problems.append(f"holds fold {predictions.fold}; its .json says {record['fold']}")
    if arrays["label_names"].tolist() != list(tables.label_names):
        problems.append(f"its labels are {arrays['label_names'].tolist()}; expected {list(tables.label_names)}")
    if not problems:
        problems += compare_ids(arrays["ids"], folds.ids[predictions.rows], "the fold's held-out rows")
        problems += compare_ids(arrays["test_ids"], tables.test_ids, "the test file")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    return predictions


def load_test(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The test predictions float32 (n_test, L) of a fold that `load_fold` has checked."""
    return load_npz(path, {"test": ("f", shape)}, others=True)["test"]


# ---------- writing, finding and removing the folds of a run.


HISTORY_SUFFIX = ".history.jsonl"
"""What ledger/history.py writes beside a fold."""
FOLD = Schema(
    "a trained fold",
    {
        "settings": {"learner?": str},
        "kind": re.compile("|".join(KINDS)),
        "score?": {"*": float},
        "selected_on_heldout?": bool,
        "truncation?": ANY,
        "extra_rows?": [{"source": str, "sha256": HASH, "rows": int, "learned": int, "left_out_as_held_out": int}],
        "fidelity?": float,
        "device?": str,
        "seconds?": float,
        "environment?": {"*": str},
        "n_folds": int,
        "fold": int,
        "rows": int,
        "test_rows": int,
        "label_names": [str],
        "folds_sha256": HASH,
        "train_sha256": {"*": HASH},
        "test_sha256": {"*": HASH},
        "npz_sha256": HASH,
        "weights_sha256?": HASH,
        "start?": {"from": str, "weights_sha256": {"*": HASH}, "compared_rows": int, "*": ANY},
        "left_out?": [int],
        "pretraining?": {"weights_sha256": HASH, "texts": int, "loss": float},
    },
)
"""The .json beside a fold's predictions."""
DROPPED_IN = ("oof.csv", "test.csv")
"""Predictions made by another program, see ledger/runs.py."""


def run_folder(paths: Paths, competition_name: str, run_name: str) -> Path:
    """The folder of one run. Raises: UserError: a name that could leave oof/."""
    check_name(competition_name, "competition")
    return paths.oof(competition_name) / check_name(run_name, "run")


def write_fold(
    paths: Paths, competition_name: str, run_name: str, folds: Folds, tables, predictions: FoldPredictions, record: dict
) -> Path:
    """Check that a fold's predictions are whole and write them, sorted by row.

    Args:   record: what else to keep about the training, at least `settings`; plain values that JSON can hold.
    Returns: the .npz's path.
    Raises: UserError: NaN or infinity (a training that diverged), a run that holds dropped-in predictions, rows that
            are not the fold's held-out rows, a wrong shape, probabilities outside [0, 1].
            FileError: the folder cannot be written.
    """
    path = run_folder(paths, competition_name, run_name) / f"{fold_name(predictions.fold)}.npz"
    problems = _refuse_dropped_in(path.parent)
    problems += check_fold(predictions, folds, len(tables.label_names), len(tables.test_ids))
    problems += _check_plain(record)
    if problems:
        raise UserError(f"{path}: refused to write: {'; '.join(problems)}")
    order = np.argsort(predictions.rows)
    rows = predictions.rows[order].astype(np.int64)
    arrays = {
        "fold": np.array(predictions.fold, dtype=np.int64),
        "label_names": np.array(tables.label_names, dtype=str),
        "rows": rows,
        "ids": folds.ids[rows],
        "oof": predictions.oof[order],
        "test_ids": tables.test_ids,
        "test": predictions.test,
    }
    with replacing(path) as file:
        write_npz(file, arrays)
        file.flush()
        # the order of all writers: the old record goes, the new .npz comes, and the new record last, as it makes the
        # fold count
        remove_file(path.with_suffix(".json"))  # from here on an older fold of this name no longer counts
    origin = describe_origin(folds, tables)
    origin.pop("test_file")
    read = {name: _as_read(origin[name], record["settings"]) for name in ("train_sha256", "test_sha256")}
    described = {
        **origin,
        **read,
        "fold": predictions.fold,
        "kind": predictions.kind,
        "rows": len(rows),
        "test_rows": len(tables.test_ids),
        "npz_sha256": sha256_file(path),
    }
    write_record(path.with_suffix(".json"), {**record, **described}, FOLD)
    return path


def _check_plain(record: dict) -> list[str]:
    """Checked before the .npz is written: hours of training must not be lost to a value in the record."""
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"the record holds a value that JSON cannot: {error}"]
    return [] if isinstance(record.get("settings"), dict) else ["the record has no `settings`"]


def _refuse_dropped_in(folder: Path) -> list[str]:
    there = [name for name in DROPPED_IN if (folder / name).exists()]
    return [f"the run's folder holds {', '.join(there)} made elsewhere; train under another --name"] if there else []


def finished_folds(paths: Paths, competition_name: str, run_name: str, folds: Folds, tables) -> list[int]:
    """Folds of a run that need no training, rising; FULL, the model of all rows, is the last.

    Raises: UserError: a fold of other folds, labels or data, or a damaged one: none is trained again or kept silently.
    """
    folder = run_folder(paths, competition_name, run_name)
    done, problems, origin = [], _refuse_dropped_in(folder), describe_origin(folds, tables)
    full = [FULL] if is_recorded(folder, FULL) else []
    for k in [*recorded_folds(folder, folds.n_folds), *full]:
        try:
            check_record(folder / f"{fold_name(k)}.npz", origin)
            done.append(k)
        except UserError as error:
            problems.append(str(error))
    if problems:
        command = f"accelerate launch src/train.py --competition {competition_name} --run {run_name} --fold all"
        raise UserError("\n".join([*problems, f"To train them again: {command} --overwrite"]))
    return done


def recorded_folds(folder: Path, n_folds: int) -> list[int]:
    """Those of the folds 0 to n_folds - 1 whose .npz and .json both exist."""
    return [k for k in range(n_folds) if is_recorded(folder, k)]


def is_recorded(folder: Path, fold: int) -> bool:
    """Whether a fold's .npz and .json both exist."""
    return all((folder / f"{fold_name(fold)}{suffix}").exists() for suffix in (".npz", ".json"))


def record_paths(folder: Path) -> list[Path]:
    """The .json of every fold of a run, that of all rows (`full.json`) last."""
    full = folder / f"{fold_name(FULL)}.json"
    return [*sorted(folder.glob("fold*.json")), *([full] if full.exists() else [])]


def check_same_settings(
    paths: Paths,
    competition_name: str,
    run_name: str,
    settings: dict,
    defaults: dict,
    forgotten: Iterable[int] = (),
) -> None:
    """Refuse to add folds to a run whose folds were trained with other settings.

    Args:   settings: of now, resolved, as `record["settings"]` stores them.
            defaults: in the same form; a setting that did not exist yet when a record was stored had its default.
            forgotten: folds that are about to be trained again, whatever their settings were.
    Raises: UserError: every setting that differs, and how to go on.
    """
    folder = run_folder(paths, competition_name, run_name)
    differences: dict[str, list[str]] = {}
    flags = set()
    # --fold 2 --overwrite: the settings of fold 2 may differ from those of now, and those of other folds may not
    kept = set(record_paths(folder)) - {folder / f"{fold_name(k)}.json" for k in forgotten}
    for path in sorted(kept):
        if path.with_suffix(".npz").exists():
            stored = merge(_as_json(defaults), with_new_names(read_record(path, FOLD)["settings"])[0])
            found = describe_differences(stored, _as_json(settings))
            for difference in found:
                differences.setdefault(difference, []).append(path.stem)
            flags |= {flags_to(stored, _as_json(settings))} if found else set()
    if differences:
        lines = [f"{folder}: {difference} ({', '.join(stems)})" for difference, stems in differences.items()]
        go_on = f" To go on with its settings, add: {flags.pop()}." if len(flags) == 1 and any(flags) else ""
        raise UserError(
            "\n".join(lines) + f"\nRun {run_name} was trained with other settings.{go_on} To train it again: "
            "--fold all --overwrite. To keep both: --name ANOTHER_NAME"
        )


def find_trained(paths: Paths, competition_name: str, run_name: str) -> tuple[Path, dict] | None:
    """The record of a trained fold of a run and the settings in it: what `train.py --name` left; None without one."""
    folder = run_folder(paths, competition_name, run_name)
    records = [path for path in record_paths(folder) if path.with_suffix(".npz").exists()]
    # one record is enough: a run whose folds differ in their settings is refused before
    settings = read_record(records[0], FOLD)["settings"] if records else None
    return (records[0], settings) if settings and settings.get("learner") else None


def _as_json(values: dict) -> dict:
    """Tuples become lists, as they are when they come back from a file."""
    return json.loads(json.dumps(values))


@contextmanager
def training_lock(paths: Paths, competition_name: str, run_name: str, fold: int) -> Iterator[None]:
    """Hold the lock of one fold's training. Raises: BusyError: another process trains it."""
    folder = paths.checkpoints(competition_name, run_name) / fold_name(fold)
    busy = f"{folder}: another process trains this fold now; wait for it, or train another fold"
    with hold_lock(folder.with_name(f".{folder.name}.lock"), busy):
        yield


def set_folds_aside(paths: Paths, competition_name: str, run_name: str, numbers: Iterable[int]) -> list[Path]:
    """Move folds of a run and their checkpoints into `.old/` (`--overwrite`).

    The .json goes first, so that a kill in between leaves them not trained.
    Returns: the folders in which they are now.
    Raises: BusyError: another process trains one of them.
    """
    folder, checkpoints = run_folder(paths, competition_name, run_name), paths.checkpoints(competition_name, run_name)
    numbers = list(numbers)
    names = [f"{fold_name(k)}{suffix}" for suffix in (".json", ".npz", HISTORY_SUFFIX) for k in numbers]
    with ExitStack() as locks:
        # all locks before anything moves: another process may train one of them
        for k in numbers:
            locks.enter_context(training_lock(paths, competition_name, run_name, k))
        moved = [
            set_aside([folder / name for name in names]),
            set_aside([checkpoints / fold_name(k) for k in numbers]),
        ]
    return [each for each in moved if each]
