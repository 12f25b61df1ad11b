"""What to set if the files are not as the settings say: which columns are meant, and what the cells of labels may mean.

A column that the settings name wrongly is one problem that says what to set, not a problem per row of its cells.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from foldblend.data.answer_form import long_form
from foldblend.data.labels import LabelForm, as_yaml, is_number, read_cell, read_labels, read_share, read_value
from foldblend.data.layout import Parts, yaml_word
from foldblend.data.reading import Problems, TextTable, excerpt, quoted
from foldblend.errors import as_seen, find_nearest
from foldblend.settings.competition import IN_COLUMNS, CompetitionSettings

# ---------- columns that the settings name wrongly.


@dataclass(frozen=True)
class Meant:
    """Columns that the settings should name."""

    id_column: str = ""
    """The ids, if the settings name another column for them; empty if they do not, or nobody knows."""
    hints: dict[str, str] = field(default_factory=dict)
    """A column that a file lacks -> what to set instead, as a sentence."""
    answers: frozenset[str] = frozenset()
    """Columns of the training file with numbers, or yes and no, in some cells: they may be labels."""

    def no_ids(self, cells: Sequence[str], named: str) -> str:
        """A sentence if the column that the settings name cannot be ids and another one is; empty if it can be."""
        distinct = len(set(cells))
        if not self.id_column or 2 * distinct > len(cells):
            return ""
        return (
            f"{named!r} is no column of ids: {len(cells)} rows have {distinct} different value{'s' * (distinct > 1)}. "
            f"{self.id_column!r} has one of its own in each row. Set id_column: {yaml_word(self.id_column)}"
        )


def find_meant(competition: CompetitionSettings, parts: Parts) -> Meant:
    """What the ids, texts and labels are called in the files if the settings name columns that cannot be them."""
    id_column, hints = competition.id_column, {}
    meant = _find_id_column(competition, parts)
    if meant:
        guess = f"did you mean {meant!r}?" if find_nearest(id_column, [meant]) else f"{meant!r} looks like the ids."
        hints[id_column] = f"; {guess} Set id_column: {yaml_word(meant)}"
    train, test = parts.train, parts.test
    beside = (*competition.features.columns, *filter(None, (competition.labels.candidates,)))
    if train is not None and test is not None:
        for name in (name for name in beside if (name in train.header) != (name in test.header)):
            if not find_nearest(name, {*train.header, *test.header} - {name}):
                hints[name] = (
                    ", and the other file has it. Features and candidates must be in both: remove it from them"
                )
    for name in competition.text.columns:
        tables = [table for table in (train, test) if table is not None]
        if all(name in table.header for table in tables) or len(competition.text.columns) > 1:
            continue
        text = _longest_column(tables, {id_column, meant, *competition.features.columns})
        if text and not find_nearest(name, [text]):
            hints[name] = f"; {text!r} has the longest cells. Set text: {{columns: [{yaml_word(text)}]}}"
    answers = set() if train is None else {name for name in train.header if _has_numbers(train.column(name))}
    return Meant(meant, hints, frozenset(answers))


def _has_numbers(cells: Sequence[str]) -> bool:
    return any(read_share(cell.strip()) is not None for cell in cells)


def _find_id_column(competition: CompetitionSettings, parts: Parts) -> str:
    """The one column that is in every file and has a value of its own in each row; empty if the settings' one fits."""
    train, test, sample = parts.train, parts.test, parts.sample
    if train is None or test is None:
        return ""
    is_wide = sample is not None and not long_form(competition)
    given = [train, test, *([sample] if is_wide else [])]
    named, is_united = competition.id_column, competition.labels.aggregate != "off"
    unique = given[is_united:]  # an annotated text has its id several times
    if all(named in table.header for table in given) and all(
        2 * _distinct(table, named) > len(table.rows) for table in unique
    ):
        return ""
    tables = [train, test]
    if is_wide and len(parts.sample_header) == len(sample.header):
        tables.append(TextTable(parts.sample_header, sample.rows))  # its own name of the ids, not the settings' one
    taken = {named, *competition.features.columns, *competition.labels.names}
    found = []
    for name in train.header:
        is_everywhere = all(table.header.count(name) == 1 for table in tables) and name not in taken
        if not is_everywhere or any(_distinct(table, name) < len(table.rows) for table in tables[is_united:]):
            continue
        if not any(" " in cell for cell in test.column(name)):
            found.append(name)
    return found[0] if len(found) == 1 else ""


