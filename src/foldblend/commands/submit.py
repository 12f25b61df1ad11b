"""Submit a CSV to Kaggle, wait for its score and log it; or propose the final submissions.

python src/submit.py
python src/submit.py submissions/mine/blend-1a2b3c4d.csv --message "tfidf + minilm"
python src/submit.py --competition mine --sync
python src/submit.py --competition mine --choose 2
"""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from foldblend.console import say, warn
from foldblend.data.tables import load_tables
from foldblend.errors import UserError
from foldblend.files import read_bytes, sha256_bytes
from foldblend.kaggle.client import KaggleClient, KaggleError, describe_limits, find_wide_permissions, wait_for_score
from foldblend.ledger.submissions import (
    ARRIVES_WITHIN_SECONDS,
    LocalFile,
    LogEntry,
    change_log,
    describe_file,
    earlier_submissions,
    find_submission,
    local_files,
    marked,
    one_upload_at_a_time,
    pick_best,
    read_log,
    refuse_resubmission,
    sync_log,
    utc_now,
)
from foldblend.scoring.finals import Z90, ScoredSubmission, choose_finals, comparison_lines, far_line, finals_lines
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.loading import Job, open_job
from foldblend.settings.paths import find_paths
from foldblend.settings.yaml_files import list_configs
from foldblend.submission.answers import lint_submission_file, read_submission


def add_flags(parser) -> None:
    parser.add_argument("file", nargs="?", default="", help="the CSV to submit; by default the best expected new one")
    parser.add_argument(
        "-m", "--message", default="", help="shown on Kaggle beside the score; the file's name by default"
    )
    parser.add_argument("--dry-run", action="store_true", help="everything but the upload")
    parser.add_argument(
        "--sync", action="store_true", help="bring the log up to date with Kaggle's list, submit nothing"
    )
    parser.add_argument("--choose", type=int, default=0, help="propose this many final submissions; no network")
    parser.add_argument("--wait", type=float, default=10.0, help="minutes to wait for the score; 0 does not wait")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that one answer from Kaggle may take")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("submit.py", name_competition(argv), add_flags)
    print(f"competition {job.competition_name}: submit", flush=True)
    if job.own.choose < 0 or job.own.wait < 0:
        raise UserError(f"--choose is {job.own.choose}, --wait is {job.own.wait:g}; expected 0 or more")
    if job.own.choose:
        propose_finals(job)
        return
    slug = find_slug(job)
    warn(*find_wide_permissions())
    with KaggleClient(slug, job.own.timeout) as client:
        if job.own.sync:
            with one_upload_at_a_time(job.paths):
                sync(job, client)
        else:
            submit(job, client)
    show_table(job)


def name_competition(argv: list[str]) -> list[str]:
    """The flags; if no competition is named, the one whose folder holds the named CSV is added."""
    named = [Path(flag).resolve() for flag in argv if flag.endswith(".csv")]
    if not named or any(flag.split("=", 1)[0] == "--competition" for flag in argv):
        return argv
    paths = find_paths()
    known = {path.stem for path in list_configs(paths, "competitions")}
    folder = paths.submissions("any").parent
    inside = [path.parent.name for path in named if path.parent.parent == folder and path.parent.name in known]
    return [*argv, "--competition", inside[0]] if inside else argv


def find_slug(job: Job) -> str:
    files = job.competition.files
    if not files.kaggle and files.source in ("sample", "goemotions"):
        raise UserError(
            f"competition {job.competition_name} is not on Kaggle. Score it here: python bench/score_submission.py "
            f"--competition {job.competition_name} CSV; or name its slug: --files.kaggle SLUG"
        )
    return files.kaggle or job.competition_name


def submit(job: Job, client: KaggleClient) -> None:
    """Check the CSV, submit it once, log it, wait for its score."""
    name = job.competition_name
    file = find_file(job)
    data = read_checked(job, file)
    message = marked(job.own.message or file.path.stem, file.sha256)
    with one_upload_at_a_time(job.paths):
        refuse_resubmission(sync(job, client), file, name)
        print(describe_limits(client.limits()))
        if job.own.dry_run:
            print(f"Dry run, nothing was uploaded. Message: {message}\n")
            return
        ref = upload(job, client, file, data, message)
    follow(job, client, ref)


