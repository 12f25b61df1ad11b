"""How one model learns: one YAML in configs/runs/, one frozen dataclass.

A docstring under a field is what a user reads in `--help` and in docs/settings.md. Ranges stand in the field itself
(settings/fields.py checks them); rules that need two settings are the `_check_...` functions at the end.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from foldblend.errors import UserError
from foldblend.settings.fields import find_problems, only_read_by, setting
from foldblend.settings.sources import DistillationSettings, ExtraRows, PretrainingSettings, check_sources
from foldblend.settings.tables import LEARNERS, LOSSES, LearnerEntry

# ---------- Groups of settings: the pretrained model and its head.


@dataclass(frozen=True)
class ModelSettings:
    """The pretrained model, how a text becomes its input, and the head that reads the labels."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Name on the Hugging Face hub, or a folder with config.json, safetensors weights and a tokenizer."""
    revision: str = "main"
    """Branch, tag or commit on the hub. Give a commit to be sure that the weights never change."""
    start_from: str = ""
    """Go on from another training: `goemotions/minilm` is the mean of the encoders of all folds of that run,
    `goemotions/minilm/fold0` one fold's, `goemotions/minilm/full` that of all rows; or a folder with a model. The head
    is new. The other model must not have seen rows that this run holds out: docs/more-rows.md."""
    start_sha256: str = ""
    """sha256 of the weights that start_from names, filled in when a training starts. If you set it, others are
    refused."""
    max_length_tokens: int = setting(128, at_least=4)
    """Longer texts are truncated to this many tokens. Raise it for long texts; time and memory grow with it."""
    tail_fraction: float = setting(0.0, at_least=0, less_than=1)
    """Head-and-tail truncation: the share of the kept tokens that comes from the end of a long text. 0 keeps only the
    beginning."""
    max_unknown_share: float = setting(0.2, at_least=0, at_most=1)
    """The largest share of the texts' tokens that the tokenizer may not know. Above it the training is refused: the
    tokenizer is of another model, or the model does not know the language."""
    pooling: Literal["mean", "cls", "last", "max", "attention", "label_attention", "pooler", "concat_last"] = "mean"
    """How the token states become one vector. `last`: the last token (decoders). `attention`: a learned weight per
    token. `label_attention`: a learned weight per token and label. `pooler`: the pretrained dense layer on the first
    token. `concat_last`: the last `concat_layers` layers, concatenated."""
    concat_layers: int = setting(4, at_least=1, only_with=("pooling", "concat_last"))
    """Number of layers that `concat_last` concatenates."""
    concat_states: Literal["cls", "mean"] = setting("cls", only_with=("pooling", "concat_last"))
    """What `concat_last` takes from each layer: the first token or the mean of all tokens."""
    head: Literal["linear", "mlp"] = "linear"
    """`mlp` adds a dense layer of the encoder's width and a ReLU before the last layer."""
    head_init: Literal["random", "label_names"] = "random"
    """Initial weights of the last layer. `label_names`: the encoder's own vectors of the labels' names, which helps
    rare labels if the encoder was trained on sentences and the names are words."""
    label_text: str = setting("This text expresses {label}.", only_with=("head_init", "label_names"))
    """What the encoder reads for each label if head_init is `label_names`; underscores in a name become spaces."""
    head_dropout: float = setting(0.1, at_least=0, less_than=1)
    """Dropout before the last layer of the head."""
    dropout_samples: int = setting(1, at_least=1)
    """Multi-sample dropout: the logits of this many dropout masks are averaged. The encoder runs once."""
    pad_token: str = ""
    """Padding token of a decoder whose tokenizer names none; empty uses its end-of-text token."""


