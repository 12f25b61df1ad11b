"""Folding room: texts as sets of hashed character pieces, and how alike two such sets are; all in numpy."""

import numpy as np
from scipy.sparse import csr_array

PIECE = 5
"""Characters a piece: what MMDS ch. 3.2.2 advises for short texts."""
CHUNK_CHARACTERS = 1 << 18
"""Characters hashed at once; bounds the memory whatever the number of texts."""


def hash_pieces(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of all 5-character pieces of each text.

    Args:   texts: each at least 5 characters long.
    Returns: uint64 (n_pieces,), the pieces of text 0, then of text 1, ...; int64 (n,), where each text's pieces start.
    Source:  rolling polynomial (Karp, Rabin 1987), finished by splitmix64 (Steele et al. 2014).
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    hashes = np.zeros(len(codes) - PIECE + 1, dtype=np.uint64)
    for offset in range(PIECE):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += codes[offset : offset + len(hashes)]
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)
    for offset in range(1, PIECE):
        inside[ends - offset] = False  # a piece that starts here would reach into the next text
    counts = lengths - PIECE + 1
    return _mix(hashes[inside[: len(hashes)]]), np.cumsum(counts) - counts


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def split_chunks(lengths: np.ndarray, chunk: int = CHUNK_CHARACTERS) -> list[slice]:
    """Runs of neighbours that have at most `chunk` characters together after the first text of the run."""
    if not len(lengths):
        return []
    number = np.cumsum(lengths) // chunk
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(lengths)])]


def jaccard(texts: list[str], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Jaccard similarity of the sets of pieces of pairs of texts.

    Args:   texts: each at least 5 characters long.   left, right: (n_pairs,) int64 positions in `texts`.
    Returns: float64 (n_pairs,), |A and B| / |A or B|; exact as far as 64-bit hashes of different pieces differ.
    """
    involved, member = np.unique(np.concatenate([left, right]), return_inverse=True)
    hashes, starts = hash_pieces([texts[i] for i in involved])
    _, column = np.unique(hashes, return_inverse=True)
    sets = csr_array((np.ones(len(hashes), np.float32), column, np.append(starts, len(hashes))))
    sets.sum_duplicates()
    sets.data[:] = 1
    sizes = np.diff(sets.indptr)
    a, b = member[: len(left)], member[len(left) :]
    common = sets[a].multiply(sets[b]).sum(axis=1)
    return common / (sizes[a] + sizes[b] - common)
