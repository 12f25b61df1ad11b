"""The bootstrap: how far a score would move on other rows, and whether a difference is more than luck.

Rows are drawn together for all candidates, so differences are paired. A metric is turned into numbers that add up over
rows: counts per label for F1, a row's own score for samples F1, Jaccard, accuracy and log loss, and the influence of a
row for AUC and average precision (the infinitesimal jackknife). Any other metric is recomputed without one block of
rows at a time (the delete-a-group jackknife), which gives each block's influence: slower, and right for any smooth one.

The numbers are added up in random buckets of rows, and buckets are drawn: random buckets vary as random rows do, and a
resample costs the same for any number of rows. Rows of one group (duplicates, or groups that the user brought) are one
observation, so a bucket holds whole groups. Source: Efron and Tibshirani 1993, "An introduction to the bootstrap";
Cameron, Gelbach and Miller 2008, "Bootstrap-based improvements for inference with clustered errors".

A bootstrap of few groups varies too little: a label whose positives are in three groups has hardly any other resamples.
Leaving out one bucket at a time does not have this fault, so its standard error sets the width and the bootstrap the
form (`measure_widths`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit

from foldblend.scoring.inputs import Task
from foldblend.scoring.metrics.table import Score, known_columns

# ---------- Buckets of rows


N_BUCKETS = 1_000
"""Buckets of rows; fewer groups than that are drawn one by one."""


@dataclass(frozen=True)
class Buckets:
    """Random buckets of whole groups of rows, none across two parts."""

    part: np.ndarray
    """int64 (N,): the part of each row."""
    seed: int
    group: np.ndarray | None = None
    """int64 (N,): rows with the same number are drawn together; a group in two parts is one in each. None: every row is
    a group of its own."""

    @cached_property
    def order(self) -> np.ndarray:
        """Rows in random order within their part, those of a group one after another, int64 (N,)."""
        drawn = np.random.default_rng(self.seed).permutation(len(self.part))
        if self.group is None:
            return np.lexsort((drawn, self.part))
        member = np.unique(self.group, return_inverse=True)[1]
        first = np.full(member.max() + 1, len(drawn))
        np.minimum.at(first, member, drawn)  # a group is placed by the first of its rows, a row alone by itself
        # np.lexsort takes its last key first: by part, then by the group, then by the row itself
        return np.lexsort((drawn, first[member], self.part))

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each bucket begins in `order`, int64 (G,)."""
        edges = np.flatnonzero(np.diff(self.part[self.order], prepend=-1))
        # a bucket that would cross into the next part is cut in two, so a few have fewer rows
        spaced = np.linspace(0, len(self.part), min(N_BUCKETS, len(self.part)), endpoint=False).astype(np.int64)
        if self.group is not None:  # down to the first row of the group there
            ordered = self.group[self.order]
            firsts = np.union1d(edges, np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1)))
            spaced = firsts[np.searchsorted(firsts, spaced, side="right") - 1]
        return np.union1d(edges, spaced)

    @cached_property
    def parts(self) -> np.ndarray:
        """The part of each bucket, int64 (G,)."""
        return self.part[self.order][self.starts]

    @property
    def everything(self) -> np.ndarray:
        """The mask of all buckets, bool (G,)."""
        return np.ones(len(self.starts), bool)

    def add_up(self, *pieces: np.ndarray) -> np.ndarray:
        """Sums of several (N, S) tables in every bucket, float32 (G, sum of S + 1); the last column counts rows."""
        # reduceat adds up the rows between two starts in one pass, for all columns at once
        sums = [np.add.reduceat(piece[self.order], self.starts, axis=0, dtype=np.float32) for piece in pieces]
        return np.column_stack([*sums, np.diff(self.starts, append=len(self.part)).astype(np.float32)])


# ---------- Resamples


