"""competition/: train, test and sample submission, read and checked before anything is trained on them."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from competition.checks import check_label_counts, check_rows, check_sample_ids, check_sample_numbers
from competition.fetch import how_to_get
from competition.label_forms import LabelForm, read_labels
from competition.problems import Problems, quoted, raise_if_any
from competition.reading import FileForm, TextTable, read_table
from settings.competition import CompetitionSettings, TextSettings


@dataclass(frozen=True)
class Tables:
    """A competition's three files; N training rows, n_test test rows, L labels, ids always text."""

    train_ids: np.ndarray
    """(N,) str, in the order of the training file."""
    train_texts: list[str]
    """N texts, template applied."""
    labels: np.ndarray
    """(N, L) bool; exactly one True a row where the task is multiclass."""
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
    """n_test rows of the sample submission as written, whose number format a submission copies."""

    def without_texts(self) -> "Tables":
        """The same for whoever needs the memory more than the texts."""
        return replace(self, train_texts=[], test_texts=[])


def load_tables(competition: CompetitionSettings, data_dir: Path) -> Tables:
    """Read and check the three files in data/<competition>/.

    Raises: ValueError: every problem of every file, with row numbers, in one message.
    """
    names = (competition.files.train, competition.files.test, competition.files.sample_submission)
    reports = [Problems(data_dir / name) for name in names]
    forms = [data_form(competition), data_form(competition), submission_form(competition, competition.files.encoding)]
    train, test, sample = (_read(competition, form, report) for form, report in zip(forms, reports, strict=True))
    train_report, test_report, sample_report = reports

    label_names = _check_sample(competition, sample, sample_report)
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
    )


def data_form(competition: CompetitionSettings) -> FileForm:
    """How train and test file are written."""
    files = competition.files
    return FileForm(files.encoding, files.separator, files.quoting)


def submission_form(competition: CompetitionSettings, encoding: str) -> FileForm:
    """How the sample submission is written, and in utf-8 our answer."""
    return FileForm(encoding, competition.submission.separator, "minimal", "submission.separator")


def train_label_form(competition: CompetitionSettings, label_names: Sequence[str]) -> LabelForm:
    """How train.csv writes labels; `label_names` are those that are handed in."""
    labels, one_a_row = competition.labels, competition.task == "multiclass"
    names = labels.names if labels.groups else tuple(label_names)
    groups = tuple(labels.groups.values())
    return LabelForm(labels.form, names, labels.column, labels.delimiter, labels.values, one_a_row, groups)


def build_texts(table: TextTable, text: TextSettings) -> list[str]:
    """One text a row. Only the template is a pattern: braces inside a text stay what they are.

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


def _read(competition: CompetitionSettings, form: FileForm, report: Problems) -> TextTable | None:
    if not report.path.is_file():
        report.add(f"not there. {how_to_get(report.path.parent.name, competition.files)}")
        return None
    return read_table(report.path, form, report)


def _check_train(
    competition: CompetitionSettings, table: TextTable | None, names: tuple[str, ...], report: Problems
) -> np.ndarray | None:
    """Labels (N, L) bool of the training file, after every check of it; None where they cannot be told."""
    if table is None:
        return None
    form = train_label_form(competition, names)
    check_rows(table, competition.id_column, competition.text.columns, form.columns, report)
    if not names or not set(form.columns) <= set(table.header):
        return None
    before = report.count
    labels = read_labels(table, form, report)
    if report.count == before:
        check_label_counts(labels, names, competition.n_folds, report)
    return labels


def _check_sample(competition: CompetitionSettings, table: TextTable | None, report: Problems) -> tuple[str, ...]:
    """The label names, given or taken from the sample submission; empty where neither can be had."""
    names, answer, id_column = competition.labels.answered, competition.submission, competition.id_column
    if table is None:
        return names
    in_columns = answer.form in ("columns", "probabilities")
    if not names:
        names = tuple(dict.fromkeys(name for name in table.header if name != id_column))
        if not names:
            report.add(f"only column {id_column!r}; expected one column a label, or labels.names and submission.column")
    answers = names if in_columns else (answer.column,)
    check_rows(table, id_column, (), answers, report)
    what = "a label of labels.names" if in_columns else f"the answer column {answer.column!r}"
    strange = [name for name in dict.fromkeys(table.header) if name not in (id_column, *answers)]
    if strange:
        report.add(f"column {quoted(strange)}: expected only {id_column!r} and {what}")
    if in_columns:
        check_sample_numbers(table, [name for name in answers if name in table.header], answer.form, report)
    return names
