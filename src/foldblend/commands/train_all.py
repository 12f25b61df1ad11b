"""Door: train the folds of several runs over the GPUs or cores of this machine, or write the files for several.

python src/train_all.py
python src/train_all.py --competition goemotions --runs tfidf minilm --seed 42 1
python src/train_all.py --runs deberta-v3-base --write_slurm folds.sbatch --machines 4
"""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from foldblend.cores import count_cores
from foldblend.data.fetch import ensure_data
from foldblend.data.tables import Tables, load_tables
from foldblend.errors import UserError
from foldblend.files import hold_lock, write_atomically
from foldblend.folding.draw import draw_folds
from foldblend.learners.table import needs_gpu
from foldblend.ledger.dropped import with_file_hash
from foldblend.ledger.folds import Folds, ensure_folds, parse_fold_numbers
from foldblend.ledger.oof import check_same_settings, finished_folds, run_folder
from foldblend.ledger.records import read_record
from foldblend.queueing.clusters import skypilot_text, slurm_text
from foldblend.queueing.queue import FoldJob, Queue, Ticket, take_part, without_flags
from foldblend.queueing.screen import Screen, table_lines
from foldblend.queueing.slots import find_gpus, plan_slots
from foldblend.settings.loading import (
    Job,
    default_settings_of,
    load_defaults,
    load_run,
    name_sibling,
    open_job,
    settings_of,
)
from foldblend.settings.run import READ_BY, RunSettings

OWN = {"competition", "runs", "seed", "fold", "side_by_side", "attempts", "part", "write_slurm", "write_skypilot"}
OWN |= {"machines"}
"""Flags that mean this door; the others are of the competition, and every training is given them too."""
PROJECT = Path(__file__).resolve().parents[3]


def add_flags(parser) -> None:
    parser.add_argument("--runs", nargs="+", default=None, help="files in configs/runs/; by default as in default.yaml")
    parser.add_argument("--seed", nargs="+", type=int, default=None, help="seeds each run is trained with; its own")
    parser.add_argument("--fold", nargs="+", default=["all"], help="one or several of 0..n_folds-1, or `all`")
    parser.add_argument("--side_by_side", type=int, default=0, help="trainings a GPU (1), or on all cores (one a core)")
    parser.add_argument("--attempts", type=int, default=3, help="starts of a training that dies, before it has failed")
    parser.add_argument("--part", default="", help="I/N: every N-th training from the I-th on, I from 0 to N-1")
    parser.add_argument("--write_slurm", default="", help="only write a batch file for sbatch here; with --machines")
    parser.add_argument("--write_skypilot", default="", help="only write a task for `sky launch` here; with --machines")
    parser.add_argument("--machines", type=int, default=0, help="how many machines share the list, for those files")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("train_all.py", argv, add_flags)
    check_flags(job)
    runs = resolve_runs(job)
    tables, folds = prepare(job)
    jobs = list_jobs(job, runs, parse_fold_numbers(job.own.fold, folds.n_folds), argv)
    if job.own.machines:
        write_files(job, jobs, argv)
        return
    jobs = take_part(jobs, job.own.part)
    todo = choose_jobs(job, jobs, find_finished(job, runs, folds, tables))
    tickets, stopped_by = train(job, jobs, todo) if todo else ([], 0)
    show_table(job, jobs, tickets)
    if stopped_by:
        print(f"stopped; this goes on from what was saved: {shlex.join(['python', 'src/train_all.py', *argv])}")
        sys.exit(128 + stopped_by)
    if any(ticket.state != "done" for ticket in tickets):
        sys.exit(1)


def check_flags(job: Job) -> None:
    """Refuse flags that contradict each other."""
    own = job.own
    writes = bool(own.write_slurm or own.write_skypilot)
    if own.side_by_side < 0 or own.attempts < 1 or own.machines < 0:
        raise UserError("expected --side_by_side and --machines from 0, --attempts from 1")
    if writes != bool(own.machines):
        raise UserError("--machines N and --write_slurm FILE or --write_skypilot FILE go together")
    if writes and own.part:
        raise UserError("--part is one machine's; a file for several gives each of them its own")
    take_part([], own.part)


def resolve_runs(job: Job) -> dict[str, tuple[list[str], RunSettings]]:
    """Name in oof/ -> the flags that mean the run to train.py, and its settings; in the order given."""
    runs = {}
    for name in job.own.runs or load_defaults(job.paths).runs:
        run = load_run(job.paths, name)
        if job.own.seed and "seed" not in READ_BY[run.learner]:
            raise UserError(f"--seed: run {name} draws nothing, its learner {run.learner} has no seed; leave it out")
        for seed in job.own.seed or [run.seed]:
            flags = ["--run", name, *(["--seed", str(seed)] if seed != run.seed else [])]
            runs[name_sibling(name, seed, run.seed)] = (flags, replace(run, seed=seed))
    return runs


def prepare(job: Job) -> tuple[Tables, Folds]:
    """The competition's tables and folds, fetched and drawn here once rather than by every training."""
    data_dir = job.paths.data(job.competition_name)
    with hold_lock(data_dir.with_name(f".{job.competition_name}.lock")):
        for line in ensure_data(job.competition_name, job.competition, job.paths):
            print(line)
    tables = load_tables(job.competition, data_dir)
    return tables, ensure_folds(job.paths, job.competition_name, job.competition, tables, draw_folds)


