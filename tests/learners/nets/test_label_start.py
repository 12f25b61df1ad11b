from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus
from transformers import AutoModel, AutoTokenizer

from foldblend.learners import encoder
from foldblend.learners.cpu import layers
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.nets.classifier import SPREAD
from foldblend.settings.nets import LossSettings, ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def make_run(folder="sentence-transformers/all-MiniLM-L6-v2", **model):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(folder), **{"head_init": "label_names"} | model),
        training=TrainingSettings(epochs=2, global_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3),
    )


def start(learner, rows):
    model = learner.build_fold_model(rows, seed=1)
    learner.start_model(model, rows)
    return model


def head_of(folder, corpus, rows, **model):
    return start(EncoderLearner(make_run(folder, **model), corpus), rows).head.state_dict()


def embed(folder, texts, pooling):
    """Text by text, by transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy() for text in texts]
    return np.stack([each[0] if pooling == "cls" else each.mean(0) for each in states])


@pytest.mark.parametrize("bias_from_prior", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "label_attention"])
def test_weights_point_where_names_lie_and_training_rows_keep_their_mean(
    tiny_bert, tmp_path, monkeypatch, pooling, bias_from_prior
):
    # a random BERT's names differ by little, so their directions magnify rounding a hundredfold: torch's own layers
    # here, on every CPU; the fused ones are held to torch's in test_fused_layers.py
    monkeypatch.setattr(layers, "is_available", lambda: False)
    corpus, run = make_corpus(100), make_run(tiny_bert, pooling=pooling)
    learner = EncoderLearner(replace(run, loss=LossSettings(bias_from_prior=bias_from_prior)), corpus)
    rows = fold_rows(corpus, tmp_path)
    model = start(learner, rows)
    assert model.training
    named = embed(tiny_bert, [f"This text expresses {name}." for name in corpus.label_names], pooling)
    named /= np.linalg.norm(named, axis=1, keepdims=True)
    directions = named - named.mean(0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = model.head.weight.detach().numpy()
    lengths = np.linalg.norm(weights, axis=1)
    assert lengths == pytest.approx(np.full(3, lengths[0]), rel=1e-4)
    assert weights / lengths[:, None] == pytest.approx(directions, abs=1e-4)
    texts = [corpus.texts[row] for row in rows.train]
    logits = embed(tiny_bert, texts, pooling) @ weights.T + model.head.bias.detach().numpy()
    prior = learner.head_bias(rows) if bias_from_prior else np.zeros(3)
    assert logits.mean(0) == pytest.approx(prior, abs=1e-3)
    assert logits.std(0).mean() == pytest.approx(SPREAD, rel=1e-3)
    assert learner.predict(model, rows.train) == pytest.approx(logits, abs=1e-3)


def test_some_of_many_rows_stand_for_all(tiny_bert, tmp_path):
    corpus = make_corpus(2000)
    learner, rows = EncoderLearner(make_run(tiny_bert), corpus), fold_rows(corpus, tmp_path)
    logits = learner.predict(start(learner, rows), rows.train)
    assert logits.mean(0) == pytest.approx(learner.head_bias(rows), abs=0.15)
    assert logits.std(0).mean() == pytest.approx(SPREAD, rel=0.2)


def test_untaught_minilm_knows_labels_by_their_names(tmp_path):
    """Its real weights; the spread is that of other sentences."""
    judged = (
        "My grandmother died and I cannot stop crying", "Rest in peace, we will miss you forever",
        "Thank you so much for your help!", "I am thankful for everything you did",
        "Why would anyone do this? I wonder how it works", "What is this, can somebody tell me?",
    )  # fmt: skip
    others = "The train leaves at nine", "He plays for another team now", "That is a good idea", "I hate this weather"
    labels = np.zeros((10, 3), bool)
    labels[:6] = np.repeat(np.eye(3, dtype=bool), 2, axis=0)
    names = "grief", "gratitude", "curiosity"
    corpus = replace(make_corpus(), texts=(*judged, *others), labels=labels, label_names=names)
    learner, rows = EncoderLearner(make_run(pooling="label_attention"), corpus), fold_rows(corpus, tmp_path, 6)
    logits = learner.predict(start(learner, rows), rows.heldout)
    assert (np.argsort(-logits, axis=0)[:2] // 2 == np.arange(3)).all()  # of each label its two texts lead


def test_it_starts_once_and_a_finished_fold_is_read_back_without_names(tiny_bert, tmp_path, monkeypatch):
    starts, begin = [], encoder.start_from_names
    monkeypatch.setattr(encoder, "start_from_names", lambda *given: starts.append(1) or begin(*given))
    corpus = make_corpus()
    learner, rows = EncoderLearner(make_run(tiny_bert, pooling="label_attention"), corpus), fold_rows(corpus, tmp_path)
    first = learner.train_fold(rows)  # which loads the saved fold into another model
    again = learner.train_fold(rows)
    assert starts == [1] and np.array_equal(first.oof, again.oof)
    assert learner.predict_fold(rows.checkpoint_dir) == pytest.approx(first.test, abs=1e-4)


def test_names_are_read_as_words_and_whole(tiny_bert, tmp_path, monkeypatch):
    """Where the run cuts its own texts, too."""
    read = []
    monkeypatch.setattr(encoder, "start_from_names", lambda model, named, *_: read.append(named) or [])
    corpus = replace(make_corpus(), label_names=("very_glad", "sad", "mad_too"))
    run = make_run(tiny_bert, label_text="it is {label}", max_length_tokens=4)
    learner = EncoderLearner(run, corpus)
    start(learner, fold_rows(corpus, tmp_path))
    said = ["it is very glad", "it is sad", "it is mad too"]
    assert learner.tokenizer.batch_decode([read[0].row(k)[1:-1] for k in range(3)]) == said


@pytest.mark.parametrize(
    "names, left", [(("0", "1", "2"), [0, 1, 2]), (("0", "joy", "1"), [0, 2]), (("glad", "GLAD", "sad"), [0, 1])]
)
def test_labels_whose_names_are_the_same_to_the_encoder_start_at_random(tiny_bert, tmp_path, capsys, names, left):
    """Digits are not in its word list, and letters have no case."""
    corpus = replace(make_corpus(), label_names=names)
    rows = fold_rows(corpus, tmp_path)
    fresh, started = (head_of(tiny_bert, corpus, rows, head_init=how) for how in ("random", "label_names"))
    for name in ("weight", "bias"):
        same = (fresh[name] == started[name]).reshape(3, -1)
        assert same.all(1).tolist() == [k in left for k in range(3)]
    assert f"apart: {', '.join(names[k] for k in left)}\n" in capsys.readouterr().err


def test_nothing_is_said_of_names_that_differ_nor_of_a_single_label(tiny_bert, tmp_path, capsys):
    corpus = make_corpus()
    one = replace(corpus, labels=corpus.labels[:, :1], label_names=corpus.label_names[:1])
    for each in (corpus, one):
        rows = fold_rows(each, tmp_path)
        fresh, started = (head_of(tiny_bert, each, rows, head_init=how) for how in ("random", "label_names"))
        assert not (fresh["weight"] == started["weight"]).any()
    assert "at random" not in capsys.readouterr().err


def test_rows_that_are_all_alike_leave_the_head_as_it_is(tiny_bert, tmp_path, capsys):
    corpus = replace(make_corpus(), texts=("today it was",) * 242)
    rows = fold_rows(corpus, tmp_path)
    fresh, started = (head_of(tiny_bert, corpus, rows, head_init=how) for how in ("random", "label_names"))
    assert all(torch.equal(fresh[name], started[name]) for name in fresh)
    assert "apart: joy, sadness, anger\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "learner, settings, message",
    [
        ("encoder", {"head_init": "label_names", "head": "mlp"}, "whose new dense layer comes first"),
        ("encoder", {"head_init": "label_names", "label_text": "label"}, "expected {label} in it, once"),
        ("encoder", {"label_text": "It is {label}."}, "model.head_init is random; only label_names reads it"),
        ("decoder", {"pooling": "last", "head_init": "label_names"}, "learner is decoder; only encoder reads it"),
    ],
)
def test_settings_that_do_nothing_are_refused(learner, settings, message):
    with pytest.raises(ValueError, match=message):
        RunSettings(learner, model=ModelSettings(**settings))


def test_a_text_of_a_label_that_is_too_long_is_refused(tiny_bert, tmp_path):
    corpus = make_corpus()
    with pytest.raises(ValueError, match="model.label_text with a label's name has 310 tokens, BertModel has 64"):
        head_of(tiny_bert, corpus, fold_rows(corpus, tmp_path), label_text="today it was {label} " + "and " * 100)