def find_file(job: Job) -> LocalFile:
    """The named CSV; without a name the best expected one that was not submitted yet."""
    name = job.competition_name
    if not job.own.file:
        greater = METRICS[job.competition.metric].greater_is_better
        files = local_files(job.paths, name)
        best = pick_best(files, read_log(job.paths), job.competition.metric, greater)
        if best is not None:
            say(f"{best.shown}, the best expected of those not submitted yet; name another one to submit it")
            return describe_file(job.paths, best.path, name)
    return describe_file(job.paths, find_submission(job.paths, name, job.own.file), name)


def read_checked(job: Job, file: LocalFile) -> bytes:
    """The CSV's bytes, to be uploaded as they are; what is odd about them is printed.

    Raises: UserError: it does not fit the sample submission, or has changed since its record was read.
    """
    data = read_bytes(file.path)
    if sha256_bytes(data) != file.sha256:
        raise UserError(f"{file.shown} changed while it was read. Run the same command again once it is written")
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    earlier = earlier_submissions(job.paths, job.competition_name)
    others = {digest: path for digest, path in earlier.items() if path != file.path}
    findings = lint_submission_file(file.path, job.competition, tables, None, others, data)
    fits = f"the sample submission and {file.path.stem}.json" if file.report else "the sample submission"
    print(f"{file.shown}: {len(data):,} bytes\nIt fits {fits}.")
    warn(*findings)
    if file.describe():
        say(file.describe())
    if not file.report:
        warn("blend.py left no .json for this CSV, so its local scores are unknown")
    return data


def sync(job: Job, client: KaggleClient) -> list[LogEntry]:
    """Bring the log up to date with Kaggle's list and print what changed; the log's entries."""
    entries, said = sync_log(job.paths, job.competition_name, client.submissions())
    for line in said:
        print(f"log: {line}")
    return entries


def upload(job: Job, client: KaggleClient, file: LocalFile, data: bytes, message: str) -> int:
    """Upload, with a row in the log before and Kaggle's number in it after; that number."""
    scores = {**file.scores(), "public_score": None, "private_score": None}
    name = (
        file.shown if file.path.is_relative_to(job.paths.root) else file.path.name
    )  # the log is in git: no home in it
    where = {"competition": job.competition_name, "file": name, "sha256": file.sha256}
    entry = LogEntry(time=utc_now(), ref=0, status="uploading", message=message, **where, **scores)
    # before the upload: a kill in the middle leaves a row, and the next start asks Kaggle what became of it
    change_log(job.paths, lambda entries: [*entries, entry])
    print(f"Uploading to {client.slug}", flush=True)
    before = {one.ref for one in read_log(job.paths)}
    try:
        ref = client.submit(file.path.name, data, message)
    except KaggleError as error:
        # Kaggle has refused the file; with None it is not known, and the row stays
        if error.arrived is False:
            change_log(job.paths, lambda entries: [one for one in entries if one != entry])
            raise
        ref = find_arrived(job, client, file, str(error), before)
    except KeyboardInterrupt:
        ref = 0
        print()
    ref = ref or find_arrived(job, client, file, "there was no answer", before)

    def with_ref(entries):
        return [replace(entry, ref=ref, status="pending") if one == entry else one for one in entries]

    change_log(job.paths, with_ref)
    print(f"Submitted as number {ref}: {message}", flush=True)
    return ref


def find_arrived(job: Job, client: KaggleClient, file: LocalFile, why: str, before: set[int]) -> int:
    """The number of a submission whose answer was lost.

    Args:   before: the numbers in the log before the upload; the same bytes may be among them, if they failed.
    Raises: UserError: it is not known whether it arrived.
    """
    again = f"Run: python src/submit.py --competition {job.competition_name} --sync"
    print("The answer was lost. Asking Kaggle whether the file arrived", flush=True)
    try:
        entries = sync(job, client)
    except KaggleError as error:
        raise UserError(f"{why}. Whether it arrived is not known: {error}. {again}") from error
    same = [one.ref for one in entries if (one.competition, one.sha256) == (job.competition_name, file.sha256)]
    found = [ref for ref in same if ref not in before]
    if not any(found):
        raise UserError(f"{why}. Kaggle does not list it. {again} in {ARRIVES_WITHIN_SECONDS // 60} minutes")
    return max(found)


