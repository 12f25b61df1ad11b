"""What every neural learner shares: processes, pretrained weights, tokens, and a fold that is trained and predicted.

To add a kind of model, write a class of `NeuralLearner` and one line in settings/tables.py. Only `build_fold_model`
must be written; encoder.py is the shortest example. A fold calls the hooks in this order:

    build_fold_model   the model with its fresh parts, on the CPU; Accelerate then moves it to the device
    start_model        what a new model learns before its first step; not called for a fold that is resumed
    build_fold_loss    a module that sums the loss over rows
    best_constant      the best answer that ignores the text, and its loss, which the training must get below
    batch_loss         the loss of one batch of training rows, with its gradient: called for every step
    predict            logits of any rows: for evaluations, the held-out rows and the test rows
    heldout_loss       mean loss per held-out row, from their logits
    score              scores of the held-out rows that a person sees

New texts are predicted by `build_trained_model` and `predict`. The loop itself is training/loop.py.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from foldblend.console import warn
from foldblend.errors import UserError
from foldblend.features import FittedFeatures
from foldblend.learners.cpu.layers import has_fused_layers
from foldblend.learners.losses.base import best_constant, masked
from foldblend.learners.losses.named import build_loss, repeat_inputs, sum_r_drop
from foldblend.learners.nets.classifier import count_parameters
from foldblend.learners.nets.folders import check_weights, keep_own_model, note_model, read_model_type
from foldblend.learners.nets.pretrained import find_weights, load_tokenizer, refusing_code
from foldblend.learners.processes.devices import (
    choose_precision,
    describe_device,
    explained_memory,
    gather_as_held,
    join_processes,
    keep_freed_memory,
    place,
    spreads,
    use_cores,
    warn_of_fp16,
)
from foldblend.learners.table import Corpus, FoldRows, prior_logits, score_heldout
from foldblend.learners.tokens.coverage import Truncation, check_known, measure_truncation, most_positions
from foldblend.learners.tokens.tokens import Tokens, add_placeholders, load_or_make, tokenize
from foldblend.learners.training.checkpoints import FoldStore, load_weights, restore_model
from foldblend.learners.training.checks import check_end, check_logits
from foldblend.learners.training.loop import BuiltFold, build_fold, note, train
from foldblend.learners.training.predicting import predict_logits
from foldblend.learners.training.starts import check_start, load_start, take_start
from foldblend.learners.training.weights import describe_training, read_features
from foldblend.predictions import FoldPredictions
from foldblend.settings.run import LogisticSettings, RunSettings
from foldblend.settings.tables import LEARNERS

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]
"""Inputs of the model, int64 (B, T) each, and targets, float32 (B, L); on the CPU."""


class NeuralLearner:
    """Finds the pretrained weights and makes tokens once; every fold starts from the same weights and its own head."""

    uses_all_processes = True
    builds_whole_model = False
    """Whether `build_fold_model` makes a model that shares nothing with the one before."""

    def __init__(self, run: RunSettings, corpus: Corpus):
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # missing weights are refused by name
        use_cores()
        self.run, self.corpus, self.told_truncation = run, corpus, False
        self.pretraining_facts: dict = {}
        self.kept: dict[Path, tuple[nn.Module, FittedFeatures | None]] | None = None
        """Trained folds in memory, by their folders, once `keep_models` asked for it."""
        self.beside: np.ndarray | None = None
        """float32 (n_texts, W): the columns beside the texts as the fold at hand reads them; None if there are none."""
        if run.loss.soft_targets and len(corpus.labels) and corpus.soft_targets is None:
            raise UserError(f"loss.soft_targets is {run.loss.soft_targets}, but the corpus has labels only")
        state = join_processes()
        self.folder, where = find_weights(run.model.name, run.model.revision)
        if state.device.type == "cpu":
            keep_freed_memory()
        model_type = read_model_type(self.folder)
        self.precision = choose_precision(run.training.precision, state.device, model_type)
        self.accelerator = Accelerator(mixed_precision=self.precision, cpu=state.device.type == "cpu")
        gather_as_held(self.accelerator)
        self.fresh_scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        if run.optimizer.state_precision == "8bit" and spreads(self.accelerator):
            raise UserError(
                "optimizer.state_precision 8bit works on whole tensors, and this launch (FSDP2) spreads them over "
                "processes. Launch with --config_file configs/accelerate/ddp.yaml, or set it to float32"
            )
        self.accelerator.wait_for_everyone()  # the first one may still be removing what --overwrite replaces
        self.accelerator.print(where)
        if self.accelerator.is_main_process and (risk := warn_of_fp16(self.precision, model_type)):
            warn(risk)

    @property
    def gpus_per_fold(self) -> int:
        """How many GPUs of this machine share every step of a fold, each with a whole model; 0 if that is not so."""
        together = self.accelerator.distributed_type == DistributedType.MULTI_GPU
        n_processes = self.accelerator.num_processes
        return n_processes if together and os.environ.get("LOCAL_WORLD_SIZE") == str(n_processes) else 0

    # 1. Tokens

    @cached_property
    def tokenizer(self):
        tokenizer = load_tokenizer(self.folder)
        if self.run.cleaning.placeholder_tokens:
            add_placeholders(tokenizer, self.run.cleaning.placeholders)
        return tokenizer

    @property
    def tokens(self) -> Tokens:
        """Tokens of every text, with what the fold at hand reads beside them."""
        return self._text_tokens if self.beside is None else replace(self._text_tokens, beside=self.beside)

    @property
    def n_beside(self) -> int:
        """W, columns beside the texts."""
        return 0 if self.beside is None else self.beside.shape[1]

    def read_beside(self, fitted: FittedFeatures | None) -> None:
        """Read the columns beside the texts as a fold does that is trained or predicts next."""
        self.beside = None if fitted is None else fitted.read(self.corpus.features)

    @cached_property
    def _text_tokens(self) -> Tokens:
        """Tokens of every text, made at the first fold or read from where another process made them."""
        tokens = self._load_tokens()
        if len(self.corpus.labels):  # new texts are predicted whatever they are
            check_known(tokens, self.tokenizer, self.corpus.texts, self.run.model.max_unknown_share, "model")
        return tokens

    @cached_property
    def truncation(self) -> Truncation | None:
        """What model.max_length_tokens cuts off the texts; None if that is not known."""
        with refusing_code(self.folder):
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        return measure_truncation(self.tokens, self.run.model.max_length_tokens, most_positions(config))

    def _load_tokens(self) -> Tokens:
        run, corpus = self.run, self.corpus
        follow_from = {
            "learner": run.learner,
            "label_names": corpus.label_names,
            **{name: asdict(getattr(run, name)) for name in ("cleaning", "prompt")},
            **{name: getattr(run.model, name) for name in ("max_length_tokens", "tail_fraction", "pad_token")},
        }
        return load_or_make(corpus.cache_dir, self.folder, corpus.texts, follow_from, self.make_tokens)

    def make_tokens(self, texts: Sequence[str] | None = None) -> Tokens:
        """Tokens of every text of the corpus, or of `texts`."""
        model, texts = self.run.model, self.corpus.texts if texts is None else texts
        return tokenize(self.tokenizer, texts, model.max_length_tokens, model.tail_fraction)

    # 2. Hooks: what a kind of model says of itself

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        """The model this fold starts from, its fresh parts drawn from `seed`; on the CPU, in training mode."""
        raise NotImplementedError

    def start_model(self, model: nn.Module, rows: FoldRows) -> None:
        """Change a new model in place before its first step; a resumed one has it from its checkpoint."""

    def go_on_from_start(self, model: nn.Module) -> None:
        """Put the weights of `model.start_from` and of `pretraining`, if they are set, into a new model, in place."""
        if self.start_weights is not None:
            source = "pretraining" if self.pretrains else f"model.start_from {self.run.model.start_from}"
            take_start(model, self.start_weights, source)

    @cached_property
    def start_weights(self) -> dict[str, torch.Tensor] | None:
        """What every fold starts from in place of the pretrained weights; None for those.

        Raises: UserError: the other training cannot be a start of this run, or its weights are missing or damaged.
        """
        weights = None
        if self.run.model.start_from:
            start = self.corpus.start
            if start is None:
                raise UserError(f"model.start_from is {self.run.model.start_from}, but no weights of it are given")
            check_start(self.run, start, self.folder, self.tokenizer.get_vocab())
            weights = load_start(start)
        if self.pretrains:
            from foldblend.learners.training.pretraining import pretrain  # imports peft, which is slow

            weights, self.pretraining_facts = pretrain(self, weights)
        return weights

    @property
    def pretrains(self) -> bool:
        """Whether the run pretrains on the competition's own texts before its folds."""
        return "pretraining" in LEARNERS[self.run.learner].reads and self.run.pretraining.epochs > 0

    def start_beside(self, model: nn.Module, rows: FoldRows) -> None:
        """Start the share of the columns beside the texts, in place, at what they say without a text.

        From zero a few hundred steps of a small learning rate would not reach it.
        """
        if self.beside is not None:
            from foldblend.learners.linear.learner import fit_each_label  # imports scikit-learn

            taught = self.corpus.taught[rows.train]
            model.start_beside(*fit_each_label(self.beside[rows.train], taught, LogisticSettings(), self.corpus.task))

    def build_trained_model(self) -> nn.Module:
        """A model that a finished fold's weights fit, whatever its own are; on the CPU."""
        nothing = np.zeros(0, dtype=np.int64)
        return self.build_fold_model(FoldRows(0, nothing, nothing, Path()), seed=0)

    def build_fold_loss(self, rows: FoldRows) -> nn.Module:
        """The loss, (logits (B, L), targets (B, L)) -> its sum over rows; it may know the fold's training labels."""
        loss = build_loss(self.run.loss, self.corpus.labels[rows.train], self.corpus.task)
        return masked(loss, self.run.loss.name) if self.corpus.some_unknown else loss

    def best_constant(self, loss: nn.Module, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """The best answer that ignores the text, to rows of these labels, (n, L), as they are drawn in training.

        Returns: its logits, float32 (L,), for `heldout_loss`, and its mean training loss per row.
        """
        batch = self.run.training.micro_batch_size or self.run.training.global_batch_size
        return best_constant(loss, labels, batch)

    def batch_loss(self, model: nn.Module, loss: nn.Module, batch: Batch) -> torch.Tensor:
        """Loss of a batch of training rows, summed over them, a scalar with gradient.

        Its value is compared with `best_constant`'s; what a run adds to it (R-Drop) acts by its gradient alone.
        """
        inputs, targets = batch
        inputs = place({**inputs, "targets": targets}, self.accelerator.device)
        targets, alpha = inputs.pop("targets"), self.run.loss.r_drop_alpha
        with self.accelerator.autocast():
            logits = model(**(repeat_inputs(inputs) if alpha else inputs))  # (B, L); (2 B, L) with R-Drop
        if alpha:
            return sum_r_drop(loss, logits, targets, alpha, self.corpus.task)
        return loss(logits, targets)

    def predict(self, model: nn.Module, rows: np.ndarray, tokens_in_batch: int | None = None) -> np.ndarray:
        """float32 logits (n, L) of texts `rows`, on every process; by default in batches as the device holds them."""
        n_labels = len(self.corpus.label_names)
        return predict_logits(self.accelerator, model, self.tokens, rows, n_labels, tokens_in_batch=tokens_in_batch)

    def heldout_loss(self, loss: nn.Module, logits: np.ndarray, rows: FoldRows) -> float:
        """Mean loss per held-out row, from their logits, float32 (n_heldout, L)."""
        labels = self.corpus.scored[rows.heldout].astype(np.float32)  # labels even if soft targets were trained on
        if self.corpus.known is not None:
            labels[~self.corpus.known[rows.heldout]] = np.nan
        device, targets = self.accelerator.device, torch.from_numpy(labels)
        with torch.no_grad():
            return float(loss(torch.from_numpy(logits).to(device), targets.to(device))) / len(targets)

    def score(self, logits: np.ndarray, rows: FoldRows) -> dict[str, float]:
        """Scores of held-out logits (n_heldout, L); the thresholds come from the training rows' label rates."""
        corpus, rates, judged = self.corpus, self.corpus.rates(rows.train), self.corpus.judged(rows.heldout)
        return score_heldout(logits, corpus.scored[rows.heldout], rates, corpus.task, corpus.metric, **judged)

    def head_bias(self, rows: FoldRows) -> np.ndarray | None:
        """float32 (L,) that a fresh head starts from, if the settings ask for it."""
        if not self.run.loss.bias_from_prior or not len(rows.train):
            return None
        return prior_logits(self.corpus.taught[rows.train], self.corpus.task)

    def identity(self, rows: FoldRows) -> dict:
        """What a checkpoint must agree with."""
        return describe_training(self.run, self.corpus, rows)

    # 3. A fold trained, checked and predicted

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        try:
            with explained_memory():
                return self._train_fold(rows)
        finally:  # the frame that held the fold is gone, so its memory is free for the next one
            self.accelerator.free_memory()
            if self.accelerator.device.type != "cpu":
                clear_device_cache(garbage_collection=True)  # Accelerate has released its part only now

    def _train_fold(self, rows: FoldRows) -> FoldPredictions:
        check_weights(self.folder)  # before texts are tokenized, which may take minutes
        if not FoldStore.has_saved(rows.checkpoint_dir):
            self.start_weights  # noqa: B018  # the same: it is refused here if it does not fit
        self.tell_truncation()
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.fresh_scaler)
        fold, state = build_fold(self, rows)
        train(self, fold, state)
        check_end(self, fold)
        if self.accelerator.is_main_process:
            self.keep_model(rows.checkpoint_dir)
        heldout, test = (self.predict(fold.model, part) for part in (rows.heldout, self.corpus.test_rows))
        self.check_learned(fold, state.mean_loss, heldout)
        score = self.score(heldout, rows)
        note(self, fold, state, {f"final_{name}": value for name, value in score.items()})
        device = describe_device(self.accelerator.device, self.accelerator.num_processes, self.precision)
        return FoldPredictions(
            rows.fold,
            rows.heldout,
            heldout,
            test,
            "logits",
            score,
            device + ", fused layers" * has_fused_layers(fold.model),
            selected_on_heldout=fold.store.selection.by_heldout,
            earlier_seconds=fold.earlier_seconds,
            n_parameters=count_parameters(self.accelerator.unwrap_model(fold.model)),
            truncation=self.truncation.record() if self.truncation is not None else {},
            pretraining=self.pretraining_facts,
        )

    def keep_model(self, checkpoint_dir: Path) -> None:
        """Leave in the fold's folder what predicting new texts needs beside the weights, or the name of it."""
        if self.builds_whole_model:
            keep_own_model(self.folder, checkpoint_dir)
        else:
            note_model(self.folder, self.run.model.name, checkpoint_dir)

    def tell_truncation(self) -> None:
        """Print once what is cut off the texts, before any step."""
        if self.truncation is not None and not self.told_truncation:
            if line := self.truncation.line("model.max_length_tokens"):
                self.accelerator.print(line)
            self.told_truncation = True

    def check_learned(self, fold: BuiltFold, mean_loss: float, heldout: np.ndarray) -> None:
        """Raise UserError if neither the last steps nor held-out logits (n_heldout, L) beat a constant answer."""
        if not len(heldout):  # all rows were taught: only the training loss is left to judge by
            fold.guard.check_end(fold.n_steps, mean_loss, np.inf, np.inf)
            return
        check_logits(heldout, f"fold {fold.rows.fold}, held-out rows")
        constant = np.tile(fold.constant, (len(heldout), 1))
        losses = [self.heldout_loss(fold.loss, logits, fold.rows) for logits in (heldout, constant)]
        fold.guard.check_end(fold.n_steps, mean_loss, *losses)

    def keep_models(self) -> None:
        """Keep every fold in memory that predicts from now on. Folds that share a base keep the base, as they do."""
        self.kept = {} if self.builds_whole_model else None

    def read_texts(self, corpus: Corpus) -> None:
        """Take other texts to predict; what is loaded stays loaded."""
        self.corpus = corpus
        self.__dict__.pop("_text_tokens", None)

    def load_fold(self, checkpoint_dir: Path) -> nn.Module:
        """The model of a trained fold, ready to predict, and what it reads beside the texts."""
        if self.kept is not None and checkpoint_dir in self.kept:
            model, fitted = self.kept[checkpoint_dir]
            self.read_beside(fitted)
            self.check_texts(model)
            return model
        fitted = read_features(checkpoint_dir)
        self.read_beside(fitted)
        model = self.build_trained_model()
        restore_model(model, load_weights(checkpoint_dir))
        model = self.accelerator.prepare_model(model, evaluation_mode=True)
        if self.kept is not None:
            self.kept[checkpoint_dir] = model, fitted
        return model

    def check_texts(self, model: nn.Module) -> None:
        """Raise UserError if a text is longer than the model can read."""

    def predict_fold(self, checkpoint_dir: Path) -> np.ndarray:
        try:
            with explained_memory():
                return self.predict(self.load_fold(checkpoint_dir), self.corpus.test_rows)
        finally:
            self.accelerator.free_memory()
