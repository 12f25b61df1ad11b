import numpy as np
import pytest
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.nbsvm import NbsvmLearner
from foldblend.learners.table import Corpus
from foldblend.learners.tfidf import TfidfLearner
from foldblend.settings.run import RunSettings, TfidfSettings


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_learns_and_predicts_in_order(tmp_path, task):
    corpus = make_corpus(task=task)
    rows = fold_rows(corpus, tmp_path)
    got = TfidfLearner(RunSettings("tfidf"), corpus).train_fold(rows)
    assert got.kind == "logits" and got.oof.dtype == got.test.dtype == np.float32
    assert got.oof.shape == (60, 3) and got.test.shape == (2, 3)
    if task == "multiclass":
        assert (got.oof.argmax(1) == corpus.labels[rows.heldout].argmax(1)).mean() > 0.95
    else:
        assert ((got.oof > 0) == corpus.labels[rows.heldout]).mean() > 0.95
        assert (got.test > 0).tolist() == [[True, False, False], [False, True, True]]
    assert got.score["macro_f1"] > 0.9


def test_a_seed_that_draws_nothing_is_refused(tmp_path):
    """It would make a sibling that is the same to the last bit, and weigh twice in a blend."""
    corpus = make_corpus(task="multiclass")
    rows = fold_rows(corpus, tmp_path)
    with pytest.raises(ValueError, match="seed 1 would change nothing: with one label per row a tfidf run"):
        TfidfLearner(RunSettings("tfidf", seed=1), corpus).train_fold(rows)
    first, second = (NbsvmLearner(RunSettings("nbsvm", seed=seed), corpus).train_fold(rows) for seed in (1, 2))
    assert not np.array_equal(first.test, second.test)
    TfidfLearner(RunSettings("tfidf", seed=1), make_corpus()).train_fold(rows)


def test_two_classes_of_one_label_a_row(tmp_path):
    corpus = make_corpus()
    labels = np.stack([corpus.labels[:, 0], ~corpus.labels[:, 0]], axis=1)
    corpus = Corpus(corpus.texts, labels, ("joy", "other"), "multiclass")
    rows = fold_rows(corpus, tmp_path)
    got = TfidfLearner(RunSettings("tfidf"), corpus).train_fold(rows)
    assert (got.oof.argmax(1) == labels[rows.heldout].argmax(1)).mean() > 0.95


def test_a_label_without_positives_gets_its_log_odds(tmp_path):
    corpus = make_corpus()
    labels = np.concatenate([corpus.labels, np.zeros((240, 1), bool), np.ones((240, 1), bool)], axis=1)
    corpus = Corpus(corpus.texts, labels, (*corpus.label_names, "never", "always"), "multilabel")
    got = TfidfLearner(RunSettings("tfidf"), corpus).train_fold(fold_rows(corpus, tmp_path))
    assert np.unique(got.oof[:, 3]).size == 1 and got.oof[0, 3] < -5
    assert np.unique(got.oof[:, 4]).size == 1 and got.oof[0, 4] > 5


def test_heldout_rows_teach_nothing(tmp_path):
    """Other held-out texts and labels leave the predictions of the test rows as they were."""
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    changed_texts = ("furious unseen words",) * 60 + corpus.texts[60:]
    changed_labels = np.concatenate([~corpus.labels[:60], corpus.labels[60:]])
    changed = Corpus(changed_texts, changed_labels, corpus.label_names, corpus.task)
    before = TfidfLearner(RunSettings("tfidf"), corpus).train_fold(rows)
    after = TfidfLearner(RunSettings("tfidf"), changed).train_fold(rows)
    assert np.array_equal(before.test, after.test)


@pytest.mark.parametrize("off", [{"word_ngrams": (0, 0)}, {"char_ngrams": (0, 0)}])
def test_either_kind_of_ngram_can_be_off(tmp_path, off):
    run = RunSettings("tfidf", tfidf=TfidfSettings(**off))
    corpus = make_corpus()
    assert TfidfLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path)).score["macro_f1"] > 0.9


def test_trained_twice_it_is_the_same_to_the_last_bit(tmp_path, monkeypatch):
    """On several cores too: a solver whose threads share a random state gave other numbers each time."""
    monkeypatch.setenv("FOLDBLEND_THREADS", "4")
    corpus = make_corpus(n=600)
    rows = fold_rows(corpus, tmp_path)
    first, second = (TfidfLearner(RunSettings("tfidf"), corpus).train_fold(rows) for _ in range(2))
    assert np.array_equal(first.oof, second.oof) and np.array_equal(first.test, second.test)
