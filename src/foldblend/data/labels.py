"""The ways a row's labels are written, read into (N, L) values: 0/1 columns, delimited cells, lists, one class name."""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foldblend.data.reading import Problems, TextTable, excerpt, quoted
from foldblend.errors import nearest

# ---------- cells: what one says, whatever program wrote it.


YES, NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")
YES_OR_NO = {**dict.fromkeys(YES, 1.0), **dict.fromkeys(NO, 0.0)}
"""What a cell may say, in any case; numbers are compared as numbers (1, 1.0)."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A finite decimal number; `float` would also take nan, inf and 1_000."""

BRACKETS = {"[": "]", "(": ")", "{": "}"}
"""Around a list, tuple or set that Python, JSON, numpy or a database wrote into a cell."""

QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")


def is_number(cell: str) -> bool:
    """Whether a cell is a finite decimal number."""
    return NUMBER.fullmatch(cell) is not None


def read_share(cell: str) -> float | None:
    """A cell as a number: yes is 1, no is 0; None if it is neither a word for them nor a number."""
    word = YES_OR_NO.get(cell.casefold())
    return word if word is not None else float(cell) if is_number(cell) else None


def same_cell(cell: str, other: str) -> bool:
    """Whether two cells say the same; as numbers if both are (-1 and -1.0)."""
    return cell == other or (is_number(cell) and is_number(other) and float(cell) == float(other))


def parse_list(cell: str, delimiter: str = ",") -> list[str] | dict[str, str] | None:
    """The items of a cell that holds a list, set, tuple or object in brackets; None if it holds none.

    Without quotes, items are separated by commas, else by the delimiter, else by blanks.

    Example: "['joy', 'love']", '["joy", "love"]', "['joy' 'love']", "{joy,love}" -> ["joy", "love"]; "[0 1]" ->
             ["0", "1"]; '{"joy": 1}' -> {"joy": "1"}.
    """
    cell = cell.strip()
    if len(cell) < 2 or BRACKETS.get(cell[0]) != cell[-1]:
        return None
    quoted_items = QUOTED.findall(cell) if cell[0] != "{" else []
    is_numpy = len(quoted_items) > 1 and "," not in QUOTED.sub("", cell)  # Python would join items without commas
    for read in (json.loads, *([] if is_numpy else [ast.literal_eval])):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, dict):
            return {str(key): str(of_key) for key, of_key in value.items()}
        if isinstance(value, list | tuple):
            return [str(item) for item in value]
        break  # a set forgets the order in which repeated names stand; a text in brackets is no list
    if is_numpy:
        return [one or other for one, other in quoted_items]
    inside = cell[1:-1].strip()
    between = next((each for each in (",", delimiter) if each and each in inside), None)
    return [part.strip(" '\"") for part in inside.split(between)] if inside else []


# ---------- how one file writes labels.


@dataclass(frozen=True)
class LabelForm:
    """How labels are written in one file, and what they are called there."""

    form: str
    """`columns`, `delimited` or `class`."""
    names: tuple[str, ...]
    column: str = ""
    delimiter: str = ","
    values: str = "names"
    one_a_row: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    """Labels that are read as one, in the order of the columns of `read_labels`; empty keeps every label."""
    more_columns: tuple[str, ...] = ()
    """Further columns like `column`; a row has the labels of all of them."""
    first_number: int = 0
    """The number of the first label, if `values` is numbers."""
    empty: str = ""
    """The word for `no label`; an empty cell always says so."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What stands in a cell -> what it means."""
    unknown: tuple[str, ...] = ()
    """Cells that say that nobody knows."""
    shares: bool = False
    """Whether numbers between 0 and 1 are allowed."""
    any_number: bool = False
    """Whether cells are values of a regression."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that must be there."""
        return self.names if self.form == "columns" else tuple(filter(None, (self.column, *self.more_columns)))

    @property
    def numbers(self) -> dict[str, int]:
        """What a cell may say -> position of the label."""
        numbers = range(self.first_number, self.first_number + len(self.names))
        says = map(str, numbers) if self.values == "numbers" else self.names
        return {name: k for k, name in enumerate(says)}

    @property
    def has_fractions(self) -> bool:
        """Whether values may be other than 0 and 1: shares, or nan for unknown ones."""
        return self.shares or self.any_number or bool(self.unknown)

    def is_unknown(self, cell: str) -> bool:
        """Whether the cell is one of `unknown`."""
        return any(same_cell(cell.strip(), other) for other in self.unknown)


