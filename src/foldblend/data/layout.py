"""The competition's files as three tables with the columns that the settings name, whatever the files look like.

Several training files become one, test rows among the training rows are taken out, columns get the settings' names, and
files without ids get them. What was found out is a note, what cannot be is a problem of the file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldblend.data.answer_form import Pair, guess_row_id, long_form, read_pairs, widen
from foldblend.data.fetch import how_to_get
from foldblend.data.formats import find_file, read_file
from foldblend.data.labels import is_number, read_share
from foldblend.data.reading import FileForm, Problems, TextTable, quoted
from foldblend.errors import as_seen, find_nearest, nearest
from foldblend.settings.competition import IN_COLUMNS, CompetitionSettings

INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")
"""Names of the column in which pandas writes its index: to a CSV, again to a CSV, to Parquet."""
PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_. -]*[A-Za-z0-9_.-]|[A-Za-z_]")
YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none")


TEST_ROWS = " (test rows)"
"""Behind the name of a training file in the report of the test rows in it."""


@dataclass
class Parts:
    """What the files hold; a table is None if there is nothing to check."""

    train: TextTable | None
    test: TextTable | None
    sample: TextTable | None
    train_report: Problems
    test_report: Problems
    sample_report: Problems
    sample_is_whole: bool = True
    """Whether every row of the sample submission could be read."""
    sample_header: tuple[str, ...] = ()
    """Columns of the sample submission under its own names."""
    pairs: list[Pair] = field(default_factory=list)
    """Id and label of each of its rows if there is one per pair; `sample` has one per id all the same."""
    more_reports: list[Problems] = field(default_factory=list)
    """Of the files that became `train`, if they are several."""

    @property
    def reports(self) -> list[Problems]:
        """Of every file, in the order in which they are shown."""
        return [*self.more_reports, self.train_report, self.test_report, self.sample_report]

    def notes(self) -> list[str]:
        """What is unusual and allowed, as sentences that name the file."""
        return [f"{report.path.name}: {note}" for report in self.reports for note in report.notes]


def read_parts(competition: CompetitionSettings, data_dir: Path) -> Parts:
    """Read every file; defects are in the reports."""
    files = competition.files
    train, train_report, more = _read_train(competition, data_dir)
    if files.split_column:
        train, test, test_report = _take_test_rows(competition, train, train_report)
    else:
        test, test_report = read_part(competition, data_dir / files.test, files.test)
    sample, sample_report = None, Problems(data_dir / files.sample_submission)
    if files.has_sample:
        sample, sample_report = read_part(competition, data_dir / files.sample_submission, files.sample_submission)
    parts = Parts(train, test, sample, train_report, test_report, sample_report, more_reports=more)
    parts.sample_header, parts.sample_is_whole = original_header(competition, sample), not sample_report
    if sample is not None:
        ids = test.column(competition.id_column) if test and competition.id_column in test.header else []
        names = competition.labels.submitted
        parts.sample, parts.pairs = settle_sample(competition, sample, ids, names, sample_report)
    _give_ids_of_sample(competition, parts)
    return parts


# ---------- how each file is written.


def data_form(competition: CompetitionSettings, name: str) -> FileForm:
    """How the training and the test file are written."""
    files = competition.files
    return FileForm(
        encoding=files.encodings.get(name, files.encoding),
        separator=files.separators.get(name, files.separator),
        quoting=files.quoting,
        separator_is_stated=name in files.separators or files.separator != ",",
        encoding_is_own=name in files.encodings,
        invalid_bytes=files.invalid_bytes,
        columns=files.columns.get(name, ()),
        sheet=files.sheet,
    )


def sample_form(competition: CompetitionSettings) -> FileForm:
    """How the sample submission is written."""
    files, name = competition.files, competition.files.sample_submission
    return FileForm(
        encoding=files.encodings.get(name, files.encoding),
        separator=competition.submission.separator,
        separator_setting="submission.separator",
        separator_is_stated=competition.submission.separator != ",",
        encoding_is_own=name in files.encodings,
        invalid_bytes=files.invalid_bytes,
        columns=files.columns.get(name, ()),
        sheet=files.sheet,
    )


def read_part(competition: CompetitionSettings, path: Path, name: str) -> tuple[TextTable | None, Problems]:
    """One file, with the settings' names of columns and with ids.

    Args:   name: the file of the settings that this one is written like; `path` may be elsewhere.
    """
    report = Problems(path)
    if find_file(path) is None:
        folder = next(each for each in path.parents if each.suffix.lower() != ".zip")
        near = _near_file(path, competition.files.stated)
        report.add(f"missing{near or '.'} {how_to_get(folder.name, competition.files)}{_otherwise(competition, name)}")
        return None, report
    is_sample = name == competition.files.sample_submission and name not in (competition.files.test,)
    form = sample_form(competition) if is_sample else data_form(competition, name)
    table = read_file(path, form, report)
    if table is not None:
        table = _renamed(table, competition.files.rename.get(name, {}), report)
        if is_sample:  # whose own names submissions keep
            table = _without_index(competition, table, report)
        else:
            table = _with_index_as_id(competition, table, name, report)
        table = _with_row_numbers(competition, table, name)
    return table, report


def _near_file(path: Path, stated: Sequence[str]) -> str:
    """The file of the folder that may be meant, or what there is; empty if there are only those of the settings."""
    there = sorted(each.name for each in path.parent.iterdir() if each.is_file()) if path.parent.is_dir() else []
    others = [name for name in there if name not in stated and not name.startswith(".")]
    if not others:
        return ""
    near = find_nearest(path.name, others)
    return f"; did you mean {near!r}?" if near else f"; the folder also has {quoted(others)}."


def _otherwise(competition: CompetitionSettings, name: str) -> str:
    """What to set if the competition has no such file."""
    if name == competition.files.sample_submission:
        return ". If the competition has none, set files.sample_submission: none"
    if name == competition.files.test:
        return ". If test rows are in the training file, set files.split_column and files.test_values"
    return ""


# ---------- names of columns.


def _renamed(table: TextTable, names: dict[str, str], report: Problems) -> TextTable:
    """Columns under the names of `files.rename`."""
    for old, new in names.items():
        if old not in table.header:
            report.add(f"files.rename: column {old!r} is missing{nearest(old, table.header)}")
        elif new in table.header and new not in names:
            report.add(f"files.rename: {old!r} cannot become {new!r}, as the file has a column of that name")
    return TextTable(tuple(names.get(column, column) for column in table.header), table.rows)


def _with_index_as_id(competition: CompetitionSettings, table: TextTable, name: str, report: Problems) -> TextTable:
    """A nameless first column is an index; it is the ids of a file without a column of ids."""
    id_column, header = competition.id_column, table.header
    if id_column in header or name in competition.files.ids or not header or header[0] not in INDEX_NAMES:
        return table
    if find_nearest(id_column, header[1:]):
        return table
    shown = f"is called {header[0]!r}" if header[0] else "has no name"
    report.notes.append(f"its first column {shown} (an index) and is read as {id_column!r}")
    return TextTable((id_column, *header[1:]), table.rows)


def _without_index(competition: CompetitionSettings, table: TextTable, report: Problems) -> TextTable:
    """The sample submission without the numbers of its rows that pandas writes before the ids."""
    header = table.header
    if header[0] not in INDEX_NAMES or competition.id_column not in header[1:]:
        return table
    cells = [row[0] for row in table.rows]
    if not any(cells == [str(k) for k in range(first, first + len(cells))] for first in (0, 1)):
        return table
    report.notes.append("its first column without a name numbers its rows and is left out of submissions")
    return TextTable(header[1:], [row[1:] for row in table.rows])


def original_header(competition: CompetitionSettings, sample: TextTable | None) -> tuple[str, ...]:
    """The sample submission's own names of columns: those that a submission must have."""
    if sample is None:
        return ()
    own = {new: old for old, new in competition.files.rename.get(competition.files.sample_submission, {}).items()}
    return tuple(own.get(name, name) for name in sample.header)