def list_jobs(job: Job, runs: dict, folds: list[int], argv: list[str]) -> list[FoldJob]:
    """Run by run, fold by fold."""
    shared, jobs = without_flags(argv, OWN), []
    for name, (flags, run) in runs.items():
        for fold in folds:
            words = ["src/train.py", "--competition", job.competition_name, *flags, "--fold", str(fold), *shared]
            command = (sys.executable, str(PROJECT / words[0]), *words[1:])
            log = job.paths.checkpoints(job.competition_name, name) / f"fold{fold}.log"
            jobs.append(FoldJob(name, fold, command, shlex.join(["python", *words]), log, needs_gpu(run.learner)))
    return jobs


def find_finished(job: Job, runs: dict, folds: Folds, tables: Tables) -> set[tuple[str, int]]:
    """(run, fold) of what needs no training. Raises ValueError where train.py would: before any training starts."""
    done = set()
    for name, (_, run) in runs.items():
        at = (job.paths, job.competition_name, name)
        run = with_file_hash(run, job.paths.data(job.competition_name))
        check_same_settings(*at, settings_of(run), default_settings_of(run))
        done |= {(name, fold) for fold in finished_folds(*at, folds, tables)}
    return done


def choose_jobs(job: Job, jobs: list[FoldJob], finished: set[tuple[str, int]]) -> list[FoldJob]:
    """The jobs still to be done, and a line for the others."""
    skipped = [each.name for each in jobs if (each.run, each.fold) in finished]
    if skipped:
        print(f"already trained: {', '.join(skipped)}")
    todo = [each for each in jobs if (each.run, each.fold) not in finished]
    print(f"competition {job.competition_name}: {len(todo)} of {len(jobs)} folds to train", flush=True)
    return todo


def train(job: Job, jobs: list[FoldJob], todo: list[FoldJob]) -> tuple[list[Ticket], int]:
    """Run what is to be done; how each job ended, and the signal that stopped them."""
    cores = count_cores()
    slots = plan_slots([each.wants_gpu for each in jobs], find_gpus(), job.own.side_by_side, cores)
    threads = max(1, cores // len(slots))
    gpus = sorted({slot.gpu for slot in slots if slot.gpu})
    where = f"GPU {', '.join(gpus)}" if gpus else "the CPU"
    print(f"{len(slots)} side by side on {where}, threads each: {threads}", flush=True)
    queue = Queue(todo, slots, threads, job.own.attempts, Screen())
    stopped_by = queue.run()
    return queue.tickets, stopped_by


def write_files(job: Job, jobs: list[FoldJob], argv: list[str]) -> None:
    """The files for a cluster; nothing is trained."""
    own, paths, name = job.own, job.paths, job.competition_name
    given = without_flags(argv, {"competition", "runs", "write_slurm", "write_skypilot", "machines"})
    runs = own.runs or load_defaults(paths).runs
    flags = ["src/train_all.py", "--competition", name, "--runs", *runs, *given]
    wants_gpu = any(each.wants_gpu for each in jobs)
    if own.write_slurm:
        root = os.environ.get("FOLDBLEND_ROOT", "")
        at = (own.write_slurm, name, [sys.executable, *flags], own.machines, wants_gpu, PROJECT, root)
        write_atomically(Path(own.write_slurm), slurm_text(*at).encode())
        print(f"{own.write_slurm}: look over its head, then: sbatch {shlex.quote(own.write_slurm)}")
    if own.write_skypilot:
        folders = [f"data/{name}", f"oof/{name}", *(["configs", "folds"] if paths.root != PROJECT else [])]
        mounts = {each: str(paths.root / each) for each in folders if (paths.root / each).is_dir()}
        at = (own.write_skypilot, name, [".venv/bin/python", *flags], own.machines, wants_gpu, mounts)
        write_atomically(Path(own.write_skypilot), skypilot_text(*at).encode())
        print(f"{own.write_skypilot}: look it over, then: sky launch -c foldblend {shlex.quote(own.write_skypilot)}")


def show_table(job: Job, jobs: list[FoldJob], tickets: list[Ticket]) -> None:
    """Run, fold, held-out score and seconds as the ledger has them, and how often each was started now."""
    attempts = {(ticket.job.run, ticket.job.fold): ticket for ticket in tickets}
    rows = [("run", "fold", "held-out", "seconds", "attempts")]
    for each in jobs:
        ticket = attempts.get((each.run, each.fold))
        path = run_folder(job.paths, job.competition_name, each.run) / f"fold{each.fold}.json"
        if ticket is None or ticket.state == "done":
            record = read_record(path)
            score = ", ".join(f"{metric} {value:.4f}" for metric, value in record["score"].items())
            rows.append(
                (each.run, str(each.fold), score, f"{record['seconds']:.0f}", str(ticket.attempts if ticket else 0))
            )
        else:
            rows.append((each.run, str(each.fold), ticket.state, "", str(ticket.attempts)))
    print("\n".join(["", *table_lines(rows)]), flush=True)