def read_labels(table: TextTable, form: LabelForm, problems: Problems) -> np.ndarray:
    """Labels of every row, bool (N, L); what cannot be read goes to `problems` and counts as no label.

    If the form has fractions: float32 (N, L), shares in [0, 1], nan for an unknown one. L is the number of names, or of
    groups if there are any: a row has as much of a group as of the label of it that it has most of.
    """
    before = problems.count
    if form.form == "columns":
        labels = _from_columns(table, form, problems)
    else:
        parts = [_from_cells(table.column(name), form, problems) for name in form.columns]
        labels = parts[0] if len(parts) == 1 else _most(np.stack(parts))
    if form.one_a_row and problems.count == before:
        _check_one_a_row(labels, form, problems)
    if not form.groups:
        return labels
    position = {name: k for k, name in enumerate(form.names)}
    members = [[position[name] for name in group] for group in form.groups]
    return np.stack([_most(labels[:, group].T) for group in members], axis=1)


def find_names(cells: Iterable[str], form: LabelForm) -> list[str]:
    """The labels that cells name, sorted; numbers by their value, and 3.0 as 3.

    Args: form: of these cells, without names.
    """
    found: dict[str, None] = {}
    for cell in dict.fromkeys(cells):
        word = mapped(cell, form.meanings)
        if form.is_unknown(word) or not word.strip() or (form.empty and word.strip() == form.empty):
            continue
        said = [mapped(part, form.meanings) for part in _split(word.strip(), form, {})]
        found |= dict.fromkeys(_as_whole(part.strip()) for part in said if part.strip())
    return sorted(found, key=lambda name: (0, float(name), name) if is_number(name) else (1, 0.0, name))


def _as_whole(name: str) -> str:
    """A number as it is written without a point if it is whole: programs write 3.0 if other cells are empty."""
    return str(int(float(name))) if re.fullmatch(r"\d+\.0+", name) else name


def read_ranked(table: TextTable, form: LabelForm, k: int, problems: Problems) -> np.ndarray:
    """The lists of a ranked submission, float64 (N, L): 1 / place in the list, from 1; 0 if it is not there.

    A list of no label, or of more than k, is a problem.
    """
    read_labels(table, form, problems)
    cells, numbers = table.column(form.column), form.numbers
    lists = {cell: list(read_cell(cell, form, numbers)[0]) for cell in set(cells)}
    places = np.zeros((len(cells), len(form.names)))
    for row, cell in enumerate(cells):
        places[row, lists[cell]] = 1 / np.arange(1, len(lists[cell]) + 1)
    wrong = [row for row, cell in enumerate(cells) if not 1 <= len(lists[cell]) <= k]
    found = [(row, f"{form.column!r} lists {len(lists[cells[row]])} labels; expected 1 to {k}") for row in wrong]
    problems.add_rows(f"not 1 to {k} labels", found)
    return places


