"""A submission: built from decisions or probabilities in the sample submission's form, and checked before Kaggle is.

The same checks run twice: on the bytes that are about to be written, and on the file before it is submitted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from foldblend.data.advice import find_other_form
from foldblend.data.answer_form import Constant, long_form, read_pairs, widen
from foldblend.data.checks import check_ids
from foldblend.data.labels import (
    LabelForm,
    as_yaml,
    is_number,
    parse_list,
    read_cell,
    read_labels,
    read_ranked,
    read_share,
)
from foldblend.data.reading import (
    Problems,
    TextTable,
    excerpt,
    parse_table,
    quoted,
    raise_if_any,
    shown_path,
    table_bytes,
)
from foldblend.data.tables import Tables, submission_form
from foldblend.errors import nearest
from foldblend.files import read_bytes
from foldblend.settings.competition import IN_COLUMNS, ONE_COLUMN, CompetitionSettings

# ---------- warnings: allowed, but rarely intended (label rates far from training's, constant columns).


FAR = 3.0
"""A rate this many times larger or smaller than expected is a finding ..."""
FEWEST_ROWS = 30
"""Rates of fewer test rows, as a code competition shows, are not compared."""
NOISE = 3.0
"""... if the difference is also more than this many standard deviations of a Poisson count."""


def is_sample(table: TextTable, numeric: bool, tables: Tables) -> bool:
    """Whether every cell equals the sample submission's; as numbers (0.5 and 0.50) if the form has numbers."""
    same_cells = [tuple(row) for row in table.rows] == list(tables.sample_rows)
    if same_cells or not numeric or len(table.rows) != len(tables.sample_rows):
        return same_cells
    sample = TextTable(tables.sample_columns, list(tables.sample_rows))
    return all(_numbers(sample, name) == _numbers(table, name) for name in tables.answer_names)


def _numbers(table: TextTable, name: str) -> list[float | None]:
    return [read_share(cell) for cell in table.column(name)]


def find_oddities(
    answers: np.ndarray, tables: Tables, oof_answers: np.ndarray | None, form: str = "columns"
) -> list[str]:
    """Sentences on constant labels, on label rates and on the share of rows without a label.

    Args:   answers: (n_test, all labels of a submission) bool decisions or float probabilities, or `read_ranked`.
            oof_answers: (N, L) of the same kind, or None.   form: `submission.form`; lists and values have no rates.
    """
    answers = answers[:, _learned(tables)]  # the others are constant on purpose
    if form in ("ranked", "values"):
        what = "list of labels" if form == "ranked" else "answer"
        same = len(answers) >= FEWEST_ROWS and (answers == answers[0]).all()
        return [f"the {what} is the same in all {len(answers)} rows"] if same else []
    kind, reference = ("training", tables.labels) if oof_answers is None else ("OOF", oof_answers)
    n_test = len(answers)
    findings = []
    rates = reference.mean(axis=0)
    if tables.known is not None:  # a label that nobody knows counts as a no in both tables
        kind, rates = "training", tables.labels.sum(axis=0) / np.maximum(tables.known.sum(axis=0), 1)
    for name, column, expected in zip(tables.label_names, answers.T, rates, strict=True):
        if n_test < FEWEST_ROWS:
            continue  # a handful of rows may well have a label nowhere or everywhere
        if (column == column[0]).all():
            findings.append(f"label {name!r} is {float(column[0]):g} in all {n_test} rows")
        elif _is_far(column.sum(), expected * n_test):
            findings.append(f"label {name!r}: positive rate {column.mean():.4f}, {kind} {expected:.4f}")
    if answers.dtype == bool and n_test >= FEWEST_ROWS and tables.known is None:
        empty, expected = (~answers.any(axis=1)).sum(), (~reference.any(axis=1)).mean()
        if _is_far(empty, expected * n_test):
            findings.append(f"rows without a label: {empty} of {n_test} ({empty / n_test:.1%}), {kind} {expected:.1%}")
    return findings


