"""A pretrained encoder under a linear head: token ids in, one logit a label out."""

import numpy as np
import torch
from torch import nn
from transformers import AutoModel

from settings.run import ModelSettings


class TextClassifier(nn.Module):
    """Pools the encoder's last states and reads the labels off the pooled vector."""

    def __init__(self, encoder: nn.Module, n_labels: int, settings: ModelSettings):
        super().__init__()
        self.encoder, self.pooling = encoder, settings.pooling
        self.dropout = nn.Dropout(settings.head_dropout)
        self.head = nn.Linear(encoder.config.hidden_size, n_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids, attention_mask: int64 (B, T). Returns float32 logits (B, L)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, H)
        pooled = states[:, 0] if self.pooling == "cls" else _mean(states, attention_mask)  # (B, H)
        return self.head(self.dropout(pooled)).float()


def _mean(states, attention_mask):
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def build_model(folder: str, settings: ModelSettings, head_bias: np.ndarray | None, n_labels: int, seed: int):
    """The pretrained encoder in float32 with a fresh head drawn from `seed`; its bias is `head_bias` where given.

    Raises: ValueError: weights of the encoder are missing from the folder, so they would be random.
    """
    torch.manual_seed(seed)
    encoder, info = AutoModel.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, local_files_only=True
    )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}; not the whole model")
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # its output is not read; unused parameters would stall DDP
    model = TextClassifier(encoder, n_labels, settings)
    if head_bias is not None:
        model.head.bias.data.copy_(torch.from_numpy(head_bias))
    return model.train()  # from_pretrained hands the encoder over without dropout
