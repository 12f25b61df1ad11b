"""A pretrained encoder under a fresh head: token ids in, one logit per label out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, PreTrainedModel

from foldblend.errors import UserError
from foldblend.learners.nets.pretrained import load_pretrained, refusing_code
from foldblend.learners.processes.devices import place
from foldblend.learners.tokens.batches import plan_prediction
from foldblend.learners.tokens.tokens import Tokens
from foldblend.settings.nets import ModelSettings

SAMPLE = 128
"""Training rows that say how far the logits spread at the start."""

SPREAD = 1 / 3
"""Standard deviation of the logits at the start: enough to be of use, small enough to be unlearned."""

SAME = 1e-3
"""Vectors of length 1 that are closer than this differ by rounding only."""

TOKENS_PER_BATCH = 2048

NUMBERS_TEXTS = ("bert", "electra", "albert", "convbert", "mobilebert", "squeezebert", "ernie", "rembert", "layoutlm")
"""Architectures that learned an embedding for each of two texts, and were pretrained with it."""


# Pooling, and the fresh layers above it. The names of their parameters begin with `head`.


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
        # not -inf, whose gradient would be NaN in half precision
        return states.masked_fill(mask == 0, torch.finfo(states.dtype).min).amax(1)
    mask = mask.to(states.dtype)
    # (B, T, H) -> (B, H)
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
        # over tokens, in float32: half precision has too few digits for a softmax over long texts
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
        # L dot products; nn.Linear would compute all L x L of them
        return torch.einsum("blh,lh->bl", pooled, self.weight) + self.bias


def sample_dropout(head: nn.Module, dropout: nn.Dropout, pooled: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Compute logits (B, L) of the pooled vectors: in training the mean over `n_samples` dropout masks.

    Source: Inoue 2019, arXiv:1905.09788 (there the losses are averaged, here the logits).
    """
    if n_samples == 1 or not dropout.training:
        return head(dropout(pooled))
    return torch.stack([head(dropout(pooled)) for _ in range(n_samples)]).mean(0)


# The classifier.


