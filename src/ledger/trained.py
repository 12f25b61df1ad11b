"""Ledger room: the trained folds behind a submission, proven to be those that it was made with.

Only records are read (submissions/, oof/*.json, folds/), so that predicting new texts needs neither the training data
nor the stored predictions.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ledger.folds import load_fold_numbers
from ledger.oof import DROPPED_IN, run_folder
from ledger.records import read_record
from settings.places import Places
from settings.strict import describe_differences

ASKED = ("id_column", "task", "metric", "text", "labels", "submission")
"""Settings of a competition on which answers to new texts hang."""


@dataclass(frozen=True)
class TrainedRun:
    """One run of a blend."""

    name: str
    settings: dict
    """Of its training, as its folds' records have them."""
    kind: str
    """`logits` or `probs`."""
    label_names: tuple[str, ...]
    checkpoints: list[Path]
    """A folder for each fold, 0 to K - 1, with the fold's weights."""
    fold: np.ndarray
    """int64 (N,): which fold held out which training row."""


def find_blend(places: Places, competition_name: str, named: str) -> Path:
    """The .json of a blend: of that path or name, the one beside a .csv of that name; unnamed, the newest there.

    Raises: ValueError: it is not there.
    """
    folder = places.submissions(competition_name)
    if named:
        wanted = [Path(named).with_suffix(".json").resolve(), folder / f"{named.removesuffix('.json')}.json"]
        for path in wanted:
            if path.is_file():
                return path
        raise ValueError(f"{named} is not there, nor in submissions/{competition_name}/")
    written = [path.with_suffix(".json") for path in folder.glob("*.csv")]
    records = [path for path in written if path.is_file()]
    if not records:
        where = f"no blend in submissions/{competition_name}/."
        raise ValueError(f"{where} Run: python src/blend.py --competition {competition_name}")
    return max(records, key=lambda path: (path.stat().st_mtime_ns, path.name))


def check_same_questions(path: Path, record: dict, competition_name: str, competition: dict) -> None:
    """Prove that a blend answers what this competition asks.

    Args:   competition: its settings of now as plain values.
    Raises: ValueError: another competition, or other settings of texts, labels, metric or answer.
    """
    if record.get("competition") != competition_name:
        raise ValueError(f"{path}: of {record.get('competition')!r}; add --competition {record.get('competition')}")
    then, now = record["settings"]["competition"], json.loads(json.dumps(competition))
    then, now = ({key: value[key] for key in ASKED if key in value} for value in (then, now))
    differences = describe_differences(then, now)
    if differences:
        raise ValueError(f"{path}: made under other settings of the competition: {'; '.join(differences)}")


def load_trained_runs(places: Places, record: dict, names: list[str], weights_name: str) -> list[TrainedRun]:
    """The named runs of a blend's record, every fold's weights there.

    Args:   weights_name: the file that a finished fold leaves in its folder in checkpoints/.
    Raises: ValueError: every problem of every run, one a line: made elsewhere, trained anew since, weights missing.
    """
    fold = load_fold_numbers(places, record["competition"], record["inputs"]["folds"])
    runs, problems = [], []
    for name in names:
        try:
            runs.append(_load_run(places, record, name, weights_name, fold))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return runs


def _load_run(places: Places, record: dict, name: str, weights_name: str, fold: np.ndarray) -> TrainedRun:
    competition_name, n_folds = record["competition"], int(fold.max()) + 1
    folder = run_folder(places, competition_name, name)
    where = f"oof/{competition_name}/{name}"
    if f"{where}/{DROPPED_IN[1]}" in record["inputs"]:
        raise ValueError(
            f"{where}: its predictions were made elsewhere, so it cannot predict new texts. Blend the others: "
            f"python src/blend.py --competition {competition_name} --runs {_others(record, name)}"
        )
    train = f"accelerate launch src/train.py --competition {competition_name} --run {name} --fold"
    then = f"and then: python src/blend.py --competition {competition_name}"
    records = []
    for k in range(n_folds):
        path = folder / f"fold{k}.json"
        if not path.exists():
            raise ValueError(f"{where}: fold {k} of {n_folds} is gone. Run: {train} {k}, {then}")
        records.append(read_record(path))
        if records[-1].get("npz_sha256") != record["inputs"].get(f"{where}/fold{k}.npz"):
            raise ValueError(
                f"{where}: fold {k} was trained anew since the blend. Run: {then.removeprefix('and then: ')}"
            )
    checkpoints = [places.checkpoints(competition_name, name) / f"fold{k}" for k in range(n_folds)]
    missing = [str(k) for k, path in enumerate(checkpoints) if not (path / weights_name).is_file()]
    if missing:
        what = f"checkpoints/{competition_name}/{name}: no {weights_name} of fold {', '.join(missing)}"
        raise ValueError(f"{what}. Run: {train} {' '.join(missing)} --overwrite, {then}")
    first = records[0]
    return TrainedRun(name, first["settings"], first["kind"], tuple(first["label_names"]), checkpoints, fold)


def _others(record: dict, name: str) -> str:
    return " ".join(other for other in record["runs"] if other != name) or "RUN"
