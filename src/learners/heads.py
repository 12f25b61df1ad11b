"""From token states to logits: pooling, and the fresh layers above it. Their names begin with `head`."""

import torch
from torch import nn

from settings.run import ModelSettings


def pool_states(states: torch.Tensor, attention_mask: torch.Tensor, how: str) -> torch.Tensor:
    """One vector a text, (B, H), whatever its padding.

    Args: states: (B, T, H).   attention_mask: int64 (B, T), 1 where a token is real.
          how: `cls` (the first token's state), `last` (the last real one's; the mask decides, as texts may end with
          the token that pads), `mean` or `max`.
    """
    if how == "cls":
        return states[:, 0]
    if how == "last":
        return states[torch.arange(len(states), device=states.device), attention_mask.sum(1) - 1]
    mask = attention_mask.unsqueeze(-1)
    if how == "max":
        return states.masked_fill(mask == 0, torch.finfo(states.dtype).min).amax(1)
    mask = mask.to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


class AttentionPooling(nn.Module):
    """The mean of a text's states, weighed by a learned score of each.

    Source: Yang et al. 2016, Hierarchical Attention Networks, eq. 8 to 10.
    """

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)  # a bias would move all scores alike and never learn

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """states: (B, T, H), attention_mask: int64 (B, T). Returns (B, H)."""
        scores = self.score(torch.tanh(self.dense(states))).squeeze(-1).float()  # (B, T)
        weights = scores.masked_fill(attention_mask == 0, -torch.inf).softmax(-1)
        return (states * weights.unsqueeze(-1).to(states.dtype)).sum(1)


class Pooling(nn.Module):
    """What the settings ask for, of an encoder's output."""

    def __init__(self, hidden_size: int, settings: ModelSettings):
        super().__init__()
        self.how, self.layers, self.of_layer = settings.pooling, settings.concat_layers, settings.concat_states
        self.width = hidden_size * (self.layers if self.how == "concat_last" else 1)
        self.attention = AttentionPooling(hidden_size) if self.how == "attention" else None

    @property
    def reads_all_layers(self) -> bool:
        """Whether the encoder must hand over every layer's states."""
        return self.how == "concat_last"

    def forward(self, output, attention_mask: torch.Tensor) -> torch.Tensor:
        """output: what a transformers encoder returns. Returns float32 (B, width)."""
        if self.how == "pooler":
            return output.pooler_output.float()
        if self.how == "concat_last":
            last = output.hidden_states[-self.layers :]
            return torch.cat([pool_states(states.float(), attention_mask, self.of_layer) for states in last], dim=-1)
        states = output.last_hidden_state.float()
        if self.attention is not None:
            return self.attention(states, attention_mask)
        return pool_states(states, attention_mask, self.how)


def sample_dropout(head: nn.Module, dropout: nn.Dropout, pooled: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Logits (B, L) of `pooled` (B, H): the mean over draws of dropout while training.

    Source: Inoue 2019, arXiv:1905.09788 (there the losses are averaged, here the logits).
    """
    if n_samples == 1 or not dropout.training:
        return head(dropout(pooled))
    return torch.stack([head(dropout(pooled)) for _ in range(n_samples)]).mean(0)
