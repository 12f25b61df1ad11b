"""What a competition gave us and what it wants back: one YAML in configs/competitions/, one frozen dataclass."""

import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foldblend.errors import UserError
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.fields import find_problems, setting

LONGEST_NAME = 255
"""Characters that filesystems allow in the name of a file."""


@dataclass(frozen=True)
class FilesSettings:
    """The competition's files in data/<competition>/ and how they are written."""

    train: str = "train.csv"
    """Training file, with labels."""
    test: str = "test.csv"
    """Test file; label columns in it are ignored."""
    sample_submission: str = "sample_submission.csv"
    """The form that a submission must have: its ids, columns and order are copied."""
    encoding: str = "utf-8"
    """Text encoding of all files; it is never guessed. `utf-8-sig` for a file with a byte order mark."""
    separator: str = ","
    """One character between the fields of the training and the test file; submissions have their own."""
    quoting: Literal["minimal", "none"] = "minimal"
    """`none`: in the training and the test file, quotes are ordinary text, and a field cannot contain the separator."""
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


@dataclass(frozen=True)
class TextSettings:
    """Which columns contain the text, and how several become one."""

    columns: tuple[str, ...] = ("text",)
    """Text columns; each must exist and not be empty in every row."""
    template: str = ""
    """How several columns become one text, such as `{title} | {body}`; empty joins them with a space."""


@dataclass(frozen=True)
class LabelsSettings:
    """How train.csv writes a row's labels."""

    form: Literal["columns", "delimited", "class"] = "columns"
    """`columns`: one column of 0 and 1 per label. `delimited`: one column with several names or numbers. `class`: one
    column with one name or number."""
    column: str = ""
    """The column of `delimited` and `class`."""
    delimiter: str = ","
    """Between the labels of a `delimited` column; an empty cell is a row without labels."""
    values: Literal["names", "numbers"] = "names"
    """What the cells of `delimited` and `class` contain; number k is the k-th of `names`, counted from 0."""
    names: tuple[str, ...] = ()
    """Label names in submission order; empty takes the sample submission's columns after the id."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a group -> labels of `names`. The groups become the labels, in this order; a row has a group if it has
    one of the group's labels."""

    @property
    def submitted(self) -> tuple[str, ...]:
        """The labels that are learned and submitted; empty if the sample submission names them."""
        return tuple(self.groups) or self.names


@dataclass(frozen=True)
class SubmissionSettings:
    """How the submission is written."""

    form: Literal["columns", "probabilities", "delimited", "class"] = "columns"
    """`columns`: 0 or 1 per label. `probabilities`: a number per label. `delimited`, `class`: names or numbers in one
    column."""
    column: str = ""
    """The column of `delimited` and `class`."""
    delimiter: str = " "
    """Between the labels of a `delimited` submission."""
    separator: str = ","
    """One character between the fields of the sample submission and of the submissions."""
    values: Literal["names", "numbers"] = "names"
    """What the cells of `delimited` and `class` submissions contain."""


@dataclass(frozen=True)
class FoldsSettings:
    """Folds that you bring, such as those that a team or a public notebook shares; by default they are drawn here."""

    file: str = ""
    """A .csv in data/<competition>/ with the id column and a column of folds; it may be the training file itself. Empty
    draws the folds here."""
    column: str = "fold"
    """The column of the fold: numbers or names. There must be `n_folds` different ones."""


@dataclass(frozen=True)
class CompetitionSettings:
    """One competition: its files, its labels, its metric, its folds."""

    id_column: str
    """The column that identifies a row in all three files."""
    task: Literal["multilabel", "multiclass", "ordinal"] = "multilabel"
    """`multilabel`: any set of labels per row. `multiclass`: exactly one. `ordinal`: exactly one, and the labels have
    an order, that of labels.names: read as `multiclass`, whose metric says whether the order counts."""
    metric: str = setting("macro_f1", choices=METRICS)
    """What the leaderboard scores and blend.py optimises."""
    n_folds: int = setting(5, at_least=2)
    """Number of folds, made once and stored in folds/<competition>.csv."""
    fold_seed: int = setting(42, at_least=0)
    """Seed of the split into folds."""
    near_duplicates: float = setting(0.8, at_least=0.5, at_most=1)
    """Texts with at least this Jaccard similarity of their 5-character pieces count as duplicates and share a fold;
    1.0 is off. Lower it if texts repeat with small changes. Pieces that half of the texts share do not count."""
    groups: str = ""
    """A column of the training file whose equal values share a fold, such as `author`; an empty cell is a row by
    itself. Texts that say the same share a fold in any case."""
    folds: FoldsSettings = field(default_factory=FoldsSettings)
    files: FilesSettings = field(default_factory=FilesSettings)
    text: TextSettings = field(default_factory=TextSettings)
    labels: LabelsSettings = field(default_factory=LabelsSettings)
    submission: SubmissionSettings = field(default_factory=SubmissionSettings)

    def __post_init__(self) -> None:
        if self.task == "ordinal":
            object.__setattr__(self, "task", "multiclass")
        problems = list(find_problems(self))
        if self.metric in METRICS:
            problems += [problem for check in CHECKS for problem in check(self)]
        if problems:
            raise UserError("; ".join(problems))


# ---------- Rules between settings. Each yields a sentence per rule that a competition breaks.


