"""Runs that learn shares in the place of 0 and 1."""

from dataclasses import replace

import numpy as np
import pytest
from toy_corpus import fold_rows, make_corpus

from foldblend.commands import train
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.generator import GeneratorLearner
from foldblend.learners.nbsvm import NbsvmLearner
from foldblend.learners.table import Corpus, learns_shares
from foldblend.learners.tfidf import TfidfLearner
from foldblend.learners.trained import check_folds, predict_folds
from foldblend.ledger.records import read_record
from foldblend.settings.loading import run_from_settings
from foldblend.settings.nets import AnswerSettings, LossSettings, ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
HIGH, LOW = 0.7, 0.2


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert), head_dropout=0.0),
        training=TrainingSettings(epochs=6, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3),
        loss=LossSettings(soft_targets="shares.csv"),
    )


def soften(corpus):
    """The held-out rows (the first 60) say the opposite, so whoever learns from them shows it."""
    soft = np.where(corpus.labels, HIGH, LOW).astype(np.float32)
    soft[:60] = 1 - soft[:60]
    return replace(corpus, soft_targets=soft)


def test_the_model_learns_the_shares_and_is_scored_by_the_labels(run, tmp_path):
    corpus = soften(make_corpus(n=400))
    rows = fold_rows(corpus, tmp_path)
    learner = EncoderLearner(run, corpus)
    got = learner.train_fold(rows)
    probs, labels = 1 / (1 + np.exp(-got.oof)), corpus.labels[rows.heldout]
    assert probs[labels].mean() == pytest.approx(HIGH, abs=0.06)
    assert probs[~labels].mean() == pytest.approx(LOW, abs=0.06)
    assert got.score["macro_f1"] > 0.9
    hard = learner.heldout_loss(learner.build_fold_loss(rows), got.oof, rows)
    assert hard == pytest.approx(-np.log(np.where(labels, probs, 1 - probs)).mean(), rel=1e-3)
    with pytest.raises(ValueError, match="data_sha256"):
        EncoderLearner(run, replace(corpus, soft_targets=corpus.soft_targets / 2)).train_fold(rows)


def test_labels_alone_are_no_soft_targets(run):
    with pytest.raises(ValueError, match="loss.soft_targets is shares.csv, but the corpus has labels only"):
        EncoderLearner(run, make_corpus())


def test_a_file_of_shares_from_training_to_prediction(paths, toy_competition, capsys):
    """A changed file is another training; predicting needs none."""
    path = paths.data("toy") / "shares.csv"
    shares = [f"r{row},0.{row % 9 + 1},0.5,0.25" for row in range(90)]
    path.write_text("\n".join(["id,joy,sadness,anger", *shares, ""]))
    given = ["--competition", "toy", "--run", "tiny", "--loss.soft_targets", "shares.csv", "--training.epochs", "1"]
    given += ["--training.collapse_check_after_steps", "0"]
    train.main([*given, "--fold", "0"])
    train.main([*given, "--fold", "0"])
    assert "already trained: fold 0" in capsys.readouterr().out
    path.write_text(path.read_text().replace("r3,0.4", "r3,0.9"))
    with pytest.raises(ValueError, match=r"loss.soft_targets_sha256 was \w+, is now \w+ \(fold0\)"):
        train.main([*given, "--fold", "1"])
    path.unlink()
    settings = read_record(paths.oof("toy") / "tiny" / "fold0.json")["settings"]
    folder = paths.checkpoints("toy", "tiny") / "fold0"
    fold = np.loadtxt(paths.folds("toy"), delimiter=",", skiprows=1, usecols=1, dtype=np.int64)
    check_folds(settings, fold, [folder], [""], [[]])
    new = Corpus(("today it was happy",), np.zeros((0, 3), bool), ("joy", "sadness", "anger"), "multilabel")
    (logits,) = predict_folds(run_from_settings(settings, "fold0.json"), new, [folder], print)
    assert logits.shape == (1, 3) and np.isfinite(logits).all()


def test_unknown_labels_teach_nothing_and_are_not_scored(run, tmp_path):
    """A third of the labels is hidden, and says the opposite under its mask."""
    corpus = make_corpus(n=400)
    known = np.random.default_rng(5).random(corpus.labels.shape) > 0.35
    lied = replace(corpus, labels=np.where(known, corpus.labels, False), known=known)
    rows = fold_rows(corpus, tmp_path)
    run = replace(run, loss=LossSettings())
    learner = EncoderLearner(run, lied)
    got = learner.train_fold(rows)
    assert ((got.oof > 0) == corpus.labels[rows.heldout]).mean() > 0.9
    assert got.score["macro_f1"] > 0.8
    other = EncoderLearner(run, replace(lied, labels=corpus.labels | ~known)).train_fold(
        fold_rows(corpus, tmp_path / "o")
    )
    assert np.array_equal(got.oof, other.oof)  # whatever the mask hides; in a score it must be False
    with pytest.raises(ValueError, match="loss.name is zlpr, which needs every label of a row"):
        EncoderLearner(replace(run, loss=LossSettings(name="zlpr")), lied).train_fold(fold_rows(corpus, tmp_path / "b"))


@pytest.mark.parametrize("learner", [TfidfLearner, NbsvmLearner])
def test_linear_learners_learn_shares_and_skip_unknown_labels(learner, tmp_path):
    corpus = make_corpus(n=400)
    settings = RunSettings("tfidf" if learner is TfidfLearner else "nbsvm")
    soft = replace(corpus, soft_targets=np.where(corpus.labels, HIGH, LOW).astype(np.float32))
    probs = 1 / (1 + np.exp(-learner(settings, soft).train_fold(fold_rows(corpus, tmp_path)).oof))
    labels = corpus.labels[:60]
    assert probs[labels].mean() == pytest.approx(HIGH, abs=0.12)  # regularised, so not quite there
    assert probs[~labels].mean() == pytest.approx(LOW, abs=0.12)
    known = np.random.default_rng(5).random(corpus.labels.shape) > 0.35
    lied = replace(corpus, labels=corpus.labels & known, known=known)
    got = learner(settings, lied).train_fold(fold_rows(corpus, tmp_path / "b"))
    assert ((got.oof > 0) == labels).mean() > 0.95 and got.score["macro_f1"] > 0.9
    hidden = replace(lied, labels=corpus.labels | ~known)
    other = learner(settings, hidden).train_fold(fold_rows(corpus, tmp_path / "o"))
    assert np.array_equal(got.oof, other.oof)  # whatever the mask hides; in a score it must be False
    absent = corpus.labels.copy()
    absent[60:, 0] = False  # a fold whose training rows have no positive of a label
    got = learner(settings, replace(corpus, labels=absent)).train_fold(fold_rows(corpus, tmp_path / "c"))
    assert np.isfinite(got.oof).all() and (got.oof[:, 0] < -3).all()


def test_a_list_of_all_labels_needs_to_know_them(run):
    corpus = make_corpus()
    known = replace(corpus, known=np.ones_like(corpus.labels))
    settings = RunSettings("generator", model=ModelSettings(name=run.model.name), answer=AnswerSettings(form="list"))
    with pytest.raises(ValueError, match="answer.form is list, which names all labels of a row"):
        GeneratorLearner(settings, known)
    assert not learns_shares(settings) and learns_shares(replace(settings, answer=AnswerSettings(form="yes_no")))
    assert learns_shares(RunSettings("tfidf")) and not learns_shares(replace(run, loss=LossSettings(name="zlpr")))
