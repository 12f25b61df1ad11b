"""What every training command begins with: the competition's tables and folds, made first if they are missing."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from foldblend.console import say, warn
from foldblend.data.brought_folds import read_brought_folds
from foldblend.data.fetch import ensure_data
from foldblend.data.reading import FileForm
from foldblend.data.tables import Tables, learned_columns, load_tables
from foldblend.data.texts import clean_texts, strip_template
from foldblend.errors import UserError
from foldblend.features import Features
from foldblend.files import OLD, hold_lock
from foldblend.folding.draw import describe_large_groups, draw_folds
from foldblend.folding.duplicates import group_texts, join_groups, number_groups, split_by_fold
from foldblend.ledger.folds import HEADER, Draw, Folds, ensure_folds, finish_record, write_folds
from foldblend.ledger.runs import TrainedRun
from foldblend.settings.loading import Job, run_from_settings
from foldblend.settings.records import settings_of
from foldblend.settings.run import RunSettings
from foldblend.submission.new_texts import read_rows, with_allowed


def prepare_tables(job: Job) -> Tables:
    """The competition's tables; missing files are downloaded or generated, by one of several processes."""
    data_dir = job.paths.data(job.competition_name)
    with hold_lock(data_dir.with_name(f".{job.competition_name}.lock")):
        for line in ensure_data(job.competition_name, job.competition, job.paths):
            say(line)
    tables = load_tables(job.competition, data_dir)
    warn(*tables.notes)
    return tables


def resolve_trained(job: Job, run: TrainedRun, models: str = "", precision: str = "") -> RunSettings:
    """The settings by which a trained run predicts here: its pretrained model where it is, in that precision.

    Args: models: a folder to search for pretrained models.   precision: other than trained in.
    """
    from foldblend.learners.trained import resolve_model

    where = f"oof/{job.competition_name}/{run.name}/fold0.json"
    settings = resolve_model(run_from_settings(run.settings, where), run.checkpoints[0], models)
    if precision:
        settings = replace(settings, training=replace(settings.training, precision=precision))
    return settings


def predict_trained(
    job: Job,
    run: TrainedRun,
    texts: Sequence[str],
    features: Features | None,
    models: str = "",
    precision: str = "",
    refuse_nan: bool = True,
) -> list[np.ndarray]:
    """New texts by each fold's model of a run that `check_folds` has checked: K tables float32 (n, L), of its kind.

    Args:   models: a folder to search for pretrained models.   precision: other than trained in.
            refuse_nan: whether predictions must be numbers.
    Raises: UserError: weights or a pretrained model are missing, damaged or of other settings.
    """
    # here, as they load torch, and most commands that begin with tables never need it
    from foldblend.learners.table import Corpus
    from foldblend.learners.trained import predict_folds

    settings = resolve_trained(job, run, models, precision)
    nothing = np.zeros((0, len(run.label_names)), dtype=bool)
    cleaned = tuple(clean_texts(texts, settings.cleaning))
    features = features if settings.use_features else None
    corpus = Corpus(cleaned, nothing, run.label_names, job.competition.task, features=features)
    show = partial(print, f"{run.name}:", flush=True)
    return predict_folds(settings, corpus, run.checkpoints, show, refuse_nan)


def keep_trained(
    job: Job, run: TrainedRun, models: str = "", precision: str = ""
) -> Callable[[Sequence[str], Features | None], list[np.ndarray]]:
    """`predict_trained` of one run, with its models in memory from the first call on: texts, features -> tables."""
    from foldblend.learners.trained import TrainedModels

    settings = resolve_trained(job, run, models, precision)
    kept = TrainedModels(settings, run.label_names, job.competition.task, run.checkpoints)

    def predict(texts: Sequence[str], features: Features | None) -> list[np.ndarray]:
        cleaned = tuple(clean_texts(texts, settings.cleaning))
        return kept.predict(cleaned, features if settings.use_features else None)

    return predict


AGREEMENT_ROWS = 500
"""Rows on which an averaged model is compared with the mean of its folds."""
LEAST_CORRELATION = 0.9
"""Of the probabilities of both; below it the averaged model is another one."""