def follow(job: Job, client: KaggleClient, ref: int) -> None:
    """Wait for the score and log it. Raises: UserError: Kaggle could not score the file."""
    one = wait_for_score(client, ref, job.own.wait, show_progress)
    if one is None:
        print(f"\nNot scored yet. Run: python src/submit.py --competition {job.competition_name} --sync\n")
        return
    sync_log(job.paths, job.competition_name, [one])
    if one.status == "error":
        reason = one.error_description or "no reason given"
        raise UserError(
            f"Kaggle could not score {one.file_name} (ref {ref}): {reason}. See its page of submissions. If the fault "
            "was Kaggle's own, the same command submits it again"
        )
    score = "Kaggle shows none" if one.public_score is None else f"{one.public_score:g}"
    print(f"\nPublic score: {score}\n")


def show_progress(line: str) -> None:
    """On a terminal in place, elsewhere line by line."""
    print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def show_table(job: Job) -> None:
    entries = [entry for entry in read_log(job.paths) if entry.competition == job.competition_name]
    scores = ("in_sample", "cross_fitted", "expected", "public_score", "private_score")
    rows = [(Path(entry.file).name, [getattr(entry, name) for name in scores]) for entry in entries]
    print("\n".join(comparison_lines(rows, any(entry.private_score is not None for entry in entries))))
    known = {file.sha256: file for file in local_files(job.paths, job.competition_name)}
    for entry in entries:
        file = known.get(entry.sha256)
        is_same_metric = file is not None and file.report and file.report["metric"] == job.competition.metric
        if file is not None and is_same_metric and file.expected and entry.public_score is not None:
            line = far_line(Path(entry.file).name, entry.public_score, file.expected)
            if line:
                warn(line)


def propose_finals(job: Job) -> None:
    """Print which submissions to choose as final ones: of those that Kaggle has scored, if there are enough."""
    name, count = job.competition_name, job.own.choose
    log = read_log(job.paths)
    scored = {one.sha256 for one in log if (one.competition, one.status) == (name, "complete")}
    described = [one for one in local_files(job.paths, name) if one.report]
    files = [one for one in described if one.report["metric"] == job.competition.metric]
    if not files:
        raise UserError(f"no submission of {name} has a scored record. Run: python src/blend.py --competition {name}")
    if len(files) < len(described):
        print(
            f"Left out: {len(described) - len(files)} that were made for another metric than {job.competition.metric}"
        )
    pool = [one for one in files if one.sha256 in scored]
    if len(pool) < count:
        print(f"Kaggle has scored {len(pool)} of the {len(files)} submissions here: choosing from all of them")
        pool = files
    candidates = load_candidates(job, pool)
    greater = METRICS[job.competition.metric].greater_is_better
    finals, good = choose_finals(candidates, count, greater)
    print("\n".join(finals_lines(finals, good, len(candidates))))
    if len(finals) < count:
        print(f"Only {len(finals)} proposed, not {count}: every other one has the same answers")
    digests = {one.shown: one.sha256 for one in pool}
    for shown in (final.submission.name for final in finals):
        if digests[shown] not in scored:
            print(f"Not submitted yet. Run: python src/submit.py {shlex.quote(shown)}")


def load_candidates(job: Job, files: list[LocalFile]) -> list[ScoredSubmission]:
    """Answers and expected scores. Raises: UserError: a file does not fit the sample submission."""
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    candidates = []
    for one in files:
        expected = one.report["expected_fold_mean"]
        error = (expected["high"] - expected["low"]) / 2 / Z90
        answers = read_submission(one.path, job.competition, tables)
        candidates.append(ScoredSubmission(one.shown, expected["score"], error, answers))
    return candidates
