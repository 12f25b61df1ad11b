"""New texts, and what is predicted for them: a table, JSON lines, lines to read, or a submission."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldblend.data.answer_form import built_header, written_form
from foldblend.data.checks import check_columns, check_ids, check_sample
from foldblend.data.formats import as_cell, find_file
from foldblend.data.labels import read_candidates
from foldblend.data.layout import original_header, read_part, settle_sample
from foldblend.data.reading import (
    Problems,
    TextTable,
    excerpt,
    parse_table,
    raise_if_any,
    shortened,
    shown_path,
    table_bytes,
)
from foldblend.data.tables import (
    Tables,
    candidate_form,
    features_of,
    learned_columns,
    submission_form,
)
from foldblend.data.texts import build_texts
from foldblend.errors import UserError, is_unicode
from foldblend.features import Features, read_features
from foldblend.files import read_bytes
from foldblend.scoring.metrics.table import to_values
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.data_files import PAIR, FeaturesSettings
from foldblend.submission.answers import check_number_format, check_submission_ids, read_answers, read_back

# ---------- the texts.


@dataclass(frozen=True)
class NewRows:
    """Texts to predict."""

    ids: tuple[str, ...]
    """As the file has them; empty if it has none."""
    texts: tuple[str, ...]
    """At least one; an empty one is predicted as it is."""
    features: Features | None = None
    """Columns beside the text; None if the competition has none."""
    lacking: tuple[str, ...] = ()
    """Names of those that no row has."""
    candidates: tuple[str, ...] = ()
    """The cells of labels.candidates; empty if every label of every text may be answered."""
    allowed: np.ndarray | None = None
    """What `with_allowed` read from them: bool (n, A), of all labels of a submission."""
    notes: tuple[str, ...] = ()
    """What is unusual about them and allowed, as sentences."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The texts as a person reads them, a bar between those of a pair."""
        return tuple(text.replace(PAIR, " | ") for text in self.texts)

    def warnings(self) -> list[str]:
        """What is unusual about them, as sentences."""
        empty = [str(row + 1) for row, text in enumerate(self.texts) if not text.strip()]
        found = [f"{len(empty)} empty texts are predicted as they are: row {shortened(empty)}"] if empty else []
        return [*found, *self.notes]


def read_rows(path: Path, competition: CompetitionSettings) -> NewRows:
    """The rows of a file that is written like the competition's test file, or of one whose name ends in .jsonl.

    A line of .jsonl is an object with `text` or with the text columns; all lines or none have an id (`id`, or the
    competition's id column).
    Raises: UserError: every problem of the file, with row numbers.
    """
    if not path.is_file():
        raise UserError(f"{shown_path(path)} does not exist")
    if path.suffix == ".jsonl":
        report = Problems(path)
        rows = _read_jsonl(path, competition, report)
    else:
        rows, report = _read_table(path, competition)
    raise_if_any([report])
    return rows


def with_allowed(
    rows: NewRows, competition: CompetitionSettings, names: Sequence[str], learned: Sequence[str]
) -> NewRows:
    """The rows with the labels that each can have.

    Args:   names: all labels of a submission.   learned: those that are no constants.
    Raises: UserError: a cell names a label that does not exist.
    """
    if not rows.candidates:
        return rows
    report = Problems(Path(f"the column {competition.labels.candidates!r}"))
    report.row_numbers = range(1, len(rows.candidates) + 1)
    form = candidate_form(competition, names)
    allowed = read_candidates(rows.candidates, form, report, bool(competition.labels.names))
    raise_if_any([report])
    allowed[~allowed[:, learned_columns(names, learned)].any(axis=1)] = True  # as in the competition's own test file
    return replace(rows, allowed=allowed, notes=(*rows.notes, *report.notes))


NO_FEATURES = FeaturesSettings()