def read_candidates(cells: Sequence[str], form: LabelForm, problems: Problems, must_know: bool) -> np.ndarray:
    """The labels that each row can have, bool (N, L); an empty cell allows all.

    Args: form: of these cells, `delimited`.   must_know: whether a word that is no label is a problem; if not, a note.
    """
    numbers = form.numbers
    read = {cell: read_cell(cell, form, numbers) for cell in set(cells)}
    allowed = np.zeros((len(cells), len(form.names)), bool)
    for row, cell in enumerate(cells):
        allowed[row, list(read[cell][0])] = True
    empty = [row for row, cell in enumerate(cells) if not cell.strip() or not (read[cell][0] or read[cell][1])]
    problems.note_rows(f"{form.column!r} is empty in {len(empty)} rows, which allows every label", empty)
    defects = {cell: [part for kind, part in read[cell][1] if kind == "unknown label"] for cell in read}
    if must_know:
        found = [(row, _spell_unknown(part, cell, form)) for row, cell in enumerate(cells) for part in defects[cell]]
        problems.add_rows(f"{form.column!r} with an unknown label", found)
    elif unknown := list(dict.fromkeys(part for parts in defects.values() for part in parts)):
        problems.notes.append(
            f"{len(unknown)} candidates in {form.column!r} are no label of the training file and are never answered: "
            f"{quoted(unknown)}"
        )
    allowed[empty] = True
    return allowed


def _most(parts: np.ndarray) -> np.ndarray:
    """The largest along the first axis; nan if any part is unknown and none is a whole yes."""
    if parts.dtype == bool:
        return parts.any(axis=0)
    return np.where((parts == 1).any(axis=0), np.float32(1), parts.max(axis=0))


# ---------- one column per label.


def _from_columns(table: TextTable, form: LabelForm, problems: Problems) -> np.ndarray:
    labels = np.zeros((len(table.rows), len(form.names)), np.float32 if form.has_fractions else bool)  # (N, L)
    wanted = "a number" if form.any_number else "a share from 0 to 1" if form.shares else "0 or 1"
    for k, name in enumerate(form.names):
        cells = table.column(name)
        read = {cell: read_value(cell, form) for cell in set(cells)}
        labels[:, k] = [read[cell] or 0 for cell in cells]
        bad = [row for row, cell in enumerate(cells) if read[cell] is None]
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected {wanted}") for row in bad]
        problems.add_rows(f"{name!r} not {wanted}", found)
    return labels


def read_value(cell: str, form: LabelForm) -> float | None:
    """What a 0/1 cell says: 0 to 1, nan for unknown, None if it cannot be read."""
    cell = mapped(cell, form.meanings)
    if form.is_unknown(cell):
        return float("nan")
    if form.any_number:
        return float(cell) if is_number(cell.strip()) else None
    value = read_share(cell.strip())
    if value is None and form.shares and cell.strip().endswith("%"):
        value = float(cell.strip()[:-1]) / 100 if is_number(cell.strip()[:-1]) else None
    return value if value in (0, 1) or (form.shares and value is not None and 0 <= value <= 1) else None


def mapped(cell: str, meanings: Mapping[str, str]) -> str:
    """What the cell means by `labels.map`; itself if it is not in there. Numbers are compared as numbers."""
    if not meanings:
        return cell
    stripped = cell.strip()
    found = [other for other in meanings if same_cell(stripped, other)]
    return meanings[found[0]] if found else cell


def as_yaml(word: str) -> str:
    """A word as it is written in YAML: in quotes if it needs them, characters beyond ASCII spelt out."""
    return word if re.fullmatch(r"[A-Za-z0-9_.-]+", word) else json.dumps(word)


# ---------- cells that name labels.


Defect = tuple[str, str]
"""(kind in DEFECTS, part of the cell)."""


def _from_cells(cells: Sequence[str], form: LabelForm, problems: Problems) -> np.ndarray:
    """Cells repeat, so each spelling is read once."""
    numbers = form.numbers
    read = {cell: read_cell(cell, form, numbers) for cell in set(cells)}
    labels = np.zeros((len(cells), len(form.names)), np.float32 if form.has_fractions else bool)  # (N, L)
    for row, cell in enumerate(cells):
        for position, value in read[cell][0].items():
            labels[row, position] = value
    bad = [row for row, cell in enumerate(cells) if read[cell][1]]
    for kind, spell in DEFECTS.items():
        found = [(row, (part, cells[row])) for row in bad for k, part in read[cells[row]][1] if k == kind]
        problems.add_rows(kind, found, lambda what, spell=spell: spell(*what, form))
    return labels


