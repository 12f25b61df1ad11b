"""Tables of probabilities that another program made: a run dropped into oof/ (oof.csv, test.csv), and soft targets.

Each holds an id column first, then one column per label with probabilities; rows and label columns in any order.
That a dropped-in run was predicted out of fold, on the folds of folds/, is for its maker to ensure: no file proves it.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldblend.errors import UserError
from foldblend.files import reading, sha256_file
from foldblend.ledger.folds import compare_ids
from foldblend.ledger.oof import check_values
from foldblend.settings.run import RunSettings

# ---------- one table.


def load_dropped(path: Path, ids: np.ndarray, label_names: tuple[str, ...], what: str) -> np.ndarray:
    """Read one such file into the order of `ids`.

    Args:   ids: (n,) str, the ids it must hold, each once.   what: what these ids belong to, for messages.
    Returns: float32 (n, L), label columns in the order of `label_names`.
    Raises: UserError: not a UTF-8 CSV, other label columns, ids missing, foreign or twice, a cell that is no number,
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
        with reading(path), open(path, encoding="utf-8-sig", newline="") as file:
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
    """Which cell is the first that is no number; empty if the table itself cannot be parsed."""
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


# ---------- soft targets in data/<competition>/: annotators' shares or a teacher's probabilities of training rows.


ROUNDING = 0.02
"""How far the shares of a row may sum from 1 if it has one label: they were rounded. They are divided by their sum."""


def with_file_hash(run: RunSettings, data_dir: Path) -> RunSettings:
    """The run with its soft targets' hash among its settings, so that a changed file is a different training.

    Raises: UserError: the file is missing, or is not the one that the settings state.
    """
    if not run.loss.soft_targets:
        return run
    path = data_dir / run.loss.soft_targets
    if not path.is_file():
        raise UserError(f"{path} is missing; loss.soft_targets names a file in {data_dir}")
    found, stated = sha256_file(path), run.loss.soft_targets_sha256
    if stated not in ("", found):
        raise UserError(f"{path}: its sha256 is {found}, loss.soft_targets_sha256 is {stated}; expected the same")
    return replace(run, loss=replace(run.loss, soft_targets_sha256=found))


def load_soft_targets(path: Path, tables, task: str) -> np.ndarray:
    """What every training row is trained on, float32 (N, L) in [0, 1]; if the task is multiclass, rows sum to 1.

    Raises: UserError: as `load_dropped`; in a multiclass task, rows that do not sum to 1.
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
