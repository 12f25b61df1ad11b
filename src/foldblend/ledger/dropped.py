"""Probabilities that another program made: a run dropped into oof/ (oof.csv, test.csv), and soft targets in data/.

Each table holds an id column first, then one column per label; rows and label columns in any order.
No file proves that a dropped-in run was predicted out of fold, on the folds of folds/: its maker must ensure it.
"""

import csv
import io
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from foldblend.errors import UserError
from foldblend.files import read_bytes, sha256_file
from foldblend.ledger.folds import compare_ids
from foldblend.ledger.oof import check_values
from foldblend.settings.run import RunSettings

TEST_IS = ("mean_of_folds", "one_fold")
"""What `test.csv` may be: the mean of all folds' models, or the predictions of one fold's model."""


def load_test_is(folder: Path) -> str:
    """What `test_is` in the folder's run.yaml says of its test.csv: one of TEST_IS; empty without that file.

    Raises: UserError: it is not readable as YAML, holds another key, or another value.
    """
    path = folder / "run.yaml"
    if not path.exists():
        return ""
    expected = f"expected the one line `test_is: {TEST_IS[0]}` or `test_is: {TEST_IS[1]}`"
    try:
        values = yaml.safe_load(read_bytes(path).decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); {expected}") from None
    if not isinstance(values, dict) or set(values) != {"test_is"} or values["test_is"] not in TEST_IS:
        raise UserError(f"{path}: holds {str(values)[:80]}; {expected}")
    return values["test_is"]


def load_dropped(
    path: Path,
    ids: np.ndarray,
    label_names: tuple[str, ...],
    what: str,
    data: bytes | None = None,
    scale: np.ndarray | None = None,
) -> np.ndarray:
    """Read one such file into the order of `ids`.

    Args:   ids: (n,) str, the ids it must hold, each once.   what: what these ids belong to, for messages.
            data: the file's bytes if the caller has read them.
            scale: float64 (L, 2), of a regression: the file holds values, which become shares of this range.
    Returns: float32 (n, L), label columns in the order of `label_names`.
    Raises: UserError: not a UTF-8 CSV, other label columns, a row that is wider or narrower than the header, ids
            missing, foreign or twice, a cell that is no number, NaN, a value outside [0, 1].
    """
    data = read_bytes(path) if data is None else data
    id_column, columns = _check_form(path, data, label_names)
    frame = _read_table(path, data, id_column, columns)
    found = frame[id_column].to_numpy(dtype=str)
    order, wanted = np.argsort(found, kind="stable"), np.argsort(ids, kind="stable")
    if not np.array_equal(found[order], ids[wanted]):
        raise UserError(f"{path}: {'; '.join(compare_ids(found, ids, what))}")
    values = np.empty((len(ids), len(label_names)), dtype=np.float32)
    for column, name in enumerate(label_names):
        values[wanted, column] = frame[name].to_numpy()[order]
    if scale is not None:
        low, high = scale.T
        values = ((values - low) / (high - low)).clip(0, 1).astype(np.float32)
    problems = check_values(values, "probs", f"{path}, rows in the order of {what},")
    if problems:
        raise UserError(problems[0])
    return values


def _check_form(path: Path, data: bytes, label_names: tuple[str, ...]) -> tuple[str, list[str]]:
    """The id column and the label columns, as the header has them; every row is as wide as the header.

    pandas would take a wider row's first value for an index, or drop its last one, and go on.
    """
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = next(rows, [])
        _check_header(path, header, label_names)
        for number, row in enumerate(rows, start=2):
            if row and len(row) != len(header):
                raise UserError(
                    f"{path}: row {number} (the header is row 1) has {len(row)} values, the header has {len(header)}, "
                    "so it is not known which value belongs to which label. It begins "
                    f"{','.join(row)[:60]!r}. Correct it"
                )
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 CSV ({error})") from None
    return header[0], header[1:]


def _check_header(path: Path, header: list[str], label_names: tuple[str, ...]) -> None:
    if sorted(header[1:]) != sorted(label_names):
        absent, foreign = sorted(set(label_names) - set(header[1:])), sorted(set(header[1:]) - set(label_names))
        raise UserError(
            f"{path}: {len(header)} columns; expected an id and then the {len(label_names)} labels, each once. "
            f"Missing: {absent[:5]}, unknown: {foreign[:5]}"
        )
    if header[0] in label_names:
        raise UserError(f"{path}: its first column is the label {header[0]!r}; expected the id")


def _read_table(path: Path, data: bytes, id_column: str, columns: list[str]) -> pd.DataFrame:
    types = {id_column: str} | dict.fromkeys(columns, np.float32)
    options = {"encoding": "utf-8-sig", "keep_default_na": False, "index_col": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what pandas only warns of, such as cut values, is a fault of the file
            return pd.read_csv(io.BytesIO(data), dtype=types, na_values=[], **options)
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError, Warning) as error:
        raise UserError(f"{path}: {_find_bad_cell(data, id_column, options) or error}") from None


def _find_bad_cell(data: bytes, id_column: str, options: dict) -> str:
    """Which cell is the first that is no number; empty if the table itself cannot be parsed."""
    try:
        frame = pd.read_csv(io.BytesIO(data), dtype=str, **options)
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError):
        return ""
    for name in frame.columns.drop(id_column):
        bad = np.flatnonzero(pd.to_numeric(frame[name], errors="coerce").isna().to_numpy())
        if len(bad):
            cell = frame[name].iloc[bad[0]]
            return f"column {name}, row {bad[0] + 2}: {str(cell)[:40]!r} is not a number; expected a probability"
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
