"""How one model learns: one YAML in configs/runs/, one frozen dataclass. Units stand in the names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from foldblend.errors import UserError

# ---------- Which pretrained model a run starts from, and the head that reads labels off it.


@dataclass(frozen=True)
class ModelSettings:
    """The pretrained model, how a text becomes its input, and the head."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub name or a folder with config.json, safetensors weights and a tokenizer."""
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    max_length_tokens: int = 128
    """Longer texts are cut: at their end, or in their middle where `tail_fraction` says so."""
    tail_fraction: float = 0.0
    """Of a text that is cut, the share of the kept tokens that comes from its end; 0 keeps the beginning alone."""
    pooling: Literal["mean", "cls", "last", "max", "attention", "label_attention", "pooler", "concat_last"] = "mean"
    """How token states become one vector: `last` is the last token's, `attention` weighs them by a learned score,
    `label_attention` by one for each label, which reads a vector of its own, `pooler` is the pretrained dense layer
    over the first token, `concat_last` lays the last `concat_layers` layers side by side."""
    concat_layers: int = 4
    """Layers of `concat_last`."""
    concat_states: Literal["cls", "mean"] = "cls"
    """What `concat_last` takes of each layer."""
    head: Literal["linear", "mlp"] = "linear"
    """`mlp`: dense layer of the encoder's width and ReLU before the last layer."""
    head_init: Literal["random", "label_names"] = "random"
    """`label_names`: the last layer starts from the encoder's own vectors of the labels' names; an encoder that was
    trained on sentences knows rare labels by them."""
    label_text: str = "This text expresses {label}."
    """What the encoder reads of a label with `label_names`; underscores in a name become spaces."""
    head_dropout: float = 0.1
    """Dropout before the head's last layer."""
    dropout_samples: int = 1
    """Draws of that dropout, whose logits are averaged; the encoder runs once."""
    pad_token: str = ""
    """What fills short rows, where a decoder's tokenizer names no token for it; empty takes its end-of-text."""


def model_conflicts(model: ModelSettings) -> Iterator[str]:
    """Every value that cannot work, as sentences."""
    for name, least in (("max_length_tokens", 4), ("concat_layers", 1), ("dropout_samples", 1)):
        if getattr(model, name) < least:
            yield f"model.{name} is {getattr(model, name)}; expected {least} or more"
    for name in ("head_dropout", "tail_fraction"):
        if not 0 <= getattr(model, name) < 1:
            yield f"model.{name} is {getattr(model, name)}; expected 0 up to, but not, 1"
    if model.dropout_samples > 1 and not model.head_dropout:
        yield f"model.dropout_samples is {model.dropout_samples}, but model.head_dropout is 0: all samples are alike"
    plain = ModelSettings()
    if model.label_text.count("{label}") != 1:
        yield f"model.label_text is {model.label_text!r}; expected {{label}} in it, once"
    if model.head_init != "label_names" and model.label_text != plain.label_text:
        yield f"model.label_text is set, but model.head_init is {model.head_init}; label_names alone reads it"
    if model.head_init == "label_names" and model.head == "mlp":
        yield (
            "model.head_init is label_names, but model.head is mlp, whose fresh dense layer stands between; "
            "set model.head_init to random"
        )
    for name in ("concat_layers", "concat_states"):
        if model.pooling != "concat_last" and getattr(model, name) != getattr(plain, name):
            yield f"model.{name} is set, but model.pooling is {model.pooling}; concat_last alone reads it"


def reader_conflicts(learner: str, model: ModelSettings) -> Iterator[str]:
    """What a learner that has no use for it was told, as sentences."""
    if model.head_init != "random" and learner != "encoder":
        yield f"model.head_init is {model.head_init}, but learner is {learner}; an encoder alone starts so"
    if model.pad_token and learner != "decoder":
        yield f"model.pad_token is set, but learner is {learner}, which does not read it"


