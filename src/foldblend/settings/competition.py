"""What a competition gave us and what it wants back: one YAML in configs/competitions/, one frozen dataclass."""

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foldblend.errors import UserError
from foldblend.scoring.metrics.table import METRICS

LONGEST_NAME = 255
"""Characters that filesystems allow the name of a file."""


@dataclass(frozen=True)
class FilesSettings:
    """The competition's files inside data/<competition>/ and how they are written."""

    train: str = "train.csv"
    """Training table, with labels."""
    test: str = "test.csv"
    """Test table; label columns in it are ignored."""
    sample_submission: str = "sample_submission.csv"
    """The form a submission must have: its ids, columns and order are copied."""
    encoding: str = "utf-8"
    """Text encoding of all files. Stated, never guessed; `utf-8-sig` for a file with a byte order mark."""
    separator: str = ","
    """One character between the fields of the training and the test file; the answer has its own."""
    quoting: Literal["minimal", "none"] = "minimal"
    """`none`: in train and test, quote characters are ordinary text and a field cannot hold the separator."""
    source: Literal["by_hand", "sample", "goemotions", "kaggle"] = "by_hand"
    """How data/<competition>/ is filled where it is empty."""
    instructions: str = ""
    """With `by_hand`: where the files come from and how they get their form; said where they are absent."""
    kaggle: str = ""
    """The competition's slug on Kaggle; empty where it has none."""


@dataclass(frozen=True)
class TextSettings:
    """Which columns hold the text and how several become one."""

    columns: tuple[str, ...] = ("text",)
    """Text columns; each must be present and not empty in every row."""
    template: str = ""
    """A pattern such as `{title} | {body}`; empty joins the columns by one space."""


@dataclass(frozen=True)
class LabelsSettings:
    """How train.csv writes a row's labels."""

    form: Literal["columns", "delimited", "class"] = "columns"
    """`columns`: one 0/1 column a label. `delimited`: one column of names or numbers. `class`: one column, one name."""
    column: str = ""
    """The column of `delimited` and `class`."""
    delimiter: str = ","
    """Between labels in a `delimited` column; an empty cell is a row without labels."""
    values: Literal["names", "numbers"] = "names"
    """What `delimited` and `class` cells hold; number k is the k-th of `names`, from 0."""
    names: tuple[str, ...] = ()
    """Label names in submission order; empty takes them from the sample submission's columns after the id."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a group -> labels of `names`. Rows are read as their groups, which are then the labels, in this order."""

    @property
    def answered(self) -> tuple[str, ...]:
        """The labels that are learned and handed in; empty where the sample submission must say."""
        return tuple(self.groups) or self.names


@dataclass(frozen=True)
class SubmissionSettings:
    """How the answer is written."""

    form: Literal["columns", "probabilities", "delimited", "class"] = "columns"
    """`columns`: 0/1 a label. `probabilities`: a number a label. `delimited`, `class`: names in one column."""
    column: str = ""
    """The answer column of `delimited` and `class`."""
    delimiter: str = " "
    """Between the names of a `delimited` answer."""
    separator: str = ","
    """One character between the fields of the sample submission and of our answer."""
    values: Literal["names", "numbers"] = "names"
    """What the cells of `delimited` and `class` answers hold."""


@dataclass(frozen=True)
class CompetitionSettings:
    """One competition: its files, its labels, its metric, its folds."""

    id_column: str
    """The column that identifies a row in all three files."""
    task: Literal["multilabel", "multiclass"] = "multilabel"
    """`multilabel`: any set of labels a row. `multiclass`: exactly one."""
    metric: Literal[tuple(METRICS)] = "macro_f1"
    """What the leaderboard scores, and what blend.py optimises."""
    n_folds: int = 5
    """Folds drawn once into folds/<competition>.csv."""
    fold_seed: int = 42
    """Seed of the draw."""
    near_duplicates: float = 0.8
    """Jaccard similarity of 5-character pieces from which two texts count as one and share a fold; 1.0 is off."""
    files: FilesSettings = field(default_factory=FilesSettings)
    text: TextSettings = field(default_factory=TextSettings)
    labels: LabelsSettings = field(default_factory=LabelsSettings)
    submission: SubmissionSettings = field(default_factory=SubmissionSettings)

    def __post_init__(self):
        problems = list(_conflicts(self))
        if problems:
            raise UserError("; ".join(problems))


