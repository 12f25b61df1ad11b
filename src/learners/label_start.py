"""A last layer that starts from what the labels' names mean to the encoder."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import normalize

from learners.batches import plan_prediction
from learners.devices import place
from learners.model import TextClassifier, check_positions
from learners.tokens import Tokens

SAMPLE = 128
"""Training rows that say how far logits spread."""
SPREAD = 1 / 3
"""Standard deviation of the logits at the start: enough to lean on, little enough to unlearn."""
SAME = 1e-3
"""Vectors of length 1 that are no further apart differ by rounding."""
TOKENS_PER_BATCH = 2048


def start_from_names(model: TextClassifier, named: Tokens, tokens: Tokens, rows: np.ndarray) -> np.ndarray:
    """Turn the last layer's weights of each label towards its name, in place.

    The pooled vectors of the labels' texts, each of length 1, less their mean, each of length 1 again, are the weights,
    times one factor for all: over training rows the logits of a label keep its bias as their mean, and their standard
    deviation is SPREAD in the mean of the labels. Labels whose texts are the same to the encoder stay as they are.

    Args:    named: a text for each label, in their order.   tokens: the corpus's.   rows: int64 (n,), training rows.
    Returns: int64, the labels that stay; all of them where training rows are the same to the encoder.
    Raises:  ValueError: a label's text is longer than the model has positions for.
    Source:  closeness of pooled states as closeness in meaning: Reimers and Gurevych 2019, arXiv:1908.10084.
    """
    check_positions(model.encoder, int(named.lengths.max()), "model.label_text with a label's name")
    sample = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]
    head = model.head
    model.eval()
    with torch.no_grad():
        vectors = torch.empty_like(head.weight)  # (L, width)
        for numbers, pooled in _pool(model, named, np.arange(len(vectors))):
            vectors[numbers] = pooled if pooled.ndim == 2 else pooled[np.arange(len(numbers)), numbers]
        known, weights = _directions(normalize(vectors))
        logits = torch.cat([_read(weights, pooled) for _, pooled in _pool(model, tokens, sample)])  # (n, L)
        spread = float(logits[:, known].std(0, correction=0).mean()) if known.any() else 0.0
        known &= spread > SAME
        if known.any():
            factor = SPREAD / spread
            head.weight[known] = factor * weights[known]
            head.bias[known] -= factor * logits.mean(0)[known]
    model.train()
    return torch.nonzero(~known).flatten().cpu().numpy()


def _directions(units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which labels' vectors, (L, width) of length 1, are like no other label's; and where those lie seen from their
    mean, each of length 1 again."""
    apart = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    known = apart.amin(1) > SAME
    centre = units[known].mean(0) if known.sum() > 1 else torch.zeros_like(units[0])
    return known, normalize(units - centre)


def _read(weights: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """(B, L), of what the head reads, (B, width) or (B, L, width)."""
    return pooled @ weights.T if pooled.ndim == 2 else torch.einsum("blh,lh->bl", pooled, weights)


def _pool(model: TextClassifier, tokens: Tokens, rows: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Rows, int64 (B,), and what the head reads of them, float32 (B, width) or (B, L, width)."""
    for batch in plan_prediction(rows, tokens.lengths, TOKENS_PER_BATCH, 1):
        inputs = place(tokens.batch(batch[0]), model.head.weight.device)
        yield batch[0], model.head_pooling(model.encode(**inputs), inputs["attention_mask"])