def _learned(tables: Tables) -> list[int]:
    """Positions of the labels that are learned among all labels of a submission."""
    constant = {each.name for each in tables.constants}
    return [k for k, name in enumerate(tables.answer_names) if name not in constant]


def find_odd_cells(table: TextTable, competition: CompetitionSettings, tables: Tables) -> list[str]:
    """Sentences if the cells of a submission are of another kind than those of the sample submission.

    Example: the sample writes `none` for a row without labels, and 19 of 60 cells are blank.
    """
    answer = competition.submission
    if answer.form not in ONE_COLUMN or not tables.sample_rows:
        return []
    ours, theirs = table.column(answer.column), _sample_column(tables, answer.column)
    form = answer_form(competition, tables.answer_names)
    strange = [cell.strip() for cell in theirs if cell.strip() and read_cell(cell, form, form.numbers)[1]]
    if answer.form == "class" and answer.values == "names" and not strange:
        other = [cell.strip() for cell in theirs if cell.strip() and cell.strip() not in tables.answer_names]
        if other:
            return [
                f"the sample submission writes {excerpt(other[0])}, ours {excerpt(ours[0])}: list labels.names as the "
                "sample submission writes them"
            ]
    in_lists = [sum(isinstance(parse_list(cell), list) for cell in cells) for cells in (ours, theirs)]
    other = find_other_form(strange, form)
    if other and other.values == form.values and other.delimiter != form.delimiter:
        found = [
            f"the sample submission has {_glue(other.delimiter)} between labels, as in {excerpt(strange[0])}, ours "
            f'{_glue(answer.delimiter)}: set submission.delimiter: "{other.delimiter}"'
        ]
    else:
        found = [*_spell_strange(strange, ours, competition)] if strange else []
    longest = max(len(read_cell(cell, form, form.numbers)[0]) for cell in theirs)
    if answer.form == "ranked" and longest > competition.k:
        found.append(f"the sample submission lists up to {longest} labels, ours {competition.k}: compare it with k")
    if in_lists[1] and not in_lists[0] and answer.list == "off":
        is_json = any('"' in cell for cell in theirs)
        how = "json" if is_json else "python" if any("'" in cell for cell in theirs) else "python, or json"
        found.append(f"the sample submission writes lists, {excerpt(theirs[0])}, ours not: set submission.list: {how}")
    blank = sum(not cell.strip() for cell in ours)
    is_telling = len(set(theirs)) > 1 or bool(competition.labels.empty)  # a sample of one cell repeated says little
    if blank and is_telling and not found and all(cell.strip() for cell in theirs):
        found.append(
            f"{blank} of {len(ours)} cells are blank, as the row has no label; no cell of the sample submission is. "
            "If it needs a word there, set submission.empty: WORD"
        )
    return found


def _glue(delimiter: str) -> str:
    return "a blank" if delimiter == " " else repr(delimiter)


def _spell_strange(strange: list[str], ours: list[str], competition: CompetitionSettings) -> Iterator[str]:
    """What cells of the sample submission that name no label ask for."""
    answer = competition.submission
    word = max(dict.fromkeys(strange), key=strange.count)
    wrote = f"the sample submission writes {excerpt(word)} in {strange.count(word)} cells"
    if answer.values == "names" and all(map(is_number, strange)):
        yield f"{wrote}, ours names: if it wants numbers, set submission.values: numbers"
    elif answer.form == "delimited" and " " not in word:
        without = sum(cell.strip() in ("", answer.empty) for cell in ours)
        says = f"says {answer.empty!r}" if answer.empty else "is blank"
        yield (
            f"{wrote}, which is not a label; ours {says} for a row without labels, {without} of {len(ours)}: "
            f"if the word means that, set submission.empty: {as_yaml(word)}"
        )
    else:
        yield f"{wrote}, which names no label: compare it with labels.names, submission.delimiter and submission.values"


