"""New texts, and what is predicted for them: a table, JSON lines, lines to read, or a submission."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldblend.data.reading import (
    Problems,
    excerpt,
    parse_table,
    raise_if_any,
    read_table,
    shortened,
    shown_path,
    table_bytes,
)
from foldblend.data.tables import (
    Tables,
    build_texts,
    check_columns,
    check_ids,
    check_sample,
    data_form,
    submission_form,
)
from foldblend.errors import UserError
from foldblend.files import read_bytes
from foldblend.settings.competition import CompetitionSettings
from foldblend.submission.answers import check_header, check_number_format, check_submission_ids, read_answers

# ---------- the texts.


@dataclass(frozen=True)
class NewRows:
    """Texts to predict."""

    ids: tuple[str, ...]
    """As the file has them; empty if it has none."""
    texts: tuple[str, ...]
    """At least one; an empty one is predicted as it is."""

    def warnings(self) -> list[str]:
        """What is unusual about them, as sentences."""
        empty = [str(row + 1) for row, text in enumerate(self.texts) if not text.strip()]
        return [f"{len(empty)} empty texts are predicted as they are: row {shortened(empty)}"] if empty else []


def read_rows(path: Path, competition: CompetitionSettings) -> NewRows:
    """The rows of a file in the competition's form, or of one whose name ends in .jsonl.

    A line of .jsonl is an object with `text`; all lines or none have an id (`id`, or the competition's id column).
    Raises: UserError: every problem of the file, with row numbers.
    """
    report = Problems(path)
    if not path.is_file():
        raise UserError(f"{shown_path(path)} does not exist")
    rows = _read_jsonl(path, competition, report) if path.suffix == ".jsonl" else _read_csv(path, competition, report)
    raise_if_any([report])
    return rows


def typed_rows(texts: Sequence[str]) -> NewRows:
    """Texts from the command line. Raises: UserError: one is no Unicode."""
    wrong = [number for number, text in enumerate(texts, start=1) if not _is_unicode(text)]
    if wrong:
        raise UserError(f"--text {wrong[0]} holds bytes that are no UTF-8")
    return NewRows((), tuple(texts))


def _read_csv(path: Path, competition: CompetitionSettings, report: Problems) -> NewRows | None:
    table = read_table(path, data_form(competition), report)
    if table is None:
        return None
    id_column, columns = competition.id_column, competition.text.columns
    check_columns(table, (id_column, *columns), report)
    if not {id_column, *columns} <= set(table.header):
        return None
    check_ids(table.column(id_column), id_column, report)
    return NewRows(tuple(table.column(id_column)), tuple(build_texts(table, competition.text)))


def _read_jsonl(path: Path, competition: CompetitionSettings, report: Problems) -> NewRows | None:
    lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    report.row_numbers = report.line_numbers = range(1, len(lines) + 1)
    found = [_parse_line(line) for line in lines]
    report.add_rows("broken", [(row, one) for row, one in enumerate(found) if isinstance(one, str)])
    if not lines:
        report.add("the file has no line; expected one per text")
    if report:
        return None
    keys = [next((key for key in (competition.id_column, "id") if key in one), None) for one in found]
    ids = tuple(str(one[key]) for one, key in zip(found, keys, strict=True) if key)
    if ids and len(ids) < len(found):
        report.add(f"{len(ids)} of {len(found)} rows have an id; expected all or none")
    elif ids:
        check_ids(ids, competition.id_column, report)
    return NewRows(ids, tuple(one["text"] for one in found))


def _parse_line(line: bytes) -> dict | str:
    """The object of a line, or a sentence on what it is instead."""
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return 'expected an object with a `text`, as {"text": "..."}'
    return value if _is_unicode(value["text"]) else "`text` holds half a surrogate pair, which is no Unicode"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def answer_tables(
    competition: CompetitionSettings, label_names: tuple[str, ...], rows: NewRows, sample: Path
) -> tuple[Tables, list[str]]:
    """Tables for `build_submission`, with no training rows; and what is odd, as sentences.

    Columns and number format are the sample submission's. So is the order of the rows if it has just these rows; if it
    has others, the rows keep their own order.
    Raises: UserError: rows without ids; no sample submission, or one with other columns, ids or cells than expected.
    """
    if not rows.ids:
        raise UserError("a submission needs the rows' ids, and these texts have none")
    report = Problems(sample)
    if not sample.is_file():
        raise UserError(f"{shown_path(sample)} does not exist; a submission copies its columns")
    table = read_table(sample, submission_form(competition, competition.files.encoding), report)
    check_sample(competition, table, label_names, report)  # as before a training: no column is missing or unknown
    raise_if_any([report])
    sample_ids, warnings = table.column(competition.id_column), []
    if sorted(sample_ids) != sorted(rows.ids):
        warnings = [f"{shown_path(sample)} has other rows; the answer is in the order of the texts"]
        sample_ids = list(rows.ids)
    names = np.array(rows.ids)
    nothing = np.zeros((0, len(label_names)), dtype=bool)
    tables = Tables(
        train_ids=np.array([], dtype=str),
        train_texts=[],
        labels=nothing,
        label_names=label_names,
        test_ids=names,
        test_texts=[],
        sample_columns=table.header,
        sample_ids=np.array(sample_ids),
        sample_rows=tuple(map(tuple, table.rows)),
    )
    return tables, warnings


def check_answer(data: bytes, path: Path, competition: CompetitionSettings, tables: Tables) -> None:
    """Check a submission's bytes before they are written; unlike `lint_submission` it allows the sample's own answers.

    Raises: UserError: every problem, with row numbers.
    """
    report = Problems(path)
    table = parse_table(data, submission_form(competition, "utf-8"), report)
    if table is not None and check_header(table.header, tables.sample_columns, report):
        check_submission_ids(table.column(competition.id_column), tables.sample_ids.tolist(), report)
        read_answers(table, competition, tables.answer_names, report)
        if competition.submission.form == "columns" and not report:
            check_number_format(table, tables, report)
    raise_if_any([report])


# ---------- predictions as a table, as JSON lines, or to be read.


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
        for name, row, labels in zip(rows.ids or rows.texts, probs, named, strict=True)
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
    for number, text in enumerate(rows.texts):
        decided = decisions[number] if decisions is not None else np.zeros(len(label_names), bool)
        order = np.lexsort((-probs[number], ~decided))
        shown = order[: max(SHOWN, int(decided.sum()))]
        words = [f"{label_names[k]} {probs[number, k]:.3f}{' *' if decided[k] else ''}" for k in shown]
        lines += [f"{rows.ids[number]}: {excerpt(text)}" if rows.ids else excerpt(text), f"  {', '.join(words)}"]
    return lines


def _json_lines(rows, label_names, probs, decisions) -> bytes:
    named = decided_names(label_names, decisions) if decisions is not None else None
    lines = []
    for number, text in enumerate(rows.texts):
        row = {"id": rows.ids[number]} if rows.ids else {}
        row |= {"text": text, "probs": {name: float(str(p)) for name, p in zip(label_names, probs[number])}}
        row |= {LABELS: named[number]} if named is not None else {}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines).encode()
