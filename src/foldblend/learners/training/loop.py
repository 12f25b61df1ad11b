"""The training loop of one fold, whatever the model: steps, saves, goes on where it was killed."""

import sys
import time
from contextlib import nullcontext

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from foldblend.learners.cpu.waiting_rows import choose_table
from foldblend.learners.nets.classifier import can_recompute, recompute_layers
from foldblend.learners.processes.devices import agree, seed_generators
from foldblend.learners.processes.interruption import Interruption
from foldblend.learners.processes.sharding import cast_by_autocast, hold_back, make_ready
from foldblend.learners.table import FoldRows
from foldblend.learners.tokens.batches import Augmentation, oversample, padded_tokens, plan_epoch, split_step
from foldblend.learners.training.adversarial import build_adversary
from foldblend.learners.training.checkpoints import FoldStore, Selection, restore_model
from foldblend.learners.training.checks import (
    CollapseGuard,
    FrozenWatch,
    MovementWatch,
    check_class_weights,
    check_logits,
    update_mean,
)
from foldblend.learners.training.heldout import score_heldout
from foldblend.learners.training.optimizer import (
    WeightAverage,
    build_optimizer,
    check_warmup,
    clip_gradients,
    lr_factor,
    set_lr,
    settle,
)
from foldblend.learners.training.progress import Progress, announce

# ----------
# Losses and gradient norms of the last few steps, kept on the device until they are read, each with its rows.


