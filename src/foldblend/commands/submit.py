"""Door: hand in a submission through Kaggle's client, wait for its score, log it; or propose the finals.

python src/submit.py
python src/submit.py submissions/mine/blend-1a2b3c4d.csv --message "tfidf + minilm"
python src/submit.py --competition mine --sync
python src/submit.py --competition mine --choose 2
"""

import sys
from dataclasses import replace
from pathlib import Path

from foldblend.data.tables import load_tables
from foldblend.errors import UserError
from foldblend.kaggle.client import KaggleClient, KaggleError, describe_limits, find_wide_permissions, wait_for_score
from foldblend.ledger.log import (
    ARRIVES_WITHIN_SECONDS,
    LocalFile,
    LogEntry,
    bring_in,
    change_log,
    describe_file,
    handing_in,
    local_files,
    marked,
    read_log,
    refuse_second_time,
    utc_now,
)
from foldblend.ledger.submissions import earlier_submissions, find_submission
from foldblend.scoring.leaderboard import Z90, ScoredSubmission, choose_finals, comparison_lines, finals_lines
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.loading import Job, open_job
from foldblend.settings.paths import find_paths
from foldblend.submission.answers import lint_submission_file, read_submission


def add_flags(parser) -> None:
    parser.add_argument("file", nargs="?", default="", help="the CSV to hand in; the competition's newest by default")
    parser.add_argument(
        "-m", "--message", default="", help="shown on Kaggle beside the score; the file's name by default"
    )
    parser.add_argument("--dry-run", action="store_true", help="everything but the upload")
    parser.add_argument(
        "--sync", action="store_true", help="bring the log up to date with Kaggle's list, hand in nothing"
    )
    parser.add_argument("--choose", type=int, default=0, help="propose so many final submissions; no network")
    parser.add_argument("--wait", type=float, default=10.0, help="minutes to wait for the score; 0 does not wait")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that one answer of Kaggle may take")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("submit.py", name_competition(argv), add_flags)
    if job.own.choose < 0 or job.own.wait < 0:
        raise UserError(f"--choose is {job.own.choose}, --wait is {job.own.wait:g}; expected 0 or more")
    if job.own.choose:
        propose_finals(job)
        return
    slug = find_slug(job)
    for finding in find_wide_permissions():
        print(f"look: {finding}")
    with KaggleClient(slug, job.own.timeout) as client:
        if job.own.sync:
            with handing_in(job.paths):
                sync(job, client)
        else:
            submit(job, client)
    show_table(job)


def name_competition(argv: list[str]) -> list[str]:
    """The flags, with the competition in whose folder the named CSV lies, unless one is named."""
    named = [Path(flag).resolve() for flag in argv if flag.endswith(".csv")]
    if not named or any(flag.split("=", 1)[0] == "--competition" for flag in argv):
        return argv
    folder = find_paths().submissions("any").parent
    inside = [path for path in named if path.is_file() and path.parent.parent == folder]
    return [*argv, "--competition", inside[0].parent.name] if inside else argv


def find_slug(job: Job) -> str:
    files = job.competition.files
    if not files.kaggle and files.source in ("sample", "goemotions"):
        raise UserError(
            f"competition {job.competition_name} is not on Kaggle. Score it here: python bench/score_submission.py "
            f"--competition {job.competition_name} CSV; or name its slug: --files.kaggle SLUG"
        )
    return files.kaggle or job.competition_name


def submit(job: Job, client: KaggleClient) -> None:
    """Lint, hand in once, log, wait."""
    name = job.competition_name
    file = describe_file(job.paths, find_submission(job.paths, name, job.own.file), name)
    lint(job, file)
    message = marked(job.own.message or file.path.stem, file.sha256)
    with handing_in(job.paths):
        refuse_second_time(sync(job, client), file, name)
        print(describe_limits(client.limits()))
        if job.own.dry_run:
            print(f"dry run, not uploaded: {file.shown} with the message {message!r}\n")
            return
        ref = hand_in(job, client, file, message)
    follow(job, client, ref)


def lint(job: Job, file: LocalFile) -> None:
    """Raises ValueError where the sample submission asks for something else; prints what is odd."""
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    earlier = earlier_submissions(job.paths, job.competition_name)
    others = {digest: path for digest, path in earlier.items() if path != file.path}
    findings = lint_submission_file(file.path, job.competition, tables, None, others)
    fits = f"the sample submission and {file.path.stem}.json" if file.account else "the sample submission"
    print(f"{file.shown}: {file.path.stat().st_size:,} bytes, fits {fits}")
    for finding in findings:
        print(f"look: {finding}")
    if not file.account:
        print("look: no .json of blend.py beside it, so its local scores are not known")


def sync(job: Job, client: KaggleClient) -> list[LogEntry]:
    """The log as Kaggle's list has it; what changed is printed."""
    entries, said = bring_in(job.paths, job.competition_name, client.submissions())
    for line in said:
        print(f"log: {line}")
    return entries