def read_cell(cell: str, form: LabelForm, numbers: Mapping[str, int]) -> tuple[dict[int, float], list[Defect]]:
    """(position -> value of each label that the cell has or does not know, its defects)."""
    word = mapped(cell, form.meanings)
    if form.is_unknown(word):
        return dict.fromkeys(range(len(form.names)), float("nan")), []
    if not word.strip() or (form.empty and word.strip() == form.empty):
        is_lacking = form.form == "class" and form.one_a_row and not form.more_columns
        return {}, [("class missing", cell)] if is_lacking else []
    said = _split(word, form, numbers)
    if isinstance(said, dict):
        return _read_object(said, form, numbers)
    if form.form != "class" and _is_multi_hot(said, form, numbers):
        return _read_multi_hot(said, form)
    if form.form != "class":  # a part that is mapped to nothing is left out
        parts = [(part, mapped(part, form.meanings)) for part in said]
        said = [meaning for part, meaning in parts if meaning.strip() or not part]
    known = [_find_label(part, numbers) for part in said]
    defects = [("unknown label", part) for part, at in zip(said, known, strict=True) if part and at is None]
    defects = list(dict.fromkeys(defects))
    at = [position for position in known if position is not None]
    defects += [("doubled label", said[known.index(k)]) for k, count in Counter(at).items() if count > 1]
    defects += [("empty label", "")] if "" in said else []
    if form.form == "class" and len(said) > 1 and not defects:
        defects = [("unknown label", cell)]
    return dict.fromkeys(at, 1.0), defects


def _split(word: str, form: LabelForm, numbers: Mapping[str, int]) -> list[str] | dict[str, str]:
    """The parts of a cell, blanks around them removed; nothing after a trailing delimiter."""
    if word in numbers:
        return [word]
    if form.values == "multi_hot" and len(word) == len(form.names) and set(word) <= {"0", "1"}:
        return list(word)
    if (listed := parse_list(word, form.delimiter)) is not None:
        return [] if form.empty and listed == [form.empty] else listed
    if form.form == "class":
        return [word]
    said = [part.strip() for part in word.split(form.delimiter)]
    while len(said) > 1 and not said[-1]:
        said.pop()
    return [] if said == [form.empty] else said


def _find_label(part: str, numbers: Mapping[str, int]) -> int | None:
    """Position of the label that a part names; 3.0 is 3, and True is yes if only one name says yes."""
    if part in numbers:
        return numbers[part]
    if is_number(part) and float(part).is_integer() and (found := numbers.get(str(int(float(part))))) is not None:
        return found
    meaning = read_share(part.strip())
    alike = [at for name, at in numbers.items() if YES_OR_NO.get(name.casefold()) == meaning]
    return alike[0] if meaning in (0, 1) and len(alike) == 1 and len(numbers) == 2 else None


def _is_multi_hot(said: Sequence[str], form: LabelForm, numbers: Mapping[str, int]) -> bool:
    """Whether the parts are one 0/1 (or share) per label: so set, or they can be nothing else."""
    if form.values == "multi_hot":
        return True
    fits = form.values == "names" and len(said) == len(form.names) > 1
    return fits and not any(part in numbers for part in said) and all(read_value(part, form) in (0, 1) for part in said)


def _read_multi_hot(said: Sequence[str], form: LabelForm) -> tuple[dict[int, float], list[Defect]]:
    values = [read_value(part, form) for part in said]
    if len(said) != len(form.names):
        return {}, [("not one per label", str(len(said)))]
    defects = [("not 0 or 1", part) for part, value in zip(said, values, strict=True) if value is None]
    return {k: value for k, value in enumerate(values) if value}, defects