# ---------- Groups of settings: the optimizer and adversarial training.


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its learning rate schedule."""

    lr: float = setting(5e-5, more_than=0)
    """Peak learning rate of the pretrained weights, or of the adapters."""
    head_lr: float = setting(5e-4, more_than=0)
    """Peak learning rate of the new head."""
    layer_decay: float = setting(1.0, more_than=0, at_most=1)
    """Each layer's learning rate is this share of the rate of the layer above; the embeddings get the smallest. 1 is
    off; 0.9 to 0.95 is usual for large encoders."""
    weight_decay: float = setting(0.01, at_least=0)
    """Weight decay of matrices; biases and norms have none."""
    beta1: float = setting(0.9, at_least=0, less_than=1)
    """AdamW's decay rate of the mean gradient."""
    beta2: float = setting(0.999, at_least=0, less_than=1)
    """AdamW's decay rate of the mean squared gradient."""
    eps: float = setting(1e-8, more_than=0)
    """Added to the denominator of AdamW's update."""
    state_precision: Literal["float32", "8bit"] = "float32"
    """Precision of AdamW's state. `8bit` (bitsandbytes) needs a quarter of the memory; choose it if 12 bytes per
    trained weight do not fit. Not under FSDP2; embeddings stay in float32."""
    max_grad_norm: float = setting(1.0, at_least=0)
    """Gradients are clipped to this norm; 0 is off."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after the warm-up: `linear` and `cosine` fall to 0, `constant` stays."""
    warmup_fraction: float = setting(0.1, at_least=0, less_than=1)
    """Share of all optimizer steps in which the learning rate rises from 0 to its peak."""
    warmup_steps: int = setting(0, at_least=0)
    """The same as a number of steps. If it is not 0, set warmup_fraction to 0."""
    embedding_updates: Literal["auto", "every_step", "lazy"] = "auto"
    """When AdamW updates the word embeddings. `lazy`: a word's row is updated when a text next contains it, by what
    all steps since then would have done; the result is the same and a CPU needs less time. `auto`: lazy if one CPU
    process trains and the embeddings are a large part of the model."""


@dataclass(frozen=True)
class AdversarialSettings:
    """Adversarial training: each step also uses the gradient at weights that are moved to make the loss larger."""

    name: Literal["none", "fgm", "awp"] = "none"
    """`fgm` moves the word embeddings and adds the gradient found there. `awp` moves every matrix and uses only the
    gradient found there. A step takes about twice as long."""
    epsilon: float = setting(0.0, only_with=("name", "fgm", "awp"))
    """fgm: length of the move; 1.0 is usual. awp: no weight changes by more than this share of its size; 0.01 is
    usual."""
    awp_lr: float = setting(0.0, only_with=("name", "awp"))
    """awp: length of the move as a share of the matrix's norm; 0.0001 to 1.0 is usual."""
    start_epoch: int = setting(1, only_with=("name", "fgm", "awp"))
    """First epoch with adversarial training, counted from 1."""


# ---------- Groups of settings: the loss.


@dataclass(frozen=True)
class LossSettings:
    """The loss. Changing a setting that the chosen loss does not read is an error."""

    name: str = setting("auto", choices=LOSSES)
    """`auto`: bce for multilabel, cross_entropy for multiclass. focal is for both, the others for multilabel.
    soft_macro_f1 is computed per micro-batch, so training.micro_batch_size and the number of devices change it."""
    label_smoothing: float = setting(0.0, at_least=0, less_than=1)
    """Share of each target that goes to 0.5 (multilabel) or evenly to all labels (multiclass)."""
    focal_gamma: float = setting(2.0, at_least=0)
    """Focal loss: exponent of the error that weights a term; 0 is plain cross-entropy."""
    asymmetric_gamma_positive: float = setting(0.0, at_least=0)
    """Asymmetric loss: the exponent for positives."""
    asymmetric_gamma_negative: float = setting(4.0, at_least=0)
    """Asymmetric loss: the exponent for negatives."""
    asymmetric_shift: float = setting(0.05, at_least=0, less_than=1)
    """Asymmetric loss: negatives with a probability below this have no loss."""
    balanced_alpha: float = setting(0.1, at_least=0)
    """Distribution-balanced loss: the smallest weight of a label's term."""
    balanced_beta: float = setting(10.0, more_than=0)
    """Distribution-balanced loss: slope of the weights."""
    balanced_mu: float = 0.3
    """Distribution-balanced loss: centre of the weights, as a share of the sum of a row's label weights."""
    balanced_lambda: float = setting(2.0, more_than=0)
    """Distribution-balanced loss: how much faster a negative's gradient vanishes than a positive's."""
    balanced_kappa: float = setting(0.05, at_least=0)
    """Distribution-balanced loss: share of a label's log-odds by which its logits are shifted."""
    f1_smoothing: float = setting(1.0, at_least=0)
    """Soft macro-F1: added to numerator and denominator. With 0, a label that is absent from a micro-batch gets no
    gradient."""
    pos_weight_power: float = setting(0.0, at_least=0)
    """Weight of a positive = (negatives / positives) ** power, counted in the fold's training rows; 0 weights all
    alike, 1 balances each label. Raise it if rare labels are never predicted."""
    pos_weight_cap: float = setting(20.0, more_than=0)
    """The largest such weight."""
    r_drop_alpha: float = setting(0.0, at_least=0)
    """R-Drop: each text runs through dropout twice and this much of the disagreement is added to the loss; half of
    the paper's alpha has the same effect. 0 is off. A step takes about twice as long."""
    bias_from_prior: bool = True
    """Start the head's bias at the labels' log-odds in the fold's training rows."""
    soft_targets: str = ""
    """A CSV in data/<competition>/ with the id column and one column per label, numbers from 0 to 1: targets that
    replace 0 and 1 in training, for every training row. Folds, scores and class weights use train.csv's labels."""
    soft_targets_sha256: str = ""
    """sha256 of that file, filled in when a training starts. If you set it, another file is refused."""


