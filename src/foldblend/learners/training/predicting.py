"""Logits of given rows, from every process, each row once and in order."""

from collections import deque
from contextlib import closing

import numpy as np
import torch

from foldblend.console import Progress, announce
from foldblend.errors import UserError
from foldblend.learners.processes.devices import agree, is_sharded, place, short_reason
from foldblend.learners.tokens.batches import NO_ROW, plan_prediction
from foldblend.learners.tokens.tokens import Tokens

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
    """Predict `rows` with the weights of now, in the precision that the model was prepared for.

    Args:    rows: int64 (n,), positions in the corpus.   n_beside: tokens that a row costs in addition to its own.
             tokens_in_batch: padded tokens of a process's batch; by default what the device holds. With 1 each text
             is predicted alone.
    Returns: float32 (n, L) on every process, in the order of `rows`.
    Raises:  RuntimeError: the processes' parts do not make up `rows` (an error of ours).
             UserError: one text does not fit, or a batch of a sharded model; else larger batches are taken
             again in halves.
    """
    model.eval()
    budget = tokens_in_batch or TOKENS_PER_BATCH.get(accelerator.device.type, 16384)
    lengths, n_processes = tokens.lengths + n_beside, accelerator.num_processes
    seen, parts = [], []
    batches = deque(plan_prediction(rows, lengths, budget, n_processes))
    progress = Progress("prediction", len(rows), shown=accelerator.is_main_process)
    with torch.inference_mode(), closing(progress):
        while batches:
            batch = batches[0]
            mine = batch[accelerator.process_index]
            inputs = place(tokens.batch(np.where(mine == NO_ROW, rows[0], mine)), accelerator.device)
            logits = _forward(model, inputs, can_be_smaller=batch.shape[1] > 1)  # (B, L)
            if agree(accelerator, logits is None)[0]:
                budget = batch.shape[1] * int(lengths[batch[batch != NO_ROW]].max()) // 2
                if accelerator.is_main_process:
                    announce("prediction", f"out of memory: at most {budget} tokens at once from here on")
                left = np.concatenate([part[part != NO_ROW] for part in batches])
                batches = deque(plan_prediction(left, lengths, budget, n_processes))
                continue
            gathered_rows, gathered = accelerator.gather((torch.from_numpy(mine).to(accelerator.device), logits))
            seen.append(gathered_rows)
            parts.append(gathered)
            batches.popleft()
            progress.advance(int((batch != NO_ROW).sum()), f"{len(rows)} rows")
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


def _forward(model, inputs: dict[str, torch.Tensor], can_be_smaller: bool) -> torch.Tensor | None:
    """float32 logits (B, L); None where they do not fit into memory, but those of fewer rows may.

    A process with shards of the model cannot say so: the others wait in the middle of it.
    """
    try:
        return model(**inputs).float()
    except torch.OutOfMemoryError as error:
        if not can_be_smaller or is_sharded(model):
            raise UserError(
                f"Predicting {len(inputs['input_ids'])} texts at once does not fit into the device's memory, and fewer "
                "cannot be tried. Free its memory or take a larger one; the same command goes on from the last save "
                f"({short_reason(error)})"
            ) from error
    torch.cuda.empty_cache()  # out of the except block, so that no frame of the failed batch holds its tensors
    return None