# ---------- How weights are moved: AdamW, its schedule, and steps taken against an adversary.


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule."""

    lr: float = 5e-5
    """Peak learning rate of the encoder."""
    head_lr: float = 5e-4
    """Peak learning rate of the fresh head."""
    layer_decay: float = 1.0
    """Each layer learns at this share of the rate of the layer above it, the embeddings slowest; 1 is off."""
    weight_decay: float = 0.01
    """On matrices; biases and norms have none."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.999
    """AdamW's second moment."""
    eps: float = 1e-8
    """AdamW's denominator."""
    state_precision: Literal["float32", "8bit"] = "float32"
    """How AdamW keeps its two moments: `8bit` takes a quarter of their memory (bitsandbytes; not under FSDP2 or ZeRO-3,
    embeddings stay in float32), for models whose 12 bytes a trained weight would not fit."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 is off."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after the warm-up."""
    warmup_fraction: float = 0.1
    """Share of all optimiser steps in which the rate climbs from 0."""
    warmup_steps: int = 0
    """The same as a number of steps; 0 leaves it to warmup_fraction, which must be 0 where this is not."""
    embedding_updates: Literal["auto", "every_step", "lazy"] = "auto"
    """`lazy`: a word's embedding is moved when a text next reads it, by what all steps since would have moved it:
    the same result in less time. `auto`: so on one CPU process where the table is a large part of the model."""


@dataclass(frozen=True)
class AdversarialSettings:
    """Each step is taken again where the loss is worse: on weights moved a little along its gradient."""

    name: Literal["none", "fgm", "awp"] = "none"
    """`fgm` moves the word embeddings and adds that gradient; `awp` moves every matrix and uses that gradient alone."""
    epsilon: float = 0.0
    """fgm: length of the move, 1.0 is usual.   awp: no weight leaves this share of its size, 0.01 is usual."""
    awp_lr: float = 0.0
    """awp: length of the move as a share of the matrix's own norm; 0.0001 to 1.0 is usual."""
    start_epoch: int = 1
    """The first epoch, counted from 1, with an adversary."""


def optimizer_conflicts(optimizer: OptimizerSettings) -> Iterator[str]:
    """Every value that cannot work, as sentences."""
    for name in ("lr", "head_lr", "eps"):
        if not getattr(optimizer, name) > 0:
            yield f"optimizer.{name} is {getattr(optimizer, name)}; expected more than 0"
    for name in ("weight_decay", "max_grad_norm", "warmup_steps"):
        if not getattr(optimizer, name) >= 0:
            yield f"optimizer.{name} is {getattr(optimizer, name)}; expected 0 or more"
    for name in ("beta1", "beta2", "warmup_fraction"):
        if not 0 <= getattr(optimizer, name) < 1:
            yield f"optimizer.{name} is {getattr(optimizer, name)}; expected 0 up to, but not, 1"
    if not 0 < optimizer.layer_decay <= 1:
        yield f"optimizer.layer_decay is {optimizer.layer_decay}; expected more than 0, at most 1"
    if optimizer.state_precision == "8bit" and optimizer.embedding_updates == "lazy":
        yield (
            "optimizer.embedding_updates lazy keeps moments of its own; with optimizer.state_precision 8bit use auto "
            "or every_step"
        )
    if optimizer.warmup_steps and optimizer.warmup_fraction:
        yield (
            f"optimizer.warmup_steps is {optimizer.warmup_steps} and optimizer.warmup_fraction is "
            f"{optimizer.warmup_fraction}; set one of them to 0"
        )


def adversarial_conflicts(adversarial: AdversarialSettings, epochs: int) -> Iterator[str]:
    """Every value that cannot work or that the chosen adversary does not read, as sentences."""
    read = {"none": (), "fgm": ("epsilon",), "awp": ("epsilon", "awp_lr")}[adversarial.name]
    for name in ("epsilon", "awp_lr"):
        value = getattr(adversarial, name)
        if name in read and not value > 0:
            yield f"adversarial.{name} is {value}; {adversarial.name} expects more than 0"
        if name not in read and value:
            yield f"adversarial.{name} is set, but adversarial.name is {adversarial.name}, which does not read it"
    if adversarial.name == "none" and adversarial.start_epoch != 1:
        yield "adversarial.start_epoch is set, but adversarial.name is none, which does not read it"
    if not 1 <= adversarial.start_epoch <= epochs:
        yield f"adversarial.start_epoch is {adversarial.start_epoch}; expected 1 to training.epochs, {epochs}"


# ---------- What a run minimises, and which of its values contradict each other.