# ---------- Groups of settings: texts.


@dataclass(frozen=True)
class CleaningSettings:
    """Replacements in all texts, training and test rows alike; all are off by default."""

    urls: bool = False
    """Replace each http or https link by `<URL>`."""
    users: bool = False
    """Replace each mention `@name` by `<USER>`."""
    hashtags: bool = False
    """Replace `#tag` by `<HASHTAG> tag`."""
    emoji_language: Literal["", "ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"] = ""
    """Replace each emoji by its name in this language; empty keeps emojis."""
    placeholder_tokens: bool = False
    """Add the placeholders to the tokenizer: each becomes one token with its own embedding instead of `<`, `URL`,
    `>`. Encoders only."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders that these settings write."""
        written = {"<URL>": self.urls, "<USER>": self.users, "<HASHTAG>": self.hashtags}
        return tuple(placeholder for placeholder, on in written.items() if on)


@dataclass(frozen=True)
class AugmentationSettings:
    """Changes to a fold's training rows, made after the split into folds; all are off by default."""

    oversample_factor: float = setting(0.0, at_least=0)
    """Oversampling: this many copies per row with a rare label are added, drawn with replacement."""
    oversample_rarer_than: float = setting(0.0, at_least=0, less_than=1)
    """A label is rare if its share of the training rows is below this."""
    oversample_k_rarest: int = setting(0, at_least=0)
    """The k labels with the fewest rows are rare."""
    oversample_labels: tuple[str, ...] = ()
    """Names of the labels that count as rare, such as those with the lowest F1 in an earlier run."""
    mix_probability: float = setting(0.0, at_least=0, at_most=1)
    """Probability that a text is concatenated with another one, within model.max_length_tokens; the row then has the
    labels of both. Multilabel only."""
    token_dropout: float = setting(0.0, at_least=0, less_than=1)
    """Probability that a token is masked, or removed if the tokenizer has no mask token."""


@dataclass(frozen=True)
class PromptSettings:
    """The words around a text. If a text is too long for model.max_length_tokens, only the text is truncated."""

    form: Literal["plain", "chat"] = "plain"
    """`chat`: the template is the user's message in the tokenizer's own chat template. For instruction-tuned models."""
    template: str = "{text}"
    """`{text}` becomes the text, `{labels}` the names of all labels. With `plain`, special tokens can be written by
    name."""
    system: str = setting("", only_with=("form", "chat"))
    """System message of the chat; `{labels}` works here too. Empty sends none."""


@dataclass(frozen=True)
class AnswerSettings:
    """The text that a causal language model answers with. Every possible answer is scored; none is generated."""

    form: Literal["list", "yes_no"] = "list"
    """`list`: the row's labels in submission order, trained by the likelihood of that text. `yes_no`: one question per
    label, independent of the others, trained by the run's loss on the log-odds of yes against no."""
    separator: str = setting(", ", only_with=("form", "list"))
    """Between the labels of a list."""
    none: str = setting("none", only_with=("form", "list"))
    """The answer for a row without labels."""
    beam_size: int = setting(2, at_least=1, only_with=("form", "list"))
    """Beam search over lists: the most probable lists that are kept per label; larger is more exact and slower."""
    question: str = setting("{label}:", only_with=("form", "yes_no"))
    """The question for one label."""
    yes: str = setting("yes", only_with=("form", "yes_no"))
    """The answer if the row has the label."""
    no: str = setting("no", only_with=("form", "yes_no"))
    """The answer if it does not."""


# ---------- Groups of settings: adapters of decoders and generators.


