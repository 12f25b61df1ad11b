"""What a run learns from beside the competition's own rows and their labels: extra rows, a teacher's probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foldblend.settings.fields import setting

# ---------- Extra rows.


@dataclass(frozen=True)
class ExtraRows:
    """One source of rows that are learned beside the competition's own. No row teaches a fold whose held-out rows say
    the same."""

    file: str = ""
    """A file in data/<competition>/: a table (.csv, .tsv, .jsonl, .json, .parquet, .xlsx), or an .npz of src/teach.py.
    A column per label may hold probabilities; labels that the table does not have are unknown and teach nothing."""
    competition: str = ""
    """Another competition of configs/competitions/ instead of a file: its training rows."""
    labels: dict[str, str] = field(default_factory=dict)
    """A label of the source -> the label of this competition that it means, as `{annoyance: anger}`; several may mean
    one. Labels of ours that nothing means are unknown. Empty: labels of the same name mean each other."""
    layout: dict[str, Any] = field(default_factory=dict)
    """How the file is written if it is not written like the training file: the groups `text`, `labels` and `files` of a
    competition's YAML, as `{labels: {form: class, column: emotion}, text: {columns: [body]}}`."""
    weight: float = setting(1.0, more_than=0)
    """How much a row of this source counts; a row of the competition counts 1."""
    weight_column: str = ""
    """A column of the file with a number per row, by which `weight` is multiplied."""
    source_column: str = ""
    """A column of the file that says where a row comes from; rows are counted by it."""
    hard_labels: bool = False
    """Turn probabilities into 1 from 0.5 on and 0 below; if each row has one label, into the likeliest one."""
    share: float = setting(0.0, at_least=0, less_than=1)
    """The share of this source among the rows of an epoch, drawn anew for each; 0 takes all of its rows."""
    rows: int = setting(0, at_least=0)
    """At most so many rows are drawn for an epoch; 0 is no limit."""
    first_epochs: int = setting(0, at_least=0)
    """Learn these rows in the first so many epochs, then the competition's own rows alone; 0 is all epochs."""
    sha256: str = ""
    """sha256 of the source's rows, filled in when a training starts. If you set it, other rows are refused."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.file or f"competition {self.competition}"


@dataclass(frozen=True)
class DistillationSettings:
    """A teacher's probabilities of the competition's training rows, learned beside their labels."""

    file: str = ""
    """An .npz in data/<competition>/ with probabilities of training rows: `src/teach.py --from-blend --rows train`
    writes those of a blend, a set for each fold. Empty is off."""
    mix: float = setting(0.5, more_than=0, at_most=1)
    """The teacher's share; the labels have the rest. 1 learns from the teacher alone."""
    loss: Literal["auto", "bce", "kl"] = "auto"
    """`auto`: the run's own loss, with targets mixed from labels and probabilities. `bce`: binary cross-entropy to each
    probability. `kl`: the divergence between the teacher's distribution and the model's; over all labels if each row
    has one, otherwise of each label, whose gradient is that of `bce`. These two are for probabilities of extra rows,
    too."""
    temperature: float = setting(1.0, more_than=0)
    """With `bce` and `kl`: both sides' logits are divided by it, and this loss is multiplied by its square. Above 1
    small probabilities count more."""
    sha256: str = ""
    """sha256 of the file, filled in when a training starts. If you set it, another file is refused."""


