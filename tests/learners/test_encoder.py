import gc
import os
import signal
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_corpus import fold_rows, make_corpus

from foldblend.console import Progress
from foldblend.learners.cpu import layers as fused_layers
from foldblend.learners.cpu.layers import FusedLayer
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.nets.classifier import TextClassifier
from foldblend.learners.nets.folders import OWN_MODEL
from foldblend.learners.table import Corpus
from foldblend.learners.training import loop, neural
from foldblend.learners.training.checkpoints import CHECKPOINT, WEIGHTS
from foldblend.learners.training.loop import build_fold, take_step
from foldblend.settings.nets import (
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
)
from foldblend.settings.run import CleaningSettings, RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert)),
        training=TrainingSettings(epochs=2, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3),
    )


def with_training(run, **changes):
    return replace(run, training=replace(run.training, **changes))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_learns_and_predicts_in_order(run, tmp_path, task):
    corpus = make_corpus(n=400, task=task)
    rows = fold_rows(corpus, tmp_path, 80)
    got = EncoderLearner(with_training(run, epochs=6), corpus).train_fold(rows)
    assert got.kind == "logits" and got.oof.dtype == got.test.dtype == np.float32
    assert got.oof.shape == (80, 3) and got.test.shape == (2, 3)
    assert got.score["macro_f1"] > 0.9
    if task == "multilabel":
        assert ((got.oof > 0) == corpus.labels[rows.heldout]).mean() > 0.9
    else:
        assert (got.oof.argmax(1) == corpus.labels[rows.heldout].argmax(1)).mean() > 0.9


def test_two_steps_move_every_parameter_that_is_used(run, tmp_path):
    corpus = make_corpus()
    learner = EncoderLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    before = {name: value.clone() for name, value in fold.model.state_dict().items()}
    for step in range(2):
        state.step = step
        take_step(learner, fold, state, fold.rows.train[step * 32 : step * 32 + 32])
    still = [name for name, value in fold.model.state_dict().items() if torch.equal(value, before[name])]
    assert still == [name for name in still if "position_ids" in name or "token_type_ids" in name]


def test_a_fold_leaves_nothing_behind_for_the_next_one(run, tmp_path, monkeypatch):
    """Neither its model in memory nor what fp16's loss scaler had come to."""
    learner, corpus = EncoderLearner(with_training(run, epochs=1), make_corpus()), make_corpus()
    made, scales = [], []

    def build_watched(learner, rows):
        scales.append(learner.accelerator.scaler.get_scale())
        learner.accelerator.scaler.update(2.0)
        learner.accelerator.scaler = None  # on a CPU nothing overflows
        fold, state = build_fold(learner, rows)
        made.append(weakref.ref(fold.model))
        return fold, state

    monkeypatch.setattr(neural, "build_fold", build_watched)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(()))  # as a first step does
    learner.fresh_scaler = scaler.state_dict()
    for fold in range(2):
        learner.accelerator.scaler = scaler
        learner.train_fold(fold_rows(corpus, tmp_path / str(fold)))
        gc.collect()  # as train_fold does where memory is a device's
        assert made[-1]() is None
    assert scales == [64.0, 64.0]


def test_pooling_reads_the_first_state_or_the_mean_of_the_unpadded():
    states = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])

    class States(nn.Module):
        config = SimpleNamespace(hidden_size=8)

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(last_hidden_state=states)

    for pooling, pooled in (("cls", states[:, 0]), ("mean", torch.stack([states[0].mean(0), states[1, :2].mean(0)]))):
        model = TextClassifier(States(), 3, ModelSettings(pooling=pooling)).eval()
        assert torch.allclose(model(mask, mask), model.head(pooled), atol=1e-6)


def test_the_head_starts_at_the_labels_log_odds(run, tmp_path):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    rates = corpus.labels[rows.train].mean(0)
    model = EncoderLearner(run, corpus).build_fold_model(rows, seed=0)
    assert torch.sigmoid(model.head.bias).detach().numpy() == pytest.approx(rates, abs=0.01)
    plain = replace(run, loss=LossSettings(bias_from_prior=False))
    model = EncoderLearner(plain, corpus).build_fold_model(rows, seed=0)
    assert model.head.bias.abs().max() == 0


