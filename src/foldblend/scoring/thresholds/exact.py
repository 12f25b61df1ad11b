"""The scoring room's decoder for one label a row: the class with the largest log-probability plus its offset."""

from collections.abc import Callable

import numpy as np

from foldblend.scoring.parallel import over_labels

# ---------- exact cut-offs: F1 is a staircase that steps only at positives, so every step is looked at.


def tune_thresholds(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pick the cut-off per label that maximises that label's F1; macro-F1 separates by label, so this is exact.

    Args:    probs: float32 (N, L), in [0, 1].   labels: bool (N, L).
    Returns: float32 (L,), halfway between neighbouring probs; 0.5 for a label without a positive.
    Example: tune_thresholds(np.float32([[.2], [.6], [.9]]), np.array([[0], [1], [1]], bool)) -> [0.4]
    Raises:  ValueError: shapes differ, or probs leave [0, 1] (are these logits?).
    Source:  Lipton et al. 2014, arXiv:1402.1892 (the optimum lies at a positive's score). O(N log N) a label.
    """
    check_probs(probs, labels)
    cuts = over_labels(lambda k: _best_cut(probs[:, k], labels[:, k]), labels.shape[1], len(probs))
    return np.array(cuts, np.float32)


def check_probs(probs: np.ndarray, labels: np.ndarray):
    """Refuse what is not a table of probabilities beside a table of labels of the same shape."""
    if probs.shape != labels.shape or probs.ndim != 2:
        raise ValueError(f"probs are {probs.shape}, labels {labels.shape}; expected the same (N, L)")
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise ValueError(f"probs span {probs.min():.4g} to {probs.max():.4g}; expected [0, 1]. Are these logits?")


def _best_cut(probs: np.ndarray, labels: np.ndarray) -> float:
    if not labels.any():
        return 0.5
    cuts, hits, decided = staircase(probs, labels)
    return cuts[np.argmax(hits / (decided + hits[-1]))]


def staircase(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every cut that can be optimal for one label: just below each distinct positive, from the highest down.

    Args:    probs: float (N,).   labels: bool (N,), at least one True.
    Returns: cuts float (C,), halfway to the next lower prob; hits int (C,): positives at or above; decided int (C,).
    """
    ordered, positives = np.sort(probs), np.sort(probs[labels])
    values = positives[np.r_[True, positives[1:] != positives[:-1]]]  # ascending, distinct
    below = ordered.searchsorted(values, "left")
    hits = len(positives) - positives.searchsorted(values, "left")
    cuts = midpoints(np.where(below > 0, ordered[below - 1], 0), values)
    return cuts[::-1], hits[::-1], (len(ordered) - below)[::-1]


def midpoints(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Halfway between two probs as float32, and `upper` itself where rounding would let `lower` pass the cut."""
    middle = ((lower.astype(np.float64) + upper) / 2).astype(np.float32)
    return np.where(middle > lower, middle, upper).astype(np.float32)


# ---------- joint cut-offs: for metrics where one label's cut changes what another label's cut is worth.


MAX_JOINT_PASSES = 20
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
    for _ in range(MAX_JOINT_PASSES):
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


# ---------- decoder for one label a row: the class with the largest log-probability plus its offset.


MAX_CUTS = 200
"""Paths tried for one class's offset."""
MAX_OFFSET_PASSES = 10
"""Passes over the classes."""


def tune_offsets(log_probs: np.ndarray, labels: np.ndarray, score: Callable) -> np.ndarray:
    """Offsets that climb a multiclass metric, float32 (L,), one class at a time from zero.

    Args:   log_probs: float32 (N, L).   labels: bool (N, L), one True a row.
            score: (hits, positives, decided), each (C, L), -> (C,); one of `CLASS_SCORES`.
    Source: with the other offsets held, raising class c wins rows from their runner-up in the order of their margin,
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


def _best_offset(scores: np.ndarray, truth: np.ndarray, positives: np.ndarray, label: int, score: Callable):
    """How far to move one class, and the metric that reaches."""
    n_labels, own = scores.shape[1], scores[:, label]
    others = scores.copy()
    others[:, label] = -np.inf
    rival = others.argmax(axis=1)
    margin = others[np.arange(len(truth)), rival] - own  # the class takes the row once its offset passes this
    cuts = np.unique(np.quantile(margin, np.linspace(0, 1, MAX_CUTS), method="lower"))
    step = np.searchsorted(cuts, margin, "left")  # taken at cut number `step` or later
    shape = (len(cuts), n_labels)
    lost = np.bincount(step * n_labels + rival, minlength=len(cuts) * n_labels).reshape(shape).cumsum(axis=0)
    right = rival == truth
    lost_hits = np.bincount((step * n_labels + rival)[right], minlength=lost.size).reshape(shape).cumsum(axis=0)
    decided = np.bincount(rival, minlength=n_labels) - lost
    hits = np.bincount(rival[right], minlength=n_labels) - lost_hits
    decided[:, label] = lost.sum(axis=1)
    hits[:, label] = np.bincount(step[truth == label], minlength=len(cuts)).cumsum()
    reached = score(hits, positives, decided)
    winner = int(np.argmax(reached))
    above = cuts[winner + 1] if winner + 1 < len(cuts) else cuts[winner] + 1e-3
    return (cuts[winner] + above) / 2, float(reached[winner])


def _label_f1(hits, positives, decided):
    return 2 * hits / np.maximum(positives + decided, 1)


CLASS_SCORES: dict[str, Callable] = {
    "accuracy": lambda hits, positives, decided: hits.sum(axis=1) / positives.sum(),
    "micro_f1": lambda hits, positives, decided: hits.sum(axis=1) / positives.sum(),
    "macro_f1": lambda hits, positives, decided: _label_f1(hits, positives, decided).mean(axis=1),
    "weighted_f1": lambda hits, positives, decided: _label_f1(hits, positives, decided) @ positives / positives.sum(),
}
"""Multiclass metrics from class counts (C, L): the right rows, the rows there are, the rows decided."""
