"""Labels from a teacher, for runs that read them as extra rows: our own blend, or a large language model.

python src/teach.py --from-blend                                 # pseudo-labels of the test rows
python src/teach.py --from-blend blend-1a2b3c4d --rows train     # soft labels of the training rows
python src/teach.py --teacher openai --rows train --limit 200    # how well does it agree with the true labels?
python src/teach.py --teacher openai --rows unlabelled.csv
python src/teach.py --teacher openai --write new --for_labels grief pride --count 50
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import RowsToTeach, gather_rows, predict_trained
from foldblend.commands.language_model import (
    Lesson,
    find_wanted,
    label_by_model,
    limit_rows,
    paraphrase_by_model,
    show_agreement,
    write_by_model,
)
from foldblend.console import print_lines, say, table_lines, warn
from foldblend.data.tables import Tables, load_tables
from foldblend.data.taught import TaughtRows, write_taught
from foldblend.errors import UserError
from foldblend.files import describe_old, set_aside, sha256_file
from foldblend.ledger.folds import load_folds
from foldblend.ledger.records import read_record
from foldblend.ledger.runs import (
    BLEND,
    RunPredictions,
    check_same_inputs,
    check_same_questions,
    find_blend,
    input_hashes,
    load_runs,
    load_trained_runs,
)
from foldblend.scoring.blending import check_strategy, fit_without_folds, keep_most_certain, teach_without_folds
from foldblend.scoring.inputs import Task, TestScores, put_side_by_side, rows_to_score, score_known, to_probs
from foldblend.settings.fields import walk_settings
from foldblend.settings.loading import Job, load_teacher, open_job
from foldblend.settings.records import relative_folder
from foldblend.settings.teacher import TeacherSettings
from foldblend.settings.yaml_files import check_name
from foldblend.teaching.questions import LabelList

NEWEST = "the newest"
"""What `--from-blend` without a name means."""
TEACHER_FLAGS = [name for name, _, _ in walk_settings(TeacherSettings)]


def add_flags(parser) -> None:
    parser.add_argument(
        "--from-blend", "--from_blend", nargs="?", default="", const=NEWEST,
        help="a blend teaches: its .json or its name; the newest by default",
    )  # fmt: skip
    parser.add_argument("--teacher", default="", help="a language model teaches: its file in configs/teachers/")
    parser.add_argument("--local", default="", help="a model on this machine teaches: its name or folder")
    parser.add_argument("--rows", default="test", help="rows to label: test, train, or a file with texts")
    parser.add_argument("--limit", type=int, default=0, help="label this many of the rows, drawn at random")
    parser.add_argument(
        "--name", default="", help="name of the .npz in data/<competition>/; made from the flags above by default"
    )
    parser.add_argument("--keep", type=float, default=1.0, help="share of each label's most certain rows that is kept")
    parser.add_argument(
        "--strategy", default="", help="with --from-blend: the strategy that joins the runs; the blend's own by default"
    )
    parser.add_argument("--write", default="", choices=["", "new", "paraphrases"], help="let the teacher write texts")
    parser.add_argument("--for_labels", nargs="+", default=[], help="with --write: for these labels")
    parser.add_argument(
        "--count", type=int, default=0, help="with --write: texts per label (20), or per training row (1)"
    )
    parser.add_argument("--yes", action="store_true", help="ask the teacher whatever it costs")
    parser.add_argument("--retry_failed", action="store_true", help="ask again what was refused or cut off")
    for name in TEACHER_FLAGS:
        parser.add_argument(f"--{name}", default=None, help="a setting of the teacher, instead of its YAML's")


def main(argv: list[str] | None = None) -> None:
    job = open_job("teach.py", sys.argv[1:] if argv is None else argv, add_flags)
    print(f"competition {job.competition_name}: teach", flush=True)
    check_flags(job)
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    warn(*tables.notes)
    if tables.scale is not None and (job.own.keep < 1 or not job.own.from_blend):
        what = "--keep is" if job.own.from_blend else "a language model gives answers"
        raise UserError(f"{what} for labels, and this competition has values. Only --from-blend labels its rows")
    teach = teach_from_blend if job.own.from_blend else teach_locally if job.own.local else teach_by_model
    print_end(job, teach(job, tables))


def check_flags(job: Job) -> None:
    """Raises: UserError: no teacher or several, or flags that do not go together."""
    own = job.own
    named = [
        flag
        for flag, given in (("--from-blend", own.from_blend), ("--teacher", own.teacher), ("--local", own.local))
        if given
    ]
    if len(named) != 1:
        found = " and ".join(named) or "no teacher"
        raise UserError(f"src/teach.py: {found} named; expected one of --from-blend, --teacher NAME, --local MODEL")
    if not 0 < own.keep <= 1:
        raise UserError(f"--keep is {own.keep:g}; expected a share of the rows, more than 0 and at most 1")
    for flag in ("limit", "count"):
        if getattr(own, flag) < 0:
            raise UserError(f"--{flag} is {getattr(own, flag)}; expected 1 or more")
    of_teacher = [name for name in (*TEACHER_FLAGS, "write", "yes", "retry_failed") if getattr(own, name)]
    if of_teacher and not own.teacher:
        raise UserError(f"--{of_teacher[0]} belongs to --teacher NAME. Add it, or remove --{of_teacher[0]}")
    if own.from_blend and own.limit:
        raise UserError("--limit is for language models; a blend labels all rows. Remove it")
    if own.strategy and not own.from_blend:
        raise UserError("--strategy belongs to --from-blend. Add it, or remove --strategy")
    if (own.for_labels or own.count) and not own.write:
        raise UserError("--for_labels and --count belong to --write. Add --write new or paraphrases, or remove them")


# ---------- Our own blend as the teacher


def teach_from_blend(job: Job, tables: Tables) -> Path:
    """Label the rows by models that never saw a fold, one set of labels per fold, and write them."""
    named = "" if job.own.from_blend == NEWEST else job.own.from_blend
    source = find_blend(job.paths, job.competition_name, named)
    record = read_record(source, BLEND)
    check_same_questions(source, record, job.competition_name, asdict(job.competition))
    folds = load_folds(job.paths, job.competition_name, tables, job.competition)
    task = Task(job.competition.metric, job.competition.task, scale=tables.scale)
    predictions = load_runs(job.paths, job.competition_name, record["runs"], folds, tables)
    check_same_inputs(source, record, input_hashes(folds, predictions))
    refuse_runs_that_know(predictions, job.competition_name)
    rows = gather_rows(job, tables, job.own.rows)
    print(f"{source.name}: {len(rows.texts):,} {rows.kind} rows, runs {', '.join(record['runs'])}", flush=True)

    runs = put_side_by_side(rows_to_score(tables, folds), predictions, task)
    runs = runs if tables.known is None else score_known(runs, tables.known, task)
    forced = job.own.strategy or record["settings"].get("strategy", "")
    check_strategy(forced, runs.names, task, len(tables.label_names))
    teachers = fit_without_folds(task, runs, folds.n_folds, forced, record["settings"].get("seed", 0))
    scores = [
        TestScores(each, run.kind, task, rows.allowed) for run, each in score_rows(job, record, predictions, rows)
    ]
    probs = teach_without_folds(teachers, scores, task.kind)
    if rows.kind == "train":
        probs[folds.fold[None, :] == np.arange(folds.n_folds)[:, None]] = np.nan  # a fold learns from the others' rows
    kept = keep_most_certain(probs, job.own.keep, task.kind)
    print_lines(describe_labels(tables, kept, probs))
    made_by = {
        "blend": source.name,
        "inputs": record["inputs"],
        "strategies": [teacher.strategy for teacher in teachers],
        "keep": job.own.keep,
    }
    taught = TaughtRows(
        rows.kind, rows.ids, rows.texts, tables.label_names, kept, np.ones((1, len(rows.ids)), np.float32),
        folds.sha256, made_by, rows.contents,
    )  # fmt: skip
    return write_rows(job, taught, f"{source.stem}-{rows_name(job)}")


def refuse_runs_that_know(runs: Sequence[RunPredictions], competition_name: str) -> None:
    """Raises: UserError: runs whose model of a fold knows something of the rows that the fold holds out."""
    elsewhere = [run.name for run in runs if not run.records]
    chosen = [run.name for run in runs if any(record.get("selected_on_heldout") for record in run.records)]
    if not (elsewhere or chosen):
        return
    others = " ".join(run.name for run in runs if run.name not in (*elsewhere, *chosen)) or "RUN"
    found = []
    if elsewhere:
        found.append(f"made elsewhere, so it is not known which model saw which row: {', '.join(elsewhere)}")
    if chosen:
        found.append(f"weights chosen by the held-out rows' scores (training.selection): {', '.join(chosen)}")
    raise UserError(
        f"runs that may know what a fold holds out cannot teach. {'; '.join(found)}. Blend the others: python "
        f"src/blend.py --competition {competition_name} --runs {others}"
    )


def score_rows(job: Job, record: dict, predictions: Sequence[RunPredictions], rows: RowsToTeach):
    """Each run, and its K tables float32 (n, L) of the rows, table k by the model of fold k.

    The test rows' are in oof/; others are predicted now. A model of all rows, which comes last, knows every fold and
    does not speak.
    """
    n_folds = [len(run.records) for run in predictions]
    if rows.kind == "test":
        yield from ((run, [run.test_folds[k] for k in range(n)]) for run, n in zip(predictions, n_folds, strict=True))
        return
    from foldblend.learners.trained import check_folds
    from foldblend.learners.training.weights import WEIGHTS

    trained = load_trained_runs(job.paths, record, [run.name for run in predictions], WEIGHTS)
    trained = [replace(each, checkpoints=each.checkpoints[:n]) for each, n in zip(trained, n_folds, strict=True)]
    for each in trained:
        check_folds(each.settings, each.fold, each.checkpoints, each.weights_sha256, each.left_out)
    for run, each in zip(predictions, trained, strict=True):
        yield run, predict_trained(job, each, rows.texts, rows.features)


# ---------- A large language model as the teacher


def teach_by_model(job: Job, tables: Tables) -> Path:
    """Let a model behind a server label the rows, or write texts."""
    own, names = job.own, tables.label_names
    flags = {name: getattr(own, name) for name in TEACHER_FLAGS if getattr(own, name) is not None}
    settings = load_teacher(job.paths, own.teacher, flags)
    if job.competition.task == "multiclass":
        settings = replace(settings, min_labels=1, max_labels=1)
    stem = own.name or f"{own.teacher}-{own.write or rows_name(job)}"
    log = job.paths.data(job.competition_name) / f"{check_name(stem, '--name').removesuffix('.npz')}.answers.jsonl"
    defined = job.competition.labels.definitions
    labels = LabelList(names, {name: defined[name] for name in names if name in defined})
    shown = str(log.relative_to(job.paths.root))
    lesson = Lesson(settings, labels, log, shown, own.yes, own.retry_failed)
    missing = [name for name in names if name not in labels.definitions]
    if missing:
        say(
            f"without a definition in labels.definitions: {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}"
        )
    if own.write:
        wanted = find_wanted(own.for_labels, names)
        return write_rows(job, write_texts(lesson, job, tables, wanted), stem)
    rows = limit_rows(gather_rows(job, tables, own.rows), own.limit, settings.seed)
    print(f"{settings.model}: {len(rows.texts):,} {rows.kind} rows, {len(names)} labels", flush=True)
    folds = load_folds(job.paths, job.competition_name, tables, job.competition) if settings.examples else None
    taught = label_by_model(lesson, tables, rows, folds)
    return finish_labels(job, tables, taught, stem)


def write_texts(lesson: Lesson, job: Job, tables: Tables, wanted: list[str]) -> TaughtRows:
    """`--write new` or `--write paraphrases`."""
    own = job.own
    if job.competition.text.pair:
        raise UserError("--write is for one text per row, and this competition has pairs (text.pair)")
    if own.write == "new":
        if not wanted:
            raise UserError("--write new needs the labels to write for: --for_labels NAME ...")
        return write_by_model(lesson, tables, wanted, own.count or 20)
    having = tables.labels[:, [tables.label_names.index(name) for name in wanted]].any(axis=1)
    rows = np.flatnonzero(having) if wanted else np.arange(len(tables.labels))
    if own.limit:
        rows = np.sort(np.random.default_rng(lesson.settings.seed).permutation(rows)[: own.limit])
    if not len(rows):
        raise UserError(f"no training row has one of these labels: {', '.join(wanted)}")
    return paraphrase_by_model(lesson, tables, rows.tolist(), own.count or 1)


def teach_locally(job: Job, tables: Tables) -> Path:
    """Let a language model on this machine score every label of every row; nothing is generated."""
    # here, as they load torch
    from foldblend.learners.generator import score_labels, zero_shot_run
    from foldblend.learners.table import Corpus

    definitions, task, names = job.competition.labels.definitions, job.competition.task, tables.label_names
    rows = limit_rows(gather_rows(job, tables, job.own.rows), job.own.limit, 0)
    print(f"{job.own.local}: {len(rows.texts):,} {rows.kind} rows, {len(tables.label_names)} labels", flush=True)
    run = zero_shot_run(job.own.local, names, definitions, task, TeacherSettings.instruction)
    corpus = Corpus(tuple(rows.texts), np.zeros((0, len(names)), bool), names, task)
    logits = score_labels(run, corpus)
    own_task = Task(job.competition.metric, task)
    probs = to_probs(own_task.to_scores(logits, "logits", rows.allowed), task)[None]
    show_agreement(tables, rows, probs, None)
    made_by = {"teacher": relative_folder(job.own.local), "definitions": definitions}
    weights = np.ones((1, len(rows.ids)), np.float32)
    taught = TaughtRows(rows.kind, rows.ids, rows.texts, tables.label_names, probs, weights, "", made_by, rows.contents)
    return finish_labels(job, tables, taught, f"local-{rows_name(job)}")


def finish_labels(job: Job, tables: Tables, taught: TaughtRows, name: str) -> Path:
    """Keep the most certain labels, show and write them."""
    kept = keep_most_certain(taught.probs, job.own.keep, job.competition.task)
    print_lines(describe_labels(tables, kept, taught.probs))
    return write_rows(job, replace(taught, probs=kept), name)


# ---------- What is printed and written


def describe_labels(tables: Tables, kept: np.ndarray, probs: np.ndarray) -> list[str]:
    """A table for 80 columns: each label's rate in training, in what the teacher says, and what is kept of it."""
    truth = (tables.labels if tables.soft is None else tables.soft).astype(np.float64)
    true_rates = np.nanmean(truth if tables.known is None else np.where(tables.known, truth, np.nan), axis=0)
    known = ~np.isnan(kept)
    total = np.maximum((~np.isnan(probs)).sum(axis=(0, 1)), 1)
    rows = [("label", "rate in training", "teacher's rate", "kept", "kept, 0.5 or more")]
    for label, name in enumerate(tables.label_names):
        own = kept[:, :, label]
        rows.append((
            name[:24], f"{true_rates[label]:.4f}", f"{np.nansum(probs[:, :, label]) / total[label]:.4f}",
            f"{known[:, :, label].sum() / total[label]:.1%}", f"{(own >= 0.5).sum() / len(kept):,.0f} rows",
        ))  # fmt: skip
    return ["", *table_lines(rows), ""]


def rows_name(job: Job) -> str:
    """`test`, `train`, or the name of the file."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in Path(job.own.rows).stem)


def write_rows(job: Job, taught: TaughtRows, name: str) -> Path:
    """Write data/<competition>/<name>.npz; another file of that name is set aside."""
    name = check_name(job.own.name or name, "--name")
    path = job.paths.data(job.competition_name) / f"{name.removesuffix('.npz')}.npz"
    before = sha256_file(path) if path.exists() else ""
    kept = set_aside([path], copy=True)
    write_taught(path, job.competition_name, taught)
    if kept is not None and before == sha256_file(path):
        shutil.rmtree(kept)  # the same once more
    elif kept is not None:
        say(describe_old(job.paths.root, [kept]))
    return path


def print_end(job: Job, path: Path) -> None:
    """Where the labels are, and how a run learns from them."""
    print(f"{path.relative_to(job.paths.root)}")
    print("To learn from it, in the YAML of a run:")
    if job.own.rows == "train" and not job.own.write:
        print(f"distillation: {{file: {path.name}, mix: 0.5}}")
    else:
        print(f"extra_rows: [{{file: {path.name}}}]")
