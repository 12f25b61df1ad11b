"""Integrated gradients of encoders: shares add up, a planted word has them, and the text comes back whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_encoders import ARCHITECTURES
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.nets.attributions import attribute
from foldblend.learners.nets.classifier import build_model
from foldblend.learners.trained import attribute_fold
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
TEXTS = ("today it was happy the plain", "mad Words: 7 of them, gloomy")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["mean", "label_attention"])
def test_shares_add_up_to_the_logit(tiny_encoder, architecture, pooling):
    """Completeness, for a head with weights so large that the model is far from linear."""
    run = RunSettings("encoder", model=ModelSettings(name=str(tiny_encoder(architecture)), pooling=pooling))
    learner = EncoderLearner(run, replace(make_corpus(8), texts=(*make_corpus(8).texts[:8], *TEXTS)))
    model = build_model(learner.folder, run.model, None, 3, seed=1)
    torch.nn.init.normal_(model.head.weight, std=2.0)
    found = attribute(model, learner.tokenizer, learner.tokens, 8, [0, 2])
    assert found.shares.shape == (len(found.pieces), 2) and len(found.pieces) >= 6
    inputs = learner.tokens.batch(np.array([8]))
    with torch.no_grad():
        logits = model.eval()(**inputs)[0, [0, 2]].numpy()
    assert np.allclose(found.logits, logits, atol=1e-4)
    gap = found.logits - found.neutral
    assert np.abs(gap).max() > 0.1 and np.allclose(found.shares.sum(axis=0), gap, atol=0.02 * np.abs(gap).max() + 0.01)
    few = attribute(model, learner.tokenizer, learner.tokens, 8, [0, 2], n_steps=1)
    assert not np.allclose(few.shares, found.shares, atol=1e-4)  # the integral is more than one gradient


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta"])
def test_pieces_are_the_text(tiny_encoder, architecture):
    run = RunSettings("encoder", model=ModelSettings(name=str(tiny_encoder(architecture))))
    learner = EncoderLearner(run, replace(make_corpus(8), texts=TEXTS, labels=np.zeros((0, 3), bool)))
    model = build_model(learner.folder, run.model, None, 3, seed=1)
    found = attribute(model, learner.tokenizer, learner.tokens, 0, [0])
    assert "".join(found.pieces).split() == TEXTS[0].split()
    assert all(found.pieces)


def test_the_word_that_says_a_label_has_the_largest_share(tiny_bert, tmp_path):
    """A trained fold, by the way that the report takes: the mood's word speaks for its label, fillers hardly."""
    run = RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert), head_dropout=0.0),
        training=TrainingSettings(epochs=6, global_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3),
    )
    corpus = make_corpus(n=300)
    rows = fold_rows(corpus, tmp_path)
    EncoderLearner(run, corpus).train_fold(rows)
    texts = "today it was happy the plain", "today it was mad the plain"
    asked = replace(corpus, texts=texts, labels=np.zeros((0, 3), bool))
    joy, anger = attribute_fold(run, asked, rows.checkpoint_dir, [[0], [2]])
    assert joy.pieces[int(joy.shares[:, 0].argmax())].strip() == "happy" and joy.logits[0] > joy.neutral[0]
    assert anger.pieces[int(anger.shares[:, 0].argmax())].strip() == "mad"
