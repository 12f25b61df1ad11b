"""Further pretraining on the competition's own texts, before the folds: masked tokens, or the next token.

Labels are not read, so every text may take part, of training and test rows alike: no fold learns anything here that its
held-out rows' labels would say. It is done once per model, texts and settings, and kept under the hash of these;
whoever comes second waits and reads. A killed one goes on from its last save with the same bits.

    1. what is taught   models, names of weights, which tokens are guessed
    2. the training     pretrain: find or train; steps; saving
"""

import hashlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from foldblend.console import Progress, announce, clock_time
from foldblend.errors import UserError
from foldblend.files import BusyError, hold_lock, sha256_file
from foldblend.learners.cpu.layers import accelerate_on_cpu
from foldblend.learners.nets.adapters import SharedBase
from foldblend.learners.nets.folders import weight_files
from foldblend.learners.nets.pretrained import load_strictly, refusing_code
from foldblend.learners.processes.devices import place, seed_generators
from foldblend.learners.processes.interruption import Interruption
from foldblend.learners.tokens.batches import plan_epoch, split_step
from foldblend.learners.tokens.tokens import Tokens, fit_embeddings
from foldblend.learners.training.checkpoints import (
    CHECKPOINT,
    TrainState,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from foldblend.learners.training.optimizer import lr_factor, set_lr
from foldblend.learners.training.weights import WEIGHTS
from foldblend.settings.nets import OptimizerSettings
from foldblend.settings.records import settings_of

TITLE = "pretraining"
SEED = 1810
"""The same for every run: runs that differ in their seed share what was pretrained."""
WARMUP = OptimizerSettings(warmup_fraction=0.06)
MASKED, RANDOM = 0.8, 0.1
"""Of the tokens to guess, so many are masked and so many replaced at random; the others stay (Devlin et al. 2019)."""
WEIGHT_DECAY = 0.01
TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 16384}
"""Padded tokens of one forward pass."""
IGNORED = -100
"""A token that need not be guessed."""
LOSS_EVERY_STEPS = 10
WAIT_SECONDS = 1.0

# 1. What is taught