@dataclass(frozen=True)
class AdapterSettings:
    """Small trained parts on a frozen base model; `kind: none` trains the whole base in float32."""

    kind: Literal["lora", "prefix_tuning", "prompt_tuning", "none"] = "lora"
    """`lora`: low-rank updates of matrices. `prefix_tuning`: learned keys and values in every layer. `prompt_tuning`:
    learned embeddings before the text."""
    rank: int = setting(16, at_least=1, only_with=("kind", "lora"))
    """Rank of LoRA's update; higher learns more and needs more memory."""
    alpha: float = setting(32.0, more_than=0, only_with=("kind", "lora"))
    """LoRA's update is scaled by alpha / rank."""
    rslora: bool = setting(False, only_with=("kind", "lora"))
    """Scale by alpha / sqrt(rank) instead, which keeps high ranks learning."""
    dora: bool = setting(False, only_with=("kind", "lora"))
    """DoRA: learn the length of each weight row separately from its direction."""
    init: Literal["zero", "pissa"] = setting("zero", only_with=("kind", "lora"))
    """LoRA's initial update. `zero`: none. `pissa`: each matrix's largest singular directions; the rest is frozen."""
    dropout: float = setting(0.05, at_least=0, less_than=1, only_with=("kind", "lora"))
    """Dropout before LoRA's update."""
    targets: tuple[str, ...] = setting(("all-linear",), only_with=("kind", "lora"))
    """Last parts of the names of the layers that get an update, such as q_proj; `all-linear` means every linear
    layer."""
    bias: Literal["none", "all", "lora_only"] = setting("none", only_with=("kind", "lora"))
    """Which biases of the base are trained too: none, all, or those of the layers in `targets`."""
    virtual_tokens: int = setting(20, at_least=1, only_with=("kind", "prefix_tuning", "prompt_tuning"))
    """Number of learned positions."""
    quantization: Literal["none", "nf4"] = setting("none", only_with=("kind", "lora", "prefix_tuning", "prompt_tuning"))
    """`nf4` (QLoRA): the frozen base in 4 bits, a quarter of the memory and somewhat slower. Choose it if the base does
    not fit on the GPU."""


# ---------- Groups of settings: training.


@dataclass(frozen=True)
class TrainingSettings:
    """Length of the training, batch size, evaluation and checkpoints."""

    epochs: int = setting(2, at_least=1)
    """Passes over the fold's training rows."""
    global_batch_size: int = setting(32, at_least=1)
    """Rows per optimizer step, over all processes and accumulated micro-batches."""
    micro_batch_size: int = setting(0, at_least=0)
    """Most rows that a device holds at once; gradient accumulation follows from it. 0: as many as the step needs, and
    fewer if GPU memory runs out."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 if the hardware computes in it, otherwise fp16 on CUDA, otherwise fp32."""
    checkpoint_every_minutes: float = setting(5.0, more_than=0)
    """Minutes between checkpoints inside an epoch; the end of every epoch is saved as well."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, about a third more time. `auto`: only after memory ran
    out with small micro-batches."""
    ema_decay: float = setting(0.0, at_least=0, less_than=1)
    """Evaluate and predict with an exponential moving average of the weights, with this decay per step; 0 is off."""
    selection: Literal["last", "best_score", "lowest_loss", "loss_and_score", "average_last"] = "last"
    """Which weights a fold ends with: the last ones; those of the evaluation with the best held-out score; with the
    lowest held-out loss; with the best score among those whose loss is near the lowest; or the mean of the last
    epochs. The three that use held-out rows make the held-out score too good, which blend.py reports."""
    evaluations_per_epoch: int = setting(1, at_least=1)
    """Evaluations on the held-out rows per epoch, evenly spaced; the last one is at the end of the epoch."""
    loss_tolerance: float = setting(0.02, at_least=0, only_with=("selection", "loss_and_score"))
    """With `loss_and_score`: a held-out loss up to (1 + this) times the lowest one counts as near."""
    average_last_epochs: int = setting(2, at_least=1, only_with=("selection", "average_last"))
    """With `average_last`: number of epochs whose final weights are averaged."""
    collapse_check_after_steps: int = setting(300, at_least=0)
    """From this optimizer step on, a loss that is no better than predicting the label rates stops the run. A fold of
    50 steps or more is checked at its end too. 0 is off."""
    leave_out: tuple[str, ...] = ()
    """Competitions that will start from this run (model.start_from there): a training row that says the same as one of
    their training rows is not learned, so that no row they hold out was seen. Their data must be in data/."""


# ---------- Groups of settings: linear models.


