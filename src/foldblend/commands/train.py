"""Train folds of one run and write their out-of-fold predictions.

accelerate launch src/train.py --fold 3
accelerate launch src/train.py --competition goemotions --run tfidf --fold 0 1 2
"""

import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import prepare_folds, prepare_tables
from foldblend.commands.sources.more_rows import NO_MORE, MoreRows, build_teacher, guard_rows, read_more_rows
from foldblend.commands.sources.starts import (
    NO_ROWS,
    NO_SOURCES,
    Sources,
    export_encoder,
    open_sources,
    with_start_hash,
)
from foldblend.console import is_first_process, print_lines, say
from foldblend.data.tables import Tables
from foldblend.data.texts import clean_texts
from foldblend.errors import UserError
from foldblend.features import Features
from foldblend.files import describe_old, sha256_file
from foldblend.folding.draw import sample_rows
from foldblend.learners.processes.interruption import end_launcher_on_ctrl_c, follow_launcher
from foldblend.learners.table import Corpus, FoldRows, Learner, build_learner, learns_shares
from foldblend.learners.training.tracking import TrackedFold, TrackedHistory, check_tracker
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.dropped import load_soft_targets, with_file_hash
from foldblend.ledger.folds import Folds, parse_fold_numbers
from foldblend.ledger.history import FoldHistory, history_path
from foldblend.ledger.oof import (
    check_same_settings,
    find_trained,
    finished_folds,
    set_folds_aside,
    training_lock,
    write_fold,
)
from foldblend.ledger.records import describe_environment
from foldblend.predictions import FULL, fold_name
from foldblend.settings.loading import Job, find_tracker, open_job
from foldblend.settings.paths import Paths
from foldblend.settings.records import changed_settings, default_settings_of, flat_settings, settings_of
from foldblend.settings.sources import PretrainingSettings
from foldblend.settings.tables import LEARNERS
from foldblend.settings.yaml_files import check_name


def add_flags(parser) -> None:
    parser.add_argument("--fold", nargs="+", default=["all"], help="3, 0 1, 0,1, 0-2 or all; full: learn all rows")
    parser.add_argument("--overwrite", action="store_true", help="train again what is already trained")
    parser.add_argument(
        "--export", default="", choices=["", "encoder"], help="only write the trained encoder as a model"
    )
    parser.add_argument("--profile", action="store_true", help="only time some steps and print where the time goes")
    parser.add_argument("--plan", action="store_true", help="only time some steps and print hours, memory and price")
    parser.add_argument("--price_per_hour", type=float, default=0.0, help="of this machine, for --plan")
    parser.add_argument("--tracker", default="", help="tensorboard, wandb, mlflow, trackio or none; see default.yaml")
    parser.add_argument("--study", default="", help="train a trial of this study of tune.py, apart from the runs")
    parser.add_argument("--fidelity", type=float, default=1.0, help="with --study: share of the training rows")


def main(argv: list[str] | None = None) -> None:
    follow_launcher()
    end_launcher_on_ctrl_c()
    is_first = is_first_process()
    job = open_job("train.py", argv, add_flags, with_run=True, find_trained=find_trained)
    job = replace(job, paths=find_study(job))
    job.own.tracker = find_tracker(job.paths, job.own.tracker)
    check_tracker(job.own.tracker)
    say(describe_run(job))
    if job.own.export:
        export_encoder(job)
        return

    tables = prepare_tables(job)
    folds = prepare_folds(job, tables)
    run = with_start_hash(job, with_file_hash(job.run, job.paths.data(job.competition_name)))
    run, more = read_more_rows(job, run, tables, folds)
    job = replace(job, run=run)
    wanted = parse_fold_numbers(job.own.fold, folds.n_folds)
    refuse_selection(job, wanted)
    if job.own.profile or job.own.plan:
        measure_steps(job, wanted, folds, tables, is_first, guard_rows(job, tables, folds, more))
        return

    todo = choose_folds(job, wanted, folds, tables, is_first)
    if is_first:
        show_folds(wanted, todo)
        print_lines(describe_labels(job, tables))
    if not todo:
        return
    more = guard_rows(job, tables, folds, more)
    sources = open_sources(job, tables, folds, todo)
    say(*more.lines, *sources.lines)
    learner = load_learner(job, tables, sources, more)
    if is_first and (line := offer_fold_per_gpu(job, getattr(learner, "gpus_per_fold", 0), todo)):
        say(line)
    # a linear learner trains in the first process alone, and the others have nothing to do
    if is_first or learner.uses_all_processes:
        for fold in todo:
            train_one(job, learner, fold, folds, tables, sources, more, is_first)