def test_micro_batches_make_the_same_step(run, tmp_path):
    """Accumulating over quarters of a batch gives the gradient of the whole batch; dropout off, as its draws differ."""
    corpus = make_corpus()
    gradients = []
    for micro in (16, 4):
        learner = EncoderLearner(with_training(run, micro_batch_size=micro), corpus)
        fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
        fold.model.eval()
        fold.optimizer.zero_grad = lambda *_, **__: None
        take_step(learner, fold, state, fold.rows.train[:15])
        gradients.append([p.grad.clone() for p in fold.model.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-6)


def stop_after(monkeypatch, n_steps, how):
    """Break the training after its n-th step, by `how()`."""
    steps = []
    advance = Progress.advance

    def counted(self, *args):
        advance(self, *args)
        steps.append(1)
        if len(steps) == n_steps:
            how()

    monkeypatch.setattr(Progress, "advance", counted)


def die():
    raise RuntimeError("killed")


@pytest.mark.parametrize(
    ("n_steps", "precision"), [(1, "fp32"), (5, "fp32"), (12, "fp32"), (13, "fp32"), (23, "fp32"), (5, "bf16")]
)
def test_killed_and_started_again_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch, n_steps, precision):
    corpus = make_corpus()
    run = with_training(run, checkpoint_every_minutes=1e-9, precision=precision)
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows = fold_rows(corpus, tmp_path / "killed")
    with monkeypatch.context() as patch:
        stop_after(patch, n_steps, die)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(run, corpus).train_fold(rows)
    again = EncoderLearner(run, corpus).train_fold(rows)
    assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(run, tmp_path, monkeypatch, number):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stopped:
            EncoderLearner(run, corpus).train_fold(rows)
    assert stopped.value.code == 128 + number
    assert (rows.checkpoint_dir / CHECKPOINT).exists()
    learner = EncoderLearner(run, corpus)
    assert build_fold(learner, rows)[1].step >= 3
    again, whole = learner.train_fold(rows), learner.train_fold(fold_rows(corpus, tmp_path / "whole"))
    assert np.array_equal(again.oof, whole.oof)


def test_finished_weights_are_predicted_from_not_trained_again(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    first = EncoderLearner(run, corpus).train_fold(rows)
    assert sorted(os.listdir(rows.checkpoint_dir)) == [OWN_MODEL, WEIGHTS]
    monkeypatch.setattr(loop, "take_step", lambda *_: die())
    again = EncoderLearner(run, corpus).train_fold(rows)
    assert np.array_equal(first.oof, again.oof) and np.array_equal(first.test, again.test)


def test_a_checkpoint_of_other_settings_or_data_is_refused(run, tmp_path):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    EncoderLearner(run, corpus).train_fold(rows)
    with pytest.raises(ValueError, match=r"training.epochs was 2, is now 3"):
        EncoderLearner(with_training(run, epochs=3), corpus).train_fold(rows)
    other = Corpus(("other", *corpus.texts[1:]), corpus.labels, corpus.label_names, corpus.task)
    with pytest.raises(ValueError, match="data_sha256"):
        EncoderLearner(run, other).train_fold(rows)


def test_heldout_rows_teach_nothing(run, tmp_path):
    corpus = make_corpus()
    labels = np.concatenate([~corpus.labels[:60], corpus.labels[60:]])
    flipped = Corpus(corpus.texts, labels, corpus.label_names, "multilabel")
    before = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "a"))
    after = EncoderLearner(run, flipped).train_fold(fold_rows(flipped, tmp_path / "b"))
    assert np.array_equal(before.test, after.test) and np.array_equal(before.oof, after.oof)


