"""competition/: decisions or probabilities into the sample submission's form, and the last look at it before Kaggle.

Linted twice, by the same checks: as the bytes that are about to be written, and as the file that was.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from competition.problems import Problems, raise_if_any, shown_path
from competition.reading import TextTable, parse_table, table_bytes
from competition.submission_checks import (
    check_header,
    check_number_format,
    check_submission_ids,
    pointed_columns,
    read_answers,
)
from competition.submission_findings import find_oddities, is_sample
from competition.tables import Tables, submission_form
from settings.competition import CompetitionSettings


def build_submission(
    competition: CompetitionSettings, tables: Tables, decisions: np.ndarray | None, probs: np.ndarray
) -> pd.DataFrame:
    """The answer in the sample submission's ids, columns, order and number format.

    Args:   decisions: bool (n_test, L), test_ids x label_names; may be None where the form is probabilities.
            probs: float (n_test, L), in [0, 1]; read only by the form probabilities.
    Returns: ids as text; answers int64 or float64 as the sample writes them, float64 probabilities, or text.
    Raises: ValueError: a wrong shape, or no decisions where the form needs them.
    """
    form = competition.submission.form
    answers = probs if form == "probabilities" else decisions
    shape = (len(tables.test_ids), len(tables.label_names))
    if answers is None or answers.shape != shape:
        found = "nothing" if answers is None else answers.shape
        raise ValueError(f"submission.form {form} needs answers of shape {shape} (test rows, labels); found {found}")
    row_of = {name: row for row, name in enumerate(tables.test_ids.tolist())}
    ordered = answers[[row_of[name] for name in tables.sample_ids.tolist()]]  # (n_test, L), sample order
    columns = {competition.id_column: tables.sample_ids.tolist()}
    if form in ("delimited", "class"):
        columns[competition.submission.column] = _as_text(competition, tables, ordered)
    else:
        columns |= _as_numbers(form, tables, ordered)
    return pd.DataFrame({name: columns[name] for name in tables.sample_columns})


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
    """Check an answer before it is written: hard errors are raised, oddities come back as sentences to print.

    Args:   oof_answers: (N, L) decisions or probs made for the training rows in the same way; their rates are what is
            expected of the test rows. The training labels' rates where None.
            earlier: sha256 of the bytes -> path of each submission that is already there.
    Returns: findings, in order of weight; empty where nothing is odd.
    Raises: ValueError: ids, columns, order or values differ from what the sample submission asks for, every problem at
            once; or the answer is the sample submission itself.
    """
    data = submission_bytes(frame, competition.submission.separator)
    return _lint(data, Path("the submission, not yet written"), competition, tables, oof_answers, earlier or {})


def lint_submission_file(
    path: Path,
    competition: CompetitionSettings,
    tables: Tables,
    oof_answers: np.ndarray | None = None,
    earlier: Mapping[str, Path] | None = None,
) -> list[str]:
    """As `lint_submission`, of the bytes that lie on the disk."""
    return _lint(path.read_bytes(), path, competition, tables, oof_answers, earlier or {})


def read_submission(path: Path, competition: CompetitionSettings, tables: Tables) -> np.ndarray:
    """The answers of a submission, rows in the sample submission's order: bool decisions or float64 probs (n_test, L).

    Raises: ValueError: as `lint_submission_file`.
    """
    report = Problems(path)
    table = parse_table(path.read_bytes(), submission_form(competition, "utf-8"), report)
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
    same = earlier.get(hashlib.sha256(data).hexdigest(), path)
    findings = [] if same == path else [f"byte for byte the same as {shown_path(same)}: Kaggle scores it the same"]
    return findings + find_oddities(answers, tables, oof_answers)


def _check(table: TextTable, competition: CompetitionSettings, tables: Tables, report: Problems) -> np.ndarray | None:
    """The answers (n_test, L) after every check; None where the columns are not the sample submission's."""
    if not check_header(table.header, tables.sample_columns, report):
        return None
    check_submission_ids(table.column(competition.id_column), tables.sample_ids.tolist(), report)
    answers = read_answers(table, competition, tables.label_names, report)
    if competition.submission.form == "columns" and not report:
        check_number_format(table, tables, report)
    numeric = competition.submission.form in ("columns", "probabilities")
    if not report and is_sample(table, numeric, tables):
        report.add("every answer is the sample submission's: nothing was predicted; blend other runs, or train longer")
    return answers


def _as_text(competition: CompetitionSettings, tables: Tables, decisions: np.ndarray) -> list[str]:
    """Names or numbers of each row's labels, in label order."""
    numbered = competition.submission.values == "numbers"
    words = [str(k) for k in range(len(tables.label_names))] if numbered else tables.label_names
    return [competition.submission.delimiter.join(words[k] for k in np.flatnonzero(row)) for row in decisions]


def _as_numbers(form: str, tables: Tables, answers: np.ndarray) -> dict[str, np.ndarray]:
    """One column a label: probabilities, or 0 and 1 written as the sample submission writes them."""
    if form == "probabilities":
        return {name: answers[:, k].astype(np.float64) for k, name in enumerate(tables.label_names)}
    pointed = pointed_columns(tables)
    dtypes = {name: np.float64 if name in pointed else np.int64 for name in tables.label_names}
    return {name: answers[:, k].astype(dtypes[name]) for k, name in enumerate(tables.label_names)}


def _as_cell(value) -> str:
    return value if isinstance(value, str) else repr(value)
