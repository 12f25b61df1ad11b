"""The training of one fold, whatever the model. Read it from top to bottom:

    1. rows       which rows each epoch and step sees
    2. fold       everything a fold trains with, built once: BuiltFold, build_fold
    3. epochs     train: steps, evaluations and saves, from wherever the fold is
    4. step       take_step: learning rate, gradients, clipping, optimizer
    5. gradients  of one step's rows, over processes and micro-batches that fit into memory
    6. evaluation of the held-out rows, and the weights to end with
    7. history    of what was measured, for people and plots
    8. saving and stopping

What differs between kinds of models is asked of the learner (training/neural.py). All that changes is the TrainState,
which is saved, and what is in the model, the optimizer and the running mean of the weights. Everything drawn is seeded
by run, fold, epoch and step, so a fold that was killed and resumed ends with the bits of one that was not.
"""

import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from foldblend.console import Progress, announce, clock_time
from foldblend.errors import UserError
from foldblend.learners.losses.base import RowWeighing, loss_of_constant, table_of_targets
from foldblend.learners.nets.classifier import can_recompute, recompute_layers
from foldblend.learners.processes.devices import Agreement, prepare, seed_generators, short_reason
from foldblend.learners.processes.interruption import Interruption
from foldblend.learners.table import FoldRows
from foldblend.learners.tokens.batches import Augmentation, oversample, padded_tokens, plan_epoch, split_step
from foldblend.learners.training.checkpoints import FoldStore, Selection, TrainState, restore_model
from foldblend.learners.training.checks import (
    CollapseGuard,
    FrozenWatch,
    LossWindow,
    MovementWatch,
    check_class_weights,
    update_mean,
)
from foldblend.learners.training.optimizer import (
    Adversary,
    WeightAverage,
    build_adversary,
    build_fold_optimizer,
    check_warmup,
    clip_gradients,
    evaluated_weights,
    lr_factor,
    set_lr,
)
from foldblend.predictions import fold_title

LOSS_EVERY_STEPS = 10
"""Reading the loss waits for the device, so it is read this often."""

WORTHWHILE_TOKENS = 2048
"""Below this many tokens a micro-batch leaves a GPU idle, which costs more than computing layers' states twice."""

# 1. Rows: a function of run seed, fold and epoch


def fold_seed(run_seed: int, fold: int) -> int:
    """The seed of a fold's fresh parts."""
    # not run_seed + fold: run 1 fold 2 and run 2 fold 1 would then begin with the same head
    return int(np.random.SeedSequence([run_seed, fold]).generate_state(1)[0])


def draw_epoch(learner, rows: FoldRows, epoch: int) -> np.ndarray:
    """The rows of an epoch, int64 (n,): own training rows, with rare labels more than once if so set; extra rows."""
    # the last number keeps these draws apart from the order of the rows, which plan_steps seeds with the first three
    seeds, corpus = [learner.run.seed, rows.fold, epoch], learner.corpus
    rng = np.random.default_rng([*seeds, 1])
    own = oversample(rows.train, corpus.labels, corpus.label_names, learner.run.augmentation, rng)
    if not corpus.sources:
        return own
    lesson = corpus.lesson(rows.fold, rows.train)
    return np.concatenate([own, lesson.draw_extra(epoch, np.random.default_rng([*seeds, 2]))])


def plan_steps(learner, rows: FoldRows, epoch: int) -> list[np.ndarray]:
    """The rows of each optimizer step of an epoch, int64 (B,) each."""
    seeds = [learner.run.seed, rows.fold, epoch]
    batch = learner.run.training.global_batch_size
    return plan_epoch(draw_epoch(learner, rows, epoch), learner.tokens.lengths, batch, seeds)


