"""Which rows each step and each process sees, and how they are oversampled and augmented.

All of it is a pure function of seed, fold and epoch, so a resumed run repeats it.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import torch

from foldblend.errors import UserError
from foldblend.learners.tokens.tokens import Tokens, pad_rows
from foldblend.settings.nets import AugmentationSettings

# Batches.

BLOCK_STEPS = 64
"""Rows are shuffled, then sorted by length inside blocks of this many steps, so that batches need little padding. Then
the order of the steps is shuffled, so that lengths do not cycle."""

NO_ROW = -1
"""Fills a prediction batch if a process has fewer rows than another; dropped after gathering."""


def plan_epoch(rows: np.ndarray, lengths: np.ndarray, global_batch_size: int, seeds: Sequence[int]) -> list[np.ndarray]:
    """Split an epoch into the rows of its optimiser steps.

    Args:   rows: int64 (n,), the fold's training rows.   lengths: int64 (n_texts,), tokens per text.
            global_batch_size: rows per step; the last step may have fewer.   seeds: numbers that name this epoch.
    Returns: list of int64 arrays, every row in exactly one; rows of a step have similar lengths.
    """
    rng = np.random.default_rng(seeds)
    rows = rng.permutation(rows)
    size = BLOCK_STEPS * global_batch_size
    # sorting the whole epoch would put the same rows together in every epoch
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    ordered = np.concatenate([block[np.argsort(lengths[block], kind="stable")] for block in blocks])
    steps = [ordered[start : start + global_batch_size] for start in range(0, len(ordered), global_batch_size)]
    return [steps[i] for i in rng.permutation(len(steps))]


def split_step(
    rows: np.ndarray, lengths: np.ndarray, n_processes: int, most_rows: int, most_tokens: int | None = None
) -> list[list[np.ndarray]]:
    """Split one step's rows into micro-batches, and each of those into one share per process.

    Args:    lengths: int64 (n_texts,), tokens per text.   most_rows: most rows of a share.
             most_tokens: most padded tokens of a share, unless it is a single row; None is no limit.
    Returns: [micro-batch][process] -> int64 rows, sizes differing by at most one; a share is empty only if the step has
             fewer rows than there are shares.
    """
    # shares of nearly the same size: a last micro-batch of one row would cost as much time as a full one
    n_micro = -(-len(rows) // (n_processes * most_rows))  # rounded up
    while True:
        shares = np.array_split(rows, n_micro * n_processes)
        fits = most_tokens is None or max(padded_tokens(share, lengths) for share in shares) <= most_tokens
        if fits or max(map(len, shares)) == 1:
            return [shares[i * n_processes : (i + 1) * n_processes] for i in range(n_micro)]
        n_micro += 1


def padded_tokens(rows: np.ndarray, lengths: np.ndarray) -> int:
    """Count the tokens of a batch of `rows`, int64 (B,), all padded to the longest."""
    return len(rows) * int(lengths[rows].max()) if len(rows) else 0


def plan_prediction(rows: np.ndarray, lengths: np.ndarray, max_tokens: int, n_processes: int) -> list[np.ndarray]:
    """Plan batches for prediction: longest texts first, so that a lack of memory shows in the first batch.

    Args:   max_tokens: most padded tokens of a batch per process.
    Returns: list of int64 (n_processes, B), NO_ROW at the end of a short share; every row is in one.
    """
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        # the first of a batch is its longest, so this many rows padded to it fit
        size = max(1, max_tokens // int(lengths[order[start]])) * n_processes
        part = order[start : start + size]
        width = -(-len(part) // n_processes)
        # every process gets a share of the same width, as gathering needs
        padded = np.full(width * n_processes, NO_ROW, dtype=np.int64)
        padded[: len(part)] = part
        batches.append(padded.reshape(n_processes, width))
        start += size
    return batches


# Oversampling: rows with rare labels are seen more often. Only a fold's training rows are drawn, so no copy leaks.


def oversample(
    rows: np.ndarray,
    labels: np.ndarray,
    label_names: tuple[str, ...],
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Append rows that carry a rare label, or one that the settings name, drawn with replacement.

    Args:    rows: int64 (n,), the fold's training rows.   labels: bool (N, L), of all rows; only `rows` are read.
    Returns: int64 (n + round(factor x rows with a rare label),): `rows`, then the drawn ones; its length does not
             depend on `rng`.
    Raises:  UserError: the settings name a label that does not exist.
    """
    if not settings.oversample_factor:
        return rows
    labels = labels[rows]
    carriers = rows[labels[:, find_rare(labels, label_names, settings)].any(1)]
    if len(carriers) == 0:
        return rows
    # a fixed number rather than a coin per row: the number of steps must be known before the first epoch
    drawn = rng.choice(carriers, round(settings.oversample_factor * len(carriers)))
    return np.concatenate([rows, drawn])


