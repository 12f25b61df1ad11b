"""The form of a submission: its rows, its columns and its labels, from the sample submission or without one."""

from collections.abc import Sequence

from foldblend.data.labels import read_share
from foldblend.data.layout import Parts, yaml_word
from foldblend.data.long_form import Pair, guess_row_id, long_form, pairs_of
from foldblend.data.reading import Problems, TextTable, excerpt, quoted
from foldblend.settings.competition import CompetitionSettings

# ---------- rows.


def match_sample_ids(
    sample_ids: Sequence[str], test_ids: Sequence[str], rows_from: str, test_file: str, report: Problems
) -> Sequence[str]:
    """The ids of a submission in its order: the sample submission's if they are the test file's.

    A sample submission that lacks rows only shows the form. One with rows that the test file lacks cannot be satisfied.

    Args: rows_from: `files.answer_rows`.
    """
    in_sample, in_test = set(sample_ids), set(test_ids)
    if in_sample == in_test:
        return sample_ids if rows_from == "sample" else test_ids
    missing = [name for name in test_ids if name not in in_sample]
    lacks = f"{len(missing)} ids of {test_file} are missing: {quoted(missing)}"
    extra = [row for row, name in enumerate(sample_ids) if name not in in_test]
    if rows_from == "test" or not extra:
        other = f"; {len(extra)} of its ids are not in {test_file}" if extra else ""
        report.notes.append(f"{lacks}{other}. Submissions have the {len(test_ids)} rows of {test_file}, in its order")
        return test_ids
    if missing:
        report.add(lacks)
    found = [(row, f"id {excerpt(sample_ids[row])} is not in {test_file}") for row in extra]
    report.add_rows(f"id not in {test_file}", found)
    report.advise(
        f"if the sample submission is out of date, set files.answer_rows: test, which answers all of {test_file}"
    )
    return test_ids


def written_form(
    competition: CompetitionSettings,
    sample_header: tuple[str, ...],
    sample_pairs: Sequence[Pair],
    ids: Sequence[str],
    label_names: Sequence[str],
) -> tuple[tuple[str, ...], tuple[Pair, ...]]:
    """The columns and the pairs of a submission as it is written, for the rows `ids`; no pairs for one row per id."""
    form = long_form(competition)
    if form is None:
        return sample_header, ()
    is_same = {name for name, _ in sample_pairs} == set(ids)
    return sample_header or form.columns, tuple(sample_pairs if is_same else pairs_of(ids, label_names))


# ---------- columns and labels.


def built_header(competition: CompetitionSettings, label_names: Sequence[str]) -> tuple[str, ...]:
    """Columns of a submission without a sample: the id and what `submission` states."""
    answer = competition.submission
    in_columns = answer.form in ("columns", "probabilities")
    return (competition.id_column, *(label_names if in_columns else (answer.column,)))


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
        return [name for name in columns if {read_share(cell) for cell in set(train.column(name))} <= {0, 1}]
    if labels.column not in train.header:
        return []
    split = [labels.delimiter] if labels.form == "delimited" else []
    cells = set(train.column(labels.column))
    said = {part.strip() for cell in cells for part in (cell.split(split[0]) if split else [cell])} - {"", labels.empty}
    return sorted(said) if len(said) <= MOST_CANDIDATES else []


MOST_CANDIDATES = 100
"""More different cells are no names of labels."""
