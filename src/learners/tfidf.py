"""TF-IDF of words and character pieces with one logistic regression a label: minutes, and not a net's mistakes.

accelerate launch src/train.py --run tfidf --fold all
"""

import numpy as np

from learners.interface import Corpus, FoldRows
from learners.linear import LinearLearner, fit_multiclass
from learners.logistic import fit_labels
from learners.ngrams import Ngrams, features_of
from settings.run import RunSettings


class TfidfLearner(LinearLearner):
    """The vocabulary and its weights are fitted on the fold's training rows alone."""

    def __init__(self, run: RunSettings, corpus: Corpus):
        super().__init__(run, corpus)
        self.ngrams = Ngrams(corpus.texts, run.tfidf)

    def fold_features(self, rows: FoldRows):
        return self.ngrams.tfidf(rows.train, rows.heldout, self.corpus.test_rows)

    def fitted_arrays(self, rows: FoldRows) -> dict[str, np.ndarray]:
        return self.ngrams.fitted(rows.train, weighed=True)

    def new_features(self, fitted: dict[str, np.ndarray]):
        texts = tuple(self.corpus.texts[row] for row in self.corpus.test_rows)
        return features_of(texts, fitted, self.run.tfidf)

    def fit(self, features, labels: np.ndarray):
        if self.corpus.task == "multiclass":
            return fit_multiclass(features, labels, self.run.logistic)
        return fit_labels(features, labels, self.run.logistic, self.run.seed)
