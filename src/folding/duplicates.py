"""Folding room: which rows say the same, so that no text is both learnt and held out.

Near duplicates are found by MinHash and banding (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive
Datasets, ch. 3), every found pair is verified exactly, and pairs are joined into groups.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from folding.shingles import PIECE, hash_pieces, jaccard, split_chunks
from folding.texts import group_same

PERMUTATIONS = 64
WANTED_RECALL = 0.999
"""Chance that a pair exactly at the threshold shares a band and is compared."""
NEIGHBOURS = 24
"""In a bucket a text is compared with this many next ones in alphabetical order: all pairs of small buckets, and linear
work in a bucket that a common template fills."""
ESTIMATE_SLACK = 0.25
"""Pairs whose estimated similarity is this far below the threshold are not verified: 4 standard errors or more."""
PAIRS_AT_ONCE, CHARACTERS_AT_ONCE = 1 << 16, 1 << 22
"""Of the pairs estimated and verified in one step; they bound the memory."""


def group_texts(texts: list[str], near_duplicates: float = 0.8) -> np.ndarray:
    """Number the groups of rows whose texts are the same or nearly the same.

    Args:   near_duplicates: Jaccard similarity of 5-character pieces of the folded texts from which two texts are one
            group; 1.0 joins exact duplicates (after folding) only.
    Returns: int64 (N,), groups numbered by their first row.
    Example: group_texts(["Good morning!", "good  morning", "bad night"]) -> [0, 0, 1]
    """
    same, keys = group_same(texts)
    joined = _join_near(keys, near_duplicates) if near_duplicates < 1 else np.arange(len(keys))
    _, first, group = np.unique(joined[same], return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[group]


def _join_near(keys: list[str], threshold: float) -> np.ndarray:
    """Component (n_keys,) of each key under `similar enough`; keys shorter than one piece stay alone."""
    long = np.array([i for i, key in enumerate(keys) if len(key) >= PIECE], dtype=np.int64)
    texts = [keys[i] for i in long]
    least = _min_hashes(texts)
    component = np.arange(len(texts))
    edges = [np.empty((2, 0), dtype=np.int64)]
    for bucket in _hash_bands(least, _choose_rows_per_band(threshold)):
        for pairs in _candidates(bucket):
            new = component[pairs[0]] != component[pairs[1]]
            near = [*_verify(texts, least, pairs[:, new], threshold)]
            if near:
                edges += near
                component = _components(np.concatenate(edges, axis=1), len(texts))
    joined = np.arange(len(keys))
    joined[long] = long[np.unique(component, return_index=True)[1][component]]
    return joined


def _verify(texts: list[str], least: np.ndarray, pairs: np.ndarray, threshold: float):
    """Those of the pairs (2, n) that are at least so alike, in portions: by estimate first, which is cheap."""
    for start in range(0, pairs.shape[1], PAIRS_AT_ONCE):
        part = pairs[:, start : start + PAIRS_AT_ONCE]
        estimate = (least[part[0]] == least[part[1]]).mean(axis=1)
        part = part[:, estimate >= threshold - ESTIMATE_SLACK]
        lengths = np.fromiter((len(texts[a]) + len(texts[b]) for a, b in part.T), dtype=np.int64, count=part.shape[1])
        for chunk in split_chunks(lengths, CHARACTERS_AT_ONCE):
            near = part[:, chunk][:, jaccard(texts, *part[:, chunk]) >= threshold]
            if near.size:
                yield near


def _choose_rows_per_band(threshold: float) -> int:
    """The longest band that still finds a pair at the threshold with the wanted chance; long bands compare less."""
    for rows in range(8, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= WANTED_RECALL:
            return rows
    return 1


def _min_hashes(texts: list[str]) -> np.ndarray:
    """uint32 (n, PERMUTATIONS): per text the least value of each of 64 hash functions over its pieces."""
    rng = np.random.default_rng(1997)  # of the functions only; which texts are near is verified exactly
    factor = rng.integers(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * 2 + 1
    shift = rng.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
    least = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for chunk in split_chunks(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))):
        hashes, starts = hash_pieces(texts[chunk])
        short = (hashes >> np.uint64(32)).astype(np.uint32)
        for k in range(PERMUTATIONS):
            least[chunk, k] = np.minimum.reduceat(short * factor[k] + shift[k], starts)
    return least


def _hash_bands(least: np.ndarray, rows: int):
    """For each band a bucket number (n,) uint64: equal where all values of the band are equal."""
    for start in range(0, PERMUTATIONS - rows + 1, rows):
        bucket = np.zeros(len(least), dtype=np.uint64)
        for value in least[:, start : start + rows].T:
            bucket = (bucket ^ value) * np.uint64(0x9E3779B97F4A7C15)
            bucket ^= bucket >> np.uint64(29)
        yield bucket


def _candidates(bucket: np.ndarray):
    """Pairs (2, n) of texts that share a bucket; texts are numbered alphabetically, so neighbours are alike."""
    order = np.argsort(bucket, kind="stable")
    bucket = bucket[order]
    for distance in range(1, NEIGHBOURS + 1):
        here = np.flatnonzero(bucket[distance:] == bucket[:-distance])
        yield np.stack([order[here], order[here + distance]])


def _components(edges: np.ndarray, n: int) -> np.ndarray:
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), (edges[0], edges[1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]