class LossWindow:
    """Summed losses of steps, this process's share of each."""

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.losses: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.rows: list[np.ndarray] = []

    def add(self, loss: torch.Tensor, norm: torch.Tensor, rows: np.ndarray) -> None:
        """Take in a step's summed loss and gradients' norm, scalars, and its rows, int64 (B,), over all processes."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.rows.append(rows)

    def read(self) -> tuple[float, np.ndarray | None]:
        """What `peek` says; then the window is empty."""
        seen = self.peek()
        self.losses, self.norms, self.rows = [], [], []
        return seen

    def peek(self) -> tuple[float, np.ndarray | None]:
        """Mean loss a row since the last reading; rows of the first step with a loss or gradient not finite, if any."""
        if not self.losses:
            return 0.0, None
        seen = torch.stack([torch.stack(self.losses), torch.stack(self.norms)])  # (2, steps)
        losses, norms = self.accelerator.reduce(seen, "sum")
        finite = (torch.isfinite(losses) & torch.isfinite(norms)).tolist()
        bad = None if all(finite) else self.rows[finite.index(False)]
        return float(losses.sum()) / sum(map(len, self.rows)), bad


# ---------- The gradients of one step's rows, over processes and micro-batches as large as memory holds.


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


# ---------- The training loop of one fold, whatever the model: steps, saves, goes on where it was killed.


LOSS_EVERY_STEPS = 10
"""Reading the loss waits for the device, so it is read this often."""


class FoldTraining:
    """One fold: the model, its optimiser, and the place it has come to."""

    def __init__(self, learner, rows: FoldRows):
        self.learner, self.rows, self.accelerator = learner, rows, learner.accelerator
        self.training, self.corpus = learner.run.training, learner.corpus
        self.seed = fold_seed(learner.run.seed, rows.fold)
        settings = learner.run.augmentation
        drawn = [self._draw_rows(epoch) for epoch in range(self.training.epochs if settings.oversample_factor else 1)]
        self.rows_per_epoch = len(drawn[0])
        if settings.oversample_factor and self.rows_per_epoch == len(rows.train) and self.accelerator.is_main_process:
            announce(f"fold {rows.fold}", "no row is drawn twice: none, or too few, have a rare label")
        self.steps_per_epoch = -(-self.rows_per_epoch // self.training.global_batch_size)
        check_warmup(self.training.epochs * self.steps_per_epoch, learner.run.optimizer)
        model = learner.build_fold_model(rows, self.seed)
        if not FoldStore.has_saved(rows.checkpoint_dir):
            learner.start_model(model, rows)
        table = choose_table(model, learner.run, self.accelerator.device, self.accelerator.num_processes)
        optimizer = build_optimizer(model, learner.run.optimizer, table)
        make_ready(model, self.accelerator)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        cast_by_autocast(self.model, self.accelerator)
        bare = self.accelerator.unwrap_model(self.model)
        self.gradients = StepGradients(self, build_adversary(bare, learner.run.adversarial))
        self.average = WeightAverage(bare, self.training.ema_decay) if self.training.ema_decay else None
        self.loss = learner.build_fold_loss(rows).to(self.accelerator.device)
        check_class_weights(self.loss, self.corpus.labels[rows.train], learner.run.loss, self.corpus.task)
        self.augmentation = Augmentation(settings, learner.tokens, learner.targets, rows.train, self.corpus.task)
        taught = self.augmentation.sample_targets(np.concatenate(drawn), np.random.default_rng(self.seed))
        self.constant, prior_loss = learner.best_constant(self.loss, taught)
        self.guard = CollapseGuard(prior_loss, self.training.collapse_check_after_steps)
        identity = learner.identity(rows)
        self.selection = Selection(self.training, self.corpus.metric, rows.checkpoint_dir, identity)
        at = (self.model, self.optimizer, self.average, rows.checkpoint_dir, identity)
        self.store = FoldStore(self.accelerator, *at)
        self.place = self.store.restore(self.selection)
        self.saved_at = time.monotonic()
        self.window = LossWindow(self.accelerator)
        self.frozen = FrozenWatch(bare)
        starts_anew = self.place.epoch == self.place.step == 0
        self.movement = MovementWatch(bare, self.accelerator.scaler) if starts_anew else None

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
        return score_heldout(heldout_logits, labels[self.rows.heldout], rates, self.corpus.task, self.corpus.metric)

    def check_learned(self, heldout_logits: np.ndarray) -> None:
        """Raises ValueError where neither the last steps nor held-out logits (n_heldout, L) beat a constant answer."""
        check_logits(heldout_logits, f"fold {self.rows.fold}, held-out rows")
        constant = np.tile(self.constant, (len(heldout_logits), 1))
        losses = [self.learner.heldout_loss(self.loss, logits, self.rows) for logits in (heldout_logits, constant)]
        self.guard.check_end(self.training.epochs * self.steps_per_epoch, self.place.mean_loss, *losses)

    def _draw_rows(self, epoch: int) -> np.ndarray:
        """The training rows of an epoch, int64 (rows_per_epoch,), those with rare labels more than once if so set."""
        rng = np.random.default_rng([self.learner.run.seed, self.rows.fold, epoch, 1])
        corpus = self.corpus
        return oversample(self.rows.train, corpus.labels, corpus.label_names, self.learner.run.augmentation, rng)

    def _train_epoch(self, interruption) -> None:
        steps = plan_epoch(
            self._draw_rows(self.place.epoch),
            self.learner.tokens.lengths,
            self.training.global_batch_size,
            [self.learner.run.seed, self.rows.fold, self.place.epoch],
        )
        looks = evaluation_steps(len(steps), self.training.evaluations_per_epoch)
        started = time.monotonic()
        for rows in steps[self.place.step :]:
            self._take_step(rows)
            self.place.step += 1
            if self.place.step in looks:
                settle(self.optimizer)
                self._evaluate(at_epoch_end=False)
            self.place.seconds += time.monotonic() - started
            started = time.monotonic()
            self.progress.advance(len(rows), self._state())
            is_due = started - self.saved_at > 60 * self.training.checkpoint_every_minutes
            signal_number, is_due = agree(self.accelerator, interruption.signal_number, is_due)
            if signal_number:
                self._stop(signal_number)
            if is_due or self.place.step in looks:
                self._save()
        self._end_epoch()

    def _take_step(self, rows: np.ndarray) -> None:
        """One optimiser step on `rows`, shared by the processes; dropout is seeded by the step, for resumed runs."""
        step = self.place.epoch * self.steps_per_epoch + self.place.step
        factor = lr_factor(step, self.training.epochs * self.steps_per_epoch, self.learner.run.optimizer)
        set_lr(self.optimizer, factor)
        seeds = [self.learner.run.seed, self.rows.fold, step, self.accelerator.process_index]
        loss = self.gradients.gather(rows, seeds, self.place.epoch)
        norm = clip_gradients(self.accelerator, self.optimizer, self.model, self.learner.run.optimizer.max_grad_norm)
        self.window.add(loss, norm, rows)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(step)
        if self.movement is not None and self.movement.steps_left:
            self.movement.after_step(self.accelerator.unwrap_model(self.model), self.optimizer, factor == 1)
        if (step + 1) % LOSS_EVERY_STEPS == 0:
            self._read_loss(step)

    def _read_loss(self, step: int) -> None:
        loss, bad_rows = self.window.read()
        self.guard.check_finite(step, loss, bad_rows)
        self.place.mean_loss = update_mean(self.place.mean_loss, loss, step // LOSS_EVERY_STEPS)
        self.guard.check_loss(step, loss, self.place.mean_loss)

    def _state(self) -> str:
        metric, words = self.corpus.metric, [f"epoch {self.place.epoch + 1}/{self.training.epochs}"]
        words += [f"loss {self.place.mean_loss:.4f}"] if self.place.mean_loss else []
        words += [f"held-out {metric} {entry[metric]:.4f}" for entry in self.place.history[-1:]]
        return "  ".join(words)

    def _end_epoch(self) -> None:
        """Look at the held-out rows (what the last epoch ends with is shown with its predictions) and save."""
        self.place.epoch, self.place.step = self.place.epoch + 1, 0
        settle(self.optimizer)
        at_end = self.place.epoch == self.training.epochs
        self._evaluate(at_epoch_end=True, shown=not at_end or self.selection.looks)
        if not at_end:
            self._save()
            return
        self._settle()
        self.store.save_weights(self.place, self.selection)

    def _evaluate(self, at_epoch_end: bool, shown: bool = True) -> None:
        """Score the held-out rows, and keep the weights where they may be the ones to end with."""
        self._check_finite()
        with self.average.swapped() if self.average is not None else nullcontext():
            if shown:
                self.place.history.append(self._measure())
                last = self.place.history[-1]
                at = "ended" if at_epoch_end else f"step {self.place.step}"
                epoch = self.place.epoch + (not at_epoch_end)
                words = (
                    f"held-out loss {last['loss']:.4f}, held-out {self.corpus.metric} {last[self.corpus.metric]:.4f}"
                )
                self.progress.say(f"epoch {epoch} {at}, loss {self.place.mean_loss:.4f}, {words}")
            if self.selection.wants(self.place, at_epoch_end):
                self.store.save_candidate(self.place, self.selection)

    def _measure(self) -> dict:
        """Scores and loss of the held-out rows; the first process's, as another one's may differ in the last bit."""
        logits = self.learner.predict(self.model, self.rows.heldout)
        loss = self.learner.heldout_loss(self.loss, logits, self.rows)
        measured = broadcast_object_list([{**self.score(logits), "loss": loss}])[0]
        self.guard.check_heldout(measured["loss"])
        return measured

    def _settle(self) -> None:
        """Put the weights to end with into the model."""
        number = self.selection.final(self.place)
        if number is not None:
            restore_model(self.accelerator.unwrap_model(self.model), self.selection.load(number))
        elif self.average is not None:
            self.average.settle()
        if self.selection.looks:
            words = f"held-out loss {self.place.history[number]['loss']:.4f}"
            self.progress.say(f"takes evaluation {number + 1} of {len(self.place.history)}, {words}")

    def _stop(self, signal_number: int) -> None:
        self._save()
        self.progress.say(f"stopped by signal {signal_number}, saved; the same command goes on from here")
        sys.exit(128 + signal_number)

    def _check_finite(self) -> None:
        """Before weights are measured or saved: what was not finite since the loss was last read has spoilt them."""
        step = self.place.epoch * self.steps_per_epoch + self.place.step
        self.guard.check_finite(step, *self.window.peek())

    def _save(self) -> None:
        self._check_finite()
        self.store.save_checkpoint(self.place, self.selection)
        self.saved_at = time.monotonic()


def fold_seed(run_seed: int, fold: int) -> int:
    """What a fold's fresh parts are drawn from."""
    return int(np.random.SeedSequence([run_seed, fold]).generate_state(1)[0])


def evaluation_steps(n_steps: int, n_evaluations: int) -> set[int]:
    """Steps inside an epoch after which the held-out rows are looked at; its end is not among them.

    Example: 10 steps, 4 evaluations -> {3, 5, 8}
    """
    return {-(-i * n_steps // n_evaluations) for i in range(1, n_evaluations)} - {n_steps}
