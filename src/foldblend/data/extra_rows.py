"""Rows that a run learns beside the competition's own, from a file or another competition: texts, labels, weights.

Whatever a source is, it becomes an ExtraTable in the competition's labels. A label that the source says nothing of is
unknown (nan) and teaches nothing. Which rows may teach which fold is not decided here: see folding/other_texts.py.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldblend.data.advice import read_advised
from foldblend.data.checks import check_columns
from foldblend.data.fetch import TRUTH
from foldblend.data.labels import LabelForm, find_names, is_number
from foldblend.data.layout import read_part
from foldblend.data.reading import Problems, TextTable, excerpt, quoted, raise_if_any
from foldblend.data.tables import Tables, train_label_form
from foldblend.data.taught import TaughtRows, read_taught
from foldblend.data.texts import build_contents, build_texts, check_texts
from foldblend.errors import UserError, nearest
from foldblend.files import sha256_file
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.loading import change_competition
from foldblend.settings.sources import ExtraRows

ROUNDING = 0.02
"""How far the labels of a row may sum from 1 if it has one label: probabilities are rounded."""


@dataclass(frozen=True)
class ExtraTable:
    """The rows of one source; n rows, L labels of the competition, K sets of labels (one per fold, or one for all)."""

    name: str
    """What messages call the source."""
    texts: list[str]
    """n texts, built as the competition's."""
    probs: np.ndarray
    """float32 (K, n, L) in [0, 1], nan for unknown."""
    weights: np.ndarray
    """float32 (K, n) or (1, n), 0 or more."""
    sha256: str
    """Of the rows that were read."""
    contents: list[str] | None = None
    """What duplicates are looked for in, if that is not the texts."""
    origins: list[str] | None = None
    """The training row after which a teacher wrote each text, "" for none."""
    by_our_models: bool = False
    """Whether models labelled the rows that never saw the fold they are for: then test rows may be among them."""
    notes: tuple[str, ...] = ()
    """What a user should know, as sentences."""

    @property
    def compared_texts(self) -> list[str]:
        return self.texts if self.contents is None else self.contents

    @property
    def has_fractions(self) -> bool:
        """Whether any label is neither 0 nor 1 nor unknown."""
        return bool(((self.probs > 0) & (self.probs < 1)).any())


def read_source(
    source: ExtraRows,
    competition_name: str,
    competition: CompetitionSettings,
    tables: Tables,
    data_dir: Path,
    folds_sha256: str,
    n_folds: int,
    other: Tables | None = None,
) -> ExtraTable:
    """Read one source of rows.

    Args:   tables: of the competition; nothing of its test rows but their ids and texts is read.
            folds_sha256, n_folds: of the competition's folds.   other: the tables of `source.competition`.
    Raises: UserError: every problem of the file; labels that mean nothing to the competition; rows that do not belong.
    """
    if other is not None:
        table = _of_competition(source, tables, other)
    elif source.file.endswith(".npz"):
        table = _of_models(source, competition_name, tables, data_dir, folds_sha256, n_folds)
    else:
        table = _of_table(source, competition, tables, data_dir)
    if source.sha256 not in ("", table.sha256):
        raise UserError(
            f"{table.name}: its sha256 is {table.sha256}, extra_rows has {source.sha256}; expected the same rows. "
            "Restore them, or train under another --name without sha256"
        )
    if competition.task == "multiclass":
        table = _one_label_a_row(table)
    if source.hard_labels:
        table = replace(table, probs=_hardened(table.probs, competition.task == "multiclass"))
    unknown = np.flatnonzero(np.isnan(table.probs).all(axis=(0, 2)))
    table = leave_out(table, unknown, "none of their labels is known")
    if not len(table.texts):
        raise UserError(f"{table.name}: no row of it can be learned. {' '.join(table.notes)}")
    return replace(table, weights=(table.weights * source.weight).astype(np.float32))


