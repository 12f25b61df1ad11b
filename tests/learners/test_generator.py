import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_encoder import die, stop_after, with_training
from tiny_chat import save_tiny_chat
from toy_corpus import MOODS, fold_rows, make_corpus

from foldblend.learners.generator import GeneratorLearner, label_entropy, list_entropy
from foldblend.learners.nets.folders import NOTE
from foldblend.learners.table import Corpus
from foldblend.learners.training import loop
from foldblend.learners.training.checkpoints import WEIGHTS, load_checkpoint
from foldblend.learners.training.checks import CollapseGuard
from foldblend.learners.training.loop import build_fold, take_step
from foldblend.settings.nets import (
    AdapterSettings,
    AnswerSettings,
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
CHAT = PromptSettings("chat", "Labels: {labels}\nText: {text}", "user")


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory):
    """kind -> folder of a tiny chat model."""
    root = tmp_path_factory.mktemp("tiny_chat")
    folders = {}
    return lambda kind: folders.setdefault(kind, save_tiny_chat(root / kind, kind))


@pytest.fixture
def run(tiny_chat):
    return RunSettings(
        "generator",
        model=ModelSettings(name=str(tiny_chat("qwen2"))),
        training=TrainingSettings(epochs=2, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=1e-2),
        prompt=PromptSettings(template="Text: {text}\nLabels:"),
        adapter=AdapterSettings(rank=8),
    )


def predict(learner, fold, rows):
    return learner.predict(fold.model, np.asarray(rows))


@pytest.mark.parametrize("form, prompt", [("list", CHAT), ("yes_no", None)])
def test_learns_one_label_a_row(run, tiny_chat, tmp_path, form, prompt):
    """Several labels a row are learned in test_learning_by_command.py."""
    corpus = make_corpus(n=400, task="multiclass")
    run = replace(
        run,
        optimizer=OptimizerSettings(lr=5e-3),
        model=replace(run.model, name=str(tiny_chat("llama"))),
        answer=AnswerSettings(form),
        prompt=prompt or run.prompt,
    )
    run = with_training(run, epochs=4, global_batch_size=8)
    got = GeneratorLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path, 80))
    assert got.kind == "logits" and got.oof.dtype == got.test.dtype == np.float32
    assert got.oof.shape == (80, 3) and got.test.shape == (2, 3)
    assert (got.oof.argmax(1) == corpus.labels[:80].argmax(1)).mean() > 0.9
    assert np.exp(got.oof).sum(1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("form", ["list", "yes_no"])
def test_two_steps_move_adapters_and_nothing_else(run, tmp_path, form):
    corpus = make_corpus(n=120)
    learner = GeneratorLearner(replace(run, answer=AnswerSettings(form)), corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    before = {name: value.detach().clone() for name, value in fold.model.named_parameters()}
    for step in range(2):
        state.step = step
        take_step(learner, fold, state, fold.rows.train[step * 16 : step * 16 + 16])
    moved = {name for name, value in fold.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name} and len(moved) > 0


@pytest.mark.parametrize("form", ["list", "yes_no"])
@pytest.mark.parametrize("n_steps", [1, 5])
def test_killed_and_started_again_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch, form, n_steps):
    corpus = make_corpus(n=120)
    run = with_training(replace(run, answer=AnswerSettings(form)), checkpoint_every_minutes=1e-9)
    whole = GeneratorLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows = fold_rows(corpus, tmp_path / "killed")
    with monkeypatch.context() as patch:
        stop_after(patch, n_steps, die)
        with pytest.raises(RuntimeError, match="killed"):
            GeneratorLearner(run, corpus).train_fold(rows)
    again = GeneratorLearner(run, corpus).train_fold(rows)
    assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)


def test_finished_weights_say_the_same_and_hold_no_base(run, tmp_path, monkeypatch):
    corpus = make_corpus(n=120)
    rows = fold_rows(corpus, tmp_path)
    learner = GeneratorLearner(run, corpus)
    first = learner.train_fold(rows)
    assert sorted(os.listdir(rows.checkpoint_dir)) == [NOTE, WEIGHTS]
    tensors, _ = load_checkpoint(rows.checkpoint_dir / WEIGHTS, learner.identity(rows))
    assert all("lora_" in name for name in tensors)
    monkeypatch.setattr(loop, "take_step", lambda *_: die())
    again = GeneratorLearner(run, corpus).train_fold(rows)
    assert np.array_equal(first.oof, again.oof) and np.array_equal(first.test, again.test)