@dataclass(frozen=True)
class Additive:
    """One candidate's metric as sums over buckets of rows."""

    sums: np.ndarray
    """float32 or uint16 (G, S + 1), the last column the number of rows."""
    finish: Callable[[np.ndarray], np.ndarray]
    """Sums (B, S + 1) -> scores (B,); more is better."""

    def score(self, among: np.ndarray) -> float:
        """The metric on some buckets: a bool mask (G,)."""
        return float(self.finish(self.sums[among].sum(axis=0, dtype=np.float64)[None])[0])

    def moves(self, among: np.ndarray) -> np.ndarray:
        """How far the metric on some buckets moves by each of them: float64 (g,), squares sum to the score's variance.

        Args:   among: bool (G,), g of them True.
        Source: the delete-one jackknife over groups (Efron and Stein 1981); Cameron and Miller 2015, "A practitioner's
                guide to cluster-robust inference", call it CR3 and find it the safest of its kind for few groups.
        """
        sums = self.sums[among]
        # the score without each bucket, all g of them in one call: every row of this table is the total less one bucket
        without = self.finish(sums.sum(axis=0, dtype=np.float64) - sums)
        # the jackknife variance is (g - 1) / g * sum((without - mean)**2); the factor goes into each term
        return (without.mean() - without) * np.sqrt((len(sums) - 1) / len(sums))


def resample(
    candidates: list[Additive], among: np.ndarray, drawn_share: float, n_resamples: int, seed: int
) -> np.ndarray:
    """Scores of every candidate on the same bootstrap resamples: float64 (B, C).

    Args: among: bool (G,), the buckets to draw from.   drawn_share: rows drawn per row there is.
    How:  each bucket comes a Poisson number of times, which is a bootstrap whose size varies a little.
    """
    # float32, so that the resamples of one candidate are a single matrix product: (B, G) @ (G, S + 1)
    counts = np.random.default_rng(seed).poisson(drawn_share, (n_resamples, int(among.sum()))).astype(np.float32)
    scores = (candidate.finish(counts @ candidate.sums[among].astype(np.float32)) for candidate in candidates)
    return np.stack(list(scores), axis=1)


FEWEST_FREEDOM = 2.0
"""Degrees of freedom that an interval is at least given."""


def measure_widths(moves: np.ndarray, drawn_error: float) -> tuple[float, float]:
    """What a bootstrap's deviations are multiplied with, so that few groups are not taken for many.

    Args:    moves: float64 (g,), of `Additive.moves`.   drawn_error: the standard deviation of the bootstrap.
    Returns: scale, from 1: brings the bootstrap's standard deviation to the jackknife's;
             tails, from 1: the 95 % point of Student's t over the normal's, as the standard error is itself measured
             on few groups. Its degrees of freedom are Satterthwaite's: (sum m**2)**2 / sum m**4, the number of
             groups if all matter alike, and few if some matter most. Both are nearly 1 for hundreds of rows alone.
    Source:  Satterthwaite 1946; Bell and McCaffrey 2002 (degrees of freedom of a cluster-robust variance).
    """
    squares = moves**2
    if not squares.any() or drawn_error == 0:
        return 1.0, 1.0
    scale = max(1.0, float(np.sqrt(squares.sum()) / drawn_error))
    freedom = max(float(squares.sum() ** 2 / (squares**2).sum()), FEWEST_FREEDOM)
    return scale, float(stdtrit(freedom, 0.95) / Z95)


Z95 = 1.6449
"""The 95 % point of the normal distribution."""


@dataclass(frozen=True)
class Difference:
    """How much one answer scores above another on the same rows."""

    gain: float
    low: float
    high: float
    """The 90 % interval of the paired bootstrap."""


N_COMPARED_RESAMPLES = 1_000
"""Paired bootstrap resamples of two answers."""


def compare(task: Task, labels: np.ndarray, better: np.ndarray, worse: np.ndarray, buckets: Buckets) -> Difference:
    """Paired bootstrap of two answers (N, L): the first one's score minus the second one's."""
    pair = [make_additive(task, labels, answer, buckets) for answer in (better, worse)]
    drawn = resample(pair, buckets.everything, 1.0, N_COMPARED_RESAMPLES, buckets.seed)
    # both answers on the same resamples: what is easy or hard about the rows cancels
    lead = drawn[:, 0] - drawn[:, 1]
    moves = pair[0].moves(buckets.everything) - pair[1].moves(buckets.everything)
    scale, tails = measure_widths(moves, float(lead.std()))
    # the bootstrap's form, stretched around its mean to the width that the jackknife found
    low, high = np.quantile(lead.mean() + scale * tails * (lead - lead.mean()), [0.05, 0.95])
    gain = pair[0].score(buckets.everything) - pair[1].score(buckets.everything)
    return Difference(gain, float(low), float(high))


# ---------- A metric as numbers that add up