def _sample_column(tables: Tables, name: str) -> list[str]:
    position = tables.sample_columns.index(name)
    return [row[position] for row in tables.sample_rows]


def _is_far(count: float, expected: float) -> bool:
    high, low = max(count, expected), min(count, expected)
    return high > FAR * low and high - low > NOISE * max(expected, 1.0) ** 0.5


# ---------- errors: what must hold of a submission, checked on its cells.


MOST_COLUMNS = 10
"""Wrong columns that are named, each with the nearest right one, which is sought among all."""


def check_header(header: Sequence[str], expected: Sequence[str], problems: Problems) -> bool:
    """Whether the columns are the sample submission's, in its order."""
    if tuple(header) == tuple(expected):
        return True
    counts, wanted = Counter(header), set(expected)
    missing = [name for name in expected if name not in counts]
    foreign = [name for name in counts if name not in wanted]
    for name in missing[:MOST_COLUMNS]:
        problems.add(f"column {name!r} is missing{nearest(name, header)}")
    for name in foreign[:MOST_COLUMNS]:
        problems.add(f"column {name!r} is not in the sample submission{nearest(name, expected)}")
    for what, names in (("missing", missing), ("not in the sample submission", foreign)):
        if len(names) > MOST_COLUMNS:
            problems.add(f"{len(names) - MOST_COLUMNS} more columns are {what}")
    for name, count in counts.items():
        if name in wanted and count > 1:
            problems.add(f"column {name!r} appears {count} times")
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
    """The answers, (n_test, L): bool decisions, float64 probabilities or values, or `read_ranked`; cells of another
    form are problems."""
    if competition.submission.form == "probabilities":
        return _read_probabilities(table, label_names, problems)
    if competition.submission.form == "values":
        return _read_probabilities(table, label_names, problems, (-np.inf, np.inf), "a number")
    form = answer_form(competition, label_names)
    if competition.submission.form == "ranked":
        return read_ranked(table, form, competition.k, problems)
    return read_labels(table, form, problems)


def _read_probabilities(
    table: TextTable,
    label_names: Sequence[str],
    problems: Problems,
    bounds: tuple[float, float] = (0.0, 1.0),
    expected: str = "a number from 0 to 1",
) -> np.ndarray:
    probs = np.zeros((len(table.rows), len(label_names)))
    for k, name in enumerate(label_names):
        cells = table.column(name)
        bad = [row for row, cell in enumerate(cells) if not (is_number(cell) and bounds[0] <= float(cell) <= bounds[1])]
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected {expected}") for row in bad]
        problems.add_rows(f"{name!r} not {'a number' if bounds[1] > 1 else 'a probability'}", found)
        if not bad:
            probs[:, k] = [float(cell) for cell in cells]
    return probs


def answer_form(competition: CompetitionSettings, label_names: Sequence[str]) -> LabelForm:
    """How a submission without probabilities writes labels."""
    answer, is_ranked = competition.submission, competition.submission.form == "ranked"
    one_a_row = competition.task == "multiclass" and not is_ranked
    return LabelForm(
        form="delimited" if is_ranked else answer.form,
        names=tuple(label_names),
        column=answer.column,
        delimiter=answer.delimiter,
        values=answer.values,
        one_a_row=one_a_row,
        first_number=answer.first_number,
        empty=answer.empty,
    )


PAIRS = (
    ("0", "1"), ("0.0", "1.0"), ("False", "True"), ("false", "true"), ("FALSE", "TRUE"), ("no", "yes"), ("No", "Yes"),
    ("NO", "YES"), ("n", "y"), ("N", "Y"), ("f", "t"), ("F", "T"),
)  # fmt: skip
"""How programs write no and yes."""


def check_number_format(table: TextTable, tables: Tables, problems: Problems) -> None:
    """No and yes are written as in the sample submission: 0 and 1, 0.0 and 1.0, False and True, ..."""
    for name, pair in column_pairs(tables).items():
        ours = set(table.column(name))
        if not ours <= set(pair):
            wrong, right = quoted(sorted(ours - set(pair))), quoted(sorted(pair))
            problems.add(f"column {name!r} holds {wrong}; expected {right}, as the sample submission writes it")


