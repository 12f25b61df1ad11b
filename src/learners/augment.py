"""Training batches that differ from epoch to epoch: two texts joined, tokens masked."""

import numpy as np
import torch

from learners.tokens import Tokens, pad_rows
from settings.augmentation import AugmentationSettings

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
            raise ValueError(
                "augmentation.mix_probability joins the labels of two rows; here each row has exactly one. Set it to 0"
            )
        self.is_on = bool(settings.mix_probability or settings.token_dropout)
        if self.is_on and not tokens.room:
            raise ValueError("these tokens do not say which of them are text, so texts cannot be mixed or masked")
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