def _hardened(probs: np.ndarray, one_a_row: bool) -> np.ndarray:
    if one_a_row:
        likeliest = np.nan_to_num(probs).argmax(axis=-1)
        return (likeliest[..., None] == np.arange(probs.shape[-1])).astype(np.float32)
    return np.where(np.isnan(probs), np.float32("nan"), (probs >= 0.5).astype(np.float32))


def _one_label_a_row(table: ExtraTable) -> ExtraTable:
    """Rows whose labels sum to 1 in every set; the others are left out, and counted."""
    probs = np.nan_to_num(table.probs)
    sums = probs.sum(axis=2)
    kept = np.flatnonzero((np.abs(sums - 1) <= ROUNDING).all(axis=0))
    n_out = len(table.texts) - len(kept)
    note = f"{n_out:,} rows left out, as each row has one label here and theirs do not sum to 1"
    probs = (probs[:, kept] / sums[:, kept, None].clip(1e-6)).astype(np.float32)
    table = _of_rows(table, kept, (note,) if n_out else ())
    return replace(table, probs=probs)


def _of_rows(table: ExtraTable, rows: np.ndarray, notes: Sequence[str] = ()) -> ExtraTable:
    """Some rows of a table, by position, and more notes."""
    lists = {name: getattr(table, name) for name in ("texts", "contents", "origins")}
    picked = {name: values and [values[row] for row in rows] for name, values in lists.items()}
    return replace(
        table,
        **picked,
        probs=table.probs[:, rows],
        weights=table.weights[:, rows],
        notes=(*table.notes, *notes),
    )


def leave_out(table: ExtraTable, rows: np.ndarray, why: str) -> ExtraTable:
    """The table without some rows, int64 positions; the count and the reason become a note."""
    if not len(rows):
        return table
    kept = np.setdiff1d(np.arange(len(table.texts)), rows)
    return _of_rows(table, kept, [f"{len(rows):,} of {len(table.texts):,} rows left out: {why}"])


# ---------- labels of a source in the labels of the competition.


def map_labels(
    values: np.ndarray, names: Sequence[str], label_names: Sequence[str], meanings: Mapping[str, str]
) -> np.ndarray:
    """Values of a source's labels as those of the competition's.

    A row has one of our labels as much as the label of the source that it has most of, of all that mean it.

    Args:    values: (n, S), bool, or shares with nan for unknown.   names: S names.
             meanings: name of a source's label -> our name; empty: the same names.
    Returns: float32 (n, L), nan for a label that no label of the source means, or whose value is not known.
    Example: values [[True, False]], names ["annoyance", "rage"], ours ["anger", "joy"], both mean anger -> [[1, nan]]
    """
    mapped = np.full((len(values), len(label_names)), np.nan, np.float32)
    for k, ours in enumerate(label_names):
        columns = [i for i, name in enumerate(names) if (meanings.get(name) if meanings else name) == ours]
        if columns:
            part = values[:, columns].astype(np.float32)
            is_sure = (part == 1).any(axis=1)
            mapped[:, k] = np.where(is_sure, np.float32(1), part.max(axis=1))  # nan if one is unknown and none is sure
    return mapped


def check_meanings(where: str, meanings: Mapping[str, str], label_names: Sequence[str], theirs: Sequence[str]) -> None:
    """Raise UserError if a mapping names a label that does not exist, or if nothing means anything."""
    wrong = [f"there is no label {ours!r} here{nearest(ours, label_names)}" for ours in meanings.values()]
    wrong = [said for said, ours in zip(wrong, meanings.values()) if ours not in label_names]
    wrong += [f"it has no label {name!r}{nearest(name, theirs)}" for name in meanings if name not in theirs]
    if wrong:
        raise UserError(f"{where}: labels names what does not exist: {'; '.join(dict.fromkeys(wrong))}")
    if not meanings and not set(theirs) & set(label_names):
        raise UserError(
            f"{where}: none of its labels has the name of one of ours. It has {quoted(theirs)}; ours are "
            f"{quoted(label_names)}. Say what they mean: labels: {{{next(iter(theirs), 'name')}: {label_names[0]}}}"
        )


