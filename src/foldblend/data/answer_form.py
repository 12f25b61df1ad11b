"""The form of a submission: its rows and columns, one row per id or per pair, and labels that are the same in all."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.data.labels import Targets, as_yaml, is_number
from foldblend.data.reading import Problems, TextTable, excerpt, quoted
from foldblend.settings.competition import IN_COLUMNS, CompetitionSettings

# ---------- one row per pair of row and label, as `t0_joy,0.5`, and the same as one row per id.
#
# Everything else works on one row per id and one column per label; only reading and writing a file knows both.

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
    """The pair of each row; None if a row has none, or a column is missing or unknown, which is a problem."""
    needed = (form.id_column, *filter(None, (form.label_column,)), form.column)
    missing = [name for name in needed if name not in table.header]
    others = [name for name in table.header if name not in needed]
    if missing == [form.column] and len(others) == 1:
        report.add(
            f"column {form.column!r} is missing, and {others[0]!r} is there in its place. Set submission.column: "
            f"{as_yaml(others[0])}"
        )
        return None
    for name in missing:
        report.add(f"column {name!r} is missing; the file's columns are {quoted(table.header)}")
    strange = [name for name in dict.fromkeys(table.header) if name not in needed]
    if strange:
        report.add(f"column {quoted(strange)}: expected only {quoted(needed)}, one row per pair of row and label")
    doubled = [name for name in needed if table.header.count(name) > 1]
    for name in doubled:
        report.add(f"column {name!r} appears {table.header.count(name)} times in the header; expected once")
    if missing or strange or doubled:
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


# ---------- rows and columns.


def match_sample_ids(
    sample_ids: Sequence[str], test_ids: Sequence[str], rows_from: str, test_file: str, report: Problems
) -> Sequence[str]:
    """The ids of a submission in its order: the sample submission's if they are the test file's.

    A sample submission that lacks rows only shows the form. One with rows that the test file lacks cannot be satisfied.

    Args: rows_from: `files.answer_rows`.
    """
    in_sample, in_test = set(sample_ids), set(test_ids)
    if in_sample == in_test:
        return sample_ids if rows_from == "sample" else test_ids
    missing = [name for name in test_ids if name not in in_sample]
    lacks = f"{len(missing)} ids of {test_file} are missing: {quoted(missing)}"
    extra = [row for row, name in enumerate(sample_ids) if name not in in_test]
    if rows_from == "test" or not extra:
        other = f"; {len(extra)} of its ids are not in {test_file}" if extra else ""
        report.notes.append(f"{lacks}{other}. Submissions have the {len(test_ids)} rows of {test_file}, in its order")
        return test_ids
    if missing:
        report.add(lacks)
    found = [(row, f"id {excerpt(sample_ids[row])} is not in {test_file}") for row in extra]
    report.add_rows(f"id not in {test_file}", found)
    numbers = [{float(cell) for cell in cells if is_number(cell)} for cells in (in_sample, in_test)]
    if len(numbers[0]) == len(in_sample) and numbers[0] == numbers[1]:
        report.advise(
            f"both have the same numbers, written as {excerpt(sample_ids[0])} and {excerpt(test_ids[0])}: expected the "
            f"ids of {test_file} as the sample submission writes them"
        )
        return test_ids
    folded = [{cell.strip().casefold() for cell in cells} for cells in (in_sample, in_test)]
    if folded[0] == folded[1]:
        report.advise(
            f"they are the same but for blanks or case, as {excerpt(sample_ids[0])}: expected the ids of "
            f"{test_file} as the sample submission writes them"
        )
        return test_ids
    report.advise(
        f"if the sample submission is out of date, set files.answer_rows: test, which answers all of {test_file}"
    )
    return test_ids


def written_form(
    competition: CompetitionSettings,
    sample_header: tuple[str, ...],
    sample_pairs: Sequence[Pair],
    ids: Sequence[str],
    label_names: Sequence[str],
) -> tuple[tuple[str, ...], tuple[Pair, ...]]:
    """The columns and the pairs of a submission as it is written, for the rows `ids`; no pairs for one row per id."""
    form = long_form(competition)
    if form is None:
        return sample_header, ()
    is_same = {name for name, _ in sample_pairs} == set(ids)
    return sample_header or form.columns, tuple(sample_pairs if is_same else pairs_of(ids, label_names))


def built_header(competition: CompetitionSettings, label_names: Sequence[str]) -> tuple[str, ...]:
    """Columns of a submission without a sample: the id and what `submission` states."""
    answer = competition.submission
    in_columns = answer.form in IN_COLUMNS
    return (competition.id_column, *(label_names if in_columns else (answer.column,)))


# ---------- labels that are not learned, but answered by a constant.


@dataclass(frozen=True)
class Constant:
    """A label of the answer that is the same in every row."""

    name: str
    probability: float
    """What a submission of probabilities says; decisions are yes from 0.5 on."""
    reason: str
    """`none of 2,000 rows has it`."""

    @property
    def is_positive(self) -> bool:
        return self.probability >= 0.5


def find_constants(
    targets: Targets, names: Sequence[str], stated: Mapping[str, float], absent: Iterable[str], one_a_row: bool
) -> list[Constant]:
    """The labels that nothing can be learned about, or that the user answers by a constant; in the order of `names`.

    A label needs two rows with it, so that one can be learned from while the other is held out, and one without it. A
    class needs one. Its probability is the smoothed rate of the training rows, so that a log loss stays finite.

    Args: targets: of all `names`.   stated: `labels.constants`.   absent: labels that train.csv has no column of.
    """
    absent, found = set(absent), []
    for k, name in enumerate(names):
        if name in stated:
            n_rows = int(targets.labels[:, k].sum()) if one_a_row else 0  # of a class, these teach nothing else
            rows_with_it = f"; {n_rows:,} rows have it, whose answers count as wrong" if n_rows else ""
            found.append(Constant(name, float(stated[name]), f"labels.constants says so{rows_with_it}"))
            continue
        known = targets.known[:, k] if targets.known is not None else np.ones(len(targets.labels), bool)
        rows, positives = int(known.sum()), int(targets.labels[:, k].sum())
        reason = f"{positives:,} of {rows:,} rows {'has' if positives == 1 else 'have'} it"
        if name in absent:
            found.append(Constant(name, 0.0, "the training file has no column of it"))
        elif not rows:
            found.append(Constant(name, 0.0, "it is unknown in every row"))
        elif positives == 0 or (not one_a_row and positives in (1, rows)):
            probability = (positives + 0.5) / (rows + 1)
            found.append(Constant(name, probability if positives == rows else min(probability, 0.49), reason))
    return found


def constants_record(constants: Sequence[Constant], all_names: Sequence[str]) -> dict:
    """As a blend's record keeps them: what predicting new rows needs, as plain values; empty if there are none."""
    if not constants:
        return {}
    answers = {each.name: each.probability for each in constants}
    return {"constants": {"label_names": list(all_names), "answers": answers}}


