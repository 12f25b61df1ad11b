import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from learners.losses import build_pos_weight, prior_loss, sum_bce, sum_cross_entropy
from settings.run import LossSettings


def draw(seed=0, n=40, n_labels=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_labels)).astype(np.float32), rng.random((n, n_labels)) < 0.3


def test_pos_weight_multiplies_the_positive_term_only():
    logits, labels = draw()
    weight = np.array([1, 2, 3, 4, 5], dtype=np.float32)
    p = expit(logits.astype(np.float64))
    expected = -(labels * weight * np.log(p) + ~labels * np.log(1 - p)).sum() / 5
    got = sum_bce(torch.from_numpy(logits), torch.from_numpy(labels).float(), torch.from_numpy(weight))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_the_one_true_label():
    logits, _ = draw()
    truth = np.arange(40) % 5
    labels = torch.nn.functional.one_hot(torch.from_numpy(truth), 5).float()
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(40), truth].sum()
    got = sum_cross_entropy(torch.from_numpy(logits), labels, torch.ones(5))
    assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [sum_bce, sum_cross_entropy])
def test_extreme_logits_stay_finite(loss):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.ones(2))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


def test_pos_weight_is_capped_and_1_without_positives():
    labels = np.zeros((100, 4), bool)
    labels[:1, 0], labels[:20, 1], labels[:, 3] = True, True, True
    got = build_pos_weight(labels, LossSettings(pos_weight_power=1.0, pos_weight_cap=50.0))
    assert got.tolist() == [50.0, 4.0, 1.0, 1.0]
    assert build_pos_weight(labels, LossSettings(pos_weight_power=0.5)).tolist()[1] == 2.0
    assert build_pos_weight(labels, LossSettings()).tolist() == [1.0] * 4


@pytest.mark.parametrize("task, loss", [("multilabel", sum_bce), ("multiclass", sum_cross_entropy)])
def test_prior_loss_is_the_best_constant(task, loss):
    """No constant answer found by gradient descent is below it, and one comes to it."""
    _, labels = draw(3, n=200)
    if task == "multiclass":
        labels = np.eye(5, dtype=bool)[np.random.default_rng(0).integers(0, 5, 200)]
    weight = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0])
    constant = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([constant], max_iter=200)

    def closure():
        optimizer.zero_grad()
        value = loss(constant.expand(200, 5), torch.from_numpy(labels).float(), weight) / 200
        value.backward()
        return value

    optimizer.step(closure)
    best = float(closure().detach())
    assert prior_loss(labels, weight, task) == pytest.approx(best, abs=1e-4)