def check_sources(
    extra_rows: Sequence[ExtraRows], distillation: DistillationSettings, epochs: int, takes_steps: bool
) -> Iterator[str]:
    """A sentence for each rule between settings that the sources of a run break.

    Args: epochs: of the run.   takes_steps: whether its learner takes steps in epochs; others learn all rows at once.
    """
    for number, each in enumerate(extra_rows):
        where = f"extra_rows[{number}]"
        if bool(each.file) == bool(each.competition):
            found = "both file and competition are set" if each.file else "neither file nor competition is set"
            yield f"{where}: {found}; expected one of them"
        yield from _check_file(f"{where}.file", each.file)
        if each.competition and (each.layout or each.weight_column or each.source_column):
            yield f"{where}: layout, weight_column and source_column are for a file; a competition's YAML says its own"
        if each.file.endswith(".npz") and (each.labels or each.layout or each.weight_column or each.source_column):
            yield f"{where}: labels, layout, weight_column and source_column are for tables; an .npz has our labels"
        for group in each.layout:
            if group not in ("text", "labels", "files"):
                yield f"{where}.layout has {group!r}; expected the groups text, labels and files"
        if each.share and each.rows:
            yield f"{where}: share and rows both say how many rows an epoch has; set one of them"
        if each.first_epochs and not takes_steps:
            yield f"{where}.first_epochs is set, but this learner has no epochs; remove it"
        elif each.first_epochs > epochs:
            yield f"{where}.first_epochs is {each.first_epochs}; expected at most training.epochs, {epochs}"
    total = sum(each.share for each in extra_rows)
    if total >= 1:
        yield f"the shares of extra_rows are {total:g} together; expected less than 1, as own rows have the rest"
    named = [each.name for each in extra_rows]
    if doubled := sorted({name for name in named if named.count(name) > 1}):
        yield f"extra_rows names {', '.join(doubled)} twice; name it once"
    yield from _check_distillation(extra_rows, distillation, takes_steps)


def _check_distillation(
    extra_rows: Sequence[ExtraRows], distillation: DistillationSettings, takes_steps: bool
) -> Iterator[str]:
    yield from _check_file("distillation.file", distillation.file)
    if distillation.temperature != 1 and distillation.loss == "auto":
        yield "distillation.temperature is set, but distillation.loss is auto; set it to bce or kl"
    if distillation.loss != "auto" and not takes_steps:
        yield f"distillation.loss is {distillation.loss}, which needs an encoder, decoder or generator; set it to auto"
    if distillation.loss != "auto" and not distillation.file and not extra_rows:
        yield f"distillation.loss is {distillation.loss}, but neither distillation.file nor extra_rows is set"
    if distillation.mix != DistillationSettings.mix and not distillation.file:
        yield "distillation.mix is set, but distillation.file names no file"
    if distillation.sha256 and not distillation.file:
        yield "distillation.sha256 is set, but distillation.file names no file"


def _check_file(name: str, file: str) -> Iterator[str]:
    if file and (Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file):
        yield f"{name} is {file[:80]!r}; expected the name of a file inside data/<competition>/"
    if name.startswith("distillation") and file and not file.endswith(".npz"):
        yield f"{name} is {file[:80]!r}; expected an .npz of src/teach.py"


# ---------- Pretraining on the competition's own texts.


@dataclass(frozen=True)
class PretrainingSettings:
    """Further pretraining on the texts of training and test rows, without their labels: once per competition and model,
    before the folds, which all start from it. An encoder guesses masked tokens, a decoder's LoRA the next token."""

    epochs: int = setting(0, at_least=0)
    """Passes over the texts; 0 is off. 3 to 10 are usual; more for few texts."""
    file: str = ""
    """A file in data/<competition>/ with more texts, written like the test file, or .jsonl; its labels are not read."""
    file_sha256: str = ""
    """sha256 of that file, filled in when a training starts. If you set it, another file is refused."""
    lr: float = setting(5e-5, more_than=0)
    """Peak learning rate, after a warm-up of 6 % of the steps; it falls to 0 in a line."""
    head_lr: float = setting(5e-4, more_than=0)
    """The same of an encoder's language-model head, if the pretrained files have none."""
    global_batch_size: int = setting(32, at_least=1)
    """Texts per optimizer step."""
    masked_share: float = setting(0.15, more_than=0, less_than=1)
    """Share of a text's tokens that an encoder has to guess."""

    @property
    def is_inside(self) -> bool:
        """Whether `file` names a file inside of its folder."""
        return not (Path(self.file).is_absolute() or ".." in Path(self.file).parts or "\0" in self.file)