def make_additive(task: Task, labels: np.ndarray, answer: np.ndarray, buckets: Buckets) -> Additive:
    """The task's metric on one candidate's answer, as sums over buckets of rows.

    Args: labels: bool (N, L); metrics of FROM_COUNTS take float32 probabilities too.
          answer: bool or float32 (N, L), whichever the metric takes.
    """
    if task.metric in FROM_COUNTS:
        sums = buckets.add_up(labels * answer, labels, answer)
        counts = labels.dtype == bool and len(labels) < 2**16  # then they fit; dozens of candidates are held
        # two bytes instead of four: a count in a bucket is at most its number of rows
        return Additive(sums.astype(np.uint16) if counts else sums, FROM_COUNTS[task.metric])
    if task.known is not None:
        return _of_known_cells(task, labels, answer, buckets)
    # the metric is not a sum, but to first order it moves by the sum of the influences of the rows that are drawn
    if task.metric in INFLUENCES:
        value, influence = INFLUENCES[task.metric](labels, answer)
    elif task.metric == "group_auc":
        value, influence = _group_auc_influence(labels, answer, task.groups)
    elif task.entry.by_row is not None:
        return Additive(buckets.add_up(task.entry.sign * task.entry.by_row(labels, answer)[:, None]), _mean)
    else:
        value, influence = jackknife(task.score, labels, answer, buckets)
    return Additive(buckets.add_up(influence[:, None]), lambda sums: value + _mean(sums))


def _of_known_cells(task: Task, labels: np.ndarray, answer: np.ndarray, buckets: Buckets) -> Additive:
    """A metric of labels one by one, each on the rows in which it is known."""
    value, by_row = task.score(labels, answer), task.entry.by_row
    assert task.known is not None
    if task.metric in INFLUENCES or by_row is not None:
        influence, columns = np.zeros(len(labels)), known_columns(task.entry, labels, task.known)
        for label, rows in columns:
            of_rows = labels[rows, label, None], answer[rows, label, None]
            if by_row is None:
                own = INFLUENCES[task.metric](*of_rows)[1]
            else:
                own = task.entry.sign * by_row(*of_rows)
                own = own - own.mean()
            influence[rows] += own * (len(labels) / len(rows) / len(columns))
    else:

        def score(rows: np.ndarray, answer: np.ndarray) -> float:
            return task.at(rows).score(labels[rows], answer)

        value, influence = jackknife(score, np.arange(len(labels)), answer, buckets)
    return Additive(buckets.add_up(influence[:, None]), lambda sums: value + _mean(sums))


def _mean(sums: np.ndarray) -> np.ndarray:
    # the last column counts rows; a resample may have drawn none
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def _split(sums: np.ndarray) -> list[np.ndarray]:
    """Hits, positives and decided rows, each (B, L)."""
    return np.split(sums[:, :-1], 3, axis=1)


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
"""Metrics of counts per label: sums (B, 3 L + 1) -> scores (B,)."""

# ---------- Influences: how far the metric moves per row, if the row's weight rises


def _auc_influence(labels: np.ndarray, probs: np.ndarray) -> tuple[float, np.ndarray]:
    """Macro AUC and each row's influence on it, float64 (N,), from placement values (DeLong et al. 1988)."""
    values, influence = [], np.zeros(len(labels))
    for label in range(labels.shape[1]):
        positive, column = labels[:, label], probs[:, label]
        n_positives = int(positive.sum())
        if n_positives in (0, len(labels)):
            continue
        placed = np.empty(len(labels))  # a row's placement: the share of the other class that it beats
        placed[positive] = _share_below(column[positive], np.sort(column[~positive]))
        placed[~positive] = 1 - _share_below(column[~positive], np.sort(column[positive]))
        value = placed[positive].mean()
        # a row stands for a share of its class alone, so the rarer class moves the AUC more per row
        rate = np.where(positive, n_positives, len(labels) - n_positives) / len(labels)
        values.append(value)
        # DeLong: an AUC is the mean placement of either class, so a row moves it by how far its own is from that mean
        influence += (placed - value) / rate
    return float(np.mean(values)), influence / max(len(values), 1)