def offer_fold_per_gpu(job: Job, n_gpus: int, todo: list[int]) -> str:
    """A sentence for a launch in which GPUs share every step, as a bare `accelerate launch` does; empty otherwise."""
    if n_gpus < 2:
        return ""
    wanted = f"--competition {job.competition_name} --runs {job.run_name} --fold {name_folds(todo).replace(',', '')}"
    one = "try one: accelerate launch --num_processes 1 src/train.py ..."
    several = f"a fold per GPU takes less time: python src/train_all.py {wanted}"
    return (
        f"{n_gpus} GPUs share every step of a fold (DDP) and wait for each other in each. If the model fits on one "
        f"GPU, {several if len(todo) > 1 else one}"
    )


def refuse_selection(job: Job, wanted: list[int]) -> None:
    """Raises: UserError: weights are to be chosen by held-out rows, and there are none."""
    selection = job.run.training.selection
    if FULL in wanted and "training" in LEARNERS[job.run.learner].reads and selection not in ("last", "average_last"):
        raise UserError(
            f"--fold full holds out no row, but training.selection {selection} chooses weights by held-out rows. Train "
            "the run's folds without full, or with --training.selection last"
        )


def find_study(job: Job) -> Paths:
    """Where folds are written: beside the runs, or in the folder of `--study`."""
    if not 0 < job.own.fidelity <= 1:
        raise UserError(f"--fidelity is {job.own.fidelity}; expected more than 0, at most 1")
    if job.own.fidelity < 1 and not job.own.study:
        raise UserError("--fidelity is for the trials of a study; give --study, too, or remove it")
    return replace(job.paths, study=check_name(job.own.study, "--study")) if job.own.study else job.paths


def describe_run(job: Job) -> str:
    """`competition sample, run minilm (encoder): training.epochs 3, ...`: what differs from the defaults."""
    changed = ", ".join(changed_settings(job.run)) or "every setting has its default"
    return f"competition {job.competition_name}, run {job.run_name} ({job.run.learner}): {changed}"


def choose_folds(job: Job, wanted: list[int], folds: Folds, tables: Tables, is_first: bool) -> list[int]:
    """Folds still to be trained; with --overwrite all wanted ones, once what was there is moved aside."""
    paths, competition, run = job.paths, job.competition_name, job.run_name
    removed = wanted if job.own.overwrite else []
    check_same_settings(paths, competition, run, settings_of(job.run), default_settings_of(job.run), removed)
    if not job.own.overwrite:
        done = finished_folds(paths, competition, run, folds, tables)
        return [fold for fold in wanted if fold not in done]
    if is_first:
        moved = set_folds_aside(paths, competition, run, wanted)
        if moved:
            say(f"--overwrite: {describe_old(paths.root, moved)}")
    return wanted


def show_folds(wanted: list[int], todo: list[int]) -> None:
    """Which of the wanted folds are trained now, and which were trained before."""
    skipped = [fold for fold in wanted if fold not in todo]
    if skipped:
        print(f"already trained: fold {name_folds(skipped)} (--overwrite trains again)", flush=True)
    if todo:
        print(f"to train: fold {name_folds(todo)}", flush=True)


def name_folds(numbers: list[int]) -> str:
    """`0, 1, full`, as `--fold` takes them."""
    return ", ".join(fold_name(fold).removeprefix("fold") for fold in numbers)


