"""What a fold learns beside its own rows: drawn by epochs, weighed, and a teacher's probabilities."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.embeddings import EmbeddingsLearner
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.lessons import Source, Teacher, build_lesson, mix_targets
from foldblend.learners.losses.base import distil_rows
from foldblend.learners.losses.named import BinaryCrossEntropy
from foldblend.learners.nbsvm import NbsvmLearner
from foldblend.learners.tfidf import TfidfLearner
from foldblend.learners.training import loop
from foldblend.learners.training.loop import draw_epoch
from foldblend.settings.nets import LossSettings, ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
nan = np.float32("nan")


def source(probs, weights=None, forbidden=None, n_folds=3, **more):
    probs = np.float32(probs)
    probs = probs if probs.ndim == 3 else probs[None]
    n = probs.shape[1]
    weights = np.ones((1, n), np.float32) if weights is None else np.float32(weights).reshape(-1, n)
    forbidden = np.zeros((n, n_folds), bool) if forbidden is None else np.array(forbidden, bool)
    return Source("extra.csv", probs, weights, forbidden, **more)


def lesson_of(sources, fold=0, teacher=None, n_train=4):
    labels = np.arange(2 * n_train).reshape(n_train, 2) % 3 == 0
    return build_lesson(fold, np.arange(n_train), labels, sources, 10, teacher)


def test_only_rows_that_may_teach_the_fold_are_in_its_lesson():
    probs = [[[1, 0], [0, 1], [1, 1], [nan, nan]], [[0, 0], [1, 1], [0, 1], [1, 1]]]
    one = source(probs, weights=[[1, 1, 0, 1], [1, 2, 1, 1]], forbidden=[[1, 0], [0, 0], [0, 0], [0, 0]])
    first, second = lesson_of([one], 0), lesson_of([one], 1)
    assert first.rows.tolist() == [0, 1, 2, 3, 11] and first.targets.dtype == bool and first.is_plain
    assert second.rows.tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert second.targets[4:].tolist() == [[0, 0], [1, 1], [0, 1], [1, 1]]  # the set of its fold
    assert second.weights.tolist() == [1, 1, 1, 1, 1, 2, 1, 1]
    whole = lesson_of([one], 1_000_000)  # a training on all rows: the mean of the sets, nothing is forbidden
    assert whole.rows.tolist() == [0, 1, 2, 3, 10, 11, 12] and whole.targets[4].tolist() == [0.5, 0]


def test_epochs_draw_shares_limits_and_first_epochs():
    rng = np.random.default_rng(0)
    half, few, early = (
        source(np.ones((n, 2)), **more)
        for n, more in ((3, {"share": 0.5}), (9, {"most_rows": 2}), (5, {"first_epochs": 1}))
    )
    lesson = lesson_of([half, few, early], n_train=8)
    drawn = [lesson.draw_extra(epoch, rng) for epoch in range(3)]
    assert list(map(len, drawn)) == [8 + 2 + 5, 8 + 2, 8 + 2]
    counts = np.bincount(drawn[1], minlength=27)[10:13]
    assert counts.sum() == 8 and set(counts) <= {2, 3}  # all of a small source come equally often
    assert lesson.at_once(0).rows[:8].tolist() == list(range(8)) and len(lesson.at_once(0).rows) == 8 + 15


def test_targets_are_mixed_where_both_are_known():
    mixed = mix_targets(np.float32([[1, 0, nan]]), np.float32([[0.5, nan, 0.25]]), 0.5)
    assert mixed.tolist() == [[0.75, 0, 0.25]]
    teacher = Teacher(np.full((1, 4, 2), 0.5, np.float32), mix=0.25)
    assert lesson_of([], teacher=teacher).targets[0].tolist() == [0.875, 0.125]


@pytest.mark.parametrize("kind", ["bce", "kl"])
def test_distillation_at_temperature_1_has_the_gradient_of_soft_targets(kind):
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    probs = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    distil_rows(logits, probs, kind, 1.0, "multilabel").sum().backward()
    got, logits.grad = logits.grad, None
    BinaryCrossEntropy(torch.ones(3))(logits, probs).backward()
    torch.testing.assert_close(got, logits.grad)


def test_distillation_of_one_label_a_row_is_the_divergence_of_distributions():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
    probs = torch.tensor([[0.7, 0.2, 0.1], [float("nan")] * 3])
    temperature = 2.0
    wanted, said = (probs[:1].log() / 2).softmax(1), (logits[:1] / 2).softmax(1)
    divergence = (wanted * (wanted / said).log()).sum() * temperature**2
    rows = distil_rows(logits, probs, "kl", temperature, "multiclass")
    torch.testing.assert_close(rows, torch.stack([divergence, torch.tensor(0.0)]))
    assert distil_rows(probs[:1].log(), probs[:1], "kl", 3.0, "multiclass").item() == pytest.approx(0, abs=1e-6)


# ---------- learners.


def with_lies(corpus, weights, **more):
    """The corpus with its training rows' texts once more, with the opposite labels."""
    n = len(corpus.labels)
    lies = source(~corpus.labels, np.full((1, n), weights), n_folds=3, **more)
    return replace(corpus, texts=(*corpus.texts, *corpus.texts[:n]), sources=(lies,))


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert), head_dropout=0.0),
        training=TrainingSettings(epochs=4, global_batch_size=16, precision="fp32", collapse_check_after_steps=0),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3),
    )


