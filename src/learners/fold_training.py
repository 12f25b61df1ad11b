"""The training loop of one fold, whatever the model: steps, saves, goes on where it was killed."""

import sys
import time
from contextlib import nullcontext

import numpy as np
import torch

from learners.adversarial import build_adversary
from learners.augment import Augmentation
from learners.batches import plan_epoch, split_step
from learners.checkpoints import (
    CHECKPOINT,
    WEIGHTS,
    Place,
    load_checkpoint,
    model_tensors,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from learners.collapse import CollapseGuard, update_mean
from learners.ema import WeightAverage
from learners.heldout import score_heldout
from learners.interface import FoldRows
from learners.interruption import Interruption
from learners.optimizer import build_optimizer, clip_gradients, lr_factor, set_lr, settle
from learners.progress import Progress
from learners.row_adamw import choose_table
from learners.sampling import oversample

LOSS_EVERY_STEPS = 10
"""Reading the loss waits for the device, so it is read this often."""


class FoldTraining:
    """One fold: the model, its optimiser, and the place it has come to."""

    def __init__(self, learner, rows: FoldRows):
        self.learner, self.rows, self.accelerator = learner, rows, learner.accelerator
        self.training, self.corpus = learner.run.training, learner.corpus
        seed = int(np.random.SeedSequence([learner.run.seed, rows.fold]).generate_state(1)[0])
        model = learner.build_fold_model(rows, seed)
        table = choose_table(model, learner.run, self.accelerator.device, self.accelerator.num_processes)
        optimizer = build_optimizer(model, learner.run.optimizer, table)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        bare = self.accelerator.unwrap_model(self.model)
        self.adversary = build_adversary(bare, learner.run.adversarial)
        self.average = WeightAverage(bare, self.training.ema_decay) if self.training.ema_decay else None
        self.loss = learner.build_fold_loss(rows).to(self.accelerator.device)
        self.guard = CollapseGuard(learner.prior_loss(self.loss, rows), self.training.collapse_check_after_steps)
        settings = learner.run.augmentation
        self.augmentation = Augmentation(settings, learner.tokens, learner.targets, rows.train, self.corpus.task)
        self.rows_per_epoch = len(self._draw_rows(0))
        self.steps_per_epoch = -(-self.rows_per_epoch // self.training.global_batch_size)
        self.identity = learner.identity(rows)
        self.place = self._restore()
        self.saved_at = time.monotonic()
        self.window_loss, self.window_rows = torch.zeros((), device=self.accelerator.device), 0

    def train(self) -> None:
        """Train to the end from wherever the fold stands. Raises SystemExit after a signal, once saved."""
        if self.place.epoch == self.training.epochs:
            return
        done = self.place.epoch * self.rows_per_epoch + self.place.step * self.training.global_batch_size
        total = self.training.epochs * self.rows_per_epoch
        self.progress = Progress(f"fold {self.rows.fold}", total, done, self.accelerator.is_main_process)
        if done:
            self.progress.say(f"goes on from epoch {self.place.epoch + 1}, step {self.place.step}")
        try:
            with Interruption() as interruption:
                while self.place.epoch < self.training.epochs:
                    self._train_epoch(interruption)
        finally:
            self.progress.close()

    def score(self, heldout_logits: np.ndarray) -> dict:
        """The score shown for held-out logits (n_heldout, L); its cut-offs are the training rows' label rates."""
        labels = self.corpus.labels
        rates = labels[self.rows.train].mean(0)
        return score_heldout(heldout_logits, labels[self.rows.heldout], rates, self.corpus.task)

    def _draw_rows(self, epoch: int) -> np.ndarray:
        """The training rows of an epoch, int64 (rows_per_epoch,), those with rare labels more than once if so set."""
        rng = np.random.default_rng([self.learner.run.seed, self.rows.fold, epoch, 1])
        return oversample(self.rows.train, self.corpus.labels, self.learner.run.augmentation, rng)

    def _train_epoch(self, interruption) -> None:
        steps = plan_epoch(
            self._draw_rows(self.place.epoch),
            self.learner.tokens.lengths,
            self.training.global_batch_size,
            [self.learner.run.seed, self.rows.fold, self.place.epoch],
        )
        started = time.monotonic()
        for rows in steps[self.place.step :]:
            self._take_step(rows)
            self.place.step += 1
            self.place.seconds += time.monotonic() - started
            started = time.monotonic()
            self.progress.advance(len(rows), self._state())
            if interruption.signal_number:
                self._stop(interruption.signal_number)
            if started - self.saved_at > 60 * self.training.checkpoint_every_minutes:
                self._save(CHECKPOINT)
        self._end_epoch()

    def _take_step(self, rows: np.ndarray) -> None:
        """One optimiser step on `rows`, shared by the processes; dropout is seeded by the step, for resumed runs."""
        step = self.place.epoch * self.steps_per_epoch + self.place.step
        set_lr(self.optimizer, lr_factor(step, self.training.epochs * self.steps_per_epoch, self.learner.run.optimizer))
        seeds = [self.learner.run.seed, self.rows.fold, step, self.accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        self._gather_gradients(rows, np.random.default_rng(seeds))
        if self.adversary is not None and self.adversary.acts_in(self.place.epoch):
            shown = self.window_loss.clone()  # the attacked loss is not the one to show
            with self.adversary.attack():
                self._gather_gradients(rows, np.random.default_rng(seeds))
            self.window_loss = shown
        max_norm = self.learner.run.optimizer.max_grad_norm
        if max_norm:
            clip_gradients(self.accelerator, self.optimizer, self.model, max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(step)
        self.window_rows += len(rows)
        if (step + 1) % LOSS_EVERY_STEPS == 0:
            self._read_loss(step)

    def _gather_gradients(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        """Add the gradients of one step's rows, over its micro-batches and all processes."""
        micro_batches = split_step(rows, self.accelerator.num_processes, self.training.micro_batch_size)
        for shares in micro_batches[:-1]:
            with self.accelerator.no_sync(self.model):
                self._backward(shares, len(rows), rng)
        self._backward(micro_batches[-1], len(rows), rng)

    def _backward(self, shares: list[np.ndarray], rows_in_step: int, rng: np.random.Generator) -> None:
        """Gradients of this process's share. The sum is divided by all rows of the step, whoever holds them."""
        mine = shares[self.accelerator.process_index]
        present = len(mine) > 0
        rows = mine if present else self.rows.train[:1]  # a process without rows still takes part, with weight 0
        summed = self.learner.summed_loss(self, rows, rng) * present
        self.window_loss += summed.detach()
        # DDP averages gradients over processes, so the share is scaled back up to a sum
        self.accelerator.backward(summed * (self.accelerator.num_processes / rows_in_step))

    def _read_loss(self, step: int) -> None:
        loss = float(self.accelerator.reduce(self.window_loss, "sum")) / self.window_rows
        self.place.mean_loss = update_mean(self.place.mean_loss, loss, step // LOSS_EVERY_STEPS)
        self.window_loss, self.window_rows = torch.zeros_like(self.window_loss), 0
        self.guard.check_loss(step, loss, self.place.mean_loss)

    def _state(self) -> str:
        words = [f"epoch {self.place.epoch + 1}/{self.training.epochs}"]
        words += [f"loss {self.place.mean_loss:.4f}"] if self.place.mean_loss else []
        words += [f"held-out macro-F1 {entry['macro_f1']:.4f}" for entry in self.place.history[-1:]]
        return "  ".join(words)

    def _end_epoch(self) -> None:
        """Show the held-out score (the last epoch's is shown with the predictions) and save."""
        self.place.epoch, self.place.step = self.place.epoch + 1, 0
        settle(self.optimizer)
        if self.place.epoch < self.training.epochs:
            with self.average.swapped() if self.average is not None else nullcontext():
                self.place.history.append(self.score(self.learner.predict(self.model, self.rows.heldout)))
            loss, score = self.place.mean_loss, self.place.history[-1]["macro_f1"]
            self.progress.say(f"epoch {self.place.epoch} ended, loss {loss:.4f}, held-out macro-F1 {score:.4f}")
            self._save(CHECKPOINT)
        else:
            if self.average is not None:
                self.average.settle()
            self._save(WEIGHTS)

    def _stop(self, signal_number: int) -> None:
        self._save(CHECKPOINT)
        self.progress.say(f"stopped by signal {signal_number}, saved; the same command goes on from here")
        sys.exit(128 + signal_number)

    def _save(self, name: str) -> None:
        """The first process writes; the finished weights replace the checkpoint."""
        if self.accelerator.is_main_process:
            tensors = model_tensors(self.accelerator.unwrap_model(self.model))
            if name == CHECKPOINT:
                tensors |= optimizer_tensors(self.optimizer)
                tensors |= self.average.tensors() if self.average is not None else {}
                self.place.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
            save_checkpoint(self.rows.checkpoint_dir / name, tensors, self.place, self.identity)
            if name == WEIGHTS:
                (self.rows.checkpoint_dir / CHECKPOINT).unlink(missing_ok=True)
        self.saved_at = time.monotonic()

    def _restore(self) -> Place:
        """Load the finished weights, else the checkpoint, else stand at the beginning."""
        for name in (WEIGHTS, CHECKPOINT):
            found = load_checkpoint(self.rows.checkpoint_dir / name, self.identity)
            if found is not None:
                tensors, place = found
                restore_model(self.accelerator.unwrap_model(self.model), tensors)
                if name == CHECKPOINT:
                    restore_optimizer(self.optimizer, tensors)
                    if self.average is not None:
                        self.average.restore(tensors)
                    if self.accelerator.scaler:
                        self.accelerator.scaler.load_state_dict(place.scaler)
                return place
        return Place()