def find_rare(labels: np.ndarray, label_names: tuple[str, ...], settings: AugmentationSettings) -> np.ndarray:
    """Find the labels to oversample, int64 (R,): those that the settings name, or the rare ones of the training rows.

    Args:   labels: bool (n, L), of the training rows; a label that none of them has is left out.
    Raises: UserError: as `oversample`.
    """
    if settings.oversample_labels:
        return np.array([_find_label(name, label_names) for name in settings.oversample_labels])
    counts = labels.sum(0)
    there = np.flatnonzero(counts)
    if settings.oversample_k_rarest:
        return there[np.argsort(counts[there], kind="stable")[: settings.oversample_k_rarest]]
    return there[counts[there] < settings.oversample_rarer_than * len(labels)]


def _find_label(name: str, label_names: tuple[str, ...]) -> int:
    if name not in label_names:
        near = get_close_matches(name, label_names, 1, 0.0)[0]
        raise UserError(f"augmentation.oversample_labels: there is no label {name!r}; did you mean {near!r}?")
    return label_names.index(name)


# Augmentation: two texts joined, tokens masked, differently in every epoch.

SAMPLED_LABELS = 20_000
"""At least this many rows are drawn to estimate which labels joined texts have."""


class Augmentation:
    """The training batches of one fold; the texts that are joined come from its training rows alone."""

    def __init__(
        self,
        settings: AugmentationSettings,
        tokens: Tokens,
        targets: torch.Tensor,
        train_rows: np.ndarray,
        task: str,
    ):
        """
        Args:   targets: float32 (N, L), of all rows.   train_rows: int64 (n,), the fold's training rows.
        Raises: UserError: texts are to be joined, but each row has exactly one label; or it is not known which tokens
                are text.
        """
        if settings.mix_probability and task == "multiclass":
            raise UserError(
                "augmentation.mix_probability joins the labels of two rows; here each row has exactly one. Set it to 0"
            )
        self.is_on = bool(settings.mix_probability or settings.token_dropout)
        if self.is_on and not tokens.room:
            raise UserError(
                "augmentation.mix_probability and token_dropout need one text per row; these rows have two. "
                "Set them to 0"
            )
        if settings.mix_probability and tokens.beside is not None:
            raise UserError(
                "augmentation.mix_probability joins the texts of two rows, whose features cannot be joined. Set it to "
                "0, or use_features to false"
            )
        self.settings, self.tokens, self.targets, self.train_rows = settings, tokens, targets, train_rows

    def batch(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return inputs, as `Tokens.batch`, and targets, float32 (B, L), of training rows; `rng` draws the changes."""
        if not self.is_on:
            return self.tokens.batch(rows), self.targets[rows]
        # (B, L), a copy that may be written to, and (B,)
        targets, partners = self.targets[rows], self._draw_partners(len(rows), rng)
        texts = [self._text(row) for row in rows]
        for i in np.flatnonzero(partners >= 0):
            texts[i] = join_texts(texts[i], self._text(partners[i]), self.tokens.room)
            # the joined text says what either of them says
            targets[i] = torch.maximum(targets[i], self.targets[partners[i]])
        texts = [self._drop_tokens(text, rng) for text in texts]
        inputs = pad_rows([self._framed(row, text) for row, text in zip(rows, texts)], self.tokens.pad_id)
        return {**inputs, **self.tokens.batch_beside(rows)}, targets

    def sample_targets(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw targets as `batch` makes them of `rows`, float32 (n, L); several times if there are few rows."""
        if not self.settings.mix_probability:
            return self.targets[rows].numpy()
        # which labels come together is estimated, so few rows are drawn again
        rows = np.tile(rows, -(-SAMPLED_LABELS // len(rows)))
        targets, partners = self.targets[rows].numpy(), self._draw_partners(len(rows), rng)
        return np.where((partners >= 0)[:, None], np.maximum(targets, self.targets[partners].numpy()), targets)

    def _draw_partners(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """Draw for each row the row that it is joined with, int64 (B,), or -1."""
        partners = rng.choice(self.train_rows, n_rows)
        return np.where(rng.random(n_rows) < self.settings.mix_probability, partners, -1)

    def _text(self, row: int) -> np.ndarray:
        ids, (before, after) = self.tokens.row(row), self.tokens.frame
        return ids[before : len(ids) - after]

    def _framed(self, row: int, text: np.ndarray) -> np.ndarray:
        ids, (before, after) = self.tokens.row(row), self.tokens.frame
        return np.concatenate([ids[:before], text, ids[len(ids) - after :]])

    def _drop_tokens(self, text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Mask some tokens of a text, or leave them out if there is no mask token; never leave out all of them."""
        dropped = rng.random(len(text)) < self.settings.token_dropout
        if self.tokens.mask_id is not None:
            return np.where(dropped, self.tokens.mask_id, text)
        # a text of no tokens would have nothing to pool
        return text if dropped.all() else text[~dropped]


def join_texts(first: np.ndarray, second: np.ndarray, room: int) -> np.ndarray:
    """Append one text to another; if both do not fit, the beginnings of both, each with at least half the room."""
    n_first = min(len(first), max(room - len(second), room - room // 2))
    return np.concatenate([first[:n_first], second[: room - n_first]])
