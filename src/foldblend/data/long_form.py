"""Submissions with one row per pair of row and label, as `t0_joy,0.5`, and the same as one row per id.

Everything else works on one row per id and one column per label; only reading and writing a file knows both.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foldblend.data.reading import Problems, TextTable, excerpt, quoted
from foldblend.settings.competition import CompetitionSettings

Pair = tuple[str, str]
"""The id and the label of a row."""


@dataclass(frozen=True)
class LongForm:
    """How a file has one row per pair of row and label."""

    row_id: str
    """`{id}_{label}`; empty if the label has a column of its own."""
    label_column: str
    """The column of labels; empty if `row_id` has them."""
    column: str
    """The column of answers."""
    id_column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a file that is built without a sample submission."""
        return tuple(filter(None, (self.id_column, self.label_column, self.column)))

    def write_id(self, pair: Pair) -> str:
        """What stands in the column of ids.

        Example: `{id}_{label}`, ("t0", "joy") -> "t0_joy"
        """
        return self.row_id.replace("{id}", pair[0], 1).replace("{label}", pair[1], 1) if self.row_id else pair[0]


def long_form(competition: CompetitionSettings) -> LongForm | None:
    """The long form that `submission` states; None if it has one row per id."""
    answer = competition.submission
    if not (answer.row_id or answer.label_column):
        return None
    return LongForm(answer.row_id, answer.label_column, answer.column, competition.id_column)


def read_pairs(table: TextTable, form: LongForm, label_names: Sequence[str], report: Problems) -> list[Pair] | None:
    """The pair of each row; None if a row has none, which is a problem."""
    needed = (form.id_column, *filter(None, (form.label_column,)), form.column)
    missing = [name for name in needed if name not in table.header]
    for name in missing:
        report.add(f"column {name!r} is missing; the file's columns are {quoted(table.header)}")
    if missing:
        return None
    ids = table.column(form.id_column)
    if form.label_column:
        pairs = list(zip(ids, table.column(form.label_column), strict=True))
        bad = [row for row, (_, label) in enumerate(pairs) if label not in label_names]
    else:
        names = "|".join(map(re.escape, sorted(label_names, key=len, reverse=True)))
        pattern = re.escape(form.row_id).replace(r"\{id\}", "(?P<id>.+)").replace(r"\{label\}", f"(?P<label>{names})")
        found = [re.fullmatch(pattern, cell, re.DOTALL) for cell in ids]
        bad = [row for row, one in enumerate(found) if one is None]
        pairs = [(one["id"], one["label"]) if one else ("", "") for one in found]
    expected = f"{form.row_id} with a label of {quoted(label_names)}" if form.row_id else quoted(label_names)
    cells = ids if form.row_id else table.column(form.label_column)
    report.add_rows("no pair", [(row, f"{excerpt(cells[row])} is no pair; expected {expected}") for row in bad])
    return None if bad else pairs


def widen(table: TextTable, form: LongForm, label_names: Sequence[str], report: Problems) -> TextTable | None:
    """One row per id and one column per label, in the order of the ids; None if a pair is missing or there twice."""
    pairs = read_pairs(table, form, label_names, report)
    if pairs is None:
        return None
    answers: dict[Pair, str] = {}
    twice = []
    for row, (pair, cell) in enumerate(zip(pairs, table.column(form.column), strict=True)):
        if pair in answers:
            twice.append((row, f"{pair[0]!r} with {pair[1]!r} is there twice; expected one row per pair"))
        answers[pair] = cell
    ids = list(dict.fromkeys(name for name, _ in pairs))
    missing = [form.write_id((name, label)) for name in ids for label in label_names if (name, label) not in answers]
    report.add_rows("doubled pair", twice)
    if missing:
        report.add(f"{len(missing)} pairs of a row and a label are missing: {quoted(missing)}")
    if missing or twice:
        return None
    report.row_numbers = report.line_numbers = range(1, len(ids) + 1)
    return TextTable(
        (form.id_column, *label_names), [[name, *(answers[name, label] for label in label_names)] for name in ids]
    )


def pairs_of(ids: Sequence[str], label_names: Sequence[str]) -> list[Pair]:
    """Every pair, by id and then by label."""
    return [(name, label) for name in ids for label in label_names]


def guess_row_id(cells: Sequence[str], test_ids: Sequence[str], label_names: Sequence[str]) -> str:
    """The `row_id` by which a sample submission's ids are test ids and labels; empty if there is none.

    Example: ["t0_joy", "t0_fear"], ["t0"], ["joy", "fear"] -> "{id}_{label}"
    """
    if not cells or len(set(cells)) != len(test_ids) * len(label_names):
        return ""
    for glue in GLUES:
        for row_id in (f"{{id}}{glue}{{label}}", f"{{label}}{glue}{{id}}"):
            form = LongForm(row_id, "", "", "")
            if {form.write_id(pair) for pair in pairs_of(test_ids, label_names)} == set(cells):
                return row_id
    return ""


GLUES = ("_", "-", ":", "|", "/", ".", "__", " ", "")
"""What is written between an id and a label."""
