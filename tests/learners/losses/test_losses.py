"""Every loss against plain numpy written from its paper, row by row and label by label, in float64."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from foldblend.learners.losses.base import best_constant, masked
from foldblend.learners.losses.named import build_loss, build_pos_weight
from foldblend.settings.nets import LossSettings

MULTILABEL = ["bce", "focal", "asymmetric", "distribution_balanced", "soft_macro_f1", "zlpr"]
EVERY = [*((name, "multilabel") for name in MULTILABEL), ("cross_entropy", "multiclass"), ("focal", "multiclass")]
N_LABELS = 5


def draw(task="multilabel", seed=0, n=40, soft=False):
    """logits float64 (n, 5); targets float64 (n, 5), some rows of a multilabel task without any."""
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        targets = rng.dirichlet(np.ones(N_LABELS), n) if soft else np.eye(N_LABELS)[rng.integers(0, N_LABELS, n)]
    else:
        targets = rng.random((n, N_LABELS)) if soft else (rng.random((n, N_LABELS)) < 0.3).astype(float)
    return rng.normal(size=(n, N_LABELS)) * 3, targets


def of(name, task="multilabel", labels=None, **settings):
    labels = draw(task, seed=9)[1].astype(bool) if labels is None else labels
    return build_loss(LossSettings(name=name, **settings), labels, task)


def value(loss, logits, targets):
    return float(loss(torch.from_numpy(logits), torch.from_numpy(targets)))


def over_cells(logits, targets, term):
    """Sum over rows of the mean over labels of term(z, t, label)."""
    cells = [[term(z, t, j) for j, (z, t) in enumerate(zip(*row))] for row in zip(logits, targets)]
    return np.mean(cells, axis=1).sum()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_bce_with_smoothing(soft, smoothing):
    labels = draw(seed=9)[1].astype(bool)
    weight = ((~labels).sum(0) / labels.sum(0)) ** 0.5
    logits, targets = draw(soft=soft)

    def term(z, t, j):
        t = t * (1 - smoothing) + smoothing / 2
        return -(weight[j] * t * np.log(expit(z)) + (1 - t) * np.log(expit(-z)))

    loss = of("bce", labels=labels, pos_weight_power=0.5, label_smoothing=smoothing)
    assert value(loss, logits, targets) == pytest.approx(over_cells(logits, targets, term), rel=1e-6)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(gamma, soft):
    labels = draw(seed=9)[1].astype(bool)
    weight = (~labels).sum(0) / labels.sum(0)
    logits, targets = draw(soft=soft)

    def term(z, t, j):
        p = expit(z)
        if_true = -weight[j] * (1 - p) ** gamma * np.log(p)
        if_false = -(p**gamma) * np.log(1 - p)
        return t * if_true + (1 - t) * if_false

    loss = of("focal", labels=labels, focal_gamma=gamma, pos_weight_power=1.0)
    assert value(loss, logits, targets) == pytest.approx(over_cells(logits, targets, term), rel=1e-6)


@pytest.mark.parametrize("gammas", [(0.0, 4.0), (1.0, 4.0), (1.0, 1.5)])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_asymmetric(gammas, shift):
    logits, targets = draw()

    def term(z, t, j):
        p = expit(z)
        shifted = max(p - shift, 0)
        return -((1 - p) ** gammas[0] * np.log(p) if t else shifted ** gammas[1] * np.log(1 - shifted))

    settings = {"asymmetric_gamma_positive": gammas[0], "asymmetric_gamma_negative": gammas[1]}
    loss = of("asymmetric", asymmetric_shift=shift, **settings)
    assert value(loss, logits, targets) == pytest.approx(over_cells(logits, targets, term), rel=1e-6)


def test_asymmetric_leaves_easy_negatives_alone():
    logits = torch.tensor([[-3.0, -2.9]], requires_grad=True)  # probabilities 0.047 and 0.052
    of("asymmetric", labels=np.eye(2, dtype=bool))(logits, torch.zeros(1, 2)).backward()
    assert logits.grad[0, 0] == 0 and logits.grad[0, 1] > 0


def test_distribution_balanced():
    labels = draw(seed=9)[1].astype(bool)
    logits, targets = draw(seed=1)
    n, total, alpha, beta, mu, scale, kappa = labels.sum(0), len(labels), 0.1, 10.0, 0.3, 2.0, 0.05
    rows = []
    for z, y in zip(logits, targets):
        cells = []
        for i in range(N_LABELS):
            of_class = 1 / N_LABELS / n[i]
            of_instance = sum(1 / N_LABELS / n[j] for j in range(N_LABELS) if y[j])
            ratio = of_class / of_instance if of_instance else np.inf
            weight = alpha + 1 / (1 + np.exp(-beta * (ratio - mu)))
            nu = -kappa * -np.log(1 / (n[i] / total) - 1)
            yes, no = np.log(1 + np.exp(-(z[i] - nu))), np.log(1 + np.exp(scale * (z[i] - nu))) / scale
            cells.append(weight * (yes if y[i] else no))
        rows.append(np.mean(cells))
    loss = of("distribution_balanced", labels=labels)
    assert (targets.sum(1) == 0).any(), "a row without labels belongs to the test"
    assert value(loss, logits, targets) == pytest.approx(sum(rows), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_soft_macro_f1(smoothing):
    logits, targets = draw(n=12)
    targets[:, 3] = 0
    f1 = []
    for p, y in zip(expit(logits).T, targets.T):
        tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
        f1.append((2 * tp + smoothing) / (2 * tp + fp + fn + smoothing))
    loss = of("soft_macro_f1", f1_smoothing=smoothing)
    assert value(loss, logits, targets) == pytest.approx(12 * (1 - np.mean(f1)), rel=1e-6)


def test_soft_macro_f1_of_sure_answers_is_macro_f1():
    from foldblend.scoring.metrics.table import macro_f1

    logits, targets = draw(n=60)
    hard = np.where(logits > 0, 60.0, -60.0)
    expected = 60 * (1 - macro_f1(targets.astype(bool), logits > 0))
    assert value(of("soft_macro_f1", f1_smoothing=0.0), hard, targets) == pytest.approx(expected, rel=1e-6)


def test_zlpr():
    logits, targets = draw()
    rows = [np.log(1 + np.exp(-z[y > 0]).sum()) + np.log(1 + np.exp(z[y == 0]).sum()) for z, y in zip(logits, targets)]
    assert value(of("zlpr"), logits, targets) == pytest.approx(sum(rows), rel=1e-9)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name, gamma", [("cross_entropy", 0.0), ("focal", 2.0)])
def test_cross_entropy_and_its_focal_form(name, gamma, soft):
    labels = draw("multiclass", seed=9)[1].astype(bool)
    weight = (~labels).sum(0) / labels.sum(0)
    logits, targets = draw("multiclass", soft=soft)
    log_p = log_softmax(logits, axis=1)
    smoothed = targets * 0.9 + 0.1 / N_LABELS
    expected = -(smoothed * weight * (1 - np.exp(log_p)) ** gamma * log_p).sum()
    loss = of(name, "multiclass", labels=labels, pos_weight_power=1.0, label_smoothing=0.1)
    assert value(loss, logits, targets) == pytest.approx(expected, rel=1e-6)


def test_auto_is_bce_or_cross_entropy():
    for task, name in (("multilabel", "bce"), ("multiclass", "cross_entropy")):
        logits, targets = draw(task)
        assert value(of("auto", task), logits, targets) == value(of(name, task), logits, targets)


@pytest.mark.parametrize("name, task", EVERY)
def test_gradients(name, task):
    logits, targets = draw(task, n=6)
    loss = of(name, task)
    function = lambda z: loss(z, torch.from_numpy(targets))  # noqa: E731
    assert torch.autograd.gradcheck(function, torch.tensor(logits / 2, requires_grad=True))


@pytest.mark.parametrize("name, task", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_and_labels_never_or_always_there(name, task, dtype):
    """Both signs under both targets, in a fold that has never seen label 0 and always label 1."""
    labels = draw("multilabel", seed=2)[1].astype(bool)
    labels[:, 0], labels[:, 1] = False, True
    if task == "multiclass":
        labels = np.zeros_like(labels)
        labels[:, 1] = True
    for targets in (torch.zeros(2, 5), torch.eye(5)[:2], torch.ones(2, 5)):
        logits = torch.tensor([[100.0, -100.0, 100.0, -100.0, 0.0], [-100.0, 100.0, -100.0, 100.0, 0.0]]).to(dtype)
        logits.requires_grad_(True)
        smoothing = {"f1_smoothing": 0.0} if name == "soft_macro_f1" else {}
        got = of(name, task, labels=labels, **smoothing)(logits, targets.to(dtype))
        got.backward()
        assert torch.isfinite(got) and got >= 0 and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name, task", [("focal", "multilabel"), ("focal", "multiclass")])
def test_a_fractional_gamma_has_finite_gradients(name, task):
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    of(name, task, labels=np.eye(2, dtype=bool), focal_gamma=0.5)(logits, torch.tensor([[1.0, 0.0]])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name, task", EVERY)
def test_a_right_answer_costs_less_than_a_wrong_one(name, task):
    _, targets = draw(task)
    sure = (2 * targets - 1) * 4
    assert value(of(name, task), sure, targets) < 0.2 * value(of(name, task), -sure, targets)


@pytest.mark.parametrize("name, task", [pair for pair in EVERY if pair[0] != "soft_macro_f1"])
def test_a_batch_is_the_sum_of_its_rows(name, task):
    logits, targets = draw(task, n=7)
    loss = of(name, task)
    alone = sum(value(loss, logits[i : i + 1], targets[i : i + 1]) for i in range(7))
    assert value(loss, logits, targets) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("name", ["distribution_balanced", "soft_macro_f1", "zlpr"])
def test_soft_targets_are_refused_where_they_mean_nothing(name):
    logits, targets = draw(soft=True)
    with pytest.raises(ValueError, match=r"needs targets of 0 and 1, found 0\.\d+\. .*loss.name to bce, focal"):
        of(name)(torch.from_numpy(logits), torch.from_numpy(targets))


@pytest.mark.parametrize("name, task", [("cross_entropy", "multilabel"), *((n, "multiclass") for n in MULTILABEL)])
def test_a_loss_of_the_other_task_is_refused(name, task):
    if (name, task) != ("focal", "multiclass"):
        with pytest.raises(ValueError, match=f"loss.name is {name}; a {task} competition takes auto, "):
            of(name, task)


@pytest.mark.parametrize("name, task", EVERY)
def test_nothing_of_it_goes_into_a_checkpoint(name, task):
    assert not of(name, task).state_dict()


def test_pos_weight_is_capped_and_1_without_positives():
    labels = np.zeros((100, 4), bool)
    labels[:1, 0], labels[:20, 1], labels[:, 3] = True, True, True
    got = build_pos_weight(labels, LossSettings(pos_weight_power=1.0, pos_weight_cap=50.0))
    assert got.tolist() == [50.0, 4.0, 1.0, 1.0]
    assert build_pos_weight(labels, LossSettings(pos_weight_power=0.5)).tolist()[1] == 2.0
    assert build_pos_weight(labels, LossSettings()).tolist() == [1.0] * 4


@pytest.mark.parametrize("name, task", EVERY)
def test_a_linear_model_learns_by_it(name, task):
    """Label j is there where word j stands among five noise words; rows without labels and rare labels included."""
    rng = np.random.default_rng(0)
    targets = (
        np.eye(5)[rng.integers(0, 5, 400)]
        if task == "multiclass"
        else rng.random((400, 5)) < [0.5, 0.3, 0.2, 0.1, 0.04]
    )
    features = torch.from_numpy(np.hstack([targets, rng.random((400, 5)) < 0.5]).astype(np.float32))
    targets = torch.from_numpy(targets.astype(np.float32))
    torch.manual_seed(0)
    model = torch.nn.Linear(10, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    loss = of(name, task, labels=targets.numpy().astype(bool))
    for _ in range(300):
        rows = torch.from_numpy(rng.choice(400, 32))
        optimizer.zero_grad()
        (loss(model(features[rows]), targets[rows]) / 32).backward()
        optimizer.step()
    logits = model(features).detach()
    decided = torch.nn.functional.one_hot(logits.argmax(1), 5) if task == "multiclass" else logits > 0
    assert (decided == targets).float().mean() > 0.99


# ---------- labels that nobody knows.


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_an_unknown_label_costs_nothing_and_has_no_gradient(name):
    logits, targets = draw()
    unknown = np.random.default_rng(2).random(targets.shape) < 0.3
    loss = masked(of(name), name)
    z = torch.from_numpy(logits).requires_grad_()
    found = loss(z, torch.from_numpy(np.where(unknown, np.nan, targets)))
    found.backward()
    cells = of(name).of_cells(torch.from_numpy(logits), torch.from_numpy(targets)).numpy()
    assert float(found.detach()) == pytest.approx(cells[~unknown].sum() / N_LABELS)
    assert not z.grad.numpy()[unknown].any() and z.grad.numpy()[~unknown].any()


@pytest.mark.parametrize("name", ["zlpr", "soft_macro_f1", "distribution_balanced"])
def test_a_loss_over_all_labels_of_a_row_needs_them(name):
    with pytest.raises(ValueError, match=f"loss.name is {name}, which needs every label of a row"):
        masked(of(name), name)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_the_best_constant_of_known_labels(name):
    """A label's constant is that of the rows in which it is known; a label that is known nowhere costs nothing."""
    targets = draw(n=300)[1]
    targets[:200, 1] = np.nan
    targets[:, 2] = np.nan
    found, value = best_constant(masked(of(name), name), targets)
    alone, _ = best_constant(of(name), targets[200:, [0, 1, 3, 4, 0]].astype(bool))
    assert found[1] == pytest.approx(alone[1], abs=1e-3)
    tiled = np.tile(found, (300, 1)).astype(np.float64)
    mean = float(masked(of(name), name)(torch.from_numpy(tiled), torch.from_numpy(targets))) / 300
    assert value == pytest.approx(mean, rel=1e-6)