def evaluation_steps(n_steps: int, n_evaluations: int) -> set[int]:
    """Steps inside an epoch after which the held-out rows are evaluated; its end is not among them.

    Example: 10 steps, 4 evaluations -> {3, 5, 8}
    """
    # rounded up, so that no evaluation comes before the first step; the end of the epoch has one of its own
    return {-(-i * n_steps // n_evaluations) for i in range(1, n_evaluations)} - {n_steps}


# 2. The built fold


@dataclass(frozen=True)
class BuiltFold:
    """Everything that one fold trains with. It stays the same object all along; how far it has come is a TrainState."""

    rows: FoldRows
    seed: int
    rows_of_epochs: tuple[int, ...]
    """Rows of each epoch; they differ only if extra rows are for the first epochs."""
    batch_rows: int
    """Rows of a step."""

    model: nn.Module
    """As Accelerate prepared it: on the device, shared with the other processes."""
    optimizer: torch.optim.Optimizer
    """As Accelerate prepared it."""
    average: WeightAverage | None
    loss: nn.Module
    weighing: RowWeighing | None
    """How rows count and what a teacher says of them; None if the loss of the targets is all there is."""
    augmentation: Augmentation
    """Makes the batches."""
    adversary: Adversary | None
    micro_batches: "MicroBatches"
    store: FoldStore

    losses: LossWindow
    guard: CollapseGuard
    constant: np.ndarray
    """float32 (L,), logits of the best answer that ignores the text."""
    frozen: FrozenWatch
    movement: MovementWatch | None
    """None for a fold that is resumed."""

    started: float
    """time.monotonic() when this start of the fold began."""
    earlier_seconds: float
    """What earlier starts of the fold took."""

    @property
    def steps_of_epochs(self) -> list[int]:
        """Optimizer steps of each epoch: the last step of one may have fewer rows, and none are left out."""
        return [-(-n_rows // self.batch_rows) for n_rows in self.rows_of_epochs]

    @property
    def n_steps(self) -> int:
        """Optimizer steps of all epochs."""
        return sum(self.steps_of_epochs)

    @property
    def n_rows(self) -> int:
        """Rows of all epochs."""
        return sum(self.rows_of_epochs)

    def loss_of(self, rows: np.ndarray) -> nn.Module:
        """The loss of a batch of these rows, int64 (B,), called with their logits and targets."""
        return self.loss if self.weighing is None else self.weighing.of(self.loss, rows)


def build_fold(learner, rows: FoldRows) -> tuple[BuiltFold, TrainState]:
    """Model, optimizer, loss and files of one fold, and how far it has come.

    Args:   learner: a NeuralLearner.
    Raises: UserError: settings that this model, data or launch cannot do; a damaged checkpoint, or one of another
            training; class weights that weigh the wrong gradients.
    """
    started = time.monotonic()
    run, corpus, accelerator = learner.run, learner.corpus, learner.accelerator
    training, seed = run.training, fold_seed(run.seed, rows.fold)

    # the rows of all epochs if they differ, else of one: what the labels are counted on
    differ = run.augmentation.oversample_factor or corpus.sources
    drawn = [draw_epoch(learner, rows, e) for e in range(training.epochs if differ else 1)]
    n_own = int((drawn[0] < len(corpus.labels)).sum())
    if run.augmentation.oversample_factor and n_own == len(rows.train) and accelerator.is_main_process:
        announce(fold_title(rows.fold), "no row is drawn twice: none, or too few, have a rare label")
    rows_of_epochs = tuple(len(drawn[e if differ else 0]) for e in range(training.epochs))
    batch_rows = training.global_batch_size
    check_warmup(sum(-(-n_rows // batch_rows) for n_rows in rows_of_epochs), run.optimizer)

    learner.read_beside(corpus.fit_features(rows.train))

    # model and optimizer; the optimizer first sees whole weights, before processes share them out
    model = learner.build_fold_model(rows, seed)
    # a head that starts from the labels' names or rates costs a pass over the texts, and a resumed fold overwrites it
    if not FoldStore.has_saved(rows.checkpoint_dir):
        learner.go_on_from_start(model)
        learner.start_beside(model, rows)
        learner.start_model(model, rows)
    model, optimizer = prepare(accelerator, model, build_fold_optimizer(model, run, accelerator))
    # the module inside of DDP or FSDP: its parameters have the names that files and checks know
    bare = accelerator.unwrap_model(model)
    average = WeightAverage(bare, training.ema_decay) if training.ema_decay else None

    # loss, batches, and the loss of a constant answer, which the training has to get below
    loss = learner.build_fold_loss(rows).to(accelerator.device)
    check_class_weights(loss, corpus.labels[rows.train], run.loss, corpus.task)
    lesson = corpus.lesson(rows.fold, rows.train)
    targets = table_of_targets(lesson, len(corpus.texts))
    augmentation = Augmentation(run.augmentation, learner.tokens, targets, rows.train, corpus.task)
    # labels of a sample as they are taught, smoothed or mixed: the constant answer has to be the best one for these
    taught = augmentation.sample_targets(np.concatenate(drawn), np.random.default_rng(seed))
    constant, prior_loss = learner.best_constant(loss, taught)
    weighing = None
    if not lesson.is_plain:
        weighing = RowWeighing(lesson, corpus.teacher, len(corpus.texts), corpus.task, accelerator.device)
        prior_loss = loss_of_constant(weighing, loss, constant, prior_loss, targets, np.concatenate(drawn))

    # files: go on from what is saved
    selection = Selection(training, corpus.metric, rows.checkpoint_dir, learner.identity(rows))
    store = FoldStore(accelerator, model, optimizer, average, selection)
    state = store.restore()
    # a checkpoint of epoch 0 step 0 is never written, so this says whether anything was restored
    starts_anew = state.epoch == state.step == 0

    fold = BuiltFold(
        rows=rows,
        seed=seed,
        rows_of_epochs=rows_of_epochs,
        batch_rows=batch_rows,
        model=model,
        optimizer=optimizer,
        average=average,
        loss=loss,
        weighing=weighing,
        augmentation=augmentation,
        adversary=build_adversary(bare, run.adversarial),
        micro_batches=MicroBatches(bare, learner.tokens.lengths, run, accelerator.num_processes),
        store=store,
        losses=LossWindow(accelerator),
        guard=CollapseGuard(prior_loss, training.collapse_check_after_steps, len(learner.corpus.labels)),
        constant=constant,
        frozen=FrozenWatch(bare),
        movement=MovementWatch(bare, accelerator.scaler) if starts_anew else None,
        started=started,
        earlier_seconds=state.seconds,
    )
    return fold, state


# 3. Epochs


def train(learner, fold: BuiltFold, state: TrainState) -> None:
    """Train to the end from wherever the fold is; save its weights. Raises SystemExit: a signal came, all is saved."""
    training, accelerator = learner.run.training, learner.accelerator
    start_history(learner, fold, state)
    if state.epoch == training.epochs:
        return
    done, total = rows_taught(fold, state), fold.n_rows
    progress = Progress(fold_title(fold.rows.fold), total, done, accelerator.is_main_process)
    if done:
        before = clock_time(state.seconds)
        progress.say(f"goes on from epoch {state.epoch + 1}, step {state.step}; {before} were spent on it so far")
    agreement, saved_at = Agreement(accelerator), time.monotonic()
    try:
        with Interruption() as interruption:
            while state.epoch < training.epochs:
                steps = plan_steps(learner, fold.rows, state.epoch)
                evaluated = evaluation_steps(len(steps), training.evaluations_per_epoch)
                # state.step is 0 but for the epoch in which a fold is resumed: its steps are planned again, and skipped
                for rows in steps[state.step :]:
                    take_step(learner, fold, state, rows)
                    state.step += 1
                    if state.step in evaluated:
                        evaluate(learner, fold, state, progress)
                    progress.advance(len(rows), describe_state(learner, state))
                    # Clocks differ between processes and a signal may reach only one, so all agree before any of them
                    # saves or stops: a save is a collective operation, and a process that goes on alone would wait in
                    # it for ever.
                    is_due = time.monotonic() - saved_at > 60 * training.checkpoint_every_minutes
                    signal_number, is_due = agreement.exchange(interruption.signal_number, is_due)
                    if signal_number:
                        stop(fold, state, progress, signal_number)
                    # after an evaluation too: its candidate's weights are on disk, so the state that names them has to
                    # be as well
                    if is_due or state.step in evaluated:
                        save(fold, state)
                        saved_at = time.monotonic()
                end_epoch(learner, fold, state, progress)
                saved_at = time.monotonic()
    finally:
        progress.close()


def describe_state(learner, state: TrainState) -> str:
    """Epoch, loss and last held-out score, for the progress bar."""
    metric, words = learner.corpus.metric, [f"epoch {state.epoch + 1}/{learner.run.training.epochs}"]
    # 0 until the first reading
    words += [f"loss {state.mean_loss:.4f}"] if state.mean_loss else []
    words += [f"held-out {metric} {entry[metric]:.4f}" for entry in state.history[-1:]]
    return "  ".join(words)


def end_epoch(learner, fold: BuiltFold, state: TrainState, progress: Progress) -> None:
    """Evaluate and save. The score of the last epoch's weights is shown with the predictions, not here."""
    # before anything is saved: a fold resumed from here begins with the next epoch's first step
    state.epoch, state.step = state.epoch + 1, 0
    if state.epoch < learner.run.training.epochs:
        evaluate(learner, fold, state, progress, at_epoch_end=True)
        save(fold, state)
        return
    # the held-out rows are predicted once more after the last epoch anyway, so they are scored here only if that
    # chooses
    evaluate(learner, fold, state, progress, at_epoch_end=True, measured=fold.store.selection.by_heldout)
    take_final_weights(learner, fold, state, progress)
    count_seconds(fold, state)
    fold.store.save_weights(state)


# 4. One optimizer step


def take_step(learner, fold: BuiltFold, state: TrainState, rows: np.ndarray) -> None:
    """One optimizer step on `rows`, int64 (B,), shared by the processes. Nothing here waits for the device, except
    that the loss is read every LOSS_EVERY_STEPS steps."""
    run, accelerator = learner.run, learner.accelerator
    step = steps_done(fold, state)
    factor = lr_factor(step, fold.n_steps, run.optimizer)
    set_lr(fold.optimizer, factor)
    # the step counts through all epochs, so that no epoch draws the dropout masks of another
    seeds = [run.seed, fold.rows.fold, step, accelerator.process_index]
    loss = gather_gradients(learner, fold, rows, seeds, state.epoch)
    # by the norm over all processes and parameters, after micro-batches are summed: clipping parts would bias the mean
    norm = clip_gradients(accelerator, fold.optimizer, fold.model, run.optimizer.max_grad_norm)
    # kept as tensors: `.item()` here would make the device idle until the next step is queued
    fold.losses.add(loss, norm, rows)
    fold.optimizer.step()
    fold.optimizer.zero_grad()
    if fold.average is not None:
        fold.average.update(step)
    if fold.movement is not None and fold.movement.steps_left:
        fold.movement.after_step(accelerator.unwrap_model(fold.model), fold.optimizer, factor == 1)
    if (step + 1) % LOSS_EVERY_STEPS == 0:
        seen = fold.losses.read()
        fold.guard.check_finite(step, seen.loss, seen.bad_rows)
        if accelerator.scaler:
            fold.guard.check_scale(step, accelerator.scaler.get_scale())
        state.mean_loss = update_mean(state.mean_loss, seen.loss, step // LOSS_EVERY_STEPS)
        fold.guard.check_loss(step, seen.loss, state.mean_loss)
        learned = {"loss": seen.loss, "lr": run.optimizer.lr * factor, "grad_norm": seen.norm or None}
        # train() counts the step when this function has returned, the history counts it now
        note(learner, fold, replace(state, step=state.step + 1), learned)


# 5. The gradients of one step's rows


def gather_gradients(learner, fold: BuiltFold, rows: np.ndarray, seeds: list[int], epoch: int) -> torch.Tensor:
    """Leave a step's gradients in the model; if memory runs out, take the step again in smaller parts.

    Args:    rows: int64 (B,).   seeds: numbers that name this step and process; everything drawn follows from them.
    Returns: the summed loss of this process's share, a scalar.
    Raises:  UserError: not even one row fits, or several processes train and one of them ran out of memory.
    """
    while True:
        try:
            seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
            seed_generators(learner.accelerator.device, seed)  # of dropout
            # A fresh generator per try: a step that is taken again in smaller parts, or attacked, sees the same batch.
            loss = add_gradients(learner, fold, rows, np.random.default_rng(seeds))
            if fold.adversary is not None and fold.adversary.acts_in(epoch):
                with fold.adversary.attack():  # the attacked loss is not the one to show
                    add_gradients(learner, fold, rows, np.random.default_rng(seeds))
            return loss
        except torch.OutOfMemoryError as error:
            refusal = fold.micro_batches.find_refusal(rows)
            if refusal:
                raise UserError(f"{refusal} ({short_reason(error)})") from error
        # out of the except block, so that no frame of the failed step holds its tensors
        fold.optimizer.zero_grad()
        announce(fold_title(fold.rows.fold), fold.micro_batches.shrink(rows))


def add_gradients(learner, fold: BuiltFold, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Add the gradients of one step's rows, over its micro-batches and all processes; returns this process's loss."""
    accelerator = learner.accelerator
    total = torch.zeros((), device=accelerator.device)
    # The number of micro-batches depends on the memory, so what they add up to may not: each part is weighed by its
    # share of the step's rows, and the last one carries the exchange. accelerator.accumulate() would count fixed parts.
    *first, last = fold.micro_batches.split(rows)
    for shares in first:
        with accelerator.no_sync(fold.model):  # processes exchange gradients once per step, with the last part
            total += add_share(learner, fold, shares, len(rows), rng)
    return total + add_share(learner, fold, last, len(rows), rng)


def add_share(learner, fold: BuiltFold, shares: list[np.ndarray], rows_in_step: int, rng) -> torch.Tensor:
    """Add the gradients of this process's share of a micro-batch; returns its summed loss, detached.

    The sum is divided by all rows of the step, whichever process holds them, so the gradient is that of the mean.
    """
    accelerator = learner.accelerator
    own = shares[accelerator.process_index]
    present = len(own) > 0
    rows = own if present else fold.rows.train[:1]  # a process without rows still takes part, with weight 0
    # times 0 rather than skipped: DDP waits for a backward pass of every process
    summed = learner.batch_loss(fold.model, fold.loss_of(rows), fold.augmentation.batch(rows, rng)) * present
    # DDP averages gradients over processes, so the share is scaled back up to a sum
    accelerator.backward(summed * (accelerator.num_processes / rows_in_step))
    return summed.detach()


class MicroBatches:
    """Splits a step's rows into parts that fit into memory; remembers what did not fit."""

    def __init__(self, model: nn.Module, lengths: np.ndarray, run, n_processes: int):
        self.model, self.lengths, self.n_processes = model, lengths, n_processes
        self.most_rows = run.training.micro_batch_size or run.training.global_batch_size
        self.most_tokens: int | None = None
        self.may_recompute = (
            run.training.gradient_checkpointing == "auto"
            # whether layers can be computed a second time in the backward pass (gradient checkpointing), for less
            # memory
            and run.adapter.kind != "prefix_tuning"  # its states cannot be computed again
            and can_recompute(model)
        )

    def split(self, rows: np.ndarray) -> list[list[np.ndarray]]:
        """[micro-batch][process] -> int64 rows."""
        return split_step(rows, self.lengths, self.n_processes, self.most_rows, self.most_tokens)

    def find_refusal(self, rows: np.ndarray) -> str:
        """Why smaller micro-batches would not help; empty if they may."""
        if self.n_processes > 1:
            # half of the rows that this process had
            fewer = max(1, min(self.most_rows, len(rows) // self.n_processes) // 2)
            return (
                f"A micro-batch does not fit into memory on one of {self.n_processes} processes, and the others cannot "
                f"follow it to a smaller one. Run again with --training.micro_batch_size {fewer}"
            )
        if max(len(share) for shares in self.split(rows) for share in shares) == 1 and not self.may_recompute:
            return (
                "One text does not fit into memory. Lower --model.max_length_tokens, or try "
                "--training.gradient_checkpointing true, --adapter.quantization nf4 (decoders), or a larger device"
            )
        return ""

    def shrink(self, rows: np.ndarray) -> str:
        """Allow half the tokens; if that would leave a GPU idle, first compute layers' states twice. Returns words."""
        shares = [share for part in self.split(rows) for share in part]
        # memory goes with rows x longest row, not with rows
        tried = max(padded_tokens(share, self.lengths) for share in shares)
        if self.may_recompute and (max(map(len, shares)) == 1 or tried < 2 * WORTHWHILE_TOKENS):
            self.may_recompute = False
            recompute_layers(self.model)
            change = "layers' states are computed twice from here on"
        else:
            self.most_tokens = tried // 2
            change = f"at most {self.most_tokens} tokens at once from here on"
        if torch.cuda.is_available():
            # the failed step left blocks of all sizes; the allocator would keep them and fail at a smaller step, too
            torch.cuda.empty_cache()
        return f"out of memory with {tried} tokens at once: {change}, the step is taken again"


# 6. Evaluation, and the weights to end with


def evaluate(
    learner, fold: BuiltFold, state: TrainState, progress: Progress, at_epoch_end=False, measured=True
) -> None:
    """Score the held-out rows if `measured`, and keep the weights if the fold may end with them."""
    check_finite(fold, state)
    # candidates are scored and kept as they would be used: with the running mean of the weights if there is one
    with evaluated_weights(fold.optimizer, fold.average):
        if measured and len(fold.rows.heldout):
            state.history.append(measure(learner, fold))
            metric, last = learner.corpus.metric, state.history[-1]
            when = f"epoch {state.epoch}" if at_epoch_end else f"epoch {state.epoch + 1} step {state.step}"
            scores = f"held-out {last['loss']:.4f}, {metric} {last[metric]:.4f}"  # fits 80 columns behind a run's name
            progress.say(f"{when}: {describe_loss(fold, state)}, {scores}")
            note(learner, fold, state, {f"heldout_{name}": value for name, value in last.items()})
        if fold.store.selection.wants(state, at_epoch_end):
            fold.store.save_candidate(state)


def describe_loss(fold: BuiltFold, state: TrainState) -> str:
    """The mean training loss in words; before its first reading, that of the steps since this start of the fold."""
    if steps_done(fold, state) >= LOSS_EVERY_STEPS:
        return f"loss {state.mean_loss:.4f}"
    loss = fold.losses.peek().loss if fold.losses.losses else None
    return "loss not known yet" if loss is None else f"loss {loss:.4f}"


def measure(learner, fold: BuiltFold) -> dict:
    """Scores and loss of the held-out rows: the first process's, as another one's may differ in the last bit."""
    logits = learner.predict(fold.model, fold.rows.heldout)
    loss = learner.heldout_loss(fold.loss, logits, fold.rows)
    # every process then chooses the same weights
    measured = broadcast_object_list([{**learner.score(logits, fold.rows), "loss": loss}])[0]
    fold.guard.check_heldout(measured["loss"])
    return measured


def take_final_weights(learner, fold: BuiltFold, state: TrainState, progress: Progress) -> None:
    """Put the weights to end with into the model: the chosen candidate, else the running mean, else those of now."""
    selection = fold.store.selection
    number = selection.final(state)
    if number is not None:
        # a candidate was saved from the running mean already, if there is one
        restore_model(learner.accelerator.unwrap_model(fold.model), selection.load(number))
    elif fold.average is not None:
        fold.average.write_into_model()
    if selection.by_heldout:
        loss = state.history[number]["loss"]
        progress.say(f"takes evaluation {number + 1} of {len(state.history)}, held-out loss {loss:.4f}")


# 7. The history of the fold, one line per reading of the loss and per evaluation


def start_history(learner, fold: BuiltFold, state: TrainState) -> None:
    """Begin the history, or go on with it from where the checkpoint is: later steps are taken, and noted, again."""
    if fold.rows.history is not None and learner.accelerator.is_main_process:
        fold.rows.history.start(steps_done(fold, state))


def note(learner, fold: BuiltFold, state: TrainState, measured: dict[str, float | None]) -> None:
    """Add a line to the history, if the fold keeps one."""
    if fold.rows.history is None or not learner.accelerator.is_main_process:
        return
    done, of_epochs = steps_done(fold, state), fold.steps_of_epochs
    part = state.step / of_epochs[state.epoch] if state.step else 0
    where = {"step": done, "steps": fold.n_steps, "epoch": round(state.epoch + part, 4)}
    seconds = round(fold.earlier_seconds + time.monotonic() - fold.started, 3)
    fold.rows.history.add({**where, "rows": rows_taught(fold, state), "seconds": seconds, **measured})


def steps_done(fold: BuiltFold, state: TrainState) -> int:
    """Optimizer steps of all epochs up to now."""
    return sum(fold.steps_of_epochs[: state.epoch]) + state.step


def rows_taught(fold: BuiltFold, state: TrainState) -> int:
    """Rows of all epochs up to now; an epoch's last step may have fewer than a whole batch."""
    in_epoch = min(state.step * fold.batch_rows, fold.rows_of_epochs[state.epoch]) if state.step else 0
    return sum(fold.rows_of_epochs[: state.epoch]) + in_epoch


# 8. Saving and stopping


def save(fold: BuiltFold, state: TrainState) -> None:
    """Save all that a resumed fold needs."""
    check_finite(fold, state)
    count_seconds(fold, state)
    fold.store.save_checkpoint(state)


def stop(fold: BuiltFold, state: TrainState, progress: Progress, signal_number: int) -> None:
    """Save and leave as a shell expects of a process that was stopped by a signal."""
    save(fold, state)
    progress.say(f"stopped by signal {signal_number}, saved; the same command goes on from here")
    # SystemExit passes the `finally` of train(), which takes the bar away; the queue reads the status
    sys.exit(128 + signal_number)


def check_finite(fold: BuiltFold, state: TrainState) -> None:
    """Before weights are evaluated or saved: a loss that was not finite since the last reading has spoilt them."""
    step = steps_done(fold, state)
    seen = fold.losses.peek()
    fold.guard.check_finite(step, seen.loss, seen.bad_rows)


def count_seconds(fold: BuiltFold, state: TrainState) -> None:
    """Time of all starts of the fold, up to now."""
    # set, not added to: a fold saves many times
    state.seconds = fold.earlier_seconds + time.monotonic() - fold.started