def test_a_second_fold_is_as_if_it_were_the_first(run, tmp_path):
    corpus = make_corpus(n=120)
    rows = [fold_rows(corpus, tmp_path / name) for name in ("a", "b", "c")]
    learner = GeneratorLearner(run, corpus)
    learner.train_fold(rows[0])
    second, alone = learner.train_fold(rows[1]), GeneratorLearner(run, corpus).train_fold(rows[2])
    assert np.array_equal(second.oof, alone.oof)


@pytest.mark.parametrize("form", ["list", "yes_no"])
def test_a_row_is_predicted_alike_alone_and_among_longer_ones(run, tmp_path, form):
    corpus = make_corpus(n=120)
    learner = GeneratorLearner(replace(run, answer=AnswerSettings(form)), corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    rows = np.argsort(learner.tokens.lengths)[[0, 60, -1]]
    together = predict(learner, fold, rows)
    assert together == pytest.approx(np.concatenate([predict(learner, fold, [row]) for row in rows]), abs=1e-3)


def test_micro_batches_and_checkpointed_gradients_make_the_same_step(run, tmp_path):
    corpus = make_corpus(n=120)
    gradients = []
    for changes in ({}, {"micro_batch_size": 4}, {"gradient_checkpointing": True}):
        plain = replace(run, adapter=AdapterSettings(rank=8, dropout=0.0))
        learner = GeneratorLearner(with_training(plain, **changes), corpus)
        fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
        fold.optimizer.zero_grad = lambda *_, **__: None
        take_step(learner, fold, state, fold.rows.train[:15])
        gradients.append([p.grad.clone() for p in fold.model.parameters() if p.grad is not None])
    for whole, parts, checkpointed in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-3, atol=1e-6)
        assert torch.allclose(whole, checkpointed, rtol=1e-3, atol=1e-6)


def test_heldout_rows_teach_nothing(run, tmp_path):
    corpus = make_corpus(n=120)
    labels = np.concatenate([~corpus.labels[:60], corpus.labels[60:]])
    flipped = Corpus(corpus.texts, labels, corpus.label_names, "multilabel")
    run = with_training(run, epochs=1)
    before = GeneratorLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "a"))
    after = GeneratorLearner(run, flipped).train_fold(fold_rows(flipped, tmp_path / "b"))
    assert np.array_equal(before.test, after.test) and np.array_equal(before.oof, after.oof)


def test_the_entropy_of_independent_labels(run, tmp_path):
    """No table of 2 ** 3 lists drawn label by label costs fewer nats than the one of the labels' own rates."""
    rng = np.random.default_rng(0)
    labels = rng.random((500, 3)) < [0.1, 0.4, 0.0]
    expected = -sum(np.log(np.prod(np.where(row, labels.mean(0), 1 - labels.mean(0)))) for row in labels) / len(labels)
    assert label_entropy(labels, "multilabel") == pytest.approx(expected)
    assert label_entropy(np.eye(4, dtype=bool), "multiclass") == pytest.approx(np.log(4))
    corpus = make_corpus(n=120)
    learner = GeneratorLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    assert isinstance(fold.guard, CollapseGuard)
    assert fold.guard.prior_loss == pytest.approx(list_entropy(corpus.labels[60:]))


def test_labels_that_exclude_each_other_lower_the_bar(run, tmp_path):
    """A blind writer that knows the three sets has 1.1 nats, one of independent labels 1.9: it stands between."""
    exclusive = np.eye(3, dtype=bool)[np.arange(300) % 3]
    assert label_entropy(exclusive, "multilabel") == pytest.approx(3 * (np.log(3) - np.log(2) * 2 / 3))
    assert np.log(3) < list_entropy(exclusive) < np.log(3) + 0.02
    corpus = replace(make_corpus(n=360), labels=np.eye(3, dtype=bool)[np.arange(360) % 3])
    learner = GeneratorLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    assert fold.guard.prior_loss < np.log(3) + 0.02
    with pytest.raises(ValueError, match="collapsed"):
        fold.guard.check_loss(10_000, 1.5, 1.5)


