"""Test texts against training texts: which are repeated, and how well a classifier tells the others apart.

A cross-fitted score holds for new texts of the same kind. Both findings say how far the test rows are that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foldblend.folding.duplicates import group_same

MOST_SAMPLED = 4_000
"""Texts of each file that the classifier learns; the standard error of its AUC is then below 0.007."""
N_PARTS = 3
"""Parts that it is cross-fitted on."""


class Compared(NamedTuple):
    """The fields of `scoring.validation.shift.TextComparison`."""

    auc: float
    error: float
    rows: np.ndarray
    train_scores: np.ndarray
    test_scores: np.ndarray
    n_repeats: int
    n_test: int


def compare_texts(train: Sequence[str], test: Sequence[str], seed: int = 0) -> Compared:
    """Count the test texts that are training texts, and tell the other ones apart from training texts.

    Repeated texts are counted but not classified: they are surely of the same kind, and would be in both classes.

    Args:    train, test: N and n texts; texts that differ in case, spaces or punctuation only are the same.
    Returns: `auc` 0.5 if there are too few texts to learn from.
    Source:  Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests".
    """
    same, _ = group_same([*train, *test])
    in_train, in_test = same[: len(train)], same[len(train) :]
    n_repeats = int(np.isin(in_test, in_train).sum())
    rng = np.random.default_rng(seed)
    rows, new = (_sample(ours, theirs, rng) for ours, theirs in ((in_train, in_test), (in_test, in_train)))
    if min(len(rows), len(new)) < 2 * N_PARTS:
        return Compared(0.5, 0.5, rows[:0], np.zeros(0), np.zeros(0), n_repeats, len(test))
    texts = [*(train[row] for row in rows), *(test[row] for row in new)]
    is_test = np.repeat([0, 1], [len(rows), len(new)])
    scores = _cross_fit(texts, is_test, rng)
    auc, error = _auc_and_error(scores[is_test == 0], scores[is_test == 1])
    return Compared(auc, error, rows, scores[is_test == 0], scores[is_test == 1], n_repeats, len(test))


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
