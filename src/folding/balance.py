"""Folding room: make folds more even by moving and swapping whole groups, until no single step helps.

Groups with the same counts (of each label, of rows) are interchangeable, so the search knows only how many groups of
each kind lie in each fold; it costs the same for a thousand rows as for a million of the same kinds.
"""

from itertools import combinations

import numpy as np
from scipy.sparse import csr_array

CANDIDATES = 256
"""Kinds a side that a step looks at, best first by what moving one alone would gain."""
MAX_STEPS = 20_000
"""Enough for a million rows; every step makes the folds strictly more even, so this only bounds the time."""


def balance(kinds: csr_array, counts: np.ndarray) -> np.ndarray:
    """Lower the sum over folds and columns of (count - ideal)^2 / ideal, where ideal is a column's total / n_folds.

    Args:   kinds: (S, C) int64; what one group of kind s adds to each column.
            counts: (S, K) int64; how many groups of each kind each fold has.
    Returns: (S, K) int64 with the same row sums.
    """
    counts = counts.copy()
    kinds = csr_array(kinds, dtype=np.float64)
    total = counts.sum(axis=1) @ kinds
    n_folds = counts.shape[1]
    weight = n_folds / np.maximum(total, 1)
    excess = counts.T @ kinds - total / n_folds  # (K, C)
    own = (kinds * kinds) @ weight  # (S,): half of what a move costs by itself
    idle, steps = 0, 0
    pairs = list(combinations(range(n_folds), 2))
    while idle < len(pairs) and steps < MAX_STEPS:
        step = _best_step(kinds, counts, weight, own, excess, *pairs[steps % len(pairs)])
        idle = 0 if step else idle + 1
        steps += 1
        if step:
            _take(step, kinds, counts, excess)
    return counts


def _best_step(kinds, counts, weight, own, excess, a: int, b: int):
    """The move or swap between folds a and b that gains most: (kind from a or -1, kind from b or -1, a, b)."""
    pull = kinds @ (weight * (excess[a] - excess[b]))
    from_a = _choose(own - pull, counts[:, a])
    from_b = _choose(own + pull, counts[:, b])
    shared = ((kinds[from_a] * weight) @ kinds[from_b].T).toarray()
    change = np.zeros((len(from_a) + 1, len(from_b) + 1))  # the last row and column stand for `nothing`
    change[:-1, :] += (own - pull)[from_a][:, None]
    change[:, :-1] += (own + pull)[from_b][None, :]
    change[:-1, :-1] -= 2 * shared
    i, j = np.unravel_index(np.argmin(change), change.shape)
    if change[i, j] > -1e-9:
        return None
    return (from_a[i] if i < len(from_a) else -1), (from_b[j] if j < len(from_b) else -1), a, b


def _choose(cost: np.ndarray, available: np.ndarray) -> np.ndarray:
    there = np.flatnonzero(available > 0)
    if len(there) <= CANDIDATES:
        return there
    return there[np.argpartition(cost[there], CANDIDATES)[:CANDIDATES]]


def _take(step, kinds, counts, excess) -> None:
    from_a, from_b, a, b = step
    for kind, source, target in ((from_a, a, b), (from_b, b, a)):
        if kind >= 0:
            counts[kind, source] -= 1
            counts[kind, target] += 1
            row = kinds[[kind]].toarray()[0]
            excess[source] -= row
            excess[target] += row