def advise_rename(name: str, header: Sequence[str], path: Path) -> str:
    """What to do about a missing column that has a near name in the file; empty if none is near."""
    near = find_nearest(name, header)
    if near is None:
        return ""
    file = path.name.removesuffix(TEST_ROWS)
    return f" Use that name in the YAML, or set files.rename: {{{file}: {{{yaml_word(near)}: {yaml_word(name)}}}}}"


def yaml_word(word: str) -> str:
    """A word as YAML reads it as that word: in quotes if needed, characters that are not ASCII letters spelt out.

    Example: "Id", "yes", "te\\u200bxt" -> Id, "yes", "te\\u200bxt" (with the escape spelt out)
    """
    if PLAIN_WORD.fullmatch(word) and word.lower() not in YAML_WORDS:
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    shown = (c if " " <= c <= "~" or c.isalpha() else f"\\U{ord(c):08x}" for c in escaped)
    return f'"{"".join(shown)}"'


# ---------- several training files as one, and test rows among them.


def _read_train(competition: CompetitionSettings, data_dir: Path) -> tuple[TextTable | None, Problems, list[Problems]]:
    """The training rows of all files, their report, and the reports of single files if there are several."""
    names = competition.files.train_files
    read = [read_part(competition, data_dir / name, name) for name in names]
    if len(names) == 1:
        return *read[0], []
    reports = [report for _, report in read]
    joined = Problems(data_dir / ", ".join(names))
    tables = [table for table, _ in read if table is not None]
    if len(tables) < len(names):
        return None, joined, reports
    header = tuple(name for name in tables[0].header if all(name in table.header for table in tables))
    for table, report in read:
        _check_same_columns(competition, header, table, report)
    rows = [[row[k] for k in _positions(table, header)] for table in tables for row in table.rows]
    numbers = zip(names, reports, strict=True)
    joined.row_numbers = [f"{number} of {name}" for name, report in numbers for number in report.row_numbers]
    if all(report.line_numbers for report in reports):
        joined.line_numbers = [line for report in reports for line in report.line_numbers]
    table = TextTable(header, rows)
    _count_on(competition, table)
    _check_clashes(competition, tables, names, joined)
    return table, joined, reports


