"""The score to expect on the test set.

OOF rows are each scored by one fold's model; test rows get the mean of all. The first estimate is of one fold's model,
which cross-fitting measures. The second adds what averaging gains, read from how much the fold models disagree on the
test rows (the ambiguity decomposition, Krogh and Vedelsby 1995): the more they disagree, the more of each one's error
is its own and averages out.
"""

from dataclasses import dataclass

import numpy as np

from foldblend.scoring.inputs import Task, logit, sigmoid
from foldblend.scoring.metrics.table import Metric
from foldblend.scoring.thresholds.robust import count_scores, fit_calibration
from foldblend.scoring.thresholds.rules import Rule, decide
from foldblend.scoring.validation.bootstrap import Additive, measure_widths, resample

# ---------- Score of one fold's models


N_RESAMPLES = 1_000
"""Bootstrap resamples."""
LEVEL = 0.9
"""Share of cases in which the interval should contain the score of the test set."""
PRIOR_POSITIVES = 10.0
"""A label's calibrated probabilities weigh as much as this many of its positive rows in the estimate."""
UNSEEN = 3.0
"""Rows that may be wrong although none of ours is, with 95 % confidence: the rule of three (Hanley 1983)."""
N_DRAWS = 8
"""Sets of labels drawn to weigh one model against the average."""


@dataclass(frozen=True)
class ExpectedScore:
    """The score to expect on rows that no model has seen; more is better."""

    expected: float
    low: float
    high: float

    def on_scale(self, gain: float, entry: Metric) -> tuple[float, float, float]:
        """Score, low and high on the metric's own scale, after a gain is added; inside what the metric can be."""
        ends = sorted(entry.sign * (end + gain) for end in (self.low, self.high))
        score, low, high = np.clip([entry.sign * (self.expected + gain), *ends], *entry.bounds).tolist()
        return score, low, high


