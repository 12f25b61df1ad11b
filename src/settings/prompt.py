"""How a causal language model is asked: the words around a text, and whether they stand in a chat."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