# ---------- another competition.


def _of_competition(source: ExtraRows, tables: Tables, other: Tables) -> ExtraTable:
    """Its training rows; its test rows have no labels."""
    check_meanings(source.name, source.labels, tables.label_names, other.label_names)
    if (tables.scale is None) != (other.scale is None):
        raise UserError(f"{source.name}: one competition has labels and the other values of a regression")
    values = (other.labels if other.soft is None else other.soft).astype(np.float32)
    if other.known is not None:
        values = np.where(other.known, values, np.float32("nan"))
    probs = map_labels(values, other.label_names, tables.label_names, source.labels)
    if tables.scale is not None:
        raise UserError(f"{source.name}: values of another regression have another range. Write a table of its rows")
    digest = hashlib.sha256("\0".join([*other.train_texts, *other.label_names]).encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(values).tobytes())
    ones = np.ones((1, len(values)), np.float32)
    return ExtraTable(source.name, other.train_texts, probs[None], ones, digest.hexdigest(), other.train_contents)


# ---------- an .npz of src/teach.py.


def _of_models(
    source: ExtraRows, competition_name: str, tables: Tables, data_dir: Path, folds_sha256: str, n_folds: int
) -> ExtraTable:
    path = data_dir / source.file
    rows = read_taught(path, competition_name, tables.label_names, folds_sha256, n_folds)
    if rows.kind == "train":
        raise UserError(
            f"{path}: holds labels of the training rows themselves, which are not extra rows. Set distillation: "
            f"{{file: {source.file}}}"
        )
    check_same_texts(path, rows, tables)
    return ExtraTable(
        source.name,
        rows.texts,
        rows.probs,
        rows.weights,
        sha256_file(path),
        rows.contents,
        rows.origins,
        by_our_models=True,
    )


def check_same_texts(path: Path, rows: TaughtRows, tables: Tables) -> None:
    """Raise UserError if rows of the competition, by their ids, are not what its files hold now."""
    files = {"train": (tables.train_ids, tables.train_texts), "test": (tables.test_ids, tables.test_texts)}
    if rows.kind not in files:
        return
    ids, texts = files[rows.kind]
    now = dict(zip(ids.tolist(), texts, strict=True))
    wrong = [name for name, text in zip(rows.ids, rows.texts, strict=True) if now.get(name) != text]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong):,} of its {len(rows.ids):,} rows are not those of the {rows.kind} file now, first id "
            f"{wrong[0]!r}. The file or text.template has changed. Write it again, by src/teach.py"
        )


# ---------- a table: CSV, JSON lines, Parquet, ... as the competition's own files, or as `layout` says.


def _of_table(source: ExtraRows, competition: CompetitionSettings, tables: Tables, data_dir: Path) -> ExtraTable:
    path = data_dir / source.file
    where = f"extra_rows: {source.file}: layout"
    layout = change_competition(competition, source.layout, where) if source.layout else competition
    _refuse_own_files(source, competition)
    if not path.is_file() and ".zip" not in source.file.lower():
        there = sorted(each.name for each in data_dir.glob("*") if each.is_file())
        raise UserError(f"{path}: missing{nearest(source.file, there) or f'; there are {quoted(there)}'}")
    table, report = read_part(layout, path, source.file)
    columns = (*layout.text.columns, *filter(None, (source.weight_column, source.source_column)))
    if table is not None:
        check_columns(table, columns, report)
        if set(layout.text.columns) <= set(table.header):
            table = check_texts(table, layout.text, report, drops=True)
    if table is None or not set(columns) <= set(table.header):
        raise_if_any([report])
    assert table is not None
    probs = _read_probs(source, layout, table, tables, report)
    weights = _read_weights(table, source.weight_column, report)
    raise_if_any([report])
    notes = [*report.notes, *_count_sources(table, source.source_column)]
    texts, contents = build_texts(table, layout.text), build_contents(table, layout.text)
    return ExtraTable(source.name, texts, probs[None], weights[None], sha256_file(path), contents, notes=tuple(notes))


