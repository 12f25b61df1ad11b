"""Train, test and sample submission: rows checked, texts built, before anything is trained on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldblend.data.advice import Meant, explain_label_column, explain_swapped_files, find_meant, read_advised
from foldblend.data.answer_form import (
    Constant,
    built_header,
    constant_lines,
    find_constants,
    match_sample_ids,
    written_form,
)
from foldblend.data.checks import check_rows, check_sample
from foldblend.data.labels import (
    LabelForm,
    Targets,
    as_yaml,
    find_names,
    find_ties,
    group_rows,
    mapped,
    read_candidates,
    read_share,
    scale_values,
    split_values,
    unite_annotators,
)
from foldblend.data.layout import (
    Parts,
    advise_columns,
    advise_ids,
    advise_long,
    has_no_header,
    label_candidates,
    read_parts,
    yaml_word,
)
from foldblend.data.reading import FileForm, Problems, TextTable, excerpt, quoted, raise_if_any
from foldblend.data.texts import build_contents, build_texts, check_texts, fill_template, leave_out
from foldblend.errors import UserError, find_nearest, nearest
from foldblend.features import Features, read_features
from foldblend.settings.competition import ONE_COLUMN, CompetitionSettings, LabelsSettings
from foldblend.settings.data_files import FeaturesSettings


@dataclass(frozen=True)
class Tables:
    """A competition's three files; N training rows, n_test test rows, L labels, ids always text."""

    train_ids: np.ndarray
    """(N,) str, in the order of the training file."""
    train_texts: list[str]
    """N texts, template applied."""
    labels: np.ndarray
    """(N, L) bool; if the task is multiclass, exactly one True per row."""
    label_names: tuple[str, ...]
    """L names, in submission order."""
    test_ids: np.ndarray
    """(n_test,) str, in the order of the test file."""
    test_texts: list[str]
    """n_test texts, template applied."""
    sample_columns: tuple[str, ...]
    """Columns of the sample submission, in order."""
    sample_ids: np.ndarray
    """(n_test,) str: the test ids in the order of the sample submission."""
    sample_rows: tuple[tuple[str, ...], ...] = ()
    """Rows of the sample submission as written; a submission copies their number format. Empty if it was built."""
    groups: np.ndarray | None = None
    """(N,) str: the user's group of each training row, an empty one being a row by itself; None without `groups`."""
    train_contents: list[str] | None = None
    """N texts without the literal words of text.template, which say nothing about which rows are the same; None if the
    template has no words of its own."""
    test_contents: list[str] | None = None
    """The same of the test rows, n_test texts."""
    sample_header: tuple[str, ...] = ()
    """The sample submission's own names of `sample_columns`, which a submission has; empty if they are the same."""
    sample_pairs: tuple[tuple[str, str], ...] = ()
    """Id and label of each row of a submission that has one per pair, in its order; empty for one row per id."""
    notes: tuple[str, ...] = ()
    """What is unusual about the files and allowed, as sentences."""
    soft: np.ndarray | None = None
    """float32 (N, L) in [0, 1]: what is learned in place of `labels`; None if that is the same."""
    known: np.ndarray | None = None
    """bool (N, L), False for labels that nobody knows: not learned, not scored; None if all are known."""
    constants: tuple[Constant, ...] = ()
    """Labels of a submission that are not learned, so that they are not in `label_names`."""
    all_names: tuple[str, ...] = ()
    """Names of all labels of a submission, in its order; empty if they are `label_names`."""
    train_features: Features | None = None
    """The columns beside the text of N training rows; None without `features`."""
    test_features: Features | None = None
    """The same of the n_test test rows."""
    test_file: str = "test.csv"
    """Name of the test file in data/<competition>/; empty if its rows are those of a training file."""
    scale: np.ndarray | None = None
    """float64 (L, 2): of a regression, the values that shares of 0 and 1 (`soft`) stand for; None for labels."""
    allowed: np.ndarray | None = None
    """bool (N, A), of all A labels of a submission: False for those that the row cannot have; None allows all."""
    test_allowed: np.ndarray | None = None
    """The same of the test rows, (n_test, A)."""
    metric_groups: np.ndarray | None = None
    """(N,) str: the group of each row, for a metric that is averaged over groups; None for others."""
    test_metric_groups: np.ndarray | None = None
    """The same of the test rows, (n_test,); None if the test file does not say."""

    @property
    def answer_names(self) -> tuple[str, ...]:
        """Names of all labels of a submission, in its order: those that are learned and `constants`."""
        return self.all_names or self.label_names

    def of_learned(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """`allowed` or `test_allowed` of the labels that are learned, bool (n, L)."""
        return None if allowed is None else allowed[:, learned_columns(self.answer_names, self.label_names)]

    @property
    def label_lines(self) -> list[str]:
        """What a user must know about labels that are not learned, or not everywhere; empty if there is nothing."""
        lines = constant_lines(self.constants, len(self.answer_names)) + self._group_lines()
        if self.known is not None:
            lines.append(
                f"{1 - self.known.mean():.1%} of the labels are unknown: they teach nothing and are not scored"
            )
        return lines

    def _group_lines(self) -> list[str]:
        if self.metric_groups is None:
            return []
        names, member = np.unique(self.metric_groups, return_inverse=True)
        left_out = [
            name
            for k, name in enumerate(names.tolist())
            if not (self.labels[member == k].any(axis=0) & ~self.labels[member == k].all(axis=0)).any()
        ]
        shown = f"; not scored, as all rows say the same: {quoted(left_out)}" if left_out else ""
        return [f"the metric is averaged over {len(names) - len(left_out)} of {len(names)} groups of rows{shown}"]

    @property
    def compared_texts(self) -> list[str]:
        """What duplicates are looked for in, N texts."""
        return self.train_texts if self.train_contents is None else self.train_contents

    @property
    def written_columns(self) -> tuple[str, ...]:
        """Columns of a submission as they are written."""
        return self.sample_header or self.sample_columns

    def without_texts(self) -> "Tables":
        """The same with less memory, for whoever does not read the texts."""
        nothing = {"train_contents": None, "test_contents": None, "train_features": None, "test_features": None}
        return replace(self, train_texts=[], test_texts=[], **nothing)


def load_tables(competition: CompetitionSettings, data_dir: Path) -> Tables:
    """Read and check the files in data/<competition>/.

    Raises: UserError: every problem of every file, with row numbers, in one message.
    """
    parts = read_parts(competition, data_dir)
    parts.train = _with_template(parts.train, competition.labels)
    if swapped := explain_swapped_files(competition, parts):
        parts.train_report.add(swapped)
        raise_if_any([parts.train_report])
    meant = find_meant(competition, parts)
    label_names = _check_form(competition, parts, meant)
    if parts.train is not None:
        parts.train = check_texts(parts.train, competition.text, parts.train_report, drops=True)
    taught = _check_train(competition, parts.train, label_names, parts.train_report, meant)
    answered = _check_test(competition, parts, meant)
    test_features = features_of(parts.test, competition.features, parts.test_report)
    allowed, test_allowed = _check_candidates(competition, parts, taught, label_names)
    raise_if_any(parts.reports)
    test = parts.test
    header = parts.sample.header if parts.sample else built_header(competition, label_names)
    written, pairs = written_form(competition, parts.sample_header, parts.pairs, answered, label_names)
    return Tables(
        train_ids=np.array(taught.rows.column(competition.id_column)),
        train_texts=build_texts(taught.rows, competition.text),
        labels=taught.targets.labels,
        label_names=taught.label_names,
        test_ids=np.array(test.column(competition.id_column)),
        test_texts=build_texts(test, competition.text),
        sample_columns=header,
        sample_ids=np.array(answered),
        sample_rows=tuple(map(tuple, parts.sample.rows)) if parts.sample else (),
        sample_header=written if written != header else (),
        sample_pairs=pairs,
        notes=(
            *parts.notes(),
            *([] if parts.sample else [f"no sample submission: one is built of {quoted(written or header)}"]),
        ),
        groups=_read_groups(taught.rows, competition.groups),
        scale=taught.scale,
        allowed=allowed,
        test_allowed=test_allowed,
        metric_groups=_read_groups(taught.rows, competition.metric_by),
        test_metric_groups=_read_groups(test, competition.metric_by if competition.metric_by in test.header else ""),
        train_contents=build_contents(taught.rows, competition.text),
        test_contents=build_contents(test, competition.text),
        soft=taught.targets.soft,
        known=taught.targets.known,
        constants=tuple(taught.constants),
        all_names=label_names if taught.constants else (),
        train_features=features_of(taught.rows, competition.features, parts.train_report),
        test_features=test_features,
        test_file="" if competition.files.split_column else competition.files.test,
    )


def read_columns(
    competition: CompetitionSettings, data_dir: Path, names: Sequence[str], ids: np.ndarray
) -> dict[str, list[str]]:
    """Columns of the training file as they are written, a cell per training row of `Tables`.

    Args:   ids: (N,) str, `train_ids`; of several rows with one id the first counts.
    Raises: UserError: the file has no such column.
    """
    parts = read_parts(competition, data_dir)
    raise_if_any(parts.reports)
    table = parts.train
    missing = [name for name in names if name not in table.header]
    if missing:
        hint = nearest(missing[0], table.header)
        raise UserError(f"column {missing[0]!r} is missing{hint or '.'} The columns are {quoted(table.header)}")
    first = {id_: row for row, id_ in reversed(list(enumerate(table.column(competition.id_column))))}
    rows = [first[id_] for id_ in ids.tolist()]
    cells = {name: table.column(name) for name in names}
    return {name: [column[row] for row in rows] for name, column in cells.items()}


def features_of(table: TextTable | None, settings: FeaturesSettings, report: Problems) -> Features | None:
    """The columns beside the text; cells that are no numbers are problems. None if there are none."""
    if table is None or not settings.columns or not set(settings.columns) <= set(table.header):
        return None
    columns = {name: table.column(name) for name in settings.columns}
    features, bad = read_features(columns, settings.numbers, settings.categories, len(table.rows), settings.min_rows)
    for name in dict.fromkeys(name for name, _ in bad):
        cells, rows = columns[name], [row for column, row in bad if column == name]
        found = [(row, f"{name!r} is {excerpt(cells[row])}; expected a number or an empty cell") for row in rows]
        report.add_rows(f"{name!r} no number", found)
        report.advise(f"if {name!r} holds words, put it into features.categories")
    return features


def _read_groups(table: TextTable, column: str) -> np.ndarray | None:
    return np.array([cell.strip() for cell in table.column(column)]) if column else None


def _check_form(competition: CompetitionSettings, parts: Parts, meant: Meant) -> tuple[str, ...]:
    """The label names, after every check of the sample submission; empty if there are none anywhere."""
    names = competition.labels.submitted or _names_of_train(competition, parts)
    if competition.files.has_sample:
        if advice := advise_long(competition, parts):
            parts.sample_report.add(advice)
            return names
        if not names and competition.submission.form in ONE_COLUMN:
            _ask_for_names(competition, parts, "the sample submission has no label columns to take them from")
            return ()
        return check_sample(competition, parts.sample, names, parts.sample_report, meant)
    if not names:
        _ask_for_names(competition, parts, "there is no sample submission to take them from")
    return names


def _ask_for_names(competition: CompetitionSettings, parts: Parts, why: str) -> None:
    found = label_candidates(competition, parts.train) if parts.train is not None else []
    shown = f". Set labels.names: [{', '.join(map(yaml_word, found))}]" if found else ""
    parts.train_report.add(f"labels.names is needed: {why}{shown}")


def _with_template(table: TextTable | None, labels: LabelsSettings) -> TextTable | None:
    """The table with the column that labels.template makes of others; as it is if one of them is missing."""
    if table is None or not labels.template or not set(labels.parts) <= set(table.header):
        return table
    made = fill_template(table, labels.template)
    blank = [not any(cells) for cells in zip(*(table.column(name) for name in labels.parts), strict=True)]
    cells = ["" if empty else cell for cell, empty in zip(made, blank, strict=True)]
    return TextTable((*table.header, labels.template), [[*row, cell] for row, cell in zip(table.rows, cells)])


def _names_of_train(competition: CompetitionSettings, parts: Parts) -> tuple[str, ...]:
    """The labels of a ranked submission by the training file, if no setting names them; empty if it has none."""
    labels, answer, train = competition.labels, competition.submission, parts.train
    if answer.form != "ranked" or labels.form == "columns" or train is None:
        return ()
    form = train_label_form(competition, ())
    if not set(form.columns) <= set(train.header):
        return ()
    names = find_names((cell for column in form.columns for cell in train.column(column)), form)
    names = [labels.rename.get(name, name) for name in names]
    columns = labels.parts or form.columns
    parts.train_report.notes.append(
        f"labels.names is not set, so the labels are what {quoted(columns)} says, sorted: {len(names)} of them"
    )
    if answer.values == "names" and answer.list == "off":
        for name in (name for name in names if answer.delimiter in name):
            parts.train_report.add(
                f"label {name!r} contains submission.delimiter {answer.delimiter!r}, so a list could be read two ways. "
                "Set another delimiter, submission.list: python or labels.map if the competition writes it otherwise"
            )
    return (*names, *(name for name in labels.constants if name not in names))


def _check_candidates(
    competition: CompetitionSettings, parts: Parts, taught: "_Taught | None", names: tuple[str, ...]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The labels that each training row and each test row can have, bool (n, A); None without labels.candidates."""
    labels = competition.labels
    column = labels.candidates
    if not column or taught is None or parts.test is None or column not in parts.test.header or not names:
        return None, None
    form = candidate_form(competition, names)
    learned, masks = learned_columns(names, taught.label_names), []
    for table, report in ((taught.rows, parts.train_report), (parts.test, parts.test_report)):
        allowed = read_candidates(table.column(column), form, report, bool(labels.names))
        none = np.flatnonzero(~allowed[:, learned].any(axis=1)).tolist()
        report.note_rows(f"no candidate of {len(none)} rows is learned, so every label is allowed", none)
        allowed[none] = True
        masks.append(allowed)
    outside = (taught.targets.labels & ~masks[0][:, learned]).any(axis=1)
    parts.train_report.note_rows(
        f"the label of {int(outside.sum()):,} of {len(outside):,} rows is not among its candidates in {column!r}, so "
        "that no answer to it can be right",
        np.flatnonzero(outside).tolist(),
    )
    return masks[0], masks[1]


def candidate_form(competition: CompetitionSettings, names: Sequence[str]) -> LabelForm:
    """How labels.candidates lists labels; `names` are those of a submission."""
    labels = competition.labels
    own = {new: old for old, new in labels.rename.items()}  # the files call a label as the training file does
    return LabelForm(
        form="delimited",
        names=tuple(names if labels.groups else (own.get(name, name) for name in names)),
        column=labels.candidates,
        delimiter=labels.delimiter,
        values="names" if labels.values == "multi_hot" else labels.values,
        first_number=labels.first_number,
        meanings=labels.map,
    )


def learned_columns(answer_names: Sequence[str], label_names: Sequence[str]) -> list[int]:
    """Positions of the labels that are learned among all labels of a submission."""
    position = {name: k for k, name in enumerate(answer_names)}
    return [position[name] for name in label_names]


def _check_test(competition: CompetitionSettings, parts: Parts, meant: Meant) -> Sequence[str]:
    """The ids of a submission in its order, after every check of the test file; empty if they cannot be known."""
    id_column, test, sample, report = competition.id_column, parts.test, parts.sample, parts.test_report
    if test is None:
        return []
    is_whole = not report  # a row that could not be read would be named again as a missing id
    needed = (id_column, *competition.text.columns, *competition.features.columns)
    if has_no_header(test, needed):
        report.add(advise_columns(test.header, needed, report.path))
        return []
    candidates = (competition.labels.candidates,) if competition.labels.candidates else ()
    others = (*competition.features.columns, *candidates)
    check_rows(test, id_column, competition.text.columns, others, report, meant=meant)
    if not meant.id_column and (advice := advise_ids(test, id_column, competition.files.test, sample)):
        report.advise(advice)
    check_texts(test, competition.text, report, drops=False)
    if id_column not in test.header:
        return []
    ids = test.column(id_column)
    if sample is None or id_column not in sample.header or not (is_whole and parts.sample_is_whole):
        return ids
    files, test_file = competition.files, parts.test_report.path.name
    return match_sample_ids(sample.column(id_column), ids, files.answer_rows, test_file, parts.sample_report)


def submission_form(competition: CompetitionSettings, encoding: str) -> FileForm:
    """How the sample submission is written; our answer is written the same way, in utf-8."""
    return FileForm(encoding, competition.submission.separator, "minimal", "submission.separator")


def train_label_form(competition: CompetitionSettings, label_names: Sequence[str]) -> LabelForm:
    """How train.csv writes labels; `label_names` are those of a submission that are read from it."""
    labels = competition.labels
    own = {new: old for old, new in labels.rename.items()}  # a label's name in the training file
    names = labels.names if labels.groups else tuple(label_names)
    return LabelForm(
        form=labels.form,
        names=tuple(own.get(name, name) for name in names),
        column=labels.read_column,
        delimiter=labels.delimiter,
        values=labels.values,
        one_a_row=competition.task == "multiclass",
        groups=tuple(tuple(own.get(name, name) for name in group) for group in labels.groups.values()),
        more_columns=labels.columns,
        first_number=labels.first_number,
        empty=labels.empty,
        meanings=labels.map,
        unknown=labels.unknown,
        shares=labels.positive_from > 0 and labels.aggregate == "off",
        any_number=competition.submission.form == "values",
    )


@dataclass(frozen=True)
class _Taught:
    """What the training file teaches."""

    rows: TextTable
    """Its rows; if it has one per annotator, the first of each id."""
    targets: Targets
    """Of the labels that are learned."""
    label_names: tuple[str, ...]
    constants: list[Constant]
    scale: np.ndarray | None = None
    """As in `Tables`."""


def _check_train(
    competition: CompetitionSettings,
    table: TextTable | None,
    names: tuple[str, ...],
    report: Problems,
    meant: Meant,
) -> _Taught | None:
    """What the training file teaches, after every check of it; None if that cannot be read.

    Args: names: all labels of a submission; empty if they are not known.   meant: what wrong names should be.
    """
    if table is None:
        return None
    labels, id_column = competition.labels, competition.id_column
    in_columns = labels.form == "columns" and not labels.groups
    form = train_label_form(competition, [name for name in names if not (in_columns and name in labels.constants)])
    label_columns = labels.parts or form.columns
    more = (*competition.features.columns, competition.groups, labels.candidates, competition.metric_by)
    others = (*(() if in_columns else label_columns), *filter(None, more))
    needed = (id_column, *competition.text.columns, *label_columns)
    if has_no_header(table, needed):
        report.add(advise_columns(table.header, needed, report.path))
        return None
    is_united = labels.aggregate != "off"
    doubled = "ids must differ. If each row is what one annotator says, set labels.aggregate: majority"
    texts = (name for name in competition.text.columns if name not in meant.hints)
    taken = (id_column, meant.id_column, *texts, *competition.features.columns)
    if other := explain_label_column(table, form, taken):
        report.add(other)
        others = tuple(name for name in others if name not in form.columns)
    check_rows(table, id_column, competition.text.columns, others, report, "" if is_united else doubled, meant)
    if not meant.id_column and (advice := advise_ids(table, id_column, competition.files.train_files[0], None)):
        report.advise(advice)
    features_of(table, competition.features, report)
    if competition.metric_by in table.header:
        without = [row for row, cell in enumerate(table.column(competition.metric_by)) if not cell.strip()]
        report.note_rows(f"{competition.metric_by!r} is empty in {len(without)} rows, which are one group", without)
    absent = _find_absent(competition, table, form, report) if in_columns else []
    if not names or other or not {id_column, *others, *form.columns} - set(absent) <= set(table.header):
        return None
    before = report.count
    form = replace(form, names=tuple(name for name in form.names if name not in absent))
    if form.one_a_row and form.form == "class" and form.unknown:
        table, form = _without_unknown(table, form, report), replace(form, unknown=())
    values = read_advised(table, form, report)
    if is_united:
        table, values = _unite_rows(competition, table, values, report)
    if report.count > before:
        return None
    own = {new: old for old, new in labels.rename.items()}
    submitted = {own.get(name, name): name for name in names}  # by a label's name in the training file
    if in_columns:
        values = _in_order(values, [submitted[name] for name in form.names], names)
    return _learnable(competition, table, values, names, [submitted[name] for name in absent], report)


def _without_unknown(table: TextTable, form: LabelForm, report: Problems) -> TextTable:
    """The rows whose one class is known; the others are named."""
    cells = [mapped(cell, form.meanings) for cell in table.column(form.column)]
    unknown = [row for row, cell in enumerate(cells) if form.is_unknown(cell)]
    report.note_rows(f"rows without a known class ({len(unknown)} of {len(cells)}) are left out", unknown)
    return leave_out(table, set(unknown), report) if unknown else table


def _find_absent(competition: CompetitionSettings, table: TextTable, form: LabelForm, report: Problems) -> list[str]:
    """Label columns that the training file lacks and that can only be answered by a constant.

    A missing column is a problem if it may have another name in the file: one that is near, or a column of 0 and 1 that
    no label is read from. So it is if more than half of the labels are missing, or if a name is there twice.
    """
    missing = [name for name in form.names if name not in table.header]
    read = {competition.id_column, *competition.text.columns, *competition.features.columns}
    spare = set(table.header) - read - set(form.names)
    spare_labels = [name for name in table.header if name in spare and _is_zero_one(table.column(name))]
    is_repeated = len(set(table.header)) < len(table.header)
    is_doubtful = is_repeated or bool(spare_labels) or 2 * len(missing) > len(form.names)
    if not any(find_nearest(name, spare) for name in missing) and not is_doubtful:
        return missing
    for name in missing:
        near = find_nearest(name, spare)
        hint = nearest(name, spare) or f"; the file's columns are {quoted(table.header)}."
        fix = (
            f"labels.rename: {{{as_yaml(near)}: {as_yaml(name)}}}"
            if near
            else "labels.rename if it has another name there"
        )
        report.add(
            f"column {name!r} is missing{hint} Set {fix}, or labels.constants: {{{as_yaml(name)}: 0}} to answer it "
            "without learning it"
        )
    return []


def _is_zero_one(cells: Sequence[str]) -> bool:
    return {read_share(cell) for cell in set(cells)} <= {0, 1}


def _unite_rows(
    competition: CompetitionSettings, table: TextTable, values: np.ndarray, report: Problems
) -> tuple[TextTable, np.ndarray]:
    """One row per id, and what its annotators say together, (M, L)."""
    ids = table.column(competition.id_column)
    first, member = group_rows(ids)
    for name in (*competition.text.columns, *competition.features.columns):
        if name not in table.header:  # a problem that is told already
            continue
        cells = table.column(name)
        other = [row for row, of in enumerate(member.tolist()) if cells[row] != cells[first[of]]]
        numbers = report.row_numbers
        found = [
            (row, f"{name!r} differs from row {numbers[first[member[row]]]}, which has the same id") for row in other
        ]
        report.add_rows(f"{name!r} differs within an id", found)
        if found:
            report.advise("rows of one id are what annotators say of one text: give each text an id of its own")
    one_a_row = competition.task == "multiclass"
    united = unite_annotators(values, member, competition.labels.aggregate, one_a_row)
    if competition.labels.aggregate == "majority":
        tied = find_ties(values, member, one_a_row)
        how = "the first class by labels.names counts" if one_a_row else "that counts as a no"
        report.note_rows(
            f"as many annotators are for a label as against it in {len(tied)} of {len(first)} ids, and {how}",
            [int(first[k]) for k in tied],
        )
    return TextTable(table.header, [table.rows[row] for row in first]), united


def _in_order(values: np.ndarray, read: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The columns `read` of values as columns `names`; False in those that were not read."""
    ordered = np.zeros((len(values), len(names)), values.dtype)
    position = {name: k for k, name in enumerate(names)}
    ordered[:, [position[name] for name in read]] = values
    return ordered


def _learnable(
    competition: CompetitionSettings,
    table: TextTable,
    values: np.ndarray,
    names: tuple[str, ...],
    absent: Sequence[str],
    report: Problems,
) -> _Taught | None:
    """Split labels into those that are learned and constants."""
    labels, one_a_row = competition.labels, competition.task == "multiclass"
    if competition.submission.form == "values":
        return _learnable_values(table, values, names, absent, report)
    targets = split_values(values, labels.positive_from, one_a_row)
    constants = find_constants(targets, names, labels.constants, absent, one_a_row)
    fixed = {each.name for each in constants}
    learned = [k for k, name in enumerate(names) if name not in fixed]
    if len(learned) < 1 + one_a_row:
        found = "; ".join(f"{each.name!r}: {each.reason}" for each in constants[:3])
        what = "two classes" if one_a_row else "a label that some rows have and some have not"
        report.add(f"nothing to learn: expected {what}, found {found or 'one class'}")
        return None
    if len(learned) < len(names):
        targets = targets.of_labels(learned)
    return _Taught(table, targets, tuple(names[k] for k in learned), constants)


def _learnable_values(
    table: TextTable, values: np.ndarray, names: tuple[str, ...], absent: Sequence[str], report: Problems
) -> _Taught | None:
    """What a regression learns; a column without two different values is a problem."""
    for k, name in enumerate(names):
        known = values[~np.isnan(values[:, k]), k]
        if name in absent:
            report.add(f"column {name!r} is missing; the file's columns are {quoted(table.header)}")
        elif len(np.unique(known)) < 2:
            report.add(f"{name!r} is {known[0] if len(known) else 'unknown'} in every row, so nothing can be learned")
    if report:
        return None
    targets, scale = scale_values(values)
    return _Taught(table, targets, names, [], scale)
