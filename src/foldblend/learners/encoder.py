"""A pretrained encoder fine-tuned on one fold through Accelerate: one process, many GPUs, or many CPU processes.

accelerate launch src/train.py --run minilm --fold 3
"""

from torch import nn

from foldblend.learners.cpu.layers import fuse_layers, use_cpu_dropout
from foldblend.learners.nets.classifier import (
    build_bare_model,
    build_model,
    check_positions,
    recompute_layers,
    start_from_names,
)
from foldblend.learners.processes.sharding import spreads
from foldblend.learners.table import FoldRows
from foldblend.learners.tokens.tokens import fit_embeddings, tokenize
from foldblend.learners.training.neural import NeuralLearner
from foldblend.learners.training.progress import announce

UNCUT = 1 << 20
"""Tokens that a label's text may have, whatever the run cuts its texts to."""


class EncoderLearner(NeuralLearner):
    """All weights are trained, under a fresh head."""

    builds_anew = True

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        n_labels = len(self.corpus.label_names)
        model = build_model(self.folder, self.run.model, self.head_bias(rows), n_labels, seed)
        self._fit_texts(model)
        if self.run.training.gradient_checkpointing is True:
            recompute_layers(model)
        return model

    def start_model(self, model: nn.Module, rows: FoldRows) -> None:
        settings, names = self.run.model, self.corpus.label_names
        if settings.head_init != "label_names":
            return
        if not spreads(self.accelerator):
            model.to(self.accelerator.device)
        texts = [settings.label_text.replace("{label}", name.replace("_", " ")) for name in names]
        left = start_from_names(model, tokenize(self.tokenizer, texts, UNCUT), self.tokens, rows.train)
        if len(left) and self.accelerator.is_main_process:
            same, why = ", ".join(names[k] for k in left), "the encoder cannot tell their names, or the rows, apart"
            announce(f"fold {rows.fold}", f"{why}, so they start at random: {same}")

    def build_trained_model(self) -> nn.Module:
        """All weights come from the fold, so the pretrained ones are not asked for."""
        model = build_bare_model(self.folder, self.run.model, len(self.corpus.label_names))
        self._fit_texts(model)
        return model

    def _fit_texts(self, model: nn.Module) -> None:
        """Embeddings for every token. Raises ValueError where a text is longer than the model has positions for."""
        if self.accelerator.device.type == "cpu":
            use_cpu_dropout(model)
            if not spreads(self.accelerator) and not fuse_layers(model):
                self.accelerator.print("layers are not fused, which needs Linux and a C compiler: steps take longer")
        fit_embeddings(model.encoder, self.tokenizer)
        check_positions(model.encoder, int(self.tokens.lengths.max()))
