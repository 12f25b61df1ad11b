"""Train, test and sample submission: rows checked, texts built, before anything is trained on them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldblend.data.fetch import how_to_get
from foldblend.data.labels import ZERO_ONE, LabelForm, read_labels
from foldblend.data.reading import FileForm, Problems, TextTable, excerpt, nearest, quoted, raise_if_any, read_table
from foldblend.settings.competition import CompetitionSettings, TextSettings

# ---------- checks of ids, texts, labels and the sample submission; each adds what it finds to `problems`.


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A finite decimal number; `float` would also take nan, inf and 1_000."""

LONGEST_ID = 256
"""Characters; a longer id is surely a text column."""


def check_rows(
    table: TextTable, id_column: str, texts: Sequence[str], others: Sequence[str], problems: Problems
) -> None:
    """Columns, ids and texts of one file; `others` are columns that must be there and are read elsewhere."""
    check_columns(table, (id_column, *texts, *others), problems)
    if id_column in table.header:
        check_ids(table.column(id_column), id_column, problems)
    check_texts(table, [name for name in texts if name in table.header], problems)


def check_columns(table: TextTable, needed: Sequence[str], problems: Problems) -> None:
    """Every needed column is there once; for a missing one the nearest name is given."""
    counts = Counter(table.header)
    for name, times in counts.items():
        if times > 1 and name:
            problems.add(f"column {name!r} appears {times} times in the header; expected once")
    for name in dict.fromkeys(needed):
        if name not in counts:
            hint = nearest(name, counts) or f"; the file's columns are {quoted(counts)}"
            problems.add(f"column {name!r} is missing{hint}")


def check_ids(ids: Sequence[str], column: str, problems: Problems) -> None:
    """Every row has an id of its own."""
    empty = [row for row, name in enumerate(ids) if not name.strip()]
    problems.add_rows(f"empty {column!r}", [(row, f"{column!r} is empty") for row in empty])
    odd = [row for row, name in enumerate(ids) if len(name) > LONGEST_ID or "\0" in name]
    problems.add_rows(
        f"{column!r} not an id",
        [(row, f"{column!r} is {excerpt(ids[row])}: no id has a NUL or over {LONGEST_ID} characters") for row in odd],
    )
    first, doubled = {}, []
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row and name.strip():
            doubled.append(
                (row, f"{column!r} {excerpt(name)} is also in row {problems.row_numbers[first[name]]}; ids must differ")
            )
    problems.add_rows(f"doubled {column!r}", doubled)


def check_texts(table: TextTable, columns: Sequence[str], problems: Problems) -> None:
    """Every text column says something in every row."""
    for column in columns:
        empty = [row for row, text in enumerate(table.column(column)) if not text.strip().strip("\0 \t\r\n")]
        problems.add_rows(f"empty {column!r}", [(row, f"{column!r} is empty; expected a text") for row in empty])


def check_label_counts(labels: np.ndarray, names: Sequence[str], n_folds: int, problems: Problems) -> None:
    """Every label can be learned in every fold: a positive in each, and not in all rows."""
    for name, positives in zip(names, labels.sum(axis=0).tolist(), strict=True):
        if positives < n_folds:
            fits = f"set n_folds: {positives}, " if positives >= 2 else ""
            problems.add(
                f"label {name!r} has {positives} positive rows, fewer than the {n_folds} folds, and each needs one: "
                f"{fits}merge it into another label in the files and labels.names, or add rows that carry it"
            )
        elif positives == len(labels):
            problems.add(f"label {name!r} is positive in all {positives} rows: there is nothing to learn, take it out")


def check_sample_ids(sample_ids: Sequence[str], test_ids: Sequence[str], test_file: str, problems: Problems) -> None:
    """The sample submission names each test row once."""
    in_sample, in_test = set(sample_ids), set(test_ids)
    missing = [name for name in test_ids if name not in in_sample]
    if missing:
        problems.add(f"{len(missing)} ids of {test_file} are missing: {quoted(missing)}")
    extra = [row for row, name in enumerate(sample_ids) if name not in in_test]
    found = [(row, f"id {excerpt(sample_ids[row])} is not in {test_file}") for row in extra]
    problems.add_rows(f"id not in {test_file}", found)