def _distinct(table: TextTable, name: str) -> int:
    return len(set(table.column(name)))


def _longest_column(tables: Sequence[TextTable], taken: set[str]) -> str:
    """The column of all tables with the longest cells; empty if they are not longer than a word."""
    names = [name for name in tables[0].header if all(name in each.header for each in tables) and name not in taken]
    lengths = {name: sum(map(len, tables[-1].column(name))) / len(tables[-1].rows) for name in names}
    longest = max(lengths, key=lengths.__getitem__, default="")
    return longest if lengths.get(longest, 0) > LONGEST_WORD else ""


LONGEST_WORD = 10
"""Characters on average; a column of longer cells may be texts."""


def explain_swapped_files(competition: CompetitionSettings, parts: Parts) -> str:
    """What to set if two names of files seem to be swapped; empty otherwise."""
    train, test, sample, files = parts.train, parts.test, parts.sample, competition.files
    if train is None or test is None or files.split_column:
        return ""
    texts, labels = set(competition.text.columns), competition.labels
    if sample is not None and not texts & set(test.header) and _longest_column([sample], set()) in texts:
        has = f"{files.sample_submission} has {quoted(sorted(texts))}, {files.test} has not"
        return f"files.test and files.sample_submission may be swapped: {has}"
    in_sample = [name for name in sample.header if name != competition.id_column] if sample is not None else []
    columns = {labels.column, *labels.columns, *labels.parts} - {""} or {*labels.rename, *(labels.names or in_sample)}
    if columns and not columns & set(train.header) and columns & set(test.header) and texts <= set(train.header):
        (name, *_) = files.train_files
        return f"files.train and files.test may be swapped: {files.test} has {quoted(sorted(columns))}, {name} has not"
    return ""


def explain_label_column(table: TextTable, form: LabelForm, taken: Sequence[str]) -> str:
    """What to set if labels are read from a column that holds none, while one other column does; empty otherwise.

    Args: taken: columns of ids, texts and features, which are no labels.
    """
    if form.form == "columns" or len(form.columns) != 1 or not form.names:
        return ""
    (named,) = form.columns
    if named in table.header and _share_read(table, named, form) > FEW:
        return ""
    others = [name for name in table.header if name not in (*taken, named) and table.header.count(name) == 1]
    fitting = [name for name in others if _share_read(table, name, form) > 1 - FEW]
    if len(fitting) != 1:
        return ""
    what = "holds no label of labels.names" if named in table.header else "is missing"
    return f"column {named!r} {what}; {fitting[0]!r} holds them. Set labels.column: {yaml_word(fitting[0])}"


def _share_read(table: TextTable, name: str, form: LabelForm) -> float:
    """The share of the cells that name labels, of those that say something."""
    form = replace(form, column=name, more_columns=())
    cells = [cell for cell in table.column(name) if cell.strip()]
    numbers = form.numbers
    read = {cell: read_cell(cell, form, numbers) for cell in set(cells)}
    return sum(bool(read[cell][0]) and not read[cell][1] for cell in cells) / max(1, len(cells))


FEW = 0.1
"""Share of cells: a column of labels has at most so many that are none, another column at most so many that are."""


def explain_answer_column(competition: CompetitionSettings, sample: TextTable) -> str:
    """What to set if the sample submission calls its only column of answers otherwise; empty otherwise."""
    answer = competition.submission
    if (answer.form in IN_COLUMNS and not long_form(competition)) or answer.column in sample.header:
        return ""
    others = [name for name in sample.header if name not in (competition.id_column, answer.label_column)]
    if competition.id_column not in sample.header or len(others) != 1:
        return ""
    return (
        f"column {answer.column!r} is missing, and {quoted(others)} is there in its place. Set submission.column: "
        f"{yaml_word(others[0])}"
    )


# ---------- cells of one column per label that say neither yes nor no.


