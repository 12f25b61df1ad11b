"""What a blend is made from: probabilities and log-odds, the task, the runs' scores with the labels, and the parts.

Shapes: N rows, L labels, M runs, K folds, P parts. A part is what cross-fitting leaves out at a time: a fold, or half
of one if there are only two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from foldblend.errors import UserError
from foldblend.scoring.metrics.table import Metric, find_metric, score_cells, to_values

# ---------- Logits to probabilities and back: only here scoring applies a sigmoid or a softmax

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm, so that a run's hard 0 or 1 stays finite."""

SMALLEST_FOR_DECISIONS = 3e-4
"""The same if a blend makes decisions: a run's hard 0 must not outweigh what all others say."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow: numpy's tanh saturates where exp would not."""
    half = logits.dtype.type(0.5)  # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
    probs = np.atleast_1d(logits * half)
    np.tanh(probs, out=probs)
    probs *= half
    probs += half
    return probs.reshape(logits.shape)


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over its sum along the last axis; the largest logit is subtracted first, so nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def logit(probs: np.ndarray, smallest: float = SMALLEST) -> np.ndarray:
    """log(p / (1 - p)), with p kept `smallest` away from 0 and 1.

    Raises: UserError: a value outside [0, 1] (are these logits?).
    """
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise UserError(
            f"probabilities outside [0, 1]: they span {probs.min():.4g} to {probs.max():.4g}. Are these logits?"
        )
    kept = np.clip(probs, smallest, 1 - smallest)
    return np.log(kept) - np.log1p(-kept)


LOWEST_LOG_ODDS = -20.0
"""Of a label that certainly is not there: a probability of 2e-9."""


def to_scores(
    values: np.ndarray, kind: str, task: str, smallest: float = SMALLEST, allowed: np.ndarray | None = None
) -> np.ndarray:
    """A run's predictions on the scale that blends add up: log-odds, or log-probabilities for one label per row.

    Args:    values: float32 (..., L).   kind: "logits" or "probs".   task: "multilabel" or "multiclass".
             smallest: how far a label's probability is kept from 0 and 1.
             allowed: bool (..., L), False for a label that the row cannot have; None allows all.
    Returns: float32 (..., L); multiclass rows satisfy sum(exp(scores)) = 1.
    Raises:  UserError: probabilities outside [0, 1], or an unknown kind.
    """
    if kind not in ("logits", "probs"):
        raise UserError(f"predictions are of kind {kind!r}; expected 'logits' or 'probs'")
    values = np.asarray(values, np.float32)
    if task == "multilabel":
        scores = values if kind == "logits" else logit(values, smallest)
        return scores if allowed is None else np.where(allowed, scores, np.float32(LOWEST_LOG_ODDS))
    if allowed is not None:  # before the softmax, so that the labels that are left share all of the probability
        values = np.where(allowed, values, np.float32(-np.inf if kind == "logits" else 0))
    probs = softmax(values) if kind == "logits" else values / np.maximum(values.sum(axis=-1, keepdims=True), SMALLEST)
    return np.log(np.clip(probs, SMALLEST, 1))


def to_probs(scores: np.ndarray, task: str) -> np.ndarray:
    """The probabilities of blended scores: a sigmoid per label (multilabel), softmax over labels (multiclass)."""
    return sigmoid(scores) if task == "multilabel" else softmax(scores)


# ---------- The task


