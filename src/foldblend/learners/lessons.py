"""What one fold learns from: its own training rows, extra rows that may teach it, and a teacher's probabilities.

An extra row: data/extra_rows.py reads it, folding/other_texts.py says which folds it may not teach; a Source
holds it beside the corpus, and `build_lesson` takes, for one fold, the rows that may teach it and the set of labels
whose speakers never saw that fold. A learner reads nothing but the Lesson.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# ---------- what a corpus has beside its own rows.


@dataclass(frozen=True)
class Source:
    """Extra rows of one source in the competition's labels; n rows, K sets of labels (one per fold, or one for all)."""

    name: str
    """What messages call it."""
    probs: np.ndarray
    """float32 (K, n, L), or (1, n, L): what the rows teach the training without fold k; nan for unknown."""
    weights: np.ndarray
    """float32 (K, n) or (1, n), 0 or more; a row of weight 0 is not learned."""
    forbidden: np.ndarray
    """bool (n, n_folds): folds that a row may not teach, as their held-out rows say the same."""
    share: float = 0.0
    """Its share of the rows of an epoch; 0 is all of its rows."""
    most_rows: int = 0
    """Most rows of an epoch; 0 is no limit."""
    first_epochs: int = 0
    """The first so many epochs have it; 0 is all."""

    @property
    def n_rows(self) -> int:
        """n."""
        return len(self.forbidden)

    def allowed(self, fold: int) -> np.ndarray:
        """Rows that may teach the training without `fold`, int64, rising."""
        taught = (set_of_fold(self.weights, fold) > 0) & ~np.isnan(set_of_fold(self.probs, fold)).all(axis=1)
        return np.flatnonzero(taught & ~self.forbids(fold))

    def forbids(self, fold: int) -> np.ndarray:
        """Rows that must not teach the training without `fold`, bool (n,); none if that is a training on all rows."""
        return self.forbidden[:, fold] if 0 <= fold < self.forbidden.shape[1] else np.zeros(self.n_rows, bool)


@dataclass(frozen=True)
class Teacher:
    """How probabilities teach: settings.sources.DistillationSettings, and those of the training rows."""

    probs: np.ndarray | None
    """float32 (K, n_train, L) or (1, n_train, L), nan if unknown; None if only extra rows have probabilities."""
    mix: float = 0.5
    """The teacher's share in what a training row teaches."""
    loss: str = "auto"
    """`auto`, `bce` or `kl`."""
    temperature: float = 1.0
    """Of `bce` and `kl`."""


def set_of_fold(sets: np.ndarray, fold: int) -> np.ndarray:
    """The set of labels for the training without `fold`, of (K, ...) or (1, ...).

    A training on all rows holds none out, so every model may speak: the mean of the sets.
    """
    return sets[0] if len(sets) == 1 else sets[fold] if 0 <= fold < len(sets) else sets.mean(axis=0)


# ---------- the lesson of one fold.


@dataclass(frozen=True)
class Draw:
    """How many rows of one source an epoch has."""

    first: int
    """Its rows are Lesson.rows[first:last]."""
    last: int
    n_rows: int
    """Of an epoch."""
    first_epochs: int
    """Epochs that have them; 0 is all."""


