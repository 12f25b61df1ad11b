"""Label shift: whether test rows seem to have other label rates, and whether correcting for it would help.

A label's mean probability can move for two reasons. If the texts changed, calibrated probabilities moved with them, and
their mean is right as it is. If only the label's rate changed, they moved part of the way, and an EM on the rates finds
the rest (Saerens et al. 2002). The EM applied in the first case makes probabilities worse, and unlabelled rows cannot
tell the cases apart: with exact probabilities p, rows under other rates have the same density as rows whose texts
moved by a weight that is linear in p. So the correction is never advised by itself. Both cases are simulated on the OOF
rows, whose labels are known; it is offered, to those who know that the rates alone changed, only if it gains in that
case and a classifier of texts does not contradict it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from foldblend.predictions import TextComparison
from foldblend.scoring.inputs import Scores, Task, TestScores, to_probs
from foldblend.scoring.thresholds.rules import Rule, decide

# ---------- The alarm: the same rows give the same one, whatever strategy was chosen


SIGNIFICANCE = 0.01
"""A warning needs a p-value below this, over all labels together ..."""
LEAST_CHANGE = 0.25
"""... and a mean probability that moved by at least this share of itself."""


def mean_run_probs(task: Task, scores: Scores) -> np.ndarray:
    """Equal mean of the runs' OOF probabilities, float32 (N, L): no strategy has a part in it."""
    total = np.zeros(scores.runs[0].shape, np.float32)
    for run in scores.runs:
        total += to_probs(run, task.kind)
    return total / np.float32(len(scores.runs))


def mean_test_probs(task: Task, runs: list[TestScores]) -> np.ndarray:
    """The same of the test rows, each run's folds averaged first: float32 (1, n, L)."""
    parts = (
        to_probs(run[fold], task.kind) / np.float32(len(run) * len(runs)) for run in runs for fold in range(len(run))
    )
    total = next(parts)
    for part in parts:
        total += part
    return total[None]


