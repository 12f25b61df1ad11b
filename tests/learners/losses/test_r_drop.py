from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr, softmax
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.losses.named import build_loss, repeat_inputs, sum_disagreement, sum_r_drop
from foldblend.learners.training.loop import build_fold, gather_gradients
from foldblend.settings.nets import LossSettings, ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def draw(seed=0, n=7, n_labels=4):
    return np.random.default_rng(seed).normal(scale=3, size=(n, n_labels)).astype(np.float32)


def reference(first, second, task):
    """Liang et al. 2021: half of both Kullback-Leibler divergences, written out."""
    if task == "multiclass":
        p, q = softmax(first, axis=1), softmax(second, axis=1)
        return (rel_entr(p, q) + rel_entr(q, p)).sum() / 2
    p, q = expit(first), expit(second)
    both = rel_entr(p, q) + rel_entr(1 - p, 1 - q) + rel_entr(q, p) + rel_entr(1 - q, 1 - p)
    return both.mean(1).sum() / 2


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_disagreement_is_the_mean_of_both_divergences(task):
    first, second = draw(0).astype(np.float64), draw(1).astype(np.float64)
    got = sum_disagreement(torch.from_numpy(first), torch.from_numpy(second), task)
    assert float(got) == pytest.approx(reference(first, second, task), rel=1e-9)
    assert float(sum_disagreement(torch.from_numpy(first), torch.from_numpy(first), task)) == 0


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_extreme_logits_stay_finite(task):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0], [-100.0, 100.0], [100.0, -100.0]], requires_grad=True)
    value = sum_disagreement(*logits.chunk(2), task)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all() and logits.grad.abs().max() > 0


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_agreeing_answers_have_the_plain_loss(task):
    labels = np.eye(4, dtype=bool)[[0, 1, 2, 3, 0, 1, 2]]
    loss, targets, logits = build_loss(LossSettings(), labels, task), torch.from_numpy(labels).float(), draw()
    logits = torch.from_numpy(logits)
    assert torch.allclose(sum_r_drop(loss, torch.cat([logits, logits]), targets, 5.0, task), loss(logits, targets))
    other = torch.from_numpy(draw(1))
    both = torch.cat([logits, other]).requires_grad_()
    plain = (loss(both[:7], targets) + loss(both[7:], targets)) / 2
    got = sum_r_drop(loss, both, targets, 5.0, task)
    assert torch.allclose(got, plain), "the value, which is shown and guarded, is without the disagreement"
    (expected,) = torch.autograd.grad(plain + 5 * sum_disagreement(both[:7], both[7:], task), both)
    assert torch.allclose(torch.autograd.grad(got, both)[0], expected)


def test_inputs_stand_twice_in_order():
    inputs = repeat_inputs({"input_ids": torch.tensor([[1, 2], [3, 4]])})
    assert inputs["input_ids"].tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert)),
        training=TrainingSettings(epochs=12, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=2e-3, head_lr=2e-2),
        loss=LossSettings(r_drop_alpha=1.0),
    )


def test_the_two_passes_draw_two_dropouts(run, tmp_path):
    """Their disagreement, which dropout alone makes, moves the weights; the loss that is guarded is without it."""
    corpus = make_corpus()
    learner = EncoderLearner(run, corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    rows = fold.rows.train[:16]

    def step(alpha):
        learner.run = replace(run, loss=LossSettings(r_drop_alpha=alpha))
        fold.optimizer.zero_grad()
        loss = gather_gradients(learner, fold, rows, [1, 2], epoch=0)
        return float(loss), fold.model.head.weight.grad.norm().item()

    (little, weak), (much, strong) = step(1e-6), step(1e3)
    assert much == little and strong > 10 * weak
    fold.model.eval()
    (agreed, of_both), (plain, of_one) = step(1e3), step(0.0)
    assert agreed == pytest.approx(plain, rel=1e-5) and of_both == pytest.approx(of_one, rel=1e-4)


def test_learns_all_the_same(run, tmp_path):
    corpus = make_corpus()
    assert EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path)).score["macro_f1"] > 0.9
