"""submissions/<competition>/<name>.csv, the .json that says how it was made, and submissions/log.csv.

The .json is written first, the .csv last: a .csv that is there is whole and described. A .json alone is what a kill
between the two leaves; nothing reads it, and the same command writes it again.
"""

import csv
import io
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from foldblend.errors import UserError, nearest
from foldblend.files import hold_lock, read_bytes, sha256_bytes, sha256_file, write_atomically
from foldblend.ledger.records import HASH, Schema, read_record, write_record
from foldblend.settings.paths import Paths
from foldblend.settings.yaml_files import check_name


def with_report(record: dict) -> dict:
    """Before 0.3 the report was called `account`, and `chosen` in it `handed_in`."""
    record = dict(record)
    if "account" in record:
        report = record["report"] = record.pop("account")
        if isinstance(report, dict) and "handed_in" in report:
            record["report"] = {"chosen" if name == "handed_in" else name: report[name] for name in report}
    return record


REPORT = {
    "metric": str,
    "chosen?": str,
    "in_sample?": (float, None),
    "cross_fitted?": (float, None),
    "expected_fold_mean?": {"score": float, "low": float, "high": float},
}
"""What submit.py reads of a blend's report."""
SUBMISSION = Schema(
    "a submission",
    {"competition?": str, "settings?": {"strategy?": str}, "report?": REPORT, "csv_sha256": HASH},
    {1: with_report},
)
"""The .json beside any CSV in submissions/."""
CLOCKS_DIFFER_SECONDS = 60
"""A file server's clock may be ahead of ours by so much."""


def write_submission(paths: Paths, competition_name: str, name: str, csv_bytes: bytes, record: dict) -> Path:
    """Write a submission and its record, which gets the CSV's hash as `csv_sha256`.

    Returns: the CSV's path.
    Raises: UserError: a name that is no file name.   ValueError: a record that JSON cannot hold.
            FileError: the folder cannot be written; an earlier submission of that name is unchanged.
    """
    path = paths.submissions(check_name(competition_name, "competition")) / f"{check_name(name, 'submission')}.csv"
    write_record(path.with_suffix(".json"), {**record, "csv_sha256": sha256_bytes(csv_bytes)}, SUBMISSION)
    write_atomically(path, csv_bytes)
    return path


def earlier_submissions(paths: Paths, competition_name: str) -> dict[str, Path]:
    """sha256 -> path of every CSV in submissions/<competition>/; of two equal ones, the first by name."""
    csvs = sorted(paths.submissions(competition_name).glob("*.csv"), reverse=True)
    return {sha256_file(path): path for path in csvs}


