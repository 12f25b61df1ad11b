"""oof/<competition>/<run>/fold<k>.history.jsonl: how the training of a fold went, one JSON object per line.

A line is written when the loss is read, every few steps, and when the held-out rows are evaluated:

    {"step": 40, "epoch": 0.71, "rows": 640, "seconds": 12.4, "rows_per_s": 58.1, "loss": 0.1342, "lr": 2.9e-05,
     "grad_norm": 0.83, "steps": 168}
    {"step": 56, "epoch": 1.0, ..., "heldout_loss": 0.1201, "heldout_macro_f1": 0.4312, "steps": 168}

`steps` is how many there will be. The last line has `final_macro_f1`, of the weights that the fold ended with.

A training that goes on from a checkpoint takes its steps since then once more, so their lines are dropped first: no
step has two lines of a kind, and none between is missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foldblend.errors import UserError
from foldblend.files import write_atomically
from foldblend.ledger.oof import HISTORY_SUFFIX, run_folder
from foldblend.ledger.records import Schema, read_record, write_record
from foldblend.predictions import FULL, fold_name
from foldblend.settings.paths import Paths


def history_path(paths: Paths, competition_name: str, run_name: str, fold: int) -> Path:
    """The file of one fold. Raises: UserError: a name that could leave oof/."""
    return run_folder(paths, competition_name, run_name) / f"{fold_name(fold)}{HISTORY_SUFFIX}"


@dataclass(frozen=True)
class OpenHistory:
    """The history of a fold that has not written its predictions yet."""

    run: str
    fold: int
    entries: list[dict]
    """At least one."""
    written_at: float
    """When its last line was written, in seconds since 1970."""


def find_open_histories(paths: Paths, competition_name: str) -> list[OpenHistory]:
    """All folds of a competition that train now, or were stopped before their end; by run and fold."""
    found, folder = [], paths.oof(competition_name)
    names = ("fold*", fold_name(FULL))
    for path in sorted(path for name in names for path in folder.glob(f"*/{name}{HISTORY_SUFFIX}")):
        stem = path.name.removesuffix(HISTORY_SUFFIX)
        entries = read_history(path)
        if entries and not path.with_name(f"{stem}.json").exists():
            fold = FULL if stem == fold_name(FULL) else int(stem.removeprefix("fold"))
            found.append(OpenHistory(path.parent.name, fold, entries, path.stat().st_mtime))
    return found


class FoldHistory:
    """Appends to the history of one fold; a line is on its way to the disk before `add` returns."""

    def __init__(self, path: Path):
        self.path = path
        self._last: Mapping = {}

    def start(self, step: int) -> None:
        """Begin, or go on after `step` optimizer steps: lines of later steps are dropped, and a last one cut off.

        Raises: FileError: the folder cannot be written.
        """
        kept = [entry for entry in read_history(self.path) if entry["step"] <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, "".join(_line(entry) for entry in kept).encode())
        self._last = kept[-1] if kept else {}

    def add(self, entry: Mapping[str, float | int | None]) -> None:
        """Append one line. It gets `rows_per_s`, the rate since the line before.

        The final score is measured once more by a fold that was killed after its last step: it has its line already.

        Args: entry: `step`, `rows` (all rows taught so far), `seconds` (all starts of the fold), and what was measured.
        """
        if entry["step"] == self._last.get("step") and entry.keys() <= self._last.keys():
            return
        passed, taught = (entry[key] - self._last.get(key, 0) for key in ("seconds", "rows"))
        entry = {**entry, "rows_per_s": round(taught / passed, 1) if passed > 0 and taught > 0 else None}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
        self._last = entry


def _line(entry: Mapping) -> str:
    return json.dumps(entry, allow_nan=False) + "\n"


def read_history(path: Path) -> list[dict]:
    """The lines of a history, rising by step; none if there is no file. A line that is cut off ends it.

    A training may be writing the file, or may have been killed in the middle of a line.
    """
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not isinstance(entry, dict) or not {"step", "rows", "seconds"} <= entry.keys():
            break
        entries.append(entry)
    return entries


# ---------- Studies of tune.py: oof/<competition>/.studies/<study>/study.json, what a reader wants to see of one


STUDIES, STUDY_FILE = ".studies", "study.json"
STUDY = Schema(
    "a study",
    {
        "name": str,
        "run": str,
        "metric": str,
        "greater_is_better": bool,
        "trials": [{"number": int, "score": float}],
        "base_score": float,
        "base_spread": (float, None),
        "importance": {"*": float},
    },
)
"""`trials`: the complete ones, by number. `base_score`, `base_spread`: mean and standard deviation over the seeds of
the base run, on the same folds. `importance`: a setting's share of what made trials differ; empty if that is not known.
"""


def write_study(folder: Path, record: dict) -> None:
    """Write what a study found so far into its folder. Raises: FileError: it cannot be written."""
    write_record(folder / STUDY_FILE, record, STUDY)


def read_studies(paths: Paths, competition_name: str) -> list[dict]:
    """Every study of a competition that has shown a result, by name.

    Raises: UserError: a file is damaged; says how to write it again.
    """
    found = []
    for path in sorted((paths.oof(competition_name) / STUDIES).glob(f"*/{STUDY_FILE}")):
        try:
            found.append({name: value for name, value in read_record(path, STUDY).items() if name in STUDY.fields})
        except UserError as error:
            raise UserError(
                f"{error}\nTo write it again: python src/tune.py --competition {competition_name} --study "
                f"{path.parent.name} --show, with the study's --search"
            ) from error
    return found
