"""Train the folds of several runs on the GPUs or cores of this machine, or write the files for several machines.

python src/train_all.py
python src/train_all.py --competition goemotions --runs tfidf minilm --seed 42 1
python src/train_all.py --runs deberta-v3-base --write_slurm folds.sbatch --machines 4
"""

import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from foldblend.commands import PROJECT, start_words
from foldblend.commands.inputs import prepare_folds, prepare_tables
from foldblend.commands.sources.more_rows import read_more_rows
from foldblend.commands.sources.starts import with_start_hash
from foldblend.console import Screen, coloured, say, table_lines
from foldblend.cores import count_cores
from foldblend.data.tables import Tables
from foldblend.errors import UserError
from foldblend.files import check_outputs, describe_old, write_atomically
from foldblend.learners.table import needs_gpu
from foldblend.learners.training.tracking import check_tracker
from foldblend.ledger.dropped import with_file_hash
from foldblend.ledger.folds import Folds, parse_fold_numbers
from foldblend.ledger.oof import FOLD, check_same_settings, find_trained, finished_folds, run_folder, set_folds_aside
from foldblend.ledger.records import read_record
from foldblend.predictions import fold_name
from foldblend.queueing.machines import (
    describe_slots,
    find_gpus,
    plan_slots,
    skypilot_text,
    slurm_text,
    threads_per_slot,
)
from foldblend.queueing.queue import FoldJob, Queue, Ticket, take_part, without_flags
from foldblend.settings.loading import (
    Job,
    find_tracker,
    load_defaults,
    load_run,
    name_sibling,
    open_job,
    run_from_settings,
)
from foldblend.settings.records import default_settings_of, settings_of
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS
from foldblend.settings.yaml_files import check_name, list_configs, split_names

OWN = {"competition", "runs", "seed", "fold", "side_by_side", "attempts", "part", "write_slurm", "write_skypilot"}
OWN |= {"machines", "name", "overwrite"}
"""Flags of this command; all others are the competition's, and every training gets them, too."""


@dataclass(frozen=True)
class NamedRun:
    """A run under one seed, and the flags by which train.py knows it."""

    name: str
    """Its name in oof/."""
    flags: tuple[str, ...]
    settings: RunSettings


def add_flags(parser) -> None:
    parser.add_argument("--runs", nargs="+", default=None, help="files in configs/runs/; by default as in default.yaml")
    parser.add_argument("--seed", nargs="+", default=None, help="seeds to train each run with; by default its own")
    parser.add_argument("--fold", nargs="+", default=["all"], help="3, 0 1, 0,1, 0-2 or all; full: learn all rows")
    parser.add_argument("--name", default="", help="name of the run in oof/, if one run is trained with one seed")
    parser.add_argument("--overwrite", action="store_true", help="train again what is already trained")
    parser.add_argument("--side_by_side", type=int, default=0, help="trainings per GPU (1), or on all cores (one each)")
    parser.add_argument("--attempts", type=int, default=3, help="how often a training that crashes is started (3)")
    parser.add_argument("--tracker", default="", help="tensorboard, wandb, mlflow, trackio or none; see default.yaml")
    parser.add_argument("--part", default="", help="I/N: every N-th training from the I-th on, I from 0 to N-1")
    parser.add_argument("--write_slurm", default="", help="only write a batch file for sbatch here; with --machines")
    parser.add_argument("--write_skypilot", default="", help="only write a task for `sky launch` here; with --machines")
    parser.add_argument("--machines", type=int, default=0, help="how many machines share the list, for those files")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("train_all.py", argv, add_flags)
    check_flags(job)
    check_tracker(find_tracker(job.paths, job.own.tracker))
    runs = resolve_runs(job)
    print(f"competition {job.competition_name}: {', '.join(run.name for run in runs)}", flush=True)

    tables = prepare_tables(job)
    folds = prepare_folds(job, tables)
    jobs = list_jobs(job, runs, parse_fold_numbers(job.own.fold, folds.n_folds), argv)
    if job.own.machines:
        write_files(job, jobs, argv)
        return

    jobs = take_part(jobs, job.own.part)
    if job.own.overwrite:
        check_settings(job, runs, folds, tables)
        set_trained_aside(job, jobs)
    todo = choose_jobs(jobs, find_finished(job, runs, folds, tables))
    tickets, stopped_by = train(job, jobs, todo) if todo else ([], 0)
    show_table(job, jobs, tickets)
    if stopped_by:
        again = shlex.join(["python", "src/train_all.py", *without_flags(argv, {"overwrite"})])
        print(f"stopped; every training that ran is saved. To go on: {again}")
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
        raise UserError("--part is for one machine; the file for several machines gives each its own part")
    if writes and own.overwrite:
        raise UserError("--overwrite is for this machine; a file for several would remove what another one has trained")
    take_part([], own.part)  # refuses a part that is not I/N


