"""What a competition gave us and what it wants back: one YAML in configs/competitions/, one frozen dataclass."""

import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from foldblend.errors import UserError, nearest
from foldblend.scoring.metrics.table import METRIC_ALIASES, METRICS, k_of
from foldblend.settings.data_files import (
    LONGEST_NAME,
    FeaturesSettings,
    FilesSettings,
    TextSettings,
    check_features,
    check_files,
    check_text,
)
from foldblend.settings.fields import find_problems, only_read_by, setting

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(frozen=True)
class LabelsSettings:
    """How train.csv writes a row's labels."""

    form: Literal["columns", "delimited", "class"] = "columns"
    """`columns`: one column of 0 and 1 per label. `delimited`: one column with several names or numbers. `class`: one
    column with one name or number."""
    column: str = ""
    """The column of `delimited` and `class`."""
    template: str = setting("", only_with=("form", "class"))
    """How several columns make the one label of a `class`, such as `{Category}:{Misconception}`. Replaces `column`."""
    columns: tuple[str, ...] = ()
    """Several such columns instead of one, with `delimited`; a row has the labels of all of them."""
    delimiter: str = ","
    """Between the labels of a `delimited` column; an empty cell is a row without labels. Lists in brackets, as Python,
    JSON and numpy write them, are read as well."""
    values: Literal["names", "numbers", "multi_hot"] = "names"
    """What the cells of `delimited` and `class` contain; number k is the k-th of `names`, counted from `first_number`.
    `multi_hot`: one 0 or 1 per label, as `[0, 1, 0]`."""
    first_number: int = setting(0, at_least=0, only_with=("values", "numbers"))
    """The number of the first label."""
    empty: str = setting("", only_with=("form", "delimited"))
    """The word that says that a row has no label, as `none`; an empty cell always says so."""
    map: dict[str, str] = field(default_factory=dict)
    """What a cell holds -> what it means: 0, 1 or a share in a column per label, otherwise a label's name or
    number, or nothing. Other cells mean what they say."""
    unknown: tuple[str, ...] = ()
    """Cells that say that the label is unknown, as `["", -1]`; they teach nothing and are not scored. With
    `form: class` such rows are left out, and named."""
    positive_from: float = setting(0.0, at_least=0, at_most=1)
    """0: a row has a label or not. Otherwise cells are shares from 0 to 1, as of annotators: models learn the shares,
    and a row with this share or more counts as having the label when scores are computed."""
    aggregate: Literal["off", "majority", "mean", "any"] = "off"
    """If the training file has one row per annotator, so that ids repeat: `majority`: a label that more than half of
    them see. `any`: one is enough. `mean`: their share is learned, which needs `positive_from`."""
    names: tuple[str, ...] = ()
    """Label names in submission order; empty takes the sample submission's columns after the id. For a `ranked`
    submission empty takes the labels of the training file, sorted."""
    rename: dict[str, str] = field(default_factory=dict)
    """A label's name in the training file -> its name in the submission, for those that differ."""
    constants: dict[str, float] = field(default_factory=dict)
    """A label of the submission that is not learned -> its answer in every row, 0 or 1, or a probability. Labels that
    no training row, or each, has are answered by a constant anyway."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a group -> labels of `names`. The groups become the labels, in this order; a row has a group if it has
    one of the group's labels."""

    definitions: dict[str, str] = field(default_factory=dict)
    """A label's name in the submission -> what it means, in a sentence, for a language model that labels texts
    (src/teach.py). Nothing else reads it."""
    candidates: str = ""
    """A column of the training and the test file that lists the labels that the row can have; no other is answered, and
    scores are of such answers. Labels in it are separated as in a `delimited` cell; an empty cell allows all."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns of `template`, each once."""
        return tuple(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(self.template) if name))

    @property
    def read_column(self) -> str:
        """The column of `delimited` and `class`; a template makes one that is called like itself."""
        return self.template or self.column

    @property
    def submitted(self) -> tuple[str, ...]:
        """The labels that are submitted, learned or not; empty if the sample submission names them."""
        named = tuple(self.groups) or self.names
        return (*named, *(name for name in self.constants if name not in named)) if named else ()


