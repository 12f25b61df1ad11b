import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from toy_corpus import make_corpus

from foldblend.learners.tfidf import Ngrams
from foldblend.settings.run import TfidfSettings

TEXTS = (*make_corpus(60).texts, "Ünseen wörds, everywhere!", "😀 😀 happy", "i")
TRAIN, REST = np.arange(5, 50), np.arange(50, len(TEXTS))


def from_scikit_learn(settings):
    """TfidfVectorizer fitted on the training texts alone."""
    shared = {"min_df": settings.min_rows, "sublinear_tf": True, "dtype": np.float32, "strip_accents": "unicode"}
    vectorizers = []
    if settings.word_ngrams != (0, 0):
        pattern = r"\w+|[^\w\s]"
        vectorizers.append(TfidfVectorizer(ngram_range=settings.word_ngrams, token_pattern=pattern, **shared))
    if settings.char_ngrams != (0, 0):
        vectorizers.append(TfidfVectorizer(ngram_range=settings.char_ngrams, analyzer="char_wb", **shared))
    train, rest = [TEXTS[row] for row in TRAIN], [TEXTS[row] for row in REST]
    fitted = [vectorizer.fit(train) for vectorizer in vectorizers]
    return [sp.hstack([vectorizer.transform(part) for vectorizer in fitted]).toarray() for part in (train, rest)]


@pytest.mark.parametrize(
    "settings",
    [TfidfSettings(), TfidfSettings(min_rows=1), TfidfSettings(char_ngrams=(0, 0)), TfidfSettings(word_ngrams=(0, 0))],
)
def test_it_is_what_a_vectorizer_fitted_on_the_training_rows_gives(settings):
    ours = [part.toarray() for part in Ngrams(TEXTS, settings).tfidf(TRAIN, REST)]
    for mine, expected in zip(ours, from_scikit_learn(settings), strict=True):
        assert mine.dtype == np.float32 and mine == pytest.approx(expected, abs=1e-6)


def test_presence_is_where_tfidf_is_not_0():
    ngrams = Ngrams(TEXTS, TfidfSettings())
    for weighed, there in zip(ngrams.tfidf(TRAIN, REST), ngrams.presence(TRAIN, REST), strict=True):
        assert set(there.data.tolist()) == {1.0} and np.array_equal(there.toarray() > 0, weighed.toarray() > 0)


def test_texts_outside_the_training_rows_change_nothing():
    """Not even the last digit: n-grams of other texts move no column."""
    other = tuple("zebra yak" if row not in TRAIN else text for row, text in enumerate(TEXTS))
    for kind in ("tfidf", "presence"):
        before, after = (getattr(Ngrams(texts, TfidfSettings()), kind)(TRAIN)[0] for texts in (TEXTS, other))
        assert np.array_equal(before.indices, after.indices) and np.array_equal(before.data, after.data)


def test_the_most_frequent_are_kept():
    texts = ("a b c", "a b", "a b", "a c d", "d d")
    ngrams = Ngrams(texts, TfidfSettings(word_ngrams=(1, 1), char_ngrams=(0, 0), min_rows=2, max_features=2))
    assert (ngrams.presence(np.arange(5))[0].toarray() == [[1, 1], [1, 1], [1, 1], [1, 0], [0, 0]]).all()


def test_texts_with_nothing_in_common_are_named():
    with pytest.raises(ValueError, match="tfidf.min_rows is 9, but no n-gram is in that many of 2"):
        Ngrams(("ab", "cd", "ef"), TfidfSettings(min_rows=9)).tfidf(np.arange(2))