@dataclass(frozen=True)
class Task:
    """What the leaderboard asks: the metric, and whether a row holds one label or any number."""

    metric: str
    """A key of METRICS."""
    kind: str = "multilabel"
    """`multilabel` or `multiclass`."""
    groups: np.ndarray | None = None
    """int64 (N,): the group of each row that is scored, for a metric that is averaged over groups; None otherwise."""
    scale: np.ndarray | None = None
    """float64 (L, 2): of a regression, the values that a probability of 0 and of 1 stands for; None for labels."""
    known: np.ndarray | None = None
    """bool (N, L): the cells that are scored, for a metric of probabilities that scores labels one by one; None scores
    all."""

    @property
    def entry(self) -> Metric:
        """The metric's line in METRICS."""
        return find_metric(self.metric, self.kind)

    @property
    def takes_probs(self) -> bool:
        """Whether the answer is probabilities rather than decisions."""
        return self.entry.takes_probs

    @property
    def tunings(self) -> tuple[str, ...]:
        """The ways to tune thresholds that are worth comparing: `robust` and `exact`; `none` for probabilities.

        With one label per row there are offsets instead of thresholds: tuned (`offsets`), or none (`argmax`). Classes
        that have an order may be told apart by thresholds on the expected one (`steps`).
        """
        if self.takes_probs:
            return ("none",)
        if self.kind == "multiclass":
            return ("steps", "offsets", "argmax") if self.entry.is_ordered else ("offsets", "argmax")
        return ("robust", "exact")

    def to_scores(self, values: np.ndarray, kind: str, allowed: np.ndarray | None = None) -> np.ndarray:
        """A run's logits or probabilities, whichever `kind` says, on the scale that blends add up: float32 (..., L)."""
        return to_scores(values, kind, self.kind, SMALLEST if self.takes_probs else SMALLEST_FOR_DECISIONS, allowed)

    def at(self, rows) -> "Task":
        """The task of some of the rows, a mask or their positions."""
        if self.groups is None and self.known is None:
            return self
        groups, known = (None if each is None else each[rows] for each in (self.groups, self.known))
        return replace(self, groups=groups, known=known)

    def score(self, labels: np.ndarray, answer: np.ndarray) -> float:
        """The metric, negated for a loss, so that more is better."""
        entry = self.entry
        if self.scale is not None:
            labels, answer = (to_values(each, self.scale) for each in (labels, answer))
        if self.known is not None:
            return entry.sign * score_cells(entry, labels, answer, self.known, self.groups)
        if not entry.by_groups:
            return entry.sign * entry.score(labels, answer)
        return entry.sign * entry.score(labels, answer, self.groups)


# ---------- The runs' scores