@dataclass(frozen=True)
class Lesson:
    """What one fold learns from; n rows."""

    rows: np.ndarray
    """int64 (n,): positions in Corpus.texts, the fold's own training rows first, then extra rows."""
    n_own: int
    """How many are its own training rows."""
    targets: np.ndarray
    """(n, L): what the rows teach, bool labels, or float32 shares with nan for unknown."""
    weights: np.ndarray | None = None
    """float32 (n,): how much each row counts; None if all count 1."""
    teacher: np.ndarray | None = None
    """float32 (n, L): probabilities that have a loss of their own, nan if there are none; None if no row has any."""
    teacher_share: np.ndarray | None = None
    """float32 (n,): the share of that loss in a row's; the rest is the run's own loss of `targets`."""
    draws: tuple[Draw, ...] = ()
    """A part for each source of extra rows."""

    @property
    def is_plain(self) -> bool:
        """Whether the run's own loss of the targets, each row counting 1, is all there is."""
        return self.weights is None and self.teacher is None

    def draw_extra(self, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """The extra rows of an epoch, as positions in Corpus.texts, int64; their number does not depend on `rng`.

        If a source has fewer rows than an epoch takes, all of them come equally often, give or take once.
        """
        drawn = [np.zeros(0, np.int64)]
        for each in self.draws:
            rows = self.rows[each.first : each.last]
            if not len(rows) or (each.first_epochs and epoch >= each.first_epochs):
                continue
            # all rows as often as they go in whole, and a draw of the rest without replacement
            whole, rest = divmod(each.n_rows, len(rows))
            drawn += [rows] * whole
            drawn.append(np.sort(rng.permutation(rows)[:rest]) if rest else rows[:0])
        return np.concatenate(drawn)

    def at_once(self, seed: int) -> "Lesson":
        """The lesson of a learner without epochs: its own rows, and the extra rows of one epoch."""
        if not self.draws:
            return self
        drawn = self.draw_extra(0, np.random.default_rng([seed, 2]))
        order = np.argsort(self.rows, kind="stable")
        at = np.concatenate([np.arange(self.n_own), order[self.rows[order].searchsorted(drawn)]])
        return Lesson(self.rows[at], self.n_own, self.targets[at], None if self.weights is None else self.weights[at])


def build_lesson(
    fold: int,
    train: np.ndarray,
    taught: np.ndarray,
    sources: Sequence[Source],
    first: int,
    teacher: Teacher | None = None,
) -> Lesson:
    """The lesson of a fold.

    Args:   train: int64 (n_train,), the fold's own training rows.   taught: (n_train, L), what they teach.
            sources: extra rows; those of the first begin at position `first` of Corpus.texts.
    """
    if not sources and teacher is None:
        return Lesson(train, len(train), taught)
    allowed = [source.allowed(fold) for source in sources]
    firsts = first + np.cumsum([0, *(source.n_rows for source in sources)])
    rows = np.concatenate([train, *(at + each for at, each in zip(firsts, allowed))]).astype(np.int64)
    probs = [set_of_fold(source.probs, fold)[each] for source, each in zip(sources, allowed, strict=True)]
    weights = [set_of_fold(source.weights, fold)[each] for source, each in zip(sources, allowed, strict=True)]
    of_rows = np.concatenate([np.ones(len(train), np.float32), *weights]).astype(np.float32)
    own = None if teacher is None or teacher.probs is None else set_of_fold(teacher.probs, fold)[train]
    if teacher is not None and teacher.loss != "auto":
        targets, spoken, share = _with_own_loss(taught, own, probs, teacher.mix)
    else:
        mixed = taught if own is None or teacher is None else mix_targets(taught, own, teacher.mix)
        targets, spoken, share = _stack(mixed, probs), None, None
    return Lesson(
        rows,
        len(train),
        targets,
        None if (of_rows == 1).all() else of_rows,
        spoken,
        share,
        _count_draws(len(train), sources, allowed),
    )


def mix_targets(labels: np.ndarray, probs: np.ndarray, mix: float) -> np.ndarray:
    """(1 - mix) labels + mix probs, float32 (n, L); a value that one of them does not know is the other's.

    A loss that is linear in its targets is then mixed in the same way.
    """
    labels = labels.astype(np.float32)
    mixed = np.where(np.isnan(probs), labels, (1 - mix) * labels + mix * probs)
    return np.where(np.isnan(labels), probs, mixed).astype(np.float32)


def _stack(taught: np.ndarray, probs: Sequence[np.ndarray]) -> np.ndarray:
    """What own and extra rows teach, (n, L): bool if all of it is yes or no."""
    extra = np.concatenate([np.zeros((0, taught.shape[1]), np.float32), *probs])
    is_hard = taught.dtype == bool and bool(((extra == 0) | (extra == 1)).all())
    return np.concatenate([taught, extra == 1]) if is_hard else np.concatenate([taught.astype(np.float32), extra])


def _with_own_loss(
    taught: np.ndarray, own: np.ndarray | None, probs: Sequence[np.ndarray], mix: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets (n, L), the teacher's probabilities (n, L) and its share (n,), if these have a loss of their own.

    Extra rows with fractions are the teacher's alone; those with labels are learned like own rows.
    """
    none = np.full(taught.shape, np.nan, np.float32)
    own = none if own is None else own
    extra = np.concatenate([np.zeros((0, taught.shape[1]), np.float32), *probs])
    is_soft = ((extra > 0) & (extra < 1)).any(axis=1)
    spoken = np.concatenate([own, np.where(is_soft[:, None], extra, np.float32("nan"))]).astype(np.float32)
    share = np.concatenate([np.where(np.isnan(own).all(axis=1), 0, mix), is_soft]).astype(np.float32)
    # of rows that are the teacher's alone the targets count nothing, but a loss may refuse fractions
    rounded = np.where(is_soft[:, None] & ~np.isnan(extra), (extra >= 0.5).astype(np.float32), extra)
    return _stack(taught, [rounded]), spoken, share


def _count_draws(n_own: int, sources: Sequence[Source], allowed: Sequence[np.ndarray]) -> tuple[Draw, ...]:
    """The rows of each source in an epoch; shares are of the epoch's own rows and those of all shares together."""
    total, first, draws = sum(source.share for source in sources), n_own, []
    for source, rows in zip(sources, allowed, strict=True):
        # own rows are the share 1 - total of an epoch, so the epoch has n_own / (1 - total) rows
        wanted = round(source.share * n_own / (1 - total)) if source.share else len(rows)
        wanted = min(wanted, source.most_rows) if source.most_rows else wanted
        draws.append(Draw(first, first + len(rows), wanted if len(rows) else 0, source.first_epochs))
        first += len(rows)
    return tuple(draws)
