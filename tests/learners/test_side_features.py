"""Numbers and categories beside the text: every learner but a generator learns them and saves how, fold by fold."""

from dataclasses import replace

import numpy as np
import pytest
from toy_corpus import fold_rows, make_corpus

from foldblend.errors import UserError
from foldblend.features import Features
from foldblend.learners.table import Corpus, build_learner
from foldblend.learners.training.weights import check_training, describe_training, read_identity
from foldblend.settings.nets import (
    AdapterSettings,
    AugmentationSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
)
from foldblend.settings.records import settings_of
from foldblend.settings.run import EmbeddingsSettings, RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def runs(tiny_bert, tiny_decoder):
    """Name -> a run of few steps that uses features."""
    training = TrainingSettings(epochs=1, global_batch_size=32, precision="fp32", collapse_check_after_steps=0)
    shared = {"training": training, "optimizer": OptimizerSettings(lr=1e-3, head_lr=1e-3), "use_features": True}
    encoder = RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), **shared)
    decoder = ModelSettings(name=str(tiny_decoder("qwen2")), pooling="last")
    return {
        "tfidf": RunSettings("tfidf", use_features=True),
        "nbsvm": RunSettings("nbsvm", use_features=True),
        "embeddings": RunSettings("embeddings", embeddings=EmbeddingsSettings(name=str(tiny_bert)), use_features=True),
        "encoder": encoder,
        "label attention": replace(encoder, model=replace(encoder.model, pooling="label_attention")),
        "mlp": replace(encoder, model=replace(encoder.model, head="mlp"), loss=replace(encoder.loss, r_drop_alpha=1.0)),
        "lora": RunSettings("decoder", model=decoder, adapter=AdapterSettings(rank=4), **shared),
    }


NAMES = ["tfidf", "nbsvm", "embeddings", "encoder", "label attention", "mlp", "lora"]


def beside(corpus, seed=0):
    """A number that says the first label, a category that says the second, and one of noise."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([corpus.labels, [[1, 0, 0], [0, 1, 0]]])  # of the two test rows
    numbers = np.where(labels[:, 0], 40.0, 20.0) + rng.normal(0, 3, len(labels))
    numbers[rng.random(len(numbers)) < 0.1] = np.nan
    words = np.where(labels[:, 1], "yes", "no").astype(object)
    noise = rng.choice(["a", "b", "c"], len(labels)).astype(object)
    return Features(("age",), numbers[:, None], ("country", "noise"), np.stack([words, noise], 1))


def with_features(corpus):
    """Texts that say nothing; only the features tell."""
    return replace(corpus, texts=tuple(f"today it was the plain {'ab'[k % 2]}" for k in range(len(corpus.texts))),
                   features=beside(corpus))  # fmt: skip


def new_corpus(corpus):
    """The test rows alone."""
    rows, nothing = corpus.test_rows, np.zeros((0, len(corpus.label_names)), bool)
    texts = tuple(corpus.texts[row] for row in rows)
    return Corpus(texts, nothing, corpus.label_names, corpus.task, features=corpus.features.take(rows))


@pytest.mark.parametrize("name", NAMES)
def test_features_that_carry_the_labels_lift_the_score(runs, tmp_path, name):
    corpus = with_features(make_corpus(160))
    rows = fold_rows(corpus, tmp_path, 40)
    with_them = build_learner(runs[name], corpus).train_fold(rows)
    auc = lambda got: np.mean([_auc(got.oof[:, k], corpus.labels[rows.heldout, k]) for k in (0, 1)])  # noqa: E731
    assert auc(with_them) > 0.95
    plain = replace(corpus, features=None)
    without = build_learner(replace(runs[name], use_features=False), plain)
    rows = replace(rows, checkpoint_dir=tmp_path / "plain")
    try:
        assert auc(without.train_fold(rows)) < 0.7
    except UserError as error:  # a net that learns nothing is refused
        assert "constant" in str(error)


def _auc(scores, labels):
    yes, no = scores[labels], scores[~labels]
    return (yes[:, None] > no).mean()


@pytest.mark.parametrize("name", NAMES)
def test_new_rows_are_read_as_the_fold_reads_them(runs, tmp_path, name):
    corpus = with_features(make_corpus(96))
    rows = fold_rows(corpus, tmp_path, 32)
    got = build_learner(runs[name], corpus).train_fold(rows)
    again = build_learner(runs[name], new_corpus(corpus)).predict_fold(rows.checkpoint_dir)
    assert again == pytest.approx(got.test, abs=1e-5)
    assert np.abs(got.test[0] - got.test[1]).max() > 0.1
    fold = describe_training(runs[name], corpus, rows)["fold_rows_sha256"]
    check_training(rows.checkpoint_dir, settings_of(runs[name]), fold)


@pytest.mark.parametrize("name", ["tfidf", "encoder"])
def test_rows_outside_of_training_change_nothing_of_the_fold(runs, tmp_path, name):
    corpus = with_features(make_corpus(96))
    rows = fold_rows(corpus, tmp_path, 32)
    other = replace(
        corpus.features, numbers=corpus.features.numbers.copy(), categories=corpus.features.categories.copy()
    )
    other.numbers[rows.heldout], other.categories[rows.heldout] = 1e6, "elsewhere"
    other.numbers[corpus.test_rows[:1]] = np.nan
    got = build_learner(runs[name], corpus).train_fold(rows)
    changed = replace(rows, checkpoint_dir=tmp_path / "changed")
    after = build_learner(runs[name], replace(corpus, features=other)).train_fold(changed)
    assert after.test[1] == pytest.approx(got.test[1], abs=1e-6)
    assert np.abs(after.oof - got.oof).max() > 0.1
    fitted = [read_identity(each.checkpoint_dir / "weights.safetensors")["features"] for each in (rows, changed)]
    assert fitted[0] == fitted[1]


def test_two_folds_of_one_learner_read_them_each_by_its_own_rows(runs, tmp_path):
    corpus = with_features(make_corpus(96))
    first = fold_rows(corpus, tmp_path, 32)
    second = replace(first, fold=1, train=np.arange(64), heldout=np.arange(64, 96), checkpoint_dir=tmp_path / "fold1")
    learner = build_learner(runs["encoder"], corpus)
    got = [learner.train_fold(rows) for rows in (first, second)]
    alone = build_learner(runs["encoder"], corpus).train_fold(replace(second, checkpoint_dir=tmp_path / "alone"))
    assert alone.oof.tobytes() == got[1].oof.tobytes()


def test_dropped_tokens_keep_features_and_joined_texts_are_refused(runs, tmp_path):
    corpus = with_features(make_corpus(96))
    run = replace(runs["encoder"], augmentation=AugmentationSettings(token_dropout=0.2))
    build_learner(run, corpus).train_fold(fold_rows(corpus, tmp_path, 32))
    run = replace(runs["encoder"], augmentation=AugmentationSettings(mix_probability=0.2))
    with pytest.raises(UserError, match="joins the texts of two rows, whose features cannot be joined"):
        build_learner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "mixed", 32))


def test_one_class_per_row(runs, tmp_path):
    corpus = make_corpus(96, "multiclass")
    corpus = with_features(corpus)
    for name in ("tfidf", "nbsvm", "encoder"):
        rows = replace(fold_rows(corpus, tmp_path, 32), checkpoint_dir=tmp_path / name)
        got = build_learner(runs[name], corpus).train_fold(rows)
        assert got.score["accuracy"] > 0.9, name


def test_a_generator_does_not_read_features():
    with pytest.raises(UserError, match="a generator reads nothing but text.*text.columns and text.template"):
        RunSettings("generator", use_features=True)
