"""Logits of given rows, from every process, each row once and in order."""

import numpy as np
import torch

from learners.batches import NO_ROW, plan_prediction
from learners.tokens import Tokens

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65536}


def predict_logits(
    accelerator,
    model,
    tokens: Tokens,
    rows: np.ndarray,
    n_labels: int,
    n_beside: int = 0,
    tokens_in_batch: int | None = None,
) -> np.ndarray:
    """Predict `rows` with the model as it stands, in the precision that it was prepared for.

    Args:    rows: int64 (n,), positions in the corpus.   n_beside: tokens that a row costs beside its own.
             tokens_in_batch: padded tokens of a process's batch; by default what the device holds. With 1 each text
             is predicted alone.
    Returns: float32 (n, L) on every process, in the order of `rows`.
    Raises:  RuntimeError: the processes' parts do not make up `rows` (an error of ours).
    """
    model.eval()
    budget = tokens_in_batch or TOKENS_PER_BATCH.get(accelerator.device.type, 16384)
    seen, parts = [], []
    with torch.inference_mode():
        for batch in plan_prediction(rows, tokens.lengths + n_beside, budget, accelerator.num_processes):
            mine = batch[accelerator.process_index]
            inputs = tokens.batch(np.where(mine == NO_ROW, rows[0], mine))
            logits = model(**{name: tensor.to(accelerator.device) for name, tensor in inputs.items()})  # (B, L)
            row_numbers = torch.from_numpy(mine).to(accelerator.device)
            gathered_rows, gathered = accelerator.gather((row_numbers, logits.float()))
            seen.append(gathered_rows)
            parts.append(gathered)
    model.train()
    if not parts:
        return np.zeros((0, n_labels), dtype=np.float32)
    seen, logits = torch.cat(seen).cpu().numpy(), torch.cat(parts).cpu().numpy()
    seen, logits = seen[seen != NO_ROW], logits[seen != NO_ROW]
    if not np.array_equal(np.sort(seen), np.sort(rows)):
        raise RuntimeError(f"predicted {len(seen)} rows, {len(rows)} were asked for")
    position = np.empty(int(seen.max()) + 1, dtype=np.int64)
    position[seen] = np.arange(len(seen))
    return logits[position[rows]]