def _positions(table: TextTable, header: Sequence[str]) -> list[int]:
    return [table.header.index(name) for name in header]


def _check_same_columns(
    competition: CompetitionSettings, common: Sequence[str], table: TextTable, report: Problems
) -> None:
    """Columns that only some training files have: a problem if the settings need them, otherwise a note."""
    labels = competition.labels
    needed = {
        competition.id_column,
        *competition.text.columns,
        *competition.features.columns,
        *labels.names,
        labels.column,
        *labels.parts,
        labels.candidates,
        competition.metric_by,
        competition.files.split_column,
    }
    only = [name for name in table.header if name not in common]
    if needed & set(only):
        report.add(f"column {quoted(name for name in only if name in needed)} is not in every file of files.train")
    elif only:
        report.notes.append(f"column {quoted(only)} is not in every file of files.train and is not read")


def _count_on(competition: CompetitionSettings, table: TextTable) -> None:
    """Row numbers of several files as one count, so that they are ids."""
    how = {competition.files.ids.get(name) for name in competition.files.train_files}
    if how <= {"row_number", "row_number_from_1"}:
        position, first = table.header.index(competition.id_column), int(how == {"row_number_from_1"})
        for number, row in enumerate(table.rows, start=first):
            row[position] = str(number)


def _check_clashes(
    competition: CompetitionSettings, tables: Sequence[TextTable], names: Sequence[str], report: Problems
) -> None:
    """Ids that are in two training files."""
    id_column, ids = competition.id_column, competition.files.ids
    if any(id_column not in table.header for table in tables) or all(name in ids for name in names):
        return
    seen: set[str] = set()
    for name, table in zip(names, tables, strict=True):
        both = seen & set(table.column(id_column))
        if both:
            every = ", ".join(f"{yaml_word(each)}: row_number" for each in names)
            report.add(f"{len(both)} ids of {name} are also in another file. Set files.ids: {{{every}}} to count rows")
        seen |= set(table.column(id_column))


def _take_test_rows(
    competition: CompetitionSettings, table: TextTable | None, report: Problems
) -> tuple[TextTable | None, TextTable | None, Problems]:
    """Training rows, test rows and the report of the test rows, told by `files.split_column`.

    The test rows come without the columns of labels, so nothing can read what is their truth.
    """
    files = competition.files
    test_report = Problems(report.path.with_name(f"{report.path.name}{TEST_ROWS}"))
    if table is None:
        return None, None, test_report
    column = files.split_column
    if column not in table.header:
        report.add(f"files.split_column: column {column!r} is missing{nearest(column, table.header)}")
        return table, None, test_report
    cells = [cell.strip() for cell in table.column(column)]
    for setting, values in (("test_values", files.test_values), ("train_values", files.train_values)):
        for value in (value for value in values if value not in cells):
            hint = nearest(value, set(cells)) or f"; there are {quoted(dict.fromkeys(cells))}"
            report.add(f"files.{setting}: no row has {value!r} in {column!r}{hint}")
    if report:  # which rows may teach is not known
        return None, None, test_report
    is_test = [cell in files.test_values for cell in cells]
    taught = [not test and (not files.train_values or cell in files.train_values) for test, cell in zip(is_test, cells)]
    left = [k for k, (test, train) in enumerate(zip(is_test, taught, strict=True)) if not test and not train]
    report.note_rows(f"{len(left)} rows are neither test nor training rows by {column!r}", left)
    if not any(taught) and any(is_test):
        report.add(f"every row is a test row by files.test_values in {column!r}; expected training rows, too")
    test = _rows(table, [k for k, test in enumerate(is_test) if test], report, test_report)
    kept = [name for name in test.header if name not in _label_columns(competition, table)]
    test = TextTable(tuple(kept), [[row[k] for k in _positions(test, kept)] for row in test.rows])
    train = _rows(table, [k for k, train in enumerate(taught) if train], report, report)
    return train if train.rows else None, test if test.rows else None, test_report