def parse_seeds(given: list[str] | None) -> list[int]:
    """The seeds of `--seed`, separated by spaces or commas; none without it."""
    words = split_names(given) or []
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise UserError(f"--seed {' '.join(wrong)}: expected whole numbers, 0 or more")
    return [int(word) for word in words]


def resolve_runs(job: Job) -> list[NamedRun]:
    """The runs under each seed, in the order given."""
    runs, seeds = {}, parse_seeds(job.own.seed)
    for name in split_names(job.own.runs) or load_defaults(job.paths).runs:
        trained = find_trained(job.paths, job.competition_name, name)
        is_yaml = any(path.stem == name for path in list_configs(job.paths, "runs"))
        run = load_run(job.paths, name) if is_yaml or not trained else run_from_settings(trained[1], str(trained[0]))
        if job.own.overwrite and not is_yaml:  # its settings would be removed with its folds
            raise UserError(
                f"--overwrite: run {name} has no YAML in configs/runs/, its settings are in its folds alone. Run: "
                f"python src/train.py --competition {job.competition_name} --run {name} --fold all --overwrite"
            )
        if seeds and "seed" not in LEARNERS[run.learner].reads:
            raise UserError(f"--seed: run {name} is not random: its learner {run.learner} has no seed")
        for seed in seeds or [run.seed]:
            flags = ["--run", name, *(["--seed", str(seed)] if seed != run.seed else [])]
            sibling = name_sibling(name, seed, run.seed)
            runs[sibling] = NamedRun(sibling, tuple(flags), replace(run, seed=seed))
    if not job.own.name:
        return list(runs.values())
    if len(runs) > 1:
        raise UserError(f"--name {job.own.name} is for one run with one seed; there are {', '.join(runs)}")
    (run,) = runs.values()
    own = check_name(job.own.name, "--name")
    return [NamedRun(own, (*run.flags, "--name", own), run.settings)]


def set_trained_aside(job: Job, jobs: list[FoldJob]) -> None:
    """Move aside what `--overwrite` trains again, once and before anything starts: a training that crashes goes on."""
    folds: dict[str, list[int]] = {}
    for each in jobs:
        folds.setdefault(each.run, []).append(each.fold)
    moved = [path for run in folds for path in set_folds_aside(job.paths, job.competition_name, run, folds[run])]
    if moved:
        say(f"--overwrite: {describe_old(job.paths.root, moved)}")


def list_jobs(job: Job, runs: list[NamedRun], folds: list[int], argv: list[str]) -> list[FoldJob]:
    """Run by run, fold by fold."""
    shared, jobs = without_flags(argv, OWN), []
    for run in runs:
        for fold in folds:
            flags = [
                "--competition",
                job.competition_name,
                *run.flags,
                "--fold",
                fold_name(fold).removeprefix("fold"),
                *shared,
            ]
            jobs.append(
                FoldJob(
                    run=run.name,
                    fold=fold,
                    command=(*start_words("train"), *flags),
                    shown=shlex.join(["python", "src/train.py", *flags]),
                    log=job.paths.checkpoints(job.competition_name, run.name) / f"{fold_name(fold)}.log",
                    wants_gpu=needs_gpu(run.settings.learner),
                )
            )
    return jobs


def check_settings(job: Job, runs: list[NamedRun], folds: Folds, tables: Tables) -> None:
    """Raises UserError if train.py would refuse to add folds to a run, but for those that it trains again."""
    forgotten = parse_fold_numbers(job.own.fold, folds.n_folds) if job.own.overwrite else []
    for run in runs:
        settings = with_start_hash(job, with_file_hash(run.settings, job.paths.data(job.competition_name)))
        settings = read_more_rows(job, settings, tables, folds)[0]
        now, default = settings_of(settings), default_settings_of(settings)
        check_same_settings(job.paths, job.competition_name, run.name, now, default, forgotten)