def typed_rows(texts: Sequence[str], pair: Sequence[str] = (), features: FeaturesSettings = NO_FEATURES) -> NewRows:
    """Texts from the command line; two of them are a row if the competition has pairs.

    Args:   pair: the competition's text.pair.   features: its columns beside the text, all missing here.
    Raises: UserError: one is no Unicode, or a pair has no second text.
    """
    wrong = [number for number, text in enumerate(texts, start=1) if not is_unicode(text)]
    if wrong:
        raise UserError(f"--text {wrong[0]} holds bytes that are not UTF-8")
    if pair and len(texts) % 2:
        raise UserError(f"--text has {len(texts)} texts; expected two per row, {' and '.join(pair)}")
    if pair:
        texts = [PAIR.join(two) for two in zip(texts[::2], texts[1::2], strict=True)]
    return NewRows((), tuple(texts), *_features_of({}, features, len(texts), None))


def _features_of(
    columns: Mapping[str, Sequence[str]], settings: FeaturesSettings, n_rows: int, report: Problems | None
) -> tuple[Features | None, tuple[str, ...]]:
    """Features of the columns that there are, and the names of the others; cells that are no numbers are problems."""
    if not settings.columns:
        return None, ()
    found, bad = read_features(columns, settings.numbers, settings.categories, n_rows, settings.min_rows)
    if report is not None:
        said = [(row, f"{name!r} is {excerpt(columns[name][row])}; expected a number") for name, row in bad]
        report.add_rows("no number", said)
    return found, tuple(name for name in settings.columns if name not in columns)


def _read_table(path: Path, competition: CompetitionSettings) -> tuple[NewRows | None, Problems]:
    files, id_column, columns = competition.files, competition.id_column, competition.text.columns
    table, report = read_part(competition, path, path.name if path.name in files.stated else files.test)
    if table is None:
        return None, report
    ids_elsewhere = files.ids.get(files.test) == "sample_order" and id_column not in table.header
    candidates = competition.labels.candidates
    needed = (*columns, *competition.features.columns, *((candidates,) if candidates else ()))
    check_columns(table, needed if ids_elsewhere else (id_column, *needed), report)
    if not set(needed) <= set(table.header) or not (ids_elsewhere or id_column in table.header):
        return None, report
    ids = [] if ids_elsewhere else table.column(id_column)
    check_ids(ids, id_column, report)
    features = features_of(table, competition.features, report)
    cells = tuple(table.column(candidates)) if candidates else ()
    return NewRows(tuple(ids), tuple(build_texts(table, competition.text)), features, candidates=cells), report


def _read_jsonl(path: Path, competition: CompetitionSettings, report: Problems) -> NewRows | None:
    lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    report.row_numbers = report.line_numbers = range(1, len(lines) + 1)
    found = [_parse_line(line, competition.text.columns, bool(competition.text.pair)) for line in lines]
    report.add_rows("broken", [(row, one) for row, one in enumerate(found) if isinstance(one, str)])
    if not lines:
        report.add("the file has no line; expected one per text")
    if report:
        return None
    keys = [next((key for key in (competition.id_column, "id") if key in one), None) for one in found]
    ids = tuple(as_cell(one[key]) for one, key in zip(found, keys, strict=True) if key)  # null is none, as in a table
    if ids and len(ids) < len(found):
        report.add(f"{len(ids)} of {len(found)} rows have an id; expected all or none")
    elif ids:
        check_ids(ids, competition.id_column, report)
    given = [name for name in competition.features.columns if any(name in one for one in found)]
    cells = {name: [as_cell(one.get(name)) for one in found] for name in given}
    features = _features_of(cells, competition.features, len(found), report)
    column = competition.labels.candidates
    possible = tuple(as_cell(one.get(column, "")) for one in found) if column else ()
    return NewRows(ids, tuple(_text_of(one, competition) for one in found), *features, candidates=possible)


def _parse_line(line: bytes, columns: Sequence[str], is_pair: bool = False) -> dict | str:
    """The object of a line, or a sentence on what it is instead; a pair has both its columns."""
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    has_columns = isinstance(value, dict) and all(name in value for name in columns)
    if is_pair and not has_columns:
        return f"expected an object with the texts {' and '.join(columns)}"
    if not isinstance(value, dict) or not (has_columns or isinstance(value.get("text"), str)):
        return 'expected an object with a `text`, as {"text": "..."}'
    texts = [as_cell(value[name]) for name in columns] if has_columns else [value["text"]]
    return value if all(map(is_unicode, texts)) else "`text` holds half a surrogate pair, which is not Unicode"


