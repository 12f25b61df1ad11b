"""Word and character n-grams: counted once for all folds, chosen and weighed on each fold's training rows."""

from functools import cached_property

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from settings.run import TfidfSettings


class Ngrams:
    """Counts of every n-gram of every text. A fold takes those n-grams that its training rows have often enough."""

    def __init__(self, texts: tuple[str, ...], settings: TfidfSettings):
        self.texts, self.settings = texts, settings

    @cached_property
    def counts(self) -> list[sp.csr_matrix]:
        """float32 (n_texts, n-grams) for words and for character pieces inside words, less the one that is off."""
        return [vectorizer.fit_transform(self.texts) for vectorizer in build_counters(self.settings)]

    def tfidf(self, train: np.ndarray, *others: np.ndarray) -> list[sp.csr_matrix]:
        """TF-IDF of the training rows and of each of `others`, float32 (n, D).

        Each equals TfidfVectorizer's, fitted on the training rows alone.
        Args:   train, others: int64 positions in `texts`.
        Raises: ValueError: no n-gram stands in `min_rows` training rows.
        """
        blocks = []
        for taught, *rest in self._kept(train, others):
            weigh = TfidfTransformer(sublinear_tf=True).fit(taught)
            blocks.append([weigh.transform(part) for part in (taught, *rest)])
        return [sp.hstack(part, format="csr") for part in zip(*blocks, strict=True)]

    def presence(self, train: np.ndarray, *others: np.ndarray) -> list[sp.csr_matrix]:
        """As `tfidf`: 1 where an n-gram stands in a text, however often."""
        parts = [sp.hstack(part, format="csr") for part in zip(*self._kept(train, others), strict=True)]
        for part in parts:
            part.data[:] = 1
        return parts

    def _kept(self, train: np.ndarray, others: tuple[np.ndarray, ...]) -> list[list[sp.csr_matrix]]:
        """[kind of n-gram][part of the rows] -> counts of those n-grams that the training rows keep."""
        kept = [choose_columns(counts[train], self.settings) for counts in self.counts]
        if not any(map(len, kept)):
            raise ValueError(
                f"tfidf.min_rows is {self.settings.min_rows}, and no n-gram stands in that many of {len(train)} "
                "training rows; lower it"
            )
        pairs = [(counts, columns) for counts, columns in zip(self.counts, kept, strict=True) if len(columns)]
        return [[_take(counts, rows, columns) for rows in (train, *others)] for counts, columns in pairs]


def _take(counts: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> sp.csr_matrix:
    """Rows and columns in rising order within a row: otherwise n-grams of other rows would show in the last digits."""
    taken = counts[rows][:, columns]
    taken.sort_indices()
    return taken


def build_counters(settings: TfidfSettings) -> list[CountVectorizer]:
    """One for words and one for character pieces inside words, less the one that is off."""
    shared = {"strip_accents": "unicode", "dtype": np.float32}
    counters = []
    if settings.word_ngrams != (0, 0):  # any sign that is no space is a token too, so that emoji and "i" count
        counters.append(CountVectorizer(ngram_range=settings.word_ngrams, token_pattern=r"\w+|[^\w\s]", **shared))
    if settings.char_ngrams != (0, 0):
        counters.append(CountVectorizer(ngram_range=settings.char_ngrams, analyzer="char_wb", **shared))
    return counters


def choose_columns(taught: sp.csr_matrix, settings: TfidfSettings) -> np.ndarray:
    """Columns in at least `min_rows` training rows; of more than `max_features` the most frequent. Rising, int64."""
    rows_with = np.bincount(taught.indices, minlength=taught.shape[1])
    kept = np.flatnonzero(rows_with >= settings.min_rows)
    if len(kept) <= settings.max_features:
        return kept
    frequency = np.asarray(taught.sum(0)).ravel()[kept]
    return np.sort(kept[np.argsort(-frequency, kind="stable")[: settings.max_features]])