@dataclass(frozen=True)
class LossSettings:
    """What is minimised. A setting of a loss that is not the run's is refused: it would do nothing."""

    name: Literal[
        "auto", "bce", "cross_entropy", "focal", "asymmetric", "distribution_balanced", "soft_macro_f1", "zlpr"
    ] = "auto"
    """`auto`: bce for multilabel, cross_entropy for multiclass. focal is for both, all others for multilabel.
    soft_macro_f1 is that of each micro-batch, so training.micro_batch_size and the number of devices change it."""
    label_smoothing: float = 0.0
    """Share of a target that goes to 0.5 (multilabel) or evenly to all labels (multiclass)."""
    focal_gamma: float = 2.0
    """Power of the error that weighs a row; 0 is plain cross-entropy."""
    asymmetric_gamma_positive: float = 0.0
    """As focal_gamma, for positives alone."""
    asymmetric_gamma_negative: float = 4.0
    """As focal_gamma, for negatives alone."""
    asymmetric_shift: float = 0.05
    """Negatives with a probability below this count nothing."""
    balanced_alpha: float = 0.1
    """Least weight of a label's term in the distribution-balanced loss."""
    balanced_beta: float = 10.0
    """Steepness of its weights."""
    balanced_mu: float = 0.3
    """Centre of its weights, as a share of what a row's labels ask for together."""
    balanced_lambda: float = 2.0
    """How much faster than positives a denied label stops learning."""
    balanced_kappa: float = 0.05
    """Share of a label's log-odds by which its logits are moved."""
    f1_smoothing: float = 1.0
    """Added to both sides of soft macro-F1's fraction; 0 leaves labels that a micro-batch does not hold untaught."""
    pos_weight_power: float = 0.0
    """Weight of a positive = (negatives / positives) ** power, from the fold's training rows; 0 weighs all alike."""
    pos_weight_cap: float = 20.0
    """The largest such weight."""
    r_drop_alpha: float = 0.0
    """Run each text through dropout twice and add this much of what the two answers disagree; half the alpha of the
    R-Drop paper does what that did. 0 is off."""
    bias_from_prior: bool = True
    """Start the head's bias at the labels' log-odds in the fold's training rows."""
    soft_targets: str = ""
    """A CSV in data/<competition>/: an id column, then for each label a column of numbers from 0 to 1. Every training
    row stands in it and teaches these in the place of 0 and 1; folds, scores and class weights keep train.csv's."""
    soft_targets_sha256: str = ""
    """Of that file; read from it when a training starts. Where it is stated, another file is refused."""


PREFIX_OF = {
    "focal": "focal_",
    "asymmetric": "asymmetric_",
    "distribution_balanced": "balanced_",
    "soft_macro_f1": "f1_",
}
"""How the settings that one loss alone reads begin."""
WEIGHTED = ("auto", "bce", "cross_entropy", "focal")
"""Losses that read pos_weight_power and label_smoothing."""
TAKES_FRACTIONS = (*WEIGHTED, "asymmetric")
"""Losses that know what a target between 0 and 1 is."""

NOT_NEGATIVE = (
    "pos_weight_power",
    "focal_gamma",
    "asymmetric_gamma_positive",
    "asymmetric_gamma_negative",
    "balanced_alpha",
    "balanced_kappa",
    "f1_smoothing",
    "r_drop_alpha",
)


def loss_conflicts(loss: LossSettings) -> Iterator[str]:
    """Every value that cannot work or that the chosen loss does not read, as sentences."""
    if not loss.pos_weight_cap > 0:
        yield f"loss.pos_weight_cap is {loss.pos_weight_cap}; expected more than 0"
    for name in ("label_smoothing", "asymmetric_shift"):
        if not 0 <= getattr(loss, name) < 1:
            yield f"loss.{name} is {getattr(loss, name)}; expected 0 up to, but not, 1"
    for name in NOT_NEGATIVE:
        if not getattr(loss, name) >= 0:
            yield f"loss.{name} is {getattr(loss, name)}; expected 0 or more"
    for name in ("balanced_beta", "balanced_lambda"):
        if not getattr(loss, name) > 0:
            yield f"loss.{name} is {getattr(loss, name)}; expected more than 0"
    if loss.pos_weight_cap != LossSettings.pos_weight_cap and not loss.pos_weight_power:
        yield "loss.pos_weight_cap is set, but loss.pos_weight_power is 0, so all weights are 1; take it out"
    yield from _soft_conflicts(loss)
    changed = [field.name for field in fields(loss) if getattr(loss, field.name) != field.default]
    for name in changed:
        owners = [owner for owner, prefix in PREFIX_OF.items() if name.startswith(prefix)]
        owners += WEIGHTED if name in ("pos_weight_power", "pos_weight_cap", "label_smoothing") else ()
        if owners and loss.name not in owners:
            readers = " or ".join(owners)
            yield f"loss.{name} is set, but loss.name {loss.name} does not read it; take it out, or choose {readers}"


