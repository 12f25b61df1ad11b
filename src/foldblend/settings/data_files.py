"""The files that a competition gives, and the columns in them that are read beside the labels: text and features.

They are groups of `CompetitionSettings` (settings/competition.py). The rules here need no other group.
"""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foldblend.errors import nearest
from foldblend.settings.fields import setting

NO_FILE = "none"
"""Name of a sample submission that does not exist."""
ROW_IDS = ("row_number", "row_number_from_1", "sample_order")
"""Where ids come from if a file has no column of ids."""

PAIR = "\x1e"
"""Between the two texts of a row in memory: ASCII's record separator, which counts as a space."""

LONGEST_NAME = 255
"""Characters that filesystems allow in the name of a file."""


@dataclass(frozen=True)
class FilesSettings:
    """The competition's files in data/<competition>/ and how they are written."""

    train: tuple[str, ...] | str = "train.csv"
    """Training file, with labels; or a list of files that are read as one, such as `[train.csv, dev.csv]`. The end of
    a name says how a file is written: .csv, .tsv, .jsonl, .json, .parquet, .xlsx; any of them packed as .gz or .zip."""
    test: str = "test.csv"
    """Test file; label columns in it are ignored."""
    sample_submission: str = "sample_submission.csv"
    """The form that a submission must have: its ids, columns and order are copied. `none`: the competition has none,
    and the form is built from `submission` and the test file."""
    encoding: str = "utf-8"
    """Text encoding of all files; it is never guessed. `utf-8-sig` for a file with a byte order mark."""
    encodings: dict[str, str] = field(default_factory=dict)
    """File -> its encoding, for files that differ from `encoding`: `{test.csv: cp1252}`."""
    invalid_bytes: Literal["refuse", "cp1252"] = "refuse"
    """What to do with a few bytes that are not utf-8 in a file that is. `refuse`: name their rows and stop. `cp1252`:
    read these bytes, and no others, as cp1252, and name the rows."""
    separator: str = ","
    """One character between the fields of the training and the test file; submissions have their own. A .tsv file is
    split at tabs without it."""
    separators: dict[str, str] = field(default_factory=dict)
    """File -> its separator, for a training or test file that differs from `separator`: `{test.csv: ";"}`."""
    quoting: Literal["minimal", "none"] = "minimal"
    """`none`: in the training and the test file, quotes are ordinary text, and a field cannot contain the separator."""
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """File -> names of its columns, for a file without a header line: `{train.csv: [id, text, joy, fear]}`."""
    rename: dict[str, dict[str, str]] = field(default_factory=dict)
    """File -> its own names of columns -> the names that the settings use: `{test.csv: {Tweet: text}}`. A submission
    keeps the sample submission's own names."""
    ids: dict[str, str] = field(default_factory=dict)
    """File -> where ids come from if it has no column of ids: `row_number` (from 0), `row_number_from_1`, or for the
    test file `sample_order` (row k has the k-th id of the sample submission)."""
    sheet: str = ""
    """Sheet of an .xlsx file; empty is the only one."""
    split_column: str = ""
    """Column of the training files that says which rows are test rows; `test` is then not read. Labels of test rows are
    never read. Empty: all rows of the training files are training rows."""
    test_values: tuple[str, ...] = ()
    """Values of `split_column` in test rows."""
    train_values: tuple[str, ...] = ()
    """Values of `split_column` in training rows; rows with other values are left out. Empty: all that are no test
    rows."""
    answer_rows: Literal["sample", "test"] = "sample"
    """Rows of a submission. `sample`: those of the sample submission, in its order. `test`: those of the test file, for
    a sample submission that is out of date or only shows the form."""
    source: Literal["by_hand", "sample", "goemotions", "kaggle"] = "by_hand"
    """How data/<competition>/ is filled if it is empty. `by_hand`: you put the files there. `kaggle`: they are
    downloaded with the Kaggle client. `sample`, `goemotions`: made or downloaded by this project."""
    instructions: str = ""
    """With `by_hand`: where the files come from and how to prepare them; shown if they are missing."""
    kaggle: str = ""
    """The competition's name in Kaggle's URLs; empty if it is not on Kaggle."""
    hidden_test_rows: int = setting(0, at_least=0)
    """Rows of the test set that is scored, if the test file here is only a part of it, as in code competitions:
    expected scores and intervals are for so many. 0: the test file is the whole."""

    @property
    def train_files(self) -> tuple[str, ...]:
        """The training files, one or several."""
        return (self.train,) if isinstance(self.train, str) else self.train

    @property
    def has_sample(self) -> bool:
        """Whether the competition has a sample submission."""
        return self.sample_submission != NO_FILE

    @property
    def stated(self) -> tuple[str, ...]:
        """Every file that is read, in the order train, test, sample submission."""
        test = () if self.split_column else (self.test,)
        return (*self.train_files, *test, *((self.sample_submission,) if self.has_sample else ()))


