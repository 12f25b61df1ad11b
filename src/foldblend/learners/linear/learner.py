"""The base of the linear learners: features of a fold, weights fitted on its training rows, logits of the others."""

from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from foldblend.learners.table import Corpus, FoldRows
from foldblend.learners.training.heldout import label_log_odds, score_heldout
from foldblend.learners.training.weights import describe_training, load_linear, save_linear
from foldblend.predictions import FoldPredictions
from foldblend.settings.run import LogisticSettings, RunSettings

MAX_STEPS = 2000
"""Most iterations of scikit-learn's solver."""


class LinearLearner:
    """A subclass (tfidf.py, nbsvm.py, embeddings.py) makes the features and fits the weights."""

    uses_all_processes = False

    def __init__(self, run: RunSettings, corpus: Corpus):
        self.run, self.corpus = run, corpus

    def fold_features(self, rows: FoldRows):
        """Return features (n, D) of training, held-out and test rows, fitted on the training rows alone."""
        raise NotImplementedError

    def fitted_arrays(self, rows: FoldRows) -> dict[str, np.ndarray]:
        """Return by name what `fold_features` fitted on the training rows: all that features of new texts need."""
        raise NotImplementedError

    def new_features(self, fitted: dict[str, np.ndarray]):
        """Compute features (n_test, D) of the test rows from `fitted_arrays`; the same as `fold_features` gives."""
        raise NotImplementedError

    def fit(self, features, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit weights (D, L) and bias (L,) to features (n, D) and labels, bool (n, L), of the training rows."""
        raise NotImplementedError

    def device(self) -> str:
        """Name the device that trains, for the record."""
        return "cpu"

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        labels = self.corpus.labels[rows.train]
        train, heldout, test = self.fold_features(rows)
        weights, bias = self.fit(train, labels)
        arrays = {**self.fitted_arrays(rows), "weights": weights, "bias": bias}
        save_linear(rows.checkpoint_dir, arrays, describe_training(self.run, self.corpus, rows))
        heldout, test = (self.to_logits(part @ weights + bias) for part in (heldout, test))  # (n, L)
        corpus = self.corpus
        score = score_heldout(heldout, corpus.labels[rows.heldout], labels.mean(0), corpus.task, corpus.metric)
        return FoldPredictions(rows.fold, rows.heldout, heldout, test, "logits", score, self.device())

    def predict_fold(self, checkpoint_dir: Path) -> np.ndarray:
        arrays = load_linear(checkpoint_dir)
        return self.to_logits(self.new_features(arrays) @ arrays["weights"] + arrays["bias"])

    def to_logits(self, margins: np.ndarray) -> np.ndarray:
        """Turn margins `features @ weights + bias`, (n, L), into float32 logits."""
        return margins.astype(np.float32)


def fit_multiclass(features, labels: np.ndarray, settings: LogisticSettings) -> tuple[np.ndarray, np.ndarray]:
    """Fit one multinomial logistic regression.

    Args:    features: float (n, D), sparse or not.   labels: bool (n, L), one True a row.
    Returns: weights float64 (D, L) and bias (L,); a label that is never there gets its log-odds alone.
    """
    weights, bias = np.zeros((features.shape[1], labels.shape[1])), label_log_odds(labels).astype(np.float64)
    model = build_model(settings).fit(features, labels.argmax(1))
    if len(model.classes_) == 2:  # scikit-learn keeps one column for two classes: half of it each, with opposite signs
        weights[:, model.classes_] = np.stack([-model.coef_[0], model.coef_[0]], 1) / 2
        bias[model.classes_] = np.array([-1, 1]) * model.intercept_[0] / 2
    else:
        weights[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return weights, bias


def build_model(settings: LogisticSettings) -> LogisticRegression:
    """Build scikit-learn's model with its default solver (lbfgs), which draws nothing at random."""
    weighing = "balanced" if settings.balanced else None
    return LogisticRegression(C=settings.inverse_regularization, class_weight=weighing, max_iter=MAX_STEPS)