def describe_labels(job: Job, tables: Tables) -> list[str]:
    """What is unusual about what is learned: labels that are not, shares that the run cannot learn, unknown cells."""
    lines = tables.label_lines
    if tables.soft is not None and not learns_shares(job.run):
        lines.append(
            f"{job.run_name} cannot learn shares of annotators; it learns 1 from labels.positive_from on, else 0"
        )
    columns = ", ".join(job.competition.features.columns)
    if columns and not job.run.use_features:
        can_read = "use_features" in LEARNERS[job.run.learner].reads
        how = "use_features: true" if can_read else f"as a {job.run.learner} reads only text, text.columns and template"
        lines.append(f"{job.run_name} does not read the features {columns}. To read them: {how}")
    return lines


def load_learner(job: Job, tables: Tables, sources: Sources = NO_SOURCES, more: MoreRows = NO_MORE) -> Learner:
    """The run's learner over the competition's texts and extra rows, cleaned as the run says, and its soft targets."""
    if tables.scale is not None and not learns_shares(job.run):
        raise UserError(
            f"run {job.run_name} cannot learn the values of a regression; use loss.name auto, or another learner, as "
            "tfidf"
        )
    soft_targets = tables.soft if learns_shares(job.run) else None
    if job.run.loss.soft_targets:
        path = job.paths.data(job.competition_name) / job.run.loss.soft_targets
        soft_targets = load_soft_targets(path, tables, job.competition.task)
    corpus = Corpus(
        features=read_features(job, tables),
        texts=tuple(clean_texts([*tables.train_texts, *tables.test_texts, *more.texts], job.run.cleaning)),
        labels=tables.labels,
        label_names=tables.label_names,
        task=job.competition.task,
        metric=job.competition.metric,
        cache_dir=job.paths.tokens(job.competition_name),
        soft_targets=soft_targets,
        known=tables.known,
        metric_groups=tables.metric_groups,
        allowed=tables.of_learned(tables.allowed),
        scale=tables.scale,
        start=sources.start,
        sources=more.sources,
        teacher=build_teacher(job.run, more),
        pretrained_dir=job.paths.pretrained(job.competition_name),
        unlabelled=tuple(clean_texts(sources.unlabelled, job.run.cleaning)),
    )
    return build_learner(job.run, corpus)


def read_features(job: Job, tables: Tables) -> Features | None:
    """The columns beside the text of all texts; None if the run does not use them.

    Raises: UserError: the run wants some, and the competition has none.
    """
    if not job.run.use_features:
        return None
    if tables.train_features is None:
        raise UserError(
            f"use_features is on, but competition {job.competition_name} names no columns beside the text. Set "
            f"features: {{numbers: [...], categories: [...]}} in configs/competitions/{job.competition_name}.yaml, or "
            "--use_features false"
        )
    return tables.train_features.followed_by(tables.test_features)


def train_one(
    job: Job,
    learner: Learner,
    fold: int,
    folds: Folds,
    tables: Tables,
    sources: Sources,
    more: MoreRows,
    is_first: bool,
) -> None:
    """Train one fold and write its predictions; one launch at a time may train a fold."""
    lock = training_lock(job.paths, job.competition_name, job.run_name, fold)
    # the processes of one launch train one fold together: the first one holds the lock for all
    with lock if is_first else nullcontext():
        started = time.monotonic()
        history = open_history(job, fold)
        rows = split_rows(job, fold, folds, tables.labels, sources.left_out)
        predictions = learner.train_fold(replace(rows, history=history))
        if not is_first:
            return
        record = {
            "settings": settings_of(job.run),
            "score": predictions.score,
            "selected_on_heldout": predictions.selected_on_heldout,
            "truncation": predictions.truncation,
            **({"fidelity": job.own.fidelity} if job.own.fidelity < 1 else {}),
            "device": predictions.device,
            "n_parameters": predictions.n_parameters,
            "seconds": round(predictions.earlier_seconds + time.monotonic() - started, 1),
            "environment": describe_environment(Path(__file__).parent),
            **sources.record(fold, folds),
            **({"pretraining": predictions.pretraining} if predictions.pretraining else {}),
        }
        if more.sources:
            record["extra_rows"] = more.record(fold)
        weights = checkpoint_dir(job, fold) / WEIGHTS
        if weights.is_file():  # a learner of a plugin may keep none
            record["weights_sha256"] = sha256_file(weights)
        path = write_fold(job.paths, job.competition_name, job.run_name, folds, tables, predictions, record)
        if isinstance(history, TrackedHistory):
            history.finish(predictions.score)
    score = ", ".join(f"{name} {value:.4f}" for name, value in predictions.score.items())
    score = f"held-out {score}" if score else "no row held out"
    print(f"{path.relative_to(job.paths.root)}: {score}, {record['seconds']:.0f} s", flush=True)


