"""Thresholds for metrics in which one label's threshold changes what another's is worth, and offsets per class.

Three searches: micro F1, which has an exact solution; scores of a row (samples F1, Jaccard, subset accuracy); and
offsets on log-probabilities, if a row has exactly one label. All of them move along sorted probabilities, so that the
metric at every threshold of one label costs one cumulative sum.
"""

from collections.abc import Callable

import numpy as np

from foldblend.scoring.thresholds.exact import check_probs, midpoints

# ---------- All thresholds of one label


def all_thresholds(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold of one label that decides different rows, from high to low.

    Args:    probs: float32 (N,).
    Returns: thresholds float32 (C + 1,), the first above every prob; order int64 (N,), rows from high to low;
             last int64 (C,), the position in `order` of the last row that threshold c + 1 decides.
    """
    order = np.argsort(-probs, kind="stable")
    ordered = probs[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    upper, lower = ordered[last], np.r_[ordered[last[:-1] + 1], 0]
    above_all = np.nextafter(np.float32(ordered[0]), np.float32(2))
    return np.r_[above_all, midpoints(lower, upper)].astype(np.float32), order, last


# ---------- Micro F1


def tune_micro_thresholds(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The thresholds with the highest micro F1, exactly.

    Args:    probs: float32 (N, L), in [0, 1].   labels: bool (N, L).
    Returns: float32 (L,).
    Raises:  UserError: shapes differ, or probs leave [0, 1].
    Source:  Dinkelbach 1967: micro F1 is a ratio 2 hits / (positives + decided). At a guessed value f each label by
             itself takes the threshold with the largest 2 hits - f decided; the ratio reached is the next guess, until
             it stays the same.
    """
    check_probs(probs, labels)
    stairs = [_count_at_thresholds(probs[:, label], labels[:, label]) for label in range(labels.shape[1])]
    positives, value = labels.sum(), 0.0
    while True:
        picked = [int(np.argmax(2 * hits - value * decided)) for _, hits, decided in stairs]
        hits = sum(stair[1][at] for stair, at in zip(stairs, picked, strict=True))
        decided = sum(stair[2][at] for stair, at in zip(stairs, picked, strict=True))
        reached = 2 * hits / max(positives + decided, 1)
        if reached <= value:
            return np.array([stair[0][at] for stair, at in zip(stairs, picked, strict=True)], np.float32)
        value = reached


def _count_at_thresholds(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold from no row down to every row, its hits and its decided rows, each (C + 1,)."""
    thresholds, order, last = all_thresholds(probs)
    hits = np.r_[0, labels[order].cumsum()[last]]
    return thresholds, hits, np.r_[0, last + 1]


# ---------- Scores of a row


MAX_PASSES = 20
"""Passes over the labels; a search usually stops after three to six."""


def _f1(hits, positives, decided):
    return 2 * hits / np.maximum(positives + decided, 1)


def _jaccard(hits, positives, decided):
    return hits / np.maximum(positives + decided - hits, 1)


def _correct(hits, positives, decided):
    return ((hits == positives) & (hits == decided)).astype(np.float64)


ROW_VALUES: dict[str, Callable] = {"samples_f1": _f1, "jaccard": _jaccard, "subset_accuracy": _correct}
"""A row's score from its hits, its positives and its decided labels."""


def tune_row_thresholds(probs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    """Thresholds that climb the mean of a row's score, label by label, from the best one common to all labels.

    Args:    probs: float32 (N, L), in [0, 1].   labels: bool (N, L).   metric: one of ROW_VALUES.
    Returns: float32 (L,).
    Raises:  UserError: shapes differ, or probs leave [0, 1].
    """
    check_probs(probs, labels)
    value = ROW_VALUES[metric]
    stairs = [all_thresholds(probs[:, label]) for label in range(labels.shape[1])]
    thresholds = np.full(labels.shape[1], common_threshold(probs, labels, value), np.float32)
    decisions, positives = probs >= thresholds, labels.sum(axis=1)
    hits, decided = (decisions & labels).sum(axis=1), decisions.sum(axis=1)  # (N,): of all labels
    for _ in range(MAX_PASSES):
        before = value(hits, positives, decided).mean()
        for label, (tried, order, last) in enumerate(stairs):
            hits -= decisions[:, label] & labels[:, label]  # now of all other labels
            decided -= decisions[:, label]
            gain = value(hits + labels[:, label], positives, decided + 1) - value(hits, positives, decided)
            reached = np.r_[0, gain[order].cumsum()[last]]  # (C + 1,): what each threshold adds
            # an equal threshold is not taken: the labels would go in circles
            if reached.max() > gain[decisions[:, label]].sum() + 1e-9:
                thresholds[label] = tried[np.argmax(reached)]
            decisions[:, label] = probs[:, label] >= thresholds[label]
            hits += decisions[:, label] & labels[:, label]
            decided += decisions[:, label]
        if value(hits, positives, decided).mean() <= before + 1e-9:
            break
    return thresholds


def common_threshold(probs: np.ndarray, labels: np.ndarray, value: Callable) -> float:
    """The one threshold for all labels, of 25 between 0.02 and 0.98, with the best mean row score."""
    positives, best = labels.sum(axis=1), (-1.0, 0.5)
    for threshold in np.linspace(0.02, 0.98, 25):
        decisions = probs >= threshold
        score = value((decisions & labels).sum(axis=1), positives, decisions.sum(axis=1)).mean()
        best = max(best, (float(score), float(threshold)))
    return best[1]


# ---------- One label per row: the class with the largest log-probability plus its offset


MAX_OFFSETS = 200
"""Offsets tried for one class and pass."""
MAX_OFFSET_PASSES = 10
"""Passes over the classes."""


def _label_f1(hits, positives, decided):
    return 2 * hits / np.maximum(positives + decided, 1)


CLASS_SCORES: dict[str, Callable] = {
    "accuracy": lambda hits, positives, decided: hits.sum(axis=1) / positives.sum(),
    "micro_f1": lambda hits, positives, decided: hits.sum(axis=1) / positives.sum(),
    "macro_f1": lambda hits, positives, decided: _label_f1(hits, positives, decided).mean(axis=1),
    "weighted_f1": lambda hits, positives, decided: _label_f1(hits, positives, decided) @ positives / positives.sum(),
}
"""Multiclass metrics from class counts: hits (C, L), positives (L,), decided (C, L) -> scores (C,)."""


def tune_offsets(log_probs: np.ndarray, labels: np.ndarray, score: Callable) -> np.ndarray:
    """Offsets that climb a multiclass metric, one class at a time from zero.

    Args:    log_probs: float32 (N, L).   labels: bool (N, L), one True per row.   score: one of CLASS_SCORES.
    Returns: float32 (L,), with mean 0.
    How:     with the other offsets held, raising class c wins rows from their runner-up in the order of their margin,
             so the class counts after every step are cumulative sums.
    """
    truth, offsets = labels.argmax(axis=1), np.zeros(labels.shape[1])
    positives, best = labels.sum(axis=0), -1.0
    for _ in range(MAX_OFFSET_PASSES):
        before = best
        for label in range(labels.shape[1]):
            offset, reached = _best_offset(log_probs + offsets.astype(np.float32), truth, positives, label, score)
            if reached > best + 1e-12:
                best, offsets[label] = reached, offsets[label] + offset
        if best <= before + 1e-9:
            break
    return (offsets - offsets.mean()).astype(np.float32)


def _best_offset(
    scores: np.ndarray, truth: np.ndarray, positives: np.ndarray, label: int, score: Callable
) -> tuple[float, float]:
    """How far to move one class, and the metric that reaches.

    Args: scores: float32 (N, L), log-probs with the offsets so far.   truth: int64 (N,).   positives: int64 (L,).
    """
    n_labels, own = scores.shape[1], scores[:, label]
    others = scores.copy()
    others[:, label] = -np.inf
    rival = others.argmax(axis=1)
    margin = others[np.arange(len(truth)), rival] - own  # (N,): the class takes the row once its offset passes this
    tried = np.unique(np.quantile(margin, np.linspace(0, 1, MAX_OFFSETS), method="lower"))  # (C,)
    step = np.searchsorted(tried, margin, "left")  # (N,): the row is taken at offset number `step` or later
    shape = (len(tried), n_labels)
    # what each rival loses at each step, counted in one bincount of (step, rival) pairs
    lost = np.bincount(step * n_labels + rival, minlength=len(tried) * n_labels).reshape(shape).cumsum(axis=0)
    right = rival == truth
    lost_hits = np.bincount((step * n_labels + rival)[right], minlength=lost.size).reshape(shape).cumsum(axis=0)
    decided = np.bincount(rival, minlength=n_labels) - lost
    hits = np.bincount(rival[right], minlength=n_labels) - lost_hits
    decided[:, label] = lost.sum(axis=1)
    hits[:, label] = np.bincount(step[truth == label], minlength=len(tried)).cumsum()
    reached = score(hits, positives, decided)
    winner = int(np.argmax(reached))
    above = tried[winner + 1] if winner + 1 < len(tried) else tried[winner] + 1e-3
    return float((tried[winner] + above) / 2), float(reached[winner])