def find_finished(job: Job, runs: list[NamedRun], folds: Folds, tables: Tables) -> set[tuple[str, int]]:
    """(run, fold) of what is already trained. Raises UserError if train.py would: before any training starts."""
    check_settings(job, runs, folds, tables)
    done = set()
    for run in runs:
        finished = finished_folds(job.paths, job.competition_name, run.name, folds, tables)
        done |= {(run.name, fold) for fold in finished}
    return done


def choose_jobs(jobs: list[FoldJob], finished: set[tuple[str, int]]) -> list[FoldJob]:
    """The jobs still to be done, and a line for the others."""
    skipped = [each.name for each in jobs if (each.run, each.fold) in finished]
    if skipped:
        print(f"already trained: {', '.join(skipped)}")
    todo = [each for each in jobs if (each.run, each.fold) not in finished]
    print(f"{len(todo)} of {len(jobs)} folds to train", flush=True)
    return todo


def train(job: Job, jobs: list[FoldJob], todo: list[FoldJob]) -> tuple[list[Ticket], int]:
    """Run what is to be done; how each job ended, and the signal that stopped them."""
    cores = count_cores()
    slots = plan_slots([each.wants_gpu for each in jobs], find_gpus(), job.own.side_by_side, cores)
    threads = threads_per_slot(cores, slots)
    print(describe_slots(slots, threads), flush=True)
    queue = Queue(todo, slots, threads, job.own.attempts, Screen())
    stopped_by = queue.run()
    return queue.tickets, stopped_by


def write_files(job: Job, jobs: list[FoldJob], argv: list[str]) -> None:
    """The files for a cluster; nothing is trained."""
    own, paths, name = job.own, job.paths, job.competition_name
    outputs = {"--write_slurm": own.write_slurm, "--write_skypilot": own.write_skypilot}
    check_outputs(outputs, {}, [*paths.kept, PROJECT / "src"])
    given = without_flags(argv, {"competition", "runs", "write_slurm", "write_skypilot", "machines"})
    runs = split_names(own.runs) or load_defaults(paths).runs
    flags = ["--competition", name, "--runs", *runs, *given]
    shared = {"competition": name, "machines": own.machines, "wants_gpu": any(each.wants_gpu for each in jobs)}
    if own.write_slurm:
        command = [sys.executable, "src/train_all.py", *flags]
        root = os.environ.get("FOLDBLEND_ROOT", "")
        text = slurm_text(own.write_slurm, command=command, project=PROJECT, root=root, **shared)
        write_atomically(Path(own.write_slurm), text.encode())
        print(f"{own.write_slurm}: check its first lines, then run: sbatch {shlex.quote(own.write_slurm)}")
    if own.write_skypilot:
        command = [".venv/bin/python", "src/train_all.py", *flags]
        folders = [f"data/{name}", f"oof/{name}", *(["configs", "folds"] if paths.root != PROJECT else [])]
        mounts = {each: str(paths.root / each) for each in folders if (paths.root / each).is_dir()}
        text = skypilot_text(own.write_skypilot, command=command, mounts=mounts, **shared)
        write_atomically(Path(own.write_skypilot), text.encode())
        print(f"{own.write_skypilot}: check it, then run: sky launch -c foldblend {shlex.quote(own.write_skypilot)}")


def show_table(job: Job, jobs: list[FoldJob], tickets: list[Ticket]) -> None:
    """Run, fold, held-out score and seconds as recorded, and how often each was started now."""
    now = {(ticket.job.run, ticket.job.fold): ticket for ticket in tickets}
    rows, is_bad = [("run", "fold", "held-out", "seconds", "attempts")], [False]
    for each in jobs:
        ticket, number = now.get((each.run, each.fold)), fold_name(each.fold).removeprefix("fold")
        attempts = str(ticket.attempts if ticket else 0)
        is_bad.append(ticket is not None and ticket.state in ("failed", "refused", "dropped"))
        if ticket is None or ticket.state == "done":
            path = run_folder(job.paths, job.competition_name, each.run) / f"{fold_name(each.fold)}.json"
            record = read_record(path, FOLD)
            score = ", ".join(f"{metric} {value:.4f}" for metric, value in record.get("score", {}).items())
            rows.append((each.run, number, score or "none", f"{record.get('seconds', 0):.0f}", attempts))
        else:
            rows.append((each.run, number, ticket.state, "", attempts))
    lines = [coloured(line, "red") if bad else line for line, bad in zip(table_lines(rows), is_bad)]
    print("\n".join(["", *lines]), flush=True)
