"""What a run decides on every row that it predicted, cross-fitted, and what that is worth, as a whole and by label.

`comparing.py` answers which run is better, on a sample if there are very many rows. A reader who wants to see errors
needs the decision of each row, so here nothing is left out.
"""

from dataclasses import dataclass, replace

import numpy as np

from foldblend.scoring.inputs import LOWEST_LOG_ODDS, Runs, Task, rows_with_known, split_into_parts, to_probs
from foldblend.scoring.metrics.formulas import label_ap
from foldblend.scoring.thresholds.rules import Rule, decide, tune_without_parts
from foldblend.scoring.validation.bootstrap import Additive, Buckets, Difference, compare, make_additive, resample
from foldblend.scoring.validation.comparing import N_RESAMPLES, Predicted

# ---------- A run as a whole


@dataclass(frozen=True)
class Decided:
    """One run on the n rows that it predicted and that are scored; L labels."""

    name: str
    rows: np.ndarray
    """int64 (n,), rising: positions in the training file."""
    labels: np.ndarray
    """bool (n, L); float shares of the scale for a regression."""
    probs: np.ndarray
    """float32 (n, L)."""
    answer: np.ndarray
    """(n, L): what is scored, cross-fitted: decisions, or the probabilities."""
    decisions: np.ndarray | None
    """bool (n, L): the same; for a metric of probabilities those of 0.5 and more, or the likeliest label if a row has
    one; None for a regression."""
    rule: Rule
    """Tuned on all rows."""
    task: Task
    buckets: Buckets
    fold: np.ndarray
    """int64 (n,): the competition's folds."""
    score: float
    """Cross-fitted; more is better."""
    error: float
    """Standard deviation of `score` over resamples of the rows."""
    in_sample: float
    """Thresholds tuned and scored on the same rows."""
    fold_scores: dict[int, float]
    """Of each fold alone."""


def decide_run(task: Task, rows: Runs, run: Predicted, known: np.ndarray | None = None, seed: int = 0) -> Decided:
    """Tune thresholds for each part of the rows on the other parts, by the task's first way of tuning, and decide.

    Args: rows: of `rows_to_score`, N rows.   known: bool (N, L), False for a label that nobody knows; None if all are.
    """
    positions, scores = run.rows, run.scores
    if known is not None:  # as `score_known`
        own = known[positions]
        kept = rows_with_known(own, task)
        positions, scores = positions[kept], np.where(own, scores, np.float32(LOWEST_LOG_ODDS))[kept]
        rows = replace(rows, known=known)
    some = rows.at(positions)
    task, labels, allowed = some.of(task), some.labels, some.scores.allowed
    part = split_into_parts(np.unique(some.fold, return_inverse=True)[1], some.group)
    probs, tuning = to_probs(scores, task.kind), task.tunings[0]
    answer = np.empty(labels.shape, np.float32 if task.takes_probs else bool)
    *rules, rule = tune_without_parts(task, tuning, probs, labels, part)
    for k, without_part in enumerate(rules):
        held = part == k
        answer[held] = decide(without_part, probs[held], None if allowed is None else allowed[held])
    buckets = Buckets(part, seed, some.group)
    drawn = resample([make_additive(task, labels, answer, buckets)], buckets.everything, 1.0, N_RESAMPLES, seed)
    folds = [int(k) for k in np.unique(some.fold)]
    return Decided(
        name=run.name,
        rows=positions,
        labels=labels,
        probs=probs,
        answer=answer,
        decisions=_decisions(task, answer),
        rule=rule,
        task=task,
        buckets=buckets,
        fold=some.fold,
        score=task.score(labels, answer),
        error=float(drawn.std()),
        in_sample=task.score(labels, decide(rule, probs, allowed)),
        fold_scores={k: task.at(some.fold == k).score(labels[some.fold == k], answer[some.fold == k]) for k in folds},
    )


def _decisions(task: Task, answer: np.ndarray) -> np.ndarray | None:
    if task.scale is not None:
        return None
    if answer.dtype == bool:
        return answer
    if task.kind == "multiclass":
        return answer.argmax(axis=1)[:, None] == np.arange(answer.shape[1])
    return answer >= 0.5