def _refuse_own_files(source: ExtraRows, competition: CompetitionSettings) -> None:
    files = competition.files
    if Path(source.file).name.lower() == TRUTH:
        raise UserError(f"extra_rows: {source.file} holds the answers of test rows, which no training may read")
    if source.file in files.stated:
        what = "training file, whose rows are learned anyway" if source.file in files.train_files else "own file"
        raise UserError(f"extra_rows: {source.file} is the competition's {what}; expected a file of other rows")


def _read_probs(
    source: ExtraRows, layout: CompetitionSettings, table: TextTable, tables: Tables, report: Problems
) -> np.ndarray:
    """float32 (n, L), nan for unknown: columns per label if there are any, otherwise as the layout writes labels."""
    meanings = {**{old: new for old, new in layout.labels.rename.items()}, **source.labels}
    ours = tables.label_names
    named = {**{name: name for name in ours}, **meanings} if not source.labels else dict(source.labels)
    columns = [name for name in named if name in table.header]
    if layout.labels.form == "columns" or columns:
        if not columns:
            hint = nearest(next(iter(named)), table.header)
            report.add(
                f"no column is a label{hint or f'; the columns are {quoted(table.header)}'}. Expected some of "
                f"{quoted(named)}, or set layout: {{labels: {{form: class, column: NAME}}}}"
            )
            return np.zeros((len(table.rows), len(ours)), np.float32)
        values = _read_columns(layout, table, columns, tables.scale, report)
        check_meanings(source.name, source.labels, ours, [*columns])
        return map_labels(values, columns, ours, {name: named[name] for name in columns})
    form = train_label_form(layout, ours)
    check_columns(table, form.columns, report)
    if not set(form.columns) <= set(table.header):
        return np.zeros((len(table.rows), len(ours)), np.float32)
    if form.values == "names":
        cells = (cell for column in form.columns for cell in table.column(column))
        form = replace(form, names=tuple(find_names(cells, replace(form, names=()))))
    form = replace(form, one_a_row=False, groups=())
    check_meanings(source.name, meanings, ours, form.names)
    meanings = {**({} if source.labels else {name: name for name in ours}), **meanings}
    if unread := [name for name in form.names if name not in meanings]:
        report.notes.append(f"labels that mean none of ours, and are not read: {quoted(unread)}")
    return map_labels(read_advised(table, form, report), form.names, ours, meanings)


def _read_columns(
    layout: CompetitionSettings, table: TextTable, columns: Sequence[str], scale: np.ndarray | None, report: Problems
) -> np.ndarray:
    """Numbers per label, float32 (n, S): shares from 0 to 1, nan for an empty cell."""
    labels = layout.labels
    form = LabelForm(
        form="columns",
        names=tuple(columns),
        meanings=labels.map,
        unknown=("", *labels.unknown),
        shares=True,
        any_number=scale is not None,
    )
    values = read_advised(table, form, report)
    if scale is None:
        return values
    low, high = scale.T
    return ((values - low) / (high - low)).clip(0, 1).astype(np.float32)


def _read_weights(table: TextTable, column: str, report: Problems) -> np.ndarray:
    if not column:
        return np.ones(len(table.rows), np.float32)
    cells = table.column(column)
    read = {cell: float(cell) if is_number(cell.strip()) else -1.0 for cell in set(cells)}
    bad = [row for row, cell in enumerate(cells) if read[cell] < 0]
    found = [(row, f"{column!r} is {excerpt(cells[row])}; expected a number, 0 or more") for row in bad]
    report.add_rows(f"{column!r} no weight", found)
    return np.array([read[cell] for cell in cells], np.float32)


def _count_sources(table: TextTable, column: str) -> list[str]:
    if not column:
        return []
    counts = Counter(cell.strip() or "(empty)" for cell in table.column(column)).most_common(8)
    return [f"rows by {column!r}: {', '.join(f'{name} {count:,}' for name, count in counts)}"]