def predict_average(job: Job, run: TrainedRun, rows, models: str = "", precision: str = "") -> list[np.ndarray]:
    """New texts by one model, the mean of a run's folds; on the first rows it is compared with the mean of the folds.

    Args:    rows: `texts` and `features` of the new texts.
    Returns: one table float32 (n, L); a table per fold of a run whose folds have no mean, with a line that says so.
    Raises:  UserError: the averaged model says something else than its folds.
    """
    from foldblend.learners.training.starts import write_average
    from foldblend.scoring.inputs import Task, to_probs

    def predict(of: TrainedRun, texts: Sequence[str]) -> list[np.ndarray]:
        return predict_trained(job, of, texts, rows.features, models, precision)

    settings = resolve_trained(job, run, models)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / run.name / "average"
        try:
            averaged = write_average(settings, run.checkpoints, folder)
        except UserError as error:
            say(f"{run.name}: its folds are predicted one by one: {error}")
            return predict(run, rows.texts)
        stored = json.loads(json.dumps(settings_of(averaged)))
        tables = predict(replace(run, settings=stored, checkpoints=[folder]), rows.texts)
    few = min(AGREEMENT_ROWS, len(rows.texts))
    task = Task(job.competition.metric, job.competition.task)
    folds = [to_probs(task.to_scores(table, run.kind), task.kind) for table in predict(run, rows.texts[:few])]
    mean, one = np.mean(folds, axis=0), to_probs(task.to_scores(tables[0][:few], run.kind), task.kind)
    apart, same = float(np.abs(mean - one).mean()), float(((mean >= 0.5) == (one >= 0.5)).mean())
    alike = float(np.corrcoef(mean.ravel(), one.ravel())[0, 1]) if mean.std() and one.std() else 0.0
    found = f"correlation {alike:.3f}, {apart:.3f} apart on average, {same:.1%} on the same side of 0.5"
    said = f"{run.name}: one model of {len(folds)} against their mean, on {few:,} rows: {found}"
    if alike < LEAST_CORRELATION:
        raise UserError(
            f"{said}. It cannot replace its folds: each of their heads began at random. Predict without "
            "--average_folds, or train with model.head_init label_names and model.pooling mean"
        )
    say(f"{said}. Its score is not known: every training row was seen by some of its folds")
    return tables


def prepare_folds(job: Job, tables: Tables) -> Folds:
    """The competition's folds; drawn or read now if there are none, and adopted if they were put there by hand."""
    path = job.paths.folds(job.competition_name)
    if path.exists() and not path.with_suffix(".json").exists():
        with hold_lock(path.with_name(f".{path.stem}.lock")):
            finish_record(path)
            if not path.with_suffix(".json").exists():
                adopt_folds(job, tables, path)
    return ensure_folds(job.paths, job.competition_name, job.competition, tables, make_draw(job, tables))


def make_draw(job: Job, tables: Tables) -> Draw:
    """What makes the folds of a competition: a draw, or the reading of the file that `folds.file` names."""
    if job.competition.folds.file:
        return partial(_read_folds, job, tables)

    def draw(texts, labels, **options):
        fold, group = draw_folds(texts, labels, **options, groups=tables.groups)
        warn(*describe_large_groups(group, tables.train_ids, texts))
        return fold, group

    return draw


def _read_folds(job: Job, tables: Tables, texts, labels, **options) -> tuple[np.ndarray, np.ndarray]:
    """Fold and group (N,) by the user's file, as `Draw` gives them."""
    competition = job.competition
    path = job.paths.data(job.competition_name) / competition.folds.file
    form = FileForm(competition.files.encoding, competition.files.separator, competition.files.quoting)
    ids, column = competition.id_column, competition.folds.column
    brought = read_brought_folds(path, form, ids, column, tables.train_ids.tolist(), competition.n_folds)
    others = f"; {brought.n_others} of its rows are not training rows" if brought.n_others else ""
    say(f"{path.name}: folds {', '.join(brought.names)} of column {column!r}{others}")
    group, torn = split_by_fold(_find_groups(job, tables), brought.fold)
    _check_labels(brought.fold, labels, tables.label_names)
    _warn_torn(torn, tables)
    return brought.fold, group


def _find_groups(job: Job, tables: Tables) -> np.ndarray:
    """Groups int64 (N,) of rows that say the same, or that the user keeps together."""
    group = group_texts(tables.compared_texts, job.competition.near_duplicates)
    return group if tables.groups is None else join_groups(group, tables.groups)