def recorded_constants(record: Mapping, label_names: Sequence[str]) -> tuple[tuple[str, ...], list[Constant]]:
    """(names of all labels of a submission, the constant ones) of a blend's record; `label_names` are those learned."""
    stored = record.get("constants")
    if not stored:
        return tuple(label_names), []
    return tuple(stored["label_names"]), [Constant(name, value, "") for name, value in stored["answers"].items()]


def constant_lines(constants: Sequence[Constant], n_labels: int) -> list[str]:
    """What a user must know about labels that are answered by a constant; empty if there are none.

    Args: n_labels: of the answer, the constant ones included.
    """
    if not constants:
        return []
    verb = "is" if len(constants) == 1 else "are"
    lines = [f"{len(constants)} of {n_labels} labels {verb} not learned, but answered by a constant in every row:"]
    by_reason: dict[tuple[str, bool], list[str]] = {}
    for each in constants:
        by_reason.setdefault((each.reason, each.is_positive), []).append(each.name)
    lines += [
        f"  {quoted(names)}: {'yes' if is_positive else 'no'}, as {reason}"
        for (reason, is_positive), names in by_reason.items()
    ]
    left = n_labels - len(constants)
    return [
        *lines,
        f"  every score here is of the {left} learned labels alone; a leaderboard that scores all {n_labels} counts "
        "the constant ones, too, in a macro-F1 often as 0",
        "  labels.constants: {NAME: 0} chooses another constant",
    ]