@pytest.mark.parametrize("learner", ["tfidf", "nbsvm", "embeddings", "encoder"])
@pytest.mark.parametrize("weight, right", [(0.05, True), (20.0, False)])
def test_every_learner_weighs_extra_rows(learner, weight, right, run, tiny_bert, tmp_path):
    kinds = {"tfidf": TfidfLearner, "nbsvm": NbsvmLearner, "embeddings": EmbeddingsLearner, "encoder": EncoderLearner}
    settings = run if learner == "encoder" else RunSettings(learner)
    if learner == "embeddings":
        settings = replace(settings, embeddings=replace(settings.embeddings, name=str(tiny_bert)))
    corpus = with_lies(make_corpus(n=240), weight)
    got = kinds[learner](settings, corpus).train_fold(fold_rows(corpus, tmp_path))
    agrees = ((got.oof > 0) == corpus.labels[:60]).mean()
    assert agrees > 0.75 if right else agrees < 0.25
    assert got.test.shape == (2, 3)


def test_first_epochs_end_with_own_rows(run, tmp_path):
    corpus = with_lies(make_corpus(n=240), 1.0, first_epochs=1)
    learner, rows = EncoderLearner(run, corpus), fold_rows(corpus, tmp_path)
    assert [len(draw_epoch(learner, rows, epoch)) for epoch in range(3)] == [180 + 240, 180, 180]
    seen: list[dict] = []
    noted = SimpleNamespace(start=lambda step: None, add=seen.append)
    learner.train_fold(replace(rows, history=noted))
    (last,) = seen[-1:]
    assert (last["step"], last["steps"], last["rows"], last["epoch"]) == (27 + 3 * 12, 27 + 3 * 12, 420 + 3 * 180, 4)


@pytest.mark.parametrize("n_steps", [7, 31])
def test_a_killed_training_with_extra_rows_goes_on_with_the_same_bits(run, tmp_path, monkeypatch, n_steps):
    """In the first epoch, which has the extra rows, and in the second, which draws others of the second source."""
    corpus = make_corpus(n=240)
    probs = np.where(corpus.labels, 0.9, 0.2)
    sources = (source(probs, first_epochs=1), source(probs, share=0.3))
    corpus = replace(corpus, texts=(*corpus.texts, *corpus.texts[:240] * 2), sources=sources)
    run = replace(run, training=replace(run.training, epochs=2, checkpoint_every_minutes=1e-9))
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows, take_step, taken = fold_rows(corpus, tmp_path / "killed"), loop.take_step, []

    def dies(*arguments):
        if len(taken) == n_steps:
            raise MemoryError
        taken.append(arguments)
        return take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", dies)
    with pytest.raises(MemoryError):
        EncoderLearner(run, corpus).train_fold(rows)
    taken.clear()
    n_steps = -1
    again = EncoderLearner(run, corpus).train_fold(rows)
    assert len(taken) < 49  # steps that were done are not taken again
    assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)


@pytest.mark.parametrize("loss", ["auto", "bce", "kl"])
def test_an_encoder_learns_from_its_teacher(loss, run, tmp_path):
    """The teacher says 0.9 and 0.2; labels say the opposite, with a share of a twentieth."""
    corpus = make_corpus(n=400)
    probs = np.where(corpus.labels, 0.9, 0.2).astype(np.float32)[None]
    teacher = Teacher(probs, 0.95, loss, 1.0 if loss == "auto" else 2.0)
    said = replace(corpus, labels=~corpus.labels, teacher=teacher)
    run = replace(run, training=replace(run.training, epochs=6))
    got = 1 / (1 + np.exp(-EncoderLearner(run, said).train_fold(fold_rows(said, tmp_path)).oof))
    assert got[corpus.labels[:60]].mean() > 0.7 and got[~corpus.labels[:60]].mean() < 0.35


def test_unknown_labels_of_extra_rows_teach_nothing(run, tmp_path):
    corpus = make_corpus(n=240)
    probs = np.where(np.arange(3) == 0, corpus.labels, nan)[:, :3].astype(np.float32)
    more = replace(corpus, texts=(*corpus.texts, *corpus.texts[:240]), sources=(source(probs),))
    got = EncoderLearner(run, more).train_fold(fold_rows(more, tmp_path))
    assert ((got.oof > 0) == corpus.labels[:60]).mean() > 0.75
    wrong = replace(run, loss=LossSettings(name="zlpr"))
    with pytest.raises(ValueError, match="some are not known .*of extra_rows"):
        EncoderLearner(wrong, more).train_fold(fold_rows(more, tmp_path / "z"))


def test_a_loss_of_whole_batches_cannot_weigh_rows(run, tmp_path):
    wrong = replace(run, loss=LossSettings(name="soft_macro_f1"))
    corpus = with_lies(make_corpus(n=120), 0.5)
    with pytest.raises(ValueError, match="loss of all rows of a batch together, so they cannot count differently"):
        EncoderLearner(wrong, corpus).train_fold(fold_rows(corpus, tmp_path))
