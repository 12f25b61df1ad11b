"""The scoring room's bootstrap: how far a score would move on other rows, and whether a difference is more than luck.

Rows are drawn together for all candidates, so differences are paired. A metric is turned into numbers that add up over
rows: counts a label for F1, a row's own score for samples F1, Jaccard, accuracy and log loss, and the influence of a
row for AUC and average precision (the infinitesimal jackknife). The numbers are added up in random buckets of rows,
and buckets are drawn: random buckets vary as random rows do, and a resample costs the same for any number of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foldblend.scoring.metrics.table import METRICS, row_class_log_loss
from foldblend.scoring.thresholds.rules import Task

N_BUCKETS = 1_000
"""Buckets of rows; fewer rows than that are drawn one by one."""


@dataclass(frozen=True)
class Buckets:
    """Random buckets of rows, none across two parts."""

    part: np.ndarray
    """int64 (N,): the part of each row."""
    seed: int

    @cached_property
    def order(self) -> np.ndarray:
        """Rows in random order within their part, int64 (N,)."""
        return np.lexsort((np.random.default_rng(self.seed).permutation(len(self.part)), self.part))

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each bucket begins in `order`, int64 (G,)."""
        edges = np.flatnonzero(np.diff(self.part[self.order], prepend=-1))
        spaced = np.linspace(0, len(self.part), min(N_BUCKETS, len(self.part)), endpoint=False).astype(np.int64)
        return np.union1d(edges, spaced)

    @cached_property
    def parts(self) -> np.ndarray:
        """The part of each bucket, int64 (G,)."""
        return self.part[self.order][self.starts]

    def add_up(self, *pieces: np.ndarray) -> np.ndarray:
        """Sums of several (N, S) tables in every bucket, float32 (G, sum of S + 1); the last column counts rows."""
        sums = [np.add.reduceat(piece[self.order], self.starts, axis=0, dtype=np.float32) for piece in pieces]
        return np.column_stack([*sums, np.diff(self.starts, append=len(self.part)).astype(np.float32)])


@dataclass(frozen=True)
class Additive:
    """One candidate's metric as sums over buckets of rows."""

    sums: np.ndarray
    """float32 or uint16 (G, S + 1), the last column the number of rows."""
    finish: Callable[[np.ndarray], np.ndarray]
    """Sums (B, S + 1) -> scores (B,); more is better."""

    def score(self, buckets) -> float:
        """The metric on some buckets: a bool mask (G,)."""
        return float(self.finish(self.sums[buckets].sum(axis=0, dtype=np.float64)[None])[0])


def resample(
    candidates: list[Additive], among: np.ndarray, drawn_share: float, n_resamples: int, seed: int
) -> np.ndarray:
    """Scores of every candidate on the same bootstrap resamples: float64 (B, C).

    Args:   among: bool (G,), the buckets to draw from.   drawn_share: rows a resample has, per row there is.
    Source: each bucket comes a Poisson number of times, which is a bootstrap whose size varies a little.
    """
    counts = np.random.default_rng(seed).poisson(drawn_share, (n_resamples, int(among.sum()))).astype(np.float32)
    scores = (candidate.finish(counts @ candidate.sums[among].astype(np.float32)) for candidate in candidates)
    return np.stack(list(scores), axis=1)


def make_additive(task: Task, labels: np.ndarray, answer: np.ndarray, buckets: Buckets) -> Additive:
    """The task's metric on one candidate's answer, as sums over buckets of rows.

    Args: labels: bool (N, L); metrics of `FROM_COUNTS` take float32 chances too.
    """
    metric = METRICS[task.metric]
    if task.metric in FROM_COUNTS:
        sums = buckets.add_up(labels * answer, labels, answer)
        counts = labels.dtype == bool and len(labels) < 2**16  # then they fit; dozens of candidates are held
        return Additive(sums.astype(np.uint16) if counts else sums, FROM_COUNTS[task.metric])
    if task.metric in INFLUENCES:
        value, influence = INFLUENCES[task.metric](labels, answer)
        finish = lambda sums: value + sums[:, 0] / np.maximum(sums[:, 1], 1)  # noqa: E731
        return Additive(buckets.add_up(influence[:, None]), finish)
    rows = row_class_log_loss if task.metric == "log_loss" and task.kind == "multiclass" else metric.rows
    sign = 1 if metric.greater_is_better else -1
    return Additive(buckets.add_up(sign * rows(labels, answer)[:, None]), _mean)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def _split(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.split(sums[:, :-1], 3, axis=1))


