"""The rows and probabilities that a run learns beside the competition's own: read, guarded, told, and recorded.

Not a command: train.py calls it. The guard is here and nowhere else, so whatever a source is, it passes it.
"""

from dataclasses import dataclass, replace

import numpy as np

from foldblend.commands.inputs import prepare_tables
from foldblend.data.extra_rows import ExtraTable, check_same_texts, leave_out, read_source
from foldblend.data.tables import Tables
from foldblend.data.taught import read_taught
from foldblend.errors import UserError
from foldblend.files import sha256_file
from foldblend.folding.other_texts import find_contradictions, find_known_folds
from foldblend.learners.lessons import Source, Teacher
from foldblend.learners.table import learns_shares
from foldblend.ledger.folds import Folds
from foldblend.settings.loading import Job, load_competition
from foldblend.settings.run import RunSettings
from foldblend.settings.sources import ExtraRows


@dataclass(frozen=True)
class MoreRows:
    """What a run learns beside the competition's own rows and labels."""

    tables: tuple[ExtraTable, ...] = ()
    """A table for each of run.extra_rows."""
    taught: np.ndarray | None = None
    """float32 (K, N, L): the teacher's probabilities of the training rows; None without distillation.file."""
    sources: tuple[Source, ...] = ()
    """The same tables as learners read them, once they have passed the guard."""
    lines: tuple[str, ...] = ()
    """What the guard found, for the user."""

    @property
    def texts(self) -> list[str]:
        """The texts of all sources, one source after another."""
        return [text for table in self.tables for text in table.texts]

    def record(self, fold: int) -> list[dict]:
        """What a fold's record says of its extra rows."""
        return [
            {
                "source": source.name,
                "sha256": table.sha256,
                "rows": source.n_rows,
                "learned": len(source.allowed(fold)),
                "left_out_as_held_out": int(source.forbids(fold).sum()),
            }
            for source, table in zip(self.sources, self.tables, strict=True)
        ]


NO_MORE = MoreRows()
"""A run that learns the competition's own rows and labels."""


def read_more_rows(job: Job, run: RunSettings, tables: Tables, folds: Folds) -> tuple[RunSettings, MoreRows]:
    """Read all that a run names; it comes back with the sha256 of each source, so that a changed one shows.

    Raises: UserError: what is wrong with a source.
    """
    job = replace(job, run=run)
    read = tuple(_read_one(job, each, tables, folds) for each in run.extra_rows)
    sources = tuple(replace(each, sha256=table.sha256) for each, table in zip(run.extra_rows, read, strict=True))
    taught, distillation = None, run.distillation
    if distillation.file:
        path = job.paths.data(job.competition_name) / distillation.file
        taught = _read_teacher(job, tables, folds)
        found = sha256_file(path)
        if distillation.sha256 not in ("", found):
            raise UserError(
                f"{path}: its sha256 is {found}, distillation.sha256 is {distillation.sha256}; expected the same"
            )
        distillation = replace(distillation, sha256=found)
    return replace(run, extra_rows=sources, distillation=distillation), MoreRows(read, taught)


def _read_one(job: Job, source: ExtraRows, tables: Tables, folds: Folds) -> ExtraTable:
    other = None
    if source.competition:
        if source.competition == job.competition_name:
            raise UserError(f"extra_rows: competition {source.competition} is this one, whose rows are learned anyway")
        settings = load_competition(job.paths, source.competition)
        other = prepare_tables(replace(job, competition_name=source.competition, competition=settings))
    data_dir, name = job.paths.data(job.competition_name), job.competition_name
    table = read_source(source, name, job.competition, tables, data_dir, folds.sha256, folds.n_folds, other)
    if table.has_fractions and not learns_shares(job.run):
        raise UserError(
            f"{table.name}: holds probabilities, and this run learns yes and no alone. Set hard_labels: true for it, "
            "or loss.name auto"
        )
    return table


