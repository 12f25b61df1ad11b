"""A pretrained encoder fine-tuned on one fold through Accelerate: one process, many GPUs, or many CPU processes.

accelerate launch src/train.py --run minilm --fold 3
"""

from torch import nn

from learners.interface import FoldRows
from learners.model import build_model, check_positions, checkpoint_layers
from learners.neural import NeuralLearner
from learners.placeholders import fit_embeddings


class EncoderLearner(NeuralLearner):
    """All weights are trained, under a fresh head."""

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        n_labels = len(self.corpus.label_names)
        model = build_model(self.folder, self.run.model, self.head_bias(rows), n_labels, seed)
        fit_embeddings(model.encoder, self.tokenizer)
        check_positions(model.encoder, int(self.tokens.lengths.max()))
        if self.run.training.gradient_checkpointing:
            checkpoint_layers(model.encoder)
        return model
