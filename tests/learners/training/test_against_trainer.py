"""The same rows in the same order, without dropout: our loop ends where Hugging Face's Trainer ends."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.nets.classifier import build_model
from foldblend.learners.tokens.batches import plan_epoch
from foldblend.learners.training.loop import fold_seed
from foldblend.learners.training.optimizer import build_optimizer, lr_factor
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

N_EPOCHS, BATCH = 5, 16


class Answering(nn.Module):
    """A classifier as Trainer calls a model."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids, attention_mask, labels):
        logits = self.classifier(input_ids=input_ids, attention_mask=attention_mask)
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}


@pytest.fixture
def run(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "without_dropout")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(folder), head_dropout=0.0),
        training=TrainingSettings(epochs=N_EPOCHS, global_batch_size=BATCH, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3, max_grad_norm=0.5),
    )


def train_theirs(run, corpus, rows, tmp_path):
    from accelerate.state import AcceleratorState
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    learner = EncoderLearner(run, corpus)
    encoded, lengths = learner.tokenizer(list(corpus.texts))["input_ids"], learner.tokens.lengths
    seed = fold_seed(run.seed, rows.fold)
    model = build_model(learner.folder, run.model, learner.head_bias(rows), len(corpus.label_names), seed)
    optimizer = build_optimizer(model, run.optimizer)
    steps = [s for epoch in range(N_EPOCHS) for s in plan_epoch(rows.train, lengths, BATCH, [run.seed, 0, epoch])]
    factors = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, len(steps), run.optimizer))
    AcceleratorState._reset_state(True)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        max_grad_norm=run.optimizer.max_grad_norm,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    targets = corpus.labels.astype(np.float32)
    dataset = [{"input_ids": encoded[row], "labels": targets[row]} for step in steps for row in step]
    collator = DataCollatorWithPadding(learner.tokenizer)
    trainer = Trainer(
        Answering(model), arguments, train_dataset=dataset, data_collator=collator, optimizers=(optimizer, factors)
    )
    trainer.train()
    asked = learner.tokenizer([corpus.texts[row] for row in rows.heldout], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(asked["input_ids"], asked["attention_mask"]).numpy()


@pytest.mark.parametrize("embedding_updates", ["every_step", "lazy"])
def test_ends_where_trainer_ends(run, tmp_path, embedding_updates):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path, 64)
    assert len(rows.train) % BATCH == 0, "a short step is Trainer's last one and any one of ours"
    theirs = train_theirs(run, corpus, rows, tmp_path)
    run = replace(run, optimizer=replace(run.optimizer, embedding_updates=embedding_updates))
    ours = EncoderLearner(run, corpus).train_fold(rows).oof
    assert np.ptp(ours, axis=0).min() > 1, "nothing was learned, so nothing is shown"
    assert np.allclose(ours, theirs, atol=1e-5), np.abs(ours - theirs).max()