def open_history(job: Job, fold: int) -> FoldHistory | TrackedHistory:
    """Where a fold notes how it trains: in oof/, and in the tracker if there is one."""
    history = FoldHistory(history_path(job.paths, job.competition_name, job.run_name, fold))
    if job.own.tracker == "none":
        return history
    name = f"{job.own.study}-{job.run_name}" if job.own.study else job.run_name
    tracked = TrackedFold(job.competition_name, name, fold, job.paths.tracking, checkpoint_dir(job, fold))
    return TrackedHistory(job.own.tracker, tracked, flat_settings(settings_of(job.run)), history)


def split_rows(job: Job, fold: int, folds: Folds, labels: np.ndarray, left_out: np.ndarray = NO_ROWS) -> FoldRows:
    """The rows that a fold learns from, all or the share of `--fidelity`, and those it holds out.

    Args: left_out: int64, rows that no fold learns from.
    """
    heldout = folds.fold == fold  # no row of the fold FULL
    taught = ~heldout
    taught[left_out] = False
    train = sample_rows(np.flatnonzero(taught), labels, job.own.fidelity, fold)
    return FoldRows(fold, train, np.flatnonzero(heldout), checkpoint_dir(job, fold))


def checkpoint_dir(job: Job, fold: int) -> Path:
    return job.paths.checkpoints(job.competition_name, job.run_name) / fold_name(fold)


def without_start(job: Job) -> Job:
    """The job from the pretrained weights as they are: whatever a fold starts from, its steps take as long."""
    model = replace(job.run.model, start_from="", start_sha256="")
    return replace(job, run=replace(job.run, model=model, pretraining=PretrainingSettings()))


def measure_steps(job: Job, wanted: list[int], folds: Folds, tables: Tables, is_first: bool, more: MoreRows) -> None:
    """Time some steps of the first fold; print where their time goes, or what all folds will take.

    Raises: UserError: the run's learner takes no steps.
    """
    learner = load_learner(without_start(job), tables, more=more)
    rows = split_rows(job, wanted[0], folds, tables.labels)
    done = finished_folds(job.paths, job.competition_name, job.run_name, folds, tables)
    left = [fold for fold in wanted if fold not in done]
    if not learner.uses_all_processes:
        if job.own.profile:
            raise UserError(f"--profile: {job.run.learner} takes no training steps; use --plan, or name an encoder")
        if is_first:
            plan_without_steps(learner, rows, tables.labels, len(left))
        return
    from foldblend.learners.training.profiling import profile_fold  # imports torch, which TF-IDF does without

    folder = job.paths.checkpoints(job.competition_name, job.run_name) / "profile" if job.own.profile else None
    measured = profile_fold(learner, rows, folder)
    if not is_first:
        return
    if job.own.profile:
        print(f"{measured.table()}\ntrace: {folder}")
    print(measured.plan(len(left), job.own.price_per_hour))


PLANNED_ROWS = 2_000
"""Training rows that a learner without steps is timed on."""


def plan_without_steps(learner: Learner, rows: FoldRows, labels: np.ndarray, n_folds: int) -> None:
    """Train a part of a fold, keep nothing of it, and print what all folds will take."""
    share = min(1.0, PLANNED_ROWS / len(rows.train))
    some = sample_rows(rows.train, labels, share, rows.fold)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        learner.train_fold(replace(rows, train=some, checkpoint_dir=Path(scratch)))
    seconds = (time.monotonic() - started) * len(rows.train) / len(some)
    print(f"a fold       about {seconds:.1f} s, by one with {len(some):,} of {len(rows.train):,} training rows")
    print(f"{n_folds} folds".ljust(13) + f"about {n_folds * seconds:.0f} s, one after the other")
