"""How one model learns: one YAML in configs/runs/, one frozen dataclass. Units stand in the names."""

from dataclasses import dataclass, field
from typing import Literal

from settings.loss import LossSettings, loss_conflicts


@dataclass(frozen=True)
class ModelSettings:
    """The pretrained encoder and how a text becomes its input."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub name or a folder with config.json, safetensors weights and a tokenizer."""
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    max_length_tokens: int = 128
    """Longer texts are cut at their end."""
    pooling: Literal["mean", "cls"] = "mean"
    """How token states become one vector before the head."""
    head_dropout: float = 0.1
    """Dropout before the linear head."""


@dataclass(frozen=True)
class TrainingSettings:
    """Length of the training, size of a step, and where it is saved."""

    epochs: int = 2
    """Passes over the fold's training rows."""
    global_batch_size: int = 32
    """Rows an optimiser step sees, over all processes and accumulated micro-batches."""
    micro_batch_size: int = 32
    """Rows one device holds at once; accumulation is derived from it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 where the hardware computes in it, else fp16 on CUDA, else fp32."""
    checkpoint_every_minutes: float = 5.0
    """Time between saves inside an epoch; the end of every epoch is saved as well."""
    collapse_check_after_steps: int = 300
    """From this optimiser step on, a loss no better than the label rates alone stops the run; 0 is off."""


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule."""

    lr: float = 5e-5
    """Peak learning rate of the encoder."""
    head_lr: float = 5e-4
    """Peak learning rate of the fresh head."""
    weight_decay: float = 0.01
    """On matrices; biases and norms have none."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.999
    """AdamW's second moment."""
    eps: float = 1e-8
    """AdamW's denominator."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 is off."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after the warm-up."""
    warmup_fraction: float = 0.1
    """Share of all optimiser steps in which the rate climbs from 0."""


@dataclass(frozen=True)
class TfidfSettings:
    """TF-IDF of words and of character pieces, one logistic regression a label."""

    word_ngrams: tuple[int, int] = (1, 2)
    """Shortest and longest word n-gram; [0, 0] is off."""
    char_ngrams: tuple[int, int] = (2, 5)
    """Shortest and longest character n-gram inside words; [0, 0] is off."""
    min_rows: int = 2
    """An n-gram must stand in this many training rows."""
    max_features: int = 200_000
    """Most frequent n-grams kept, words and characters each."""
    inverse_regularization: float = 1.0
    """C of the logistic regression."""
    balanced: bool = True
    """Weigh positives by negatives / positives."""


@dataclass(frozen=True)
class RunSettings:
    """One run: a learner and the groups of settings that it reads."""

    learner: Literal["tfidf", "encoder"]
    """Which entry of the table of learners trains this run."""
    seed: int = 42
    """Seed of everything drawn in training: order, dropout, head."""
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    tfidf: TfidfSettings = field(default_factory=TfidfSettings)

    def __post_init__(self):
        problems = list(_conflicts(self))
        if problems:
            raise ValueError("; ".join(problems))


READ_BY = {
    "tfidf": {"learner", "seed", "tfidf"},
    "encoder": {"learner", "seed", "model", "training", "optimizer", "loss"},
}
"""The groups each learner reads; naming another one in YAML or by flag is refused as a setting without effect."""


def _conflicts(settings: RunSettings):
    """Every value that cannot work, as sentences."""
    training, optimizer, model = settings.training, settings.optimizer, settings.model
    for name, value, least in (
        ("training.epochs", training.epochs, 1),
        ("training.global_batch_size", training.global_batch_size, 1),
        ("training.micro_batch_size", training.micro_batch_size, 1),
        ("training.collapse_check_after_steps", training.collapse_check_after_steps, 0),
        ("model.max_length_tokens", model.max_length_tokens, 4),
        ("tfidf.min_rows", settings.tfidf.min_rows, 1),
        ("tfidf.max_features", settings.tfidf.max_features, 1),
        ("seed", settings.seed, 0),
    ):
        if value < least:
            yield f"{name} is {value}; expected {least} or more"
    for name, value in (
        ("optimizer.lr", optimizer.lr),
        ("optimizer.head_lr", optimizer.head_lr),
        ("optimizer.eps", optimizer.eps),
        ("tfidf.inverse_regularization", settings.tfidf.inverse_regularization),
        ("training.checkpoint_every_minutes", training.checkpoint_every_minutes),
    ):
        if not value > 0:
            yield f"{name} is {value}; expected more than 0"
    for name, value in (
        ("optimizer.weight_decay", optimizer.weight_decay),
        ("optimizer.max_grad_norm", optimizer.max_grad_norm),
    ):
        if not value >= 0:
            yield f"{name} is {value}; expected 0 or more"
    for name, value in (
        ("optimizer.beta1", optimizer.beta1),
        ("optimizer.beta2", optimizer.beta2),
        ("optimizer.warmup_fraction", optimizer.warmup_fraction),
        ("model.head_dropout", model.head_dropout),
    ):
        if not 0 <= value < 1:
            yield f"{name} is {value}; expected 0 up to, but not, 1"
    if settings.tfidf.word_ngrams == (0, 0) and settings.tfidf.char_ngrams == (0, 0):
        yield "tfidf.word_ngrams and tfidf.char_ngrams are both off"
    for name, (shortest, longest) in (
        ("tfidf.word_ngrams", settings.tfidf.word_ngrams),
        ("tfidf.char_ngrams", settings.tfidf.char_ngrams),
    ):
        if (shortest, longest) != (0, 0) and not 1 <= shortest <= longest:
            yield f"{name} is [{shortest}, {longest}]; expected shortest <= longest, from 1, or [0, 0]"
    yield from loss_conflicts(settings.loss)