def _label_f1(sums: np.ndarray) -> np.ndarray:
    hits, positives, decided = _split(sums)
    return 2 * hits / np.maximum(positives + decided, 1)


def _macro(sums: np.ndarray) -> np.ndarray:
    return _label_f1(sums).mean(axis=1)


def _weighted(sums: np.ndarray) -> np.ndarray:
    positives = _split(sums)[1]
    return (_label_f1(sums) * positives).sum(axis=1) / np.maximum(positives.sum(axis=1), 1)


def _micro(sums: np.ndarray) -> np.ndarray:
    hits, positives, decided = (part.sum(axis=1) for part in _split(sums))
    return 2 * hits / np.maximum(positives + decided, 1)


FROM_COUNTS = {"macro_f1": _macro, "weighted_f1": _weighted, "micro_f1": _micro}


def _auc_influence(labels: np.ndarray, probs: np.ndarray) -> tuple[float, np.ndarray]:
    """Macro AUC and each row's influence on it (N,), from placement values (DeLong et al. 1988)."""
    values, influence = [], np.zeros(len(labels))
    for label in range(labels.shape[1]):
        positive, column = labels[:, label], probs[:, label]
        n_positives = int(positive.sum())
        if n_positives in (0, len(labels)):
            continue
        placed = np.empty(len(labels))
        placed[positive] = _share_below(column[positive], np.sort(column[~positive]))
        placed[~positive] = 1 - _share_below(column[~positive], np.sort(column[positive]))
        value = placed[positive].mean()
        rate = np.where(positive, n_positives, len(labels) - n_positives) / len(labels)
        values.append(value)
        influence += (placed - value) / rate
    return float(np.mean(values)), influence / max(len(values), 1)


def _share_below(column: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Share of `ordered` below each value, ties as one half."""
    return (ordered.searchsorted(column, "left") + ordered.searchsorted(column, "right")) / (2 * len(ordered))


def _ap_influence(labels: np.ndarray, probs: np.ndarray) -> tuple[float, np.ndarray]:
    """Macro average precision and each row's influence on it (N,): the derivative by the row's weight.

    AP = sum over positives i of (hits_i / decided_i) / positives. A row adds to hits and decided of every positive that
    is not above it, and a positive row adds its own precision.
    """
    values, influence = [], np.zeros(len(labels))
    for label in range(labels.shape[1]):
        positive, column = labels[:, label], probs[:, label]
        n_positives = int(positive.sum())
        if not n_positives:
            values.append(0.0)
            continue
        ordered, lowest = np.sort(column), np.sort(column[positive])
        decided = len(ordered) - ordered.searchsorted(lowest, "left")
        precision = (n_positives - lowest.searchsorted(lowest, "left")) / decided
        by_hit, by_row = np.r_[0, (1 / decided).cumsum()], np.r_[0, (precision / decided).cumsum()]
        reach = lowest.searchsorted(column, "right")  # positives not above the row
        slope = positive * by_hit[reach] - by_row[reach]
        value = precision.mean()
        slope[positive] += precision[lowest.searchsorted(column[positive], "left")] - value
        values.append(value)
        influence += slope * (len(labels) / n_positives)
    return float(np.mean(values)), influence / labels.shape[1]


INFLUENCES = {"macro_auc": _auc_influence, "macro_ap": _ap_influence}
"""Metrics that do not add up over rows: their value and each row's influence."""
