"""TF-IDF of words and character pieces with one logistic regression per label.

It takes minutes on a CPU and makes other mistakes than a neural network, which helps a blend.

accelerate launch src/train.py --run tfidf --fold all
"""

import hashlib
import json
import re
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import sklearn
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from foldblend.errors import UserError
from foldblend.files import FileError, add_texts, hold_lock, replacing
from foldblend.learners.linear.learner import LinearLearner, fit_labels, fit_multiclass
from foldblend.learners.table import Corpus, FoldRows
from foldblend.predictions import FoldPredictions
from foldblend.settings.run import RunSettings, TfidfSettings

# Words: accents are letters unless the settings say otherwise, and a script without spaces has words of one letter.

UNSPACED = "\u0e01-\u0edf\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
UNSPACED += "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters. Each is a
word with its marks, so that word n-grams are n-grams of letters; splitting these scripts into words needs a dictionary.
"""

JOINERS = "\u200c\u200d"
"""Invisible, inside words of Persian and Indic scripts."""

OPTIONAL_MARKS = re.compile("[\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u0640\u064b-\u0652\u0670\u06d6-\u06ed]")
"""Vowel points of Hebrew and Arabic, and Arabic's stretched line: a writer may leave them out, so they tell no words
apart that readers do."""

EMOJI_MARKS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Marks by Unicode's categories that choose a sign's picture; they are signs of their own."""


@cache
def word_pattern() -> str:
    """A word, or any other sign that is no space, so that emoji and "i" count.

    Python's \\w has no combining marks: \\w+ would break Hindi and Tamil words at every vowel sign.
    """
    marks = _ranges(lambda sign: unicodedata.category(sign) in ("Mn", "Mc") and not re.match(f"[{EMOJI_MARKS}]", sign))
    letter = rf"[^\W{UNSPACED}]"
    return rf"[{UNSPACED}][{marks}]*|{letter}+(?:[{marks}{JOINERS}]+{letter}*)*|[^\w\s]"


def _ranges(belongs) -> str:
    """The signs that `belongs` says yes to, as the inside of a character class."""
    signs = np.array([code for code in range(sys.maxunicode + 1) if belongs(chr(code))])
    parts = np.split(signs, np.flatnonzero(np.diff(signs) > 1) + 1)
    return "".join(f"{chr(part[0])}-{chr(part[-1])}" for part in parts)


def fold_case(text: str) -> str:
    """Lower case, and one spelling of what looks the same: composed accents, full-width letters, half-width kana.

    Example: "Cafe\u0301 ＡＢＣ" -> "café abc"
    """
    text = text.lower()
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", OPTIONAL_MARKS.sub("", text))
    return text.replace("i\u0307", "i")  # what Turkish İ becomes in lower case


# Counts of n-grams, kept for all folds, runs and processes of a machine.
#
# Counting takes longer than all that a fold does with the counts: five processes that count the same texts, one per
# fold, took 46 s where one took 14 s.

Counts = list[tuple[np.ndarray, sp.csr_matrix]]
"""Per counter: n-grams as text, (D,), and how often each text has them, float32 (n_texts, D)."""

FORMAT = 1
"""Increase it when the code counts other n-grams from the same texts and settings."""
WORTHWHILE_CHARACTERS = 500_000
"""Fewer are counted in less than a second."""
LARGEST_BYTES = 2 << 30
"""Larger counts are not kept: reading them would take as long as counting, and fill the disk."""


def load_or_count(cache_dir: Path | None, texts: Sequence[str], settings: dict, count: Callable[[], Counts]) -> Counts:
    """Read the counts from the cache if another fold, run or process has left them there; otherwise count.

    Processes that start at once wait for the first one. A cache that is damaged or cannot be written costs time only.

    Args: cache_dir: None is no cache.   settings: what the counts follow from beside the texts, in JSON's types.
    """
    if cache_dir is None or sum(map(len, texts)) < WORTHWHILE_CHARACTERS:
        return count()
    path = cache_dir / f"{_hash_inputs(texts, settings)}.ngrams.npz"
    found = _read(path)
    if found is not None:
        return found
    try:
        with hold_lock(path.with_suffix(".lock")):
            found = _read(path)
            if found is not None:
                return found
            counts = count()
            if _size(counts) <= LARGEST_BYTES:
                _write(path, counts)
            return counts
    except FileError:
        return count()


def _hash_inputs(texts: Sequence[str], settings: dict) -> str:
    total = hashlib.sha256(json.dumps([FORMAT, sklearn.__version__, settings], sort_keys=True).encode())
    add_texts(total, texts)
    return total.hexdigest()[:32]


def _size(counts: Counts) -> int:
    return sum(part.data.nbytes + part.indices.nbytes + part.indptr.nbytes for _, part in counts)