def _read_object(said: dict[str, str], form: LabelForm, numbers: Mapping[str, int]) -> tuple[dict, list[Defect]]:
    """A cell such as {"joy": 1, "love": 0}."""
    found: dict[int, float] = {}
    defects: list[Defect] = []
    for part, cell in said.items():
        at, value = _find_label(mapped(part, form.meanings), numbers), read_value(cell, form)
        defects += [("unknown label", part)] if at is None else [("not 0 or 1", cell)] if value is None else []
        if at is not None and value:
            found[at] = value
    return found, defects


def _spell_unknown(part: str, cell: str, form: LabelForm) -> str:
    first = form.first_number
    if form.values == "numbers":
        last = first + len(form.names) - 1
        hint = f"; expected {first} to {last}, as labels.names has {len(form.names)}"
        if not first and part == str(len(form.names)):
            hint += ". If they are counted from 1, set labels.first_number: 1"
    else:
        hint = nearest(part, form.names) or f"; expected one of {quoted(form.names)}"
        if part.strip() == cell.strip() and part.strip().casefold() in NO_LABEL_WORDS:
            hint = f"; if it says that the row has no label, set labels.empty: {as_yaml(part.strip())}"
    return f"unknown label {excerpt(part)}{hint}"


NO_LABEL_WORDS = ("none", "no label", "nothing", "null", "nan", "na", "n/a", "-", "neutral")
"""Words that often stand in a cell of a row without labels."""

DEFECTS: dict[str, Callable[[str, str, LabelForm], str]] = {
    "unknown label": _spell_unknown,
    "doubled label": lambda part, cell, form: f"{excerpt(part)} appears twice in {excerpt(cell)}{_hint_twice(form)}",
    "empty label": lambda part, cell, form: f"an empty label in {excerpt(cell)}, split at {form.delimiter!r}",
    "class missing": lambda part, cell, form: f"{form.column!r} is empty; expected one class",
    "not one per label": lambda part, cell, form: (
        f"{part} numbers in {excerpt(cell)}; expected {len(form.names)}, one per label, as labels.values is multi_hot"
    ),
    "not 0 or 1": lambda part, cell, form: f"{excerpt(part)} in {excerpt(cell)}; expected 0 or 1",
}
"""What can be wrong with a cell -> the sentence on (part of the cell, cell, form)."""


def _hint_twice(form: LabelForm) -> str:
    return "; if the cell is one 0 or 1 per label, set labels.values: multi_hot" if form.values == "numbers" else ""


ROUNDED = 0.02
"""How far the shares of a row may sum from 1."""


def _check_one_a_row(labels: np.ndarray, form: LabelForm, problems: Problems) -> None:
    if form.shares:
        sums = labels.sum(axis=1)
        wrong = (
            (int(row), f"shares that sum to {sums[row]:.3g}; expected 1")
            for row in np.flatnonzero(abs(sums - 1) > 0.02)
        )
        problems.add_rows("shares do not sum to 1", wrong)
        return
    counts = labels.sum(axis=1)
    wrong = ((int(row), f"{counts[row]} labels; task multiclass expects one") for row in np.flatnonzero(counts != 1))
    problems.add_rows("not exactly one label", wrong)


# ---------- from what train.csv says to what is learned: annotators' rows united, shares, unknown cells.

ROUNDING = 1e-6
"""A share of float32 this much below `labels.positive_from` counts as equal to it."""


