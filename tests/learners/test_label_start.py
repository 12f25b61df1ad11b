from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus
from transformers import AutoModel, AutoTokenizer

from learners import encoder
from learners.encoder import EncoderLearner
from learners.label_start import SPREAD
from settings.run import LossSettings, ModelSettings, RunSettings, TrainingSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def make_run(folder="sentence-transformers/all-MiniLM-L6-v2", **model):
    settings = ModelSettings(name=str(folder), head_start="label_names", **model)
    return RunSettings("encoder", model=settings, training=TrainingSettings(epochs=1, precision="fp32"))


def embed(folder, text, pooling):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    return states[0] if pooling == "cls" else states.mean(0)


@pytest.mark.parametrize("bias_from_prior", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "label_attention"])
def test_weights_point_where_names_lie_and_training_rows_keep_their_mean(tiny_bert, tmp_path, pooling, bias_from_prior):
    """Text by text, by transformers alone."""
    corpus, run = make_corpus(100), make_run(tiny_bert, pooling=pooling)
    learner = EncoderLearner(replace(run, loss=LossSettings(bias_from_prior=bias_from_prior)), corpus)
    rows = fold_rows(corpus, tmp_path)
    model = learner.build_fold_model(rows, seed=1)
    assert model.training
    named = np.stack([embed(tiny_bert, f"This text expresses {name}.", pooling) for name in corpus.label_names])
    named /= np.linalg.norm(named, axis=1, keepdims=True)
    directions = named - named.mean(0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = model.head.weight.detach().numpy()
    lengths = np.linalg.norm(weights, axis=1)
    assert lengths == pytest.approx(np.full(3, lengths[0]), rel=1e-4)
    assert weights / lengths[:, None] == pytest.approx(directions, abs=1e-4)
    vectors = np.stack([embed(tiny_bert, corpus.texts[row], pooling) for row in rows.train])
    logits = vectors @ weights.T + model.head.bias.detach().numpy()
    prior = learner.head_bias(rows) if bias_from_prior else np.zeros(3)
    assert logits.mean(0) == pytest.approx(prior, abs=1e-3)
    assert logits.std(0).mean() == pytest.approx(SPREAD, rel=1e-3)
    with torch.no_grad():
        assert learner.predict(model, rows.train) == pytest.approx(logits, abs=1e-3)


def test_untaught_minilm_knows_labels_by_their_names(tmp_path):
    """Its real weights; other sentences about the same things give the spread."""
    texts = (
        "My grandmother died and I cannot stop crying", "Rest in peace, we will miss you forever",
        "Thank you so much for your help!", "I am thankful for everything you did",
        "Why would anyone do this? I wonder how it works", "What is this, can somebody tell me?",
    )  # fmt: skip
    labels = np.repeat(np.eye(3, dtype=bool), 2, axis=0)
    corpus = replace(make_corpus(), texts=texts, labels=labels, label_names=("grief", "gratitude", "curiosity"))
    learner = EncoderLearner(make_run(pooling="label_attention"), corpus)
    rows = fold_rows(corpus, tmp_path, 0)
    logits = learner.predict(learner.build_fold_model(rows, seed=1), rows.train)
    assert (logits.argmax(0) // 2).tolist() == [0, 1, 2]
    assert (logits.argmax(1) == labels.argmax(1)).mean() >= 5 / 6


def test_it_learns_from_there_and_its_weights_are_read_back(tiny_bert, tmp_path):
    """`predict_fold` builds its model without the names' texts."""
    corpus = make_corpus(400)
    run = make_run(tiny_bert, pooling="label_attention")
    run = replace(
        run,
        training=replace(run.training, epochs=6, global_batch_size=16),
        optimizer=replace(run.optimizer, lr=5e-3, head_lr=5e-3),
    )
    learner, rows = EncoderLearner(run, corpus), fold_rows(corpus, tmp_path, 80)
    got = learner.train_fold(rows)
    assert ((got.heldout > 0) == corpus.labels[rows.heldout]).mean() > 0.95
    assert learner.predict_fold(rows.checkpoint_dir) == pytest.approx(got.test, abs=1e-4)


def test_names_are_read_as_words(tiny_bert, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(encoder, "start_from_names", lambda model, named, *_: read.append(named))
    corpus = replace(make_corpus(), label_names=("very_glad", "sad", "mad_too"))
    learner = EncoderLearner(make_run(tiny_bert, label_text="it is {label}"), corpus)
    learner.build_fold_model(fold_rows(corpus, tmp_path), seed=1)
    said = ["it is very glad", "it is sad", "it is mad too"]
    assert learner.tokenizer.batch_decode([read[0].row(k)[1:-1] for k in range(3)]) == said


def test_names_that_say_nothing_to_the_encoder_are_refused(tiny_bert, tmp_path):
    """Words that the tokenizer does not know are all the same token."""
    corpus = replace(make_corpus(), label_names=("0", "1", "2"))
    with pytest.raises(ValueError, match="finds no difference between the labels' names.*set it to random"):
        learner = EncoderLearner(make_run(tiny_bert), corpus)
        learner.build_fold_model(fold_rows(corpus, tmp_path), seed=1)


@pytest.mark.parametrize(
    "learner, settings, message",
    [
        ("encoder", {"head_start": "label_names", "head": "mlp"}, "whose fresh dense layer stands between"),
        ("encoder", {"head_start": "label_names", "label_text": "label"}, "expected {label} in it, once"),
        ("encoder", {"label_text": "It is {label}."}, "label_names alone reads it"),
        ("decoder", {"pooling": "last", "head_start": "label_names"}, "an encoder alone starts so"),
    ],
)
def test_settings_that_do_nothing_are_refused(learner, settings, message):
    with pytest.raises(ValueError, match=message):
        RunSettings(learner, model=ModelSettings(**settings))
