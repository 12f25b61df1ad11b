"""A pretrained encoder under a fresh head: token ids in, one logit a label out."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from learners.heads import LabelWiseLinear, Pooling, sample_dropout
from settings.run import ModelSettings


class TextClassifier(nn.Module):
    """Pools the encoder's states and reads the labels off the pooled vector."""

    def __init__(self, encoder: nn.Module, n_labels: int, settings: ModelSettings):
        super().__init__()
        hidden_size = encoder.config.hidden_size
        self.encoder, self.head_pooling = encoder, Pooling(hidden_size, n_labels, settings)
        width = self.head_pooling.width
        self.head_dense = None
        if settings.head == "mlp":
            self.head_dense = nn.Sequential(nn.Linear(width, hidden_size), nn.ReLU())
            width = hidden_size
        self.dropout, self.dropout_samples = nn.Dropout(settings.head_dropout), settings.dropout_samples
        last_layer = LabelWiseLinear if settings.pooling == "label_attention" else nn.Linear
        self.head = last_layer(width, n_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids, attention_mask: int64 (B, T). Returns float32 logits (B, L)."""
        return self.read_labels(self.encode(input_ids, attention_mask), attention_mask)

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):
        """What the encoder returns, with the states that the pooling reads."""
        wanted = {"output_hidden_states": True} if self.head_pooling.reads_all_layers else {}
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, **wanted)

    def read_labels(self, output, attention_mask: torch.Tensor) -> torch.Tensor:
        """Float32 logits (B, L) of what the encoder returned, computed in float32 whatever the encoder computes in.

        In bfloat16 a logit near 6 would stand on steps of 1/32: ties where rows are ranked and cut.
        """
        with torch.autocast(attention_mask.device.type, enabled=False):
            pooled = self.head_pooling(output, attention_mask)  # (B, width), or a vector a label
            if self.head_dense is not None:
                pooled = self.head_dense(pooled)
            return sample_dropout(self.head, self.dropout, pooled, self.dropout_samples)


def build_model(
    folder: str | Path, settings: ModelSettings, head_bias: np.ndarray | None, n_labels: int, seed: int
) -> TextClassifier:
    """The pretrained encoder in float32 with a fresh head drawn from `seed`; its bias is `head_bias` where given.

    Raises: ValueError: weights of the encoder are missing from the folder, so they would be random; or the encoder
            has not what the settings ask for (a pooler, that many layers).
    """
    torch.manual_seed(seed)
    encoder, info = AutoModel.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}; not the whole model")
    _check_fit(folder, encoder, settings, info["missing_keys"])
    model = _add_head(encoder, n_labels, settings)
    if head_bias is not None:
        model.head.bias.data.copy_(torch.from_numpy(head_bias))
    return model.train()  # from_pretrained hands the encoder over without dropout


def build_bare_model(folder: str | Path, settings: ModelSettings, n_labels: int) -> TextClassifier:
    """A model of that architecture whose numbers mean nothing yet; of the folder, config.json alone is read."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    return _add_head(encoder, n_labels, settings)


def _add_head(encoder: nn.Module, n_labels: int, settings: ModelSettings) -> TextClassifier:
    if settings.pooling != "pooler" and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # its output is not read; unused parameters would stall DDP
    return TextClassifier(encoder, n_labels, settings)


def _check_fit(folder, encoder, settings, missing_keys):
    """Raise ValueError where the settings ask for more than the encoder has."""
    if settings.pooling == "pooler":
        if getattr(encoder, "pooler", None) is None:
            raise ValueError(f"{folder}: {type(encoder).__name__} has no pooler; set model.pooling to cls or mean")
        if any("pooler" in key for key in missing_keys):
            raise ValueError(f"{folder}: the weights hold no pooler, it would be random; set model.pooling to cls")
    n_layers = encoder.config.num_hidden_layers
    if settings.pooling == "concat_last" and settings.concat_layers > n_layers:
        raise ValueError(f"{folder}: {n_layers} layers, model.concat_layers is {settings.concat_layers}")


def recompute_layers(model: nn.Module) -> None:
    """Let the transformers model in `model` forget its layers' states and compute them again in the backward pass."""
    pretrained = _find_pretrained(model)
    pretrained.config.use_cache = False
    # the name since transformers 5.2x, and the one before it; with reentry DDP would lose its hooks
    enable = getattr(pretrained, "activation_checkpointing_enable", None) or pretrained.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def can_recompute(model: nn.Module) -> bool:
    """Whether `recompute_layers` may be asked of the model."""
    return _find_pretrained(model).supports_gradient_checkpointing


def keep_layers(pretrained: nn.Module) -> None:
    """The reverse of `recompute_layers`."""
    disable = getattr(pretrained, "activation_checkpointing_disable", None) or pretrained.gradient_checkpointing_disable
    disable()


def _find_pretrained(model: nn.Module) -> PreTrainedModel:
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def check_positions(encoder: nn.Module, longest: int, what: str = "") -> None:
    """Raise ValueError where a text of `longest` tokens has more than the encoder's table of positions.

    what: the text's name, where it is none of the corpus, which are cut.
    """
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if table is None:
        return
    n_positions = table.num_embeddings
    if table.padding_idx is not None:  # RoBERTa's kin count positions from the one after padding's
        n_positions -= table.padding_idx + 1
    if longest > n_positions and what:
        raise ValueError(f"{what} has {longest} tokens, {type(encoder).__name__} has {n_positions} positions")
    if longest > n_positions:
        raise ValueError(
            f"the longest text has {longest} tokens, {type(encoder).__name__} has {n_positions} positions; "
            f"set --model.max_length_tokens {n_positions}"
        )