@dataclass(frozen=True)
class SubmissionSettings:
    """How the submission is written."""

    form: Literal["columns", "probabilities", "delimited", "class", "ranked", "values"] = "columns"
    """`columns`: 0 or 1 per label. `probabilities`: a number per label. `delimited`, `class`: names or numbers in one
    column. `ranked`: the `k` likeliest labels in one column, the likeliest first. `values`: numbers of a regression."""
    column: str = ""
    """The column of `delimited`, `class` and `ranked`, and of the answers if there is one row per pair of row and
    label."""
    row_id: str = ""
    """For a submission with one row per pair of row and label: how its id is made, as `{id}_{label}`."""
    label_column: str = ""
    """The same, if the label has a column of its own: the name of that column."""
    delimiter: str = " "
    """Between the labels of a `delimited` or `ranked` submission."""
    separator: str = ","
    """One character between the fields of the sample submission and of the submissions."""
    values: Literal["names", "numbers"] = "names"
    """What the cells of `delimited`, `class` and `ranked` submissions contain."""
    first_number: int = setting(0, at_least=0, only_with=("values", "numbers"))
    """The number of the first label."""
    empty: str = setting("", only_with=("form", "delimited"))
    """What a `delimited` cell of a row without labels says, as `none`; empty leaves the cell empty."""
    list: Literal["off", "python", "json"] = setting("off", only_with=("form", "delimited", "ranked"))
    """Write a `delimited` or `ranked` cell as a list: `python`: `['joy', 'love']`, `json`: `["joy", "love"]`."""


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
    task: Literal["multilabel", "multiclass", "ordinal", "ranked", "regression"] = "multilabel"
    """`multilabel`: any set of labels per row. `multiclass`: exactly one. `ordinal`: exactly one, and the labels have
    an order, that of labels.names: read as `multiclass`, whose metric says whether the order counts. `ranked`: the
    answer is a list of the likeliest labels: read as `multiclass` if labels.form is class and otherwise as
    `multilabel`, with submission.form ranked. `regression`: any number in each column: read as `multilabel`, with
    submission.form values; models learn where a value is between the lowest and the highest one."""
    metric: str = setting("macro_f1", choices=METRICS, aliases=METRIC_ALIASES)
    """What the leaderboard scores and blend.py optimises."""
    k: int = setting(0, at_least=0)
    """How many labels the list of a row has at most, for `metric: map_at_k`; `metric: map_at_3` says the same as k 3.
    0: the metric is of no list."""
    metric_by: str = ""
    """The column whose values are the groups of rows that `metric: group_auc` is averaged over. If the test file has
    it, too, it is read there for the expected score."""
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
    features: FeaturesSettings = field(default_factory=FeaturesSettings)
    labels: LabelsSettings = field(default_factory=LabelsSettings)
    submission: SubmissionSettings = field(default_factory=SubmissionSettings)

    def __post_init__(self) -> None:
        problems = list(self._settle())
        problems += find_problems(self)
        if self.metric in METRICS:
            problems += [problem for check in CHECKS for problem in check(self)]
        if problems:
            raise UserError("; ".join(problems))

    def _settle(self) -> Iterator[str]:
        """Names of a task or a metric that stand for other settings become these; a sentence for what contradicts."""
        if self.task == "ordinal":
            object.__setattr__(self, "task", "multiclass")
        if self.task in ("ranked", "regression"):
            form: Literal["ranked", "values"] = "ranked" if self.task == "ranked" else "values"
            if self.submission.form not in ("columns", form):
                yield f"task is {self.task}, so submission.form must be {form}; it is {self.submission.form}"
            else:
                object.__setattr__(self, "submission", replace(self.submission, form=form))
            is_class = self.task == "ranked" and self.labels.form == "class"
            object.__setattr__(self, "task", "multiclass" if is_class else "multilabel")
        if self.metric in METRICS and METRICS[self.metric].is_ranked:
            named = k_of(self.metric)
            if self.k > 0 and not named:
                object.__setattr__(self, "metric", f"{self.metric[:-1]}{self.k}")  # map_at_k -> map_at_3
            elif named and not self.k:
                object.__setattr__(self, "k", named)
            elif named != self.k:
                yield f"metric is {self.metric}, k is {self.k}; remove k, or write metric: map_at_k"
            elif not named:
                yield f"metric {self.metric} needs k, how many labels a row's list has, as k: 3"


# ---------- Rules between settings. Each yields a sentence per rule that a competition breaks.


