"""Ledger room: predictions made elsewhere, dropped in as oof/<competition>/<run>/oof.csv and test.csv.

Each holds an id column first, then one column a label with probabilities; rows and label columns in any order.
That they were made out of fold, on the folds of folds/, is the word of whoever made them: no file can prove it.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldblend.errors import UserError
from foldblend.files import sha256_file
from foldblend.ledger.folds import compare_ids
from foldblend.ledger.oof import check_values
from foldblend.settings.run import RunSettings

# ---------- predictions made elsewhere, dropped in as oof/<competition>/<run>/oof.csv and test.csv.


def load_dropped(path: Path, ids: np.ndarray, label_names: tuple[str, ...], what: str) -> np.ndarray:
    """Read one such file into the order of `ids`.

    Args:   ids: (n,) str, the ids it must hold, each once.   what: whose ids these are, for messages.
    Returns: float32 (n, L), label columns in the order of `label_names`.
    Raises: ValueError: not a UTF-8 CSV, other label columns, ids missing, foreign or twice, a cell that is no number,
            NaN, a value outside [0, 1].
    """
    id_column, columns = _read_header(path, label_names)
    frame = _read_table(path, id_column, columns)
    found = frame[id_column].to_numpy(dtype=str)
    order, wanted = np.argsort(found, kind="stable"), np.argsort(ids, kind="stable")
    if not np.array_equal(found[order], ids[wanted]):
        raise UserError(f"{path}: {'; '.join(compare_ids(found, ids, what))}")
    values = np.empty((len(ids), len(label_names)), dtype=np.float32)
    for column, name in enumerate(label_names):
        values[wanted, column] = frame[name].to_numpy()[order]
    problems = check_values(values, "probs", f"{path}, rows in the order of {what},")
    if problems:
        raise UserError(problems[0])
    return values


def _read_header(path: Path, label_names: tuple[str, ...]) -> tuple[str, list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 CSV ({error})") from None
    if sorted(header[1:]) != sorted(label_names):
        absent, foreign = sorted(set(label_names) - set(header[1:])), sorted(set(header[1:]) - set(label_names))
        raise UserError(
            f"{path}: {len(header)} columns; expected an id and then the {len(label_names)} labels, each once. "
            f"Missing: {absent[:5]}, unknown: {foreign[:5]}"
        )
    if header[0] in label_names:
        raise UserError(f"{path}: its first column is the label {header[0]!r}; expected the id")
    return header[0], header[1:]


def _read_table(path: Path, id_column: str, columns: list[str]) -> pd.DataFrame:
    types = {id_column: str} | dict.fromkeys(columns, np.float32)
    options = {"encoding": "utf-8-sig", "keep_default_na": False, "index_col": False}
    try:
        return pd.read_csv(path, dtype=types, na_values=[], **options)
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: {_find_bad_cell(path, id_column, options) or error}") from None


def _find_bad_cell(path: Path, id_column: str, options: dict) -> str:
    """Where the first cell stands that is no number; empty when the table itself cannot be parsed."""
    try:
        frame = pd.read_csv(path, dtype=str, **options)
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError):
        return ""
    for name in frame.columns.drop(id_column):
        bad = np.flatnonzero(pd.to_numeric(frame[name], errors="coerce").isna().to_numpy())
        if len(bad):
            cell = frame[name].iloc[bad[0]]
            return f"column {name}, row {bad[0] + 2}: {str(cell)[:40]!r} is no number; expected a probability"
    return ""


# ---------- soft targets in data/<competition>/, annotators' shares or a teacher's probabilities, for training rows.


ROUNDING = 0.02
"""What shares of the one label may sum to beside 1, as they were rounded; each is then divided by their sum."""


def with_file_hash(run: RunSettings, data_dir: Path) -> RunSettings:
    """The run with its soft targets' hash among its settings, so that a changed file is another training.

    Raises: ValueError: the file is not there, or is not the one that the settings state.
    """
    if not run.loss.soft_targets:
        return run
    path = data_dir / run.loss.soft_targets
    if not path.is_file():
        raise UserError(f"{path} is not there; loss.soft_targets names a file in {data_dir}")
    found, stated = sha256_file(path), run.loss.soft_targets_sha256
    if stated not in ("", found):
        raise UserError(f"{path}: its sha256 is {found}, loss.soft_targets_sha256 is {stated}; expected the same")
    return replace(run, loss=replace(run.loss, soft_targets_sha256=found))


def load_soft_targets(path: Path, tables, task: str) -> np.ndarray:
    """What every training row teaches, float32 (N, L) in [0, 1]; rows sum to 1 where one label a row is the task.

    Raises: ValueError: other label columns, ids missing, foreign or twice, a cell that is no number from 0 to 1, rows
            of one label that do not sum to 1.
    """
    targets = load_dropped(path, tables.train_ids, tables.label_names, "the training rows")
    if task != "multiclass":
        return targets
    sums = targets.sum(1, dtype=np.float64)
    wrong = np.flatnonzero(np.abs(sums - 1) > ROUNDING)
    if len(wrong):
        first = f"{str(tables.train_ids[wrong[0]])!r} with {sums[wrong[0]]:.4g}"
        raise UserError(f"{path}: {len(wrong)} rows do not sum to 1, first {first}; here each row has one label")
    return (targets / sums[:, None]).astype(np.float32)
