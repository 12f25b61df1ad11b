"""Texts of other files against the training texts: what an extra row may not teach, and how far the test texts are.

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
from foldblend.predictions import TextComparison

# ---------- Which folds an extra row may not teach: those whose held-out rows say the same, or nearly


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


# ---------- test texts against training texts: which are repeated, and how well a classifier tells the others apart.
#
# A cross-fitted score holds for new texts of the same kind. Both findings say how far the test rows are that.


MOST_SAMPLED = 4_000
"""Texts of each file that the classifier learns; the standard error of its AUC is then below 0.007."""
N_PARTS = 3
"""Parts that it is cross-fitted on."""


def compare_texts(
    train: Sequence[str], test: Sequence[str], seed: int = 0, same: np.ndarray | None = None
) -> TextComparison:
    """Count the test texts that are training texts, and tell the other ones apart from training texts.

    Repeated texts are counted but not classified: they are surely of the same kind, and would be in both classes.

    Args:    train, test: N and n texts; texts that differ in case, spaces or punctuation only are the same.
             same: of `group_same([*train, *test])`, if it is known.
    Returns: `auc` 0.5 if there are too few texts to learn from.
    Source:  Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests".
    """
    same = group_same([*train, *test])[0] if same is None else same
    in_train, in_test = same[: len(train)], same[len(train) :]
    n_repeats = int(np.isin(in_test, in_train).sum())
    rng = np.random.default_rng(seed)
    rows, new = (_sample(ours, theirs, rng) for ours, theirs in ((in_train, in_test), (in_test, in_train)))
    if min(len(rows), len(new)) < 2 * N_PARTS:
        return TextComparison(0.5, 0.5, rows[:0], np.zeros(0), np.zeros(0), n_repeats, len(test))
    texts = [*(train[row] for row in rows), *(test[row] for row in new)]
    is_test = np.repeat([0, 1], [len(rows), len(new)])
    scores = _cross_fit(texts, is_test, rng)
    auc, error = _auc_and_error(scores[is_test == 0], scores[is_test == 1])
    return TextComparison(auc, error, rows, scores[is_test == 0], scores[is_test == 1], n_repeats, len(test))


def find_repeats(train: Sequence[str], test: Sequence[str], same: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Test rows whose text is in the training file, each with the first training row that has it.

    Args: same: as in `compare_texts`.
    """
    same = group_same([*train, *test])[0] if same is None else same
    first = {key: row for row, key in reversed(list(enumerate(same[: len(train)].tolist())))}
    return [(row, first[key]) for row, key in enumerate(same[len(train) :].tolist()) if key in first]


def find_telling_words(
    train: Sequence[str], test: Sequence[str], n_words: int = 20, seed: int = 0, same: np.ndarray | None = None
) -> list[tuple[str, float, float]]:
    """The words by which the classifier of `compare_texts` tells test texts from training texts.

    Args:    same: as in `compare_texts`.
    Returns: words, those with the largest weights of either sign first, each with the shares of sampled training
             texts and test texts that have it; none if there are too few texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    same = group_same([*train, *test])[0] if same is None else same
    in_train, in_test = same[: len(train)], same[len(train) :]
    rng = np.random.default_rng(seed)
    rows, new = (_sample(ours, theirs, rng) for ours, theirs in ((in_train, in_test), (in_test, in_train)))
    if min(len(rows), len(new)) < 2 * N_PARTS:
        return []
    texts = [*(train[row] for row in rows), *(test[row] for row in new)]
    is_test = np.repeat([False, True], [len(rows), len(new)])
    vectorizer = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True, min_df=max(2, len(texts) // 1000))
    try:
        features = vectorizer.fit_transform(texts).tocsr()
    except ValueError:  # no word stands in enough texts
        return []
    model = LogisticRegression(C=1.0, class_weight="balanced", solver="liblinear", random_state=0)
    weights = model.fit(features, is_test).coef_[0]
    shares = [features[part].getnnz(axis=0) / part.sum() for part in (~is_test, is_test)]
    # a weight counts as often as its word comes: a rare word may have a large one by chance
    order = np.argsort(-np.abs(weights) * np.sqrt(shares[0] + shares[1]), kind="stable")[:n_words]
    names = vectorizer.get_feature_names_out()
    return [(str(names[k]), float(shares[0][k]), float(shares[1][k])) for k in order]


def _sample(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows int64, rising: one of each text that the other file does not have, at most MOST_SAMPLED."""
    first = np.unique(ours, return_index=True)[1]
    own = first[~np.isin(ours[first], theirs)]
    return np.sort(rng.permutation(own)[:MOST_SAMPLED])


def _cross_fit(texts: list[str], is_test: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much each text is taken for a test text by a model that did not see it, float64 (n,)."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second to load
    from sklearn.linear_model import LogisticRegression

    part = np.empty(len(texts), np.int64)
    for which in (0, 1):
        rows = rng.permutation(np.flatnonzero(is_test == which))
        part[rows] = np.arange(len(rows)) % N_PARTS
    try:
        features = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True, min_df=2).fit_transform(texts)
    except ValueError:  # no word stands in two texts
        return np.zeros(len(texts))
    scores = np.empty(len(texts))
    for k in range(N_PARTS):
        held = part == k
        model = LogisticRegression(C=1.0, class_weight="balanced", solver="liblinear", random_state=0)
        scores[held] = model.fit(features[~held], is_test[~held]).decision_function(features[held])
    return scores


def _auc_and_error(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """AUC and its standard error. Source: DeLong et al. 1988, placement values."""

    def share_below(values, ordered):
        return (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right")) / (2 * len(ordered))

    placed_high, placed_low = share_below(high, np.sort(low)), share_below(low, np.sort(high))
    error = np.sqrt(placed_high.var(ddof=1) / len(high) + placed_low.var(ddof=1) / len(low))
    return float(placed_high.mean()), float(error)