def group_rows(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(first, member): the first row of each id, int64 (M,), rising, and which of them each row is of, int64 (n,)."""
    of_id: dict[str, int] = {}
    member = np.array([of_id.setdefault(name, len(of_id)) for name in ids], dtype=np.int64)
    return np.unique(member, return_index=True)[1], member


def unite_annotators(values: np.ndarray, member: np.ndarray, how: str, one_a_row: bool) -> np.ndarray:
    """What the annotators of each text say together.

    Args:    values: (n, L), bool or shares, nan is unknown and does not count.   member: int64 (n,), 0..M-1.
             how: `majority` (more than half of them), `mean` (their share), `any` (at least one).
             one_a_row: one class a row; then the majority is the class with most votes, the first of equal ones.
    Returns: float32 (M, L), nan if no annotator of a text knows.
    Example: 3 annotators say 1, 1, 0: majority 1, mean 0.67, any 1.
    """
    values = values.astype(np.float64)
    known, shape = ~np.isnan(values), (int(member.max()) + 1, values.shape[1])
    said, asked = np.zeros(shape), np.zeros(shape)
    np.add.at(said, member, np.where(known, values, 0))
    np.add.at(asked, member, known)
    share = np.divide(said, asked, out=np.full(shape, np.nan), where=asked > 0)
    if how == "majority" and one_a_row:
        share = np.eye(shape[1])[share.argmax(axis=1)]
    elif how in ("majority", "any"):
        share = np.where(asked > 0, share > (0.5 if how == "majority" else 0), np.nan)
    return share.astype(np.float32)


def find_ties(values: np.ndarray, member: np.ndarray, one_a_row: bool) -> np.ndarray:
    """Texts whose annotators are even, int64: two classes with most votes, or half of them for a label.

    Args: as for `unite_annotators`.
    """
    known, shape = ~np.isnan(values.astype(np.float64)), (int(member.max()) + 1, values.shape[1])
    said, asked = np.zeros(shape), np.zeros(shape)
    np.add.at(said, member, np.where(known, values, 0))
    np.add.at(asked, member, known)
    even = (said == said.max(axis=1, keepdims=True)) & (said > 0) if one_a_row else (2 * said == asked) & (asked > 0)
    return np.flatnonzero(even.sum(axis=1) > one_a_row)


@dataclass(frozen=True)
class Targets:
    """What N rows teach about L labels."""

    labels: np.ndarray
    """bool (N, L): what is scored; False if unknown."""
    soft: np.ndarray | None = None
    """float32 (N, L) in [0, 1]: what is learned instead of `labels`; None if that is 0 and 1 anyway."""
    known: np.ndarray | None = None
    """bool (N, L), False for a cell that nobody knows; None if all are known."""

    def of_labels(self, columns: Sequence[int]) -> "Targets":
        """The same of some labels."""
        parts = (part if part is None else np.ascontiguousarray(part[:, columns]) for part in (self.soft, self.known))
        return Targets(np.ascontiguousarray(self.labels[:, columns]), *parts)


def scale_values(values: np.ndarray) -> tuple[Targets, np.ndarray]:
    """Values of a regression as shares of their range, and that range, float64 (L, 2).

    `labels` say which values are above the middle one, so that folds have as many high ones each.
    Args: values: float (N, L), nan is unknown; each column has two different values.
    """
    known = ~np.isnan(values)
    scale = np.stack([np.nanmin(values, axis=0), np.nanmax(values, axis=0)], axis=1).astype(np.float64)
    shares = (values - scale[:, 0]) / (scale[:, 1] - scale[:, 0])
    middle = np.nanmedian(shares, axis=0)
    middle = np.where(middle >= 1, np.nextafter(1, 0), middle)  # more than half of the values are the highest
    labels = known & (shares > middle)
    soft = np.where(known, shares, 0).clip(0, 1).astype(np.float32)
    return Targets(labels, soft, None if known.all() else known), scale


def split_values(values: np.ndarray, positive_from: float, one_a_row: bool) -> Targets:
    """Labels, soft targets and mask of values.

    Args: values: (N, L), bool, or shares with nan for unknown.   positive_from: the share from which a row has a label
          (0: shares are 0 or 1).   one_a_row: the label is the class with the largest share, the first of equal ones.
    """
    if values.dtype == bool:
        return Targets(values)
    known = ~np.isnan(values)
    soft = np.where(known, values, 0).astype(np.float32)
    if one_a_row:
        labels = soft.argmax(axis=1)[:, None] == np.arange(soft.shape[1])
    else:
        labels = soft >= (positive_from or 1.0) - ROUNDING
    is_hard = bool(((soft == 0) | (soft == 1)).all())
    return Targets(labels & known, None if is_hard else soft, None if known.all() else known)
