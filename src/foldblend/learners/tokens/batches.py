"""Which rows each step and each process sees: a pure function of seed, fold and epoch, so a resumed run repeats it."""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import torch

from foldblend.errors import UserError
from foldblend.learners.tokens.tokens import Tokens, pad_rows
from foldblend.settings.run import AugmentationSettings

# ----------
# Which rows each step and each process sees: a pure function of seed, fold and epoch, so a resumed run repeats it.


BLOCK_STEPS = 64
"""Rows are shuffled, then sorted by length inside blocks of this many steps: nearly no padding, and the order of the
steps is shuffled again, so that lengths do not cycle."""

NO_ROW = -1
"""Stands in a prediction batch where a process has fewer rows than another; dropped after gathering."""


def plan_epoch(rows: np.ndarray, lengths: np.ndarray, global_batch_size: int, seeds: Sequence[int]) -> list[np.ndarray]:
    """Split an epoch into the rows of its optimiser steps.

    Args:   rows: int64 (n,), the fold's training rows.   lengths: int64 (n_texts,), tokens a text.
            global_batch_size: rows a step; the last step may have fewer.   seeds: numbers that name this epoch.
    Returns: list of int64 arrays, every row in exactly one; rows of a step have similar lengths.
    """
    rng = np.random.default_rng(seeds)
    rows = rng.permutation(rows)
    size = BLOCK_STEPS * global_batch_size
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    ordered = np.concatenate([block[np.argsort(lengths[block], kind="stable")] for block in blocks])
    steps = [ordered[start : start + global_batch_size] for start in range(0, len(ordered), global_batch_size)]
    return [steps[i] for i in rng.permutation(len(steps))]