def test_a_row_is_predicted_alike_alone_and_among_longer_ones(run, tmp_path):
    corpus = make_corpus()
    learner = EncoderLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    fold.model.eval()
    rows = np.argsort(learner.tokens.lengths)[[0, -1]]
    with torch.inference_mode():
        together = fold.model(**learner.tokens.batch(rows))
        alone = torch.cat([fold.model(**learner.tokens.batch(rows[i : i + 1])) for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_rate_that_blows_up_stops_with_a_cure(run, tmp_path):
    corpus = make_corpus()
    wild = replace(run, optimizer=OptimizerSettings(lr=1e6, head_lr=1e6, max_grad_norm=0.0))
    with pytest.raises(ValueError, match=r"(collapsed|not finite|training loss is).*optimizer.lr"):
        EncoderLearner(with_training(wild, epochs=4, collapse_check_after_steps=20), corpus).train_fold(
            fold_rows(corpus, tmp_path)
        )


def test_a_run_that_learns_nothing_is_stopped(run, tmp_path):
    """Labels drawn by lot: no better than the rates, whatever the texts say."""
    corpus = make_corpus()
    rng = np.random.default_rng(1)
    noise = Corpus(("the same",) * len(corpus.texts), rng.random((240, 3)) < 0.3, corpus.label_names, "multilabel")
    frozen = replace(run, optimizer=OptimizerSettings(lr=1e-3, head_lr=1e-3))
    with pytest.raises(ValueError, match="collapsed to a constant"):
        EncoderLearner(with_training(frozen, epochs=4, collapse_check_after_steps=20), noise).train_fold(
            fold_rows(noise, tmp_path)
        )


def test_automatic_precision_trains(run, tmp_path):
    corpus = make_corpus()
    got = EncoderLearner(with_training(run, precision="auto", epochs=4), corpus).train_fold(fold_rows(corpus, tmp_path))
    assert got.score["macro_f1"] > 0.8 and np.isfinite(got.oof).all()


@pytest.mark.parametrize("has_compiler", [True, False])
def test_layers_are_fused_where_a_compiler_is(run, tmp_path, monkeypatch, capsys, has_compiler):
    corpus = make_corpus()
    has_one_here = fused_layers.is_available()
    monkeypatch.setattr(fused_layers, "is_available", lambda: has_compiler)
    learner, rows = EncoderLearner(run, corpus), fold_rows(corpus, tmp_path)
    layers = learner.build_fold_model(rows, seed=1).encoder.encoder.layer
    assert {isinstance(layer, FusedLayer) for layer in layers} == {has_compiler}
    assert ("layers are not fused" in capsys.readouterr().out) is not has_compiler
    if has_compiler == has_one_here:
        assert learner.train_fold(rows).device.endswith(", fused layers") is has_compiler


def test_fp16_is_refused_on_a_cpu(run):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="fp16 does nothing on a CPU"):
        EncoderLearner(with_training(run, precision="fp16"), make_corpus())


def test_a_model_that_is_nowhere_is_named(run):
    with pytest.raises(ValueError, match=r"no such folder, and the hub did not give it .*--model.name FOLDER"):
        EncoderLearner(replace(run, model=ModelSettings(name="nobody/nothing")), make_corpus())


def test_rare_rows_come_more_often_and_batches_are_augmented(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    rare = replace(run, augmentation=AugmentationSettings(oversample_factor=2.0, oversample_k_rarest=1))
    learner = EncoderLearner(rare, corpus)
    fold, state = build_fold(learner, rows)
    carriers = rows.train[corpus.labels[rows.train][:, corpus.labels[rows.train].sum(0).argmin()]]
    seen = []
    monkeypatch.setattr(loop, "take_step", lambda *given: (seen.append(given[-1]), take_step(*given)))
    loop.train(learner, fold, state)
    times = np.bincount(np.concatenate(seen), minlength=len(corpus.labels))
    assert times.sum() == 2 * (len(rows.train) + 2 * len(carriers)) == fold.n_rows
    assert set(np.flatnonzero(times)) == set(rows.train)
    assert times[carriers].mean() == 6.0 and (times[np.setdiff1d(rows.train, carriers)] == 2).all()


def test_labels_that_are_all_frequent_are_said_and_nothing_is_drawn(run, tmp_path, capsys):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    settings = AugmentationSettings(oversample_factor=2.0, oversample_rarer_than=0.01)
    learner = EncoderLearner(replace(run, augmentation=settings), corpus)
    fold, state = build_fold(learner, rows)
    assert fold.rows_of_epochs[0] == len(rows.train)
    assert "no row is drawn twice: none, or too few, have a rare label" in capsys.readouterr().err


def test_token_dropout_reaches_the_model(run, tmp_path):
    corpus = make_corpus()
    masked = replace(run, augmentation=AugmentationSettings(token_dropout=0.5))
    learner = EncoderLearner(masked, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    seen = []
    fold.model.register_forward_pre_hook(
        lambda _model, _args, inputs: seen.append(inputs["input_ids"]), with_kwargs=True
    )
    take_step(learner, fold, state, fold.rows.train[:32])
    share = (torch.cat([ids.flatten() for ids in seen]) == learner.tokens.mask_id).float().mean()
    assert 0.2 < share < 0.6


def test_placeholders_get_an_embedding_of_their_own(run, tmp_path):
    corpus = make_corpus()
    named = replace(run, cleaning=CleaningSettings(urls=True, placeholder_tokens=True))
    learner = EncoderLearner(named, replace(corpus, texts=tuple(f"{text} <URL>" for text in corpus.texts)))
    model = learner.build_fold_model(fold_rows(corpus, tmp_path), seed=0)
    placeholder = learner.tokenizer.convert_tokens_to_ids("<URL>")
    assert (learner.tokens.ids == placeholder).sum() == len(corpus.texts)
    assert model.encoder.get_input_embeddings().num_embeddings > placeholder