def estimate_score(
    counted: list[Additive], softened: list[Additive], n_rows: int, n_test: int, seed: int
) -> ExpectedScore:
    """What one fold's model should score on a test set of `n_test` rows, from the answers of each repeat.

    Two things are uncertain: the cross-fitted score, known from `n_rows` rows, and the test rows, of which there are
    n_test. Each is one bootstrap; their errors add up. Test rows are taken to come in groups as ours do. A small set of
    rows also moves the mean of a ratio such as F1, by as much as the means of the bootstraps of both sizes differ.

    Args: counted: the metric of each repeat's answer: how sure the score is.
          softened: the same against `soften`ed labels: what the score is.
    """
    everything = np.ones(len(counted[0].sums), bool)
    ours, theirs = _resample_both(counted, everything, n_rows, n_test, seed)
    moves = np.mean([each.moves(everything) for each in counted], axis=0)
    scale, tails = measure_widths(moves, float(ours.std()))
    # two sources that do not depend on each other: which test rows come, and how well our own rows measured
    error = tails * ((theirs - theirs.mean()) - scale * (ours - ours.mean()))
    is_certain = not ours.std() and not error.any()  # no row was wrong, so resamples say that none can be
    ours, theirs = _resample_both(softened, everything, n_rows, n_test, seed)
    # the bias of a small set is that of the difference of the two means, which our own score has in part already
    expected = np.mean([each.score(everything) for each in softened]) + theirs.mean() - ours.mean()
    low, high = np.quantile(error, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + expected
    if is_certain:
        low -= UNSEEN / min(n_rows, n_test)
    return ExpectedScore(float(expected), float(low), float(high))


def _resample_both(
    honest: list[Additive], everything: np.ndarray, n_rows: int, n_test: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores on resamples as large as our rows, and as large as the test rows: float64 (B,) each."""
    ours = resample(honest, everything, 1.0, N_RESAMPLES, seed)
    theirs = resample(honest, everything, n_test / n_rows, N_RESAMPLES, seed + 1)
    return ours.mean(axis=1), theirs.mean(axis=1)


def soften(labels: np.ndarray, probs: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """The labels mixed with their calibrated probabilities, more so the fewer positives a label has: float32 (N, L).

    Whether a blend finds two of three rows or none says little about a label's F1 on the test rows; what its calibrated
    probabilities say of all rows is an estimate that varies less. A label without positives has nothing else.

    Args: labels: bool (N, L).   probs: float32 (N, L), cross-fitted.   group: int64 (N,), rows with the same number say
          the same once; None if every row is a group of its own.
    """
    counted = count_scores(probs, labels)
    slope, shift = fit_calibration(counted)
    positives = labels.sum(axis=0) if group is None else _any_in_group(labels, group).sum(axis=0)
    trust = (positives / (positives + PRIOR_POSITIVES)).astype(np.float32)
    soft = sigmoid(logit(probs) * slope.astype(np.float32) + shift.astype(np.float32))
    return trust * labels + (1 - trust) * soft


def _any_in_group(labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Whether any row of each group has each label, bool (G, L)."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order[0]] - 1))
    return np.logical_or.reduceat(labels[order], starts, axis=0)


# ---------- What averaging the fold models adds


def gain_of_averaging(task: Task, rule: Rule, fold_probs: np.ndarray, seed: int, error: float = 0.0) -> float:
    """How much better the mean of the fold models should score than one of them; 0 with one fold model.

    Draws of labels on which the metric is not defined (a label that no row got has no AUC) are left out; 0 without any.

    Args:   fold_probs: float32 (K, n, L), the blend of each fold's models on the test rows.
            error: of a regression, the standard deviation of a value around its prediction, on the scale of shares.
    How:    a fold's log-odds are the average's plus noise of its own. If single models are calibrated, their average is
            too timid by the share of variance that is noise; undoing that gives each row's probability of each label.
            Labels are drawn from these, and one model and the average are scored against them.
    """
    if len(fold_probs) == 1:
        return 0.0
    mean = fold_probs.mean(axis=0)
    sharp, rng = sharpened(fold_probs), np.random.default_rng(seed)
    # the same thresholds for both, as the submission uses those that were tuned on single models
    together, alone = decide(rule, mean), [decide(rule, probs) for probs in fold_probs]
    gains = []
    for _ in range(N_DRAWS):
        drawn = _draw_labels(sharp, task.kind, rng) if task.scale is None else rng.normal(sharp, error)
        gains.append(task.score(drawn, together) - np.mean([task.score(drawn, answer) for answer in alone]))
    defined = np.isfinite(gains)
    return float(np.mean(gains, where=defined)) if defined.any() else 0.0


def sharpened(fold_probs: np.ndarray) -> np.ndarray:
    """Each row's probability of each label, given all fold models: float32 (n, L).

    The slope of the average on one fold's log-odds, in rows whose decision is open (weights p (1 - p)), is the share of
    variance that is not noise; the shift keeps each label's mean.
    """
    mean = fold_probs.mean(axis=0)
    middle, weight = logit(mean), mean * (1 - mean) + np.float32(1e-9)
    # p (1 - p) weighs rows that could go either way; rows that all models are sure of say nothing about noise
    centre = (weight * middle).sum(axis=0) / weight.sum(axis=0)
    shared, total = 0.0, 0.0
    for probs in fold_probs:
        own = logit(probs) - centre
        shared = shared + (weight * own * (middle - centre)).sum(axis=0)
        total = total + (weight * own**2).sum(axis=0)
    signal = np.divide(shared, total, out=np.ones_like(total), where=total > 0)  # rows that are all alike: no noise
    # at most undone to 0.3: with few folds the share is a noisy estimate, and small ones would blow up
    scores = (middle - centre) / np.clip(signal, 0.3, 1.0) + centre
    return sigmoid((scores + _shift_to_mean(scores, mean.mean(axis=0))).astype(np.float32))


def _shift_to_mean(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The shift per label that gives its probabilities the wanted mean, float64 (L,), by bisection."""
    low, high = np.full(len(wanted), -10.0), np.full(len(wanted), 10.0)
    for _ in range(30):
        middle = (low + high) / 2
        above = sigmoid((scores + middle).astype(np.float32)).mean(axis=0, dtype=np.float64) > wanted
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


def _draw_labels(probs: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Labels bool (n, L), drawn from probabilities float32 (n, L)."""
    if kind == "multilabel":
        return rng.random(probs.shape, np.float32) < probs
    edges = (probs / probs.sum(axis=1, keepdims=True)).cumsum(axis=1)
    # rounding may leave the last edge below a drawn number
    edges[:, -1] = 1.0
    picked = (rng.random((len(probs), 1)) < edges).argmax(axis=1)
    return np.eye(probs.shape[1], dtype=bool)[picked]
