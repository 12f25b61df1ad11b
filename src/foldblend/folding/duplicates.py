"""Which texts say the same: groups that no fold tears apart.

Near duplicates are found by MinHash and banding (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive
Datasets, ch. 3), every found pair is verified exactly, and pairs are joined into groups. Texts are compared by what
they do not share with many others: a form letter or a question that stands in every row makes no two rows the same.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

# ---------- exact duplicates: texts that are equal without case, spaces, punctuation, links and names.


LINK, NAME, RAW = "\ue000", "\ue001", "\ue002"
"""Private characters: what a link and an @mention become, and the mark of a text kept as it is."""
LINK_OR_NAME = re.compile(r"(?P<link>(?:https?://|www\.)\S+)|(?<!\w)@\w+", re.IGNORECASE)
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


class _Dropped(dict):
    """Table for str.translate, filled as characters are met: None for those that are dropped; emoji are kept."""

    def __missing__(self, code: int):
        character = chr(code)
        kind = unicodedata.category(character)
        # as < > + = ~: they decorate; symbols beyond ASCII are emoji, which carry meaning
        ascii_symbol = kind[0] == "S" and code < 128
        dropped = kind[0] in "PZ" or kind in ("Cc", "Cf") or ascii_symbol or code in VARIATION_SELECTORS
        self[code] = None if dropped else code
        return self[code]


DROPPED = _Dropped()


def fold_text(text: str) -> str:
    """Fold case (full Unicode), compatibility forms, links and @mentions; drop spaces, punctuation and controls.

    Example: fold_text("So  HAPPY!! @bob https://t.co/x") == fold_text("so happy... @Ann www.a.com")
    A text of which nothing but links and names is left is kept as written: two lone links are not one text.
    Source:  Unicode TR 15 and 3.13 (NFKC_Casefold).
    """
    # shortened links differ in every copy of a text, and so do the people it is sent to
    shortened = text
    if "@" in text or "://" in text or "www." in text.lower():  # few texts have any, and the search is the longest step
        shortened = LINK_OR_NAME.sub(lambda found: LINK if found["link"] else NAME, text)
    folded = shortened if shortened.isascii() else unicodedata.normalize("NFKC", shortened)
    folded = folded.casefold()
    folded = folded if folded.isascii() else unicodedata.normalize("NFKC", folded)  # casefold may need a second NFKC
    key = folded.translate(DROPPED)
    return key if key.strip(LINK + NAME) else RAW + text.strip()


def group_same(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """Group texts that fold to the same.

    Returns: int64 (N,), the position of each text's key in the sorted keys; and these keys, which are the same in
             whatever order the texts come.
    """
    keys = [fold_text(text) for text in texts]
    distinct = sorted(set(keys))
    position = {key: number for number, key in enumerate(distinct)}
    return np.fromiter((position[key] for key in keys), dtype=np.int64, count=len(keys)), distinct


def find_conflicts(same: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Rows of every text that appears with different labels.

    Args:    same: int64 (N,) of `group_same`.   labels: bool (N, L).
    Returns: per text an int64 (n,) array of its rows, in the order of their first rows.
    """
    order = np.argsort(same, kind="stable")
    borders = np.flatnonzero(np.diff(same[order])) + 1
    groups = np.split(order, borders)
    conflicts = [rows for rows in groups if len(rows) > 1 and (labels[rows] != labels[rows[0]]).any()]
    return sorted(conflicts, key=lambda rows: int(rows[0]))


# ---------- texts as sets of hashed character pieces, and how similar two such sets are; all in numpy.


PIECE = 5
"""Characters per piece: what MMDS ch. 3.2.2 advises for short texts."""
CHUNK_CHARACTERS = 1 << 18
"""Characters hashed at once; bounds the memory whatever the number of texts."""


