"""From what train.csv says to what is learned: annotators' rows united, shares, unknown cells, labels not learned."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.data.reading import quoted

ROUNDING = 1e-6
"""A share of float32 this much below `labels.positive_from` counts as equal to it."""


# ---------- one row per annotator becomes one row per text.


def group_rows(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(first, member): the first row of each id, int64 (M,), rising, and which of them each row is of, int64 (n,)."""
    of_id: dict[str, int] = {}
    member = np.array([of_id.setdefault(name, len(of_id)) for name in ids], dtype=np.int64)
    return np.unique(member, return_index=True)[1], member


def unite_annotators(values: np.ndarray, member: np.ndarray, how: str, one_a_row: bool) -> np.ndarray:
    """What the annotators of each text say together.

    Args:    values: (n, L), bool or shares, nan is unknown and does not count.   member: int64 (n,), 0..M-1.
             how: `majority` (more than half of them), `mean` (their share), `any` (at least one).
             one_a_row: one class a row; then the majority is the class with most votes, the first of equal ones.
    Returns: float32 (M, L), nan if no annotator of a text knows.
    Example: 3 annotators say 1, 1, 0: majority 1, mean 0.67, any 1.
    """
    values = values.astype(np.float64)
    known, shape = ~np.isnan(values), (int(member.max()) + 1, values.shape[1])
    said, asked = np.zeros(shape), np.zeros(shape)
    np.add.at(said, member, np.where(known, values, 0))
    np.add.at(asked, member, known)
    share = np.divide(said, asked, out=np.full(shape, np.nan), where=asked > 0)
    if how == "majority" and one_a_row:
        share = np.eye(shape[1])[share.argmax(axis=1)]
    elif how in ("majority", "any"):
        share = np.where(asked > 0, share > (0.5 if how == "majority" else 0), np.nan)
    return share.astype(np.float32)


# ---------- values to labels, soft targets and a mask.


@dataclass(frozen=True)
class Targets:
    """What N rows teach about L labels."""

    labels: np.ndarray
    """bool (N, L): what is scored; False if unknown."""
    soft: np.ndarray | None = None
    """float32 (N, L) in [0, 1]: what is learned instead of `labels`; None if that is 0 and 1 anyway."""
    known: np.ndarray | None = None
    """bool (N, L), False for a cell that nobody knows; None if all are known."""

    def of_labels(self, columns: Sequence[int]) -> "Targets":
        """The same of some labels."""
        parts = (part if part is None else np.ascontiguousarray(part[:, columns]) for part in (self.soft, self.known))
        return Targets(np.ascontiguousarray(self.labels[:, columns]), *parts)


def split_values(values: np.ndarray, positive_from: float, one_a_row: bool) -> Targets:
    """Labels, soft targets and mask of values.

    Args: values: (N, L), bool, or shares with nan for unknown.   positive_from: the share from which a row has a label
          (0: shares are 0 or 1).   one_a_row: the label is the class with the largest share, the first of equal ones.
    """
    if values.dtype == bool:
        return Targets(values)
    known = ~np.isnan(values)
    soft = np.where(known, values, 0).astype(np.float32)
    if one_a_row:
        labels = soft.argmax(axis=1)[:, None] == np.arange(soft.shape[1])
    else:
        labels = soft >= (positive_from or 1.0) - ROUNDING
    is_hard = bool(((soft == 0) | (soft == 1)).all())
    return Targets(labels & known, None if is_hard else soft, None if known.all() else known)


# ---------- labels that are not learned.


@dataclass(frozen=True)
class Constant:
    """A label of the answer that is the same in every row."""

    name: str
    probability: float
    """What a submission of probabilities says; decisions are yes from 0.5 on."""
    reason: str
    """`none of 2,000 rows has it`."""

    @property
    def is_positive(self) -> bool:
        return self.probability >= 0.5


def find_constants(
    targets: Targets, names: Sequence[str], stated: Mapping[str, float], absent: Iterable[str], one_a_row: bool
) -> list[Constant]:
    """The labels that nothing can be learned about, or that the user answers by a constant; in the order of `names`.

    A label needs two rows with it, so that one can be learned from while the other is held out, and one without it. A
    class needs one. Its probability is the smoothed rate of the training rows, so that a log loss stays finite.

    Args: targets: of all `names`.   stated: `labels.constants`.   absent: labels that train.csv has no column of.
    """
    absent, found = set(absent), []
    for k, name in enumerate(names):
        if name in stated:
            found.append(Constant(name, float(stated[name]), "labels.constants says so"))
            continue
        known = targets.known[:, k] if targets.known is not None else np.ones(len(targets.labels), bool)
        rows, positives = int(known.sum()), int(targets.labels[:, k].sum())
        reason = f"{positives:,} of {rows:,} rows {'has' if positives == 1 else 'have'} it"
        if name in absent:
            found.append(Constant(name, 0.0, "the training file has no column of it"))
        elif not rows:
            found.append(Constant(name, 0.0, "it is unknown in every row"))
        elif positives == 0 or (not one_a_row and positives in (1, rows)):
            probability = (positives + 0.5) / (rows + 1)
            found.append(Constant(name, probability if positives == rows else min(probability, 0.49), reason))
    return found


def constants_record(constants: Sequence[Constant], all_names: Sequence[str]) -> dict:
    """As a blend's record keeps them: what predicting new rows needs, as plain values; empty if there are none."""
    if not constants:
        return {}
    answers = {each.name: each.probability for each in constants}
    return {"constants": {"label_names": list(all_names), "answers": answers}}


def recorded_constants(record: Mapping, label_names: Sequence[str]) -> tuple[tuple[str, ...], list[Constant]]:
    """(names of all labels of a submission, the constant ones) of a blend's record; `label_names` are those learned."""
    stored = record.get("constants")
    if not stored:
        return tuple(label_names), []
    return tuple(stored["label_names"]), [Constant(name, value, "") for name, value in stored["answers"].items()]


def constant_lines(constants: Sequence[Constant], n_labels: int) -> list[str]:
    """What a user must know about labels that are answered by a constant; empty if there are none.

    Args: n_labels: of the answer, the constant ones included.
    """
    if not constants:
        return []
    lines = [f"{len(constants)} of {n_labels} labels are not learned, but answered by a constant in every row:"]
    by_reason: dict[tuple[str, bool], list[str]] = {}
    for each in constants:
        by_reason.setdefault((each.reason, each.is_positive), []).append(each.name)
    lines += [
        f"  {quoted(names)}: {'yes' if is_positive else 'no'}, as {reason}"
        for (reason, is_positive), names in by_reason.items()
    ]
    return [*lines, "  scores below are of the other labels; labels.constants: {NAME: 0} chooses another constant"]
