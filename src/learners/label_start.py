"""A head that starts from what the labels' names mean to the encoder."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import normalize

from learners.batches import plan_prediction
from learners.model import TextClassifier
from learners.tokens import Tokens

SAMPLE = 128
"""Training rows that say how far logits spread."""
SPREAD = 1 / 3
"""Standard deviation of the logits at the start: enough to lean on, little enough to unlearn."""
SAME = 1e-4
"""Vectors of length 1 that are no further apart differ by rounding."""
TOKENS_PER_BATCH = 2048


def start_from_names(model: TextClassifier, named: Tokens, tokens: Tokens, rows: np.ndarray) -> None:
    """Point the last layer's weights to the labels' names, in place.

    A label's direction is the pooled vector of its text less the mean of all labels', so that a logit is a cosine
    similarity without what all labels share. Over training rows logits keep the bias as their mean; SPREAD is their
    standard deviation.

    Args:   named: a text for each label, in their order.   tokens: the corpus's.   rows: int64 (n,), training rows.
    Raises: ValueError: the encoder has one vector for all labels, or for all rows.
    Source: cosine similarity of pooled states as closeness in meaning: Reimers and Gurevych 2019, arXiv:1908.10084.
    """
    sample = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]
    head = model.head
    model.eval()
    with torch.no_grad():
        vectors = torch.empty_like(head.weight)  # (L, width)
        for numbers, pooled in _pool(model, named, np.arange(len(vectors))):
            vectors[numbers] = pooled if pooled.ndim == 2 else pooled[np.arange(len(numbers)), numbers]
        directions = normalize(vectors) - normalize(vectors).mean(0)
        head.weight.copy_(normalize(directions))
        logits = torch.cat([head(pooled) for _, pooled in _pool(model, tokens, sample)]) - head.bias  # (n, L)
        spread = float(logits.std(0, correction=0).mean())
        if min(float(directions.norm(dim=1).max()), spread) < SAME:
            raise ValueError(
                "model.head_start is label_names, but the encoder finds no difference between the labels' names or "
                "between training rows; set it to random"
            )
        head.weight.mul_(SPREAD / spread)
        head.bias.sub_(logits.mean(0) * (SPREAD / spread))
    model.train()


def _pool(model: TextClassifier, tokens: Tokens, rows: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Rows, int64 (B,), and what the head reads of them, float32 (B, width) or (B, L, width)."""
    for batch in plan_prediction(rows, tokens.lengths, TOKENS_PER_BATCH, 1):
        inputs = tokens.batch(batch[0])
        yield batch[0], model.head_pooling(model.encode(**inputs), inputs["attention_mask"])