def _soft_conflicts(loss: LossSettings) -> Iterator[str]:
    name = loss.soft_targets
    if name and loss.name not in TAKES_FRACTIONS:
        yield f"loss.soft_targets is set, but loss.name {loss.name} takes no fractions; {', '.join(TAKES_FRACTIONS)} do"
    if name and (Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name):
        yield f"loss.soft_targets is {name[:80]!r}; expected the name of a file inside data/<competition>/"
    if loss.soft_targets_sha256 and not name:
        yield "loss.soft_targets_sha256 is set, but loss.soft_targets names no file"


# ---------- What is done to a text before a learner sees it.


@dataclass(frozen=True)
class CleaningSettings:
    """Parts of a text that become placeholders or words, for training and test rows alike; all off by default."""

    urls: bool = False
    """A link (http or https) becomes `<URL>`."""
    users: bool = False
    """A mention `@name` becomes `<USER>`."""
    hashtags: bool = False
    """`#tag` becomes `<HASHTAG> tag`."""
    emoji_language: Literal["", "ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"] = ""
    """An emoji becomes its name in this language; empty leaves it."""
    placeholder_tokens: bool = False
    """Add the placeholders to the tokenizer: each is one token with an embedding of its own, not `<`, `URL`, `>`."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """What this cleaning writes in place of something."""
        written = {"<URL>": self.urls, "<USER>": self.users, "<HASHTAG>": self.hashtags}
        return tuple(placeholder for placeholder, on in written.items() if on)


def cleaning_conflicts(cleaning: CleaningSettings, has_tokenizer: bool) -> Iterator[str]:
    """Every value that cannot work, as sentences. `has_tokenizer`: whether the learner reads token ids."""
    if cleaning.placeholder_tokens and not cleaning.placeholders:
        yield "cleaning.placeholder_tokens is set, but cleaning writes none; set urls, users or hashtags"
    if cleaning.placeholder_tokens and not has_tokenizer:
        yield "cleaning.placeholder_tokens is set, but this learner has no vocabulary of tokens to add them to"


# ---------- What makes more of a fold's training rows, of rare labels above all.


@dataclass(frozen=True)
class AugmentationSettings:
    """Made of a fold's training rows alone, after the folds are drawn; all off by default."""

    oversample_factor: float = 0.0
    """Copies appended, drawn with replacement, as a multiple of the rows that carry a rare label."""
    oversample_rarer_than: float = 0.0
    """A label is rare whose share of the training rows is below this, if there is one; or name a number by
    oversample_k_rarest."""
    oversample_k_rarest: int = 0
    """The k labels with the fewest rows are rare."""
    oversample_labels: tuple[str, ...] = ()
    """These labels take the place of rare ones, such as those that a first run was worst at."""
    mix_probability: float = 0.0
    """Chance that a text is joined with another one's, within model.max_length_tokens; the row then has the labels of
    both. Multilabel only."""
    token_dropout: float = 0.0
    """Chance of each token of a text to be masked, or left out where the tokenizer has no mask token."""


def augmentation_conflicts(augmentation: AugmentationSettings) -> Iterator[str]:
    """Every value that cannot work, as sentences."""
    ways = ("oversample_rarer_than", "oversample_k_rarest", "oversample_labels")
    chosen = [name for name in ways if getattr(augmentation, name)]
    if augmentation.oversample_factor and len(chosen) != 1:
        yield (
            f"augmentation.oversample_factor is {augmentation.oversample_factor}; say which labels are rare by one of "
            f"{', '.join(f'augmentation.{name}' for name in ways)}"
        )
    if chosen and not augmentation.oversample_factor:
        yield f"augmentation.{chosen[0]} is set, but augmentation.oversample_factor is 0, so nothing is drawn"
    for name in ("oversample_factor", "oversample_k_rarest"):
        if not getattr(augmentation, name) >= 0:
            yield f"augmentation.{name} is {getattr(augmentation, name)}; expected 0 or more"
    if not 0 <= augmentation.mix_probability <= 1:
        yield f"augmentation.mix_probability is {augmentation.mix_probability}; expected 0 to 1"
    for name in ("oversample_rarer_than", "token_dropout"):
        if not 0 <= getattr(augmentation, name) < 1:
            yield f"augmentation.{name} is {getattr(augmentation, name)}; expected 0 up to, but not, 1"


# ---------- How a causal language model is asked: the words around a text, and whether they stand in a chat.


PLACEHOLDER = re.compile(r"\{\w+\}")


