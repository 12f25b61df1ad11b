"""Frozen sentence embeddings of a pretrained encoder, with one logistic regression per label.

accelerate launch src/train.py --run minilm_lr --fold all
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from foldblend.errors import UserError
from foldblend.learners.linear.learner import LinearLearner, fit_each_label
from foldblend.learners.nets.classifier import check_positions
from foldblend.learners.nets.folders import check_weights, note_model, read_model_type
from foldblend.learners.nets.pretrained import (
    find_weights,
    load_pretrained,
    load_tokenizer,
    refusing_code,
)
from foldblend.learners.processes.devices import (
    choose_precision,
    describe_device,
    find_device,
    keep_freed_memory,
    use_cores,
)
from foldblend.learners.table import Corpus, FoldRows
from foldblend.learners.tokens.batches import plan_prediction
from foldblend.learners.tokens.coverage import Truncation, check_known, measure_truncation, most_positions
from foldblend.learners.tokens.tokens import Tokens, tokenize
from foldblend.predictions import FoldPredictions

TOKENS_PER_BATCH = 8192

DEAD = 1e-6
"""A dimension with less than this share of the largest standard deviation carries nothing (MiniLM has three); it is set
to 0 instead of blowing up its rounding errors."""


class EmbeddingsLearner(LinearLearner):
    """Embed all texts at the first fold and keep them; every fold standardises by its own training rows."""

    encoder = None
    """In memory once `keep_models` asked for it."""

    def read_texts(self, corpus: Corpus) -> None:
        super().read_texts(corpus)
        for name in ("tokens", "embeddings"):
            self.__dict__.pop(name, None)

    @cached_property
    def folder(self) -> Path:
        """The encoder's folder."""
        settings = self.run.embeddings
        try:
            folder, where = find_weights(settings.name, settings.revision)
        except UserError as error:  # its message names the setting of the neural learners
            said = str(error).replace("model.name", "embeddings.name").replace("model.revision", "embeddings.revision")
            raise UserError(said) from error
        print(where, flush=True)
        return folder

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens of every text. Raises UserError: of texts to learn from, the tokenizer knows too few."""
        settings, tokenizer = self.run.embeddings, load_tokenizer(self.folder)
        tokens = tokenize(tokenizer, self.corpus.texts, settings.max_length_tokens)
        if len(self.corpus.labels):
            check_known(tokens, tokenizer, self.corpus.texts, settings.max_unknown_share, "embeddings")
        return tokens

    @cached_property
    def embeddings(self) -> np.ndarray:
        """float32 (n_texts, H), shared by all folds: a text's embedding depends on no other text."""
        check_weights(self.folder)
        if len(self.corpus.labels) and self.truncation is not None and self.truncation.texts_cut:
            print(self.truncation.line("embeddings.max_length_tokens"), flush=True)
        wanted = self.run.training.precision
        if self.kept is None:
            return embed_texts(self.folder, self.tokens, wanted=wanted)
        if self.encoder is None:
            self.encoder = load_encoder(self.folder)
        return embed_texts(self.folder, self.tokens, self.encoder, wanted)

    @cached_property
    def truncation(self) -> Truncation | None:
        """What embeddings.max_length_tokens cuts off the texts."""
        with refusing_code(self.folder):
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        return measure_truncation(self.tokens, self.run.embeddings.max_length_tokens, most_positions(config))

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        predictions = super().train_fold(rows)
        note_model(self.folder, self.run.embeddings.name, rows.checkpoint_dir)
        cut = self.truncation.record() if self.truncation is not None else {}
        return replace(predictions, truncation=cut)

    def fold_features(self, rows: FoldRows):
        fitted = self.fitted_arrays(rows)
        return [self._standardised(part, fitted) for part in (rows.train, rows.heldout, self.corpus.test_rows)]

    def fitted_arrays(self, rows: FoldRows) -> dict[str, np.ndarray]:
        taught = self.embeddings[rows.train].astype(np.float64)
        mean, spread = taught.mean(0), taught.std(0)
        spread[spread < DEAD * spread.max()] = np.inf
        return {"mean": mean, "spread": spread}

    def new_features(self, fitted: dict[str, np.ndarray]) -> np.ndarray:
        return self._standardised(self.corpus.test_rows, fitted)

    def _standardised(self, part: np.ndarray, fitted: dict[str, np.ndarray]) -> np.ndarray:
        return ((self.embeddings[part] - fitted["mean"]) / fitted["spread"]).astype(np.float32)

    def fit(self, features, labels: np.ndarray, n_beside: int = 0, rows: np.ndarray | None = None):
        return fit_each_label(features, labels, self.logistic, self.corpus.task, rows)

    def device(self) -> str:
        device, wanted = find_device(), self.run.training.precision
        return describe_device(device, 1, choose_precision(wanted, device, read_model_type(self.folder)))


def load_encoder(folder: Path) -> torch.nn.Module:
    """The encoder on the device that embeds. Raises: UserError: its weights are missing, so they would be random."""
    encoder, _ = load_pretrained(folder, AutoModel)  # the mean of states reads no pooler
    return encoder.to(find_device()).eval()


def embed_texts(
    folder: Path, tokens: Tokens, encoder: torch.nn.Module | None = None, wanted: str = "auto"
) -> np.ndarray:
    """Embed each text as the mean of its last hidden states, special tokens included.

    Args:    encoder: of `load_encoder`, if it is in memory.
             wanted: the precision; `auto` unless predict.py was told another.
    Returns: float32 (n_texts, H).
    Raises:  UserError: weights of the encoder are missing from the folder, so they would be random.
    Source:  Reimers and Gurevych 2019, arXiv:1908.10084 (mean pooling), as all-MiniLM-L6-v2 was trained.
    """
    use_cores()
    keep_freed_memory()
    device = find_device()
    precision = choose_precision(wanted, device, read_model_type(folder))
    encoder = load_encoder(folder) if encoder is None else encoder
    n_texts = len(tokens.lengths)
    check_positions(encoder, int(tokens.lengths.max(initial=0)), "a text (embeddings.max_length_tokens truncates it)")
    embeddings = np.zeros((n_texts, encoder.config.hidden_size), dtype=np.float32)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=precision != "no"):
        for batch in plan_prediction(np.arange(n_texts), tokens.lengths, TOKENS_PER_BATCH, 1):
            inputs = {name: tensor.to(device) for name, tensor in tokens.batch(batch[0]).items()}
            states = encoder(**inputs).last_hidden_state.float()  # (B, T, H)
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            embeddings[batch[0]] = ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()
    return embeddings