def _check_forms(settings: CompetitionSettings) -> Iterator[str]:
    labels, submission = settings.labels, settings.submission
    for name, part in (("labels", labels), ("submission", submission)):
        readers = ONE_COLUMN if isinstance(part, SubmissionSettings) else ONE_COLUMN[:2]
        several = (*part.columns, part.template) if isinstance(part, LabelsSettings) else ()
        if part.form in ONE_COLUMN and not part.column and not any(several):
            yield f"{name}.form is {part.form}, so {name}.column must name the column that contains it"
        is_long = isinstance(part, SubmissionSettings) and (part.row_id or part.label_column)
        if part.form in IN_COLUMNS and part.column and not is_long:
            yield (
                f"{name}.column is set, but {name}.form is {part.form}; only {' or '.join(readers)} read it, "
                f"so remove it or set {name}.form"
            )
        if part.form in ("delimited", "ranked") and not part.delimiter:
            yield f"{name}.delimiter is empty; expected what stands between labels, such as ','"
        if part.form == "class" and settings.task != "multiclass":
            yield f"{name}.form is class, so task must be multiclass"
    if submission.empty and submission.list != "off":
        yield "submission.empty is set, but a submission.list of no label is written as []; remove one of them"
    if labels.columns and labels.form != "delimited":
        yield f"labels.columns is set, but labels.form is {labels.form}; {only_read_by(['delimited'])}"
    stated = [f"labels.{name}" for name in ("column", "columns", "template") if getattr(labels, name)]
    if len(stated) > 1:
        yield f"{' and '.join(stated)} are both set; remove one of them"
    if not _is_template(labels):
        yield (
            f"labels.template is {labels.template!r}; expected columns in braces and what stands between them, as "
            "{Category}:{Misconception}"
        )
    if labels.values == "multi_hot" and labels.form != "delimited":
        yield f"labels.values is multi_hot, which is for labels.form delimited; labels.form is {labels.form}"
    if submission.form == "delimited" and settings.task == "multiclass":
        yield "submission.form is delimited, which is for multilabel; a multiclass submission is `class`"


IN_COLUMNS = ("columns", "probabilities", "values")
"""Forms of labels and of submissions that have a column per label."""
ONE_COLUMN = ("delimited", "class", "ranked")
"""Forms of labels and of submissions that have one column."""


def _is_template(labels: LabelsSettings) -> bool:
    """Whether `labels.template` can be read: names in braces only, or nothing."""
    try:
        pieces = list(string.Formatter().parse(labels.template))
    except ValueError:
        return False
    names = [name for _, name, _, _ in pieces if name is not None]
    plain = not any(spec or conversion for _, _, spec, conversion in pieces)
    return not labels.template or (plain and bool(names) and all(names))


def _check_targets(settings: CompetitionSettings) -> Iterator[str]:
    labels, is_multiclass = settings.labels, settings.task == "multiclass"
    is_regression = METRICS[settings.metric].of_values
    if labels.aggregate == "mean" and not labels.positive_from and not is_regression:
        yield (
            "labels.aggregate is mean, so labels.positive_from must say from which share of annotators on a row has a "
            "label when scores are computed, as 0.5"
        )
    if labels.aggregate == "any" and is_multiclass:
        yield "labels.aggregate is any, which could give a row two classes; use majority or mean"
    if labels.unknown and is_multiclass and labels.form != "class":
        yield "labels.unknown is for multilabel, or for labels.form class, where it leaves rows out; remove it"
    for name, value in labels.constants.items():
        if not 0 <= value <= 1:
            yield f"labels.constants: {name!r} is {value:g}; expected 0, 1 or a probability between them"
        elif is_multiclass and value >= 0.5:
            yield (
                f"labels.constants: {name!r} is {value:g}, but a row has one class, so no other one could be answered; "
                "expected 0, or a probability below 0.5"
            )
    if labels.names and set(labels.submitted) <= set(labels.constants):
        yield "labels.constants has every label, so nothing is left to learn; remove one"
    if len(set(labels.rename.values())) < len(labels.rename):
        yield "labels.rename gives two labels the same name; to unite labels use labels.groups"
    yield from _check_map(labels)
    for name in labels.definitions:
        if labels.submitted and name not in labels.submitted:
            hint = nearest(name, labels.submitted) or f"; expected one of {', '.join(labels.submitted)[:200]}"
            yield f"labels.definitions has {name[:80]!r}, which is not a label{hint}"
    if labels.rename and labels.names and not labels.groups:
        for name in sorted(set(labels.rename.values()) - set(labels.submitted)):
            yield (
                f"labels.rename: {name!r} is not in labels.names; expected the training file's name first, then that "
                "of labels.names"
            )


