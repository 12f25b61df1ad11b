"""NB-SVM: which n-grams a text has, times their naive Bayes log-count ratio, one logistic regression per label.

accelerate launch src/train.py --run nbsvm --fold all

Source: Wang and Manning 2012, Baselines and bigrams, ACL; logistic regression instead of their SVM gives log-odds.
"""

import numpy as np

from foldblend.learners.linear.learner import fit_labels
from foldblend.learners.table import FoldRows
from foldblend.learners.tfidf import TfidfLearner


class NbsvmLearner(TfidfLearner):
    """One label against the rest, also if each row has exactly one label."""

    is_multinomial = False

    def fold_features(self, rows: FoldRows):
        return self.ngrams.presence(rows.train, rows.heldout, self.corpus.test_rows)

    def fitted_arrays(self, rows: FoldRows) -> dict[str, np.ndarray]:
        return self.ngrams.fitted(rows.train, weighed=False)

    def fit(self, features, labels: np.ndarray, n_beside: int = 0, rows: np.ndarray | None = None):
        n_grams = features.shape[1] - n_beside
        counted = features[:, :n_grams] if n_beside else features
        ratios = log_count_ratios(counted, labels, self.run.nbsvm.smoothing, rows)
        ratios = np.vstack([ratios, np.ones((n_beside, labels.shape[1]), np.float32)])  # no counts, so no ratios
        return fit_labels(features, labels, self.logistic, self.run.seed, ratios, rows)


def log_count_ratios(features, labels: np.ndarray, smoothing: float, rows: np.ndarray | None = None) -> np.ndarray:
    """Compute log(a feature's share among positives / its share among negatives), float32 (D, L).

    Args:   features: sparse (n, D), 0 or more.   labels: bool (n, L), or shares with nan for unknown ones.
            smoothing: added to every sum.   rows: float32 (n,), how much each row counts; None is 1.
    Source: Wang and Manning 2012, equation 1.
    """
    known = ~np.isnan(labels) if labels.dtype != bool else np.True_
    shares = np.nan_to_num(labels.astype(np.float64))
    if rows is not None:
        features = features.multiply(rows[:, None]).tocsr()
    positive = features.T @ shares + smoothing  # (D, L)
    negative = features.T @ ((1 - shares) * known) + smoothing
    return np.log((positive / positive.sum(0)) / (negative / negative.sum(0))).astype(np.float32)
