"""Door: train folds of one run and write their out-of-fold predictions.

accelerate launch src/train.py --fold 3
accelerate launch src/train.py --competition goemotions --run tfidf --fold 0 1 2
"""

import json
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from foldblend.data.cleaning import clean_texts
from foldblend.data.fetch import ensure_data
from foldblend.data.tables import Tables, load_tables
from foldblend.errors import UserError
from foldblend.files import hold_lock
from foldblend.folding.draw import draw_folds
from foldblend.learners.processes.interruption import follow_launcher
from foldblend.learners.table import Corpus, FoldRows, build_learner
from foldblend.ledger.dropped import load_soft_targets, with_file_hash
from foldblend.ledger.folds import Folds, ensure_folds, parse_fold_numbers
from foldblend.ledger.oof import check_same_settings, finished_folds, remove_folds, write_fold
from foldblend.ledger.records import describe_environment
from foldblend.settings.loading import Job, default_settings_of, open_job, settings_of


def add_flags(parser) -> None:
    parser.add_argument("--fold", nargs="+", default=["all"], help="one or several of 0..n_folds-1, or `all`")
    parser.add_argument("--overwrite", action="store_true", help="train anew what is there")
    parser.add_argument("--profile", action="store_true", help="only say where the time of the first fold goes")
    parser.add_argument("--plan", action="store_true", help="only say what the folds will take: hours, memory, money")
    parser.add_argument("--price_per_hour", type=float, default=0.0, help="of this machine, for --plan")


def main(argv: list[str] | None = None) -> None:
    follow_launcher()
    is_first = os.environ.get("RANK", "0") == "0"  # set by the launcher in every process of a launch
    job = open_job("train.py", argv, add_flags, with_run=True)
    tables, folds = prepare(job)
    job = replace(job, run=with_file_hash(job.run, job.paths.data(job.competition_name)))
    wanted = parse_fold_numbers(job.own.fold, folds.n_folds)
    if job.own.profile or job.own.plan:
        foresee(job, wanted, folds, tables, is_first)
        return
    todo = choose_folds(job, wanted, folds, tables, is_first)
    if is_first:
        show_plan(job, wanted, todo)
    if not todo:
        return
    learner = load_learner(job, tables)
    if is_first or learner.uses_all_processes:
        for fold in todo:
            train_one(job, learner, fold, folds, tables, is_first)


def prepare(job: Job) -> tuple[Tables, Folds]:
    """The competition's tables and folds; the first of several processes fetches and draws what is not there."""
    data_dir = job.paths.data(job.competition_name)
    with hold_lock(data_dir.with_name(f".{job.competition_name}.lock")):
        for line in ensure_data(job.competition_name, job.competition, job.paths):
            print(line)
    tables = load_tables(job.competition, data_dir)
    return tables, ensure_folds(job.paths, job.competition_name, job.competition, tables, draw_folds)


def load_learner(job: Job, tables: Tables):
    """The run's learner over the competition's texts, cleaned as the run says, and its soft targets if it has any."""
    texts = tuple(clean_texts([*tables.train_texts, *tables.test_texts], job.run.cleaning))
    cache_dir = job.paths.tokens(job.competition_name)
    soft = None
    if job.run.loss.soft_targets:
        path = job.paths.data(job.competition_name) / job.run.loss.soft_targets
        soft = load_soft_targets(path, tables, job.competition.task)
    of_competition = {"task": job.competition.task, "metric": job.competition.metric}
    beside = {"cache_dir": cache_dir, "soft_targets": soft}
    return build_learner(job.run, Corpus(texts, tables.labels, tables.label_names, **of_competition, **beside))


def choose_folds(job: Job, wanted: list[int], folds: Folds, tables: Tables, is_first: bool) -> list[int]:
    """Folds still to be trained; with --overwrite all wanted ones, after forgetting what is there."""
    at = (job.paths, job.competition_name, job.run_name)
    forgotten = wanted if job.own.overwrite else []
    check_same_settings(*at, settings_of(job.run), default_settings_of(job.run), forgotten)
    if not job.own.overwrite:
        done = finished_folds(*at, folds, tables)
        return [fold for fold in wanted if fold not in done]
    if is_first:
        remove_folds(*at, wanted)
        for folder in (checkpoint_dir(job, fold) for fold in wanted):
            if folder.exists():
                shutil.rmtree(folder)
    return wanted


def checkpoint_dir(job: Job, fold: int) -> Path:
    return job.paths.checkpoints(job.competition_name, job.run_name) / f"fold{fold}"


def show_plan(job: Job, wanted: list[int], todo: list[int]) -> None:
    """The resolved settings and what will be done with them."""
    print(f"competition {job.competition_name}, run {job.run_name}: {json.dumps(settings_of(job.run))}")
    skipped = [fold for fold in wanted if fold not in todo]
    if skipped:
        print(f"already trained: fold {', '.join(map(str, skipped))} (--overwrite trains anew)")
    if todo:
        print(f"to train: fold {', '.join(map(str, todo))}", flush=True)


def foresee(job: Job, wanted: list[int], folds: Folds, tables: Tables, is_first: bool) -> None:
    """Time some steps and show what is to come. Raises ValueError: the run's learner takes no steps."""
    learner, own = load_learner(job, tables), job.own
    if not learner.uses_all_processes:
        raise UserError(f"--profile, --plan: {job.run.learner} takes no training steps; name an encoder or a decoder")
    from foldblend.learners.training.profiling import profile_fold  # imports torch, which other runs do without

    folder = job.paths.checkpoints(job.competition_name, job.run_name) / "profile" if own.profile else None
    shares = profile_fold(learner, rows_of(job, wanted[0], folds), folder)
    if is_first and own.profile:
        print(f"{shares.table()}\ntrace: {folder}")
    if is_first:
        done = finished_folds(job.paths, job.competition_name, job.run_name, folds, tables)
        print(shares.plan(len([fold for fold in wanted if fold not in done]), own.price_per_hour))


def rows_of(job: Job, fold: int, folds: Folds) -> FoldRows:
    heldout = folds.fold == fold
    return FoldRows(fold, np.flatnonzero(~heldout), np.flatnonzero(heldout), checkpoint_dir(job, fold))


def train_one(job: Job, learner, fold: int, folds: Folds, tables: Tables, is_first: bool) -> None:
    """Train one fold and hand its predictions to the ledger; one process at a time may work on a fold."""
    folder = checkpoint_dir(job, fold)
    busy = f"{folder}: another process trains this fold now; wait for it, or train another fold"
    with hold_lock(folder.with_name(f".fold{fold}.lock"), busy) if is_first else nullcontext():
        started = time.monotonic()
        rows = rows_of(job, fold, folds)
        predictions = learner.train_fold(rows)
        if not is_first:
            return
        record = {
            "settings": settings_of(job.run),
            "score": predictions.score,
            "selected_on_heldout": predictions.selected_on_heldout,
            "device": predictions.device,
            "seconds": round(time.monotonic() - started, 1),
            "environment": describe_environment(Path(__file__).parent),
        }
        path = write_fold(job.paths, job.competition_name, job.run_name, folds, tables, predictions, record)
    score = ", ".join(f"{name} {value:.4f}" for name, value in predictions.score.items())
    print(f"{path.relative_to(job.paths.root)}: held-out {score}, {record['seconds']:.0f} s", flush=True)
