"""Whole runs of oof/, trained here or made elsewhere, each fold checked, rows in the files' order; a blend's models."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldblend.errors import UserError
from foldblend.files import read_bytes, sha256_bytes, sha256_file
from foldblend.ledger.dropped import load_dropped, load_test_is
from foldblend.ledger.folds import Folds, load_fold_numbers
from foldblend.ledger.oof import (
    DROPPED_IN,
    FOLD,
    check_record,
    describe_origin,
    is_recorded,
    load_fold,
    load_test,
    record_paths,
    recorded_folds,
    run_folder,
)
from foldblend.ledger.records import ANY, FILE, HASH, Schema, read_record
from foldblend.ledger.submissions import SUBMISSION, with_report
from foldblend.predictions import FULL, fold_name, fold_title
from foldblend.settings.paths import Paths
from foldblend.settings.records import as_answered, competition_with_defaults, describe_differences, with_defaults
from foldblend.settings.yaml_files import NAME

# ---------- the predictions of a run.


@dataclass(frozen=True)
class RunPredictions:
    """All predictions of one run; K folds, or K = 1 for a run that another program made."""

    name: str
    oof: np.ndarray
    """(N, L) float32, in the order of the training file; each row from the one model that did not see it."""
    test_folds: Sequence[np.ndarray]
    """K tables (n_test, L) float32, in the order of the test file; K + 1 if there is a model of all rows, whose table
    is the last. A table is read from disk each time it is asked for: all at once would take more memory than anything
    needs."""
    kind: str
    """`logits` or `probs`."""
    records: list[dict]
    """One per fold; empty for a run that another program made."""
    files: dict[str, str]
    """Path relative to the root -> sha256."""
    test_is: str = ""
    """Of a run that another program made: one of TEST_IS; empty if nobody said."""
    has_full: bool = False
    """Whether the last of `test_folds` is of a model of all rows, which has no out-of-fold predictions."""


@dataclass(frozen=True)
class StoredTestFolds(Sequence[np.ndarray]):
    """The test predictions in the files of a run's folds."""

    fold_paths: list[Path]
    shape: tuple[int, int]
    """(n_test, L)."""

    def __len__(self) -> int:
        return len(self.fold_paths)

    def __getitem__(self, fold):
        return load_test(self.fold_paths[fold], self.shape)


class UnfinishedRunError(UserError):
    """A run lacks folds, and says how to train them."""


def load_run(paths: Paths, competition_name: str, run_name: str, folds: Folds, tables) -> RunPredictions:
    """Load one run. Raises: UserError: as `load_runs`."""
    return load_runs(paths, competition_name, [run_name], folds, tables)[0]