def _rows(table: TextTable, chosen: Sequence[int], report: Problems, target: Problems) -> TextTable:
    """Some rows of a table; their numbers go to the report `target`."""
    numbers, lines = report.row_numbers, report.line_numbers
    target.row_numbers = [numbers[k] for k in chosen]
    target.line_numbers = [lines[k] for k in chosen] if lines else ()
    return TextTable(table.header, [table.rows[k] for k in chosen])


def _label_columns(competition: CompetitionSettings, table: TextTable) -> set[str]:
    """Every column that may hold labels: all but ids, texts and the split if the settings do not name labels."""
    labels, kept = (
        competition.labels,
        {
            competition.id_column,
            *competition.text.columns,
            *competition.features.columns,
            competition.files.split_column,
            competition.labels.candidates,
            competition.metric_by,
        },
    )
    stated = {labels.column, *labels.parts, *labels.columns, *labels.names, *labels.rename} - {""}
    return (stated or set(table.header)) - kept


# ---------- ids.


def _with_row_numbers(competition: CompetitionSettings, table: TextTable, name: str) -> TextTable:
    """The table with the ids that `files.ids` asks for, in place of a column of that name."""
    how = competition.files.ids.get(name)
    if how not in ("row_number", "row_number_from_1"):
        return table
    first = int(how == "row_number_from_1")
    return _with_ids(competition, table, [str(number) for number in range(first, first + len(table.rows))])


def _with_ids(competition: CompetitionSettings, table: TextTable, ids: Sequence[str]) -> TextTable:
    kept = [name for name in table.header if name != competition.id_column]
    positions = _positions(table, kept)
    rows = [[name, *(row[k] for k in positions)] for name, row in zip(ids, table.rows, strict=True)]
    return TextTable((competition.id_column, *kept), rows)


def settle_sample(
    competition: CompetitionSettings,
    sample: TextTable,
    test_ids: Sequence[str],
    label_names: Sequence[str],
    report: Problems,
) -> tuple[TextTable | None, list[Pair]]:
    """The sample submission with its ids under the name of the settings and one row per id, and its pairs."""
    sample, notes = with_sample_ids(competition, sample, test_ids, label_names)
    report.notes.extend(notes)
    form = long_form(competition)
    if form is None:
        return sample, []
    wide = widen(sample, form, label_names, report)
    return wide, (read_pairs(sample, form, label_names, report) or []) if wide else []


def with_sample_ids(
    competition: CompetitionSettings, sample: TextTable, test_ids: Sequence[str], label_names: Sequence[str]
) -> tuple[TextTable, list[str]]:
    """The sample submission with its ids under the name of the settings, and a note if they have another name there.

    It is the column that holds the ids of the test rows, or else the only one that is no answer.
    """
    id_column, answer = competition.id_column, competition.submission
    if id_column in sample.header:
        return sample, []
    in_columns = answer.form in IN_COLUMNS and not long_form(competition)
    answers = set(label_names) if in_columns else {answer.column, answer.label_column} - {""}
    names = [name for name in dict.fromkeys(sample.header) if name not in answers]
    same = [name for name in names if test_ids and set(sample.column(name)) == set(test_ids)]
    index = names[:1] if names and names[0] in INDEX_NAMES else []
    chosen = same if len(same) == 1 else names if answers and answers <= set(sample.header) else index
    if len(chosen) != 1:
        return sample, []
    header = tuple(id_column if name == chosen[0] else name for name in sample.header)
    return TextTable(header, sample.rows), [f"its ids are called {chosen[0]!r}, and so they are in submissions"]


