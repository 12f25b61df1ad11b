"""What every neural learner shares: processes, weights, tokens, and a fold trained, checked and predicted.

A kind of model (encoder.py, decoder.py, generator.py) adds how it is built, and, where it is not a classifier over
token ids, how it is trained on a batch and how it predicts.
"""

from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from foldblend.errors import UserError
from foldblend.learners.cpu.layers import FusedLayer
from foldblend.learners.losses.base import best_constant
from foldblend.learners.losses.r_drop import repeat_inputs, sum_r_drop
from foldblend.learners.losses.table import build_loss
from foldblend.learners.nets.pretrained import find_weights, read_model_type
from foldblend.learners.processes import zero3
from foldblend.learners.processes.devices import (
    choose_precision,
    describe_device,
    join_processes,
    keep_freed_memory,
    place,
    use_cores,
)
from foldblend.learners.processes.sharding import gather_as_held, spreads
from foldblend.learners.table import Corpus, FoldRows
from foldblend.learners.tokens.tokens import Tokens, add_placeholders, load_or_make, tokenize
from foldblend.learners.training.checkpoints import load_weights, restore_model
from foldblend.learners.training.checks import check_end
from foldblend.learners.training.heldout import prior_logits
from foldblend.learners.training.loop import FoldTraining
from foldblend.learners.training.predicting import predict_logits
from foldblend.learners.training.weights import describe_training
from foldblend.predictions import FoldPredictions
from foldblend.settings.run import RunSettings