def compare_decided(first: Decided, second: Decided) -> Difference | None:
    """How much the second run scores above the first on the rows that both predicted; None if there are none."""
    _, one, other = np.intersect1d(first.rows, second.rows, assume_unique=True, return_indices=True)
    if not len(one):
        return None
    buckets = Buckets(first.buckets.part[one], first.buckets.seed, _at(first.buckets.group, one))
    return compare(first.task.at(one), first.labels[one], second.answer[other], first.answer[one], buckets)


def _at(group: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if group is None else group[rows]


# ---------- By label


@dataclass(frozen=True)
class LabelScores:
    """Of each label, float64 (L,); `low` and `high` are 90 % intervals of the bootstrap, (2, L)."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    precision_interval: np.ndarray
    recall_interval: np.ndarray
    f1_interval: np.ndarray
    ap: np.ndarray
    """Average precision."""


N_LABEL_RESAMPLES = 400


def score_labels(run: Decided) -> LabelScores:
    """Precision, recall, F1 and average precision of each label; 0 for one that is never decided or never there."""
    assert run.decisions is not None, "a regression has no labels"
    labels, decisions = run.labels.astype(bool), run.decisions
    sums = run.buckets.add_up(labels & decisions, labels, decisions)
    found = _rates(sums.sum(axis=0, dtype=np.float64)[None])
    drawn = resample([Additive(sums, lambda drawn: drawn)], run.buckets.everything, 1.0, N_LABEL_RESAMPLES, 0)[:, 0]
    precision, recall, f1 = (each[0] for each in found)
    low_high = [np.quantile(each, [0.05, 0.95], axis=0) for each in _rates(drawn)]
    ap = np.nan_to_num(label_ap(labels, run.probs))
    return LabelScores(precision, recall, f1, low_high[0], low_high[1], low_high[2], ap)


def _rates(sums: np.ndarray) -> list[np.ndarray]:
    """Precision, recall and F1, (B, L) each, of sums (B, 3 L + 1)."""
    hits, positives, decided = np.split(sums[:, :-1], 3, axis=1)
    return [
        hits / np.maximum(decided, 1),
        hits / np.maximum(positives, 1),
        2 * hits / np.maximum(positives + decided, 1),
    ]


# ---------- Curves of one label


CUTS = np.concatenate([np.arange(0.005, 0.1, 0.005), np.arange(0.1, 1.0, 0.01)])
"""Thresholds of a curve: closer where rare labels have theirs."""
RECALLS = np.linspace(0.02, 1, 50)
N_BINS = 10
FEWEST_IN_BIN = 5
N_DRAWS = 100


@dataclass(frozen=True)
class Curves:
    """Of one label of one run."""

    precision: np.ndarray
    """float64, at each of RECALLS."""
    f1: np.ndarray
    """float64, at each of CUTS."""
    best: tuple[float, float]
    """90 % interval of the threshold with the best F1, over resamples of the rows; of those in CUTS."""
    bins: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Mean probability, share of rows with the label, and rows, of each tenth of the probabilities that has rows."""


def trace_curves(probs: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Curves:
    """Curves of a label. Args: probs: float32 (n,).   labels: bool (n,), at least one True."""
    # one sort without an order of rows: a key is the bits of the prob, which rise with it, and then the label, as in
    # `best_label_f1`; of equal probs the rows without the label come first
    keys = np.sort(-2 * _bits(probs) + labels)
    positives = np.cumsum(keys & 1)
    total = int(positives[-1])
    wanted = np.ceil(RECALLS * total).astype(int)
    at = np.searchsorted(positives, wanted)
    above = np.searchsorted(keys, 1 - 2 * _bits(_float32_from(CUTS)), side="right")  # rows with probs >= cut
    hits = np.concatenate([[0], positives])[above]
    f1 = 2 * hits / np.maximum(total + above, 1)
    return Curves(wanted / (at + 1), f1, _spread_of_best(hits, above, total, len(probs), rng), _bins(probs, labels))


def _bits(probs: np.ndarray) -> np.ndarray:
    """Of probs float32: int32 that rise with them; twice of it is an int32 still, as 1.0 has the highest."""
    return np.ascontiguousarray(probs, np.float32).view(np.int32)


def _float32_from(values: np.ndarray) -> np.ndarray:
    """The least float32 that is not below each value."""
    rounded = values.astype(np.float32)
    return np.where(rounded < values, np.nextafter(rounded, np.float32(2)), rounded)


def _spread_of_best(
    hits: np.ndarray, above: np.ndarray, total: int, n_rows: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Resample rows: between two cuts there are so many with the label and so many without, each a Poisson number."""
    edges = np.concatenate([[n_rows], above, [0]]), np.concatenate([[total], hits, [0]])
    rows, own = (-np.diff(edge) for edge in edges)  # below the first cut, between cuts, above the last
    drawn = rng.poisson(own, (N_DRAWS, len(own)))
    others = rng.poisson(rows - own, (N_DRAWS, len(own)))
    hit = drawn[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    decided = hit + others[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    best = (2 * hit / np.maximum(drawn.sum(axis=1, keepdims=True) + decided, 1)).argmax(axis=1)
    low, high = np.quantile(CUTS[best], [0.05, 0.95])
    return float(low), float(high)


def _bins(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    probs = np.ascontiguousarray(probs)
    bin_of = np.minimum((probs * N_BINS).astype(int), N_BINS - 1)
    rows = np.bincount(bin_of, minlength=N_BINS)
    kept = rows >= FEWEST_IN_BIN
    sums = (np.bincount(bin_of, weights=values, minlength=N_BINS) for values in (probs, labels))
    means = [each[kept] / rows[kept] for each in sums]
    return means[0], means[1], rows[kept]


# ---------- Rows


def row_losses(run: Decided) -> np.ndarray:
    """How wrong the probabilities of each row are, float64 (n,).

    The log loss, summed over labels or of the row's one label; for a regression the mean distance from the truth in
    standard deviations of each column.
    """
    labels, probs = run.labels, run.probs.astype(np.float64)
    if run.task.scale is not None:
        return (np.abs(labels - probs) / np.maximum(labels.std(axis=0), 1e-9)).mean(axis=1)
    kept = np.clip(probs, 1e-7, 1 - 1e-7)
    if run.task.kind == "multiclass":
        return -np.log((kept * labels).sum(axis=1))
    return -(np.where(labels, np.log(kept), np.log1p(-kept))).sum(axis=1)


@dataclass(frozen=True)
class Suspects:
    """Rows in the order in which their labels are doubted; n rows."""

    order: np.ndarray
    """int64 (n,): positions, the most doubtful first."""
    label: np.ndarray
    """int64 (n,): of each row the label that is doubted most, given or not."""
    doubt: np.ndarray
    """float32 (n,): the probability that an independent annotator would say otherwise of this label."""


def find_suspects(labels: np.ndarray, probs: np.ndarray, kind: str) -> Suspects:
    """Rank rows by their most doubtful label.

    A model that never saw the row gives each label the rate at which such texts have it. Drawn from these rates, a
    second annotation differs in a given label with 1 - p, and in a label that is not given with p. A row is as doubtful
    as its most doubtful label: means and sums over labels drown one wrong label in many right ones, so that they find
    fewer planted errors (bench/label_errors.py).

    Args:    labels: bool (n, L).   probs: float32 (n, L), out-of-fold.   kind: `multilabel` or `multiclass`, where the
             one given label is doubted.
    Example: find_suspects(np.array([[1, 0], [1, 0]], bool), np.float32([[.9, .2], [.1, .3]]), "multilabel").order ->
             [1, 0]
    Source:  self-confidence of Northcutt et al. 2021, arXiv:1911.00068, with the minimum over labels.
    """
    differs = np.where(labels, 1 - probs, probs if kind == "multilabel" else 0)
    label = differs.argmax(axis=1)
    doubt = differs[np.arange(len(label)), label].astype(np.float32)
    return Suspects(np.argsort(-doubt, kind="stable"), label, doubt)