def _give_ids_of_sample(competition: CompetitionSettings, parts: Parts) -> None:
    """Test rows without ids get those of the sample submission if the settings say so."""
    files, id_column, test, sample = competition.files, competition.id_column, parts.test, parts.sample
    if test is None:
        return
    ids = sample.column(id_column) if sample is not None and id_column in sample.header else []
    if files.ids.get(files.test) == "sample_order" and not files.split_column:
        if len(ids) == len(test.rows):
            parts.test = _with_ids(competition, test, ids)
        elif ids:
            found = f"{len(test.rows)} rows, and {files.sample_submission} has {len(ids)}"
            parts.test_report.add(f"files.ids is sample_order, but the file has {found}; expected as many")


def advise_ids(table: TextTable, id_column: str, name: str, sample: TextTable | None) -> str:
    """What to set for a file without ids; empty if it has them, or a column with a near name.

    Args:   sample: the sample submission if this is the test file, whose ids it must have.
    """
    if id_column in table.header or find_nearest(id_column, table.header):
        return ""
    ids = sample.column(id_column) if sample is not None and id_column in sample.header else []
    how = "sample_order" if ids and len(ids) == len(table.rows) else "row_number"
    for first, counted in enumerate(("row_number", "row_number_from_1")):
        if ids == [str(number) for number in range(first, first + len(table.rows))]:
            how = counted
    return f"if the file has no ids, set files.ids: {{{yaml_word(name)}: {how}}}"


def has_no_header(table: TextTable, needed: Sequence[str]) -> bool:
    """Whether line 1 has none of the needed names, in whatever case, and its cells are rather those of a row."""
    header = [as_seen(cell).casefold() for cell in table.header]
    if any(as_seen(name).casefold() in header for name in needed):
        return False
    cells = [cell for cell in table.header if cell]
    counted = zip(table.header, table.rows[0], strict=True)  # t0 above t1
    return (
        len(set(cells)) < len(cells)
        or any(DIGITS.search(cell) and DIGITS.sub("9", cell) == DIGITS.sub("9", below) for cell, below in counted)
        or any(cell.count(" ") > MOST_SPACES for cell in cells)
    )


DIGITS = re.compile(r"\d+")
MOST_SPACES = 3
"""In the name of a column; more are a text."""


def advise_columns(header: Sequence[str], needed: Sequence[str], path: Path) -> str:
    """What to set for a file without a header line."""
    names = (
        [*map(yaml_word, needed)] if len(needed) == len(header) else [f"a name for each of its {len(header)} columns"]
    )
    return (
        f"line 1 looks like a row, not like names of columns: {quoted(header)}. If the file has no header, "
        f"set files.columns: {{{path.name}: [{', '.join(names)}]}}"
    )


def advise_long(competition: CompetitionSettings, parts: Parts) -> str:
    """What to set if the sample submission has one row per pair of row and label and the settings do not say so."""
    sample, test, id_column = parts.sample, parts.test, competition.id_column
    if sample is None or test is None or id_column not in test.header or long_form(competition):
        return ""
    names = competition.labels.submitted or (label_candidates(competition, parts.train) if parts.train else [])
    if len(sample.header) not in (2, 3) or len(sample.rows) != len(test.rows) * len(names):
        return ""
    named = "" if competition.labels.submitted else " and labels.names"
    what, value = "it has one row per pair of row and label", f"column: {yaml_word(sample.header[-1])}"
    for name in sample.header:
        if set(sample.column(name)) == set(names) and len(sample.header) == 3:
            return f"{what}. Set submission: {{label_column: {yaml_word(name)}, {value}}}{named}"
        if row_id := guess_row_id(sample.column(name), test.column(id_column), names):
            return f'{what}. Set submission: {{row_id: "{row_id}", {value}}}{named}'
    return ""


def label_candidates(competition: CompetitionSettings, train: TextTable) -> list[str]:
    """Names that the labels may have by the training file."""
    labels = competition.labels
    if labels.form == "columns":
        taken = {competition.id_column, *competition.text.columns, competition.files.split_column}
        columns = [name for name in train.header if name not in taken]
        if competition.submission.form == "values":
            return [name for name in columns if all(map(is_number, set(train.column(name))))]
        return [name for name in columns if {read_share(cell) for cell in set(train.column(name))} <= {0, 1}]
    if labels.column not in train.header:
        return []
    split = [labels.delimiter] if labels.form == "delimited" else []
    cells = set(train.column(labels.column))
    said = {part.strip() for cell in cells for part in (cell.split(split[0]) if split else [cell])} - {"", labels.empty}
    return sorted(said) if len(said) <= MOST_CANDIDATES else []


MOST_CANDIDATES = 100
"""More different cells are no names of labels."""