def find_submission(paths: Paths, competition_name: str, named: str) -> Path:
    """The CSV of that path or of that name in submissions/<competition>/; without a name the newest there.

    Raises: UserError: it does not exist, or the clock was set back, so that nobody knows which one is the newest.
    """
    folder = paths.submissions(competition_name)
    where = f"{folder.relative_to(paths.root)}/"
    if named:
        for path in (Path(named).resolve(), folder / named, folder / f"{named}.csv"):
            if path.is_file():
                return path
        hint = nearest(Path(named).name, [path.name for path in folder.glob("*.csv")])
        raise UserError(f"{named} does not exist, nor does it in {where}{hint}")
    csvs = sorted(folder.glob("*.csv"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not csvs:
        raise UserError(f"no CSV in {where} Run: python src/blend.py --competition {competition_name}")
    if csvs[-1].stat().st_mtime > time.time() + CLOCKS_DIFFER_SECONDS:
        raise UserError(
            f"{where}{csvs[-1].name} has a date in the future: the clock was set back, so the newest CSV is not known. "
            "Name the one to submit"
        )
    return csvs[-1]


# submissions/log.csv: one row per submission to Kaggle, of all competitions; written before each upload.


# ---------- the log's rows, read and written.


STATUSES = ("uploading", "pending", "complete", "error")
"""`uploading` is written before the upload starts, so that a kill leaves a trace; the others are Kaggle's words."""
FORMULA = re.compile(r"[=+\-@]")
"""How a cell begins that a spreadsheet would run; such texts are written behind an apostrophe."""


@dataclass(frozen=True)
class LogEntry:
    """One submission: what was submitted, what was expected of it, what Kaggle said."""

    time: str
    """UTC, to the second, as 2026-01-31T23:59:59Z."""
    competition: str
    file: str
    """From the project's folder, as submissions/<competition>/<name>.csv; Kaggle's name for it if it is not here."""
    sha256: str
    """Of the CSV's bytes; empty if it was submitted by hand and is not here."""
    ref: int
    """Kaggle's number for it; 0 until Kaggle has answered."""
    status: str
    in_sample: float | None
    cross_fitted: float | None
    expected: float | None
    """Of the average over the folds, on the test rows."""
    public_score: float | None
    private_score: float | None
    message: str


COLUMNS = tuple(field.name for field in fields(LogEntry))
SCORES = ("in_sample", "cross_fitted", "expected", "public_score", "private_score")
PATTERNS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "competition": r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "file": r".+",
    "sha256": r"([0-9a-f]{64})?",
    "ref": r"\d{1,18}",
    "status": "|".join(STATUSES),
    "message": r".*",
}


def read_log(paths: Paths) -> list[LogEntry]:
    """Every entry, oldest first; none if there is no log yet.

    Raises: UserError: other columns, or a cell that is no time, hash, status or number, with its row.
    """
    path = paths.submissions_log
    if not path.exists():
        return []
    try:
        rows = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 CSV ({error}). {_fix(paths)}") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        found = ", ".join(rows[0])[:200] if rows else "nothing"
        raise UserError(f"{path}: columns are {found}; expected {', '.join(COLUMNS)}. {_fix(paths)}")
    entries = [_parse(row, f"{path}: row {number}", paths) for number, row in enumerate(rows[1:], 1)]
    counts = Counter(entry.ref for entry in entries)
    doubled = [ref for ref, count in counts.items() if ref and count > 1]
    if doubled:
        raise UserError(f"{path}: ref {doubled[0]} is in several rows; expected one. {_fix(paths)}")
    return entries


def change_log(paths: Paths, change: Callable[[list[LogEntry]], list[LogEntry]]) -> list[LogEntry]:
    """Read, change and write the log under its lock, so that no other process writes in between.

    Returns: the entries as they were written, oldest first.
    Raises:  UserError: see `read_log`. FileError: the log cannot be written.
    """
    path = paths.submissions_log
    with hold_lock(path.with_name(".log.lock")):
        before = read_log(paths)
        after = sorted(change(list(before)), key=lambda entry: entry.time)
        if after != before:
            write_atomically(path, _as_csv(after))
    return after


@contextmanager
def one_upload_at_a_time(paths: Paths) -> Iterator[None]:
    """Hold the lock of uploads. Raises: BusyError: another process is submitting."""
    path = paths.submissions_log.with_name(".submit.lock")
    with hold_lock(path, f"{path.parent}: another submit.py is uploading now. Wait for it, then run this again"):
        yield


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_one_line(text: str) -> str:
    """A message without line ends and control characters, as the log keeps it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _as_csv(entries: list[LogEntry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        cells = zip(COLUMNS, astuple(entry), strict=True)
        writer.writerow([_shielded(value) if name in ("file", "message") else _shown(value) for name, value in cells])
    return text.getvalue().encode()


def _shielded(text: str) -> str:
    text = as_one_line(text)
    # a text that begins with an apostrophe itself gets one more, so that reading takes off exactly what was added
    return f"'{text}" if FORMULA.match(text.lstrip("'")) else text


def _unshielded(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text.lstrip("'")) else text


def _shown(value) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _parse(row: list[str], where: str, paths: Paths) -> LogEntry:
    """One row as an entry. Raises: UserError: names the cell."""
    if len(row) != len(COLUMNS):
        raise UserError(f"{where} has {len(row)} cells; expected {len(COLUMNS)}. {_fix(paths)}")
    cells = dict(zip(COLUMNS, row, strict=True))
    for name, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, cells[name]):
            raise UserError(f"{where}: {name} is {cells[name][:60]!r}; expected {pattern}. {_fix(paths)}")
    scores = {name: _parse_score(cells[name], f"{where}: {name}", paths) for name in SCORES}
    return LogEntry(
        time=cells["time"],
        competition=cells["competition"],
        file=_unshielded(cells["file"]),
        sha256=cells["sha256"],
        ref=int(cells["ref"]),
        status=cells["status"],
        message=_unshielded(cells["message"]),
        **scores,
    )


def _parse_score(cell: str, where: str, paths: Paths) -> float | None:
    try:
        value = float(cell) if cell else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise UserError(f"{where} is {cell[:60]!r}; expected a number or nothing. {_fix(paths)}")
    return value


def _fix(paths: Paths) -> str:
    name = paths.submissions_log.name
    return f"Fix it, or move {name} away and run: python src/submit.py --sync, which writes it again from Kaggle's list"


# ---------- the log brought up to date with Kaggle's list: by number, by the mark in the message, by name.


MARK = re.compile(r"\[sha256 ([0-9a-f]{12})\]")
"""What `marked` appends to a message: enough of the hash to recognise the file even if the log was lost."""
ARRIVES_WITHIN_SECONDS = 300
"""An upload that Kaggle does not list after this time never arrived."""


class Listed(Protocol):
    """One submission as Kaggle lists it."""

    ref: int
    date: str
    file_name: str
    description: str
    status: str
    public_score: float | None
    private_score: float | None
    total_bytes: int


@dataclass(frozen=True)
class LocalFile:
    """A CSV in submissions/<competition>/ and, from its record, what is expected of it."""

    path: Path
    shown: str
    sha256: str
    report: dict | None
    """The blend's report of its scores, see REPORT; None without a record."""
    is_forced: bool = False
    """Whether its strategy was named by `--strategy`, whatever its score."""

    @property
    def expected(self) -> dict[str, float] | None:
        """`score`, `low` and `high` to expect on the test set; None if nothing is known of it."""
        return (self.report or {}).get("expected_fold_mean")

    def describe(self) -> str:
        """Strategy and expected score in words; empty if nothing is known of it."""
        if not self.report or not self.expected:
            return ""
        expected = self.expected
        chosen = f"{self.report.get('chosen', 'a blend')}{', forced by --strategy' if self.is_forced else ''}"
        score = f"{expected['score']:.4f}, 90 % interval {expected['low']:.4f} to {expected['high']:.4f}"
        return f"{chosen}: expected {self.report['metric']} {score}"

    def scores(self) -> dict[str, float | None]:
        """in_sample, cross_fitted and expected, as the log has them."""
        report = self.report or {}
        expected = report.get("expected_fold_mean", {})
        return {
            **{name: report.get(name) for name in ("in_sample", "cross_fitted")},
            "expected": expected.get("score"),
        }


def marked(message: str, sha256: str) -> str:
    """The message with the file's mark at its end."""
    return f"{as_one_line(message)} [sha256 {sha256[:12]}]".strip()


def describe_file(paths: Paths, path: Path, competition_name: str) -> LocalFile:
    """A CSV of a competition and its record.

    Raises: UserError: the record is damaged, of a different competition, or of other bytes than the CSV has now.
    """
    digest, source = sha256_file(path), path.with_suffix(".json")
    shown = str(path.relative_to(paths.root)) if path.is_relative_to(paths.root) else str(path)
    if not source.is_file():
        return LocalFile(path, shown, digest, None)
    record = read_record(source, SUBMISSION)
    if record["csv_sha256"] != digest:
        raise UserError(
            f"{shown} has changed since it was written: sha256 {digest[:12]}, {source.name} says "
            f"{record['csv_sha256'][:12]}. Run: python src/blend.py --from {source}; or move {source.name} "
            "away to submit the file as it is"
        )
    if record.get("competition", competition_name) != competition_name:
        raise UserError(
            f"{shown} was made for {record['competition']}, not for {competition_name}. "
            f"Run: python src/submit.py --competition {record['competition']} {shown}"
        )
    forced = bool(record.get("settings", {}).get("strategy"))
    return LocalFile(path, shown, digest, record.get("report"), forced)


def local_files(paths: Paths, competition_name: str) -> list[LocalFile]:
    """Every CSV in submissions/<competition>/, by name; a record that does not fit its CSV counts as none."""
    files = []
    for path in sorted(paths.submissions(competition_name).glob("*.csv")):
        try:
            files.append(describe_file(paths, path, competition_name))
        except UserError:  # the record describes other bytes
            files.append(LocalFile(path, str(path.relative_to(paths.root)), sha256_file(path), None))
    return files


def sync_log(paths: Paths, competition_name: str, listed: Sequence[Listed]) -> tuple[list[LogEntry], list[str]]:
    """Bring the log up to date with Kaggle's list.

    Returns: all its entries; and what changed, as sentences.
    """
    files, said = local_files(paths, competition_name), []

    def change(entries):
        after, lines = reconcile(entries, listed, files, competition_name, utc_now())
        said.extend(lines)
        return after

    return change_log(paths, change), said


def pick_best(files: Sequence[LocalFile], entries: Sequence[LogEntry], metric: str, greater: bool) -> LocalFile | None:
    """The file with the best expected score of those that were not submitted yet; of all, if all were; of equals the
    newest. None if nothing is known of any.

    Args: metric: the competition's; scores by another one are not compared.   greater: whether greater is better.
    """
    known = [file for file in files if file.report and file.expected and file.report["metric"] == metric]
    sent = {entry.sha256 for entry in entries if entry.status != "error"}
    # by hash: the same answer under another name was submitted already
    pool = [file for file in known if file.sha256 not in sent] or known
    sign = 1 if greater else -1

    def rank(file: LocalFile) -> tuple[float, int, str]:
        return sign * (file.expected or {"score": 0.0})["score"], file.path.stat().st_mtime_ns, file.path.name

    return max(pool, key=rank) if pool else None


def refuse_resubmission(entries: Sequence[LogEntry], file: LocalFile, competition_name: str) -> None:
    """Raises: UserError: the bytes of the file were submitted before, or perhaps just now.

    A submission that Kaggle could not score does not count: the fault may have been Kaggle's own.
    """
    for entry in entries:
        if (entry.competition, entry.sha256) != (competition_name, file.sha256) or entry.status == "error":
            continue
        if not entry.ref:
            raise UserError(
                f"{file.shown}: an upload of it was cut off at {entry.time} and may still arrive. Run the same command "
                f"{ARRIVES_WITHIN_SECONDS // 60} minutes after that"
            )
        score = "without a score" if entry.public_score is None else f"public score {entry.public_score:g}"
        raise UserError(
            f"{file.shown}: submitted before, as {entry.file} on {entry.time} (ref {entry.ref}), {score}. Kaggle would "
            "score it the same; name another file"
        )


def reconcile(
    entries: Sequence[LogEntry], listed: Sequence[Listed], files: Sequence[LocalFile], competition_name: str, now: str
) -> tuple[list[LogEntry], list[str]]:
    """The log with everything that Kaggle lists of one competition, and what was changed, as sentences.

    Args: listed: all of it, in any order.   files: candidates for what was submitted by hand.   now: as `utc_now`.
    """
    log, said = list(entries), []
    for one in sorted(listed, key=lambda one: (one.date, one.ref)):
        at = _find(log, one, competition_name)
        before = None if at is None else log[at]
        after = _updated(before or _from_outside(one, files, competition_name), one)
        if at is None:
            log.append(after)
        else:
            log[at] = after
        if after != before:
            said.append(_change(before, after))
    return _drop_lost(log, competition_name, now, said), said


def _find(log: list[LogEntry], one: Listed, competition_name: str) -> int | None:
    """The entry of a listed submission: by number, else one without a number that has the same mark or name."""
    ours = [(at, entry) for at, entry in enumerate(log) if entry.competition == competition_name]
    # Kaggle's number is sure; a name or a message may be used twice
    by_ref = [at for at, entry in ours if entry.ref == one.ref]
    if by_ref:
        return by_ref[0]
    mark = MARK.search(one.description)
    for at, entry in ours:
        same_name = Path(entry.file).name == one.file_name and entry.message == as_one_line(one.description)
        if not entry.ref and (entry.sha256.startswith(mark[1]) if mark else same_name):
            return at
    return None


def _from_outside(one: Listed, files: Sequence[LocalFile], competition_name: str) -> LogEntry:
    """An entry for what the log does not have; with the local file's scores if that file is found."""
    file = _recognise(one, files)
    return LogEntry(
        time=one.date,
        competition=competition_name,
        file=file.shown if file else as_one_line(one.file_name) or "unknown",
        sha256=file.sha256 if file else "",
        ref=one.ref,
        status="pending",
        **(file.scores() if file else dict.fromkeys(("in_sample", "cross_fitted", "expected"))),
        public_score=None,
        private_score=None,
        message="",
    )


def _recognise(one: Listed, files: Sequence[LocalFile]) -> LocalFile | None:
    """The local file by its mark, or by its name as file or message if the size is the same."""
    mark = MARK.search(one.description)
    if mark:
        return next((file for file in files if file.sha256.startswith(mark[1])), None)
    names = {one.file_name, f"{as_one_line(one.description)}.csv"}
    fits = [file for file in files if file.path.name in names and one.total_bytes in (0, file.path.stat().st_size)]
    return fits[0] if len(fits) == 1 else None


def _updated(entry: LogEntry, one: Listed) -> LogEntry:
    return replace(
        entry,
        ref=one.ref,
        status=one.status,
        public_score=one.public_score,
        private_score=one.private_score,
        message=as_one_line(one.description),
    )


def _change(before: LogEntry | None, after: LogEntry) -> str:
    score = "not scored yet" if after.public_score is None else f"public {after.public_score:g}"
    state = "Kaggle could not score it" if after.status == "error" else score
    news = "submitted elsewhere, now in the log" if before is None else "had arrived" if not before.ref else "updated"
    return f"{after.file} (ref {after.ref}): {news}, {state}"


def _drop_lost(log: list[LogEntry], competition_name: str, now: str, said: list[str]) -> list[LogEntry]:
    """The log without uploads that were cut off and never arrived; adds sentences to `said`."""
    kept = []
    for entry in log:
        if entry.ref or entry.competition != competition_name:
            kept.append(entry)
        # abs: after a clock was set back, an entry of the future must not stay for years
        elif abs((_moment(now) - _moment(entry.time)).total_seconds()) < ARRIVES_WITHIN_SECONDS:
            kept.append(entry)
            said.append(f"{entry.file}: its upload was cut off at {entry.time}; Kaggle does not list it (yet)")
        else:
            said.append(f"{entry.file}: its upload of {entry.time} never arrived; it can be submitted again")
    return kept


def _moment(time: str) -> datetime:
    return datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