def _check_map(labels: LabelsSettings) -> Iterator[str]:
    """Cells of names that are mapped mean labels, or nothing."""
    if labels.form == "columns" or labels.values != "names" or not labels.names:
        return
    own = {new: old for old, new in labels.rename.items()}
    known = {*labels.names, *(own.get(name, name) for name in labels.names), labels.empty, *labels.unknown, ""}
    for cell, meaning in labels.map.items():
        if meaning in known or meaning.startswith(("[", "{", "(")):
            continue
        parts = [meaning] if labels.form == "class" else [part.strip() for part in meaning.split(labels.delimiter)]
        for part in (part for part in parts if part not in known):
            hint = nearest(part, known) or f"; expected one of {', '.join(labels.names)[:200]}"
            yield f"labels.map: {cell[:80]!r} means {part[:80]!r}, which is no label{hint}"


def _check_metric(settings: CompetitionSettings) -> Iterator[str]:
    metric = settings.metric
    if metric == "accuracy" and settings.task != "multiclass":
        yield "metric accuracy is for multiclass; subset_accuracy is its multilabel form"
    if METRICS[metric].is_ordered and settings.task != "multiclass":
        yield (
            f"metric {metric} is for one class per row, and the classes have an order; set task: ordinal and list "
            "labels.names in this order"
        )
    numbers = [float(name) for name in settings.labels.names if NUMBER.fullmatch(name)]
    is_ordered = METRICS[metric].is_ordered and len(numbers) == len(settings.labels.names) > 1
    if is_ordered and numbers not in (sorted(set(numbers)), sorted(set(numbers), reverse=True)):
        right = ", ".join(sorted(settings.labels.names, key=float))
        yield f"metric {metric} takes the order of labels.names for that of the classes; set labels.names: [{right}]"
    if metric in ("samples_f1", "samples_f2", "jaccard", "subset_accuracy") and settings.task == "multiclass":
        yield f"metric {metric} is for multilabel; use accuracy for one label per row"
    yield from _check_ranked(settings)


def _check_ranked(settings: CompetitionSettings) -> Iterator[str]:
    """Rules of metrics that score lists, probabilities or groups of rows."""
    metric, form, entry = settings.metric, settings.submission.form, METRICS[settings.metric]
    if entry.is_ranked and form != "ranked":
        yield f"metric {metric} scores ranked lists, so set task: ranked; submission.form is {form}"
    elif form == "ranked" and not entry.is_ranked:
        yield f"submission.form is ranked, so metric must be of ranked lists, as map_at_k with k: 3; it is {metric}"
    elif entry.of_values != (form == "values"):
        yield (
            f"metric is {metric} and submission.form {form}; metrics of values ({', '.join(OF_VALUES)}) go with task: "
            "regression, and others do not"
        )
    elif entry.takes_probs and form not in ("probabilities", "ranked", "values"):
        yield f"metric {metric} scores probabilities, so submission.form must be probabilities"
    if form == "values":
        yield from _check_values(settings)
    if settings.k and not entry.is_ranked:
        yield f"k is set, but metric {metric} scores no ranked list; only map_at_k reads it, so remove it"
    if entry.by_groups and not settings.metric_by:
        yield f"metric {metric} needs metric_by, the column of the groups that it is averaged over"
    if settings.metric_by and not entry.by_groups:
        yield f"metric_by is set, but metric is {metric}; only group_auc reads it, so remove it"
    if settings.labels.candidates and entry.is_ordered:
        yield f"labels.candidates is not for classes in an order, as metric {metric} has them; remove it"
    for name, column in (("metric_by", settings.metric_by), ("labels.candidates", settings.labels.candidates)):
        if column and column == settings.id_column:
            yield f"{name} is the id column {column!r}; expected another column"


OF_VALUES = [name for name, entry in METRICS.items() if entry.of_values]


def _check_values(settings: CompetitionSettings) -> Iterator[str]:
    """Rules of a regression."""
    labels = settings.labels
    if labels.form != "columns":
        yield f"task is regression, so labels.form must be columns; it is {labels.form}"
    if labels.aggregate in ("majority", "any"):
        yield f"labels.aggregate is {labels.aggregate}, which is for labels; a regression takes mean"
    for name in ("groups", "constants", "candidates", "positive_from"):
        if getattr(labels, name):
            yield f"labels.{name} is set, which is for labels; a regression has values, so remove it"


