"""The gradients of one step's rows, over processes and micro-batches as large as memory holds."""

import numpy as np
import torch

from learners.batches import padded_tokens, split_step
from learners.devices import seed_generators
from learners.model import can_recompute, recompute_layers
from learners.progress import announce
from learners.sharding import hold_back

WORTHWHILE_TOKENS = 2048
"""Below this many tokens a micro-batch leaves a GPU idle, which costs more than computing layers' states twice."""


class StepGradients:
    """Leaves a step's gradients in the model. Where memory runs out, the step is taken again in smaller parts.

    Args: fold: the FoldTraining whose model, learner and settings these are.
    """

    def __init__(self, fold, adversary):
        self.fold, self.adversary, self.accelerator = fold, adversary, fold.accelerator
        training = fold.training
        self.most_rows = training.micro_batch_size or training.global_batch_size
        self.most_tokens: int | None = None
        self.may_recompute = (
            training.gradient_checkpointing == "auto"
            and fold.learner.run.adapter.kind != "prefix_tuning"  # its states are not computed again
            and can_recompute(self.accelerator.unwrap_model(fold.model))
        )

    def gather(self, rows: np.ndarray, seeds: list[int], epoch: int) -> torch.Tensor:
        """Gradients of rows, int64 (B,), this process's share; returns the share's summed loss, a scalar.

        Args:   seeds: numbers that name this step and process; all that is drawn follows from them.
        Raises: torch.OutOfMemoryError: not even one row fits, or several processes train and one of them ran out.
        """
        while True:
            try:
                return self._gather_once(rows, seeds, epoch)
            except torch.OutOfMemoryError as error:
                refusal = self._find_refusal(rows)
                if refusal:
                    raise torch.OutOfMemoryError(f"{refusal} ({error})") from error
            # out of the except block, so that no frame of the failed step holds its tensors
            self.fold.optimizer.zero_grad()
            self._make_room(rows)

    def _gather_once(self, rows: np.ndarray, seeds: list[int], epoch: int) -> torch.Tensor:
        seed_generators(self.accelerator.device, int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        loss = self._add_gradients(rows, np.random.default_rng(seeds))
        if self.adversary is not None and self.adversary.acts_in(epoch):
            with self.adversary.attack():
                self._add_gradients(rows, np.random.default_rng(seeds))  # the attacked loss is not the one to show
        return loss

    def _add_gradients(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Add the gradients of one step's rows, over its micro-batches and all processes."""
        loss = torch.zeros((), device=self.accelerator.device)
        *first, last = self._split(rows)
        for shares in first:
            with hold_back(self.accelerator, self.fold.model):
                loss += self._backward(shares, len(rows), rng)
        return loss + self._backward(last, len(rows), rng)

    def _split(self, rows: np.ndarray) -> list[list[np.ndarray]]:
        lengths, n_processes = self.fold.learner.tokens.lengths, self.accelerator.num_processes
        return split_step(rows, lengths, n_processes, self.most_rows, self.most_tokens)

    def _backward(self, shares: list[np.ndarray], rows_in_step: int, rng: np.random.Generator) -> torch.Tensor:
        """Gradients of this process's share. The sum is divided by all rows of the step, whoever holds them."""
        mine = shares[self.accelerator.process_index]
        present = len(mine) > 0
        rows = mine if present else self.fold.rows.train[:1]  # a process without rows still takes part, with weight 0
        summed = self.fold.learner.summed_loss(self.fold, rows, rng) * present
        # DDP averages gradients over processes, so the share is scaled back up to a sum
        self.accelerator.backward(summed * (self.accelerator.num_processes / rows_in_step))
        return summed.detach()

    def _find_refusal(self, rows: np.ndarray) -> str:
        """Why smaller micro-batches would not help, or nothing."""
        if self.accelerator.num_processes > 1:
            fewer = max(1, min(self.most_rows, len(rows) // self.accelerator.num_processes) // 2)
            return (
                f"a micro-batch of one of {self.accelerator.num_processes} processes does not fit into its memory; the "
                f"others cannot follow it to a smaller one. Go on with --training.micro_batch_size {fewer}"
            )
        if max(map(len, self._flat(rows))) == 1 and not self.may_recompute:
            return (
                "one text does not fit into memory. Lower model.max_length_tokens, or try --training."
                "gradient_checkpointing true, --adapter.quantization nf4 (decoders), or a larger device"
            )
        return ""

    def _make_room(self, rows: np.ndarray) -> None:
        """Half the tokens at once; where that would leave a GPU idle, first compute layers' states twice."""
        lengths = self.fold.learner.tokens.lengths
        tried = max(padded_tokens(share, lengths) for share in self._flat(rows))
        single = max(map(len, self._flat(rows))) == 1
        if self.may_recompute and (single or tried < 2 * WORTHWHILE_TOKENS):
            self.may_recompute = False
            recompute_layers(self.accelerator.unwrap_model(self.fold.model))
            words = "layers' states are computed twice from here on"
        else:
            self.most_tokens = tried // 2
            words = f"at most {self.most_tokens} tokens at once from here on"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        words = f"out of memory with {tried} tokens at once: {words}, the step is taken again"
        announce(f"fold {self.fold.rows.fold}", words)

    def _flat(self, rows: np.ndarray) -> list[np.ndarray]:
        return [share for shares in self._split(rows) for share in shares]
