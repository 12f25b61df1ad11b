"""What a competition gave us and what it wants back: one YAML in configs/competitions/, one frozen dataclass."""

import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from foldblend.errors import UserError, nearest
from foldblend.scoring.metrics.table import METRICS, k_of
from foldblend.settings.fields import find_problems, only_read_by, setting

METRIC_ALIASES = {
    **dict.fromkeys(("f1", "f1_score", "mean_f1", "macro", "f1_score_macro", "macro_f1_score"), "macro_f1"),
    **dict.fromkeys(("micro", "f1_score_micro", "micro_f1_score"), "micro_f1"),
    **dict.fromkeys(("weighted", "f1_score_weighted"), "weighted_f1"),
    **dict.fromkeys(("samples", "mean_sample_f1", "f1_score_samples", "example_f1"), "samples_f1"),
    **dict.fromkeys(("auc", "roc_auc", "auroc", "roc_auc_score", "mean_column_wise_auc", "mean_auc"), "macro_auc"),
    **dict.fromkeys(("average_precision", "map", "m_ap", "pr_auc", "auprc"), "macro_ap"),
    **dict.fromkeys(("logloss", "cross_entropy", "bce", "binary_cross_entropy", "mean_log_loss"), "log_loss"),
    **dict.fromkeys(("exact_match", "emr"), "subset_accuracy"),
    **dict.fromkeys(("f2", "fbeta", "f_beta", "fbeta_score", "f2_score"), "macro_f2"),
    **dict.fromkeys(("f05", "f0.5", "f0_5", "f05_score"), "macro_f05"),
    **dict.fromkeys(("hamming", "hamming_loss"), "subset_accuracy"),
    **dict.fromkeys(("acc", "accuracy_score", "categorization_accuracy"), "accuracy"),
    **dict.fromkeys(("iou", "jaccard_score", "jaccard_index"), "jaccard"),
    **dict.fromkeys(("qwk", "kappa", "cohen_kappa", "quadratic_weighted_kappa"), "quadratic_weighted_kappa"),
    **dict.fromkeys(("matthews", "mcc", "matthews_corrcoef", "phi"), "matthews"),
    **dict.fromkeys(("root_mean_squared_error", "mcrmse", "mean_columnwise_root_mean_squared_error"), "rmse"),
    **dict.fromkeys(("mean_absolute_error", "l1"), "mae"),
    **dict.fromkeys(("spearmanr", "spearman_correlation", "mean_spearman", "spearman_rho"), "spearman"),
    **dict.fromkeys(("pearsonr", "pearson_correlation", "pcc"), "pearson"),
    **dict.fromkeys(("map_k", "mapk", "mean_average_precision_at_k"), "map_at_k"),
    **{f"map{glue}{k}": f"map_at_{k}" for k in range(1, 101) for glue in ("_", "")},
    **dict.fromkeys(("auc_by_group", "grouped_auc", "mean_group_auc", "auc_per_group"), "group_auc"),
}
"""Names of metrics elsewhere (scikit-learn, Kaggle) -> ours; one that is not in METRICS is not offered."""

NO_FILE = "none"
"""Name of a sample submission that does not exist."""
ROW_IDS = ("row_number", "row_number_from_1", "sample_order")
"""Where ids come from if a file has no column of ids."""

PAIR = "\x1e"
"""Stands between the two texts of a row in memory: ASCII's record separator, which counts as a space."""

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
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
    """What stands in a cell -> what it means: 0, 1 or a share in a column per label, otherwise a label's name or
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
    if labels.names and set(labels.submitted) <= set(labels.constants):
        yield "labels.constants has every label, so nothing is left to learn; remove one"
    if len(set(labels.rename.values())) < len(labels.rename):
        yield "labels.rename gives two labels the same name; to unite labels use labels.groups"
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
    files = settings.files
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
    separators = [("files.separator", files.separator), ("submission.separator", settings.submission.separator)]
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


def _is_encoding(name: str) -> bool:
    try:
        return isinstance("a".encode(name), bytes) and isinstance(b"".decode(name), str)
    except (LookupError, UnicodeError, ValueError):
        return False


def _check_layouts(settings: CompetitionSettings) -> Iterator[str]:
    """Rules of the settings that say how one file differs from the others."""
    files = settings.files
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
    yield from _check_split(settings)


def _check_split(settings: CompetitionSettings) -> Iterator[str]:
    files = settings.files
    if files.split_column and not files.test_values:
        yield "files.split_column is set, so files.test_values must list its values in test rows"
    if not files.split_column:
        for name in ("test_values", "train_values"):
            if getattr(files, name):
                yield f"files.{name} is set, but files.split_column is not; set it, or remove files.{name}"
    for value in sorted(set(files.test_values) & set(files.train_values)):
        yield f"files.test_values and files.train_values both have {value!r}"
    if files.split_column and files.split_column == settings.id_column:
        yield f"files.split_column is the id column {settings.id_column!r}; expected a column that marks test rows"
    if files.answer_rows == "test" and not files.has_sample:
        yield "files.answer_rows is set, but files.sample_submission is none; remove files.answer_rows"


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
    if len(set(labels.names)) != len(labels.names):
        yield "labels.names has a name twice"
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
                yield f"label {name!r} contains {group}.delimiter {part.delimiter!r}, so a cell could be read two ways"


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
    for name in sorted(answers & set(settings.text.columns)):
        yield f"column {name!r} is in text.columns and holds labels, so the models would read the answer; remove it"
    text = settings.text
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


def _check_features(settings: CompetitionSettings) -> Iterator[str]:
    features, labels = settings.features, settings.labels
    for name in sorted({name for name in features.columns if features.columns.count(name) > 1}):
        yield f"features has column {name!r} twice; expected it once, in numbers or in categories"
    taken = {settings.files.split_column: "files.split_column", "": "no name", settings.id_column: "the id column"}
    taken |= dict.fromkeys(filter(None, (*labels.names, *labels.rename, labels.column, *labels.columns)), "a label")
    for name in features.columns:
        if name in taken:
            yield f"features has {name!r}, which is {taken[name]}; expected a column beside text and labels"


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
    _check_layouts,
    _check_long,
    _check_names,
    _check_groups,
    _check_ids,
    _check_text,
    _check_features,
    _check_folds,
)
