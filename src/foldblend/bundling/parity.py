"""The parity check of a bundle: rows that a notebook predicts first, and what training's machine predicted for them.

A notebook's GPU often computes in another precision than the one that trained (a T4 knows no bf16), or Kaggle's image
has other versions of the libraries. Both can change predictions without any error. So a bundle holds a few texts and
their stored predictions, and the notebook stops before the hidden rows if it predicts these texts differently.
No label is in the files.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldblend.errors import UserError
from foldblend.features import Features
from foldblend.npz import load_npz, write_npz

# ---------- what is stored.

FOLDER, ROWS, TABLES = "parity", "rows.json", "expected.npz"
"""Of a bundle: the folder, the texts and runs, the predictions."""
N_ROWS = 64


@dataclass(frozen=True)
class ExpectedRun:
    """What one run's folds predicted for the rows when they were trained; K folds, n rows, L labels."""

    name: str
    tables: np.ndarray
    """float32 (K, n, L) as in oof/; nan for a row that a fold did not predict: held out by another one."""
    device: str
    """Where it was trained, as its record has it: `1 x NVIDIA H200, bf16`."""
    versions: Mapping[str, str]
    """Of the libraries then."""


@dataclass(frozen=True)
class Parity:
    """The rows and what each run of the bundle predicted for them."""

    texts: tuple[str, ...]
    features: Features | None
    runs: tuple[ExpectedRun, ...]


def choose_rows(texts: Sequence[str], n: int = N_ROWS) -> np.ndarray:
    """Rows of all lengths, int64 (at most n,), rising: the shortest, the longest and evenly many between them."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    return np.sort(np.unique(order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(np.int64)]))


def parity_files(parity: Parity) -> dict[str, bytes]:
    """Name in the bundle -> what the file holds."""
    features = parity.features
    rows = {
        "texts": parity.texts,
        "features": None
        if features is None
        else {
            "number_names": features.number_names,
            "numbers": [[None if math.isnan(x) else x for x in row] for row in features.numbers.tolist()],
            "category_names": features.category_names,
            "categories": features.categories.tolist(),
            "min_rows": features.min_rows,
        },
        "runs": [
            {"name": run.name, "shape": run.tables.shape, "device": run.device, "versions": dict(run.versions)}
            for run in parity.runs
        ],
    }
    tables = io.BytesIO()
    write_npz(tables, {f"run{k}": run.tables.astype(np.float32) for k, run in enumerate(parity.runs)})
    return {f"{FOLDER}/{ROWS}": json.dumps(rows).encode(), f"{FOLDER}/{TABLES}": tables.getvalue()}


def load_parity(folder: Path) -> Parity:
    """The reverse of `parity_files`. Raises: UserError: a file is missing or damaged."""
    try:
        rows = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        expected = {f"run{k}": ("f", tuple(run["shape"])) for k, run in enumerate(rows["runs"])}
        tables = load_npz(folder / TABLES, expected)
        runs = tuple(
            ExpectedRun(run["name"], tables[f"run{k}"], run["device"], run["versions"])
            for k, run in enumerate(rows["runs"])
        )
        return Parity(tuple(rows["texts"]), _read_features(rows["features"], len(rows["texts"])), runs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{folder}: no whole parity check ({type(error).__name__}: {error}). Make the bundle again: "
            "python src/bundle.py"
        ) from error


def _read_features(stored: Mapping | None, n: int) -> Features | None:
    if stored is None:
        return None
    numbers = [[math.nan if x is None else float(x) for x in row] for row in stored["numbers"]]
    names, words = tuple(stored["number_names"]), tuple(stored["category_names"])
    cells = np.array(stored["categories"], object).reshape(n, len(words))
    return Features(names, np.array(numbers, np.float64).reshape(n, len(names)), words, cells, stored["min_rows"])


# ---------- how far predictions may be apart.

BOUNDS = {"": (0.005, 0.001), "fp32": (0.02, 0.002), "fp16": (0.05, 0.005), "bf16": (0.15, 0.015)}
"""The coarser precision of the two -> probabilities that may be apart at most, and on average; empty is a model that
is no neural net. bf16 keeps 8 bits of a number, fp16 11. The figures are our choice: no GPU has been asked yet."""
COARSE = ("bf16", "fp16", "fp32", "")
"""The coarsest first."""


def trained_in(device: str) -> str:
    """The precision in a record's device; empty if it names none."""
    return next((name for name in COARSE[:-1] if name in device.split(", ")), "")