@dataclass(frozen=True)
class Scores:
    """The runs' scores of the same rows, side by side."""

    runs: list[np.ndarray]
    """M arrays, float32 (N, L), log-odds (multilabel) or log-probabilities (multiclass)."""
    allowed: np.ndarray | None = None
    """bool (N, L), False for labels that a row cannot have, which are never answered; None allows all."""

    @cached_property
    def mean(self) -> np.ndarray:
        """Equal mean of the runs' scores, float32 (N, L)."""
        total = self.runs[0].copy()
        for run in self.runs[1:]:
            total += run
        return total / np.float32(len(self.runs))

    @cached_property
    def summary(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean scores: log of the row's expected number of labels (N,), and the two highest scores (N, 2)."""
        expected = np.log(sigmoid(self.mean).sum(axis=1) + np.float32(1e-6))
        no_rival = np.full(len(self.mean), -20, np.float32)  # so that a single label has a second highest, too
        return expected, np.partition(np.column_stack([self.mean, no_rival]), -2, axis=1)[:, -2:]

    def without(self, run: int) -> "Scores":
        """The same rows without one run."""
        return Scores([other for number, other in enumerate(self.runs) if number != run], self.allowed)

    def at(self, rows) -> "Scores":
        """Some of the rows, a mask or their positions."""
        return Scores([run[rows] for run in self.runs], self.allowed_at(rows))

    def allowed_at(self, rows) -> np.ndarray | None:
        """`allowed` of some of the rows."""
        return None if self.allowed is None else self.allowed[rows]


@dataclass(frozen=True)
class TestScores(Sequence):
    """A run's scores of the test rows, one fold's model at a time; converted when asked for, to save memory."""

    folds: Sequence[np.ndarray]
    """K tables float32 (n, L), logits or probabilities."""
    kind: str
    """`logits` or `probs`."""
    task: Task
    allowed: np.ndarray | None = None
    """As in `Scores`, of the test rows."""

    def __len__(self) -> int:
        return len(self.folds)

    def __getitem__(self, fold):
        return self.task.to_scores(self.folds[fold], self.kind, self.allowed)


# ---------- The rows


MAX_FIT_ROWS = 50_000
"""Weights and strategies are fitted and compared on this many rows; more would not move them beyond their noise."""
KEPT_PER_LABEL = 5
"""A sample keeps at least this many rows with a label, and as many without it, if there are so many."""


@dataclass(frozen=True)
class Runs:
    """Everything that a blend is made from; N rows in training order."""

    names: tuple[str, ...]
    scores: Scores
    labels: np.ndarray
    """bool (N, L)."""
    fold: np.ndarray
    """int64 (N,): the folds that the runs were trained on, or `split_into_parts` of them."""
    group: np.ndarray
    """int64 (N,): rows with the same number are never separated."""
    metric_groups: np.ndarray | None = None
    """int64 (N,): as in `Task.groups`."""
    known: np.ndarray | None = None
    """bool (N, L), False for a label that nobody knows; None if all are known."""

    def of(self, task: Task) -> Task:
        """The task of these rows."""
        known = self.known if scores_cells(task) else None
        groups = task.groups if self.metric_groups is None else self.metric_groups
        return task if groups is None and known is None else replace(task, groups=groups, known=known)

    def at(self, rows: np.ndarray) -> "Runs":
        """Some of the rows, by their positions."""
        groups, known = (None if each is None else each[rows] for each in (self.metric_groups, self.known))
        scores = self.scores.at(rows)
        return Runs(self.names, scores, self.labels[rows], self.fold[rows], self.group[rows], groups, known)

    def sample(self, n_rows: int, seed: int) -> "Runs":
        """Whole groups drawn at random, about `n_rows` rows of them; all rows if there are no more.

        No label loses all its positives or negatives: a metric such as AUC would not be defined without them.
        """
        if len(self.labels) <= n_rows:
            return self
        groups = np.unique(self.group, return_inverse=True)[1]
        drawn = np.random.default_rng(seed).random(groups.max() + 1)
        kept = _keep_every_label(drawn < n_rows / len(self.labels), drawn, groups, self.labels)
        return self.at(np.flatnonzero(kept[groups]))

    def partitions(self, n_repeats: int, seed: int) -> list["Partition"]:
        """The folds themselves first, then seeded draws of whole groups into as many parts."""
        n_parts, drawn = int(self.fold.max()) + 1, [Partition(self.fold)]
        groups = np.unique(self.group, return_inverse=True)[1]
        for repeat in range(1, n_repeats):
            order = np.random.default_rng([seed, repeat]).permutation(groups.max() + 1)
            drawn.append(Partition((order % n_parts)[groups]))
        return drawn


NOISE, NOISE_OF_A_LABEL = 3.0, 4.5
"""Standard errors within which a run agrees with others no better than noise would: over all labels, and in the label
in which it agrees most."""
MAX_NOISE_ROWS = 20_000
"""Rows that this is judged on."""


def find_noise(runs: Runs) -> list[str]:
    """Names of runs that say nothing: they agree neither with the other runs nor with the labels. None of two.

    An equal mean takes as much of such a run as of any other, and every search and every fit takes longer for it. To
    agree with the other runs takes no label. The labels only keep a run in that is alone with what it knows, so they
    tell nothing of a fold to the others. If all runs seem to be noise, none is named.
    """
    if len(runs.names) < 3:
        return []
    rows = slice(None, None, -(-len(runs.labels) // MAX_NOISE_ROWS))
    columns = [_standardised(run[rows]) for run in runs.scores.runs]
    total, truth = sum(columns[1:], columns[0]), _standardised(runs.labels[rows])
    # a correlation of n independent rows has a standard error of 1 / sqrt(n); rows of a group count once
    root = np.sqrt(len(np.unique(runs.group[rows])))
    names = []
    for name, own in zip(runs.names, columns, strict=True):
        agreed = np.array(
            [(own * table).mean(axis=0) * root for table in (_standardised(total - own), truth)]
        )  # (2, L)
        # the mean of L numbers with a standard error of 1 has one of 1 / sqrt(L)
        over_all = agreed.mean(axis=1) * np.sqrt(own.shape[1])
        if over_all.max() < NOISE and agreed.max() < NOISE_OF_A_LABEL:
            names.append(name)
    return names if len(names) < len(runs.names) else []


def _standardised(table: np.ndarray) -> np.ndarray:
    """Every column with mean 0 and standard deviation 1, float32 (n, L); 0 if all rows are alike."""
    centred = (table - table.mean(axis=0, dtype=np.float64)).astype(np.float32)
    spread = centred.std(axis=0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-6)


def without_runs(runs: Runs, names: list[str]) -> Runs:
    """The same rows without some runs."""
    kept = [number for number, name in enumerate(runs.names) if name not in names]
    scores = Scores([runs.scores.runs[number] for number in kept], runs.scores.allowed)
    return replace(runs, names=tuple(runs.names[number] for number in kept), scores=scores)


def rows_to_score(tables, folds) -> Runs:
    """The training rows as runs are scored on them, without any run yet.

    Args: tables: of data/tables.py.   folds: of ledger/folds.py, drawn on them.
    """
    return Runs(
        names=(),
        scores=Scores([], tables.of_learned(tables.allowed)),
        labels=tables.labels if tables.scale is None or tables.soft is None else tables.soft,
        fold=folds.fold,
        group=folds.group,
        metric_groups=number(tables.metric_groups),
    )


def put_side_by_side(rows: Runs, predictions, task: Task) -> Runs:
    """The same rows with the scores of runs.

    Args: rows: of `rows_to_score`.   predictions: runs of ledger/runs.py, with name, oof (N, L) and kind.
    """
    allowed = rows.scores.allowed
    scores = Scores([task.to_scores(run.oof, run.kind, allowed) for run in predictions], allowed)
    return replace(rows, names=tuple(run.name for run in predictions), scores=scores)


def number(names: np.ndarray | None) -> np.ndarray | None:
    """Groups (N,) by name as numbers, int64 (N,)."""
    return None if names is None else np.unique(names, return_inverse=True)[1]


def scores_cells(task: Task) -> bool:
    """Whether unknown labels are left out cell by cell; otherwise decisions take them for a sure `no`."""
    return task.takes_probs and task.entry.by_label


def rows_with_known(known: np.ndarray, task: Task) -> np.ndarray:
    """Rows that can be scored, int64: with a known label, or all of them known if the metric looks at whole rows.

    Args: known: bool (N, L).
    """
    looks_at_rows = task.takes_probs and not task.entry.by_label
    return np.flatnonzero(known.all(axis=1) if looks_at_rows else known.any(axis=1))


def score_known(runs: Runs, known: np.ndarray, task: Task) -> Runs:
    """The runs such that labels which nobody knows do not count.

    Rows without any known label are left out, and for a metric of whole rows of probabilities, as MAP@k, rows with an
    unknown one. A metric of probabilities by label scores each on the rows in which it is known. For decisions an
    unknown label is a `no` that every run is sure of: metrics of decisions read neither a right `no` nor a threshold
    from it.
    Args:   known: bool (N, L); labels are False if unknown.
    Raises: UserError: too few rows that can be scored.
    """
    rows = rows_with_known(known, task)
    scored = runs.at(rows)
    labels, fold = scored.labels, scored.fold
    if task.takes_probs and len(np.unique(fold)) < 3:
        raise UserError(
            f"{task.metric} can be computed on {len(rows)} of {len(known)} rows, as labels of the others are unknown: "
            "too few to have some in each fold. Use a metric of decisions, as macro_f1"
        )
    lacking = ~(labels.any(axis=0) & ~labels.all(axis=0))
    if task.takes_probs and not task.entry.by_label and lacking.any():
        raise UserError(
            f"{task.metric} is computed on rows whose labels are all known, and {len(rows)} of {len(known)} are: too "
            "few to have each label and its absence among them. Use a metric of decisions, as macro_f1"
        )
    lowest = np.float32(LOWEST_LOG_ODDS)
    scores = Scores([np.where(known[rows], run, lowest) for run in scored.scores.runs], scored.scores.allowed)
    return replace(scored, scores=scores, fold=np.unique(fold, return_inverse=True)[1], known=known[rows])


def _keep_every_label(kept: np.ndarray, drawn: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Add groups, those drawn lowest first, until KEPT_PER_LABEL rows of each label's two classes are kept: bool (G,).

    Args: kept: bool (G,), the groups kept so far.   drawn: float64 (G,), random.   groups: int64 (N,).
    """
    kept = kept.copy()
    for label in range(labels.shape[1]):
        for wanted in (True, False):
            rows = np.flatnonzero(labels[:, label] == wanted)
            missing = min(KEPT_PER_LABEL, len(rows)) - int(kept[groups[rows]].sum())
            if missing > 0:
                left = rows[~kept[groups[rows]]]
                order = left[np.argsort(drawn[groups[left]], kind="stable")]
                kept[groups[order[:missing]]] = True
    return kept


# ---------- The parts that are left out


def split_into_parts(fold: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The parts that cross-fitting leaves out, int64 (N,): the folds, halves of two, or thirds of one that is there.

    What is tuned for part k is tuned on parts predicted without k and without themselves, so there must be a third.

    Raises: UserError: fewer than three groups of rows that may be separated.
    """
    if fold.max() > 1:
        return fold
    names, member = np.unique(group, return_inverse=True)
    if len(names) < 3:
        raise UserError(f"too few distinct texts to blend: the training file has {len(names)}; a blend needs 3 or more")
    pieces = 2 if fold.max() else 3
    in_fold = np.zeros(len(names), np.int64)
    in_fold[member] = fold
    rank = np.empty(len(names), np.int64)  # a group's number within its fold, which go to the fold's pieces in turn
    for k in (0, 1):
        rank[in_fold == k] = np.arange((in_fold == k).sum())
    return np.unique(pieces * fold + rank[member] % pieces, return_inverse=True)[1]


@dataclass(frozen=True)
class Partition:
    """Rows split into parts, and every set of parts that cross-fitting leaves out."""

    part: np.ndarray
    """int64 (N,), 0..P-1."""

    @cached_property
    def n_parts(self) -> int:
        return int(self.part.max()) + 1

    @cached_property
    def order(self) -> np.ndarray:
        """Rows sorted by part, int64 (N,)."""
        return np.argsort(self.part, kind="stable")

    @cached_property
    def slices(self) -> list[slice]:
        """Where each part is in `order`."""
        edges = np.searchsorted(self.part[self.order], np.arange(self.n_parts + 1))
        return [slice(start, stop) for start, stop in pairwise(edges)]

    @cached_property
    def rows(self) -> list[np.ndarray]:
        """Rows of each part, rising."""
        return [self.order[where] for where in self.slices]

    @cached_property
    def left_out(self) -> list[tuple[int, ...]]:
        """Nothing, each part, each pair of parts: S sets."""
        parts = range(self.n_parts)
        return [(), *((part,) for part in parts), *combinations(parts, 2)]

    @cached_property
    def subsets(self) -> np.ndarray:
        """bool (S, P): the parts that each fit of `left_out` sees."""
        return np.array([[part not in out for part in range(self.n_parts)] for out in self.left_out])

    def fit_without(self, *parts: int) -> int:
        """Position in `left_out` of the fit that saw none of these parts.

        Example: with 3 parts, fit_without(2, 0) -> 5, as left_out is (), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2).
        """
        return self.left_out.index(tuple(sorted(set(parts))))
