"""How one model learns: one YAML in configs/runs/, one frozen dataclass. Units stand in the names."""

from dataclasses import dataclass, field
from typing import Literal

from settings.adapter import AdapterSettings, adapter_conflicts, decoder_conflicts
from settings.answer import AnswerSettings, answer_conflicts, generator_conflicts
from settings.augmentation import AugmentationSettings, augmentation_conflicts
from settings.cleaning import CleaningSettings, cleaning_conflicts
from settings.loss import LossSettings, loss_conflicts
from settings.model import ModelSettings, model_conflicts, reader_conflicts
from settings.optimizer import AdversarialSettings, OptimizerSettings, adversarial_conflicts, optimizer_conflicts
from settings.prompt import PromptSettings, prompt_conflicts


@dataclass(frozen=True)
class TrainingSettings:
    """Length of the training, size of a step, and where it is saved."""

    epochs: int = 2
    """Passes over the fold's training rows."""
    global_batch_size: int = 32
    """Rows an optimiser step sees, over all processes and accumulated micro-batches."""
    micro_batch_size: int = 0
    """Most rows one device holds at once; accumulation is derived from it. 0: all of its share, and fewer where they do
    not fit into memory."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 where the hardware computes in it, else fp16 on CUDA, else fp32."""
    checkpoint_every_minutes: float = 5.0
    """Time between saves inside an epoch; the end of every epoch is saved as well."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Compute the layers' states again in the backward pass instead of keeping them: less memory, a third more time.
    `auto`: only once memory has run out with micro-batches that were small already."""
    ema_decay: float = 0.0
    """Evaluate and predict with a running mean of the weights that keeps this share at each step; 0 is off."""
    selection: Literal["last", "best_score", "lowest_loss", "loss_and_score", "average_last"] = "last"
    """Which weights a fold ends with: those of its end; of the evaluation with the best held-out score; with the lowest
    held-out loss; with the best score among those whose loss is near the lowest; or the mean of the last epochs' ends.
    The three in the middle look at held-out rows, and the fold says so."""
    evaluations_per_epoch: int = 1
    """Looks at the held-out rows, evenly spread over an epoch; the last one stands at its end."""
    near_lowest_loss: float = 0.02
    """With `loss_and_score`: a held-out loss up to (1 + this) times the lowest one is near it."""
    average_last_epochs: int = 2
    """With `average_last`: how many epochs' final weights are averaged."""
    collapse_check_after_steps: int = 300
    """From this optimiser step on, a loss no better than the label rates alone stops the run. A fold of 50 steps
    or more is judged at its end too: its last training steps or its held-out rows must be better. 0 is off."""


@dataclass(frozen=True)
class TfidfSettings:
    """TF-IDF of words and of character pieces."""

    word_ngrams: tuple[int, int] = (1, 2)
    """Shortest and longest word n-gram; [0, 0] is off."""
    char_ngrams: tuple[int, int] = (2, 5)
    """Shortest and longest character n-gram inside words; [0, 0] is off."""
    min_rows: int = 2
    """An n-gram must stand in this many training rows."""
    max_features: int = 200_000
    """Most frequent n-grams kept, words and characters each."""


@dataclass(frozen=True)
class NbsvmSettings:
    """Log-count ratios that n-grams are multiplied by."""

    smoothing: float = 1.0
    """Added to every n-gram's sum over a label's rows, and over the others."""


@dataclass(frozen=True)
class EmbeddingsSettings:
    """A frozen pretrained encoder; the mean of a text's last states is its embedding."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub name or a folder with config.json, safetensors weights and a tokenizer."""
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    max_length_tokens: int = 128
    """Longer texts are cut at their end."""


@dataclass(frozen=True)
class LogisticSettings:
    """The L2-regularised logistic regression over a linear learner's features, one a label."""

    inverse_regularization: float = 1.0
    """C: smaller values hold the weights closer to 0."""
    balanced: bool = True
    """Positives and negatives of a label weigh the same in sum."""