def _text_of(value: dict, competition: CompetitionSettings) -> str:
    """The text columns by the template, or `text` if the object has not all of them."""
    columns = competition.text.columns
    if not all(name in value for name in columns):
        return value["text"]
    return build_texts(TextTable(columns, [[as_cell(value[name]) for name in columns]]), competition.text)[0]


def answer_tables(
    competition: CompetitionSettings,
    label_names: tuple[str, ...],
    rows: NewRows,
    sample: Path,
) -> tuple[Tables, list[str]]:
    """Tables for `build_submission`, with no training rows; and what is odd, as sentences.

    Columns and number format are the sample submission's. So is the order of the rows if it has just these rows; if it
    has others, the rows keep their own order. Without a sample submission the settings say what the columns are.
    Raises: UserError: rows without ids; no sample submission, or one with other columns, ids or cells than expected.
    """
    files, id_column = competition.files, competition.id_column
    if not files.has_sample:
        header, pairs = written_form(competition, (), (), _named(rows).ids, label_names)
        tables = _answer_tables(competition, label_names, rows, None)
        return replace(tables, sample_header=header, sample_pairs=pairs), []
    if find_file(sample) is None:
        raise UserError(f"{shown_path(sample)} does not exist; a submission copies its columns")
    table, report = read_part(competition, sample, files.sample_submission)
    header, pairs = original_header(competition, table), []
    if table is not None:
        table, pairs = settle_sample(competition, table, rows.ids, label_names, report)
    check_sample(competition, table, label_names, report)  # as before a training: no column is missing or unknown
    raise_if_any([report])
    sample_ids, warnings = table.column(id_column), []
    if not rows.ids and files.ids.get(files.test) == "sample_order" and len(sample_ids) == len(rows.texts):
        rows = replace(rows, ids=tuple(sample_ids))
    if sorted(sample_ids) != sorted(_named(rows).ids):
        warnings = [f"{shown_path(sample)} has other rows; the answer is in the order of the texts"]
        sample_ids = list(rows.ids)
    tables = _answer_tables(competition, label_names, rows, table)
    header, pairs = written_form(competition, header, pairs, sample_ids, label_names)
    return replace(tables, sample_ids=np.array(sample_ids), sample_header=header, sample_pairs=pairs), warnings


def _named(rows: NewRows) -> NewRows:
    """The rows. Raises: UserError: they have no ids."""
    if not rows.ids:
        raise UserError("a submission needs the rows' ids, and these texts have none")
    return rows


def _answer_tables(
    competition: CompetitionSettings, label_names: tuple[str, ...], rows: NewRows, sample: TextTable | None
) -> Tables:
    names = np.array(rows.ids)
    nothing = np.zeros((0, len(label_names)), dtype=bool)
    return Tables(
        train_ids=np.array([], dtype=str),
        train_texts=[],
        labels=nothing,
        label_names=label_names,
        test_ids=names,
        test_texts=[],
        sample_columns=sample.header if sample else built_header(competition, label_names),
        sample_ids=names,
        sample_rows=tuple(map(tuple, sample.rows)) if sample else (),
        test_allowed=rows.allowed,
    )


def check_answer(data: bytes, path: Path, competition: CompetitionSettings, tables: Tables) -> None:
    """Check a submission's bytes before they are written; unlike `lint_submission` it allows the sample's own answers.

    Raises: UserError: every problem, with row numbers.
    """
    report = Problems(path)
    table = parse_table(data, submission_form(competition, "utf-8"), report)
    table = read_back(table, competition, tables, report) if table is not None else None
    if table is not None:
        check_submission_ids(table.column(competition.id_column), tables.sample_ids.tolist(), report)
        read_answers(table, competition, tables.answer_names, report)
        if competition.submission.form == "columns" and not report:
            check_number_format(table, tables, report)
    raise_if_any([report])


# ---------- predictions as a table, as JSON lines, or to be read.


