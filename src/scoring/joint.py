"""The scoring room's joint cut-offs: for metrics where one label's cut changes what another label's cut is worth.

Micro F1 has an exact answer. Samples F1, Jaccard and subset accuracy are climbed one label at a time: with the other
labels held, the best cut of one label is exact, and no step makes the score worse.
"""

from collections.abc import Callable

import numpy as np

from scoring.thresholds import check_probs, midpoints

MAX_PASSES = 20
"""Passes over the labels; a search usually stands still after three to six."""


def tune_micro_thresholds(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cut-offs with the highest micro F1, exactly: float32 (L,).

    Source: Dinkelbach 1967: micro F1 is a ratio 2 hits / (positives + decided). At a guessed value f every label on its
            own takes the cut with the largest 2 hits - f decided; the ratio reached is the next guess, until it stays.
    """
    check_probs(probs, labels)
    stairs = [_hits_by_cut(probs[:, label], labels[:, label]) for label in range(labels.shape[1])]
    positives, value = labels.sum(), 0.0
    while True:
        picked = [int(np.argmax(2 * hits - value * decided)) for _, hits, decided in stairs]
        hits = sum(stair[1][cut] for stair, cut in zip(stairs, picked, strict=True))
        decided = sum(stair[2][cut] for stair, cut in zip(stairs, picked, strict=True))
        reached = 2 * hits / max(positives + decided, 1)
        if reached <= value:
            return np.array([stair[0][cut] for stair, cut in zip(stairs, picked, strict=True)], np.float32)
        value = reached


def _hits_by_cut(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every cut from `nobody` down to `everybody`: its place, its hits, its decided rows."""
    cuts, order, last = cuts_of(probs)
    hits = np.r_[0, labels[order].cumsum()[last]]
    return cuts, hits, np.r_[0, last + 1]


def cuts_of(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All cuts of one label from high to low.

    Returns: cuts float32 (C + 1,), the first above every prob; order int64 (N,), rows from high to low;
             last int64 (C,), the position in `order` of the last row that cut c + 1 decides.
    """
    order = np.argsort(-probs, kind="stable")
    ordered = probs[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    upper, lower = ordered[last], np.r_[ordered[last[:-1] + 1], 0]
    nobody = np.nextafter(np.float32(ordered[0]), np.float32(2))
    return np.r_[nobody, midpoints(lower, upper)].astype(np.float32), order, last


def _f1(hits, positives, decided):
    return 2 * hits / np.maximum(positives + decided, 1)


def _jaccard(hits, positives, decided):
    return hits / np.maximum(positives + decided - hits, 1)


def _correct(hits, positives, decided):
    return ((hits == positives) & (hits == decided)).astype(np.float64)


ROW_VALUES: dict[str, Callable] = {"samples_f1": _f1, "jaccard": _jaccard, "subset_accuracy": _correct}
"""A row's score from its hits, its positives and its decided labels."""


def tune_row_thresholds(probs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    """Cut-offs that climb the mean of a row-wise score, float32 (L,), from the best cut common to all labels.

    Args: metric: one of `ROW_VALUES`.
    """
    check_probs(probs, labels)
    value = ROW_VALUES[metric]
    stairs = [cuts_of(probs[:, label]) for label in range(labels.shape[1])]
    thresholds = np.full(labels.shape[1], common_threshold(probs, labels, value), np.float32)
    decisions, positives = probs >= thresholds, labels.sum(axis=1)
    hits, decided = (decisions & labels).sum(axis=1), decisions.sum(axis=1)
    for _ in range(MAX_PASSES):
        before = value(hits, positives, decided).mean()
        for label, (cuts, order, last) in enumerate(stairs):
            hits -= decisions[:, label] & labels[:, label]
            decided -= decisions[:, label]
            gain = value(hits + labels[:, label], positives, decided + 1) - value(hits, positives, decided)
            reached = np.r_[0, gain[order].cumsum()[last]]
            if (
                reached.max() > gain[decisions[:, label]].sum() + 1e-9
            ):  # an equal cut would only let labels go in circles
                thresholds[label] = cuts[np.argmax(reached)]
            decisions[:, label] = probs[:, label] >= thresholds[label]
            hits += decisions[:, label] & labels[:, label]
            decided += decisions[:, label]
        if value(hits, positives, decided).mean() <= before + 1e-9:
            break
    return thresholds


def common_threshold(probs: np.ndarray, labels: np.ndarray, value: Callable) -> float:
    """The one cut for all labels, of 25 between 0.02 and 0.98, with the best mean row score."""
    positives, best = labels.sum(axis=1), (-1.0, 0.5)
    for cut in np.linspace(0.02, 0.98, 25):
        decisions = probs >= cut
        score = value((decisions & labels).sum(axis=1), positives, decisions.sum(axis=1)).mean()
        best = max(best, (float(score), float(cut)))
    return best[1]