def hash_pieces(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of all 5-character pieces of each text.

    Args:    texts: each at least 5 characters long.
    Returns: uint64 (n_pieces,), the pieces of text 0, then of text 1, ...; int64 (n,), where each text's pieces start.
    Source:  rolling polynomial (Karp, Rabin 1987), finished by splitmix64 (Steele et al. 2014).
    """
    # four bytes per character, so that one array holds all characters of all texts
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    hashes = np.zeros(len(codes) - PIECE + 1, dtype=np.uint64)  # of the texts joined: one loop of 5, not one per text
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


NOTHING = np.zeros(0, np.uint64)


def jaccard(texts: list[str], left: np.ndarray, right: np.ndarray, ignored: np.ndarray = NOTHING) -> np.ndarray:
    """Jaccard similarity of the sets of pieces of pairs of texts.

    Args:    texts: each at least 5 characters long.   left, right: int64 (n_pairs,), positions in `texts`.
             ignored: uint64, rising: hashes of pieces that do not count; every text must have others.
    Returns: float64 (n_pairs,), |A and B| / |A or B|; exact as far as 64-bit hashes of different pieces differ.
    """
    involved, member = np.unique(np.concatenate([left, right]), return_inverse=True)
    hashes, starts = without_pieces(*hash_pieces([texts[i] for i in involved]), ignored)
    _, column = np.unique(hashes, return_inverse=True)
    sets = csr_array((np.ones(len(hashes), np.float32), column, np.append(starts, len(hashes))))
    sets.sum_duplicates()
    # a piece that comes twice counts once: these are sets
    sets.data[:] = 1
    sizes = np.diff(sets.indptr)
    a, b = member[: len(left)], member[len(left) :]
    # (n_pairs,)
    common = sets[a].multiply(sets[b]).sum(axis=1)
    return common / (sizes[a] + sizes[b] - common)


def without_pieces(hashes: np.ndarray, starts: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and starts, as of `hash_pieces`, without the ignored ones, which are rising."""
    if not len(ignored):
        return hashes, starts
    # a binary search in the rising list; np.isin would sort all hashes
    at = np.minimum(ignored.searchsorted(hashes), len(ignored) - 1)
    kept = ignored[at] != hashes
    return hashes[kept], np.r_[0, np.cumsum(kept)][starts]


# ---------- near duplicates: MinHash, bands, verification, groups.


PERMUTATIONS = 64
WANTED_RECALL = 0.999
"""Chance that a pair exactly at the threshold shares a band and is compared."""
NEIGHBOURS = 24
"""In a bucket a text is compared with this many next ones in alphabetical order: all pairs of a small bucket, and only
linear work in a large one, as a common template makes it."""
ESTIMATE_SLACK = 0.25
"""Pairs whose estimated similarity is this far below the threshold are not verified: 4 standard errors or more, as an
estimate from 64 hash functions has a standard error of at most sqrt(0.25 / 64) = 0.0625."""
PAIRS_AT_ONCE, CHARACTERS_AT_ONCE = 1 << 16, 1 << 22
"""Pairs that are estimated, and characters that are verified, in one step; they bound the memory."""


def group_texts(texts: list[str], near_duplicates: float = 0.8) -> np.ndarray:
    """Number the groups of rows whose texts are the same or nearly the same.

    Args:    near_duplicates: two texts are one group if the Jaccard similarity of the 5-character pieces of their
             folded texts is at least this; 1.0 joins exact duplicates (after folding) only. Pieces that stand in half
             of the texts or more do not count.
    Returns: int64 (N,), groups numbered by their first row.
    Example: group_texts(["Good morning!", "good  morning", "bad night"]) -> [0, 0, 1]
    """
    same, keys = group_same(texts)
    joined = _join_near(keys, near_duplicates) if near_duplicates < 1 else np.arange(len(keys))
    return number_groups(joined[same])


def number_groups(member: np.ndarray) -> np.ndarray:
    """The same groups, numbered by their first row: int64 (N,)."""
    _, first, group = np.unique(member, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[group]


LARGEST_SHARE, LARGEST_GROUP = 0.02, 20
"""A group of near duplicates with more than this share of the texts, and more texts than this, is compared again by
what its own texts do not share: it comes from a text that stands in all of them, or from a chain of small steps."""
STRICTER = (0.9, 0.95)
"""Thresholds for a group that is still so large."""


def _join_near(keys: list[str], threshold: float) -> np.ndarray:
    """Component (n_keys,) of each key under `similar enough`; keys shorter than one piece stay alone."""
    # Keys are sorted, so positions in `texts` are alphabetical, which `_candidates` relies on.
    long = np.array([i for i, key in enumerate(keys) if len(key) >= PIECE], dtype=np.int64)
    texts = [keys[i] for i in long]
    component = _join_by_own(texts, threshold, find_shared(texts))
    # chains: a is near b and b near c, so single steps may join texts that have little in common
    most = max(LARGEST_GROUP, LARGEST_SHARE * len(keys))
    for large in np.flatnonzero(np.bincount(component, minlength=1) > most):
        members = np.flatnonzero(component == large)
        component[members] = component.max() + 1 + _split_large([texts[i] for i in members], threshold, most)
    joined = np.arange(len(keys))
    _, first, member = np.unique(component, return_index=True, return_inverse=True)
    joined[long] = long[first[member]]
    return joined


def _split_large(texts: list[str], threshold: float, most: float) -> np.ndarray:
    """Component (n,) of the texts of one large group, compared by what they do not share, then more strictly.

    Texts with hardly a piece beside the shared ones are copies with small changes, and stay together.
    """
    shared, component = find_shared(texts), np.zeros(len(texts), np.int64)
    rows = np.flatnonzero(count_own(texts, shared) >= LEAST_OWN)
    own = [texts[row] for row in rows]
    for wanted in (threshold, *(each for each in STRICTER if each > threshold)):
        component[rows] = 1 + _join(own, wanted, shared)
        if np.bincount(component[rows], minlength=1).max() <= most:
            break
    return component


SHARED_BY = 0.5
"""A piece that stands in this share of the texts says nothing about which of them are the same."""
FEWEST_TEXTS, SAMPLED_TEXTS = 12, 2_000
"""Of fewer texts half may well be copies; of more, a sample says what they share."""
LEAST_OWN = 12
"""Pieces of its own that a text must have to be compared by them: more than one changed word gives. Texts with fewer
are copies of what is shared, with small changes."""


def find_shared(texts: list[str]) -> np.ndarray:
    """Hashes, uint64 and rising, of the pieces that at least half of the texts have."""
    if len(texts) < FEWEST_TEXTS:
        return NOTHING
    # a fixed seed: groups depend on the texts alone, not on the seed of the folds
    rows = np.random.default_rng(1997).permutation(len(texts))[:SAMPLED_TEXTS]
    hashes, starts = hash_pieces([texts[row] for row in rows])
    once = [np.unique(part) for part in np.split(hashes, starts[1:])]
    values, counts = np.unique(np.concatenate(once), return_counts=True)
    return values[counts >= SHARED_BY * len(rows)]


def _join_by_own(texts: list[str], threshold: float, shared: np.ndarray) -> np.ndarray:
    """Component (n,) of each text, numbered from 0; pieces of `shared` do not count.

    Texts with hardly a piece beside the shared ones are compared with each other, by all pieces.
    """
    if not len(shared):
        return _join(texts, threshold, NOTHING)
    own = count_own(texts, shared)
    component = np.empty(len(texts), np.int64)
    for first, part, ignored in ((0, own >= LEAST_OWN, shared), (len(texts), own < LEAST_OWN, NOTHING)):
        rows = np.flatnonzero(part)
        component[rows] = first + _join([texts[row] for row in rows], threshold, ignored)
    return np.unique(component, return_inverse=True)[1]


def count_own(texts: list[str], shared: np.ndarray) -> np.ndarray:
    """How many different pieces each text has beside the shared ones, int64 (n,)."""
    counts = []
    for chunk in split_chunks(_lengths(texts)):
        hashes, starts = without_pieces(*hash_pieces(texts[chunk]), shared)
        counts += [len(np.unique(part)) for part in np.split(hashes, starts[1:])]
    return np.array(counts, np.int64)


def _lengths(texts: list[str]) -> np.ndarray:
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def _join(texts: list[str], threshold: float, ignored: np.ndarray) -> np.ndarray:
    """Component (n,) of each text, numbered from 0, under a Jaccard similarity of at least `threshold`."""
    least = min_hashes(texts, ignored)
    component = np.arange(len(texts))
    edges = [np.empty((2, 0), dtype=np.int64)]
    for bucket in hash_bands(least, choose_rows_per_band(threshold)):
        for pairs in _candidates(bucket):
            new = component[pairs[0]] != component[pairs[1]]  # pairs already joined need no verifying
            near = [*_verify(texts, least, pairs[:, new], threshold, ignored)]
            if near:
                edges += near
                component = _components(np.concatenate(edges, axis=1), len(texts))
    return component


def _verify(texts: list[str], least: np.ndarray, pairs: np.ndarray, threshold: float, ignored: np.ndarray):
    """Yield those of the pairs (2, n) that reach the threshold, in portions: by estimate first, which is cheap."""
    for start in range(0, pairs.shape[1], PAIRS_AT_ONCE):
        part = pairs[:, start : start + PAIRS_AT_ONCE]
        # the share of equal minima estimates the Jaccard similarity without bias (Broder 1997)
        estimate = (least[part[0]] == least[part[1]]).mean(axis=1)
        part = part[:, estimate >= threshold - ESTIMATE_SLACK]
        lengths = np.fromiter((len(texts[a]) + len(texts[b]) for a, b in part.T), dtype=np.int64, count=part.shape[1])
        for chunk in split_chunks(lengths, CHARACTERS_AT_ONCE):
            near = part[:, chunk][:, jaccard(texts, *part[:, chunk], ignored) >= threshold]
            if near.size:
                yield near


def choose_rows_per_band(threshold: float) -> int:
    """The longest band that still finds a pair at the threshold with the wanted chance: long bands compare fewer pairs.

    A pair with similarity s agrees in a band of r rows with chance s^r, so it shares one of b bands with chance
    1 - (1 - s^r)^b (MMDS ch. 3.4.2).
    """
    # longer bands than 8 would miss pairs at any threshold in use
    for rows in range(8, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= WANTED_RECALL:
            return rows
    return 1


def min_hashes(texts: list[str], ignored: np.ndarray = NOTHING) -> np.ndarray:
    """uint32 (n, PERMUTATIONS): per text the least value of each of 64 hash functions over its pieces.

    Args: ignored: pieces that do not count; every text must have others.
    """
    rng = np.random.default_rng(1997)  # it chooses the functions only; which texts are near is verified exactly
    factor = rng.integers(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * 2 + 1
    shift = rng.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
    least = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for chunk in split_chunks(_lengths(texts)):
        hashes, starts = without_pieces(*hash_pieces(texts[chunk]), ignored)
        # multiply-shift on 32 bits: half the memory traffic, and collisions only make candidates, which are verified
        short = (hashes >> np.uint64(32)).astype(np.uint32)
        for k in range(PERMUTATIONS):
            # the minimum over each text's own pieces, for all texts of the chunk at once
            least[chunk, k] = np.minimum.reduceat(short * factor[k] + shift[k], starts)
    return least


def hash_bands(least: np.ndarray, rows: int):
    """Yield per band a bucket number uint64 (n,): equal for texts whose values of the band are all equal."""
    for start in range(0, PERMUTATIONS - rows + 1, rows):
        bucket = np.zeros(len(least), dtype=np.uint64)
        for value in least[:, start : start + rows].T:
            bucket = (bucket ^ value) * np.uint64(0x9E3779B97F4A7C15)
            bucket ^= bucket >> np.uint64(29)
        yield bucket


def _candidates(bucket: np.ndarray):
    """Yield pairs (2, n) of texts that share a bucket; texts are numbered alphabetically, so neighbours are similar."""
    order = np.argsort(bucket, kind="stable")
    bucket = bucket[order]
    for distance in range(1, NEIGHBOURS + 1):
        here = np.flatnonzero(bucket[distance:] == bucket[:-distance])
        yield np.stack([order[here], order[here + distance]])


def _components(edges: np.ndarray, n: int) -> np.ndarray:
    """Connected component int64 (n,) of each text; edges (2, n_edges)."""
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), (edges[0], edges[1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


# ---------- groups and folds that the user brings, joined with the groups of texts that say the same.


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