@dataclass(frozen=True)
class TfidfSettings:
    """TF-IDF of word and character n-grams."""

    word_ngrams: tuple[int, int] = (1, 2)
    """Shortest and longest word n-gram; [0, 0] is off."""
    char_ngrams: tuple[int, int] = (2, 5)
    """Shortest and longest character n-gram inside words; [0, 0] is off."""
    min_rows: int = setting(2, at_least=1)
    """An n-gram must occur in this many training rows (min_df)."""
    max_features: int = setting(200_000, at_least=1)
    """The most frequent n-grams that are kept, for words and for characters each."""
    strip_accents: bool = False
    """Read é as e, and drop all such marks. Set it for texts whose writers often leave accents out; in Vietnamese,
    Thai, Hindi, Japanese, French and many other languages the marks tell words apart. Runs of versions before 0.3 have
    it on."""


@dataclass(frozen=True)
class NbsvmSettings:
    """NB-SVM: n-grams multiplied by their log-count ratios."""

    smoothing: float = setting(1.0, more_than=0)
    """Added to every n-gram's count, in a label's rows and in the other rows."""


@dataclass(frozen=True)
class EmbeddingsSettings:
    """A frozen pretrained encoder; the mean of a text's last states is its embedding."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Name on the Hugging Face hub, or a folder with config.json, safetensors weights and a tokenizer."""
    revision: str = "main"
    """Branch, tag or commit on the hub. Give a commit to be sure that the weights never change."""
    max_length_tokens: int = setting(128, at_least=4)
    """Longer texts are truncated to this many tokens."""
    max_unknown_share: float = setting(0.2, at_least=0, at_most=1)
    """The largest share of the texts' tokens that the tokenizer may not know."""


@dataclass(frozen=True)
class LogisticSettings:
    """The L2-regularised logistic regression on a linear learner's features, one per label."""

    inverse_regularization: float = setting(1.0, more_than=0)
    """C of scikit-learn: smaller values keep the weights closer to 0."""
    balanced: bool = True
    """Give the positives of a label and its negatives the same total weight."""


# ---------- One run.


@dataclass(frozen=True)
class RunSettings:
    """One run: a learner and the groups of settings that it reads. `base: NAME` on the first line of the YAML takes the
    values of another run's YAML first."""

    learner: str = setting(choices=LEARNERS)
    """The kind of model that is trained."""
    seed: int = setting(42, at_least=0)
    """Seed of everything random in training: order of the rows, dropout, head. As a flag, `--seed 1` trains the run
    `<run>-seed1`, to be blended with the others."""
    use_features: bool = False
    """Learn from the competition's `features`, too: numbers and categories beside the text. They are added to the last
    layer of an encoder or decoder, and to the columns of tfidf, nbsvm and embeddings. A blend may gain from one run
    with them and one without."""
    model: ModelSettings = field(default_factory=ModelSettings)
    pretraining: PretrainingSettings = field(default_factory=PretrainingSettings)
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
    extra_rows: tuple[ExtraRows, ...] = ()
    """Sources of rows that are learned beside the competition's own, each with the settings below
    ([docs/more-rows.md](more-rows.md))."""
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    plugin: Any = setting(None, internal=True)  # noqa: RUF009
    """Settings of a plugin's learner: an instance of the dataclass that it registered. In YAML the group has the
    learner's name."""

    def __post_init__(self) -> None:
        entry = LEARNERS.get(self.learner)
        if entry is not None and entry.settings is not None and self.plugin is None:
            object.__setattr__(self, "plugin", entry.settings())
        problems = list(find_problems(self))
        for number, each in enumerate(self.extra_rows):
            problems += find_problems(each, f"extra_rows[{number}].")
        if entry is not None:
            problems += [problem for check in CHECKS for problem in check(self)]
            problems += find_problems(self.plugin, f"{self.learner}.") if self.plugin is not None else []
        if problems:
            raise UserError("; ".join(problems))


# ---------- Learners from outside the package.


