"""A pretrained encoder fine-tuned on one fold through Accelerate: one process, many GPUs, or many CPU processes.

accelerate launch src/train.py --run minilm --fold 3
"""

import hashlib
from functools import cached_property

import numpy as np
from accelerate import Accelerator
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from learners.collapse import check_logits
from learners.devices import choose_precision, describe_device, join_processes, use_cores
from learners.encoder_fold import EncoderFold
from learners.heldout import prior_logits
from learners.interface import Corpus, FoldPredictions, FoldRows
from learners.losses import build_pos_weight
from learners.model import build_model
from learners.predicting import predict_logits
from learners.pretrained import find_weights
from learners.tokens import Tokens, tokenize
from settings.loading import settings_of
from settings.run import RunSettings


class EncoderLearner:
    """Loads weights, tokenizer and tokens once; every fold starts from the same weights and its own head."""

    uses_all_processes = True

    def __init__(self, run: RunSettings, corpus: Corpus):
        transformers_logging.disable_progress_bar()
        use_cores()
        self.run, self.corpus = run, corpus
        state = join_processes()
        self.precision = choose_precision(run.training.precision, state.device)
        self.accelerator = Accelerator(mixed_precision=self.precision, cpu=state.device.type == "cpu")
        self.folder, where = find_weights(run.model.name, run.model.revision)
        self.accelerator.wait_for_everyone()  # the first one may still be clearing what --overwrite forgets
        self.accelerator.print(where)

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens of every text, made at the first fold."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        return tokenize(tokenizer, self.corpus.texts, self.run.model.max_length_tokens)

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        fold = EncoderFold(self, rows)
        try:
            fold.train()
            heldout, test = (
                predict_logits(self.accelerator, fold.model, self.tokens, part, len(self.corpus.label_names))
                for part in (rows.heldout, self.corpus.test_rows)
            )
            check_logits(heldout, f"fold {rows.fold}, held-out rows")
            score = fold.score(heldout)
        finally:
            self.accelerator.free_memory()
        device = describe_device(self.accelerator.device, self.accelerator.num_processes, self.precision)
        return FoldPredictions(heldout, test, "logits", score, device)

    def build_fold_model(self, rows: FoldRows):
        """The pretrained encoder under this fold's head, and the weight of a positive of each label."""
        labels = self.corpus.labels[rows.train]
        pos_weight = build_pos_weight(labels, self.run.loss)
        bias = prior_logits(labels, self.corpus.task) if self.run.loss.bias_from_prior else None
        seed = int(np.random.SeedSequence([self.run.seed, rows.fold]).generate_state(1)[0])
        model = build_model(self.folder, self.run.model, bias, len(self.corpus.label_names), seed)
        return model, pos_weight

    def identity(self, rows: FoldRows) -> dict:
        """What a checkpoint must agree with: settings, texts, labels and the fold's rows."""
        data = hashlib.sha256()
        for text in self.corpus.texts:
            data.update(text.encode("utf-8", "surrogatepass") + b"\0")
        data.update(np.packbits(self.corpus.labels).tobytes())
        data.update("\0".join(self.corpus.label_names).encode())
        taught = hashlib.sha256(rows.train.tobytes() + b"|" + rows.heldout.tobytes()).hexdigest()
        return {**settings_of(self.run), "data_sha256": data.hexdigest(), "fold_rows_sha256": taught}
