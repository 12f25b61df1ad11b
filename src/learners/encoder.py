"""A pretrained encoder fine-tuned on one fold through Accelerate: one process, many GPUs, or many CPU processes.

accelerate launch src/train.py --run minilm --fold 3
"""

from torch import nn

from learners.cpu_dropout import use_cpu_dropout
from learners.fused_layers import fuse_layers
from learners.interface import FoldRows
from learners.label_start import start_from_names
from learners.model import build_bare_model, build_model, check_positions, recompute_layers
from learners.neural import NeuralLearner
from learners.placeholders import fit_embeddings
from learners.sharding import spreads
from learners.tokens import Tokens, tokenize


class EncoderLearner(NeuralLearner):
    """All weights are trained, under a fresh head."""

    builds_anew = True

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        n_labels = len(self.corpus.label_names)
        model = build_model(self.folder, self.run.model, self.head_bias(rows), n_labels, seed)
        self._fit_texts(model)
        if self.run.model.head_start == "label_names":
            start_from_names(model, self._tokenize_names(), self.tokens, rows.train)
        if self.run.training.gradient_checkpointing is True:
            recompute_layers(model)
        return model

    def build_trained_model(self) -> nn.Module:
        """All weights come from the fold, so the pretrained ones are not asked for."""
        model = build_bare_model(self.folder, self.run.model, len(self.corpus.label_names))
        self._fit_texts(model)
        return model

    def _tokenize_names(self) -> Tokens:
        """A text for each label, with its name in it."""
        settings = self.run.model
        texts = [settings.label_text.replace("{label}", name.replace("_", " ")) for name in self.corpus.label_names]
        return tokenize(self.tokenizer, texts, settings.max_length_tokens, settings.tail_share)

    def _fit_texts(self, model: nn.Module) -> None:
        """Embeddings for every token. Raises ValueError where a text is longer than the model has positions for."""
        if self.accelerator.device.type == "cpu":
            use_cpu_dropout(model)
            if not spreads(self.accelerator) and not fuse_layers(model):
                self.accelerator.print("layers are not fused, which needs Linux and a C compiler: steps take longer")
        fit_embeddings(model.encoder, self.tokenizer)
        check_positions(model.encoder, int(self.tokens.lengths.max()))
