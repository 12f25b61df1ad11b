"""From token states to logits: pooling, and the fresh layers above it. Their names begin with `head`."""

import torch
from torch import nn

from foldblend.settings.run import ModelSettings


def pool_states(states: torch.Tensor, attention_mask: torch.Tensor, how: str) -> torch.Tensor:
    """Pool states into one vector per text, (B, H), whatever its padding.

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
    """Means of a text's states, weighted by learned scores: one mean for all labels, or one per label.

    Source: Yang et al. 2016, Hierarchical Attention Networks, eq. 8 to 10; scores for each label over that one layer
    as in the label attention of Vu et al. 2020, arXiv:2007.06351.
    """

    def __init__(self, width: int, n_means: int = 1):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.score = nn.Linear(width, n_means, bias=False)  # a bias would move all scores alike and never learn

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """states: (B, T, H), attention_mask: int64 (B, T). Returns (B, n_means, H)."""
        scores = self.score(torch.tanh(self.dense(states))).float()  # (B, T, n_means)
        weights = scores.masked_fill(attention_mask.unsqueeze(-1) == 0, -torch.inf).softmax(1)
        return weights.transpose(1, 2).to(states.dtype) @ states


class Pooling(nn.Module):
    """From an encoder's output to the vectors that the head reads, as `model.pooling` says."""

    def __init__(self, hidden_size: int, n_labels: int, settings: ModelSettings):
        super().__init__()
        self.how, self.layers, self.of_layer = settings.pooling, settings.concat_layers, settings.concat_states
        self.width = hidden_size * (self.layers if self.how == "concat_last" else 1)
        self.attention = None
        if self.how == "attention":
            self.attention = AttentionPooling(hidden_size)
        elif self.how == "label_attention":
            self.attention = AttentionPooling(hidden_size, n_labels)
            nn.init.zeros_(
                self.attention.score.weight
            )  # equal scores give the plain mean, until a label learns which tokens matter

    @property
    def reads_all_layers(self) -> bool:
        """Whether the encoder has to return every layer's states."""
        return self.how == "concat_last"

    def forward(self, output, attention_mask: torch.Tensor) -> torch.Tensor:
        """output: what a transformers encoder returns.

        Returns: float32 (B, width); for `label_attention` (B, L, width), a vector per label.
        """
        if self.how == "pooler":
            return output.pooler_output.float()
        if self.how == "concat_last":
            last = output.hidden_states[-self.layers :]
            return torch.cat([pool_states(states.float(), attention_mask, self.of_layer) for states in last], dim=-1)
        states = output.last_hidden_state.float()
        if self.attention is not None:
            pooled = self.attention(states, attention_mask)
            return pooled if self.how == "label_attention" else pooled.squeeze(1)
        return pool_states(states, attention_mask, self.how)


class LabelWiseLinear(nn.Linear):
    """A last layer with one vector per label: logit l is computed from vector l alone."""

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled: (B, L, H). Returns (B, L)."""
        return torch.einsum("blh,lh->bl", pooled, self.weight) + self.bias


def sample_dropout(head: nn.Module, dropout: nn.Dropout, pooled: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Compute logits (B, L) of the pooled vectors: in training the mean over `n_samples` dropout masks.

    Source: Inoue 2019, arXiv:1905.09788 (there the losses are averaged, here the logits).
    """
    if n_samples == 1 or not dropout.training:
        return head(dropout(pooled))
    return torch.stack([head(dropout(pooled)) for _ in range(n_samples)]).mean(0)
