"""How one model learns: one YAML in configs/runs/, one frozen dataclass.

A docstring under a field is what a user reads in `--help` and in docs/settings.md. A range is written in the field
itself (settings/fields.py checks it); rules that need two settings are the `_check_...` functions at the end.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from foldblend.errors import UserError
from foldblend.settings.fields import find_problems, only_read_by, setting
from foldblend.settings.nets import (
    AdapterSettings,
    AdversarialSettings,
    AnswerSettings,
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.sources import DistillationSettings, ExtraRows, PretrainingSettings, check_sources
from foldblend.settings.tables import LEARNERS, LOSSES, LearnerEntry

# ---------- Texts and linear models


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


# ---------- One run


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


# ---------- Learners from outside the package


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


# ---------- Rules between settings: each yields a sentence per rule that a run breaks


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
