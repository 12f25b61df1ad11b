"""TF-IDF of words and character pieces with one logistic regression a label: minutes, and not a net's mistakes.

accelerate launch src/train.py --run tfidf --fold all
"""

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from learners.heldout import label_log_odds, score_heldout
from learners.interface import Corpus, FoldPredictions, FoldRows
from settings.run import RunSettings, TfidfSettings


class TfidfLearner:
    """The vocabulary and its weights are fitted on the fold's training rows alone."""

    uses_all_processes = False

    def __init__(self, run: RunSettings, corpus: Corpus):
        self.settings, self.seed, self.corpus = run.tfidf, run.seed, corpus

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        labels = self.corpus.labels[rows.train]
        vectorizers = build_vectorizers(self.settings)
        train = sp.hstack([v.fit_transform(self._texts(rows.train)) for v in vectorizers], format="csr")
        heldout, test = (
            sp.hstack([v.transform(self._texts(part)) for v in vectorizers], format="csr")
            for part in (rows.heldout, self.corpus.test_rows)
        )
        fit = fit_multiclass if self.corpus.task == "multiclass" else fit_multilabel
        weights, bias = fit(train, labels, self.settings, self.seed)
        heldout_logits, test_logits = (np.float32(part @ weights + bias) for part in (heldout, test))  # (n, L)
        score = score_heldout(heldout_logits, self.corpus.labels[rows.heldout], labels.mean(0), self.corpus.task)
        return FoldPredictions(heldout_logits, test_logits, "logits", score, "cpu")

    def _texts(self, rows):
        return [self.corpus.texts[row] for row in rows]


def build_vectorizers(settings: TfidfSettings) -> list[TfidfVectorizer]:
    """One for words and one for character pieces inside words, less the one that is off."""
    shared = {
        "min_df": settings.min_rows,
        "max_features": settings.max_features,
        "sublinear_tf": True,
        "dtype": np.float32,
        "strip_accents": "unicode",
    }
    vectorizers = []
    if settings.word_ngrams != (0, 0):  # any run of non-spaces is a token, so that emoji and "i" count
        vectorizers.append(TfidfVectorizer(ngram_range=settings.word_ngrams, token_pattern=r"\w+|[^\w\s]", **shared))
    if settings.char_ngrams != (0, 0):
        vectorizers.append(TfidfVectorizer(ngram_range=settings.char_ngrams, analyzer="char_wb", **shared))
    return vectorizers


def fit_multilabel(features, labels: np.ndarray, settings: TfidfSettings, seed: int):
    """One binary logistic regression a label.

    Args:    features: sparse float32 (n, D).   labels: bool (n, L).
    Returns: weights float64 (D, L) and bias (L,); a label that is never or always there gets its log-odds alone.
    """

    def fit_label(column):
        model = LogisticRegression(
            C=settings.inverse_regularization,
            class_weight="balanced" if settings.balanced else None,
            solver="liblinear",
            random_state=seed,
        ).fit(features, column)
        return model.coef_[0], model.intercept_[0]

    weights, bias = np.zeros((features.shape[1], labels.shape[1])), label_log_odds(labels).astype(np.float64)
    varying = np.flatnonzero(labels.any(0) & ~labels.all(0))
    for column in varying:  # one after another: liblinear draws from one state that threads would share
        weights[:, column], bias[column] = fit_label(labels[:, column])
    return weights, bias


def fit_multiclass(features, labels: np.ndarray, settings: TfidfSettings, seed: int):
    """One multinomial logistic regression. Returns and arguments as `fit_multilabel`."""
    weights, bias = np.zeros((features.shape[1], labels.shape[1])), label_log_odds(labels).astype(np.float64)
    model = LogisticRegression(
        C=settings.inverse_regularization,
        class_weight="balanced" if settings.balanced else None,
        max_iter=1000,
        random_state=seed,
    ).fit(features, labels.argmax(1))
    if len(model.classes_) == 2:  # scikit-learn keeps one column for two classes
        weights[:, model.classes_], bias[model.classes_] = np.stack([-model.coef_[0], model.coef_[0]], 1) / 2, 0.0
        bias[model.classes_] = np.array([-1, 1]) * model.intercept_[0] / 2
    else:
        weights[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return weights, bias