def check_sample_numbers(table: TextTable, columns: Sequence[str], form: str, problems: Problems) -> None:
    """The sample's answers are what submission.form says: 0 and 1, or numbers."""
    for name in columns:
        cells = table.column(name)
        bad = [row for row, cell in enumerate(cells) if not _is_answer(cell, form)]
        expected = "0 or 1 as submission.form is columns" if form == "columns" else "a number"
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected {expected}") for row in bad]
        problems.add_rows(f"{name!r} of another form", found)


def _is_answer(cell: str, form: str) -> bool:
    return cell in ZERO_ONE if form == "columns" else is_number(cell)


def is_number(cell: str) -> bool:
    """Whether a cell is a finite decimal number."""
    return NUMBER.fullmatch(cell) is not None


# ---------- the three files.


@dataclass(frozen=True)
class Tables:
    """A competition's three files; N training rows, n_test test rows, L labels, ids always text."""

    train_ids: np.ndarray
    """(N,) str, in the order of the training file."""
    train_texts: list[str]
    """N texts, template applied."""
    labels: np.ndarray
    """(N, L) bool; if the task is multiclass, exactly one True per row."""
    label_names: tuple[str, ...]
    """L names, in submission order."""
    test_ids: np.ndarray
    """(n_test,) str, in the order of the test file."""
    test_texts: list[str]
    """n_test texts, template applied."""
    sample_columns: tuple[str, ...]
    """Columns of the sample submission, in order."""
    sample_ids: np.ndarray
    """(n_test,) str: the test ids in the order of the sample submission."""
    sample_rows: tuple[tuple[str, ...], ...] = ()
    """n_test rows of the sample submission as written; a submission copies their number format."""
    groups: np.ndarray | None = None
    """(N,) str: the user's group of each training row, an empty one being a row by itself; None without `groups`."""
    train_contents: list[str] | None = None
    """N texts without the literal words of text.template, which say nothing about which rows are the same; None if the
    template has no words of its own."""

    @property
    def compared_texts(self) -> list[str]:
        """What duplicates are looked for in, N texts."""
        return self.train_texts if self.train_contents is None else self.train_contents

    def without_texts(self) -> "Tables":
        """The same with less memory, for whoever does not read the texts."""
        return replace(self, train_texts=[], test_texts=[], train_contents=None)


def load_tables(competition: CompetitionSettings, data_dir: Path) -> Tables:
    """Read and check the three files in data/<competition>/.

    Raises: UserError: every problem of every file, with row numbers, in one message.
    """
    names = (competition.files.train, competition.files.test, competition.files.sample_submission)
    reports = [Problems(data_dir / name) for name in names]
    forms = [data_form(competition), data_form(competition), submission_form(competition, competition.files.encoding)]
    train, test, sample = (_read(competition, form, report) for form, report in zip(forms, reports, strict=True))
    train_report, test_report, sample_report = reports

    label_names = check_sample(competition, sample, competition.labels.submitted, sample_report)
    labels = _check_train(competition, train, label_names, train_report)
    if test:
        check_rows(test, competition.id_column, competition.text.columns, (), test_report)
    if test and sample and not test_report and not sample_report:
        id_column, test_file = competition.id_column, competition.files.test
        check_sample_ids(sample.column(id_column), test.column(id_column), test_file, sample_report)
    raise_if_any(reports)
    return Tables(
        train_ids=np.array(train.column(competition.id_column)),
        train_texts=build_texts(train, competition.text),
        labels=labels,
        label_names=label_names,
        test_ids=np.array(test.column(competition.id_column)),
        test_texts=build_texts(test, competition.text),
        sample_columns=sample.header,
        sample_ids=np.array(sample.column(competition.id_column)),
        sample_rows=tuple(map(tuple, sample.rows)),
        groups=np.array([cell.strip() for cell in train.column(competition.groups)]) if competition.groups else None,
        train_contents=build_contents(train, competition.text),
    )


