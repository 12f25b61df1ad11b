"""What of a decoder is trained beside its head, and in which form its frozen weights are held."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

READ_BY_KIND = {
    "lora": {"rank", "alpha", "dropout", "targets", "bias", "rslora", "dora", "start", "quantization"},
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
    start: Literal["zero", "pissa"] = "zero"
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
    if adapter.quantization == "nf4" and adapter.start == "pissa":
        yield "adapter.start pissa splits the weights themselves, which nf4 holds in 4 bits; use one of the two"
    if adapter.quantization == "nf4" and adapter.bias != "none":
        yield (
            f"adapter.bias is {adapter.bias}, but 4-bit layers hold their biases in 16 bits, too coarse to train; "
            "set adapter.bias none or adapter.quantization none"
        )
    if adapter.kind == "prefix_tuning" and gradient_checkpointing:
        yield "training.gradient_checkpointing computes states again without adapter.kind prefix_tuning's; use one"