def _check_forms(settings: CompetitionSettings) -> Iterator[str]:
    labels, submission = settings.labels, settings.submission
    for name, part in (("labels", labels), ("submission", submission)):
        if part.form in ("delimited", "class") and not part.column:
            yield f"{name}.form is {part.form}, so {name}.column must name the column that contains it"
        if part.form in ("columns", "probabilities") and part.column:
            yield (
                f"{name}.column is set, but {name}.form is {part.form}; only delimited or class read it, "
                f"so remove it or set {name}.form"
            )
        if part.form == "delimited" and not part.delimiter:
            yield f"{name}.delimiter is empty; expected what stands between labels, such as ','"
        if part.form == "class" and settings.task != "multiclass":
            yield f"{name}.form is class, so task must be multiclass"
    if submission.form == "delimited" and settings.task == "multiclass":
        yield "submission.form is delimited, which is for multilabel; a multiclass submission is `class`"
    if submission.form in ("delimited", "class") and not labels.names:
        yield "labels.names is needed: the sample submission has no label columns to take them from"


def _check_metric(settings: CompetitionSettings) -> Iterator[str]:
    metric = settings.metric
    if metric == "accuracy" and settings.task != "multiclass":
        yield "metric accuracy is for multiclass; subset_accuracy is its multilabel form"
    if METRICS[metric].is_ordered and settings.task != "multiclass":
        yield (
            f"metric {metric} is for one class per row, and the classes have an order; set task: ordinal and list "
            "labels.names in this order"
        )
    if metric in ("samples_f1", "samples_f2", "jaccard", "subset_accuracy") and settings.task == "multiclass":
        yield f"metric {metric} is for multilabel; use accuracy for one label per row"
    if METRICS[metric].takes_probs and settings.submission.form != "probabilities":
        yield f"metric {metric} scores probabilities, so submission.form must be probabilities"


def _check_files(settings: CompetitionSettings) -> Iterator[str]:
    files = settings.files
    if files.instructions and files.source != "by_hand":
        yield f"files.instructions is set, but files.source is {files.source}; only by_hand reads it, so remove it"
    for name in ("train", "test", "sample_submission"):
        given = getattr(files, name)
        outside = Path(given).is_absolute() or ".." in Path(given).parts
        if not given or len(given) > LONGEST_NAME or "\0" in given or outside:
            yield f"files.{name} is {given[:80]!r}; expected the name of a file inside data/<competition>/"
    for name, separator in (("files", files.separator), ("submission", settings.submission.separator)):
        if len(separator) != 1 or separator in '"\r\n':
            yield f'{name}.separator is {separator!r}; expected one character, a tab as "\\t"'
    try:
        "a".encode(files.encoding)
    except (LookupError, UnicodeError):
        yield f"files.encoding is {files.encoding!r}; expected a text encoding of Python: utf-8, utf-8-sig, utf-16, ..."


def _check_names(settings: CompetitionSettings) -> Iterator[str]:
    labels = settings.labels
    if len(set(labels.names)) != len(labels.names):
        yield "labels.names has a name twice"
    written = (("labels", labels, labels.names), ("submission", settings.submission, labels.submitted))
    for name in dict.fromkeys((*labels.names, *labels.groups)):
        if not name or name != name.strip():
            yield f"labels.names has {name!r}; expected a name without spaces around it"
        if name == settings.id_column:
            yield f"labels.names has the id column {name!r}; remove it"
        for group, part, names in written:
            in_words = part.form == "delimited" and part.values == "names" and name in names
            if in_words and part.delimiter and part.delimiter in name:
                yield f"label {name!r} contains {group}.delimiter {part.delimiter!r}, so a cell could be read two ways"


def _check_groups(settings: CompetitionSettings) -> Iterator[str]:
    labels = settings.labels
    if not labels.groups:
        return
    members = [name for group in labels.groups.values() for name in group]
    for name in sorted({name for name in members if members.count(name) > 1}):
        yield f"labels.groups has {name!r} twice"
    for name in sorted(set(members) - set(labels.names)):
        yield f"labels.groups has {name!r}, which is not in labels.names"
    for name in sorted(set(labels.names) - set(members)):  # rows of a label without a group would silently lose it
        yield f"label {name!r} of labels.names is in no group of labels.groups"
    for name in (name for name, group in labels.groups.items() if not group):
        yield f"labels.groups: group {name!r} is empty"
    if len(labels.groups) < 2:
        yield "labels.groups has one group; expected two or more"


def _check_text(settings: CompetitionSettings) -> Iterator[str]:
    text = settings.text
    if not text.columns:
        yield "text.columns is empty; expected the name of a column"
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


def _check_folds(settings: CompetitionSettings) -> Iterator[str]:
    folds, default = settings.folds, FoldsSettings()
    if not folds.file and folds.column != default.column:
        yield "folds.column is set, but folds.file is empty; name the file with this column, or remove it"
    outside = Path(folds.file).is_absolute() or ".." in Path(folds.file).parts
    if len(folds.file) > LONGEST_NAME or "\0" in folds.file or outside:
        yield f"folds.file is {folds.file[:80]!r}; expected the name of a file inside data/<competition>/"
    if folds.file and folds.column in ("", settings.id_column):
        yield f"folds.column is {folds.column!r}; expected the column of the fold"
    if settings.groups and settings.groups == settings.id_column:
        yield f"groups is the id column {settings.groups!r}, which groups nothing; remove it"


CHECKS = (_check_forms, _check_metric, _check_files, _check_names, _check_groups, _check_text, _check_folds)