class TaughtModel:
    """A language model on the run's pretrained weights, and how its weights are called in a fold's model.

    Args:   start: the weights of `model.start_from`, by their names in a fold's model; None for the pretrained ones.
    Raises: UserError: weights are missing; an encoder's tokenizer has no mask token.
    """

    def __init__(self, learner, start: dict[str, torch.Tensor] | None):
        self.tokenizer, self.is_encoder = learner.tokenizer, learner.run.learner == "encoder"
        torch.manual_seed(SEED)
        self.fresh: set[str] = set()
        if self.is_encoder:
            if self.tokenizer.mask_token_id is None:
                raise UserError(
                    f"pretraining: {learner.folder}: its tokenizer has no mask token. Set pretraining.epochs 0"
                )
            self.model = self._load_masked(learner.folder)
            fit_embeddings(self.model, self.tokenizer)
            self.prefix, self.of_fold = f"{self.model.base_model_prefix}.", "encoder."
            self.model.base_model.register_forward_hook(self._keep_guessed)
        else:
            device = learner.accelerator.device
            base = SharedBase(learner.folder, AutoModelForCausalLM, learner.run.adapter, device, learner.precision)
            self.model = base.adapt(SEED, False)
            self.prefix = f"base_model.model.{base.base.base_model_prefix}."
            self.of_fold = "encoder.base_model.model."
        self.guessed: torch.Tensor | None = None
        """bool (B, T): tokens whose states the head reads; others would cost as much and teach nothing."""
        if start is not None:
            self.restore({self._from_fold(name): value for name, value in start.items()}, whole=False)

    def _load_masked(self, folder: Path) -> nn.Module:
        """The masked language model of the same architecture; a head that the files lack is new, its output tied to
        the word embeddings."""

        def is_of_head(model: nn.Module, name: str) -> bool:
            return not name.startswith(f"{model.base_model_prefix}.")

        with refusing_code(folder):
            model, new = load_strictly(
                folder, AutoModelForMaskedLM, lambda model, name: is_of_head(model, name) or ".pooler." in name
            )
        self.fresh = {name for name in new if is_of_head(model, name)}
        return model

    def _keep_guessed(self, module, inputs, output):
        if self.guessed is not None:
            output.last_hidden_state = output.last_hidden_state[self.guessed][None]  # (1, n_guessed, H)
        return output

    def _from_fold(self, name: str) -> str:
        return self.prefix + name.removeprefix(self.of_fold)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is trained, shared parameters once; of an encoder its buffers, too, as a fold saves them."""
        trained = set(self._trained())
        if self.is_encoder:
            parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
            trained |= self.model.state_dict().keys() - parameters
        return {name: value for name, value in self.model.state_dict(keep_vars=True).items() if name in trained}

    def _trained(self) -> dict[str, nn.Parameter]:
        """What is trained, shared parameters once: by their name in the pretrained model, not in the head."""
        named = [each for each in self.model.named_parameters(remove_duplicate=False) if each[1].requires_grad]
        named.sort(key=lambda each: not each[0].startswith(self.prefix))  # some models list the head first
        once = {id(parameter): name for name, parameter in reversed(named)}
        return {name: parameter for name, parameter in named if once[id(parameter)] == name}

    @torch.no_grad()
    def restore(self, tensors: dict[str, torch.Tensor], whole: bool = True) -> None:
        """Put weights into the model. Raises UserError: another model's."""
        here = self.weights()
        unknown = [name for name in tensors if name not in here and ".pooler." not in name]
        wrong = [name for name in tensors if name in here and here[name].shape != tensors[name].shape]
        if unknown or wrong or (whole and here.keys() - tensors.keys()):
            raise UserError(f"pretraining: the weights to go on from are of another model: {(unknown + wrong)[:2]}")
        for name in here.keys() & tensors.keys():
            here[name].copy_(tensors[name])

    def of_folds(self) -> dict[str, torch.Tensor]:
        """The trained weights as a fold's model calls them, without the language model's head."""
        found = {name: value for name, value in self.weights().items() if name.startswith(self.prefix)}
        return {self.of_fold + name.removeprefix(self.prefix): value.detach().cpu() for name, value in found.items()}

    def optimizer(self, settings) -> torch.optim.Optimizer:
        """AdamW, with a rate of its own for a head that is new."""
        groups: dict[tuple[float, float], list] = {}
        for name, parameter in self._trained().items():
            lr = settings.head_lr if name in self.fresh else settings.lr
            groups.setdefault((lr, WEIGHT_DECAY if parameter.ndim >= 2 else 0.0), []).append(parameter)
        listed = [
            {"params": each, "lr": lr, "peak_lr": lr, "weight_decay": decay} for (lr, decay), each in groups.items()
        ]
        return torch.optim.AdamW(listed, fused=True)

    def loss(self, inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """Sum of the loss over the tokens to guess. Args: targets: int64 (B, T), IGNORED for others."""
        if self.is_encoder:
            self.guessed = targets != IGNORED
            logits = self.model(**inputs).logits[0]  # (n_guessed, V)
            return cross_entropy(logits.float(), targets[self.guessed], reduction="sum")
        logits = self.model(**inputs, use_cache=False).logits[:, :-1]  # token t says what token t + 1 is
        return cross_entropy(
            logits.float().flatten(0, 1), targets[:, 1:].flatten(), reduction="sum", ignore_index=IGNORED
        )


def choose_guessed(
    tokens: Tokens, rows: np.ndarray, share: float, vocabulary: int, rng: np.random.Generator
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A batch with masked tokens, and what they were.

    Args:   rows: int64 (B,).   share: of the tokens of each text, without its frame, that are to be guessed; 1 leaves
            the tokens as they are, as a decoder needs no masks.   vocabulary: random tokens are below this.
    Returns: input_ids and attention_mask, int64 (B, T); targets, int64 (B, T), IGNORED where nothing is to be guessed.
    Source:  Devlin et al. 2019, arXiv:1810.04805, section 3.1.
    """
    batch = tokens.batch(rows)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ids, lengths = inputs["input_ids"].numpy(), tokens.lengths[rows]
    position = np.arange(ids.shape[1])
    before, after = tokens.frame
    is_text = (position >= before) & (position < (lengths - after)[:, None])  # (B, T)
    if share == 1:
        return inputs, torch.from_numpy(np.where(is_text, ids, IGNORED))
    drawn = rng.random(ids.shape)
    guessed = is_text & (drawn < share)
    # a text of few tokens has one to guess, too
    lowest = np.where(is_text, drawn, 2.0).argmin(axis=1)
    lonely = ~guessed.any(axis=1) & is_text.any(axis=1)
    guessed[lonely, lowest[lonely]] = True
    targets = np.where(guessed, ids, IGNORED)
    how, others = rng.random(ids.shape), rng.integers(0, vocabulary, ids.shape)
    ids = np.where(guessed & (how < MASKED), tokens.mask_id, ids)
    ids = np.where(guessed & (how >= MASKED) & (how < MASKED + RANDOM), others, ids)
    return {**inputs, "input_ids": torch.from_numpy(ids)}, torch.from_numpy(targets)


# 2. The training


def pretrain(learner, start: dict[str, torch.Tensor] | None) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights that folds start from, pretrained now or found; by their names in a fold's model.

    Args:   learner: a NeuralLearner.   start: the weights of `model.start_from`; None for the pretrained ones.
    Returns: the weights, and what the record of a fold says of them.
    Raises: UserError: the texts or the model cannot be pretrained on, or what was kept is damaged.
            SystemExit: a signal came, all is saved.
    """
    tokens = learner.tokens
    if learner.corpus.unlabelled:
        tokens = join_tokens(tokens, learner.make_tokens(learner.corpus.unlabelled))
    identity = describe_pretraining(learner, tokens)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = learner.corpus.pretrained_dir / key[:16]
    if learner.accelerator.is_main_process:
        with _waiting_lock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / WEIGHTS).exists():
                _train(learner, start, tokens, folder, identity)
            else:
                announce(TITLE, f"done before, read from {folder.parent.name}/{folder.name}")
    else:  # no collective operation: it would give up long before a pretraining ends
        _wait_for(folder / WEIGHTS)
    found = load_checkpoint(folder / WEIGHTS, identity)
    assert found is not None
    weights = {name: value for name, value in found[0].items() if name.startswith("encoder.")}
    n_texts = len(tokens.lengths)
    return weights, {"weights_sha256": sha256_file(folder / WEIGHTS), "texts": n_texts, "loss": found[1].mean_loss}


def describe_pretraining(learner, tokens: Tokens) -> dict:
    """All that its result depends on: the model's weights, the tokens, the settings."""
    run, data = learner.run, hashlib.sha256()
    data.update(tokens.ids.tobytes())
    data.update(tokens.starts.tobytes())
    settings, files = settings_of(run), ("config.json", *weight_files(learner.folder))
    return {
        "kind": run.learner,  # no settings of a run, which are completed when they are read
        "model_sha256": {name: sha256_file(learner.folder / name) for name in files},
        "start_sha256": run.model.start_sha256,
        "pretraining": settings["pretraining"],
        "adapter": settings.get("adapter", {}),
        "cleaning": settings["cleaning"],
        "precision": learner.precision,
        "tokens_sha256": data.hexdigest(),
    }


def join_tokens(first: Tokens, second: Tokens) -> Tokens:
    """The texts of both, one after the other."""
    ids, starts = np.concatenate([first.ids, second.ids]), np.r_[first.starts, first.starts[-1] + second.starts[1:]]
    return Tokens(ids, starts, first.pad_id, first.frame, first.room, first.mask_id)


class _waiting_lock:
    """`hold_lock`, with a line if another process holds it."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        try:
            self.lock = hold_lock(self.path, "busy")
            return self.lock.__enter__()
        except BusyError:
            announce(TITLE, "another process does it now; waits for it")
            self.lock = hold_lock(self.path)
            return self.lock.__enter__()

    def __exit__(self, *error):
        return self.lock.__exit__(*error)


def _wait_for(path: Path) -> None:
    with Interruption() as interruption:
        while not path.exists():
            if interruption.signal_number:
                sys.exit(128 + interruption.signal_number)
            time.sleep(WAIT_SECONDS)


def _train(learner, start, tokens: Tokens, folder: Path, identity: dict) -> None:
    """Pretrain to the end, from wherever it is; leave the weights in `folder`."""
    settings, device = learner.run.pretraining, learner.accelerator.device
    taught = TaughtModel(learner, start)
    if device.type == "cpu":
        accelerate_on_cpu(taught.model, True)
    taught.model.to(device).train()
    optimizer, state = taught.optimizer(settings), TrainState()
    found = load_checkpoint(folder / CHECKPOINT, identity)
    if found is not None:
        tensors, state = found
        taught.restore(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        restore_optimizer(optimizer, tensors)
    rows = np.arange(len(tokens.lengths))
    n_steps = -(-len(rows) // settings.global_batch_size)
    done = state.epoch * len(rows) + min(state.step * settings.global_batch_size, len(rows))
    progress = Progress(TITLE, settings.epochs * len(rows), done)
    what = "masked tokens" if taught.is_encoder else "the next token"
    progress.say(f"{len(rows):,} texts, {settings.epochs} epochs, {what}" if not done else
                 f"goes on from epoch {state.epoch + 1}, step {state.step}")  # fmt: skip
    started, saved_at, earlier = time.monotonic(), time.monotonic(), state.seconds
    try:
        with Interruption() as interruption:
            while state.epoch < settings.epochs:
                steps = plan_epoch(rows, tokens.lengths, settings.global_batch_size, [SEED, state.epoch])
                for step in steps[state.step :]:
                    number = state.epoch * n_steps + state.step
                    set_lr(optimizer, lr_factor(number, settings.epochs * n_steps, WARMUP))
                    loss = _take_step(learner, taught, optimizer, tokens, step, number)
                    state.step += 1
                    if loss is not None:
                        _note_loss(state, loss, number)
                    progress.advance(
                        len(step), f"epoch {state.epoch + 1}/{settings.epochs}  loss {state.mean_loss:.4f}"
                    )
                    state.seconds = earlier + time.monotonic() - started
                    if interruption.signal_number:
                        _save(taught, optimizer, state, folder / CHECKPOINT, identity)
                        progress.say(f"stopped by signal {interruption.signal_number}, saved; the same command goes on")
                        sys.exit(128 + interruption.signal_number)
                    if time.monotonic() - saved_at > 60 * learner.run.training.checkpoint_every_minutes:
                        _save(taught, optimizer, state, folder / CHECKPOINT, identity)
                        saved_at = time.monotonic()
                state.epoch, state.step = state.epoch + 1, 0
                progress.say(f"epoch {state.epoch}: loss {state.mean_loss:.4f}")
                if state.epoch < settings.epochs:
                    _save(taught, optimizer, state, folder / CHECKPOINT, identity)
        save_checkpoint(folder / WEIGHTS, taught.of_folds(), state, identity)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        progress.say(f"done in {clock_time(state.seconds)}")
    finally:
        progress.close()


def _take_step(learner, taught: TaughtModel, optimizer, tokens: Tokens, rows: np.ndarray, number: int) -> float | None:
    """One optimizer step; the mean loss per guessed token every few steps, as reading it waits for the device."""
    settings, device = learner.run.pretraining, learner.accelerator.device
    # by the step's number alone, so that a resumed training draws the same
    rng = np.random.default_rng([SEED, number, 1])
    seed_generators(device, int(rng.integers(2**31)))
    share = settings.masked_share if taught.is_encoder else 1.0
    most_rows = learner.run.training.micro_batch_size or len(rows)
    parts = split_step(rows, tokens.lengths, 1, most_rows, TOKENS_AT_ONCE.get(device.type, 4096))
    vocabulary = len(taught.tokenizer)
    batches = [choose_guessed(tokens, part, share, vocabulary, rng) for (part,) in parts]
    guessed = sum(int((targets != IGNORED).sum()) for _, targets in batches)
    if not guessed:
        return None
    total = torch.zeros((), device=device)
    for inputs, targets in batches:
        if not (targets != IGNORED).any():
            continue
        placed = place({**inputs, "targets": targets}, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=learner.precision == "bf16"):
            loss = taught.loss({name: placed[name] for name in inputs}, placed["targets"]) / guessed
        loss.backward()
        total += loss.detach()
    trained = [each for group in optimizer.param_groups for each in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(total) if number % LOSS_EVERY_STEPS == 0 else None


def _note_loss(state: TrainState, loss: float, number: int) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"pretraining: the loss is {loss} at step {number}. Lower --pretraining.lr, or set bf16 or fp32"
        )
    state.mean_loss = loss if not state.mean_loss else state.mean_loss + 0.2 * (loss - state.mean_loss)


def _save(taught: TaughtModel, optimizer, state: TrainState, path: Path, identity: dict) -> None:
    tensors = {f"model.{name}": value for name, value in taught.weights().items()} | optimizer_tensors(optimizer)
    save_checkpoint(path, tensors, state, identity)
