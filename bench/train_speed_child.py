"""One side of bench/train_speed.py in a process of its own: reads rows and settings, trains, writes result.json.

python bench/train_speed_child.py ours|trainer|trainer_best FOLDER OUT SEED
"""

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldblend.learners.table import Corpus, FoldRows, build_learner, score_heldout
from foldblend.scoring.inputs import sigmoid
from foldblend.scoring.metrics.formulas import macro_ap
from foldblend.settings.loading import run_from_settings

SIDE, FOLDER, OUT, SEED = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])


def main() -> None:
    data = np.load(FOLDER / "rows.npz")
    run = run_from_settings(json.loads((FOLDER / "run.json").read_text(encoding="utf-8")), "run.json")
    run = replace(run, seed=SEED)
    names = tuple(data["names"].tolist())
    corpus = Corpus(tuple(data["texts"].tolist()), data["labels"], names, "multilabel")
    n_train = int(data["n_train"])
    rows = FoldRows(0, np.arange(n_train), np.arange(n_train, len(corpus.labels)), OUT)
    train = train_ours if SIDE == "ours" else train_theirs
    logits, labels, lengths = train(run, corpus, rows)
    score = score_heldout(logits, labels, corpus.labels[rows.train].mean(0), corpus.task)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _resident()
    tokens = int(lengths[rows.train].sum()) * run.training.epochs
    result = {"peak_gb": round(peak / 1e9, 3), "macro_f1": score["macro_f1"], "tokens": tokens}
    result["macro_ap"] = macro_ap(labels, sigmoid(logits))
    (OUT / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def train_ours(run, corpus: Corpus, rows: FoldRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 logits (n_heldout, L), bool labels in the same order, and the tokens of every text."""
    learner = build_learner(run, corpus)
    return learner.train_fold(rows).oof, corpus.labels[rows.heldout], learner.tokens.lengths


def train_theirs(run, corpus: Corpus, rows: FoldRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same through Trainer."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    model, tokenizer, optimizer = build_theirs(run, corpus, rows)
    encoded = tokenizer(list(corpus.texts), truncation=True, max_length=run.model.max_length_tokens)["input_ids"]
    targets = corpus.labels.astype(np.float32)
    taught, heldout = (
        [{"input_ids": encoded[row], "labels": targets[row]} for row in part] for part in (rows.train, rows.heldout)
    )
    is_half = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    best = {
        "train_sampling_strategy": "group_by_length",
        "fp16" if is_half else "bf16": True,
        "per_device_eval_batch_size": 128,
        "save_strategy": "no",
    }
    arguments = TrainingArguments(
        output_dir=str(OUT / "trainer"),
        num_train_epochs=run.training.epochs,
        per_device_train_batch_size=run.training.micro_batch_size,
        warmup_steps=run.optimizer.warmup_fraction,
        seed=run.seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **(best if SIDE == "trainer_best" else {}),
    )
    collator = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model, arguments, train_dataset=taught, data_collator=collator, optimizers=(optimizer, None))
    trainer.train()
    predicted = trainer.predict(heldout)  # grouped by length, it hands rows back in another order
    return predicted.predictions, predicted.label_ids > 0, np.array([len(ids) for ids in encoded])


class WithLoss(nn.Module):
    """Our classifier as Trainer calls a model."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids, attention_mask, labels=None):
        """A dict of logits (B, L), and of the loss where labels are given."""
        logits = self.classifier(input_ids=input_ids, attention_mask=attention_mask)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}


def build_theirs(run, corpus: Corpus, rows: FoldRows):
    """The model that ours starts from, its tokenizer, and AdamW with the same rates."""
    from accelerate.state import AcceleratorState

    from foldblend.learners.nets.classifier import build_model
    from foldblend.learners.training.loop import fold_seed
    from foldblend.learners.training.optimizer import build_optimizer

    learner, seed = build_learner(run, corpus), fold_seed(run.seed, rows.fold)
    if run.learner == "encoder":
        model = build_model(learner.folder, run.model, learner.head_bias(rows), len(corpus.label_names), seed)
    else:
        model = learner.build_fold_model(rows, seed)
    tokenizer = learner.tokenizer
    AcceleratorState._reset_state(True)  # Trainer brings its own
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return WithLoss(model), tokenizer, build_optimizer(model, run.optimizer)


if __name__ == "__main__":
    main()
