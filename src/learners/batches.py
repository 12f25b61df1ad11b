"""Which rows each step and each process sees: a pure function of seed, fold and epoch, so a resumed run repeats it."""

from collections.abc import Sequence

import numpy as np

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