@dataclass(frozen=True)
class PromptSettings:
    """The words around a text; a text too long for model.max_length_tokens is cut, never the words around it."""

    form: Literal["plain", "chat"] = "plain"
    """`chat`: the template is the user's message in the tokenizer's own chat template."""
    template: str = "{text}"
    """`{text}` stands for the text, `{labels}` for the names of all labels. In `plain`, special tokens by name work."""
    system: str = ""
    """System message of `chat`, where `{labels}` works too; empty is none."""


def prompt_conflicts(prompt: PromptSettings) -> Iterator[str]:
    """Every value that cannot work, as sentences."""
    if prompt.template.count("{text}") != 1:
        yield f"prompt.template holds {{text}} {prompt.template.count('{text}')} times; expected once"
    unknown = set(PLACEHOLDER.findall(prompt.template)) - {"{text}", "{labels}"}
    unknown |= set(PLACEHOLDER.findall(prompt.system)) - {"{labels}"}
    if unknown:
        yield f"prompt holds {', '.join(sorted(unknown))}; {{text}} (in the template) and {{labels}} are known"
    if prompt.system and prompt.form == "plain":
        yield "prompt.system is set, but prompt.form is plain, which has no system message"


# ---------- How a generator writes a row's labels down, and how its answers are weighed.


@dataclass(frozen=True)
class AnswerSettings:
    """The text that a causal language model answers with; nothing outside these forms can be answered."""

    form: Literal["list", "yes_no"] = "list"
    """`list`: a row's labels in submission order, trained by that text's likelihood. `yes_no`: every label is asked by
    itself, none sees another's answer, trained by the run's loss on the odds of yes against no."""
    separator: str = ", "
    """Stands between the labels of a list."""
    none: str = "none"
    """The list of a row without labels."""
    beam_size: int = 2
    """Most probable lists so far that are followed up for each label they may end with; more cost time."""
    question: str = "{label}:"
    """How `yes_no` asks for a label."""
    yes: str = "yes"
    """Answer where the row has the label."""
    no: str = "no"
    """Answer where it has not."""


READ_BY_FORM = {"list": {"separator", "none", "beam_size"}, "yes_no": {"question", "yes", "no"}}
HEAD_SETTINGS = {
    "model": ("pooling", "concat_layers", "concat_states", "head", "head_dropout", "dropout_samples"),
    "optimizer": ("head_lr",),
}


def answer_conflicts(answer: AnswerSettings) -> Iterator[str]:
    """Every value that cannot work or that the chosen form does not read, as sentences."""
    plain = AnswerSettings()
    for form, names in READ_BY_FORM.items():
        for name in sorted(names):
            if form != answer.form and getattr(answer, name) != getattr(plain, name):
                yield f"answer.{name} is set, but answer.form is {answer.form}, which does not read it"
    for name in ("separator", "none", "yes", "no"):
        if not getattr(answer, name).strip(" "):
            yield f"answer.{name} is {getattr(answer, name)!r}; expected something to be written"
    if answer.question.count("{label}") != 1:
        yield f"answer.question is {answer.question!r}; expected {{label}} in it, once"
    if answer.yes == answer.no:
        yield f"answer.yes and answer.no are both {answer.yes!r}"
    if answer.beam_size < 1:
        yield f"answer.beam_size is {answer.beam_size}; expected 1 or more"


def generator_conflicts(run) -> Iterator[str]:
    """What of a generator's run cannot work or would not be read, as sentences. `run`: RunSettings."""
    if run.adapter.kind in ("prefix_tuning", "prompt_tuning"):
        yield f"adapter.kind is {run.adapter.kind}; a generator is trained by lora or none"
    if run.cleaning.placeholder_tokens:
        yield "cleaning.placeholder_tokens is set; a generator's base is frozen, and new tokens would stay untaught"
    if run.answer.form == "list":
        plain = type(run.loss)()
        for field in fields(run.loss):
            if getattr(run.loss, field.name) != getattr(plain, field.name):
                yield (
                    f"loss.{field.name} is set, but answer.form list is trained by its text's likelihood; "
                    "use answer.form yes_no"
                )
    elif not run.loss.bias_from_prior:
        yield "loss.bias_from_prior is set, but a generator has no head"
    for group, names in HEAD_SETTINGS.items():
        given, plain = getattr(run, group), type(getattr(run, group))()
        for name in names:
            if getattr(given, name) != getattr(plain, name):
                yield f"{group}.{name} is set, but a generator has no head"


# ---------- What of a decoder is trained beside its head, and in which form its frozen weights are held.