def _write(path: Path, counts: Counts) -> None:
    arrays = {}
    for i, (names, part) in enumerate(counts):
        arrays[f"names.{i}"] = np.frombuffer(json.dumps(names.tolist()).encode(), np.uint8)
        arrays |= {f"{name}.{i}": getattr(part, name) for name in ("data", "indices", "indptr")}
        arrays[f"shape.{i}"] = np.array(part.shape)
    with replacing(path) as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Counts | None:
    """Read the counts; None if there are none, or the file is damaged (zip files have checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            numbers = range(sum(name.startswith("names.") for name in file.files))
            return [(_names(file[f"names.{i}"]), _matrix(file, i)) for i in numbers]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _names(encoded: np.ndarray) -> np.ndarray:
    return np.array(json.loads(encoded.tobytes()), dtype=object)


def _matrix(file, i: int) -> sp.csr_matrix:
    parts = (file[f"{name}.{i}"] for name in ("data", "indices", "indptr"))
    return sp.csr_matrix(tuple(parts), shape=tuple(file[f"shape.{i}"].tolist()))


# N-grams: counted once for all folds, chosen and weighted on each fold's training rows.


COUNTED_BY = ("word_ngrams", "char_ngrams", "strip_accents")
"""Settings that the counts follow from; the others choose among them."""


class Ngrams:
    """Counts of every n-gram of every text; a fold keeps those that are frequent enough in its training rows."""

    def __init__(self, texts: tuple[str, ...], settings: TfidfSettings, cache_dir: Path | None = None):
        self.texts, self.settings, self.cache_dir = texts, settings, cache_dir

    @cached_property
    def counted(self) -> Counts:
        """N-grams as text, (D,), and their counts, float32 (n_texts, D), for each counter of `build_counters`."""
        read = {name: getattr(self.settings, name) for name in COUNTED_BY}
        return load_or_count(self.cache_dir, self.texts, read, self._count)

    def _count(self) -> Counts:
        counters = build_counters(self.settings)
        counts = [counter.fit_transform(self.texts) for counter in counters]
        return [(counter.get_feature_names_out(), part) for counter, part in zip(counters, counts, strict=True)]

    @property
    def counts(self) -> list[sp.csr_matrix]:
        """The counts alone, float32 (n_texts, D), for words and for character pieces inside words."""
        return [counts for _, counts in self.counted]

    def tfidf(self, train: np.ndarray, *others: np.ndarray) -> list[sp.csr_matrix]:
        """Compute TF-IDF of the training rows and of each of `others`, float32 (n, D).

        Each equals TfidfVectorizer's, fitted on the training rows alone.
        Args:   train, others: int64 positions in `texts`.
        Raises: UserError: no n-gram is in `min_rows` training rows.
        """
        blocks = []
        for taught, *rest in self._kept(train, others):
            weigh = _weigher(taught)
            blocks.append([weigh.transform(part) for part in (taught, *rest)])
        return [sp.hstack(part, format="csr") for part in zip(*blocks, strict=True)]

    def presence(self, train: np.ndarray, *others: np.ndarray) -> list[sp.csr_matrix]:
        """As `tfidf`, but 1 for every n-gram that a text holds, however often."""
        parts = [sp.hstack(part, format="csr") for part in zip(*self._kept(train, others), strict=True)]
        for part in parts:
            part.data[:] = 1
        return parts

    def fitted(self, train: np.ndarray, weighed: bool) -> dict[str, np.ndarray]:
        """Return what `tfidf` (or `presence`, if not weighed) fits on the training rows; `features_of` reads it.

        Returns: `names.<i>`: a JSON list of the n-grams of counter i as bytes, uint8; `idf.<i>`: float32, one each.
        """
        arrays = {}
        for i, (names, counts) in enumerate(self.counted):
            columns = choose_columns(counts[train], self.settings)
            if len(columns):
                arrays[f"names.{i}"] = np.frombuffer(json.dumps(names[columns].tolist()).encode(), np.uint8)
                if weighed:
                    arrays[f"idf.{i}"] = _weigher(_take(counts, train, columns)).idf_
        return arrays

    def _kept(self, train: np.ndarray, others: tuple[np.ndarray, ...]) -> list[list[sp.csr_matrix]]:
        """[kind of n-gram][part of the rows] -> counts of those n-grams that the training rows keep."""
        kept = [choose_columns(counts[train], self.settings) for counts in self.counts]
        if not any(map(len, kept)):
            raise UserError(
                f"tfidf.min_rows is {self.settings.min_rows}, but no n-gram is in that many of {len(train)} "
                "training rows. Lower --tfidf.min_rows"
            )
        pairs = [(counts, columns) for counts, columns in zip(self.counts, kept, strict=True) if len(columns)]
        return [[_take(counts, rows, columns) for rows in (train, *others)] for counts, columns in pairs]


def features_of(texts: tuple[str, ...], fitted: dict[str, np.ndarray], settings: TfidfSettings) -> sp.csr_matrix:
    """Compute features, float32 (n, D), of new texts from `Ngrams.fitted`; the same as `tfidf` or `presence` give."""
    blocks = []
    for i, counter in enumerate(build_counters(settings)):
        if f"names.{i}" in fitted:
            counts = counter.set_params(vocabulary=json.loads(fitted[f"names.{i}"].tobytes())).transform(texts)
            counts.sort_indices()
            blocks.append(_weigh(counts, fitted.get(f"idf.{i}")))
    return sp.hstack(blocks, format="csr")


def _weigh(counts: sp.csr_matrix, idf: np.ndarray | None) -> sp.csr_matrix:
    """Compute TF-IDF of counts; without idf, 1 for every count above 0."""
    if idf is None:
        counts.data[:] = 1
        return counts
    weigher = _weigher(sp.csr_matrix((1, len(idf)), dtype=np.float32))
    weigher.idf_ = idf
    return weigher.transform(counts)


def _weigher(taught: sp.csr_matrix) -> TfidfTransformer:
    return TfidfTransformer(sublinear_tf=True).fit(taught)


def _take(counts: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> sp.csr_matrix:
    """Rows and columns in rising order within a row: otherwise n-grams of other rows would show in the last digits."""
    taken = counts[rows][:, columns]
    taken.sort_indices()
    return taken


def build_counters(settings: TfidfSettings) -> list[CountVectorizer]:
    """One for words and one for character pieces inside words, less the one that is off."""
    if settings.strip_accents:  # as before version 0.3, whose folds still predict
        words, how = r"\w+|[^\w\s]", {"strip_accents": "unicode"}
    else:
        words, how = word_pattern(), {"preprocessor": fold_case}
    shared = {"dtype": np.float32, **how}
    counters = []
    if settings.word_ngrams != (0, 0):
        counters.append(CountVectorizer(ngram_range=settings.word_ngrams, token_pattern=words, **shared))
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


# The learner.


MOST_CLASSES = 200
"""Classes that one multinomial regression is fitted to; more are fitted one against the rest, which is far faster."""
MOST_WEIGHTS = 50_000_000
"""Weights of one fold with more than MOST_CLASSES labels: fewer n-grams are kept if there would be more."""


def fit_to_memory(settings: TfidfSettings, n_labels: int) -> TfidfSettings:
    """The settings with fewer n-grams if hundreds of labels would need gigabytes for their weights."""
    if n_labels <= MOST_CLASSES:
        return settings
    return replace(settings, max_features=min(settings.max_features, max(MOST_WEIGHTS // (2 * n_labels), 1)))


class TfidfLearner(LinearLearner):
    """The vocabulary and its weights are fitted on the fold's training rows alone."""

    def __init__(self, run: RunSettings, corpus: Corpus):
        super().__init__(run, corpus)
        self.ngrams = Ngrams(corpus.texts, fit_to_memory(run.tfidf, len(corpus.label_names)), corpus.cache_dir)

    @property
    def is_multinomial(self) -> bool:
        """Whether one regression is fitted for all classes; otherwise one per label."""
        return self.corpus.task == "multiclass" and len(self.corpus.label_names) <= MOST_CLASSES

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        """As the base. Raises: UserError: a seed was set, but nothing would be drawn with it."""
        draws = any(each.share or each.rows for each in self.run.extra_rows)
        if self.is_multinomial and self.run.seed != RunSettings.seed and not draws:
            raise UserError(
                f"seed {self.run.seed} would change nothing: with one label per row a {self.run.learner} run draws "
                "nothing at random, so it would be the same run again. Remove seed"
            )
        return super().train_fold(rows)

    def fold_features(self, rows: FoldRows):
        return self.ngrams.tfidf(rows.train, rows.heldout, self.corpus.test_rows)

    def fitted_arrays(self, rows: FoldRows) -> dict[str, np.ndarray]:
        return self.ngrams.fitted(rows.train, weighed=True)

    def new_features(self, fitted: dict[str, np.ndarray]):
        texts = tuple(self.corpus.texts[row] for row in self.corpus.test_rows)
        return features_of(texts, fitted, self.run.tfidf)

    def fit(self, features, labels: np.ndarray, n_beside: int = 0, rows: np.ndarray | None = None):
        if self.is_multinomial:
            return fit_multiclass(features, labels, self.logistic, rows)
        return fit_labels(features, labels, self.logistic, self.run.seed, rows=rows)

    def to_logits(self, margins: np.ndarray) -> np.ndarray:
        """Log-probabilities of classes that were fitted one by one: their softmax is each one's share of the sum."""
        if self.corpus.task == "multiclass" and not self.is_multinomial:
            margins = -np.logaddexp(0, -margins)
        return super().to_logits(margins)