@dataclass(frozen=True)
class TextSettings:
    """Which columns contain the text, and how several become one."""

    columns: tuple[str, ...] = ("text",)
    """Text columns; each must exist. Cells of some of them may be empty, and those of a test row all of them."""
    template: str = ""
    """How several columns become one text, such as `{title} | {body}`; empty joins them with a space."""
    empty: Literal["refuse", "allow", "drop"] = "refuse"
    """Training rows without any text. `refuse`: name them and stop. `allow`: learn from them as they are. `drop`: leave
    them out, and name them. Test rows without text are always answered."""
    pair: tuple[str, ...] = ()
    """Two columns whose texts are compared, such as `[premise, hypothesis]`: an encoder reads both with its own
    separator between them and truncates the longer one first; other learners read them joined. Replaces `columns`."""

    def __post_init__(self) -> None:
        if self.pair and self.columns == ("text",):
            object.__setattr__(self, "columns", tuple(self.pair))


@dataclass(frozen=True)
class FeaturesSettings:
    """Columns beside the text, of the training and the test file, for runs that set `use_features`."""

    numbers: tuple[str, ...] = ()
    """Columns of numbers, such as a score or a length; an empty cell is a missing number, which counts as the mean and
    is marked. Each fold standardises them by its own training rows."""
    categories: tuple[str, ...] = ()
    """Columns of words, such as a country: a 0/1 column for each word, of a fold's 100 most frequent ones, and one for
    all others."""
    min_rows: int = setting(5, at_least=1)
    """A word of a category counts as one of the others if fewer training rows of a fold have it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, numbers first."""
        return (*self.numbers, *self.categories)


# ---------- Rules between these settings


def check_files(files: FilesSettings, id_column: str, of_submission: str) -> Iterator[str]:
    """A sentence per rule that these settings break. Args: of_submission: `submission.separator`."""
    if files.instructions and files.source != "by_hand":
        yield f"files.instructions is set, but files.source is {files.source}; only by_hand reads it, so remove it"
    if not files.train_files:
        yield "files.train is empty; expected the name of a file, or a list of names"
    data = files.train_files if files.split_column else (*files.train_files, files.test)
    if len(set(data)) < len(data):
        yield f"files names one file twice: {', '.join(data)[:200]}; set files.split_column if one file has both parts"
    named = [("train", name) for name in files.train_files]
    for name, given in (*named, ("test", files.test), ("sample_submission", files.sample_submission)):
        outside = Path(given).is_absolute() or ".." in Path(given).parts
        if not given or len(given) > LONGEST_NAME or "\0" in given or outside:
            yield f"files.{name} is {given[:80]!r}; expected the name of a file inside data/<competition>/"
    separators = [("files.separator", files.separator), ("submission.separator", of_submission)]
    separators += [(f"files.separators: {name}", given) for name, given in files.separators.items()]
    for name, separator in separators:
        if len(separator) != 1 or separator in '"\r\n':
            yield f'{name} is {separator!r}; expected one character, a tab as "\\t"'
    if files.kaggle and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", files.kaggle):  # it is in printed commands, too
        yield f"files.kaggle is {files.kaggle!r}; expected the last part of https://www.kaggle.com/competitions/NAME"
    encodings = [("files.encoding", files.encoding)]
    encodings += [(f"files.encodings: {name}", given) for name, given in files.encodings.items()]
    for name, encoding in encodings:
        if not _is_encoding(encoding):
            yield f"{name} is {encoding!r}; expected a text encoding of Python: utf-8, utf-8-sig, utf-16, ..."
    yield from _check_layouts(files, id_column)