READ_BY_KIND = {
    "lora": {"rank", "alpha", "dropout", "targets", "bias", "rslora", "dora", "init", "quantization"},
    "prefix_tuning": {"virtual_tokens", "quantization"},
    "prompt_tuning": {"virtual_tokens", "quantization"},
    "none": set(),
}


@dataclass(frozen=True)
class AdapterSettings:
    """Small trained parts on a frozen base model; `kind: none` trains the base itself, in float32."""

    kind: Literal["lora", "prefix_tuning", "prompt_tuning", "none"] = "lora"
    """`prefix_tuning` learns keys and values that all layers attend to, `prompt_tuning` embeddings before the text."""
    rank: int = 16
    """Rank of LoRA's update of a matrix."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, which keeps high ranks learning."""
    dora: bool = False
    """Learn the length of each weight row apart from its direction."""
    init: Literal["zero", "pissa"] = "zero"
    """`zero` starts from no change, `pissa` from each matrix's strongest singular directions, freezing the rest."""
    dropout: float = 0.05
    """Dropout before LoRA's update."""
    targets: tuple[str, ...] = ("all-linear",)
    """Last parts of the names of adapted layers, such as q_proj; `all-linear` is every linear layer."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases of the base that are trained too: all of them, or those of adapted layers."""
    virtual_tokens: int = 20
    """Learned positions of prefix and prompt tuning."""
    quantization: Literal["none", "nf4"] = "none"
    """`nf4` holds the frozen base in 4 bits, its scales quantised again: a fourth of the memory, somewhat slower."""


def decoder_conflicts(run) -> Iterator[str]:
    """What of a decoder's run cannot work, as sentences. `run`: RunSettings."""
    if run.model.pooling in ("cls", "pooler", "concat_last"):
        yield (
            f"model.pooling is {run.model.pooling}; a decoder's states are pooled by last, mean, max, attention or "
            "label_attention"
        )
    if run.optimizer.layer_decay != 1 and run.adapter.kind in ("prefix_tuning", "prompt_tuning"):
        yield (
            f"optimizer.layer_decay is {run.optimizer.layer_decay}; what adapter.kind {run.adapter.kind} learns "
            "belongs to no layer; set it to 1"
        )
    if run.cleaning.placeholder_tokens:
        yield "cleaning.placeholder_tokens is set; a decoder's base is frozen, and new tokens would stay untaught"


def adapter_conflicts(adapter: AdapterSettings, gradient_checkpointing: bool) -> Iterator[str]:
    """Every value that cannot work or that the chosen kind does not read, as sentences."""
    plain = AdapterSettings()
    for name in sorted(set().union(*READ_BY_KIND.values()) - READ_BY_KIND[adapter.kind]):
        if getattr(adapter, name) != getattr(plain, name):
            yield f"adapter.{name} is set, but adapter.kind is {adapter.kind}, which does not read it"
    for name in ("rank", "virtual_tokens"):
        if getattr(adapter, name) < 1:
            yield f"adapter.{name} is {getattr(adapter, name)}; expected 1 or more"
    if not adapter.alpha > 0:
        yield f"adapter.alpha is {adapter.alpha}; expected more than 0"
    if not 0 <= adapter.dropout < 1:
        yield f"adapter.dropout is {adapter.dropout}; expected 0 up to, but not, 1"
    if not adapter.targets or ("all-linear" in adapter.targets and len(adapter.targets) > 1):
        yield f"adapter.targets is {list(adapter.targets)}; expected names of layers, or all-linear alone"
    if adapter.quantization == "nf4" and adapter.init == "pissa":
        yield "adapter.init pissa splits the weights themselves, which nf4 holds in 4 bits; use one of the two"
    if adapter.quantization == "nf4" and adapter.bias != "none":
        yield (
            f"adapter.bias is {adapter.bias}, but 4-bit layers hold their biases in 16 bits, too coarse to train; "
            "set adapter.bias none or adapter.quantization none"
        )
    if adapter.kind == "prefix_tuning" and gradient_checkpointing:
        yield "training.gradient_checkpointing computes states again without adapter.kind prefix_tuning's; use one"


# ---------- How one model learns: one YAML in configs/runs/, one frozen dataclass. Units stand in the names.


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
    loss_tolerance: float = 0.02
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
            raise UserError("; ".join(problems))


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
    if training.loss_tolerance < 0:
        yield f"training.loss_tolerance is {training.loss_tolerance}; expected 0 or more"
    for name, reader in (("loss_tolerance", "loss_and_score"), ("average_last_epochs", "average_last")):
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