@pytest.mark.parametrize("n_labels, n_rows", [(3, 400), (12, 60), (12, 400)])
def test_sets_that_stand_once_do_not_lower_the_bar(n_labels, n_rows):
    """Independent labels: the sets of n rows cost n new rows no less than the bar, which is near the true entropy."""
    rng = np.random.default_rng(n_labels + n_rows)
    rates = rng.uniform(0.05, 0.5, n_labels)
    bar = np.mean([list_entropy(rng.random((n_rows, n_labels)) < rates) for _ in range(20)])
    true = -np.sum(rates * np.log(rates) + (1 - rates) * np.log(1 - rates))
    assert true * 0.9 < bar < true * 1.02
    labels = rng.random((n_rows, n_labels)) < rates
    assert list_entropy(labels) <= label_entropy(labels, "multilabel") + 1e-12


def test_a_generator_that_learns_nothing_is_stopped(run, tmp_path):
    corpus = make_corpus(n=120)
    noise = np.random.default_rng(1).random((120, 3)) < 0.3
    same = Corpus(("the same",) * len(corpus.texts), noise, corpus.label_names, "multilabel")
    run = with_training(run, epochs=8, collapse_check_after_steps=20)
    with pytest.raises(ValueError, match="collapsed to a constant"):
        GeneratorLearner(run, same).train_fold(fold_rows(same, tmp_path))


def test_losses_work_on_the_odds_of_yes(run, tmp_path):
    corpus = make_corpus(n=120)
    run = replace(run, answer=AnswerSettings("yes_no"), loss=LossSettings("asymmetric", r_drop_alpha=0.5))
    got = GeneratorLearner(with_training(run, epochs=1), corpus).train_fold(fold_rows(corpus, tmp_path))
    assert np.isfinite(got.oof).all()


def test_mixed_texts_are_answered_with_the_labels_of_both(run, tmp_path):
    corpus = make_corpus(n=120)
    run = replace(run, augmentation=AugmentationSettings(mix_probability=1.0))
    learner = GeneratorLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    asked = []
    fold.model.forward = lambda **inputs: asked.append(inputs) or torch.zeros(len(inputs["input_ids"]))
    batch = fold.augmentation.batch(fold.rows.train[:8], np.random.default_rng(0))
    learner.batch_loss(fold.model, fold.loss, batch)
    for i in range(8):
        text = learner.tokenizer.decode(asked[0]["input_ids"][i])
        answer = learner.tokenizer.decode(asked[0]["answers"][i][asked[0]["answer_mask"][i]])
        said = [name for name, words in MOODS.items() if any(f" {word}" in text for word in words.split())]
        assert text.count("today") == 2 and answer == f" {', '.join(said) or 'none'}<|im_end|>"


def test_automatic_precision_trains(run, tmp_path):
    corpus = make_corpus(n=120)
    got = GeneratorLearner(with_training(run, precision="auto", epochs=1), corpus).train_fold(
        fold_rows(corpus, tmp_path)
    )
    assert np.isfinite(got.oof).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"adapter": AdapterSettings("prefix_tuning")}, "trained by lora or none"),
        ({"loss": LossSettings("zlpr")}, "loss.name is set, but answer.form list .* use answer.form yes_no"),
        ({"loss": LossSettings(r_drop_alpha=0.5)}, "loss.r_drop_alpha is set, but answer.form list"),
        ({"model": ModelSettings(head="mlp")}, "model.head is set, but a generator has no head"),
        ({"optimizer": OptimizerSettings(head_lr=1.0)}, "optimizer.head_lr is set, but a generator has no head"),
        ({"answer": AnswerSettings("yes_no", beam_size=3)}, "answer.beam_size is set, but answer.form is yes_no"),
        ({"answer": AnswerSettings("yes_no", question="?")}, "expected {label} in it, once"),
        ({"answer": AnswerSettings(separator=" ")}, "expected text other than spaces"),
    ],
)
def test_settings_that_cannot_work(run, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(run, **changes)
