"""How a generator writes a row's labels down, and how its answers are weighed."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal


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
    histories: int = 2
    """Most probable lists so far that are followed up for each label they may end with; more cost time."""
    question: str = "{label}:"
    """How `yes_no` asks for a label."""
    yes: str = "yes"
    """Answer where the row has the label."""
    no: str = "no"
    """Answer where it has not."""


READ_BY_FORM = {"list": {"separator", "none", "histories"}, "yes_no": {"question", "yes", "no"}}
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
    if answer.histories < 1:
        yield f"answer.histories is {answer.histories}; expected 1 or more"


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