def _check_files(settings: CompetitionSettings) -> Iterator[str]:
    yield from check_files(settings.files, settings.id_column, settings.submission.separator)


def _check_long(settings: CompetitionSettings) -> Iterator[str]:
    """Rules of a submission with one row per pair of row and label."""
    answer = settings.submission
    stated = [name for name in ("row_id", "label_column") if getattr(answer, name)]
    if not stated:
        return
    if len(stated) > 1:
        yield "submission.row_id and submission.label_column are both set; remove one of them"
    if answer.form not in IN_COLUMNS:
        yield f"submission.{stated[0]} is set, but submission.form is {answer.form}; expected columns or probabilities"
    if answer.row_id and (answer.row_id.count("{id}") != 1 or answer.row_id.count("{label}") != 1):
        yield f"submission.row_id is {answer.row_id!r}; expected {{id}} and {{label}} once each, as {{id}}_{{label}}"
    if not answer.column or answer.column == answer.label_column:
        yield f"submission.{stated[0]} is set, so submission.column must name the column of the answers"
    if not settings.labels.submitted:
        yield f"submission.{stated[0]} is set, so labels.names must list the labels"


def _check_names(settings: CompetitionSettings) -> Iterator[str]:
    labels = settings.labels
    twice = [name for name, count in Counter(labels.names).items() if count > 1]
    if twice:
        yield f"labels.names has a name twice: {', '.join(twice)[:200]}; remove one of them"
    written = (("labels", labels, labels.names), ("submission", settings.submission, labels.submitted))
    for name in dict.fromkeys((*labels.names, *labels.groups)):
        if not name or name != name.strip():
            yield f"labels.names has {name!r}; expected a name without spaces around it"
        if name == settings.id_column:
            yield f"labels.names has the id column {name!r}; remove it"
        for group, part, names in written:
            in_words = part.form in ("delimited", "ranked") and part.values == "names" and name in names
            is_list = isinstance(part, SubmissionSettings) and part.list != "off"
            if in_words and not is_list and part.delimiter and part.delimiter in name:
                found = f"label {name!r} contains {group}.delimiter {part.delimiter!r}"
                yield f"{found}, so a cell could be read two ways; set another delimiter"


def _check_groups(settings: CompetitionSettings) -> Iterator[str]:
    labels = settings.labels
    if not labels.groups:
        return
    members = [name for group in labels.groups.values() for name in group]
    for name in sorted(name for name, count in Counter(members).items() if count > 1):
        yield f"labels.groups has {name!r} twice"
    for name in sorted(set(members) - set(labels.names)):
        yield f"labels.groups has {name!r}, which is not in labels.names"
    for name in sorted(set(labels.names) - set(members)):  # rows of a label without a group would silently lose it
        yield f"label {name!r} of labels.names is in no group of labels.groups"
    for name in (name for name, group in labels.groups.items() if not group):
        yield f"labels.groups: group {name!r} is empty"
    if len(labels.groups) < 2:
        yield "labels.groups has one group; expected two or more"


def _check_ids(settings: CompetitionSettings) -> Iterator[str]:
    """The ids are not read as something else."""
    labels, answer, id_column = settings.labels, settings.submission, settings.id_column
    others = (
        ("text.columns", settings.text.columns),
        ("labels.column", (labels.column,)),
        ("labels.columns", labels.columns),
        ("labels.template", labels.parts if _is_template(labels) else ()),
        ("submission.column", (answer.column,)),
        ("submission.label_column", (answer.label_column,)),
    )
    for name, columns in others:
        if id_column and id_column in columns:
            yield f"id_column is {id_column!r}, and so is {name}; set one of them to another column"


def _check_text(settings: CompetitionSettings) -> Iterator[str]:
    labels = settings.labels
    answers = {labels.column, *labels.columns, *(labels.names if labels.form == "columns" else ())}
    yield from check_text(settings.text, answers)


def _check_features(settings: CompetitionSettings) -> Iterator[str]:
    labels = settings.labels
    taken = {settings.files.split_column: "files.split_column", "": "no name", settings.id_column: "the id column"}
    taken |= dict.fromkeys(filter(None, (*labels.names, *labels.rename, labels.column, *labels.columns)), "a label")
    yield from check_features(settings.features, taken)


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


CHECKS = (
    _check_forms,
    _check_targets,
    _check_metric,
    _check_files,
    _check_long,
    _check_names,
    _check_groups,
    _check_ids,
    _check_text,
    _check_features,
    _check_folds,
)
