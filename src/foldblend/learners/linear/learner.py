"""Logistic regressions per label, and the base of the learners that fit them on a fold's features."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from foldblend.cores import count_cores, settle_compiled_code
from foldblend.errors import UserError
from foldblend.features import FittedFeatures
from foldblend.learners.table import Corpus, FoldRows, count_positives, label_log_odds, score_heldout
from foldblend.learners.training.weights import describe_training, load_linear, read_features, save_linear
from foldblend.predictions import FoldPredictions
from foldblend.settings.run import LogisticSettings, RunSettings

settle_compiled_code(numba.config, Path(__file__).with_name("__pycache__"))

# L2-regularised logistic regression of sparse features, one per label, by coordinate descent on its dual.
#
# Labels are fitted in blocks: one pass over the features serves BLOCK labels, whose weights for a feature are side by
# side in memory. Blocks run on all cores, each with its own random state, so the result is the same to the last bit
# on any number of cores; scikit-learn's liblinear shares one state between threads.


BLOCK = 16
"""Labels fitted together: their float32 weights for one feature fill one cache line."""

GAP = 1e-3
"""Solved when primal and dual value differ by less than this share. A tenth of it moved the held-out macro-F1 on
GoEmotions by 0.0001."""

MAX_PASSES = 400
"""Most passes over the rows; texts take 4 to 12."""

PASSES_PER_CHECK = 2

START = -3.0
"""Every row starts as if its margin were 3: most rows of most labels end near that."""


def fit_labels(
    features: sp.csr_matrix, labels: np.ndarray, settings: LogisticSettings, seed: int, ratios=None, rows=None
):
    """Fit one binary logistic regression per label.

    Args:    features: float32 (n, D).   labels: bool (n, L), or shares in [0, 1] with nan for unknown ones: a share of
             0.3 is a positive that weighs 0.3 and a negative that weighs 0.7.
             ratios: float32 (D, L), factors of each label's features; None is 1 (naive Bayes, see nbsvm.py).
             rows: float32 (n,), how much each row counts; None is 1.
    Returns: weights float64 (D, L), on the features as they are, and bias (L,); a label that is never or always there
             gets its log-odds alone.
    Raises:  UserError: far from the solution after MAX_PASSES passes.
    """
    weights, bias = np.zeros((features.shape[1], labels.shape[1])), label_log_odds(labels).astype(np.float64)
    positives, n_known = count_positives(labels)
    varying = np.flatnonzero((positives > 0) & (positives < n_known))
    alike = varying[np.argsort(positives[varying], kind="stable")]  # rare labels take more passes
    blocks = [alike[start : start + BLOCK] for start in range(0, len(alike), BLOCK)]

    def fit_one(number):
        block, rng = blocks[number], np.random.default_rng([seed, number])
        split, yes, parts = split_shares(features, labels[:, block])
        costs = settings.inverse_regularization * row_weights(labels[:, block], yes, settings.balanced, rows) * parts
        if rows is not None:
            costs *= np.tile(rows, len(yes) // len(rows))[:, None]  # a row of shares is there twice
        of_block = None if ratios is None else ratios[:, block]
        weights[:, block], bias[block] = fit_block(split, yes, costs, rng, of_block)

    with ThreadPoolExecutor(count_cores()) as threads:
        list(threads.map(fit_one, range(len(blocks))))
    return weights, bias


def row_weights(labels: np.ndarray, yes: np.ndarray, balanced: bool, rows: np.ndarray | None = None) -> np.ndarray:
    """Weigh rows, float64 (m, B): 1 each; if balanced, the positives of a label weigh as much as its negatives.

    Args: labels: (n, B), bool, or shares with nan for unknown ones.   yes: bool (m, B), whether a row is a positive.
          rows: float32 (n,), how much each row counts; None is 1.
    """
    if not balanced:
        return np.ones(yes.shape)
    positives, n_rows = count_positives(labels)
    if rows is not None:
        n_rows = (~np.isnan(labels.astype(np.float32)) * rows[:, None]).sum(axis=0)
        positives = (np.nan_to_num(labels.astype(np.float32)) * rows[:, None]).sum(axis=0)
        positives = positives.clip(1e-9 * n_rows, (1 - 1e-9) * n_rows)
    return np.where(yes, n_rows / (2 * positives), n_rows / (2 * (n_rows - positives)))


def split_shares(features: sp.csr_matrix, labels: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray | float]:
    """Features, bool labels and row weights of the same regression if labels are shares, with nan for unknown ones.

    An unknown label weighs nothing. If any is a fraction, every row is there twice: as a positive that weighs its
    share, and as a negative that weighs the rest.
    Args:    features: float32 (n, D).   labels: (n, B), bool or float.
    Returns: features (m, D); bool (m, B); float64 (m, B), or 1.0 if labels are bool; m is n or 2 n.
    """
    if labels.dtype == bool:
        return features, labels, 1.0
    known, shares = ~np.isnan(labels), np.nan_to_num(labels.astype(np.float64))
    if ((shares == 0) | (shares == 1)).all():
        return features, shares == 1, known.astype(np.float64)
    twice = sp.vstack([features, features], format="csr")
    yes = np.repeat([True, False], len(labels))[:, None] & np.ones(labels.shape[1], bool)
    return twice, yes, np.vstack([shares, known - shares])


def split_label(labels: np.ndarray) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray | None]:
    """(rows, bool labels, weights of them) of one label (n,), bool, or shares with nan for unknown ones.

    A fraction is there twice: as a positive that weighs its share, and as a negative that weighs the rest.
    """
    if labels.dtype == bool:
        return slice(None), labels, None
    yes, no = np.flatnonzero(labels > 0), np.flatnonzero(labels < 1)  # nan is neither
    is_yes = np.arange(len(yes) + len(no)) < len(yes)
    return np.concatenate([yes, no]), is_yes, np.concatenate([labels[yes], 1 - labels[no]])


def fit_block(features: sp.csr_matrix, labels: np.ndarray, costs: np.ndarray, rng: np.random.Generator, ratios=None):
    """Minimise for each label w.w / 2 + b.b / 2 + sum_i costs_i log(1 + exp(-y_i (x_i.w + b))), y = 1 or -1.

    Args:    features: float32 (n, D).   labels: bool (n, B), B up to BLOCK.   costs: float64 (n, B), above 0.
             ratios: float32 (D, B), x is features * ratios; None is 1.
    Returns: w * ratios, float64 (D, B), and b (B,).
    Source:  Yu, Huang and Lin 2011, Dual coordinate descent methods for logistic regression, Machine Learning 85. The
             dual variable of row i is costs_i sigmoid(t_i): t needs no bounds, and is -y_i (x_i.w + b) in the end.
    """
    rows, n_labels = (features.data, features.indices, features.indptr), labels.shape[1]
    signs, costs = _padded(np.where(labels, 1.0, -1.0)), _padded(costs)  # padding costs nothing
    scales = np.zeros((0, BLOCK), np.float32) if ratios is None else _padded(ratios**2).astype(np.float32)
    squares = features.multiply(features).astype(np.float64)
    squares = (squares.sum(1) if ratios is None else squares @ scales) + np.ones((1, BLOCK))
    t = np.full(signs.shape, START)
    duals = costs * signs / (1 + np.exp(-START))
    # in the dual the weights are a sum over rows, features times dual variables, and are kept as such from here on
    w = features.T @ duals * (scales if len(scales) else 1.0)
    w = np.vstack([w, duals.sum(0)]).astype(np.float32)  # the last one is the bias, a feature of 1 in every row
    for number in range(1, MAX_PASSES + 1):
        _pass_over(*rows, signs, costs, np.asarray(squares), scales, rng.permutation(len(signs)), t, w)
        if number % PASSES_PER_CHECK == 0 and _is_solved(signs * (features @ w[:-1] + w[-1]), t, costs):
            return w[:-1, :n_labels], w[-1, :n_labels]
    raise UserError(
        f"logistic regression did not converge in {MAX_PASSES} passes (largest weight of a row: {costs.max():.3g}). "
        "Lower --logistic.inverse_regularization"
    )


def _padded(columns: np.ndarray) -> np.ndarray:
    """Pad columns with zeros to float64 (n, BLOCK)."""
    padded = np.zeros((len(columns), BLOCK))
    padded[:, : columns.shape[1]] = columns
    return padded


def _is_solved(margins: np.ndarray, t: np.ndarray, costs: np.ndarray) -> bool:
    """Whether primal and dual value agree within GAP for every label.   margins: y (x.w + b), (n, BLOCK)."""
    probs = np.exp(-np.logaddexp(0, -t))
    norm = (costs * probs * margins).sum(0)  # w.w + b.b, as w is the sum of the rows times their dual variables
    primal = norm / 2 + (costs * np.logaddexp(0, -margins)).sum(0)
    entropy = probs * np.logaddexp(0, -t) + (1 - probs) * np.logaddexp(0, t)
    return bool((primal - ((costs * entropy).sum(0) - norm / 2) <= GAP * primal).all())


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _pass_over(data, indices, starts, signs, costs, squares, scales, order, t, w):
    """Update t of every row and label in turn, and w with it, in place; one pass over the rows."""
    margins, changes = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for i in order:
        margins[:] = w[-1]  # the bias; then x_i . w, over the features that the row has
        for k in range(starts[i], starts[i + 1]):
            value, of_feature = data[k], w[indices[k]]
            for j in range(BLOCK):
                margins[j] += value * of_feature[j]
        for j in range(BLOCK):
            before, sign = t[i, j], signs[i, j]
            t[i, j] = _solve_row(before, sign * margins[j], costs[i, j] * squares[i, j])
            # the row's dual variable is cost * sigmoid(t); w moves by what it changed
            changes[j] = sign * costs[i, j] * (1 / (1 + np.exp(-t[i, j])) - 1 / (1 + np.exp(-before)))
        for k in range(starts[i], starts[i + 1]):
            value, of_feature = data[k], w[indices[k]]
            if len(scales):
                scale = scales[indices[k]]
                for j in range(BLOCK):
                    of_feature[j] += changes[j] * value * scale[j]
            else:
                for j in range(BLOCK):
                    of_feature[j] += changes[j] * value
        w[-1] += changes


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _solve_row(start, margin, pull):
    """Find the root in t of t + margin + pull * (sigmoid(t) - sigmoid(start)), which rises in t.

    Newton's steps, replaced by bisection if a step leaves the interval that holds the root.
    """
    # at t = -margin and at t = start the two terms have opposite signs, so the root is between
    low, high = min(start, -margin), max(start, -margin)
    t, old = start, 1 / (1 + np.exp(-start))
    for _ in range(50):
        prob = 1 / (1 + np.exp(-t))
        value = t + margin + pull * (prob - old)
        if value > 0:
            high = t
        else:
            low = t
        # the slope is 1 + pull * p (1 - p), at least 1: a step is never large by a small divisor
        following = t - value / (1 + pull * prob * (1 - prob))
        if not low <= following <= high:
            following = (low + high) / 2
        if abs(following - t) < 1e-4:
            return following
        t = following
    return t


MAX_STEPS = 2000
"""Most iterations of scikit-learn's solver."""


