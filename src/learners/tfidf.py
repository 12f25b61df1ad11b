"""TF-IDF of words and character pieces with one logistic regression a label: minutes, and not a net's mistakes.

accelerate launch src/train.py --run tfidf --fold all
"""

import numpy as np

from learners.interface import Corpus, FoldPredictions, FoldRows
from learners.linear import LinearLearner, fit_multiclass
from learners.logistic import fit_labels
from learners.ngrams import Ngrams, features_of
from settings.run import RunSettings


class TfidfLearner(LinearLearner):
    """The vocabulary and its weights are fitted on the fold's training rows alone."""

    drawn_tasks = ("multilabel",)
    """Where the fit visits rows in an order that is drawn."""

    def __init__(self, run: RunSettings, corpus: Corpus):
        super().__init__(run, corpus)
        self.ngrams = Ngrams(corpus.texts, run.tfidf)

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        """As every linear learner's. Raises ValueError: a seed was chosen, and nothing would be drawn by it."""
        if self.corpus.task not in self.drawn_tasks and self.run.seed != RunSettings.seed:
            raise ValueError(
                f"seed is {self.run.seed}, but a {self.run.learner} run draws nothing where each row has one label: it "
                "would be the same run again, to the last bit; take seed out"
            )
        return super().train_fold(rows)

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