def compare_means(oof_probs: np.ndarray, fold_probs: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Whether the model sees a label more or less often on the test rows than on its own held-out rows.

    Args:    oof_probs: float32 (N, L), cross-fitted.   fold_probs: float32 (K, n, L), of each fold's models.
             group: int64 (N,), the duplicate group of each of our rows.
    Returns: float64 (L,): p-values of equal mean probability, times L (Bonferroni), at most 1.
    How:     Welch's test on means; the fold models' means are averaged, their rows are the same rows. Rows of a group
             move together, so that a mean varies by more than by its rows: by the sums of whole groups (Liang and Zeger
             1986). Groups of test rows are not known; they are taken to be like ours.
    """
    n_rows, n_test = len(oof_probs), fold_probs.shape[1]
    difference = fold_probs.mean(axis=(0, 1), dtype=np.float64) - oof_probs.mean(axis=0, dtype=np.float64)
    # Welch: the two sets of rows may differ in spread and in number
    variance = oof_probs.var(axis=0, dtype=np.float64) / n_rows
    variance += fold_probs.mean(axis=0).var(axis=0, dtype=np.float64) / n_test
    variance *= _grouping(oof_probs, group)
    deviations = np.abs(difference) / np.sqrt(variance + 1e-30)  # (L,), normal if no label shifts; scipy.stats is slow
    return np.minimum(2 * ndtr(-deviations) * oof_probs.shape[1], 1.0)


def _grouping(probs: np.ndarray, group: np.ndarray) -> np.ndarray:
    """By how much groups widen the variance of each column's mean, float64 (L,): 1 without groups of several rows."""
    names, member = np.unique(group, return_inverse=True)
    if len(names) == len(group):
        return np.ones(probs.shape[1])
    around = probs - probs.mean(axis=0, dtype=np.float64)
    sums = np.stack([np.bincount(member, weights=column) for column in around.T], axis=1)  # (G, L)
    return np.maximum((sums**2).sum(axis=0) / np.maximum((around**2).sum(axis=0), 1e-30), 1.0)


def find_shifted(p_values: np.ndarray, oof_probs: np.ndarray, fold_probs: np.ndarray) -> np.ndarray:
    """Labels whose shift is more than chance and large enough to matter, int64."""
    here, there = oof_probs.mean(axis=0, dtype=np.float64), fold_probs.mean(axis=(0, 1), dtype=np.float64)
    return np.flatnonzero((p_values < SIGNIFICANCE) & (np.abs(there - here) >= LEAST_CHANGE * here))


# ---------- The correction


MAX_STEPS = 1_000
"""Steps of the EM, which converges slowly where probabilities say little."""


def reestimate_priors(probs: np.ndarray, priors: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and label rates that fit rows whose label rates differ from training's.

    Args:    probs: float32 (n, L), calibrated on rows with rates `priors`.   priors: float64 (L,).
             kind: "multilabel" (each label by itself) or "multiclass".
    Returns: probs float32 (n, L), rates float64 (L,).
    Source:  Saerens, Latinne and Decaestecker 2002 (EM on the priors; the likelihoods stay as they are).
    """
    # a rate of 0 or 1 would stay there for ever
    priors = np.clip(priors, 1e-9, 1 - 1e-9)
    rates, adjusted = priors.copy(), probs.astype(np.float64)
    for _ in range(MAX_STEPS):
        # Bayes with the new rates: the likelihood ratio of each row stays what the old rates imply
        # E step
        yes = probs * (rates / priors)
        rest = (1 - probs) * ((1 - rates) / (1 - priors)) + yes if kind == "multilabel" else yes.sum(axis=1)[:, None]
        adjusted = yes / np.maximum(rest, 1e-300)
        # M step
        moved = np.clip(adjusted.mean(axis=0), 1e-9, 1 - 1e-9)
        if np.abs(moved - rates).max() < 1e-7:
            break
        rates = moved
    return adjusted.astype(np.float32), rates


def correct_shifted(probs: np.ndarray, priors: np.ndarray, shifted, kind: str) -> np.ndarray:
    """The probabilities float32 (n, L) with the shifted labels' re-estimated; all of them with one label per row."""
    columns = slice(None) if kind == "multiclass" else list(shifted)
    corrected = probs.copy()
    corrected[:, columns] = reestimate_priors(probs, priors, kind)[0][:, columns]
    return corrected


# ---------- Whether it would help


N_SIMULATIONS = 12
SIMULATED_ROWS = 2_000
"""Rows of each simulated test set."""
MOST_WEIGHT = 20.0
"""No OOF row is drawn more than this many times as often as another one."""
SAME_TEXTS = 0.02
"""An AUC at most this far from 0.5, beyond its error, is still that of the same kind of texts. Below it is as bad as
above: then the EM says that more changed than did, and weights of its rates overshoot."""


@dataclass(frozen=True)
class Correction:
    """What re-estimated label rates change, simulated on the OOF rows; more is better."""

    gain_if_rates: float
    """If only the label rates changed, as much as the EM says."""
    gain_if_texts: float
    """If the texts changed, as much as the mean probabilities say."""
    error: float
    """Standard error of the first, from the simulated test sets."""
    auc: float | None
    """Of the classifier of texts, with training rows weighted to the new rates; None if texts were not compared."""
    auc_error: float

    @property
    def texts_are_the_same(self) -> bool:
        """Whether nothing but the label rates seems to have changed; False if texts were not compared."""
        return self.auc is not None and abs(self.auc - 0.5) <= SAME_TEXTS + 2 * self.auc_error

    @property
    def is_offered(self) -> bool:
        """Whether nothing speaks against it, for those who know that only the rates changed: it gains then, more than
        by luck, and the texts are the same."""
        return self.texts_are_the_same and self.gain_if_rates > 2 * self.error


def simulate_correction(
    task: Task,
    rule: Rule,
    labels: np.ndarray,
    oof_probs: np.ndarray,
    test_probs: np.ndarray,
    shifted: np.ndarray,
    texts: TextComparison | None,
    train_labels: np.ndarray,
    seed: int,
) -> Correction:
    """Score the correction on OOF rows that are drawn to look like the test rows, in both ways they could have changed.

    Args: labels: bool (N, L).   oof_probs: float32 (N, L), cross-fitted, by the blend that is corrected.
          test_probs: float32 (n, L), by the same.   shifted: int64, the labels that are corrected.
          train_labels: bool, of all training rows, which `texts.rows` counts.
    """
    priors = labels.mean(axis=0)
    rates = priors.copy()
    rates[shifted] = reestimate_priors(test_probs, priors, task.kind)[1][shifted]
    means = oof_probs.mean(axis=0, dtype=np.float64)
    moved = means.copy()
    moved[shifted] = test_probs.mean(axis=0, dtype=np.float64)[shifted]

    def gains(weights: np.ndarray) -> np.ndarray:
        # the same seed for both cases, so that their gains differ by the weights alone
        rng, gained = np.random.default_rng(seed), []
        for _ in range(N_SIMULATIONS):
            # with replacement: rows that look like the test rows come several times
            rows = rng.choice(len(labels), min(len(labels), SIMULATED_ROWS), p=weights / weights.sum())
            probs = oof_probs[rows]
            corrected = correct_shifted(probs, priors, shifted, task.kind)
            with_it, without = (task.at(rows).score(labels[rows], decide(rule, each)) for each in (corrected, probs))
            gained.append(with_it - without)
        return np.array(gained)[np.isfinite(gained)]

    by_rates, by_texts = gains(_weigh(labels, priors, rates, shifted)), gains(_weigh(oof_probs, means, moved, shifted))
    auc, auc_error = None, 0.0
    if texts is not None:
        weights = _weigh(train_labels[texts.rows], priors, rates, shifted)
        auc, auc_error = weighted_auc(texts.train_scores, weights, texts.test_scores), texts.error
    error = float(by_rates.std(ddof=1) / np.sqrt(len(by_rates))) if len(by_rates) > 1 else 0.0
    return Correction(_mean(by_rates), _mean(by_texts), error, auc, auc_error)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _weigh(said: np.ndarray, before: np.ndarray, after: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Weights (N,) under which the shifted columns have the mean `after` in place of `before`, nearly, if one moved.

    Args: said: labels, for a change of rates, or probabilities, for a change of texts that the rates follow: (N, L).
    """
    weights = np.ones(len(said))
    for label in shifted:
        old, new = (np.clip(each[label], 1e-6, 1 - 1e-6) for each in (before, after))
        # labels are taken as independent; where they are not, the mean is only nearly `after`
        weights *= said[:, label] * (new / old) + (1 - said[:, label]) * ((1 - new) / (1 - old))
    return np.clip(weights, 1 / MOST_WEIGHT, MOST_WEIGHT)


def weighted_auc(low: np.ndarray, weights: np.ndarray, high: np.ndarray) -> float:
    """The chance that one of `high` is above one of `low`, drawn by its weight; ties count one half.

    Args: low, weights: float (n,).   high: float (m,).
    """
    order = np.argsort(low, kind="stable")
    below = np.r_[0.0, np.cumsum(weights[order])]
    left, right = (np.searchsorted(low[order], high, side) for side in ("left", "right"))
    return float((below[left] + below[right]).mean() / (2 * below[-1]))