class LinearLearner:
    """A subclass (tfidf.py, nbsvm.py, embeddings.py) makes the features and fits the weights."""

    uses_all_processes = False

    def __init__(self, run: RunSettings, corpus: Corpus):
        self.run, self.corpus = run, corpus
        self.kept: dict[Path, tuple[dict[str, np.ndarray], FittedFeatures | None]] | None = None
        """Trained folds in memory, by their folders, once `keep_models` asked for it."""

    def keep_models(self) -> None:
        """Keep every fold in memory that predicts from now on."""
        self.kept = {}

    def read_texts(self, corpus: Corpus) -> None:
        """Take other texts to predict; what is loaded stays loaded."""
        self.corpus = corpus

    def fold_features(self, rows: FoldRows):
        """Return features (n, D) of training, held-out and test rows, fitted on the training rows alone."""
        raise NotImplementedError

    def fitted_arrays(self, rows: FoldRows) -> dict[str, np.ndarray]:
        """Return by name what `fold_features` fitted on the training rows: all that features of new texts need."""
        raise NotImplementedError

    def new_features(self, fitted: dict[str, np.ndarray]):
        """Compute features (n_test, D) of the test rows from `fitted_arrays`; the same as `fold_features` gives."""
        raise NotImplementedError

    def fit(
        self, features, labels: np.ndarray, n_beside: int = 0, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit weights (D, L) and bias (L,) to features (n, D) and what the training rows teach, (n, L).

        That is bool labels, or shares in [0, 1] with nan for unknown ones. The last `n_beside` features do not come
        from the text. `rows`, float32 (n,), is how much each row counts; None is 1.
        """
        raise NotImplementedError

    @property
    def logistic(self) -> LogisticSettings:
        """How labels are fitted; for a regression unbalanced, or every prediction would move to the middle."""
        settings = self.run.logistic
        return settings if self.corpus.scale is None else replace(settings, balanced=False)

    def device(self) -> str:
        """Name the device that trains, for the record."""
        return "cpu"

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        lesson = self.corpus.lesson(rows.fold, rows.train).at_once(self.run.seed)
        labels, own = lesson.targets, rows
        rows = replace(rows, train=lesson.rows)  # what is fitted on texts is fitted on all that teach
        # scikit-learn transforms one row or more: of the fold that holds out none, one is computed and dropped
        some = rows if len(rows.heldout) else replace(rows, heldout=rows.train[:1])
        train, heldout, test = self.fold_features(some)
        heldout = heldout[: len(rows.heldout)]
        fitted = self.corpus.fit_features(rows.train)
        if fitted is not None:
            read = fitted.read(self.corpus.features)  # (n_texts, W)
            pairs = ((train, rows.train), (heldout, rows.heldout), (test, self.corpus.test_rows))
            train, heldout, test = (join_columns(part, read[positions]) for part, positions in pairs)
        weights, bias = self.fit(train, labels, 0 if fitted is None else fitted.width, lesson.weights)
        arrays, rows = {**self.fitted_arrays(rows), "weights": weights, "bias": bias}, own
        save_linear(rows.checkpoint_dir, arrays, describe_training(self.run, self.corpus, rows))
        heldout, test = (self.to_logits(part @ weights + bias) for part in (heldout, test))  # (n, L)
        corpus, rates, judged = self.corpus, self.corpus.rates(rows.train), self.corpus.judged(rows.heldout)
        score = score_heldout(heldout, corpus.scored[rows.heldout], rates, corpus.task, corpus.metric, **judged)
        n_parameters = weights.size + bias.size
        return FoldPredictions(
            rows.fold, rows.heldout, heldout, test, "logits", score, self.device(), n_parameters=n_parameters
        )

    def predict_fold(self, checkpoint_dir: Path) -> np.ndarray:
        kept = {} if self.kept is None else self.kept
        if checkpoint_dir not in kept:
            kept[checkpoint_dir] = load_linear(checkpoint_dir), read_features(checkpoint_dir)
        arrays, fitted = kept[checkpoint_dir]
        features = self.new_features(arrays)
        if fitted is not None:
            features = join_columns(features, fitted.read(self.corpus.features.take(self.corpus.test_rows)))
        return self.to_logits(features @ arrays["weights"] + arrays["bias"])

    def to_logits(self, margins: np.ndarray) -> np.ndarray:
        """Turn margins `features @ weights + bias`, (n, L), into float32 logits."""
        return margins.astype(np.float32)


def join_columns(features, columns: np.ndarray):
    """Features (n, D), sparse or not, followed by dense columns, float32 (n, W)."""
    if sp.issparse(features):
        return sp.hstack([features, sp.csr_matrix(columns)], format="csr", dtype=np.float32)
    return np.hstack([features, columns])


def fit_each_label(
    features: np.ndarray, labels: np.ndarray, settings: LogisticSettings, task: str, of_rows: np.ndarray | None = None
):
    """Fit weights (D, L) and bias (L,) to dense features (n, D): a logistic regression per label, or one of classes.

    Args: labels: (n, L), bool, or shares with nan for unknown ones.   of_rows: (n,), how much each row counts.
    """
    if task == "multiclass":
        return fit_multiclass(features, labels, settings, of_rows)
    weights, bias = np.zeros((features.shape[1], labels.shape[1])), label_log_odds(labels).astype(np.float64)
    positives, n_rows = count_positives(labels)
    for k in np.flatnonzero((positives > 0) & (positives < n_rows)):
        rows, yes, shares = split_label(labels[:, k])
        if of_rows is not None:
            shares = of_rows[rows] * (1 if shares is None else shares)
        model = build_model(settings).fit(features[rows], yes, sample_weight=shares)
        weights[:, k], bias[k] = model.coef_[0], model.intercept_[0]
    return weights, bias


def fit_multiclass(
    features, labels: np.ndarray, settings: LogisticSettings, of_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one multinomial logistic regression; `of_rows`, (n,), is how much each row counts.

    Args:    features: float (n, D), sparse or not.   labels: bool (n, L), one True a row; or shares that sum to 1: a
             row is there once per class that has a share, and weighs as much.
    Returns: weights float64 (D, L) and bias (L,); a label that is never there gets its log-odds alone.
    """
    weights, bias = np.zeros((features.shape[1], labels.shape[1])), label_log_odds(labels).astype(np.float64)
    if labels.dtype == bool:
        rows, classes, shares = None, labels.argmax(1), of_rows
    else:
        rows, classes = np.nonzero(labels)
        shares = labels[rows, classes] * (1 if of_rows is None else of_rows[rows])
    if len(np.unique(classes)) == 1:
        return weights, bias
    model = build_model(settings).fit(features if rows is None else features[rows], classes, sample_weight=shares)
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
