"""The scoring room's partitions: which rows a fit may see when row, fold and inner fold are left out in turn.

Cross-fitting leaves out part k; whatever is tuned for part k (a strength, a cut-off) is tuned on predictions that leave
out part k and, in turn, each other part j. {k, j} serves k as well as j, so P parts need 1 + P + P (P - 1) / 2 fits.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np


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
