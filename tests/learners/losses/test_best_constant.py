"""The best constant answer: a search that tries constants label by label comes to the same loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import entr
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.losses.base import RowLoss, best_constant
from foldblend.learners.losses.named import build_loss
from foldblend.settings.nets import LossSettings
from foldblend.settings.tables import LOSSES, LossEntry

GRID = torch.linspace(-9, 9, 361, dtype=torch.float64)
MULTILABEL = [
    ("bce", {}),
    ("bce", {"pos_weight_power": 1.0}),
    ("bce", {"label_smoothing": 0.2}),
    ("focal", {}),
    ("focal", {"pos_weight_power": 0.5}),
    ("asymmetric", {}),
    ("asymmetric", {"asymmetric_shift": 0.3}),
    ("distribution_balanced", {}),
    ("zlpr", {}),
]
MULTICLASS = [("cross_entropy", {"pos_weight_power": 1.0}), ("cross_entropy", {"label_smoothing": 0.1}), ("focal", {})]
CASES = [*(("multilabel", *case) for case in MULTILABEL), *(("multiclass", *case) for case in MULTICLASS)]


def prior_loss(*given, **more):
    return best_constant(*given, **more)[1]


def labels_of(task, n=300, seed=3):
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        return np.eye(4, dtype=bool)[rng.choice(4, n, p=[0.6, 0.3, 0.08, 0.02])]
    return rng.random((n, 4)) < [0.5, 0.2, 0.05, 0.01]


def search_constant(loss, labels, passes=6):
    """Mean loss a row of the best constant on a grid, one label's logit after the other."""
    targets = torch.from_numpy(labels.astype(np.float64))
    best = torch.zeros(labels.shape[1], dtype=torch.float64)
    for label in list(range(labels.shape[1])) * passes:
        values = []
        for z in GRID:
            best[label] = z
            values.append(float(loss(best.expand_as(targets), targets)))
        best[label] = GRID[int(np.argmin(values))]
    return min(values) / len(labels)


@pytest.mark.parametrize("task, name, changed", CASES)
def test_no_constant_is_better(task, name, changed):
    labels = labels_of(task, n=120)
    loss = build_loss(LossSettings(name=name, **changed), labels, task)
    found = search_constant(loss, labels, passes=6 if name in ("zlpr", "cross_entropy") or task == "multiclass" else 1)
    assert found - 1e-3 < prior_loss(loss, labels) <= found + 1e-9


def test_bce_is_the_entropy_of_the_rates():
    labels = labels_of("multilabel")
    rates = labels.mean(0)
    expected = (entr(rates) + entr(1 - rates)).mean()
    loss = build_loss(LossSettings(), labels, "multilabel")
    assert prior_loss(loss, labels) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_soft_macro_f1_is_expected_over_batches(smoothing):
    """Drawn batches under the best of constant probabilities cost what was said."""
    labels = labels_of("multilabel", n=2000)
    loss = build_loss(LossSettings(name="soft_macro_f1", f1_smoothing=smoothing), labels, "multilabel")
    drawn = labels[np.random.default_rng(0).integers(0, 2000, (20_000, 16))]  # (20000, 16, L)
    k = drawn.sum(1)
    tried = [((2 * p * k + smoothing) / (16 * p + k + smoothing)).mean(0) for p in [0.001, *np.linspace(0.02, 1, 50)]]
    expected = 1 - np.max(tried, axis=0).mean()
    assert prior_loss(loss, labels, rows_in_batch=16) == pytest.approx(expected, abs=0.003)
    assert prior_loss(loss, labels, rows_in_batch=16) != pytest.approx(prior_loss(loss, labels, 64), abs=0.002)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_soft_targets_have_the_prior_of_their_means(name):
    targets = np.random.default_rng(0).random((50, 3))
    loss = build_loss(LossSettings(name=name), targets > 0.5, "multilabel")
    assert prior_loss(loss, targets) == pytest.approx(prior_loss(loss, targets.mean(0, keepdims=True)), rel=1e-9)


@pytest.mark.parametrize("name", ["distribution_balanced", "zlpr", "soft_macro_f1"])
def test_soft_targets_are_refused_where_the_loss_refuses_them(name):
    targets = np.random.default_rng(0).random((50, 3))
    loss = build_loss(LossSettings(name=name), targets > 0.5, "multilabel")
    with pytest.raises(ValueError, match="needs targets of 0 and 1"):
        prior_loss(loss, targets)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric", "distribution_balanced", "zlpr", "soft_macro_f1"])
def test_a_label_never_or_always_there(name):
    labels = labels_of("multilabel")
    labels[:, 0], labels[:, 1] = False, True
    loss = build_loss(LossSettings(name=name), labels, "multilabel")
    assert 0 < prior_loss(loss, labels) < 5


@pytest.mark.parametrize("task, name, changed", [*CASES, ("multilabel", "soft_macro_f1", {})])
def test_the_constant_has_the_loss_that_is_said(task, name, changed):
    labels = labels_of(task)
    loss = build_loss(LossSettings(name=name, **changed), labels, task)
    constant, said = best_constant(loss, labels, rows_in_batch=64)
    assert constant.dtype == np.float32 and constant.shape == (4,)
    drawn = np.random.default_rng(0).permutation(np.tile(labels, (64, 1))).reshape(300, 64, 4)
    logits, batches = torch.from_numpy(constant).expand(64, 4), torch.from_numpy(drawn).float()
    got = sum(float(loss(logits, batch)) for batch in batches) / (300 * 64)
    assert got == pytest.approx(said, rel=0.01 if name == "soft_macro_f1" else 1e-5)


class HingeByRow(RowLoss):
    """A user's loss, written as losses/named.py shows it."""

    def of_rows(self, logits, targets):
        return F.softplus(1 - (2 * targets - 1) * logits).mean(1)


class HingeOfBatch(nn.Module):
    """The same as any other module would write it, with float32 numbers of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("margin", torch.ones(1))

    def forward(self, logits, targets):
        return F.softplus(self.margin - (2 * targets - 1) * logits).mean(1).sum()


@pytest.mark.parametrize("hinge", [HingeByRow, HingeOfBatch])
@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_users_loss_has_its_best_constant_too(monkeypatch, hinge, task):
    monkeypatch.setitem(LOSSES, "hinge", LossEntry(lambda settings, labels, task: hinge(), (task,)))
    labels = labels_of(task, n=120)
    loss = build_loss(replace(LossSettings(), name="hinge"), labels, task)
    assert isinstance(loss, hinge)
    found = search_constant(loss, labels, passes=1)
    assert found - 1e-3 < prior_loss(loss, labels) <= found + 1e-9


def test_a_users_loss_refuses_fractions_unless_it_says_that_it_takes_them():
    with pytest.raises(UserError, match="HingeByRow needs targets of 0 and 1, found 0.25"):
        HingeByRow()(torch.zeros(2, 3), torch.full((2, 3), 0.25))
