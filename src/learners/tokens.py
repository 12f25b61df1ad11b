"""Every text of a competition as token ids, made once and shared by all folds of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

CHUNK_TEXTS = 1024
"""Texts handed to a tokenizer at once: enough to keep its threads busy, few enough for long documents."""


@dataclass(frozen=True)
class Tokens:
    """Ragged token ids, flat: row r is ids[starts[r]:starts[r + 1]]."""

    ids: np.ndarray
    """int32 (total,)."""
    starts: np.ndarray
    """int64 (n_texts + 1,)."""
    pad_id: int
    frame: tuple[int, int] = (0, 0)
    """Tokens before and after the text in every row: special tokens, a prompt."""
    room: int = 0
    """Most tokens of a text in a row; 0 is unknown, and the rows cannot be augmented."""
    mask_id: int | None = None
    """The mask token, where the tokenizer has one."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n_texts,): tokens a row."""
        return np.diff(self.starts)

    def row(self, row: int) -> np.ndarray:
        """int32 (T,): the tokens of one text, its frame included."""
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask, int64 (B, T), padded on the right to the longest of `rows`."""
        starts, ends = self.starts[rows], self.starts[rows + 1]
        places = starts[:, None] + np.arange((ends - starts).max())  # (B, T)
        mask = places < ends[:, None]
        input_ids = np.where(mask, self.ids[np.minimum(places, len(self.ids) - 1)], self.pad_id).astype(np.int64)
        return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def pad_rows(rows: Sequence[np.ndarray], pad_id: int) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask, int64 (B, T), of rows of token ids, padded on the right to the longest."""
    lengths = np.array([len(row) for row in rows])
    input_ids = np.full((len(rows), lengths.max()), pad_id, dtype=np.int64)
    mask = np.arange(lengths.max()) < lengths[:, None]
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def tokenize(tokenizer, texts: Sequence[str], max_length_tokens: int, tail_share: float = 0.0) -> Tokens:
    """Token ids of every text with the tokenizer's special tokens around it, at most `max_length_tokens` a row.

    Args:   tail_share: of a text that is too long, the share of the kept tokens that comes from its end.
    Raises: ValueError: the tokenizer has no pad token, or its special tokens leave no room.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no pad token, so rows cannot be batched")
    before, after = find_frame(tokenizer)
    room = max_length_tokens - len(before) - len(after)
    if room < 1:
        raise ValueError(
            f"model.max_length_tokens is {max_length_tokens}; {tokenizer.name_or_path} puts {len(before)} special "
            f"tokens before and {len(after)} after a text, which leaves no room for it"
        )
    flat, lengths = [], []
    for start in range(0, len(texts), CHUNK_TEXTS):
        pieces = encode_plain(tokenizer, list(texts[start : start + CHUNK_TEXTS]))
        rows = [[*before, *cut_text(ids, room, tail_share), *after] or [tokenizer.pad_token_id] for ids in pieces]
        flat.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        lengths += map(len, rows)
    starts, frame = np.cumsum([0, *lengths]), (len(before), len(after))
    return Tokens(np.concatenate(flat), starts, tokenizer.pad_token_id, frame, room, tokenizer.mask_token_id)


def cut_text(ids: list[int], room: int, tail_share: float) -> list[int]:
    """At most `room` ids: the first ones, and with a tail share the last ones too, the middle being left out.

    Example: cut_text([0, 1, ..., 9], 4, 0.5) -> [0, 1, 8, 9]
    Source:  Sun et al. 2019, arXiv:1905.05583, section 5.3 (510 tokens: 128 of the head, 382 of the tail).
    """
    if len(ids) <= room:
        return ids
    n_tail = int(room * tail_share)
    return ids[: room - n_tail] + ids[len(ids) - n_tail :]


def encode_plain(tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids of every text, whole and without special tokens around it."""
    extras = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    return tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, **extras)["input_ids"]


def find_frame(tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text; none for most decoders.

    Raises: ValueError: it changes the text's own tokens as well.
    """
    plain, whole = encode_plain(tokenizer, ["a"])[0], tokenizer("a", padding=False)["input_ids"]
    for n_before in range(len(whole) - len(plain) + 1):
        if whole[n_before : n_before + len(plain)] == plain:
            return whole[:n_before], whole[n_before + len(plain) :]
    raise ValueError(f"{tokenizer.name_or_path}: 'a' is {plain} alone but {whole} with special tokens around it")