def _read_teacher(job: Job, tables: Tables, folds: Folds) -> np.ndarray:
    """The teacher's probabilities in the order of the training rows, float32 (K, N, L), nan where it says nothing."""
    path = job.paths.data(job.competition_name) / job.run.distillation.file
    rows = read_taught(path, job.competition_name, tables.label_names, folds.sha256, folds.n_folds)
    if rows.kind != "train":
        raise UserError(
            f"{path}: holds labels of {rows.kind} rows, not of training rows. Set extra_rows: [{{file: "
            f"{job.run.distillation.file}}}]"
        )
    check_same_texts(path, rows, tables)
    position = {name: k for k, name in enumerate(tables.train_ids.tolist())}
    probs = np.full((rows.n_sets, len(position), len(tables.label_names)), np.nan, np.float32)
    spoken = np.where(rows.weights[..., None] > 0, rows.probs, np.float32("nan"))  # a row of weight 0 is not learned
    probs[:, [position[name] for name in rows.ids]] = spoken
    if job.competition.task == "multiclass":  # a distribution is known as a whole or not at all
        probs[np.isnan(probs).any(axis=2)] = np.nan
    return probs


# ---------- the guard.


def guard_rows(job: Job, tables: Tables, folds: Folds, more: MoreRows) -> MoreRows:
    """The extra rows with the folds that each may not teach, without rows that repeat a test row and its answer.

    Raises: UserError: nothing of a source is left.
    """
    kept, sources, lines = [], [], []
    for settings, before in zip(job.run.extra_rows, more.tables, strict=True):
        table, source = _guard_one(job, tables, folds, settings, before)
        left_out = source.forbidden.sum(axis=0).tolist()
        lines += [f"{table.name}: {len(table.texts):,} extra rows", *(f"  {note}" for note in table.notes)]
        if any(left_out):
            shown = ", ".join(f"fold {k}: {count:,}" for k, count in enumerate(left_out) if count)
            lines.append(f"  not learned, as held-out rows say the same: {shown}")
        kept.append(table)
        sources.append(source)
    return replace(more, tables=tuple(kept), sources=tuple(sources), lines=tuple(lines))


def _guard_one(
    job: Job, tables: Tables, folds: Folds, settings: ExtraRows, table: ExtraTable
) -> tuple[ExtraTable, Source]:
    own = [*tables.compared_texts, *(tables.test_texts if tables.test_contents is None else tables.test_contents)]
    fold = np.concatenate([folds.fold, np.full(len(tables.test_ids), folds.n_folds)])  # the test rows as one more
    known = find_known_folds(own, fold, folds.n_folds + 1, table.compared_texts, job.competition.near_duplicates)
    known |= _of_origins(tables, folds, table)
    repeats = np.flatnonzero(known[:, -1])
    if not table.by_our_models:
        # the labels of such a row may be a test row's answer; what models say of a test row is no answer
        kept = np.flatnonzero(~known[:, -1])
        table = leave_out(table, repeats, "they say the same as test rows, whose labels must stay unknown")
        known = known[kept]
    if not len(table.texts):
        raise UserError(f"{table.name}: no row of it can be learned. {' '.join(table.notes)}")
    other = find_contradictions(tables.compared_texts, tables.labels, table.compared_texts, table.probs[0])
    if len(other) and not table.has_fractions:
        example = table.compared_texts[other[0]][:60]
        note = f"{len(other):,} rows have the text of a training row and other labels, the first {example!r}"
        table = replace(table, notes=(*table.notes, note))
    source = Source(
        table.name,
        table.probs,
        table.weights,
        known[:, :-1],
        settings.share,
        settings.rows,
        settings.first_epochs,
    )
    return table, source


def _of_origins(tables: Tables, folds: Folds, table: ExtraTable) -> np.ndarray:
    """Folds that hold the rows after which a teacher wrote the texts, bool (n, n_folds + 1).

    Raises: UserError: a row that is not in the training file.
    """
    known = np.zeros((len(table.texts), folds.n_folds + 1), bool)
    if table.origins is None:
        return known
    position = {name: k for k, name in enumerate(tables.train_ids.tolist())}
    lost = [name for name in table.origins if name and name not in position]
    if lost:
        raise UserError(
            f"{table.name}: written after {len(set(lost)):,} rows that are not in the training file now, first "
            f"{lost[0]!r}, so it is not known which folds they may teach. Write it again, by src/teach.py"
        )
    for row, name in enumerate(table.origins):
        if name:
            known[row, folds.fold[position[name]]] = True
    return known


def build_teacher(run: RunSettings, more: MoreRows) -> Teacher | None:
    """How probabilities teach; None if they are targets like others."""
    how = run.distillation
    if more.taught is None and how.loss == "auto":
        return None
    return Teacher(more.taught, how.mix, how.loss, how.temperature)
