"""Checks of one table: columns, ids, the cells of a sample submission. Each adds what it finds to `problems`."""

from collections import Counter
from collections.abc import Mapping, Sequence

from foldblend.data.advice import Meant, explain_answer_column
from foldblend.data.labels import is_number, read_share
from foldblend.data.layout import advise_rename
from foldblend.data.reading import Problems, TextTable, excerpt, quoted
from foldblend.errors import nearest
from foldblend.settings.competition import IN_COLUMNS, CompetitionSettings

LONGEST_ID = 256
"""Characters; a longer id is surely a text column."""


def check_rows(
    table: TextTable,
    id_column: str,
    texts: Sequence[str],
    others: Sequence[str],
    problems: Problems,
    doubled: str = "ids must differ",
    meant: Meant | None = None,
) -> None:
    """Columns and ids of one file; `texts` and `others` are columns that must be there and are read elsewhere.

    `doubled` is what to say of an id that is there twice; empty allows it. `meant`: what wrong names should be.
    """
    meant = meant or Meant()
    check_columns(table, (id_column, *texts, *others), problems, meant.hints)
    if id_column in table.header:
        cells = table.column(id_column)
        if doubled and (no_ids := meant.no_ids(cells, id_column)):
            problems.add(no_ids)
        else:
            check_ids(cells, id_column, problems, doubled)


def check_columns(
    table: TextTable, needed: Sequence[str], problems: Problems, hints: Mapping[str, str] | None = None
) -> None:
    """Every needed column is there once; for a missing one its hint is given, or else the nearest name."""
    counts = Counter(table.header)
    for name, times in counts.items():
        if times > 1 and name:
            problems.add(f"column {name!r} appears {times} times in the header; expected once")
    missing = [name for name in dict.fromkeys(needed) if name not in counts]
    for name in missing:
        if hints and name in hints:
            problems.add(f"column {name!r} is missing{hints[name]}")
            continue
        hint = nearest(name, counts) or f"; the file's columns are {quoted(counts)}"
        problems.add(f"column {name!r} is missing{hint}{advise_rename(name, tuple(counts), problems.path)}")


def check_ids(ids: Sequence[str], column: str, problems: Problems, doubled: str = "ids must differ") -> None:
    """Every row has an id, of its own unless `doubled`, what to say of the others, is empty."""
    empty = [row for row, name in enumerate(ids) if not name.strip()]
    problems.add_rows(f"empty {column!r}", [(row, f"{column!r} is empty") for row in empty])
    odd = [row for row, name in enumerate(ids) if len(name) > LONGEST_ID or "\0" in name]
    problems.add_rows(
        f"{column!r} not an id",
        [(row, f"{column!r} is {excerpt(ids[row])}: no id has a NUL or over {LONGEST_ID} characters") for row in odd],
    )
    first, again = {}, []
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row and name.strip() and doubled:
            again.append(
                (row, f"{column!r} {excerpt(name)} is also in row {problems.row_numbers[first[name]]}; {doubled}")
            )
    problems.add_rows(f"doubled {column!r}", again)


def check_sample_numbers(table: TextTable, columns: Sequence[str], form: str, problems: Problems) -> None:
    """The sample's answers are what submission.form says, 0 and 1, or numbers; or they are blank."""
    blank = [name for name in columns if not any(cell.strip() for cell in table.column(name))]
    if blank:
        problems.notes.append(f"the answers in {quoted(blank)} are blank; submissions have the form of submission.form")
    for name in columns:
        cells = table.column(name)
        bad = [row for row, cell in enumerate(cells) if cell.strip() and not _is_answer(cell, form)]
        expected = "0 or 1 as submission.form is columns" if form == "columns" else "a number"
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected {expected}") for row in bad]
        problems.add_rows(f"{name!r} of another form", found)


def _is_answer(cell: str, form: str) -> bool:
    return read_share(cell.strip()) in (0, 1) if form == "columns" else is_number(cell.strip())


def _no_answers(competition: CompetitionSettings, table: TextTable) -> list[str]:
    """Columns beside the ids that have no number, nor yes or no, in any cell; not if all are so."""
    named = [name for name in dict.fromkeys(table.header) if name != competition.id_column]
    strange = [
        name for name in named if all(cell.strip() and read_share(cell.strip()) is None for cell in table.column(name))
    ]
    return strange if len(strange) < len(named) else []


def check_sample(
    competition: CompetitionSettings,
    table: TextTable | None,
    names: tuple[str, ...],
    report: Problems,
    meant: Meant | None = None,
) -> tuple[str, ...]:
    """Check ids, columns and cells of the sample submission.

    Args:    names: the labels that it must have; empty takes them from its header.   meant: what names should be.
    Returns: the label names; empty if there are none anywhere, or one of the columns may be the ids.
    """
    answer, id_column = competition.submission, competition.id_column
    if table is None:
        return names
    in_columns = answer.form in IN_COLUMNS
    meant = meant or Meant()
    if not names and in_columns:
        if id_column not in table.header or meant.no_ids(table.column(id_column), id_column):
            check_rows(table, id_column, (), (), report, meant=meant)
            return ()
        strange = [name for name in _no_answers(competition, table) if name not in meant.answers]
        if strange:
            found = "; ".join(f"{name!r} says {excerpt(table.column(name)[0])}" for name in strange[:3])
            report.add(
                f"column {quoted(strange)} holds no answers ({found}). Take it out of this file, whose columns a "
                "submission has, or set labels.names to the labels if it names others"
            )
            return ()
    if not names:
        names = tuple(dict.fromkeys(name for name in table.header if name != id_column))
        if not names:
            report.add(
                f"only column {id_column!r}; expected one column per label, or labels.names and submission.column"
            )
    labels = competition.labels
    for setting, stated in (
        ("constants", labels.constants),
        ("rename", {} if labels.groups else labels.rename.values()),
    ):
        for name in (name for name in stated if name not in names):
            hint = nearest(name, names) or f"; expected one of {quoted(names)}"
            report.add(f"labels.{setting}: {name!r} is not a label of the submission{hint}")
    answers = names if in_columns else (answer.column,)
    if other := explain_answer_column(competition, table):
        report.add(other)
        return names
    check_rows(table, id_column, (), answers, report, meant=meant)
    what = "a label of labels.names" if in_columns else f"the answer column {answer.column!r}"
    strange = [name for name in dict.fromkeys(table.header) if name not in (id_column, *answers)]
    if strange and (id_column in table.header or not meant.id_column):
        report.add(f"column {quoted(strange)}: expected only {id_column!r} and {what}")
    if in_columns:
        check_sample_numbers(table, [name for name in answers if name in table.header], answer.form, report)
    return names