def split_step(
    rows: np.ndarray, lengths: np.ndarray, n_processes: int, most_rows: int, most_tokens: int | None = None
) -> list[list[np.ndarray]]:
    """Cut one step's rows into micro-batches, each into one share a process.

    Args:    lengths: int64 (n_texts,), tokens a text.   most_rows: rows a share holds.
             most_tokens: padded tokens a share holds, unless it is a single row; None is any number.
    Returns: [micro-batch][process] -> int64 rows, sizes differing by at most one; a share is empty only where the step
             has fewer rows than there are shares.
    """
    n_micro = -(-len(rows) // (n_processes * most_rows))
    while True:
        shares = np.array_split(rows, n_micro * n_processes)
        fits = most_tokens is None or max(padded_tokens(share, lengths) for share in shares) <= most_tokens
        if fits or max(map(len, shares)) == 1:
            return [shares[i * n_processes : (i + 1) * n_processes] for i in range(n_micro)]
        n_micro += 1


def padded_tokens(rows: np.ndarray, lengths: np.ndarray) -> int:
    """Tokens of a batch of `rows`, int64 (B,), each as long as the longest of them."""
    return len(rows) * int(lengths[rows].max()) if len(rows) else 0


def plan_prediction(rows: np.ndarray, lengths: np.ndarray, max_tokens: int, n_processes: int) -> list[np.ndarray]:
    """Batches for prediction: longest first, so that the largest batch meets the memory at once.

    Args:   max_tokens: padded tokens a process holds at once.
    Returns: list of int64 (n_processes, B), NO_ROW where a share is short; every row stands once.
    """
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        size = max(1, max_tokens // int(lengths[order[start]])) * n_processes
        part = order[start : start + size]
        width = -(-len(part) // n_processes)
        padded = np.full(width * n_processes, NO_ROW, dtype=np.int64)
        padded[: len(part)] = part
        batches.append(padded.reshape(n_processes, width))
        start += size
    return batches


# ---------- Rows with rare labels are seen more often; a function of a fold's training rows, so no copy crosses a fold.


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
    Raises:  ValueError: no label of a name that the settings say.
    """
    if not settings.oversample_factor:
        return rows
    labels = labels[rows]
    carriers = rows[labels[:, find_rare(labels, label_names, settings)].any(1)]
    if len(carriers) == 0:
        return rows
    drawn = rng.choice(carriers, round(settings.oversample_factor * len(carriers)))
    return np.concatenate([rows, drawn])


def find_rare(labels: np.ndarray, label_names: tuple[str, ...], settings: AugmentationSettings) -> np.ndarray:
    """int64 (R,): the labels named, or the rare ones among those that the training rows (n, L) have.

    Raises as `oversample` does.
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


# ---------- Training batches that differ from epoch to epoch: two texts joined, tokens masked.


SAMPLED_LABELS = 20_000
"""Rows drawn at least to see which labels mixed texts have."""


class Augmentation:
    """Batches of one fold; what is mixed in comes from its training rows alone."""

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
        Raises: ValueError: texts are to be mixed where each row has one label; or tokens of unknown frame.
        """
        if settings.mix_probability and task == "multiclass":
            raise UserError(
                "augmentation.mix_probability joins the labels of two rows; here each row has exactly one. Set it to 0"
            )
        self.is_on = bool(settings.mix_probability or settings.token_dropout)
        if self.is_on and not tokens.room:
            raise UserError("these tokens do not say which of them are text, so texts cannot be mixed or masked")
        self.settings, self.tokens, self.targets, self.train_rows = settings, tokens, targets, train_rows

    def batch(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Inputs as `Tokens.batch` gives them and targets, float32 (B, L), of training rows `rows`."""
        if not self.is_on:
            return self.tokens.batch(rows), self.targets[rows]
        targets, partners = self.targets[rows], self._draw_partners(len(rows), rng)
        texts = [self._text(row) for row in rows]
        for i in np.flatnonzero(partners >= 0):
            texts[i] = join_texts(texts[i], self._text(partners[i]), self.tokens.room)
            targets[i] = torch.maximum(targets[i], self.targets[partners[i]])
        texts = [self._drop_tokens(text, rng) for text in texts]
        return pad_rows([self._framed(row, text) for row, text in zip(rows, texts)], self.tokens.pad_id), targets

    def sample_targets(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 (n, L): targets as `batch` gives them to `rows`, int64; of few rows that are mixed, several draws."""
        if not self.settings.mix_probability:
            return self.targets[rows].numpy()
        rows = np.tile(rows, -(-SAMPLED_LABELS // len(rows)))
        targets, partners = self.targets[rows].numpy(), self._draw_partners(len(rows), rng)
        return np.where((partners >= 0)[:, None], np.maximum(targets, self.targets[partners].numpy()), targets)

    def _draw_partners(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """int64 (B,): the row that each row is joined with, or -1."""
        partners = rng.choice(self.train_rows, n_rows)
        return np.where(rng.random(n_rows) < self.settings.mix_probability, partners, -1)

    def _text(self, row: int) -> np.ndarray:
        ids, (before, after) = self.tokens.row(row), self.tokens.frame
        return ids[before : len(ids) - after]

    def _framed(self, row: int, text: np.ndarray) -> np.ndarray:
        ids, (before, after) = self.tokens.row(row), self.tokens.frame
        return np.concatenate([ids[:before], text, ids[len(ids) - after :]])

    def _drop_tokens(self, text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The text with some tokens masked, or left out where there is no mask token; never all of them left out."""
        dropped = rng.random(len(text)) < self.settings.token_dropout
        if self.tokens.mask_id is not None:
            return np.where(dropped, self.tokens.mask_id, text)
        return text if dropped.all() else text[~dropped]


def join_texts(first: np.ndarray, second: np.ndarray, room: int) -> np.ndarray:
    """One text after the other; where both do not fit, the beginnings of both, each with at least half the room."""
    n_first = min(len(first), max(room - len(second), room - room // 2))
    return np.concatenate([first[:n_first], second[: room - n_first]])