def learner_entry(
    name: str,
    build: Callable | str,
    reads: Sequence[str] = ("seed", "cleaning"),
    settings: type | None = None,
    needs_gpu: bool = False,
) -> LearnerEntry:
    """The checked entry of a plugin's learner, for `LEARNERS[name]`, which is filled before settings are read.

    Args:   name: what `learner:` in a run's YAML says, and the name of the group of the learner's own settings.
            build: called with (run, corpus).
            reads: fields of RunSettings that it reads beside `learner`: seed, cleaning, model, training, ...
            settings: a frozen dataclass, every field with a default. `<name>: {alpha: 2}` in the YAML and
                `--<name>.alpha 2` set it, as strictly as any other group; the learner finds it in `run.plugin`.
    Raises: UserError: a name that is no identifier or is taken by a group, an unknown group in `reads`, a setting
            without a default.
    """
    known = {each.name for each in fields(RunSettings)} - {"plugin"}
    if not name.isidentifier() or name in known | {"plugin", "base"}:  # `base: NAME` is a key of a run's YAML
        raise UserError(f"learner {name!r} cannot be registered; choose another name of letters, digits and _")
    if unknown := sorted(set(reads) - known):
        raise UserError(f"learner {name} reads {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    if settings is not None:
        if not (isinstance(settings, type) and is_dataclass(settings)):
            raise UserError(f"learner {name}: its settings are {settings!r}; expected a frozen dataclass")
        if bare := [each.name for each in fields(settings) if each.default is each.default_factory is MISSING]:
            raise UserError(f"learner {name}: its settings {', '.join(bare)} have no default; give each one")
    return LearnerEntry(build, frozenset({"learner", *reads}), settings, needs_gpu)


# ---------- Rules between settings. Each yields a sentence per rule that a run breaks.


def _check_model(run: RunSettings) -> Iterator[str]:
    model = run.model
    if model.dropout_samples > 1 and not model.head_dropout:
        yield f"model.dropout_samples is {model.dropout_samples}, but model.head_dropout is 0: all samples are alike"
    if model.label_text.count("{label}") != 1:
        yield f"model.label_text is {model.label_text!r}; expected {{label}} in it, once"
    if model.head_init == "label_names" and model.head == "mlp":
        yield (
            "model.head_init is label_names, but model.head is mlp, whose new dense layer comes first; "
            "set model.head_init to random"
        )
    if model.head_init != "random" and run.learner in ("decoder", "generator"):
        yield f"model.head_init is {model.head_init}, but learner is {run.learner}; {only_read_by(['encoder'])}"
    if run.use_features and "use_features" not in LEARNERS[run.learner].reads:
        yield (
            f"use_features is on, but a {run.learner} reads nothing but text; remove it. To show it the columns, name "
            "them in text.columns and text.template"
        )
    if model.pad_token and run.learner in ("encoder", "generator"):
        yield f"model.pad_token is set, but learner is {run.learner}; {only_read_by(['decoder'])}"


START_PART = re.compile(r"full|fold\d{1,6}", re.ASCII)
"""The third part of model.start_from."""


def _check_start(run: RunSettings) -> Iterator[str]:
    start = run.model.start_from
    if run.model.start_sha256 and not start:
        yield "model.start_sha256 is set, but model.start_from names no training"
    if start and (not start.strip("/ ") or "\0" in start or "//" in start):
        yield f"model.start_from is {start[:80]!r}; expected COMPETITION/RUN, COMPETITION/RUN/fold0 or a folder"
    if wrong := [name for name in run.training.leave_out if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII)]:
        yield f"training.leave_out has {wrong[0][:80]!r}; expected names of files in configs/competitions/"


def _check_pretraining(run: RunSettings) -> Iterator[str]:
    pretraining = run.pretraining
    if not pretraining.epochs:
        for name in _changed(pretraining):
            yield f"pretraining.{name} is set, but pretraining.epochs is 0, so there is none; set epochs or remove it"
        return
    if not pretraining.is_inside:
        yield f"pretraining.file is {pretraining.file[:80]!r}; expected the name of a file inside data/<competition>/"
    if pretraining.file_sha256 and not pretraining.file:
        yield "pretraining.file_sha256 is set, but pretraining.file names no file"
    if run.learner == "encoder" and run.model.pooling == "pooler":
        yield "model.pooling is pooler, which pretraining does not teach; set model.pooling to cls or mean"
    if run.learner == "decoder" and (run.adapter.kind != "lora" or run.adapter.init == "pissa"):
        yield "pretraining teaches a decoder's LoRA: set adapter.kind lora and adapter.init zero"
    if run.learner == "decoder" and run.adapter.bias != "none":
        yield f"pretraining teaches a decoder's LoRA alone, but adapter.bias is {run.adapter.bias}; set it to none"


def _check_optimizer(run: RunSettings) -> Iterator[str]:
    optimizer = run.optimizer
    if optimizer.state_precision == "8bit" and optimizer.embedding_updates == "lazy":
        yield (
            "optimizer.embedding_updates lazy keeps its state in float32; with optimizer.state_precision 8bit use auto "
            "or every_step"
        )
    if optimizer.warmup_steps and optimizer.warmup_fraction:
        yield (
            f"optimizer.warmup_steps is {optimizer.warmup_steps} and optimizer.warmup_fraction is "
            f"{optimizer.warmup_fraction}; set one of them to 0"
        )


