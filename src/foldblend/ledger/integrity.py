"""One check of a whole project: every file that a record names is there and has the recorded bytes. Nothing is written.

As `PRAGMA integrity_check` of SQLite and `restic check --read-data`: all is read, not only what a command happens to
need. Records that do not fit each other because something was trained or drawn again are not faults; commands refuse
them where they matter.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foldblend.errors import UserError
from foldblend.files import HIDDEN_FILE, OLD, read_bytes, sha256_file
from foldblend.ledger.folds import find_record
from foldblend.ledger.oof import FOLD, record_paths
from foldblend.ledger.records import HASH, find_mismatch, read_record
from foldblend.ledger.submissions import SUBMISSION, read_log
from foldblend.predictions import FULL, fold_name
from foldblend.settings.paths import Paths

MISSING, DAMAGED, ORPHANED = "missing", "damaged", "orphaned"
STATUS = {MISSING: 4, DAMAGED: 8, ORPHANED: 16}
"""Kind of finding -> its bit of the exit status."""


@dataclass
class Findings:
    """What one check found."""

    root: Path
    found: list[tuple[str, str]] = field(default_factory=list)
    """(kind, sentence) of each finding."""
    n_files: int = 0
    n_bytes: int = 0

    @property
    def status(self) -> int:
        """The exit status: the sum of `STATUS` of the kinds that were found; 0 if nothing was."""
        # a set, as each kind is one bit
        return sum({STATUS[kind] for kind, _ in self.found})

    def add(self, kind: str, path: Path, what: str) -> None:
        self.found.append((kind, f"{self.shown(path)}: {what}"))

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def compare(self, path: Path, sha256: str, whose: str) -> None:
        """Hash one file. Args: whose: the record that holds the hash, for the message."""
        if not path.exists():
            self.add(MISSING, path, f"{whose} names it")
            return
        try:
            found = sha256_file(path)
        except UserError as error:
            self.add(DAMAGED, path, str(error).removeprefix(f"{path}: "))
            return
        self.n_files, self.n_bytes = self.n_files + 1, self.n_bytes + path.stat().st_size
        if found != sha256:
            self.add(DAMAGED, path, f"its sha256 begins {found[:12]}; {whose} says {sha256[:12]}")


def check_project(paths: Paths, competition: str, weights_name: str) -> Findings:
    """Check one competition's files, or all of them if `competition` is empty.

    Args:   weights_name: the file that a trained fold leaves in its folder of checkpoints/.
    """
    findings = Findings(paths.root)
    names = [competition] if competition else sorted(_competitions(paths))
    for name in names:
        _check_folds(findings, paths.folds(name))
        for run in _folders(paths.oof(name)):
            _check_run(findings, paths, run, weights_name)
        _check_submissions(findings, paths.submissions(name))
        for bundle in _folders(paths.bundle(name)):
            _check_bundle(findings, bundle / "dataset")
    _check_log(findings, paths, names)
    for folder in (paths.folds("x").parent, paths.submissions_log.parent, *_run_folders(paths, names)):
        for left in sorted(folder.glob(".*")) if folder.is_dir() else []:
            if HIDDEN_FILE.fullmatch(left.name):
                findings.add(ORPHANED, left, "left by a writer that was ended, or is still at work. Remove it")
    return findings


def find_old(paths: Paths) -> list[Path]:
    """What `--overwrite`, a new bundle and new labels of a teacher set aside anywhere in the project, oldest first."""
    tops = [paths.root / name for name in ("folds", "oof", "checkpoints", "bundle", "submissions", "data")]
    found = [item for top in tops if top.is_dir() for old in top.rglob(OLD) if old.is_dir() for item in old.iterdir()]
    return sorted(found, key=lambda path: path.name)


def measure(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if not each.is_dir())


def _competitions(paths: Paths) -> set[str]:
    names = {path.stem for path in paths.folds("x").parent.glob("*.csv")}
    tops = (paths.oof("x").parent, paths.submissions("x").parent, paths.bundle("x").parent)
    return names | {folder.name for top in tops for folder in _folders(top)}


def _folders(top: Path) -> list[Path]:
    return sorted(each for each in top.iterdir() if each.is_dir() and each.name[0] != ".") if top.is_dir() else []


def _run_folders(paths: Paths, names: list[str]) -> Iterator[Path]:
    for name in names:
        yield from (paths.oof(name), paths.submissions(name), paths.bundle(name))
        for run in _folders(paths.oof(name)):
            yield from (run, paths.checkpoints(name, run.name), *_folders(paths.checkpoints(name, run.name)))


def _check_folds(findings: Findings, path: Path) -> None:
    record_path = path.with_suffix(".json")
    if not path.exists():
        if record_path.exists():
            findings.add(MISSING, path, f"{record_path.name} describes it")
        return
    try:
        data = read_bytes(path)
        record = find_record(path, data)
    except UserError as error:
        findings.add(DAMAGED, record_path, str(error).removeprefix(f"{record_path}: "))
        return
    findings.n_files, findings.n_bytes = findings.n_files + 1, findings.n_bytes + len(data)
    if record is None and record_path.exists():
        findings.add(DAMAGED, path, f"not the file that {record_path.name} describes")
    elif record is None:
        findings.add(ORPHANED, path, "has no .json. Run: python src/make_folds.py, which checks it and writes one")


def _check_run(findings: Findings, paths: Paths, run: Path, weights_name: str) -> None:
    """The records of a run's folds, their predictions and weights."""
    for record_path in record_paths(run):
        try:
            record = read_record(record_path, FOLD)
        except UserError as error:
            findings.add(DAMAGED, record_path, str(error).removeprefix(f"{record_path}: "))
            continue
        findings.compare(record_path.with_suffix(".npz"), record["npz_sha256"], record_path.name)
        weights = paths.checkpoints(run.parent.name, run.name) / record_path.stem / weights_name
        if record.get("weights_sha256"):
            findings.compare(weights, record["weights_sha256"], findings.shown(record_path))
    for predictions in [*sorted(run.glob("fold*.npz")), *run.glob(f"{fold_name(FULL)}.npz")]:
        if not predictions.with_suffix(".json").exists():
            findings.add(ORPHANED, predictions, "has no .json: its training was cut off and counts as not done")