def column_pairs(tables: Tables) -> dict[str, tuple[str, str]]:
    """Label column -> how the sample submission writes (no, yes) in it; 0 and 1 if that does not say."""
    pairs = {}
    for name in tables.answer_names:
        cells = set(_sample_column(tables, name))
        pointed = any("." in cell for cell in cells)
        fitting = [pair for pair in PAIRS if cells <= set(pair)]
        pairs[name] = fitting[0] if fitting and cells else PAIRS[pointed]
    return pairs


# ---------- building, checking and reading a whole submission.


def build_submission(
    competition: CompetitionSettings, tables: Tables, decisions: np.ndarray | None, probs: np.ndarray
) -> pd.DataFrame:
    """The answer in the sample submission's ids, columns, order and number format.

    Args:   decisions: bool (n_test, L), test_ids x label_names; may be None if the form is probabilities.
            probs: float (n_test, L), in [0, 1]; read only by the forms probabilities, ranked and values (as shares).
    Returns: ids as text; answers int64, float64 or words as the sample writes them, float64 probabilities, or text;
             the labels that are not learned are there too, each with its constant.
    Raises: ValueError: a wrong shape, or no decisions although the form needs them; faults of the caller.
    """
    form = competition.submission.form
    answers = probs if form in ("probabilities", "ranked", "values") else decisions
    shape = (len(tables.test_ids), len(tables.label_names))
    if answers is None or answers.shape != shape:
        found = "nothing" if answers is None else answers.shape
        raise ValueError(f"submission.form {form} needs answers of shape {shape} (test rows, labels); found {found}")
    row_of = {name: row for row, name in enumerate(tables.test_ids.tolist())}
    rows = [row_of[name] for name in tables.sample_ids.tolist()]
    ordered = answers[rows]  # (n_test, L), sample order
    ordered = with_constants(ordered, tables.answer_names, tables.constants, competition.task)  # (n_test, all labels)
    if tables.scale is not None:
        low, high = tables.scale.T
        ordered = low + ordered.astype(np.float64) * (high - low)
    if tables.test_allowed is not None:
        ordered = np.where(tables.test_allowed[rows], ordered, ordered.dtype.type(0))
    columns = {competition.id_column: tables.sample_ids.tolist()}
    if form in ONE_COLUMN:
        chosen = list_labels(ordered, competition.k) if form == "ranked" else map(np.flatnonzero, ordered)
        columns[competition.submission.column] = _as_text(competition, tables, chosen)
    else:
        columns |= _as_numbers(form, tables, ordered)
    return as_written(pd.DataFrame({name: columns[name] for name in tables.sample_columns}), competition, tables)


def as_written(frame: pd.DataFrame, competition: CompetitionSettings, tables: Tables) -> pd.DataFrame:
    """One row per id under the sample submission's own names of columns, or one row per pair if it has those."""
    form = long_form(competition)
    if form is None:
        return frame.set_axis(list(tables.written_columns), axis="columns")
    row_of = {name: row for row, name in enumerate(frame[competition.id_column])}
    answers = {name: frame[name].tolist() for name in tables.sample_columns}
    columns: dict[str, list] = {form.column: [answers[label][row_of[name]] for name, label in tables.sample_pairs]}
    if form.label_column:
        columns[form.label_column] = [label for _, label in tables.sample_pairs]
    ids = [form.write_id(pair) for pair in tables.sample_pairs]
    return pd.DataFrame({name: columns.get(name, ids) for name in tables.written_columns})


