from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training.checks import CollapseGuard, check_logits, update_mean
from foldblend.learners.training.loop import build_fold, draw_epoch
from foldblend.settings.nets import (
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings


def test_a_loss_no_better_than_the_rates_stops_after_the_set_steps():
    guard = CollapseGuard(prior_loss=0.3, check_after_steps=100, n_own=9)
    guard.check_loss(99, 0.5, 0.5)
    guard.check_loss(100, 0.5, 0.29)
    guard.check_loss(100, 0.2, 0.31)  # the mean remembers a loss of long ago
    with pytest.raises(ValueError, match=r"collapsed.*step 100.*0.3100.*0.3000.*optimizer.lr"):
        guard.check_loss(100, 0.5, 0.31)


def test_zero_turns_the_check_off():
    CollapseGuard(0.3, 0, 9).check_loss(10_000, 0.5, 0.5)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_once(loss):
    with pytest.raises(ValueError, match=r"training loss is (nan|inf) at step 3"):
        CollapseGuard(0.3, 100, 9).check_loss(3, loss, 0.1)


@pytest.mark.parametrize(
    "rows, words",
    [
        ([3, 7], "rows 3, 7 of the training file (counted from 0)."),
        ([12, 3, 11], "rows 3 of the training file (counted from 0) and 2 of the extra rows."),
        ([12, 13], "first on 2 of the extra rows."),
    ],
)
def test_rows_are_named_by_the_file_they_are_in(rows, words):
    with pytest.raises(ValueError) as said:
        CollapseGuard(0.3, 100, 9).check_finite(3, float("nan"), np.array(rows))
    assert words in str(said.value)


def test_running_mean_is_the_plain_mean_at_first():
    mean = 0.0
    for step, loss in enumerate([1.0, 2.0, 6.0]):
        mean = update_mean(mean, loss, step)
    assert mean == pytest.approx(3.0)


def test_a_bad_start_is_forgotten_by_the_first_check():
    """A generator's first losses are many times the prior's; 300 steps are 30 reads."""
    mean = 0.0
    for read in range(30):
        mean = update_mean(mean, 20.0 if read < 3 else 1.0, read)
    assert mean < 2.0


def test_constant_and_infinite_logits_are_refused():
    varied = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    check_logits(varied, "held-out rows")
    check_logits(varied[:1], "one row")
    with pytest.raises(ValueError, match="Every text gets the same logits: held-out rows"):
        check_logits(np.tile(varied[:1], (20, 1)), "held-out rows")
    varied[3, 1] = np.nan
    with pytest.raises(ValueError, match="Logits are not finite: held-out rows, 1 of 20 rows"):
        check_logits(varied, "held-out rows")


@pytest.fixture
def run(tiny_bert):
    training = TrainingSettings(global_batch_size=16, micro_batch_size=16, precision="fp32")
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=training)


def rare_corpus(n=300):
    """Two labels of three are rare; one of them never stands beside the other."""
    rng, corpus = np.random.default_rng(0), make_corpus(n)
    labels = rng.random((n, 3)) < [0.4, 0.1, 0.08]
    labels[labels[:, 1], 2] = False
    return replace(corpus, labels=labels)


@pytest.mark.parametrize("name", ["bce", "zlpr"])
@pytest.mark.parametrize(
    "augmentation",
    [
        {"mix_probability": 1.0},
        {"oversample_factor": 4.0, "oversample_k_rarest": 2},
        {"mix_probability": 0.5, "oversample_factor": 2.0, "oversample_k_rarest": 1},
    ],
)
@pytest.mark.usefixtures("fresh_accelerate")
def test_the_bar_is_what_blind_answers_reach_on_the_rows_as_they_are_taught(run, tmp_path, augmentation, name):
    """A blind model's loss over the epochs' own batches: the bar is the lowest it can have."""
    run = replace(run, augmentation=AugmentationSettings(**augmentation), loss=LossSettings(name=name))
    learner = EncoderLearner(run, rare_corpus())
    fold, state = build_fold(learner, fold_rows(rare_corpus(), tmp_path))
    rng = np.random.default_rng(5)
    epochs = [draw_epoch(learner, fold.rows, epoch) for epoch in range(2)] * 40
    taught = torch.cat([fold.augmentation.batch(rows, rng)[1] for rows in epochs]).double()
    logits = torch.logit(taught.mean(0)).requires_grad_()
    search = torch.optim.LBFGS([logits], line_search_fn="strong_wolfe", max_iter=200)

    def blind():
        search.zero_grad()
        loss = fold.loss(logits.expand_as(taught), taught) / len(taught)
        loss.backward()
        return loss

    search.step(blind)
    assert fold.guard.prior_loss == pytest.approx(blind().item(), rel=0.005)


def test_the_end_of_a_training_needs_one_loss_below_the_constant():
    guard = CollapseGuard(prior_loss=0.3, check_after_steps=300, n_own=9)
    with pytest.raises(ValueError, match=r"learned nothing: after 100 steps .*0.3100 .*0.3200; .*0.3000 and 0.3100"):
        guard.check_end(100, 0.31, 0.32, 0.31)
    guard.check_end(100, 0.29, 0.40, 0.31)  # overfitted
    guard.check_end(100, 0.90, 0.30, 0.31)  # a bad start
    guard.check_end(10, 0.31, 0.32, 0.31)  # too short to tell
    CollapseGuard(0.3, 0, 9).check_end(1000, 0.31, 0.32, 0.31)
    with pytest.raises(ValueError, match="learned nothing"):
        CollapseGuard(0.3, 10, 9).check_end(10, 0.31, 0.32, 0.31)


@pytest.mark.parametrize("name", ["bce", "zlpr", "soft_macro_f1", "asymmetric"])
@pytest.mark.parametrize("n_steps", [10, 60])
@pytest.mark.usefixtures("fresh_accelerate")
def test_a_fold_shorter_than_the_set_steps_is_judged_at_its_end(run, tmp_path, name, n_steps):
    """Answers that are wrong for every row, after steps that were no better: nothing has been learned."""
    training = replace(run.training, epochs=n_steps // 5)
    corpus, rows = make_corpus(100), fold_rows(make_corpus(100), tmp_path, 20)
    run = replace(run, training=training, loss=LossSettings(name=name))
    learner = EncoderLearner(run, corpus)
    fold, state = build_fold(learner, rows)
    assert fold.steps_of_epochs[0] == 5
    truth = np.where(corpus.labels[:20], 2.0, -2.0).astype(np.float32)
    above, below = fold.guard.prior_loss * 1.01, fold.guard.prior_loss * 0.99
    learner.check_learned(fold, above, truth)
    if n_steps < 50:
        learner.check_learned(fold, above, -truth)
        return
    with pytest.raises(ValueError, match="learned nothing: after 60 steps"):
        learner.check_learned(fold, above, -truth)
    learner.check_learned(fold, below, -truth)


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_fold_of_a_hundred_steps_that_unlearns_is_found_and_one_that_learns_is_not(run, tmp_path, monkeypatch):
    optimizer = OptimizerSettings(lr=5e-3, head_lr=5e-3)
    run, corpus = replace(run, optimizer=optimizer, training=replace(run.training, epochs=10)), make_corpus(220)
    assert EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "learns", 60)).score["macro_f1"] > 0.6
    descend = EncoderLearner.batch_loss

    def ascend(self, *given):
        loss = descend(self, *given)
        return 2 * loss.detach() - loss

    monkeypatch.setattr(EncoderLearner, "batch_loss", ascend)
    with pytest.raises(ValueError, match="learned nothing: after 100 steps"):
        EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "unlearns", 60))
