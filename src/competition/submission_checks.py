"""competition/: what must hold of an answer, checked on its cells as they stand in the file."""

from collections.abc import Sequence

import numpy as np

from competition.checks import check_ids, is_number
from competition.label_forms import LabelForm, read_labels
from competition.problems import Problems, excerpt, nearest, quoted
from competition.reading import TextTable
from competition.tables import Tables
from settings.competition import CompetitionSettings


def check_header(header: Sequence[str], expected: Sequence[str], problems: Problems) -> bool:
    """Whether the columns are the sample submission's, in its order."""
    if tuple(header) == tuple(expected):
        return True
    for name in expected:
        if name not in header:
            problems.add(f"column {name!r} is missing{nearest(name, header)}")
    for name in dict.fromkeys(header):
        if name not in expected:
            problems.add(f"column {name!r} is not in the sample submission{nearest(name, expected)}")
        elif list(header).count(name) > 1:
            problems.add(f"column {name!r} stands {list(header).count(name)} times")
    if not problems:
        problems.add(f"columns in another order: {quoted(header)}; expected {quoted(expected)}")
    return False


def check_submission_ids(ids: Sequence[str], expected: Sequence[str], problems: Problems) -> None:
    """The ids are the sample submission's, in its order."""
    before = problems.count
    check_ids(ids, "id", problems)
    there, known = set(ids), set(expected)
    if missing := [name for name in expected if name not in there]:
        problems.add(f"{len(missing)} ids of the sample submission are missing: {quoted(missing)}")
    strange = [row for row, name in enumerate(ids) if name not in known]
    problems.add_rows("unknown id", [(k, f"id {excerpt(ids[k])} is not in the sample submission") for k in strange])
    moved = [row for row, (name, other) in enumerate(zip(ids, expected, strict=False)) if name != other]
    if moved and problems.count == before:
        found = [(row, f"id {excerpt(ids[row])}; expected {excerpt(expected[row])} here") for row in moved]
        problems.add_rows("not in the sample submission's order", found)


def read_answers(
    table: TextTable, competition: CompetitionSettings, label_names: Sequence[str], problems: Problems
) -> np.ndarray:
    """The answers, (n_test, L): bool decisions, or float64 probabilities; cells of another form are problems."""
    if competition.submission.form == "probabilities":
        return _read_probabilities(table, label_names, problems)
    return read_labels(table, answer_form(competition, label_names), problems)


def _read_probabilities(table: TextTable, label_names: Sequence[str], problems: Problems) -> np.ndarray:
    probs = np.zeros((len(table.rows), len(label_names)))
    for k, name in enumerate(label_names):
        cells = table.column(name)
        bad = [row for row, cell in enumerate(cells) if not (is_number(cell) and 0.0 <= float(cell) <= 1.0)]
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected a number from 0 to 1") for row in bad]
        problems.add_rows(f"{name!r} not a probability", found)
        if not bad:
            probs[:, k] = [float(cell) for cell in cells]
    return probs


def answer_form(competition: CompetitionSettings, label_names: Sequence[str]) -> LabelForm:
    """How a submission without probabilities writes labels."""
    answer, one_a_row = competition.submission, competition.task == "multiclass"
    return LabelForm(answer.form, tuple(label_names), answer.column, answer.delimiter, answer.values, one_a_row)


def check_number_format(table: TextTable, tables: Tables, problems: Problems) -> None:
    """1 where the sample submission has 1, and 1.0 where it has 1.0."""
    pointed = pointed_columns(tables)
    for name in tables.label_names:
        ours = set(table.column(name))
        expected = {"0.0", "1.0"} if name in pointed else {"0", "1"}
        if not ours <= expected:
            wrong, right = quoted(sorted(ours - expected)), quoted(sorted(expected))
            problems.add(f"column {name!r} holds {wrong}; expected {right}, as the sample submission writes it")


def pointed_columns(tables: Tables) -> set[str]:
    """Columns in which the sample submission writes numbers with a decimal point."""
    columns = enumerate(tables.sample_columns)
    return {name for k, name in columns if any("." in row[k] for row in tables.sample_rows)}