class NeuralLearner:
    """Finds weights and makes tokens once; every fold starts from the same weights and its own head."""

    uses_all_processes = True
    builds_anew = False
    """Whether `build_fold_model` makes a model that shares nothing with the one before."""

    def __init__(self, run: RunSettings, corpus: Corpus):
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # weights that are missing are refused by name
        use_cores()
        self.run, self.corpus = run, corpus
        if run.loss.soft_targets and len(corpus.labels) and corpus.soft_targets is None:
            raise UserError(f"loss.soft_targets is {run.loss.soft_targets}, but the corpus holds labels alone")
        self.targets = torch.from_numpy(corpus.taught.astype(np.float32))  # (N, L)
        state = join_processes()
        self.folder, where = find_weights(run.model.name, run.model.revision)
        if state.device.type == "cpu":
            keep_freed_memory()
        self.precision = choose_precision(run.training.precision, state.device, read_model_type(self.folder))
        if state.distributed_type == DistributedType.DEEPSPEED:
            self.accelerator = zero3.build_accelerator(run, self.precision)
        else:
            self.accelerator = Accelerator(mixed_precision=self.precision, cpu=state.device.type == "cpu")
            gather_as_held(self.accelerator)
        self.fresh_scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        if run.optimizer.state_precision == "8bit" and spreads(self.accelerator):
            raise UserError(
                "optimizer.state_precision 8bit works on whole tensors, and this launch spreads them over processes "
                "(FSDP2 or ZeRO-3); launch with configs/accelerate/ddp.yaml or set it to float32"
            )
        self.accelerator.wait_for_everyone()  # the first one may still be clearing what --overwrite forgets
        self.accelerator.print(where)

    @cached_property
    def tokenizer(self):
        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        if self.run.cleaning.placeholder_tokens:
            add_placeholders(tokenizer, self.run.cleaning.placeholders)
        return tokenizer

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens of every text, made at the first fold or read from where another process made them."""
        run, corpus = self.run, self.corpus
        follow_from = {
            "learner": run.learner,
            "label_names": corpus.label_names,
            **{name: asdict(getattr(run, name)) for name in ("cleaning", "prompt")},
            **{name: getattr(run.model, name) for name in ("max_length_tokens", "tail_fraction", "pad_token")},
        }
        return load_or_make(corpus.cache_dir, self.folder, corpus.texts, follow_from, self.make_tokens)

    def make_tokens(self) -> Tokens:
        """Tokens of every text."""
        model = self.run.model
        return tokenize(self.tokenizer, self.corpus.texts, model.max_length_tokens, model.tail_fraction)

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        """The model this fold starts from, its fresh parts drawn from `seed`; on the CPU, in training mode."""
        raise NotImplementedError

    def start_model(self, model: nn.Module, rows: FoldRows) -> None:
        """What a model that starts its training learns before the first step, in place; a resumed one needs it not."""

    def build_trained_model(self) -> nn.Module:
        """A model that a finished fold's weights fit, whatever it holds now; on the CPU."""
        nothing = np.zeros(0, dtype=np.int64)
        return self.build_fold_model(FoldRows(0, nothing, nothing, Path()), seed=0)

    def build_fold_loss(self, rows: FoldRows) -> nn.Module:
        """The loss, with what it needs to know of the fold's training labels."""
        return build_loss(self.run.loss, self.corpus.labels[rows.train], self.corpus.task)

    def best_constant(self, loss: nn.Module, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """The best answer that ignores the text, to rows of these labels, bool (n, L), as they are drawn in training:
        its logits, float32 (L,), for `heldout_loss`, and its mean training loss a row, to be got below."""
        batch = self.run.training.micro_batch_size or self.run.training.global_batch_size
        return best_constant(loss, labels, batch)

    def summed_loss(self, fold: FoldTraining, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Loss of training rows `rows`, int64 (B,), summed over them; `rng` draws what augments them.

        Its value is compared with `best_constant`'s; what a run adds to it acts by its gradient alone.
        """
        inputs, targets = fold.augmentation.batch(rows, rng)
        inputs = place({**inputs, "targets": targets}, self.accelerator.device)
        targets, alpha = inputs.pop("targets"), self.run.loss.r_drop_alpha
        with self.accelerator.autocast():
            logits = fold.model(**(repeat_inputs(inputs) if alpha else inputs))  # (B, L); twice B with R-Drop
        if alpha:
            return sum_r_drop(fold.loss, logits, targets, alpha, self.corpus.task)
        return fold.loss(logits, targets)

    def heldout_loss(self, loss: nn.Module, logits: np.ndarray, rows: FoldRows) -> float:
        """Mean loss a row of the held-out rows, from their logits, float32 (n_heldout, L)."""
        labels = self.corpus.labels[rows.heldout].astype(np.float32)  # whatever the training rows were taught
        device, targets = self.accelerator.device, torch.from_numpy(labels)
        with torch.no_grad():
            return float(loss(torch.from_numpy(logits).to(device), targets.to(device))) / len(targets)

    def predict(self, model: nn.Module, rows: np.ndarray, tokens_in_batch: int | None = None) -> np.ndarray:
        """float32 logits (n, L) of texts `rows`, on every process; by default in batches as the device holds them."""
        n_labels = len(self.corpus.label_names)
        return predict_logits(self.accelerator, model, self.tokens, rows, n_labels, tokens_in_batch=tokens_in_batch)

    def head_bias(self, rows: FoldRows) -> np.ndarray | None:
        """float32 (L,) that a fresh head starts from, where the settings ask for it."""
        if not self.run.loss.bias_from_prior or not len(rows.train):
            return None
        return prior_logits(self.corpus.taught[rows.train], self.corpus.task)

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        try:
            return self._train_fold(rows)
        finally:  # the frame that held the fold is gone, so that its memory is free for the next one
            self.accelerator.free_memory()
            if self.accelerator.device.type != "cpu":
                clear_device_cache(garbage_collection=True)  # of what Accelerate has let go only now

    def _train_fold(self, rows: FoldRows) -> FoldPredictions:
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.fresh_scaler)
        fold = FoldTraining(self, rows)
        fold.train()
        check_end(self, fold)
        heldout, test = (self.predict(fold.model, part) for part in (rows.heldout, self.corpus.test_rows))
        fold.check_learned(heldout)
        score = fold.score(heldout)
        device = describe_device(self.accelerator.device, self.accelerator.num_processes, self.precision)
        if any(isinstance(module, FusedLayer) for module in fold.model.modules()):
            device += ", fused layers"  # other bits than without them
        return FoldPredictions(
            rows.fold, rows.heldout, heldout, test, "logits", score, device, selected_on_heldout=fold.selection.looks
        )

    def predict_fold(self, checkpoint_dir: Path) -> np.ndarray:
        model = self.build_trained_model()
        restore_model(model, load_weights(checkpoint_dir))
        try:
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
            logits = self.predict(model, self.corpus.test_rows)
        finally:
            self.accelerator.free_memory()
        bad = int((~np.isfinite(logits)).any(1).sum())
        if bad:
            raise UserError(f"{checkpoint_dir}: {bad} of {len(logits)} texts have logits that are not finite")
        return logits

    def identity(self, rows: FoldRows) -> dict:
        """What a checkpoint must agree with."""
        return describe_training(self.run, self.corpus, rows)