def hand_in(job: Job, client: KaggleClient, file: LocalFile, message: str) -> int:
    """Upload, with a row in the log before and its number after; Kaggle's number of it."""
    scores = {**file.scores(), "public_score": None, "private_score": None}
    where = {"competition": job.competition_name, "file": file.shown, "sha256": file.sha256}
    entry = LogEntry(time=utc_now(), ref=0, status="uploading", message=message, **where, **scores)
    change_log(job.paths, lambda entries: [*entries, entry])
    print(f"uploading to {client.slug}", flush=True)
    try:
        ref = client.submit(file.path, message)
    except KaggleError as error:
        if error.arrived is False:
            change_log(job.paths, lambda entries: [one for one in entries if one != entry])
            raise
        ref = look_for(job, client, file, str(error))
    except KeyboardInterrupt:
        ref = 0
        print()
    ref = ref or look_for(job, client, file, "there was no answer")

    def with_ref(entries):
        return [replace(entry, ref=ref, status="pending") if one == entry else one for one in entries]

    change_log(job.paths, with_ref)
    print(f"handed in as {ref}: {message}", flush=True)
    return ref


def look_for(job: Job, client: KaggleClient, file: LocalFile, why: str) -> int:
    """The number of a submission whose answer was lost. Raises ValueError where it is not known whether it arrived."""
    again = f"Run: python src/submit.py --competition {job.competition_name} --sync"
    print("the answer was lost; looking whether it arrived", flush=True)
    try:
        entries = sync(job, client)
    except KaggleError as error:
        raise UserError(f"{why}. Whether it arrived is not known: {error}. {again}") from error
    found = [one.ref for one in entries if (one.competition, one.sha256) == (job.competition_name, file.sha256)]
    if not any(found):
        raise UserError(f"{why}. Kaggle does not list it. {again} in {ARRIVES_WITHIN_SECONDS // 60} minutes")
    return max(found)


def follow(job: Job, client: KaggleClient, ref: int) -> None:
    """Wait for the score and log it. Raises ValueError where Kaggle could not score the file."""
    one = wait_for_score(client, ref, job.own.wait, show_progress)
    if one is None:
        print(f"\nnot scored yet. Run: python src/submit.py --competition {job.competition_name} --sync\n")
        return
    bring_in(job.paths, job.competition_name, [one])
    if one.status == "error":
        reason = one.error_description or "no reason given"
        raise UserError(f"Kaggle could not score {one.file_name} (ref {ref}): {reason}. See its page of submissions")
    score = "none shown" if one.public_score is None else f"{one.public_score:g}"
    print(f"\npublic score: {score}\n")


def show_progress(line: str) -> None:
    """On a terminal in place, elsewhere line by line."""
    print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def show_table(job: Job) -> None:
    entries = [entry for entry in read_log(job.paths) if entry.competition == job.competition_name]
    scores = ("in_sample", "cross_fitted", "expected", "public_score", "private_score")
    rows = [(Path(entry.file).name, [getattr(entry, name) for name in scores]) for entry in entries]
    print("\n".join(comparison_lines(rows, any(entry.private_score is not None for entry in entries))))


def propose_finals(job: Job) -> None:
    """Print which submissions to be judged by: of those handed in, where there are enough."""
    name, count = job.competition_name, job.own.choose
    log = read_log(job.paths)
    scored = {one.sha256 for one in log if (one.competition, one.status) == (name, "complete")}
    described = [one for one in local_files(job.paths, name) if one.account]
    files = [one for one in described if one.account["metric"] == job.competition.metric]
    if not files:
        raise UserError(f"no submission of {name} has a scored record. Run: python src/blend.py --competition {name}")
    if len(files) < len(described):
        print(f"left out: {len(described) - len(files)} made for another metric than {job.competition.metric}")
    pool = [one for one in files if one.sha256 in scored]
    if len(pool) < count:
        print(f"{len(pool)} of the {len(files)} submissions here are handed in and scored: choosing from all of them")
        pool = files
    candidates = load_candidates(job, pool)
    greater = METRICS[job.competition.metric].greater_is_better
    finals, good = choose_finals(candidates, count, greater)
    print("\n".join(finals_lines(finals, good, len(candidates))))
    if len(finals) < count:
        print(f"no other good one answers otherwise: {len(finals)} proposed, not {count}")
    digests = {one.shown: one.sha256 for one in pool}
    for shown in (final.submission.name for final in finals):
        if digests[shown] not in scored:
            print(f"not handed in yet: python src/submit.py {shown}")


def load_candidates(job: Job, files: list[LocalFile]) -> list[ScoredSubmission]:
    """Answers and expected scores. Raises ValueError where a file does not fit the sample submission."""
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    candidates = []
    for one in files:
        expected = one.account["expected_fold_mean"]
        error = (expected["high"] - expected["low"]) / 2 / Z90
        answers = read_submission(one.path, job.competition, tables)
        candidates.append(ScoredSubmission(one.shown, expected["score"], error, answers))
    return candidates