def _check_submissions(findings: Findings, folder: Path) -> None:
    for record_path in sorted(folder.glob("*.json")):
        try:
            record = read_record(record_path, SUBMISSION)
        except UserError as error:
            findings.add(DAMAGED, record_path, str(error).removeprefix(f"{record_path}: "))
            continue
        path = record_path.with_suffix(".csv")
        if path.exists():
            findings.compare(path, record["csv_sha256"], record_path.name)
        else:
            findings.add(ORPHANED, record_path, f"{path.name} is not there: the blend was cut off, or the CSV removed")


def _check_bundle(findings: Findings, dataset: Path) -> None:
    about_path = dataset / "bundle.json"
    try:
        data = read_bytes(about_path)
        about = json.loads(data)
    except (UserError, ValueError, RecursionError) as error:
        kind = MISSING if not about_path.exists() else DAMAGED
        findings.add(kind, about_path, str(error).removeprefix(f"{about_path}: "))
        return
    if not isinstance(about, dict) or "files" not in about:
        findings.add(ORPHANED, dataset.parent, "made by an older version, which listed no hashes. Make it again")
        return
    wrong = find_mismatch(about["files"], {"*": HASH}, "files")
    if wrong:
        findings.add(DAMAGED, about_path, wrong)
        return
    for name, sha256 in about["files"].items():
        findings.compare(dataset / name, sha256, findings.shown(about_path))
    # the two files that cannot list themselves
    known = {*about["files"], "bundle.json", "dataset-metadata.json"}
    for path in sorted(dataset.rglob("*")):
        if not path.is_dir() and path.relative_to(dataset).as_posix() not in known:
            findings.add(ORPHANED, path, "bundle.json does not name it")


def _check_log(findings: Findings, paths: Paths, names: list[str]) -> None:
    """The log is readable, and the submitted files of these competitions are what was submitted."""
    try:
        entries = read_log(paths)
    except UserError as error:
        findings.add(DAMAGED, paths.submissions_log, str(error).removeprefix(f"{paths.submissions_log}: "))
        return
    for entry in entries:
        in_project = re.fullmatch(r"submissions/(?!.*\.\.)[^\0]+", entry.file)
        if entry.competition in names and entry.sha256 and in_project:
            findings.compare(paths.root / entry.file, entry.sha256, f"{paths.submissions_log.name}, ref {entry.ref},")


def count_words(findings: Findings) -> str:
    """`0 missing, 2 damaged, 0 orphaned`."""
    kinds = [kind for kind, _ in findings.found]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in STATUS)