def read_back(table: TextTable, competition: CompetitionSettings, tables: Tables, report: Problems) -> TextTable | None:
    """A written submission with one row per id and the settings' names of columns; None if it is no such file."""
    if not check_header(table.header, tables.written_columns, report):
        return None
    form = long_form(competition)
    if form is None:
        return TextTable(tables.sample_columns, table.rows)
    own = {form.column, form.label_column} - {""}
    table = TextTable(tuple(name if name in own else form.id_column for name in table.header), table.rows)
    label_names = [name for name in tables.sample_columns if name != form.id_column]
    pairs = read_pairs(table, form, label_names, report)
    if pairs is None:
        return None
    if pairs != list(tables.sample_pairs):
        ours, theirs = set(map(form.write_id, pairs)), set(map(form.write_id, tables.sample_pairs))
        differ = [*sorted(theirs - ours), *sorted(ours - theirs)]
        what = f"missing or unknown: {quoted(differ)}" if differ else "in another order than the sample submission's"
        report.add(f"rows are {what}; expected the sample submission's {len(tables.sample_pairs)} rows")
        return None
    return widen(table, form, label_names, report)


def with_constants(
    answers: np.ndarray, all_names: Sequence[str], constants: Sequence[Constant], task: str
) -> np.ndarray:
    """Answers of the learned labels, (n, L), completed by those of the constant ones: (n, len(all_names)).

    Args:   answers: bool decisions or float probabilities.   all_names: of a submission, in its order.
    Returns: the same dtype; with one class a row, probabilities still sum to 1.
    """
    if not constants:
        return answers
    position = {name: k for k, name in enumerate(all_names)}
    whole = np.zeros((len(answers), len(all_names)), answers.dtype)
    for each in constants:
        whole[:, position[each.name]] = each.is_positive if answers.dtype == bool else each.probability
    fixed = {each.name for each in constants}
    left = 1 - sum(each.probability for each in constants) if task == "multiclass" and answers.dtype != bool else 1
    whole[:, [k for k, name in enumerate(all_names) if name not in fixed]] = answers * answers.dtype.type(left)
    return whole


def submission_bytes(frame: pd.DataFrame, separator: str = ",") -> bytes:
    """The frame as it is written: utf-8, newline at line ends, quotes only where needed, every digit of a float."""
    columns = ([_as_cell(value) for value in frame[name].tolist()] for name in frame.columns)
    return table_bytes(frame.columns, zip(*columns, strict=True), separator)


def lint_submission(
    frame: pd.DataFrame,
    competition: CompetitionSettings,
    tables: Tables,
    oof_answers: np.ndarray | None = None,
    earlier: Mapping[str, Path] | None = None,
) -> list[str]:
    """Check a submission before it is written: errors are raised, warnings come back as sentences to print.

    Args:   oof_answers: (N, L) decisions or probs made for the training rows in the same way; their rates are what is
            expected of the test rows. None: the rates of the training labels.
            earlier: sha256 of the bytes -> path of each submission that is already there.
    Returns: warnings, the most serious first; empty if nothing is unusual.
    Raises: UserError: ids, columns, order or values differ from what the sample submission asks for, every problem at
            once.
    """
    data = submission_bytes(frame, competition.submission.separator)
    return _lint(data, Path("the submission, not yet written"), competition, tables, oof_answers, earlier or {})


def lint_submission_file(
    path: Path,
    competition: CompetitionSettings,
    tables: Tables,
    oof_answers: np.ndarray | None = None,
    earlier: Mapping[str, Path] | None = None,
    data: bytes | None = None,
) -> list[str]:
    """As `lint_submission`, for a file. Args: data: its bytes if the caller has read them."""
    return _lint(read_bytes(path) if data is None else data, path, competition, tables, oof_answers, earlier or {})


def read_submission(path: Path, competition: CompetitionSettings, tables: Tables) -> np.ndarray:
    """The answers of a submission in the sample submission's order: bool decisions or float64 probs (n_test, labels).

    Raises: UserError: as `lint_submission_file`.
    """
    report = Problems(path)
    table = parse_table(read_bytes(path), submission_form(competition, "utf-8"), report)
    answers = _check(table, competition, tables, report) if table else None
    raise_if_any([report])
    return answers


