from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.linear import learner as logistic
from foldblend.learners.nbsvm import NbsvmLearner, log_count_ratios
from foldblend.learners.table import Corpus
from foldblend.settings.run import LogisticSettings, NbsvmSettings, RunSettings, TfidfSettings

RUN = RunSettings("nbsvm", logistic=LogisticSettings(0.05))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_learns_and_predicts_in_order(tmp_path, task):
    corpus = make_corpus(task=task)
    rows = fold_rows(corpus, tmp_path)
    got = NbsvmLearner(RUN, corpus).train_fold(rows)
    assert got.kind == "logits" and got.oof.dtype == got.test.dtype == np.float32
    assert got.oof.shape == (60, 3) and got.test.shape == (2, 3) and got.score["macro_f1"] > 0.9
    if task == "multilabel":
        assert (got.test > 0).tolist() == [[True, False, False], [False, True, True]]
    else:
        assert (got.oof < 0).all() and got.oof.argmax(1).tolist() == corpus.labels[:60].argmax(1).tolist()


def test_ratios_by_hand():
    """Two words: the first twice among positives, once among negatives; the second once among negatives."""
    features = sp.csr_matrix(np.float32([[1, 0], [1, 0], [1, 1]]))
    ratios = log_count_ratios(features, np.array([[True], [True], [False]]), 1.0)
    positive, negative = np.array([3, 1]) / 4, np.array([2, 2]) / 4
    assert ratios[:, 0] == pytest.approx(np.log(positive / negative))


def test_it_is_the_papers_model(tmp_path, monkeypatch):
    """Presence times ratio, written out label by label, under scikit-learn's regression."""
    monkeypatch.setattr(logistic, "GAP", 1e-7)
    words = TfidfSettings(word_ngrams=(1, 2), char_ngrams=(0, 0), min_rows=1)
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    learner = NbsvmLearner(replace(RUN, tfidf=words, nbsvm=NbsvmSettings(0.5)), corpus)
    train, heldout, _ = (part.toarray().astype(float) for part in learner.fold_features(rows))
    assert set(train.ravel()) == {0.0, 1.0}  # presence: words that repeat count once, and no row is scaled
    got = learner.train_fold(rows)
    for k in range(3):
        there = corpus.labels[rows.train, k]
        p, q = 0.5 + train[there].sum(0), 0.5 + train[~there].sum(0)
        ratio = np.append(np.log((p / p.sum()) / (q / q.sum())), 1.0)  # the bias is a feature of 1
        with_bias = [np.hstack([part, np.ones((len(part), 1))]) * ratio for part in (train, heldout)]
        model = LogisticRegression(C=0.05, class_weight="balanced", fit_intercept=False, tol=1e-9, max_iter=5000)
        expected = model.fit(with_bias[0], there).decision_function(with_bias[1])
        assert got.oof[:, k] == pytest.approx(expected, abs=5e-3)


def test_heldout_rows_teach_nothing(tmp_path):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    texts = ("furious unseen words",) * 60 + corpus.texts[60:]
    labels = np.concatenate([~corpus.labels[:60], corpus.labels[60:]])
    before = NbsvmLearner(RUN, corpus).train_fold(rows)
    after = NbsvmLearner(RUN, Corpus(texts, labels, corpus.label_names, corpus.task)).train_fold(rows)
    assert np.array_equal(before.test, after.test)