def _is_encoding(name: str) -> bool:
    try:
        return isinstance("a".encode(name), bytes) and isinstance(b"".decode(name), str)
    except (LookupError, UnicodeError, ValueError):
        return False


def _check_layouts(files: FilesSettings, id_column: str) -> Iterator[str]:
    """Rules of the settings that say how one file differs from the others."""
    for name in ("encodings", "separators", "columns", "rename", "ids"):
        for given in getattr(files, name):
            if given not in files.stated:
                hint = nearest(given, files.stated) or f"; expected one of {', '.join(files.stated)[:200]}"
                yield f"files.{name} has {given[:80]!r}, which is not a file of this competition{hint}"
    for name, given in files.ids.items():
        if given not in ROW_IDS:
            yield f"files.ids: {name} is {given!r}; expected {', '.join(ROW_IDS)}"
        elif given == "sample_order" and (name != files.test or not files.has_sample or files.split_column):
            yield f"files.ids: {name} is sample_order, which is for a test file beside a sample submission"
        elif name == files.sample_submission:
            yield f"files.ids has the sample submission {name}, which must have ids of its own"
    for name, given in files.columns.items():
        if not given or len(set(given)) < len(given):
            yield f"files.columns: {name} lists {', '.join(given)[:200]!r}; expected each column's name once"
    for name, renamed in files.rename.items():
        if len(set(renamed.values())) < len(renamed):
            yield f"files.rename: {name} gives two columns the same name"
    yield from _check_split(files, id_column)


def _check_split(files: FilesSettings, id_column: str) -> Iterator[str]:
    if files.split_column and not files.test_values:
        yield "files.split_column is set, so files.test_values must list its values in test rows"
    if not files.split_column:
        for name in ("test_values", "train_values"):
            if getattr(files, name):
                yield f"files.{name} is set, but files.split_column is not; set it, or remove files.{name}"
    for value in sorted(set(files.test_values) & set(files.train_values)):
        yield f"files.test_values and files.train_values both have {value!r}"
    if files.split_column and files.split_column == id_column:
        yield f"files.split_column is the id column {id_column!r}; expected a column that marks test rows"
    if files.answer_rows == "test" and not files.has_sample:
        yield "files.answer_rows is set, but files.sample_submission is none; remove files.answer_rows"


def check_text(text: TextSettings, answers: set[str]) -> Iterator[str]:
    """A sentence per rule that these settings break. Args: answers: columns that hold labels."""
    for name in sorted(answers & set(text.columns)):
        yield f"column {name!r} is in text.columns and holds labels, so the models would read the answer; remove it"
    if not text.columns:
        yield "text.columns is empty; expected the name of a column"
    if text.pair and len(set(text.pair)) != 2:
        yield f"text.pair is {list(text.pair)}; expected two columns. For more texts per row use text.template"
    elif text.pair and tuple(text.columns) != tuple(text.pair):
        yield f"text.pair is {list(text.pair)}, text.columns {list(text.columns)}; set one of them"
    if text.pair and text.template:
        yield "text.pair and text.template both say how texts are joined; set one of them"
    try:
        pieces = list(string.Formatter().parse(text.template))
    except ValueError as error:
        yield f"text.template {text.template!r} cannot be read: {error}"
        return
    used = {name for _, name, _, _ in pieces if name is not None}
    if any(spec or conversion for _, _, spec, conversion in pieces):
        yield f"text.template {text.template!r} formats a field; expected only names in braces, as {{title}}"
    if text.template and used != set(text.columns):
        yield f"text.template uses {sorted(used)}, text.columns lists {sorted(text.columns)}; expected the same"


def check_features(features: FeaturesSettings, taken: dict[str, str]) -> Iterator[str]:
    """A sentence per rule that these settings break. Args: taken: column -> what it is already."""
    for name in sorted({name for name in features.columns if features.columns.count(name) > 1}):
        yield f"features has column {name!r} twice; expected it once, in numbers or in categories"
    for name in features.columns:
        if name in taken:
            yield f"features has {name!r}, which is {taken[name]}; expected a column beside text and labels"