@dataclass(frozen=True)
class Answered:
    """What a blend answers to new texts; A labels of a submission, of which L are learned."""

    rows: NewRows
    label_names: tuple[str, ...]
    """A names."""
    learned: Sequence[int]
    """Positions of the L learned labels among all."""
    probs: np.ndarray
    """float32 (n, A)."""
    decisions: np.ndarray | None
    """bool (n, A); None if the metric takes only probabilities."""
    scale: np.ndarray | None
    """As in `Tables`."""
    warnings: tuple[str, ...]

    @property
    def values(self) -> np.ndarray:
        """(n, A): the probabilities, or the values of a regression."""
        return self.probs if self.scale is None else to_values(self.probs, self.scale)

    def spread(self, of_learned: np.ndarray, rest: float) -> np.ndarray:
        """Numbers of the learned labels, (L,), as those of all, (A,); `rest` for the others."""
        whole = np.full(len(self.label_names), rest, of_learned.dtype)
        whole[list(self.learned)] = of_learned
        return whole


LABELS = "labels"
"""The column with the names of the decided labels, joined by JOINT."""
JOINT = "|"
SHOWN = 4
"""Labels shown per printed text; all decided ones are."""


def prediction_bytes(
    rows: NewRows, label_names: tuple[str, ...], probs: np.ndarray, decisions: np.ndarray | None, suffix: str
) -> bytes:
    """All rows as a file of that suffix.

    Args:   probs: float32 (n, L).   decisions: bool (n, L), or None if the metric takes only probabilities.
            suffix: `.csv`: id (or text, if there are no ids), a column per label, `labels`. `.jsonl`: an object per
            row: `id`, `text`, `probs` by name, `labels`.
    Raises: UserError: another suffix; label names that a CSV cannot tell apart.
    """
    if suffix == ".jsonl":
        return _json_lines(rows, label_names, probs, decisions)
    if suffix != ".csv":
        raise UserError(f"--output ends in {suffix!r}; expected .csv or .jsonl")
    first = "id" if rows.ids else "text"
    clash = [name for name in label_names if name in (first, LABELS) or JOINT in name]
    if clash:
        raise UserError(f"label {clash[0]!r} would be ambiguous in a CSV of predictions; write a .jsonl")
    header = [first, *label_names, *([] if decisions is None else [LABELS])]
    named = decided_names(label_names, decisions) if decisions is not None else [None] * len(probs)
    cells = (
        [name, *map(str, row), *([] if labels is None else [JOINT.join(labels)])]
        for name, row, labels in zip(rows.ids or rows.shown, probs, named, strict=True)
    )
    return table_bytes(header, cells)


def decided_names(label_names: tuple[str, ...], decisions: np.ndarray) -> list[list[str]]:
    """Names of each row's labels, in label order."""
    return [[label_names[k] for k in np.flatnonzero(row)] for row in decisions]


def prediction_lines(
    rows: NewRows, label_names: tuple[str, ...], probs: np.ndarray, decisions: np.ndarray | None
) -> list[str]:
    """Two lines per text: the text, and its most probable labels, with `*` after those that are decided."""
    lines = []
    for number, text in enumerate(rows.shown):
        decided = decisions[number] if decisions is not None else np.zeros(len(label_names), bool)
        order = np.lexsort((-probs[number], ~decided))
        shown = order[: max(SHOWN, int(decided.sum()))]
        words = [f"{label_names[k]} {probs[number, k]:.3f}{' *' if decided[k] else ''}" for k in shown]
        lines += [f"{rows.ids[number]}: {excerpt(text)}" if rows.ids else excerpt(text), f"  {', '.join(words)}"]
    return lines


def _json_lines(rows, label_names, probs, decisions) -> bytes:
    named = decided_names(label_names, decisions) if decisions is not None else None
    lines = []
    for number, text in enumerate(rows.shown):
        row = {"id": rows.ids[number]} if rows.ids else {}
        row |= {"text": text, "probs": {name: float(str(p)) for name, p in zip(label_names, probs[number])}}
        row |= {LABELS: named[number]} if named is not None else {}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines).encode()
