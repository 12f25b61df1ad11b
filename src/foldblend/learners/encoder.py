"""A pretrained encoder, fine-tuned whole on each fold: on one process, many GPUs, or many CPU processes.

accelerate launch src/train.py --run minilm --fold 3
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from foldblend.console import announce
from foldblend.learners.cpu.layers import accelerate_on_cpu
from foldblend.learners.nets.attributions import Attribution, attribute
from foldblend.learners.nets.classifier import (
    build_bare_model,
    build_model,
    check_positions,
    recompute_layers,
    start_from_names,
)
from foldblend.learners.processes.devices import spreads
from foldblend.learners.table import FoldRows
from foldblend.learners.tokens.tokens import fit_embeddings, tokenize
from foldblend.learners.training.checkpoints import load_weights, restore_model
from foldblend.learners.training.neural import NeuralLearner
from foldblend.learners.training.weights import read_features
from foldblend.predictions import fold_title
from foldblend.settings.data_files import PAIR

UNCUT = 1 << 20
"""Most tokens of a label's text: it is not cut as the run's texts are."""


class EncoderLearner(NeuralLearner):
    """All weights are trained, under a fresh head."""

    builds_whole_model = True

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        n_labels = len(self.corpus.label_names)
        model = build_model(self.folder, self.run.model, self.head_bias(rows), n_labels, seed, self.n_beside)
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
            same = ", ".join(names[k] for k in left)
            reason = "the encoder cannot tell their names, or the rows, apart"
            announce(fold_title(rows.fold), f"labels start at random, as {reason}: {same}")

    def build_trained_model(self) -> nn.Module:
        """All weights come from the fold, so the pretrained ones are not loaded."""
        model = build_bare_model(self.folder, self.run.model, len(self.corpus.label_names), self.n_beside)
        self._fit_texts(model)
        return model

    def _fit_texts(self, model: nn.Module) -> None:
        """Make it fast on a CPU, with embeddings for every token. Raises UserError: a text is too long for it."""
        if self.accelerator.device.type == "cpu" and not accelerate_on_cpu(model, not spreads(self.accelerator)):
            self.accelerator.print("layers are not fused, which needs Linux and a C compiler: steps take longer")
        fit_embeddings(model.encoder, self.tokenizer)
        self.check_texts(model)

    def check_texts(self, model: nn.Module) -> None:
        if any(PAIR in text for text in self.corpus.texts):
            model.number_texts(self.tokenizer.sep_token_id)
        check_positions(model.encoder, int(self.tokens.lengths.max()))

    def attribute_fold(self, checkpoint_dir: Path, labels: Sequence[Sequence[int]]) -> list[Attribution]:
        """Which tokens of each text of the corpus spoke for labels, by a trained fold's model.

        Args: labels: those that are asked about, of each text.
        """
        self.read_beside(read_features(checkpoint_dir))
        # not `build_trained_model`: fused layers would not let anybody see the word embeddings
        model = build_bare_model(self.folder, self.run.model, len(self.corpus.label_names), self.n_beside)
        fit_embeddings(model.encoder, self.tokenizer)
        self.check_texts(model)
        restore_model(model, load_weights(checkpoint_dir))
        model.to(self.accelerator.device)
        return [attribute(model, self.tokenizer, self.tokens, row, asked) for row, asked in enumerate(labels)]