def _conflicts(settings: CompetitionSettings):
    """Every pair of settings that contradict each other, as sentences."""
    labels, submission, text = settings.labels, settings.submission, settings.text
    if settings.n_folds < 2:
        yield f"n_folds is {settings.n_folds}; cross-validation needs at least 2"
    if settings.fold_seed < 0:
        yield f"fold_seed is {settings.fold_seed}; expected 0 or more"
    if not 0.5 <= settings.near_duplicates <= 1.0:
        yield f"near_duplicates is {settings.near_duplicates}; expected 0.5 to 1.0 (1.0 is off)"
    yield from _file_conflicts(settings)
    for name, part in (("labels", labels), ("submission", submission)):
        if part.form in ("delimited", "class") and not part.column:
            yield f"{name}.form is {part.form}, so {name}.column must name the column that holds it"
        if part.form in ("columns", "probabilities") and part.column:
            yield f"{name}.column is read only with form delimited or class; {name}.form is {part.form}"
        if part.form == "delimited" and not part.delimiter:
            yield f"{name}.delimiter is empty"
    if labels.form == "class" and settings.task != "multiclass":
        yield "labels.form is class, so task must be multiclass"
    if submission.form == "class" and settings.task != "multiclass":
        yield "submission.form is class, so task must be multiclass"
    if submission.form == "delimited" and settings.task == "multiclass":
        yield "submission.form delimited is for multilabel; a multiclass answer is `class`"
    if submission.form in ("delimited", "class") and not labels.names:
        yield "labels.names is needed: the sample submission has no label columns to take them from"
    yield from _name_conflicts(settings)
    yield from _group_conflicts(labels)
    if (settings.metric == "accuracy") and settings.task != "multiclass":
        yield "metric accuracy is for multiclass; subset_accuracy is its multilabel form"
    if settings.metric in ("samples_f1", "jaccard", "subset_accuracy") and settings.task == "multiclass":
        yield f"metric {settings.metric} is for multilabel; use accuracy for one label a row"
    if METRICS[settings.metric].takes_probs and submission.form != "probabilities":
        yield f"metric {settings.metric} scores probabilities, so submission.form must be probabilities"
    if not text.columns:
        yield "text.columns is empty"
    yield from _template_conflicts(text)


def _file_conflicts(settings: CompetitionSettings):
    if settings.files.instructions and settings.files.source != "by_hand":
        yield f"files.instructions are of files had by_hand; files.source is {settings.files.source}"
    for name in ("train", "test", "sample_submission"):
        given = getattr(settings.files, name)
        if (
            not given
            or len(given) > LONGEST_NAME
            or "\0" in given
            or Path(given).is_absolute()
            or ".." in Path(given).parts
        ):
            yield f"files.{name} is {given[:80]!r}; expected the name of a file inside data/<competition>/"
    for name, separator in (
        ("files.separator", settings.files.separator),
        ("submission.separator", settings.submission.separator),
    ):
        if len(separator) != 1 or separator in '"\r\n':
            yield f'{name} is {separator!r}; expected one character, a tab as "\\t"'
    try:
        "a".encode(settings.files.encoding)
    except (LookupError, UnicodeError):
        yield f"files.encoding {settings.files.encoding!r} is no text encoding of Python; utf-8, utf-8-sig, utf-16, ..."


def _name_conflicts(settings: CompetitionSettings):
    if len(set(settings.labels.names)) != len(settings.labels.names):
        yield "labels.names holds a name twice"
    written = (("labels", settings.labels, settings.labels.names),)
    written += (("submission", settings.submission, settings.labels.answered),)
    for name in dict.fromkeys((*settings.labels.names, *settings.labels.groups)):
        if not name or name != name.strip():
            yield f"labels.names holds {name!r}; expected a name without spaces around it"
        if name == settings.id_column:
            yield f"labels.names holds the id column {name!r}"
        for group, part, names in written:
            in_words = part.form == "delimited" and part.values == "names" and name in names
            if in_words and part.delimiter and part.delimiter in name:
                yield f"label {name!r} holds {group}.delimiter {part.delimiter!r}, so a cell could be read two ways"


def _group_conflicts(labels: LabelsSettings):
    """Every label is in one group: in none, its rows would silently lose it."""
    if not labels.groups:
        return
    members = [name for group in labels.groups.values() for name in group]
    for name in sorted({name for name in members if members.count(name) > 1}):
        yield f"labels.groups holds {name!r} twice"
    for name in sorted(set(members) - set(labels.names)):
        yield f"labels.groups holds {name!r}, which is not in labels.names"
    for name in sorted(set(labels.names) - set(members)):
        yield f"label {name!r} of labels.names is in no group of labels.groups"
    for name in (name for name, group in labels.groups.items() if not group):
        yield f"labels.groups: group {name!r} is empty"
    if len(labels.groups) < 2:
        yield "labels.groups holds one group; expected at least two labels to tell apart"


def _template_conflicts(text: TextSettings):
    try:
        pieces = list(string.Formatter().parse(text.template))
    except ValueError as error:
        yield f"text.template {text.template!r} cannot be read: {error}"
        return
    fields = {name for _, name, _, _ in pieces if name is not None}
    if any(spec or conversion for _, _, spec, conversion in pieces):
        yield f"text.template {text.template!r} formats a field; expected only names in braces, as {{title}}"
    if text.template and fields != set(text.columns):
        yield f"text.template uses {sorted(fields)}, text.columns lists {sorted(text.columns)}; expected the same"
