from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_corpus import fold_rows, make_corpus
from transformers import AutoModel, AutoTokenizer

from foldblend.learners import embeddings
from foldblend.learners.embeddings import EmbeddingsLearner, embed_texts
from foldblend.learners.nets.pretrained import load_tokenizer
from foldblend.learners.table import Corpus
from foldblend.learners.tokens.tokens import tokenize
from foldblend.settings.run import EmbeddingsSettings, LogisticSettings, RunSettings


@pytest.fixture
def run(tiny_bert):
    frozen = EmbeddingsSettings(str(tiny_bert))
    return RunSettings("embeddings", embeddings=frozen, logistic=LogisticSettings(10.0))


@pytest.fixture
def fp32(monkeypatch):
    monkeypatch.setattr(embeddings, "choose_precision", lambda *_: "no")


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_learns_and_predicts_in_order(run, tmp_path, task):
    corpus = make_corpus(task=task)
    rows = fold_rows(corpus, tmp_path)
    got = EmbeddingsLearner(run, corpus).train_fold(rows)
    assert got.kind == "logits" and got.oof.dtype == got.test.dtype == np.float32
    assert got.oof.shape == (60, 3) and got.test.shape == (2, 3) and got.score["macro_f1"] > 0.9
    if task == "multilabel":
        assert (got.test > 0).tolist() == [[True, False, False], [False, True, True]]
    else:
        assert (got.oof.argmax(1) == corpus.labels[rows.heldout].argmax(1)).mean() > 0.9


def test_an_embedding_is_the_mean_of_the_last_states(tiny_bert, fp32):
    """Text by text without padding, as the model's authors describe it; batches and order change nothing."""
    texts = ("happy", "today it was plain dull calm and the day", "sad the", "angry " * 100)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    ours = embed_texts(tiny_bert, tokenize(load_tokenizer(tiny_bert), texts, 32))
    assert ours.dtype == np.float32 and ours.shape == (4, 32)
    for text, mine in zip(texts, ours, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, truncation=True, max_length=32, return_tensors="pt")).last_hidden_state
        assert mine == pytest.approx(states[0].mean(0).numpy(), abs=1e-5)


def test_the_precision_is_one_that_the_encoder_stands(run, tiny_bert, tmp_path, monkeypatch):
    """By the architecture that its config names, as a fine-tuning's: DeBERTa overflows fp16."""
    asked = []
    monkeypatch.setattr(embeddings, "choose_precision", lambda *given: asked.append(given[2:]) or "no")
    EmbeddingsLearner(run, make_corpus()).train_fold(fold_rows(make_corpus(), tmp_path))
    assert asked == [("bert",)] * 2


def test_texts_are_embedded_once_for_all_folds(run, tmp_path, monkeypatch):
    calls, original = [], embed_texts

    def counted(*given, **more):
        calls.append(given)
        return original(*given, **more)

    monkeypatch.setattr(embeddings, "embed_texts", counted)
    corpus = make_corpus()
    learner = EmbeddingsLearner(run, corpus)
    assert not calls  # a process that does not train embeds nothing
    for n_heldout in (60, 40):
        learner.train_fold(fold_rows(corpus, tmp_path, n_heldout))
    assert len(calls) == 1


def test_features_are_standardised_by_the_training_rows(run, tmp_path):
    corpus = make_corpus()
    learner = EmbeddingsLearner(run, corpus)
    rows = fold_rows(corpus, tmp_path)
    train, heldout, _ = learner.fold_features(rows)
    taught = learner.embeddings[rows.train].astype(np.float64)
    assert train.mean(0) == pytest.approx(0, abs=1e-4) and train.std(0) == pytest.approx(1, abs=1e-3)
    expected = (learner.embeddings[rows.heldout] - taught.mean(0)) / taught.std(0)
    assert heldout == pytest.approx(expected, abs=1e-4)


def test_a_dimension_that_never_moves_is_left_out(run, tmp_path):
    corpus = make_corpus()
    learner = EmbeddingsLearner(run, corpus)
    learner.embeddings[:, 3] = np.random.default_rng(0).normal(0, 1e-30, len(corpus.texts))
    learner.embeddings[:, 5] = 0.1
    for part in learner.fold_features(fold_rows(corpus, tmp_path)):
        assert (part[:, [3, 5]] == 0).all() and np.isfinite(part).all()


def test_heldout_rows_teach_nothing(run, tmp_path, fp32):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    texts = ("furious unseen words",) * 60 + corpus.texts[60:]
    labels = np.concatenate([~corpus.labels[:60], corpus.labels[60:]])
    before = EmbeddingsLearner(run, corpus).train_fold(rows)
    after = EmbeddingsLearner(run, Corpus(texts, labels, corpus.label_names, corpus.task)).train_fold(rows)
    assert before.test == pytest.approx(after.test, abs=1e-3)  # batches of other texts round otherwise


def test_a_label_without_positives_gets_its_log_odds(run, tmp_path):
    corpus = make_corpus()
    labels = np.concatenate([corpus.labels, np.zeros((240, 1), bool)], axis=1)
    corpus = Corpus(corpus.texts, labels, (*corpus.label_names, "never"), "multilabel")
    got = EmbeddingsLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path))
    assert np.unique(got.oof[:, 3]).size == 1 and got.oof[0, 3] < -5


def test_weights_that_are_missing_are_named(run, tiny_bert, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    learner = EmbeddingsLearner(replace(run, embeddings=EmbeddingsSettings(str(folder))), make_corpus())
    with pytest.raises(ValueError, match="1 weights are missing, first 'encoder.layer.1.output.dense.weight'"):
        learner.train_fold(fold_rows(make_corpus(), tmp_path))


def test_a_model_that_is_nowhere_is_named_by_its_setting(run, tmp_path):
    learner = EmbeddingsLearner(replace(run, embeddings=EmbeddingsSettings("nobody/nothing")), make_corpus())
    with pytest.raises(ValueError, match="embeddings.name 'nobody/nothing': no such folder.*--embeddings.name FOLDER"):
        learner.train_fold(fold_rows(make_corpus(), tmp_path))