UNKNOWN_WORDS = ("", "nan", "na", "n/a", "none", "null", "unknown", "?")
"""Cells that often say that nobody labelled the row."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
NO_WORDS = ("negative", "neg", "absent", "off", "-", "without", "false", "wrong")
MOST_MAPPED = 12
"""More different cells are hardly words for yes and no."""


def read_advised(table: TextTable, form: LabelForm, report: Problems) -> np.ndarray:
    """As `read_labels`; if cells cannot be read, what to set is said as well."""
    before = report.count
    values = read_labels(table, form, report)
    if report.count > before:
        report.lines += advise_labels(table, form)
    return values


def advise_labels(table: TextTable, form: LabelForm) -> list[str]:
    """What to set if some cells of the labels cannot be read, a line per kind of cell; empty if nothing is known."""
    if form.form == "columns":
        cells = list(dict.fromkeys(cell.strip() for name in form.columns for cell in table.column(name)))
        return advise_cells(cells, [cell for cell in cells if read_value(cell, form) is None], form)
    cells = [cell for name in form.columns for cell in table.column(name)]
    lines = advise_named([cell for cell in cells if cell.strip()], form)
    if form.one_a_row and not all(cell.strip() for cell in cells):
        lines.append('labels.unknown: [""] leaves out rows whose class nobody knows')
    return lines


def advise_cells(cells: Sequence[str], strange: Sequence[str], form: LabelForm) -> list[str]:
    """What to set if a label's cells say neither yes nor no.

    Args: cells: all different ones, without blanks around them.   strange: those of them that cannot be read.
    """
    if form.any_number and strange and all(DECIMAL_COMMA.fullmatch(word) for word in strange):
        return [
            f"{strange[0]!r} has a decimal comma: write the numbers with a point, as {strange[0].replace(',', '.')}"
        ]
    if form.any_number and len(strange) > MOST_MAPPED:
        return []
    if form.any_number and strange:
        named = ", ".join(map(as_yaml, strange[:MOST_MAPPED]))
        return [f"if such a cell means that nobody knows the value, set labels.unknown: [{named}]"]
    values = {word: float(word) for word in strange if is_number(word)}
    lines = []
    if not form.shares and any(0 < value < 1 for value in values.values()):
        lines.append(
            "if numbers between 0 and 1 are shares of annotators, set labels.positive_from: 0.5, the share from which "
            "a row counts as having the label"
        )
    unknown = [word for word in strange if values.get(word) == -1 or word.casefold() in UNKNOWN_WORDS]
    others = [word for word in strange if word not in unknown and not 0 < values.get(word, 0) < 1 and len(word) <= 20]
    says_no = any(read_share(cell) == 0 for cell in cells)
    meanings = _guess_meanings(others, values, says_no, "1" in cells) if 0 < len(others) <= MOST_MAPPED else {}
    if unknown:
        named = ", ".join(map(as_yaml, unknown))
        both = {**meanings, **dict.fromkeys(unknown, 0)}
        lines.append(
            f"if {' and '.join(map(as_yaml, unknown))} mean{'s' * (len(unknown) == 1)} a label that nobody knows, set "
            f"labels.unknown: [{named}]; if a no, labels.map: {_as_map(both)}"
        )
    elif meanings:
        lines.append(f"say what they mean, as labels.map: {_as_map(meanings)}")
    counts = [value for value in values.values() if value > 1]
    if len(counts) > 1 and len(counts) <= MOST_MAPPED:
        top = 100 if max(counts) > 10 else max(counts)
        shares = {word: f"{value / top:.3g}" for word, value in sorted(values.items(), key=lambda item: item[1])}
        if "1" in cells:
            shares = {"1": f"{1 / top:.3g}", **shares}
        lines.append(
            f"if they are {'percents' if top == 100 else f'votes of {top:g} annotators'}, set labels.map: "
            f"{_as_map(shares)} and labels.positive_from: 0.5"
        )
    return lines


def _guess_meanings(words: Sequence[str], values: Mapping[str, float], says_no: bool, says_yes: bool) -> dict[str, int]:
    """A word -> 0 or 1; if no other cell says no, the words do not all say yes."""
    if not says_no and says_yes and [values.get(word) for word in words] == [2]:
        return {"1": 0, words[0]: 1}
    meanings = {word: int(not _sounds_no(word)) for word in words}
    if len(words) > 1 and not says_no and all(meanings.values()):
        meanings[min(words, key=lambda word: (values.get(word, 0), len(word)))] = 0
    return meanings


def _sounds_no(word: str) -> bool:
    word = word.casefold()
    return word in NO_WORDS or word.startswith(
        tuple(f"{start}{glue}" for start in ("no", "not", "non") for glue in " _-")
    )


def _as_map(meanings: Mapping[str, object]) -> str:
    return f"{{{', '.join(f'{as_yaml(word)}: {value}' for word, value in meanings.items())}}}"


# ---------- cells that name labels.


DELIMITERS = (",", ";", "|", "/", " ", "\t", "+", "&", ":")
MANY = 0.95
"""Share of the cells that another form must read to be advised."""


def find_other_form(cells: Sequence[str], form: LabelForm) -> LabelForm | None:
    """The form with another delimiter, or other values, that reads the cells of a `delimited` column; None if none.

    Args: cells: without blank ones; `form` cannot read most of those with several labels.
    """
    if form.form != "delimited" or not cells:
        return None
    ways = [form, *(replace(form, values=values) for values in ("multi_hot", "names") if values != form.values)]
    for way in ways:
        for delimiter in (form.delimiter, *DELIMITERS):
            other = replace(way, delimiter=delimiter)
            numbers = other.numbers
            good = Counter(not read_cell(cell, other, numbers)[1] for cell in cells)[True]
            if good >= MANY * len(cells) and other != form:
                return other
    return None


def advise_named(cells: Sequence[str], form: LabelForm) -> list[str]:
    """What to set if cells name unknown labels.

    Args: cells: without blank ones.
    """
    if other := find_other_form(cells, form):
        changed = [("delimiter", f'"{other.delimiter}"'.replace("\t", "\\t")), ("values", other.values)]
        stated = ", ".join(
            f"labels.{name}: {value}" for name, value in changed if getattr(other, name) != getattr(form, name)
        )
        return [f"{excerpt(max(cells[:50], key=len))} can be read. Set {stated}"]
    numbers = form.numbers
    unknown: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for cell in cells:
        parts = [part for kind, part in read_cell(cell, form, numbers)[1] if kind == "unknown label"]
        unknown.update(parts)
        alone.update(part for part in parts if part.strip() == cell.strip(" []()'\""))
    return [*_advise_unknown(unknown, alone, form)] if form.values == "names" else []


def _advise_unknown(unknown: Counter[str], alone: Counter[str], form: LabelForm) -> Iterator[str]:
    by_folded = {as_seen(name).casefold(): name for name in form.names}
    same = {part: by_folded[as_seen(part).casefold()] for part in unknown if as_seen(part).casefold() in by_folded}
    if same:
        shown = ", ".join(f"{as_yaml(part)}: {as_yaml(name)}" for part, name in list(same.items())[:MOST_MAPPED])
        more = ", ..." if len(same) > MOST_MAPPED else ""
        yield f"if they are the same labels, set labels.rename: {{{shown}{more}}}"
    others = [part for part in unknown if part not in same and not find_nearest(part, form.names) and len(part) <= 40]
    if not 0 < len(others) <= MOST_MAPPED:
        return
    for part in others[:3]:
        rows = f"{part!r} is in {unknown[part]:,} cell{'s' * (unknown[part] > 1)}"
        if form.one_a_row:
            yield (
                f"{rows}: add it to labels.names if the submission has it; labels.unknown: [{as_yaml(part)}] leaves "
                "these rows out"
            )
        elif alone[part] == unknown[part]:
            yield (
                f"{rows}, never beside another label: set labels.empty: {as_yaml(part)} if it says that the row has no "
                "label, or add it to labels.names if it is a label of the submission"
            )
        else:
            yield (
                f'{rows}: add it to labels.names if the submission has it; labels.map: {{{as_yaml(part)}: ""}} reads '
                "the rows without it"
            )