@dataclass(frozen=True)
class Comparison:
    """One fold's predictions here beside those of training; n rows, L labels."""

    n_rows: int
    most: float
    """Largest distance of two probabilities."""
    mean: float
    """Mean distance of two probabilities."""
    worst: int
    """The row with the largest distance."""
    n_bad: int = 0
    """Rows whose predictions here are no numbers."""


def compare(expected: np.ndarray, found: np.ndarray) -> Comparison | None:
    """Compare two tables of probabilities, (n, L); rows that are nan in `expected` were not predicted. None: all."""
    rows = np.flatnonzero(~np.isnan(expected).any(axis=1))
    if not len(rows):
        return None
    bad = ~np.isfinite(found[rows]).all(axis=1)
    if bad.any():
        return Comparison(len(rows), math.nan, math.nan, int(rows[bad.argmax()]), int(bad.sum()))
    apart = np.abs(expected[rows].astype(np.float64) - found[rows])
    return Comparison(len(rows), float(apart.max()), float(apart.mean()), int(rows[apart.max(axis=1).argmax()]))


def check_fold(
    run: ExpectedRun, title: str, comparison: Comparison, precision: str, device: str, versions: Mapping[str, str]
) -> str:
    """One line on a fold that predicts as it did.

    Args:   title: of the fold.   precision: used here; empty for a model that is no neural net.
            device: of here, in words.   versions: of the libraries here.
    Raises: UserError: it predicts something else; says what was found, the likely cause, and what to set.
    """
    then = trained_in(run.device)
    most, mean = BOUNDS[min(then, precision, key=COARSE.index)]
    if not comparison.n_bad and comparison.most <= most and comparison.mean <= mean:
        found = f"at most {comparison.most:.4f} apart, {comparison.mean:.5f} on average"
        return f"parity check, {run.name}, {title}: {comparison.n_rows} rows, probabilities {found}"
    if comparison.n_bad:
        found = f"{comparison.n_bad} of {comparison.n_rows} rows get NaN or infinite values"
    else:
        found = (
            f"on {comparison.n_rows} rows probabilities are up to {comparison.most:.3f} apart (row "
            f"{comparison.worst + 1}) and {comparison.mean:.4f} on average; {most:g} and {mean:g} are normal"
        )
    used = f"here it predicts on {device}" + (f" in {precision}" if precision else "")
    raise UserError(
        f"The parity check failed: run {run.name}, {title} predicts something else than when it was trained.\n"
        f"Found: {found}. Trained on {run.device}; {used}.\n" + _advice(then, precision, run.versions, versions)
    )


SWITCH = 'PARITY = "no" in the notebook\'s first cell (predict.py: no --parity) predicts all the same'


def _advice(then: str, now: str, versions_then: Mapping[str, str], versions_now: Mapping[str, str]) -> str:
    """The likely cause and what to set, as sentences."""
    others = [
        f"{name} {versions_then[name]} then, {versions_now[name]} here"
        for name in versions_then.keys() & versions_now.keys()
        if versions_then[name] != versions_now[name]
    ]
    libraries = "; ".join(sorted(others))
    if now == "fp16" and then != "fp16":
        return (
            f"Likely cause: fp16 after training in {then or 'fp32'}; numbers above 65504 overflow in fp16. Set "
            'PRECISION = "fp32" in the notebook\'s first cell (predict.py: --precision fp32), which takes longer, or '
            f"train with --training.precision fp16. {SWITCH}"
        )
    if libraries:
        return (
            f"Likely cause: other versions of the libraries: {libraries}. Attach the versions of training: bundle.py "
            f"without --no_wheels packs wheels, but not of torch. {SWITCH}"
        )
    if now in ("fp16", "bf16"):
        return f'Likely cause: the precision. Set PRECISION = "fp32" (predict.py: --precision fp32). {SWITCH}'
    return (
        "Likely cause: other files of the pretrained model, or damaged memory of the device. Compare the model's files "
        f"with those of training, or try another machine. {SWITCH}"
    )
