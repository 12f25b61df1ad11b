"""Which pretrained model a run starts from, and the head that reads labels off it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelSettings:
    """The pretrained model, how a text becomes its input, and the head."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub name or a folder with config.json, safetensors weights and a tokenizer."""
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    max_length_tokens: int = 128
    """Longer texts are cut: at their end, or in their middle where `tail_share` says so."""
    tail_share: float = 0.0
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
    head_start: Literal["random", "label_names"] = "random"
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
    for name in ("head_dropout", "tail_share"):
        if not 0 <= getattr(model, name) < 1:
            yield f"model.{name} is {getattr(model, name)}; expected 0 up to, but not, 1"
    if model.dropout_samples > 1 and not model.head_dropout:
        yield f"model.dropout_samples is {model.dropout_samples}, but model.head_dropout is 0: all samples are alike"
    plain = ModelSettings()
    if model.label_text.count("{label}") != 1:
        yield f"model.label_text is {model.label_text!r}; expected {{label}} in it, once"
    if model.head_start != "label_names" and model.label_text != plain.label_text:
        yield f"model.label_text is set, but model.head_start is {model.head_start}; label_names alone reads it"
    if model.head_start == "label_names" and model.head == "mlp":
        yield (
            "model.head_start is label_names, but model.head is mlp, whose fresh dense layer stands between; "
            "set model.head_start to random"
        )
    for name in ("concat_layers", "concat_states"):
        if model.pooling != "concat_last" and getattr(model, name) != getattr(plain, name):
            yield f"model.{name} is set, but model.pooling is {model.pooling}; concat_last alone reads it"


def reader_conflicts(learner: str, model: ModelSettings) -> Iterator[str]:
    """What a learner that has no use for it was told, as sentences."""
    if model.head_start != "random" and learner != "encoder":
        yield f"model.head_start is {model.head_start}, but learner is {learner}; an encoder alone starts so"
    if model.pad_token and learner != "decoder":
        yield f"model.pad_token is set, but learner is {learner}, which does not read it"