def _lint(
    data: bytes,
    path: Path,
    competition: CompetitionSettings,
    tables: Tables,
    oof_answers: np.ndarray | None,
    earlier: Mapping[str, Path],
) -> list[str]:
    report = Problems(path)
    if b"\r\n" in data.partition(b"\n")[0] + b"\n":
        report.add("lines end in \\r\\n; expected \\n")
    table = parse_table(data, submission_form(competition, "utf-8"), report)
    answers = _check(table, competition, tables, report) if table else None
    raise_if_any([report])
    table = read_back(table, competition, tables, report)
    assert table is not None  # or there were problems
    same = earlier.get(hashlib.sha256(data).hexdigest(), path)
    findings = [] if same == path else [f"byte for byte the same as {shown_path(same)}: Kaggle scores it the same"]
    numeric = competition.submission.form in IN_COLUMNS
    if is_sample(table, numeric, tables):  # right if no row deserves a label, as in a file of three rows
        few = len(tables.test_ids) < FEWEST_ROWS
        findings.append(
            "every answer is the sample submission's"
            + (f", which {len(tables.test_ids)} test rows may well deserve" if few else "; was anything predicted?")
        )
    return [
        *findings,
        *find_odd_cells(table, competition, tables),
        *find_oddities(answers, tables, oof_answers, competition.submission.form),
    ]


def _check(table: TextTable, competition: CompetitionSettings, tables: Tables, report: Problems) -> np.ndarray | None:
    """The answers (n_test, L) after every check; None if the columns are not the sample submission's."""
    table = read_back(table, competition, tables, report)
    if table is None:
        return None
    check_submission_ids(table.column(competition.id_column), tables.sample_ids.tolist(), report)
    answers = read_answers(table, competition, tables.answer_names, report)
    if competition.submission.form == "columns" and not report:
        check_number_format(table, tables, report)
    return answers


def list_labels(probs: np.ndarray, k: int) -> list[np.ndarray]:
    """The positions of each row's `k` likeliest labels, the likeliest first, as MAP@k scores them.

    Of equal probabilities the first label comes first; a label of probability 0 is not listed.
    """
    k = min(k, probs.shape[1])
    border = -np.partition(-probs, k - 1, axis=1)[:, k - 1]  # of many labels few are sorted: the k-th and above
    lists = []
    for row, least in zip(probs, border, strict=True):
        found = np.flatnonzero((row >= least) & (row > 0))
        lists.append(found[np.argsort(-row[found], kind="stable")][:k])
    return lists


def _as_text(competition: CompetitionSettings, tables: Tables, chosen: Iterable[np.ndarray]) -> list[str]:
    """Names or numbers of each row's labels, at these positions, or the word for none."""
    answer, names = competition.submission, tables.answer_names
    numbers = range(answer.first_number, answer.first_number + len(names))
    words = numbers if answer.values == "numbers" else names
    if answer.list != "off":
        write = repr if answer.list == "python" else partial(json.dumps, ensure_ascii=False)
        return [write([words[k] for k in row]) for row in chosen]
    return [answer.delimiter.join(str(words[k]) for k in row) or answer.empty for row in chosen]


def _as_numbers(form: str, tables: Tables, answers: np.ndarray) -> dict[str, Sequence]:
    """One column per label: probabilities, or no and yes written as the sample submission writes them."""
    columns = zip(tables.answer_names, answers.T, strict=True)
    if form in ("probabilities", "values"):
        return {name: column.astype(np.float64) for name, column in columns}
    pairs = column_pairs(tables)
    return {name: _as_pair(column, pairs[name]) for name, column in columns}


def _as_pair(column: np.ndarray, pair: tuple[str, str]) -> Sequence:
    dtype = {PAIRS[0]: np.int64, PAIRS[1]: np.float64}.get(pair)
    return column.astype(dtype) if dtype else [pair[int(value)] for value in column]


def _as_cell(value) -> str:
    return value if isinstance(value, str) else repr(value)
