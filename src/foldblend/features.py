"""Columns beside the text, numbers and categories: as the files have them, and as the models of one fold read them.

What a fold's models read is fitted on its training rows alone: a number's mean and spread, the words of a category that
are frequent enough to have a column. It is saved with the fold's weights, so that new rows are read the same way.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MISSING = ("", "nan", "na", "n/a", "none", "null", "<na>", "?")
"""Cells without a number, in any case."""
WORDS_FOR_NUMBERS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
LARGEST = 1e30
"""Larger numbers would overflow when they are squared."""

MOST_SPREADS = 10.0
"""A number further from the mean, in standard deviations, counts as this far: one slip must not outweigh all texts."""
MOST_WORDS = 100
"""Words of a category that get a column, the most frequent ones; the rest share one."""


# ---------- as the files have them.


@dataclass(frozen=True)
class Features:
    """Cells of n rows."""

    number_names: tuple[str, ...]
    numbers: np.ndarray
    """float64 (n, P), nan if the cell is empty."""
    category_names: tuple[str, ...]
    categories: np.ndarray
    """object (n, C) of str, blanks around them removed; an empty cell is a category, too."""
    min_rows: int = 5
    """Training rows of a fold in which a category's word must be to get a column of its own."""

    def take(self, rows: np.ndarray) -> "Features":
        """The same of some rows, int64 (m,)."""
        return self._with(self.numbers[rows], self.categories[rows])

    def followed_by(self, other: "Features") -> "Features":
        """These rows, then those of `other`."""
        return self._with(
            np.concatenate([self.numbers, other.numbers]), np.concatenate([self.categories, other.categories])
        )

    def _with(self, numbers: np.ndarray, categories: np.ndarray) -> "Features":
        return Features(self.number_names, numbers, self.category_names, categories, self.min_rows)

    def sha256(self) -> str:
        """Hash of names and cells."""
        digest = hashlib.sha256(repr((self.number_names, self.category_names, self.numbers.shape)).encode())
        digest.update(np.ascontiguousarray(self.numbers).tobytes())
        for word in self.categories.ravel():
            data = word.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def read_features(
    columns: Mapping[str, Sequence[str]], numbers: Sequence[str], categories: Sequence[str], n_rows: int, min_rows: int
) -> tuple[Features, list[tuple[str, int]]]:
    """Features of a table's columns, and (column, row) of each cell that is no number.

    Args: columns: name -> n cells; a column that is not there is empty in every row.   numbers, categories: names.
    """
    values, bad = np.full((n_rows, len(numbers)), np.nan), []
    for k, name in enumerate(numbers):
        for row, cell in enumerate(columns.get(name, ())):
            value = _read_number(cell)
            if value is None:
                bad.append((name, row))
            else:
                values[row, k] = value
    words = np.full((n_rows, len(categories)), "", object)
    for k, name in enumerate(categories):
        if name in columns:
            words[:, k] = [cell.strip() for cell in columns[name]]
    return Features(tuple(numbers), values, tuple(categories), words, min_rows), bad


def _read_number(cell: str) -> float | None:
    """A cell's number, nan if it is empty; None if it is something else."""
    word = cell.strip().casefold()
    if word in MISSING:
        return float("nan")
    value = WORDS_FOR_NUMBERS.get(word, float(word) if NUMBER.fullmatch(word) else None)
    return value if value is not None and abs(value) < LARGEST else None


# ---------- as the models of one fold read them.


@dataclass(frozen=True)
class FittedFeatures:
    """How features of any rows become columns of numbers: for each number its value and whether it is missing, for each
    category one column per word and one for all other words."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    """0 for a number that is the same in all training rows; it is not read."""
    words: tuple[tuple[str, ...], ...]
    """Per category the words that have a column."""

    @property
    def width(self) -> int:
        """W, the number of columns."""
        return 2 * len(self.mean) + sum(len(words) + 1 for words in self.words)

    def read(self, features: Features) -> np.ndarray:
        """float32 (n, W): numbers in standard deviations from the mean, a missing one at the mean; words as 0 and 1."""
        columns = []
        for k, (mean, spread) in enumerate(zip(self.mean, self.spread, strict=True)):
            cells = features.numbers[:, k]
            value = (cells - mean) / spread if spread else np.zeros(len(cells))
            columns += [np.nan_to_num(value.clip(-MOST_SPREADS, MOST_SPREADS)), np.isnan(cells)]
        for k, words in enumerate(self.words):
            cells = features.categories[:, k]
            own = [cells == word for word in words]
            columns += [*own, ~np.any(own, axis=0) if own else np.ones(len(cells), bool)]
        return np.stack(columns, axis=1).astype(np.float32)

    def record(self) -> dict:
        """As plain values, for `from_record`."""
        return {"mean": list(self.mean), "spread": list(self.spread), "words": [list(words) for words in self.words]}

    @classmethod
    def from_record(cls, record: Mapping) -> "FittedFeatures":
        """The reverse of `record`."""
        return cls(tuple(record["mean"]), tuple(record["spread"]), tuple(map(tuple, record["words"])))


def fit_features(features: Features) -> FittedFeatures:
    """Fit on a fold's training rows, and on no others."""
    mean, spread = [], []
    for cells in features.numbers.T:
        known = cells[~np.isnan(cells)]
        mean.append(float(known.mean()) if len(known) else 0.0)
        spread.append(float(known.std()) if len(known) and (known != known[0]).any() else 0.0)
    words = tuple(_frequent(cells, features.min_rows) for cells in features.categories.T)
    return FittedFeatures(tuple(mean), tuple(spread), words)


def _frequent(cells: np.ndarray, min_rows: int) -> tuple[str, ...]:
    """Words in at least so many rows, the most frequent first; equally frequent ones by the alphabet."""
    counts = sorted(Counter(cells.tolist()).items(), key=lambda each: (-each[1], each[0]))
    return tuple(word for word, count in counts if count >= min_rows)[:MOST_WORDS]