def data_form(competition: CompetitionSettings) -> FileForm:
    """How train and test file are written."""
    files = competition.files
    return FileForm(files.encoding, files.separator, files.quoting)


def submission_form(competition: CompetitionSettings, encoding: str) -> FileForm:
    """How the sample submission is written; our answer is written the same way, in utf-8."""
    return FileForm(encoding, competition.submission.separator, "minimal", "submission.separator")


def train_label_form(competition: CompetitionSettings, label_names: Sequence[str]) -> LabelForm:
    """How train.csv writes labels; `label_names` are those of a submission."""
    labels, one_a_row = competition.labels, competition.task == "multiclass"
    names = labels.names if labels.groups else tuple(label_names)
    groups = tuple(labels.groups.values())
    return LabelForm(labels.form, names, labels.column, labels.delimiter, labels.values, one_a_row, groups)


def build_texts(table: TextTable, text: TextSettings) -> list[str]:
    """One text per row. Only the template is a pattern: braces in a text stay as they are.

    Example: columns title, body; template "{title} | {body}" -> "Hi {you} | ..." for the title "Hi {you}".
    """
    columns = {name: table.column(name) for name in text.columns}
    if not text.template:
        return [" ".join(parts) for parts in zip(*columns.values(), strict=True)]
    pieces = [(literal, name) for literal, name, _, _ in string.Formatter().parse(text.template)]
    return [
        "".join(literal + (columns[name][row] if name is not None else "") for literal, name in pieces)
        for row in range(len(table.rows))
    ]


def build_contents(table: TextTable, text: TextSettings) -> list[str] | None:
    """The cells of one row as one text, without the literal words of the template; None if it has none."""
    literals = "".join(literal for literal, _, _, _ in string.Formatter().parse(text.template))
    if not any(character.isalnum() for character in literals):
        return None
    columns = [table.column(name) for name in text.columns]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]


def _read(competition: CompetitionSettings, form: FileForm, report: Problems) -> TextTable | None:
    if not report.path.is_file():
        report.add(f"missing. {how_to_get(report.path.parent.name, competition.files)}")
        return None
    return read_table(report.path, form, report)


def _check_train(
    competition: CompetitionSettings, table: TextTable | None, names: tuple[str, ...], report: Problems
) -> np.ndarray | None:
    """Labels (N, L) bool of the training file, after every check of it; None if they cannot be read."""
    if table is None:
        return None
    form = train_label_form(competition, names)
    others = (*form.columns, *([competition.groups] if competition.groups else []))
    check_rows(table, competition.id_column, competition.text.columns, others, report)
    if not names or not set(form.columns) <= set(table.header):
        return None
    before = report.count
    labels = read_labels(table, form, report)
    if report.count == before:
        check_label_counts(labels, names, competition.n_folds, report)
    return labels


def check_sample(
    competition: CompetitionSettings, table: TextTable | None, names: tuple[str, ...], report: Problems
) -> tuple[str, ...]:
    """Check ids, columns and cells of the sample submission.

    Args:    names: the labels that it must have; empty takes them from its header.
    Returns: the label names; empty if there are none anywhere.
    """
    answer, id_column = competition.submission, competition.id_column
    if table is None:
        return names
    in_columns = answer.form in ("columns", "probabilities")
    if not names:
        names = tuple(dict.fromkeys(name for name in table.header if name != id_column))
        if not names:
            report.add(
                f"only column {id_column!r}; expected one column per label, or labels.names and submission.column"
            )
    answers = names if in_columns else (answer.column,)
    check_rows(table, id_column, (), answers, report)
    what = "a label of labels.names" if in_columns else f"the answer column {answer.column!r}"
    strange = [name for name in dict.fromkeys(table.header) if name not in (id_column, *answers)]
    if strange:
        report.add(f"column {quoted(strange)}: expected only {id_column!r} and {what}")
    if in_columns:
        check_sample_numbers(table, [name for name in answers if name in table.header], answer.form, report)
    return names