def _group_auc_influence(labels: np.ndarray, probs: np.ndarray, groups: np.ndarray | None) -> tuple[float, np.ndarray]:
    """The same for AUC averaged over groups: a row moves the AUCs of its own group alone."""
    groups = np.zeros(len(labels), np.int64) if groups is None else groups
    values, influence = [], np.zeros(len(labels))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        defined = labels[rows].any(axis=0) & ~labels[rows].all(axis=0)
        if not defined.any():
            continue
        value, own = _auc_influence(labels[rows][:, defined], probs[rows][:, defined])
        values += [value] * int(defined.sum())
        influence[rows] = own * defined.sum() * (len(labels) / len(rows))  # `own` is per row of the group
    return float(np.mean(values)) if values else 0.5, influence / max(len(values), 1)


def _share_below(column: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Share of `ordered` below each value, ties as one half."""
    return (ordered.searchsorted(column, "left") + ordered.searchsorted(column, "right")) / (2 * len(ordered))


def _ap_influence(labels: np.ndarray, probs: np.ndarray) -> tuple[float, np.ndarray]:
    """Macro average precision and each row's influence on it, float64 (N,): the derivative by the row's weight.

    AP = sum over positives i of (hits_i / decided_i) / positives. A row adds to hits and decided of every positive that
    is not above it, and a positive row adds its own precision.
    """
    values, influence = [], np.zeros(len(labels))
    for label in range(labels.shape[1]):
        positive, column = labels[:, label], probs[:, label]
        n_positives = int(positive.sum())
        if not n_positives:
            # as the metric itself counts a label without positives, so that the divisor below is the same
            values.append(0.0)
            continue
        ordered, lowest = np.sort(column), np.sort(column[positive])
        decided = len(ordered) - ordered.searchsorted(lowest, "left")
        # rows with equal probs are decided together, so all of them count as above: "left"
        precision = (n_positives - lowest.searchsorted(lowest, "left")) / decided
        # cumulated over positives from the lowest up: what a hit, or one more decided row, adds to all positives not
        # above it
        by_hit, by_row = np.r_[0, (1 / decided).cumsum()], np.r_[0, (precision / decided).cumsum()]
        reach = lowest.searchsorted(column, "right")  # positives not above the row
        slope = positive * by_hit[reach] - by_row[reach]
        value = precision.mean()
        # its own term in the mean, less the mean itself, which one more positive dilutes
        slope[positive] += precision[lowest.searchsorted(column[positive], "left")] - value
        values.append(value)
        influence += slope * (len(labels) / n_positives)
    return float(np.mean(values)), influence / labels.shape[1]


INFLUENCES: dict[str, Callable] = {"macro_auc": _auc_influence, "macro_ap": _ap_influence}
"""Metrics with a known derivative: (labels, probs) -> value, each row's influence (N,)."""

N_BLOCKS = 100
"""Blocks of rows that `jackknife` leaves out in turn: standard errors come out within about 7 %."""


def jackknife(score: Score, labels: np.ndarray, answer: np.ndarray, buckets: Buckets) -> tuple[float, np.ndarray]:
    """Any metric and its influences, by leaving out one block of rows at a time: the value, and float64 (N,).

    A block's influence is put on its first row alone, so that resamples draw it as one: shared out over its rows, which
    are drawn by themselves, it would average out.

    Args:   score: (labels, answer) -> float, more is better; it must not depend on the order of the rows.
    Source: the delete-a-group jackknife (Kott 2001). For a mean over rows the influence of a block is exactly its mean
            minus the whole one's, times its rows.
    """
    n_rows, value = len(labels), score(labels, answer)
    part_edges = np.flatnonzero(np.diff(buckets.part[buckets.order], prepend=-1))  # no block is across two parts
    spaced = buckets.starts[:: max(1, len(buckets.starts) // N_BLOCKS)]
    edges = np.r_[np.union1d(part_edges, spaced), n_rows]
    influence = np.zeros(n_rows)
    keep = np.ones(n_rows, bool)
    for start, stop in pairwise(edges):
        block = buckets.order[start:stop]
        keep[block] = False
        # nan if the metric is not defined without the block, as a label then has no positive: it has no say then
        moved = value - score(labels[keep], answer[keep])
        keep[block] = True
        # the derivative by the block's weight, from a step of its whole weight
        influence[block[0]] = moved * (n_rows - len(block)) if np.isfinite(moved) else 0.0
    # influences have mean 0, or a resample of average rows would move the metric
    return value, influence - influence.mean()
