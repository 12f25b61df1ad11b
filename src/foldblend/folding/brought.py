"""Groups and folds that the user brings, joined with the groups of texts that say the same."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foldblend.folding.duplicates import number_groups


def join_groups(of_texts: np.ndarray, of_user: Sequence[str] | np.ndarray) -> np.ndarray:
    """Groups that keep rows together if either says so: int64 (N,), numbered by their first row.

    Args:    of_texts: int64 (N,) of `group_texts`.   of_user: N names; an empty one is a row by itself.
    Example: join_groups([0, 1, 0, 2], ["ann", "ann", "bob", ""]) -> [0, 0, 0, 1]
    """
    names = [name or f"\0{row}" for row, name in enumerate(map(str, of_user))]  # \0 stands in no cell
    user = np.unique(names, return_inverse=True)[1]
    n, n_texts = len(user), int(np.max(of_texts, initial=-1)) + 1
    rows = np.arange(n)
    edges = np.concatenate([rows, rows]), np.concatenate([n + of_texts, n + n_texts + user])
    size = n + n_texts + int(np.max(user, initial=-1)) + 1
    graph = coo_array((np.ones(2 * n, bool), edges), shape=(size, size))
    return number_groups(connected_components(graph, directed=False)[1][:n])


def split_by_fold(group: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups within folds that were given, and the rows whose group these folds tear apart.

    Args:    group, fold: int64 (N,).
    Returns: group int64 (N,), none in two folds, numbered by their first row; torn int64, rising.
    """
    first = np.unique(group, return_index=True)[1]  # groups are numbered 0..G-1
    torn_groups = np.unique(group[fold != fold[first][group]])
    inside = np.unique(np.stack([group, fold]), axis=1, return_inverse=True)[1].reshape(-1)
    return number_groups(inside), np.flatnonzero(np.isin(group, torn_groups))
