"""What neural learners read: the pretrained model and its head, the training, the loss, prompts and adapters.

Each group is a field of `RunSettings` (settings/run.py), which has the rules between them.
"""

from dataclasses import dataclass
from typing import Literal

from foldblend.settings.fields import setting
from foldblend.settings.tables import LOSSES

# ---------- The pretrained model and its head


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


# ---------- The training, the optimizer, adversarial training


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


# ---------- The loss


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


# ---------- Texts of training rows, prompts and answers


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


# ---------- Adapters of decoders and generators


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
