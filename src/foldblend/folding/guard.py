"""Which folds a row from elsewhere may not teach: those whose held-out rows say the same, or nearly the same.

Rows of the competition are kept apart by duplicates.py, which joins all texts into groups. A row from elsewhere is
compared with every row of the competition directly: what is joined must not depend on how many other rows come along.
"""

from collections.abc import Sequence

import numpy as np

from foldblend.folding.duplicates import (
    ESTIMATE_SLACK,
    LEAST_OWN,
    NOTHING,
    PAIRS_AT_ONCE,
    PIECE,
    choose_rows_per_band,
    count_own,
    find_shared,
    group_same,
    group_texts,
    hash_bands,
    jaccard,
    min_hashes,
)

MOST_IN_BUCKET = 1024
"""Texts of the competition that one text is compared with for one bucket; buckets of pieces that few texts share are
far smaller."""


def find_known_folds(
    own: Sequence[str], fold: np.ndarray, n_folds: int, extra: Sequence[str], near_duplicates: float = 0.8
) -> np.ndarray:
    """Find for each extra text the folds that hold a row which says the same: these folds it must not teach.

    Texts say the same if they are equal after folding, or if the Jaccard similarity of their 5-character pieces is
    `near_duplicates` or more, as for `group_texts`. Extra texts that say the same know what any of them knows.

    Args:    own: N texts of the competition.   fold: int64 (N,), the fold of each, 0..n_folds-1.
             extra: n texts.   near_duplicates: 1.0 compares equal texts only.
    Returns: bool (n, n_folds).
    Example: find_known_folds(["Good day", "bad"], [0, 1], 2, ["good  day!", "new"]) -> [[True, False], [False, False]]
    """
    own_at, own_keys = group_same(list(own))
    known = np.zeros((len(own_keys), n_folds), bool)  # of each distinct text of the competition
    known[own_at, np.asarray(fold)] = True
    at, keys = group_same(list(extra))
    found = np.zeros((len(keys), n_folds), bool)
    position = {key: k for k, key in enumerate(own_keys)}
    for k, key in enumerate(keys):
        if key in position:
            found[k] = known[position[key]]
    if near_duplicates < 1:
        for extra_keys, of_own in _near_pairs(keys, own_keys, near_duplicates):
            np.logical_or.at(found, extra_keys, known[of_own])
        group = group_texts(keys, near_duplicates)
        of_group = np.zeros((int(group.max(initial=-1)) + 1, n_folds), bool)
        np.logical_or.at(of_group, group, found)
        found = of_group[group]
    return found[at]


def _near_pairs(keys: list[str], own_keys: list[str], threshold: float):
    """Yield pairs of positions, int64 (n,) each, of keys and own keys that are similar enough."""
    rows, own_rows = (
        np.array([k for k, key in enumerate(each) if len(key) >= PIECE], np.int64) for each in (keys, own_keys)
    )
    texts, own_texts = [keys[k] for k in rows], [own_keys[k] for k in own_rows]
    if not texts or not own_texts:
        return
    shared = find_shared(own_texts)  # what half of the competition's texts have says nothing, as in duplicates.py
    everything = slice(None)
    parts: list = [(everything, everything, NOTHING)]
    if len(shared):
        few, own_few = count_own(texts, shared) < LEAST_OWN, count_own(own_texts, shared) < LEAST_OWN
        # a text with hardly a piece of its own is compared by all pieces, with every text
        parts = [(~few, ~own_few, shared), (few, everything, NOTHING), (~few, own_few, NOTHING)]
    for part, own_part, ignored in parts:
        some, own_some = np.arange(len(texts))[part], np.arange(len(own_texts))[own_part]
        left, right = [texts[k] for k in some], [own_texts[k] for k in own_some]
        for a, b in _join_across(left, right, threshold, ignored):
            yield rows[some[a]], own_rows[own_some[b]]


def _join_across(left: list[str], right: list[str], threshold: float, ignored: np.ndarray):
    """Yield pairs (positions in left, positions in right) whose Jaccard similarity is at least `threshold`."""
    if not left or not right:
        return
    least, own_least = min_hashes(left, ignored), min_hashes(right, ignored)
    both, n_left, per_band = [*left, *right], len(left), choose_rows_per_band(threshold)
    seen = np.zeros(0, np.int64)  # pairs that were judged in an earlier band, as one number each
    for bucket, own_bucket in zip(hash_bands(least, per_band), hash_bands(own_least, per_band), strict=True):
        pairs = np.unique(np.concatenate([a * len(right) + b for a, b in _same_bucket(bucket, own_bucket)]))
        pairs = np.setdiff1d(pairs, seen, assume_unique=True)
        seen = np.union1d(seen, pairs)
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            a, b = np.divmod(pairs[start : start + PAIRS_AT_ONCE], len(right))
            likely = (least[a] == own_least[b]).mean(axis=1) >= threshold - ESTIMATE_SLACK
            a, b = a[likely], b[likely]
            if len(a):
                near = jaccard(both, a, n_left + b, ignored) >= threshold
                yield a[near], b[near]


def _same_bucket(bucket: np.ndarray, own_bucket: np.ndarray):
    """Yield pairs of positions whose buckets are equal, one per text of the left at a time."""
    order = np.argsort(own_bucket, kind="stable")
    ordered = own_bucket[order]
    first, last = ordered.searchsorted(bucket, "left"), ordered.searchsorted(bucket, "right")
    yield np.zeros(0, np.int64), np.zeros(0, np.int64)
    for step in range(min(int((last - first).max(initial=0)), MOST_IN_BUCKET)):
        here = np.flatnonzero(first + step < last)
        yield here, order[first[here] + step]


def find_contradictions(
    own: Sequence[str], own_labels: np.ndarray, extra: Sequence[str], extra_labels: np.ndarray
) -> np.ndarray:
    """Find extra rows with the text of one of the competition's rows and other labels.

    Args:    own_labels: bool (N, L).   extra_labels: float32 (n, L), shares with nan for unknown ones, which agree.
    Returns: int64, positions of the extra rows, rising.
    """
    same, _ = group_same([*own, *extra])
    known = ~np.isnan(extra_labels)
    wanted = np.where(known, np.nan_to_num(extra_labels) >= 0.5, False)
    first = np.full(int(same.max(initial=-1)) + 1, -1, np.int64)
    first[same[: len(own)][::-1]] = np.arange(len(own))[::-1]  # the first row of each text
    of_own = first[same[len(own) :]]
    there = np.flatnonzero(of_own >= 0)
    differs = ((own_labels[of_own[there]] != wanted[there]) & known[there]).any(axis=1)
    return there[differs]
