"""The scoring room's input: the runs' held-out scores beside the truth, and the rows that fits look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.ensembling.predictors import Scores
from foldblend.scoring.thresholds.rules import Task

# ---------- partitions: which rows a fit may see when row, fold and inner fold are left out in turn.


@dataclass(frozen=True)
class Partition:
    """Rows dealt into parts, and every set of parts that cross-fitting leaves out."""

    part: np.ndarray
    """int64 (N,), 0..P-1."""

    @cached_property
    def n_parts(self) -> int:
        return int(self.part.max()) + 1

    @cached_property
    def order(self) -> np.ndarray:
        """Rows sorted by part, int64 (N,)."""
        return np.argsort(self.part, kind="stable")

    @cached_property
    def slices(self) -> list[slice]:
        """Where each part lies in `order`."""
        edges = np.searchsorted(self.part[self.order], np.arange(self.n_parts + 1))
        return [slice(start, stop) for start, stop in pairwise(edges)]

    @cached_property
    def rows(self) -> list[np.ndarray]:
        """Rows of each part, rising."""
        return [self.order[where] for where in self.slices]

    @cached_property
    def left_out(self) -> list[tuple[int, ...]]:
        """Nothing, each part, each pair of parts."""
        parts = range(self.n_parts)
        return [(), *((part,) for part in parts), *combinations(parts, 2)]

    @cached_property
    def subsets(self) -> np.ndarray:
        """bool (S, P): the parts that each fit of `left_out` sees."""
        return np.array([[part not in out for part in range(self.n_parts)] for out in self.left_out])

    def fit_without(self, *parts: int) -> int:
        """Position in `left_out` of the fit that saw none of these parts."""
        return self.left_out.index(tuple(sorted(set(parts))))


# ---------- input: the runs' held-out scores beside the truth, and the rows that fits look at.


MAX_FIT_ROWS = 50_000
"""Weights and strategies are fitted and compared on this many rows; more would not move them beyond their noise."""


def deal_parts(fold: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The parts that cross-fitting leaves out, int64 (N,): the folds, or halves of them where there are only two.

    What is tuned for part k is tuned on parts predicted without k and without themselves, so there must be a third.

    Raises: ValueError: fewer than three groups of rows that may be parted.
    """
    if fold.max() > 1:
        return fold
    names, member = np.unique(group, return_inverse=True)
    if len(names) < 3:
        raise UserError(f"the training file: {len(names)} distinct texts; a blend needs three or more to be scored on")
    in_fold = np.zeros(len(names), np.int64)
    in_fold[member] = fold
    rank = np.empty(len(names), np.int64)  # a group's number within its fold
    for k in (0, 1):
        rank[in_fold == k] = np.arange((in_fold == k).sum())
    return np.unique(2 * fold + rank[member] % 2, return_inverse=True)[1]


@dataclass(frozen=True)
class TestScores(Sequence):
    """A run's scores of the test rows, one fold's model at a time."""

    folds: Sequence[np.ndarray]
    """K tables float32 (n, L), logits or probabilities."""
    kind: str
    """`logits` or `probs`."""
    task: Task

    def __len__(self) -> int:
        return len(self.folds)

    def __getitem__(self, fold: int) -> np.ndarray:
        return self.task.to_scores(self.folds[fold], self.kind)


@dataclass(frozen=True)
class Runs:
    """Everything a blend is made from; N rows in training order."""

    names: tuple[str, ...]
    scores: Scores
    labels: np.ndarray
    """bool (N, L)."""
    fold: np.ndarray
    """int64 (N,): the folds the runs were trained on, or `deal_parts` of them."""
    group: np.ndarray
    """int64 (N,): rows that must not be parted."""

    def sample(self, n_rows: int, seed: int) -> "Runs":
        """Whole groups drawn at random, about `n_rows` rows of them; all rows where there are no more."""
        if len(self.labels) <= n_rows:
            return self
        groups = np.unique(self.group, return_inverse=True)[1]
        kept = np.random.default_rng(seed).random(groups.max() + 1) < n_rows / len(self.labels)
        rows = np.flatnonzero(kept[groups])
        scores = Scores([run[rows] for run in self.scores.runs])
        return Runs(self.names, scores, self.labels[rows], self.fold[rows], self.group[rows])

    def partitions(self, n_repeats: int, seed: int) -> list[Partition]:
        """folds/ itself first, then seeded draws of whole groups into as many parts."""
        n_parts, drawn = int(self.fold.max()) + 1, [Partition(self.fold)]
        groups = np.unique(self.group, return_inverse=True)[1]
        for repeat in range(1, n_repeats):
            order = np.random.default_rng([seed, repeat]).permutation(groups.max() + 1)
            drawn.append(Partition((order % n_parts)[groups]))
        return drawn