def load_runs(
    paths: Paths,
    competition_name: str,
    run_names: Sequence[str] | None,
    folds: Folds,
    tables,
    skipped: list[str] | None = None,
) -> list[RunPredictions]:
    """Load the named runs, or all in oof/<competition>/ in the order of their names.

    Args:   skipped: if no runs are named, those that lack folds are left out, and this gets a sentence on each.
    Raises: UserError: every problem of every run, one per line, each with what to do; also if no run has all folds.
    """
    names = find_runs(paths, competition_name) if run_names is None else list(run_names)
    if not names:
        raise UserError(
            f"{paths.oof(competition_name)}: holds no run yet. Run: accelerate launch src/train.py "
            f"--competition {competition_name} --fold all"
        )
    origin = describe_origin(folds, tables)
    runs, problems = [], [f"run {name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
    unfinished = []
    for name in names:
        try:
            runs.append(_load_run(paths, run_folder(paths, competition_name, name), folds, tables, origin))
        except UnfinishedRunError as error:
            unfinished.append(str(error))
        except UserError as error:
            problems.append(str(error))
    if skipped is None or run_names is not None or not (runs or problems):
        problems += unfinished
    if problems:
        raise UserError("\n".join(problems))
    if skipped is not None:
        skipped += unfinished
    return runs


def find_runs(paths: Paths, competition_name: str) -> list[str]:
    """Names of the folders in oof/<competition>/, sorted; hidden folders are not runs."""
    folder = paths.oof(competition_name)
    there = folder.iterdir() if folder.is_dir() else []
    return sorted(entry.name for entry in there if entry.is_dir() and not entry.name.startswith("."))


def find_stale_runs(paths: Paths, competition_name: str, folds: Folds) -> dict[str, int]:
    """Runs with models that were trained on other folds than these -> how many of their folds were."""
    stale = {}
    for name in find_runs(paths, competition_name):
        records = record_paths(paths.oof(competition_name) / name)
        trained = [read_record(path, FOLD) for path in records if path.with_suffix(".npz").exists()]
        count = sum(record.get("folds_sha256") != folds.sha256 for record in trained)
        if count:
            stale[name] = count
    return stale


def _load_run(paths: Paths, folder: Path, folds: Folds, tables, origin: dict) -> RunPredictions:
    if not folder.is_dir():
        there = ", ".join(find_runs(paths, folder.parent.name)) or "none"
        raise UserError(f"{folder}: no such run. The runs are: {there}")
    dropped = [name for name in DROPPED_IN if (folder / name).exists()]
    trained = sorted(path.name for path in folder.glob("fold*.npz"))
    if dropped and trained:
        raise UserError(f"{folder}: holds both {dropped[0]} and {trained[0]}; move one kind to another run's folder")
    if len(dropped) == 1:
        absent = next(name for name in DROPPED_IN if name not in dropped)
        raise UserError(f"{folder}: {dropped[0]} is there, {absent} is not; a run made elsewhere needs both")
    if dropped:
        return _load_made_elsewhere(paths, folder, tables)
    return _load_trained(paths, folder, folds, tables, origin)


def _load_made_elsewhere(paths: Paths, folder: Path, tables) -> RunPredictions:
    data = {name: read_bytes(folder / name) for name in DROPPED_IN}  # once: what is hashed is what is parsed
    oof, test = (
        load_dropped(folder / name, ids, tables.label_names, what, data[name], tables.scale)
        for name, ids, what in zip(
            DROPPED_IN, (tables.train_ids, tables.test_ids), ("the training file", "the test file"), strict=True
        )
    )
    files = {(folder / name).relative_to(paths.root).as_posix(): sha256_bytes(data[name]) for name in DROPPED_IN}
    return RunPredictions(folder.name, oof, [test], "probs", [], files, load_test_is(folder))


def _load_trained(paths: Paths, folder: Path, folds: Folds, tables, origin: dict) -> RunPredictions:
    _check_complete(folder, folds.n_folds)
    fold_paths = [folder / f"fold{k}.npz" for k in range(folds.n_folds)]
    has_full = is_recorded(folder, FULL)
    all_paths = [*fold_paths, *([folder / f"{fold_name(FULL)}.npz"] if has_full else [])]
    records = [check_record(path, origin) for path in all_paths]
    _check_agreement(folder, records)
    n_labels = len(tables.label_names)
    oof = np.empty((len(folds.ids), n_labels), dtype=np.float32)
    for path, record in zip(all_paths, records, strict=True):
        predictions = load_fold(path, record, folds, tables)
        oof[predictions.rows] = predictions.oof  # no row, of the model of all rows
    test_folds = StoredTestFolds(all_paths, (len(tables.test_ids), n_labels))
    files = {
        **_relative(paths, all_paths, records),
        **_hash_files(paths, folder, [f"{p.stem}.json" for p in all_paths]),
    }
    kind, of_folds = records[0]["kind"], records[: len(fold_paths)]
    return RunPredictions(folder.name, oof, test_folds, kind, of_folds, files, has_full=has_full)


def _check_complete(folder: Path, n_folds: int) -> None:
    """Exactly the folds 0..n_folds-1: the held-out rows of folds.csv are a partition, so these cover each row once."""
    known = {f"fold{k}.npz" for k in range(n_folds)}
    foreign = sorted(path.name for path in folder.glob("fold*.npz") if path.name not in known)
    if foreign:
        raise UserError(f"{folder}: {foreign[0]} belongs to other folds; there are folds 0 to {n_folds - 1}. Remove it")
    missing = sorted(set(range(n_folds)) - set(recorded_folds(folder, n_folds)))
    if missing:
        which = f"fold {missing[0]} of {n_folds}" if len(missing) == 1 else f"folds {missing} of {n_folds}"
        raise UnfinishedRunError(
            f"oof/{folder.parent.name}/{folder.name}: {which} missing. Run: accelerate launch src/train.py "
            f"--competition {folder.parent.name} --run {folder.name} --fold {' '.join(map(str, missing))}"
        )


def _check_agreement(folder: Path, records: list[dict]) -> None:
    """All folds of a run have the same settings and the same kind of number."""
    settings = [with_defaults(record["settings"]) for record in records]
    for record, own in zip(records[1:], settings[1:]):
        problems = describe_differences(settings[0], own)
        if record["kind"] != records[0]["kind"]:
            problems.append(f"kind was {records[0]['kind']}, is now {record['kind']}")
        if problems:
            raise UserError(
                f"{folder}: {fold_title(records[0]['fold'])} and {fold_title(record['fold'])} were trained with "
                "different settings: "
                f"{'; '.join(problems)}. Train again with --fold all --overwrite, or keep them in two runs (--name)"
            )


def _relative(paths: Paths, fold_paths: list[Path], records: list[dict]) -> dict[str, str]:
    pairs = zip(fold_paths, records, strict=True)
    return {path.relative_to(paths.root).as_posix(): record["npz_sha256"] for path, record in pairs}


def _hash_files(paths: Paths, folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {(folder / name).relative_to(paths.root).as_posix(): sha256_file(folder / name) for name in names}


# ---------- what there is of every run, finished or not, to compare runs.


@dataclass(frozen=True)
class PartOfRun:
    """The out-of-fold predictions of a run, of all folds or of those that are trained so far; n rows, L labels."""

    name: str
    rows: np.ndarray
    """int64 (n,), rising: positions in the training file."""
    oof: np.ndarray
    """float32 (n, L)."""
    kind: str
    """`logits` or `probs`."""
    folds: tuple[int, ...]
    """The trained ones; all, for a run that another program made."""
    records: list[dict]
    """One per trained fold; empty for a run that another program made."""
    finished_at: float
    """When the newest file was written, in seconds since 1970."""
    has_full: bool = False
    """Whether there is a model of all rows, too, which predicts test rows only."""


def load_parts_of_runs(
    paths: Paths, competition_name: str, run_names: Sequence[str] | None, folds: Folds, tables, left_out: list[str]
) -> list[PartOfRun]:
    """Whatever is trained of the named runs, or of all in oof/<competition>/ in the order of their names.

    Args:   left_out: if no runs are named, gets a sentence on each run that does not fit the folds or data.
    Raises: UserError: a named run does not fit, or has no trained fold; or no run has any.
    """
    names = find_runs(paths, competition_name) if run_names is None else list(run_names)
    origin, parts, problems = describe_origin(folds, tables), [], []
    for name in names:
        try:
            parts.append(_load_part(paths, run_folder(paths, competition_name, name), folds, tables, origin))
        except UserError as error:
            problems.append(str(error))
    if problems and (run_names is not None or not parts):
        raise UserError("\n".join(problems))
    if not parts:
        raise UserError(
            f"oof/{competition_name}/ holds no run yet. Run: accelerate launch src/train.py "
            f"--competition {competition_name} --fold all"
        )
    left_out += problems
    return parts


def _load_part(paths: Paths, folder: Path, folds: Folds, tables, origin: dict) -> PartOfRun:
    trained = recorded_folds(folder, folds.n_folds) if folder.is_dir() else []
    if not trained:  # made elsewhere, or nothing there yet: load_run's checks and words
        run = _load_run(paths, folder, folds, tables, origin)
        written = max((folder / name).stat().st_mtime for name in DROPPED_IN)
        everything = tuple(range(folds.n_folds))
        return PartOfRun(run.name, np.arange(len(run.oof)), run.oof, run.kind, everything, [], written)
    fold_paths = [folder / f"fold{k}.npz" for k in trained]
    records = [check_record(path, origin) for path in fold_paths]
    _check_agreement(folder, records)
    predicted = [load_fold(path, record, folds, tables) for path, record in zip(fold_paths, records, strict=True)]
    rows = np.concatenate([each.rows for each in predicted])
    order = np.argsort(rows)
    oof = np.concatenate([each.oof for each in predicted])[order]
    written = max(path.with_suffix(".json").stat().st_mtime for path in fold_paths)
    has_full = is_recorded(folder, FULL)
    return PartOfRun(folder.name, rows[order], oof, records[0]["kind"], tuple(trained), records, written, has_full)


def group_seeds(runs: Sequence[PartOfRun | RunPredictions]) -> list[list[str]]:
    """Names of runs that differ in their seed alone, the shortest name first; runs on their own are left out."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        settings = with_defaults(dict(run.records[0]["settings"])) if run.records else {}
        if settings.pop("seed", None) is not None:
            groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run.name)
    return [sorted(names, key=lambda name: (len(name), name)) for names in groups.values() if len(names) > 1]


# ---------- the trained folds behind a submission, checked to be those that it was made with.


_KIND = re.compile("multilabel|multiclass")
_ONE = {
    "form": re.compile("probs|scores|(label_|cross_label_)?stack|wide"),
    "kind": _KIND,
    "coefs": ([float], [[float]]),
}
_RULE = {"thresholds?": [float], "offsets?": [float], "steps?": [float], "calibration?": [[float]],
         "at_least_one?": bool, "at_most?": int, "exclusive?": int}  # fmt: skip
_FORMULA: tuple[dict, ...] = (_ONE, {"form": re.compile("rank_mean"), "points": [[[float]]], "probs": [[float]]})
for _ in range(4):  # an average of averages, and so on; a blend nests two
    _FORMULA = (*_FORMULA[:2], {"form": re.compile("average"), "first": _FORMULA, "second": _FORMULA, "share": [float]})
RECIPE = {
    "kind": _KIND,
    "predictor": _FORMULA,
    "rule": _RULE,
    "priors?": [float],
    "shifted?": [int],
    "groups?": [[int]],
}
"""As `scoring.ensembling.predictors.Recipe.to_record` writes it."""
BLEND = Schema(
    "a blend",
    {
        **SUBMISSION.fields,
        "competition": NAME,
        "runs": [NAME],
        "settings": {
            "competition": {"id_column": str, "files": {"sample_submission": FILE, "*": ANY}, "*": ANY},
            "strategy?": str,
        },
        "inputs": {"folds": HASH, "*": HASH},
        "recipe": RECIPE,
        "constants?": {"label_names": [str], "answers": {"*": float}},
    },
    {1: with_report},
)
"""A submission that blend.py made, as the commands need it that make it again, predict with it or bundle it."""

QUESTION = ("id_column", "task", "metric", "text", "labels", "submission")
"""Settings of a competition that change what an answer to a new text means."""


@dataclass(frozen=True)
class TrainedRun:
    """One run of a blend."""

    name: str
    settings: dict
    """Those it was trained with, as in its folds' records."""
    kind: str
    """`logits` or `probs`."""
    label_names: tuple[str, ...]
    checkpoints: list[Path]
    """Per fold, 0 to K - 1 and then FULL if it was trained, the folder with its weights."""
    weights_sha256: list[str]
    """Per fold, the hash of its weights; empty if its record is of before 0.3 and has none."""
    left_out: list[list[int]]
    """Per fold, training rows that it did not learn, as `training.leave_out` says."""
    fold: np.ndarray
    """int64 (N,): which fold held out which training row."""


def find_blend(paths: Paths, competition_name: str, named: str) -> Path:
    """The .json of a blend by its path, its name or its .csv; without a name the newest.

    Raises: UserError: it does not exist.
    """
    folder = paths.submissions(competition_name)
    if named:
        wanted = [Path(named).with_suffix(".json").resolve(), folder / f"{named.removesuffix('.json')}.json"]
        for path in wanted:
            if path.is_file():
                return path
        raise UserError(f"{named} does not exist, nor does it in submissions/{competition_name}/")
    written = [path.with_suffix(".json") for path in folder.glob("*.csv")]  # a .json alone was cut off
    records = [path for path in written if path.is_file()]
    if not records:
        where = f"no blend in submissions/{competition_name}/."
        raise UserError(f"{where} Run: python src/blend.py --competition {competition_name}")
    return max(records, key=lambda path: (path.stat().st_mtime_ns, path.name))


def input_hashes(folds: Folds, runs: Sequence[RunPredictions]) -> dict[str, str]:
    """Every file that goes into a blend -> its sha256; `folds` is the folds' CSV."""
    return {"folds": folds.sha256, **{path: digest for run in runs for path, digest in run.files.items()}}


def check_same_inputs(path: Path, record: dict, found: Mapping[str, str]) -> None:
    """Check that a blend's files are as it was made of. Args: found: `input_hashes` of now.

    Raises: UserError: one of them changed or is gone.
    """
    then = record["inputs"]
    changed = sorted(name for name in found | then if found.get(name) != then.get(name))
    if changed:
        raise UserError(f"{path}: {len(changed)} of its inputs changed or are gone: {', '.join(changed[:5])}")


def check_same_questions(path: Path, record: dict, competition_name: str, competition: dict) -> None:
    """Check that a blend answers what this competition asks.

    Args:   competition: its present settings as plain values.
    Raises: UserError: a different competition, or other settings of texts, labels, metric or answer.
    """
    if record.get("competition") != competition_name:
        raise UserError(
            f"{path}: made for {record.get('competition')!r}; add --competition {record.get('competition')}"
        )
    then, now = competition_with_defaults(record["settings"]["competition"]), json.loads(json.dumps(competition))
    then, now = as_answered(then), as_answered(now)
    then, now = ({key: value[key] for key in QUESTION if key in value} for value in (then, now))
    differences = describe_differences(then, now)
    if differences:
        raise UserError(f"{path}: made with other settings of the competition: {'; '.join(differences)}")


def load_trained_runs(paths: Paths, record: dict, names: list[str], weights_name: str) -> list[TrainedRun]:
    """The named runs of a blend's record, with the weights of every fold.

    Args:   weights_name: the file that a finished fold leaves in its folder of checkpoints/.
    Raises: UserError: every problem of every run, one per line: made elsewhere, trained again since, weights missing.
    """
    fold = load_fold_numbers(paths, record["competition"], record["inputs"]["folds"])
    runs, problems = [], []
    for name in names:
        try:
            runs.append(_load_trained_run(paths, record, name, weights_name, fold))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return runs


def _load_trained_run(paths: Paths, record: dict, name: str, weights_name: str, fold: np.ndarray) -> TrainedRun:
    competition_name, n_folds = record["competition"], int(fold.max()) + 1
    folder = run_folder(paths, competition_name, name)
    where = f"oof/{competition_name}/{name}"
    if f"{where}/{DROPPED_IN[1]}" in record["inputs"]:
        raise UserError(
            f"{where}: its predictions were made elsewhere, so it cannot predict new texts. Blend the others: "
            f"python src/blend.py --competition {competition_name} --runs {_others(record, name)}"
        )
    train = f"accelerate launch src/train.py --competition {competition_name} --run {name} --fold"
    then = f"and then: python src/blend.py --competition {competition_name}"
    names = [fold_name(k) for k in range(n_folds)]
    names += [fold_name(FULL)] if f"{where}/{fold_name(FULL)}.npz" in record["inputs"] else []
    records = []
    for own in names:
        path, number = folder / f"{own}.json", own.removeprefix("fold")
        if not path.exists():
            raise UserError(f"{where}: fold {number} of {n_folds} folds is missing. Run: {train} {number}, {then}")
        records.append(read_record(path, FOLD))
        if records[-1].get("npz_sha256") != record["inputs"].get(f"{where}/{own}.npz"):
            again = then.removeprefix("and then: ")
            raise UserError(f"{where}: fold {number} was trained again since the blend. Run: {again}")
    checkpoints = [paths.checkpoints(competition_name, name) / own for own in names]
    missing = [path.name.removeprefix("fold") for path in checkpoints if not (path / weights_name).is_file()]
    if missing:
        what = f"checkpoints/{competition_name}/{name}: no {weights_name} of fold {', '.join(missing)}"
        raise UserError(f"{what}. Run: {train} {' '.join(missing)} --overwrite, {then}")
    first, hashes = records[0], [record.get("weights_sha256", "") for record in records]
    left_out = [record.get("left_out", []) for record in records]
    kind, labels = first["kind"], tuple(first["label_names"])
    return TrainedRun(name, first["settings"], kind, labels, checkpoints, hashes, left_out, fold)


def _others(record: dict, name: str) -> str:
    return " ".join(other for other in record["runs"] if other != name) or "RUN"
