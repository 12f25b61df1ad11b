"""A causal decoder under a classification head: adapters and head are trained, the base is shared by all folds.

accelerate launch src/train.py --run llama-3.2-1b --fold all
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutput

from foldblend.errors import UserError
from foldblend.learners.nets.adapters import SharedBase, merged
from foldblend.learners.nets.classifier import TextClassifier
from foldblend.learners.nets.pretrained import load_tokenizer
from foldblend.learners.processes.devices import spreads
from foldblend.learners.table import FoldRows
from foldblend.learners.tokens.prompts import build_prompts
from foldblend.learners.tokens.tokens import Tokens
from foldblend.learners.training.neural import NeuralLearner


class DecoderClassifier(TextClassifier):
    """The head of an encoder on a decoder's states."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, beside: torch.Tensor | None = None
    ) -> torch.Tensor:
        """input_ids, attention_mask: int64 (B, T), padded on the right; beside: float32 (B, W). Returns (B, L)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        states = states[:, -input_ids.shape[1] :]  # (B, T, H), without the states of prompt or prefix tuning
        return self.read_labels(BaseModelOutput(last_hidden_state=states), attention_mask, beside)


class DecoderLearner(NeuralLearner):
    """One base model for all folds of the process; each fold has adapters and a head of its own."""

    @cached_property
    def tokenizer(self):
        tokenizer = load_tokenizer(self.folder)
        set_pad_token(tokenizer, self.run.model.pad_token)
        return tokenizer

    def make_tokens(self, texts: Sequence[str] | None = None) -> Tokens:
        """Tokens of every text of the corpus, or of `texts`, in its prompt."""
        names, model = self.corpus.label_names, self.run.model
        texts = self.corpus.texts if texts is None else texts
        return build_prompts(
            self.tokenizer, self.run.prompt, texts, names, model.max_length_tokens, model.tail_fraction
        )

    @cached_property
    def shared_base(self) -> SharedBase:
        device, spread = self.accelerator.device, spreads(self.accelerator)
        return SharedBase(self.folder, AutoModel, self.run.adapter, device, self.precision, spread)

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        """The shared base under adapters and a head drawn from `seed`.

        Raises: UserError: the tokenizer makes tokens that the base has no embedding for.
        """
        base = self.shared_base.adapt(seed, self.run.training.gradient_checkpointing is True)
        n_embeddings = base.get_input_embeddings().num_embeddings
        highest = max(self.tokens.ids.max(), self.tokens.pad_id)
        if highest >= n_embeddings:
            raise UserError(f"{self.folder}: its tokenizer makes token {highest}, the model knows {n_embeddings}")
        torch.manual_seed(seed)
        model = DecoderClassifier(base, len(self.corpus.label_names), self.run.model, self.n_beside)
        bias = self.head_bias(rows)
        if bias is not None:
            model.head.bias.data.copy_(torch.from_numpy(bias))
        return model.train()

    def predict(self, model: nn.Module, rows: np.ndarray, tokens_in_batch: int | None = None) -> np.ndarray:
        with merged(model, len(rows)):
            return super().predict(model, rows, tokens_in_batch)


def set_pad_token(tokenizer, name: str) -> None:
    """Choose what fills short rows: token `name`; if it is empty the tokenizer's own, else its end-of-text.

    Raises: UserError: the tokenizer does not know the token; adding it would need an embedding that nobody trained.
    """
    if name and name not in tokenizer.get_vocab():
        raise UserError(f"model.pad_token: {tokenizer.name_or_path} has no token {name!r}; name one, or leave it empty")
    if name:
        tokenizer.pad_token = name
    elif tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