def adopt_folds(job: Job, tables: Tables, path: Path) -> None:
    """Describe folds that were put into folds/ by hand, once they are checked; the file as it was is kept in `.old/`.

    Raises: UserError: it does not fit the training file; says how to bring folds, and how to draw others.
    """
    own = job.competition.n_folds
    try:
        brought = read_brought_folds(path, FileForm(), HEADER[0], HEADER[1], tables.train_ids.tolist(), own)
    except UserError as error:
        name = job.competition_name
        raise UserError(
            f"{error}\nThis file has no .json beside it, so it was put there by hand. If the folds are yours, correct "
            f"it, or put it into data/{name}/ and set `folds: {{file: {path.name}, column: fold}}` in "
            f"configs/competitions/{name}.yaml. To draw others: python src/make_folds.py --competition {name} "
            f"--overwrite, which keeps this file in {path.parent.name}/{OLD}/"
        ) from error
    torn = np.zeros(0, np.int64)
    if brought.group is not None and all(brought.group):
        group = number_groups(np.unique(brought.group, return_inverse=True)[1])
        group, torn = split_by_fold(group, brought.fold)
    else:
        group, torn = split_by_fold(_find_groups(job, tables), brought.fold)
    write_folds(job.paths, job.competition_name, job.competition, tables, brought.fold, group, is_adopted=True)
    say(f"{path.relative_to(job.paths.root)}: put there by hand, checked and kept")
    _check_labels(brought.fold, tables.labels, tables.label_names)
    _warn_torn(torn, tables)


def _check_labels(fold: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]) -> None:
    absent = [name for k in range(fold.max() + 1) for name in np.array(label_names)[~labels[fold == k].any(axis=0)]]
    if absent:
        names = ", ".join(dict.fromkeys(map(str, absent)))
        warn(f"some of these folds have no row of a label: {names}. Its score in such a fold says nothing")


def _warn_torn(torn: np.ndarray, tables: Tables) -> None:
    if len(torn):
        first = tables.train_texts[torn[0]][:60]
        warn(
            f"{len(torn)} rows say the same as rows of other folds, or are of the same group, first "
            f"{str(tables.train_ids[torn[0]])!r} {first!r}: out-of-fold scores are too good by what models learn "
            "from them. The folds are kept as they are"
        )


# ---------- Rows that a teacher labels


@dataclass(frozen=True)
class RowsToTeach:
    """Texts that a teacher labels."""

    kind: str
    """One of `data.taught.KINDS`."""
    ids: list[str]
    texts: list[str]
    contents: list[str] | None
    """As in `TaughtRows`."""
    features: Features | None = None
    allowed: np.ndarray | None = None
    """bool (n, L), of the learned labels; None allows all."""


def gather_rows(job: Job, tables: Tables, named: str) -> RowsToTeach:
    """The rows of that name: `test`, `train`, or a file.

    Raises: UserError: a file that does not exist or cannot be read.
    """
    text = job.competition.text
    if named == "test":
        texts, allowed = list(tables.test_texts), tables.of_learned(tables.test_allowed)
        contents = strip_template(texts, text)
        return RowsToTeach("test", tables.test_ids.tolist(), texts, contents, tables.test_features, allowed)
    if named == "train":
        texts, allowed = list(tables.train_texts), tables.of_learned(tables.allowed)
        ids = tables.train_ids.tolist()
        return RowsToTeach("train", ids, texts, tables.train_contents, tables.train_features, allowed)
    path = Path(named)
    if not path.is_file():
        path = job.paths.data(job.competition_name) / named
    if not path.is_file():
        where = f"here or in data/{job.competition_name}/"
        raise UserError(f"--rows is {named!r}, and there is no such file {where}; expected a file, test or train")
    found = with_allowed(read_rows(path, job.competition), job.competition, tables.answer_names, tables.label_names)
    warn(*found.warnings())
    allowed = found.allowed
    if allowed is not None:
        allowed = allowed[:, learned_columns(tables.answer_names, tables.label_names)]
    ids = list(found.ids) or [f"row {number}" for number in range(1, len(found.texts) + 1)]
    texts = list(found.texts)
    return RowsToTeach("unlabelled", ids, texts, strip_template(texts, text), found.features, allowed)