@dataclass(frozen=True)
class RunSettings:
    """One run: a learner and the groups of settings that it reads."""

    learner: Literal["tfidf", "nbsvm", "embeddings", "encoder", "decoder", "generator"]
    """Which entry of the table of learners trains this run."""
    seed: int = 42
    """Seed of everything drawn in training: order, dropout, head. As a flag, `--seed 1`, it makes a sibling of the run,
    `<run>-seed1`, to be blended with it."""
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    adversarial: AdversarialSettings = field(default_factory=AdversarialSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    cleaning: CleaningSettings = field(default_factory=CleaningSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    answer: AnswerSettings = field(default_factory=AnswerSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    tfidf: TfidfSettings = field(default_factory=TfidfSettings)
    nbsvm: NbsvmSettings = field(default_factory=NbsvmSettings)
    embeddings: EmbeddingsSettings = field(default_factory=EmbeddingsSettings)
    logistic: LogisticSettings = field(default_factory=LogisticSettings)

    def __post_init__(self):
        problems = list(_conflicts(self))
        if problems:
            raise ValueError("; ".join(problems))


READ_BY = {
    "tfidf": {"learner", "seed", "cleaning", "tfidf", "logistic"},
    "nbsvm": {"learner", "seed", "cleaning", "tfidf", "nbsvm", "logistic"},
    "embeddings": {"learner", "cleaning", "embeddings", "logistic"},
    "encoder": {"learner", "seed", "model", "training", "optimizer", "adversarial", "loss", "cleaning", "augmentation"},
    "decoder": {
        *("learner", "seed", "model", "training", "optimizer", "loss", "cleaning", "augmentation"),
        *("prompt", "adapter"),
    },
    "generator": {
        *("learner", "seed", "model", "training", "optimizer", "loss", "cleaning", "augmentation"),
        *("prompt", "answer", "adapter"),
    },
}
"""The groups each learner reads; naming another one in YAML or by flag is refused as a setting without effect."""


def _conflicts(settings: RunSettings):
    """Every value that cannot work, as sentences."""
    training = settings.training
    for name, value, least in (
        ("training.epochs", training.epochs, 1),
        ("training.global_batch_size", training.global_batch_size, 1),
        ("training.micro_batch_size", training.micro_batch_size, 0),
        ("training.evaluations_per_epoch", training.evaluations_per_epoch, 1),
        ("training.average_last_epochs", training.average_last_epochs, 1),
        ("training.collapse_check_after_steps", training.collapse_check_after_steps, 0),
        ("tfidf.min_rows", settings.tfidf.min_rows, 1),
        ("tfidf.max_features", settings.tfidf.max_features, 1),
        ("embeddings.max_length_tokens", settings.embeddings.max_length_tokens, 4),
        ("seed", settings.seed, 0),
    ):
        if value < least:
            yield f"{name} is {value}; expected {least} or more"
    for name, value in (
        ("logistic.inverse_regularization", settings.logistic.inverse_regularization),
        ("nbsvm.smoothing", settings.nbsvm.smoothing),
        ("training.checkpoint_every_minutes", training.checkpoint_every_minutes),
    ):
        if not value > 0:
            yield f"{name} is {value}; expected more than 0"
    if training.near_lowest_loss < 0:
        yield f"training.near_lowest_loss is {training.near_lowest_loss}; expected 0 or more"
    for name, reader in (("near_lowest_loss", "loss_and_score"), ("average_last_epochs", "average_last")):
        if training.selection != reader and getattr(training, name) != getattr(TrainingSettings, name):
            yield f"training.{name} is set, but training.selection is {training.selection}; {reader} alone reads it"
    if training.selection == "average_last" and training.average_last_epochs > training.epochs:
        yield f"training.average_last_epochs is {training.average_last_epochs}, training.epochs is {training.epochs}"
    if not 0 <= training.ema_decay < 1:
        yield f"training.ema_decay is {training.ema_decay}; expected 0 up to, but not, 1"
    if settings.tfidf.word_ngrams == (0, 0) and settings.tfidf.char_ngrams == (0, 0):
        yield "tfidf.word_ngrams and tfidf.char_ngrams are both off"
    for name, (shortest, longest) in (
        ("tfidf.word_ngrams", settings.tfidf.word_ngrams),
        ("tfidf.char_ngrams", settings.tfidf.char_ngrams),
    ):
        if (shortest, longest) != (0, 0) and not 1 <= shortest <= longest:
            yield f"{name} is [{shortest}, {longest}]; expected shortest <= longest, from 1, or [0, 0]"
    yield from model_conflicts(settings.model)
    yield from optimizer_conflicts(settings.optimizer)
    yield from adversarial_conflicts(settings.adversarial, training.epochs)
    yield from loss_conflicts(settings.loss)
    yield from cleaning_conflicts(settings.cleaning, has_tokenizer="model" in READ_BY[settings.learner])
    yield from augmentation_conflicts(settings.augmentation)
    yield from prompt_conflicts(settings.prompt)
    yield from answer_conflicts(settings.answer)
    yield from reader_conflicts(settings.learner, settings.model)
    yield from adapter_conflicts(settings.adapter, training.gradient_checkpointing is True)
    if settings.learner == "decoder":
        yield from decoder_conflicts(settings)
    if settings.learner == "generator":
        yield from generator_conflicts(settings)
