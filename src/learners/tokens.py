"""Every text of a competition as token ids, made once and shared by all folds of a run."""

from dataclasses import dataclass

import numpy as np
import torch

CHUNK_TEXTS = 8192


@dataclass(frozen=True)
class Tokens:
    """Ragged token ids, flat: row r is ids[starts[r]:starts[r + 1]]."""

    ids: np.ndarray
    """int32 (total,)."""
    starts: np.ndarray
    """int64 (n_texts + 1,)."""
    pad_id: int

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n_texts,): tokens a row."""
        return np.diff(self.starts)

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask, int64 (B, T), padded on the right to the longest of `rows`."""
        lengths = self.lengths[rows]
        input_ids = np.full((len(rows), lengths.max()), self.pad_id, dtype=np.int64)
        mask = np.arange(lengths.max()) < lengths[:, None]
        for i, row in enumerate(rows):
            input_ids[i, : lengths[i]] = self.ids[self.starts[row] : self.starts[row + 1]]
        return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def tokenize(tokenizer, texts: tuple[str, ...], max_length_tokens: int) -> Tokens:
    """Token ids of every text with the tokenizer's special tokens, cut at `max_length_tokens`.

    Raises: ValueError: the tokenizer has no pad token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no pad token, so rows cannot be batched")
    pieces, lengths = [], []
    for start in range(0, len(texts), CHUNK_TEXTS):
        chunk = list(texts[start : start + CHUNK_TEXTS])
        encoded = tokenizer(chunk, truncation=True, max_length=max_length_tokens, return_attention_mask=False)
        pieces += [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        lengths += [len(ids) for ids in encoded["input_ids"]]
    return Tokens(np.concatenate(pieces), np.concatenate([[0], np.cumsum(lengths)]), tokenizer.pad_token_id)