class TextClassifier(nn.Module):
    """Pool the encoder's states into one vector per text, and compute the labels' logits from it."""

    def __init__(self, encoder: nn.Module, n_labels: int, settings: ModelSettings, n_beside: int = 0):
        """n_beside: columns beside the text; their share of the logits is added to the text's."""
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
        # as BERT's own layers; torch's default is a uniform draw that depends on the width
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.head_beside = nn.Linear(n_beside, n_labels, bias=False) if n_beside else None
        self.segment_token: int | None = None
        """The separator of two texts, for an encoder that numbers them; None if rows have one text."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, beside: torch.Tensor | None = None
    ) -> torch.Tensor:
        """input_ids, attention_mask: int64 (B, T); beside: float32 (B, W). Returns float32 logits (B, L)."""
        return self.read_labels(self.encode(input_ids, attention_mask), attention_mask, beside)

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):
        """Run the encoder; the output holds the states that the pooling reads."""
        wanted = {"output_hidden_states": True} if self.head_pooling.reads_all_layers else {}
        if self.segment_token is not None:
            separators = (input_ids == self.segment_token).long()  # no text can write one: tokens/tokens.py
            # the separator itself is of the first text
            wanted["token_type_ids"] = ((separators.cumsum(1) - separators) > 0).long()  # 1 from the second text on
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, **wanted)

    def number_texts(self, separator: int | None) -> None:
        """Rows are pairs: tell the encoder which text a token is of, if it has embeddings for two (BERT's segments)."""
        config = self.encoder.config
        if config.model_type in NUMBERS_TEXTS and getattr(config, "type_vocab_size", 0) > 1:
            self.segment_token = separator

    def read_labels(self, output, attention_mask: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """Compute float32 logits (B, L) from what the encoder returned, in float32 even under autocast.

        bfloat16 has steps of 1/32 near a logit of 6: rows would tie where they are ranked and compared with thresholds.
        """
        # a head costs nothing beside the encoder, so exact logits are nearly free
        with torch.autocast(attention_mask.device.type, enabled=False):
            pooled = self.head_pooling(output, attention_mask)  # (B, width), or a vector a label
            if self.head_dense is not None:
                pooled = self.head_dense(pooled)
            logits = sample_dropout(self.head, self.dropout, pooled, self.dropout_samples)
            return logits if self.head_beside is None else logits + self.head_beside(beside)

    def start_beside(self, weights: np.ndarray, bias: np.ndarray) -> None:
        """Start the share of the columns beside the text, (W, L), and the last layer's bias, (L,), in place."""
        with torch.no_grad():
            self.head_beside.weight.copy_(torch.from_numpy(weights.T))
            self.head.bias.copy_(torch.from_numpy(bias))


def build_model(
    folder: str | Path,
    settings: ModelSettings,
    head_bias: np.ndarray | None,
    n_labels: int,
    seed: int,
    n_beside: int = 0,
) -> TextClassifier:
    """Load the pretrained encoder in float32 and put a fresh head on it, in training mode.

    Args:   head_bias: float32 (L,), what the head's bias starts from; None is 0.   seed: draws the head's weights.
    Raises: UserError: weights of the encoder are missing from the folder, so they would be random; or the settings ask
            for what the encoder does not have (a pooler, that many layers).
    """
    torch.manual_seed(seed)
    encoder, missing_pooler = load_pretrained(folder, AutoModel)
    _check_fit(folder, encoder, settings, missing_pooler)
    model = _add_head(encoder, n_labels, settings, n_beside)
    if head_bias is not None:
        model.head.bias.data.copy_(torch.from_numpy(head_bias))
    return model.train()  # from_pretrained returns it in evaluation mode, without dropout


def build_bare_model(folder: str | Path, settings: ModelSettings, n_labels: int, n_beside: int = 0) -> TextClassifier:
    """Build the architecture with random weights, for a finished fold's weights to fill; only config.json is read."""
    with refusing_code(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    return _add_head(encoder, n_labels, settings, n_beside)


def _add_head(encoder: nn.Module, n_labels: int, settings: ModelSettings, n_beside: int) -> TextClassifier:
    if settings.pooling != "pooler" and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # its output is not read; unused parameters would stall DDP
    return TextClassifier(encoder, n_labels, settings, n_beside)


def _check_fit(folder: str | Path, encoder: nn.Module, settings: ModelSettings, missing_pooler: list[str]) -> None:
    """Raise UserError if the settings ask for more than the encoder has."""
    if settings.pooling == "pooler":
        if getattr(encoder, "pooler", None) is None:
            raise UserError(f"{folder}: {type(encoder).__name__} has no pooler; set model.pooling to cls or mean")
        if missing_pooler:
            raise UserError(f"{folder}: the weights hold no pooler, it would be random; set model.pooling to cls")
    n_layers = encoder.config.num_hidden_layers
    if settings.pooling == "concat_last" and settings.concat_layers > n_layers:
        raise UserError(f"{folder}: {n_layers} layers, model.concat_layers is {settings.concat_layers}")


def recompute_layers(model: nn.Module) -> None:
    """Switch on gradient checkpointing: layers' states are dropped and computed again in the backward pass."""
    pretrained = _find_pretrained(model)
    pretrained.config.use_cache = False
    # transformers 5.2x renamed it; with use_reentrant=True DDP would lose its hooks
    enable = getattr(pretrained, "activation_checkpointing_enable", None) or pretrained.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def can_recompute(model: nn.Module) -> bool:
    """Whether the model supports `recompute_layers`."""
    return _find_pretrained(model).supports_gradient_checkpointing


def keep_layers(pretrained: nn.Module) -> None:
    """Switch gradient checkpointing off again: the reverse of `recompute_layers`."""
    disable = getattr(pretrained, "activation_checkpointing_disable", None) or pretrained.gradient_checkpointing_disable
    disable()


def _find_pretrained(model: nn.Module) -> PreTrainedModel:
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def check_positions(encoder: nn.Module, longest: int, what: str = "") -> None:
    """Raise UserError if a text of `longest` tokens is longer than the encoder's table of positions.

    what: a name for the text if it is not one of the corpus; those can be truncated by model.max_length_tokens.
    """
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if table is None:
        return
    n_positions = table.num_embeddings
    if table.padding_idx is not None:  # RoBERTa's kin count positions from the one after padding's
        n_positions -= table.padding_idx + 1
    if longest > n_positions and what:
        raise UserError(f"{what} has {longest} tokens, {type(encoder).__name__} has {n_positions} positions")
    if longest > n_positions:
        raise UserError(
            f"the longest text has {longest} tokens, {type(encoder).__name__} has {n_positions} positions; "
            f"set --model.max_length_tokens {n_positions}"
        )


# The last layer started from what the labels' names mean to the encoder (model.head_init: label_names).


def start_from_names(model: TextClassifier, named: Tokens, tokens: Tokens, rows: np.ndarray) -> np.ndarray:
    """Set the last layer's weights of each label from the encoder's vector of its name, in place.

    1. Pool each label's text, scale the vector to length 1, subtract the mean over labels, scale to length 1 again.
    2. Multiply all of them by one factor, so that a label's logits over training rows have a standard deviation of
       SPREAD on average over labels.
    3. Move the bias so that a label's mean logit over training rows stays what it was.
    Labels whose texts the encoder cannot tell apart keep their random weights.

    Args:    named: a text per label, in the labels' order.   tokens: of the corpus.   rows: int64 (n,), training rows.
    Returns: int64, the labels that keep their weights; all of them if the encoder cannot tell training rows apart.
    Raises:  UserError: a label's text is longer than the model has positions for.
    Source:  close pooled states mean close meanings: Reimers and Gurevych 2019, arXiv:1908.10084.
    """
    check_positions(model.encoder, int(named.lengths.max()), "model.label_text with a label's name")
    sample = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]
    head = model.head
    model.eval()
    with torch.no_grad():
        vectors = torch.empty_like(head.weight)  # (L, width)
        for numbers, pooled in _pool(model, named, np.arange(len(vectors))):
            vectors[numbers] = pooled if pooled.ndim == 2 else pooled[np.arange(len(numbers)), numbers]
        known, weights = _directions(normalize(vectors))
        logits = torch.cat([_read(weights, pooled) for _, pooled in _pool(model, tokens, sample)])  # (n, L)
        spread = float(logits[:, known].std(0, correction=0).mean()) if known.any() else 0.0
        known &= spread > SAME
        if known.any():
            factor = SPREAD / spread
            head.weight[known] = factor * weights[known]
            head.bias[known] -= factor * logits.mean(0)[known]
    model.train()
    return torch.nonzero(~known).flatten().cpu().numpy()


def _directions(units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions of labels as seen from their mean.

    Args:    units: (L, width), each of length 1.
    Returns: bool (L,), which labels have a vector unlike every other label's; (L, width), each of length 1.
    """
    # the exact mode: products of near-equal vectors would lose the very differences that are looked for
    apart = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    known = apart.amin(1) > SAME
    centre = units[known].mean(0) if known.sum() > 1 else torch.zeros_like(units[0])
    return known, normalize(units - centre)


def _read(weights: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Logits without bias, (B, L), of pooled vectors, (B, width) or one per label, (B, L, width)."""
    return pooled @ weights.T if pooled.ndim == 2 else torch.einsum("blh,lh->bl", pooled, weights)


def _pool(model: TextClassifier, tokens: Tokens, rows: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield rows, int64 (B,), and their pooled vectors, float32 (B, width) or (B, L, width), batch by batch."""
    for batch in plan_prediction(rows, tokens.lengths, TOKENS_PER_BATCH, 1):
        inputs = place(tokens.batch(batch[0]), model.head.weight.device)
        yield batch[0], model.head_pooling(model.encode(**inputs), inputs["attention_mask"])


def count_parameters(model: nn.Module) -> int:
    """Numbers that a model consists of, trained or frozen, shared ones once; of nf4, those that are stored as codes."""
    stored = ((weight, getattr(weight, "quant_state", None)) for weight in model.parameters())
    return sum(weight.numel() if state is None else state.shape.numel() for weight, state in stored)