def _check_adversarial(run: RunSettings) -> Iterator[str]:
    adversarial, epochs = run.adversarial, run.training.epochs
    for name in {"fgm": ("epsilon",), "awp": ("epsilon", "awp_lr")}.get(adversarial.name, ()):
        if not getattr(adversarial, name) > 0:
            yield f"adversarial.{name} is {getattr(adversarial, name)}; {adversarial.name} expects more than 0"
    if not 1 <= adversarial.start_epoch <= epochs:
        yield f"adversarial.start_epoch is {adversarial.start_epoch}; expected 1 to training.epochs, {epochs}"


def _check_loss(run: RunSettings) -> Iterator[str]:
    loss = run.loss
    if loss.name not in LOSSES:
        return  # the name itself is refused already
    for name in _changed(loss):
        readers = [other for other, entry in LOSSES.items() if name in entry.reads]
        if readers and loss.name not in readers:
            yield f"loss.{name} is set, but loss.name is {loss.name}; {only_read_by(readers)}"
    if "pos_weight_cap" in _changed(loss) and not loss.pos_weight_power:
        yield "loss.pos_weight_cap is set, but loss.pos_weight_power is 0, so all weights are 1; remove it"
    file = loss.soft_targets
    if file and not LOSSES[loss.name].soft_targets:
        able = ", ".join(name for name, entry in LOSSES.items() if entry.soft_targets)
        yield f"loss.soft_targets is set, but loss.name {loss.name} takes no fractions; these do: {able}"
    if file and (Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file):
        yield f"loss.soft_targets is {file[:80]!r}; expected the name of a file inside data/<competition>/"
    if loss.soft_targets_sha256 and not file:
        yield "loss.soft_targets_sha256 is set, but loss.soft_targets names no file"


def _check_texts(run: RunSettings) -> Iterator[str]:
    cleaning, augmentation = run.cleaning, run.augmentation
    if cleaning.placeholder_tokens and not cleaning.placeholders:
        yield "cleaning.placeholder_tokens is set, but no placeholder is written; set urls, users or hashtags"
    if cleaning.placeholder_tokens and "model" not in LEARNERS[run.learner].reads:
        yield f"cleaning.placeholder_tokens is set, but learner {run.learner} has no tokenizer to add them to"
    if cleaning.placeholder_tokens and run.learner in ("decoder", "generator"):
        yield f"cleaning.placeholder_tokens is set, but a {run.learner}'s base is frozen: new tokens would stay random"
    ways = ("oversample_rarer_than", "oversample_k_rarest", "oversample_labels")
    chosen = [name for name in ways if getattr(augmentation, name)]
    if augmentation.oversample_factor and len(chosen) != 1:
        yield (
            f"augmentation.oversample_factor is {augmentation.oversample_factor}; say which labels are rare by one of "
            f"{', '.join(f'augmentation.{name}' for name in ways)}"
        )
    if chosen and not augmentation.oversample_factor:
        yield f"augmentation.{chosen[0]} is set, but augmentation.oversample_factor is 0, so nothing is added"


PLACEHOLDER = re.compile(r"\{\w+\}")


def _check_prompt(run: RunSettings) -> Iterator[str]:
    prompt = run.prompt
    if prompt.template.count("{text}") != 1:
        yield f"prompt.template has {{text}} {prompt.template.count('{text}')} times; expected once"
    unknown = set(PLACEHOLDER.findall(prompt.template)) - {"{text}", "{labels}"}
    unknown |= set(PLACEHOLDER.findall(prompt.system)) - {"{labels}"}
    if unknown:
        yield f"prompt has {', '.join(sorted(unknown))}; only {{text}} (in the template) and {{labels}} are known"


def _check_answer(run: RunSettings) -> Iterator[str]:
    answer = run.answer
    for name in ("separator", "none", "yes", "no"):
        if not getattr(answer, name).strip(" "):
            yield f"answer.{name} is {getattr(answer, name)!r}; expected text other than spaces"
    if answer.question.count("{label}") != 1:
        yield f"answer.question is {answer.question!r}; expected {{label}} in it, once"
    if answer.yes == answer.no:
        yield f"answer.yes and answer.no are both {answer.yes!r}; expected two different words"


def _check_adapter(run: RunSettings) -> Iterator[str]:
    adapter = run.adapter
    if not adapter.targets or ("all-linear" in adapter.targets and len(adapter.targets) > 1):
        yield f"adapter.targets is {list(adapter.targets)}; expected names of layers, or all-linear alone"
    if adapter.quantization == "nf4" and adapter.init == "pissa":
        yield "adapter.init pissa splits the weights themselves, which nf4 holds in 4 bits; use one of the two"
    if adapter.quantization == "nf4" and adapter.bias != "none":
        yield (
            f"adapter.bias is {adapter.bias}, but 4-bit layers hold their biases in 16 bits, too coarse to train; "
            "set adapter.bias none or adapter.quantization none"
        )
    if adapter.kind == "prefix_tuning" and run.training.gradient_checkpointing is True:
        yield "training.gradient_checkpointing recomputes states without adapter.kind prefix_tuning's; use one of them"


def _check_training(run: RunSettings) -> Iterator[str]:
    training, tfidf = run.training, run.tfidf
    if training.selection == "average_last" and training.average_last_epochs > training.epochs:
        yield f"training.average_last_epochs is {training.average_last_epochs}, training.epochs is {training.epochs}"
    if tfidf.word_ngrams == (0, 0) and tfidf.char_ngrams == (0, 0):
        yield "tfidf.word_ngrams and tfidf.char_ngrams are both off"
    for name in ("word_ngrams", "char_ngrams"):
        shortest, longest = getattr(tfidf, name)
        if (shortest, longest) != (0, 0) and not 1 <= shortest <= longest:
            yield f"tfidf.{name} is [{shortest}, {longest}]; expected shortest <= longest, from 1, or [0, 0]"


def _check_sources(run: RunSettings) -> Iterator[str]:
    takes_steps = "training" in LEARNERS[run.learner].reads
    yield from check_sources(run.extra_rows, run.distillation, run.training.epochs, takes_steps)
    more = [*(["extra_rows"] if run.extra_rows else []), *(["distillation"] if run.distillation.file else [])]
    if run.extra_rows and run.use_features:
        yield "use_features is on, but extra_rows have texts alone; remove one of the two"
    if run.extra_rows and run.training.leave_out:
        yield "training.leave_out is set, but extra_rows may bring the same rows back; remove one of the two"
    if more and run.loss.soft_targets:
        yield f"loss.soft_targets and {more[0]} both say what rows teach; use one of the two"
    if run.loss.name in LOSSES and not LOSSES[run.loss.name].soft_targets and run.distillation.file:
        able = ", ".join(name for name, entry in LOSSES.items() if entry.soft_targets)
        yield f"distillation.file is set, but loss.name {run.loss.name} takes no fractions; these do: {able}"
    if run.learner == "generator" and run.answer.form == "list" and run.distillation.file:
        yield "distillation.file is set, but answer.form list learns whole lists; use answer.form yes_no"


def _check_decoder(run: RunSettings) -> Iterator[str]:
    if run.learner != "decoder":
        return
    if run.model.pooling in ("cls", "pooler", "concat_last"):
        yield (
            f"model.pooling is {run.model.pooling}, which a decoder does not have; use last, mean, max, attention or "
            "label_attention"
        )
    if run.optimizer.layer_decay != 1 and run.adapter.kind in ("prefix_tuning", "prompt_tuning"):
        yield (
            f"optimizer.layer_decay is {run.optimizer.layer_decay}; what adapter.kind {run.adapter.kind} learns "
            "belongs to no layer; set it to 1"
        )


_NO_HEAD = {
    "model": ("pooling", "concat_layers", "concat_states", "head", "head_dropout", "dropout_samples"),
    "optimizer": ("head_lr",),
}
"""Settings of a head, which a generator does not have."""


def _check_generator(run: RunSettings) -> Iterator[str]:
    if run.learner != "generator":
        return
    if run.adapter.kind in ("prefix_tuning", "prompt_tuning"):
        yield f"adapter.kind is {run.adapter.kind}; a generator is trained by lora or none"
    if run.answer.form == "list":
        for name in _changed(run.loss):
            yield (
                f"loss.{name} is set, but answer.form list is trained by its text's likelihood; use answer.form yes_no"
            )
    elif not run.loss.bias_from_prior:
        yield "loss.bias_from_prior is set, but a generator has no head"
    for group, names in _NO_HEAD.items():
        for name in sorted(set(_changed(getattr(run, group))) & set(names)):
            yield f"{group}.{name} is set, but a generator has no head"


def _changed(group: Any) -> list[str]:
    """Names of the settings of a group that are not at their default."""
    return [each.name for each in fields(group) if getattr(group, each.name) != each.default]


CHECKS = (
    *(_check_model, _check_start, _check_pretraining, _check_optimizer, _check_adversarial, _check_loss, _check_texts),
    *(_check_prompt, _check_answer, _check_adapter, _check_training, _check_sources, _check_decoder, _check_generator),
)
