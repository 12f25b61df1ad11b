from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.cpu import waiting_rows as row_adamw
from foldblend.learners.cpu.waiting_rows import choose_table, clip_rows, sum_rows
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop
from foldblend.learners.training.optimizer import build_optimizer, set_lr
from foldblend.settings.nets import AdversarialSettings, ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

N_WORDS, N_STEPS = 50, 300


class Reader(nn.Module):
    """Two words, one logit."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(N_WORDS, 4, padding_idx=0), nn.Linear(4, 1)

    def get_input_embeddings(self):
        return self.words

    def forward(self, ids):
        return self.head(self.words(ids).tanh().mean(1)).squeeze(-1)


def train(settings, deferred, n_steps=N_STEPS, max_norm=0.05):
    """The model after steps of two micro-batches of words that are rare to different degrees; word 49 never comes."""
    model = Reader()
    optimizer = build_optimizer(model, settings, model.words if deferred else None)
    rng = np.random.default_rng(1)
    for step in range(n_steps):
        set_lr(optimizer, 1 - step / n_steps)
        for _ in range(2):
            ids = torch.from_numpy((rng.random((3, 2)) ** 4 * (N_WORDS - 1)).astype(np.int64))
            (model(ids) - ids.float().mean(1)).square().sum().backward()
        if deferred:
            clip_rows(list(model.parameters()), max_norm)
        else:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.fixture(params=[True, False], ids=["C", "torch"])
def in_c(request, monkeypatch):
    if request.param and not row_adamw.is_available():
        pytest.skip("no C compiler here")
    monkeypatch.setattr(row_adamw, "is_available", lambda: request.param)


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])
def test_ends_where_adamw_on_all_rows_ends(decay, betas):
    settings = OptimizerSettings(lr=3e-3, head_lr=3e-3, weight_decay=decay, beta1=betas[0], beta2=betas[1])
    dense, _ = train(settings, deferred=False)
    start, (model, optimizer) = Reader(), train(settings, deferred=True)
    stale = (model.words.weight - dense.words.weight).abs().max()
    optimizer.update_waiting_rows()
    assert torch.allclose(model.head.weight, dense.head.weight, atol=2e-5)
    assert torch.allclose(model.words.weight, dense.words.weight, atol=2e-5)
    assert (dense.words.weight - start.words.weight).abs().max() > 0.05
    assert decay == 0 or stale > 1e-4, "no row waited, so nothing was shown"


@pytest.mark.usefixtures("in_c")
def test_settling_twice_changes_nothing():
    model, optimizer = train(OptimizerSettings(lr=3e-3), deferred=True)
    optimizer.update_waiting_rows()
    once = model.words.weight.detach().clone()
    optimizer.update_waiting_rows()
    assert torch.equal(once, model.words.weight)


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("word", [N_WORDS, -1])
def test_a_word_that_the_table_has_not_is_refused_and_moves_nothing(word):
    model, optimizer = train(OptimizerSettings(lr=3e-3), deferred=True, n_steps=3)
    optimizer.update_waiting_rows()
    before = model.words.weight.detach().clone()
    with pytest.raises(IndexError):
        model(torch.tensor([[1, word]]))
    assert torch.equal(before, model.words.weight)


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_gradients_are_clipped_like_dense_ones(max_norm):
    models = [Reader(), Reader()]
    models[1].words.sparse = True
    ids = torch.tensor([[3, 3], [3, 7], [0, 9]])
    for model in models:
        for part in (ids[:2], ids[1:]):
            model(part).sum().backward()
    nn.utils.clip_grad_norm_(models[0].parameters(), max_norm)
    clip_rows(list(models[1].parameters()), max_norm)
    for dense, rows in zip(models[0].parameters(), models[1].parameters()):
        assert torch.allclose(dense.grad, rows.grad.to_dense(), rtol=1e-5, atol=1e-9)


def test_one_gradient_that_is_no_number_spoils_all():
    model = Reader()
    model(torch.tensor([[1, 2]])).sum().backward()
    model.head.bias.grad.fill_(torch.nan)
    clip_rows(list(model.parameters()), max_norm=1.0)
    assert all(weight.grad.to_dense()[weight.grad.to_dense() != 0].isnan().all() for weight in model.parameters())


def test_rows_of_a_gradient_are_summed_once():
    gradient = torch.sparse_coo_tensor([[4, 1, 4]], torch.tensor([[1.0], [2.0], [4.0]]), (6, 1), check_invariants=True)
    summed = sum_rows(gradient)
    assert summed.is_coalesced() and torch.equal(summed.to_dense(), gradient.to_dense())
    assert torch.equal(sum_rows(torch.ones(3, 2)).to_dense(), torch.ones(3, 2))


CPU = torch.device("cpu")


def choose(how, device=CPU, n_processes=1, model=None, **groups):
    run = replace(RunSettings("encoder", optimizer=OptimizerSettings(embedding_updates=how)), **groups)
    return choose_table(model or Reader(), run, device, n_processes)


def test_chosen_where_the_table_is_most_of_the_model():
    model = Reader()
    assert choose("lazy", model=model) is model.words
    assert choose("auto") is None and choose("every_step") is None, "a small table is not worth it"
    model.words = nn.Embedding(40_000, 26)
    assert choose("auto", model=model) is model.words
    model.body = nn.Linear(3000, 3000)
    assert choose("auto", model=model) is None


@pytest.mark.parametrize(
    "against, message",
    [
        ({"device": torch.device("meta")}, "device is meta"),
        ({"n_processes": 2}, "2 processes"),
        ({"training": TrainingSettings(ema_decay=0.9)}, "ema_decay"),
        ({"adversarial": AdversarialSettings("awp", epsilon=1.0, awp_lr=0.1)}, "adversarial.name awp"),
        ({"model": nn.Linear(2, 2)}, "no plain table"),
    ],
)
def test_refused_or_left_where_it_cannot_be(against, message):
    large = Reader()
    large.words = nn.Embedding(40_000, 26)
    against = {"model": large, **against}
    if "training" in against or "adversarial" in against or "device" in against or "n_processes" in against:
        assert choose("auto", **against) is None
    with pytest.raises(ValueError, match=message):
        choose("lazy", **against)


def test_a_table_that_stands_in_two_places_is_left():
    model = Reader()
    model.tied = nn.Linear(4, N_WORDS)
    model.tied.weight = model.words.weight
    with pytest.raises(ValueError, match="no plain table"):
        choose("lazy", model=model)


@pytest.fixture
def run(tiny_bert, fresh_accelerate):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert)),
        training=TrainingSettings(
            epochs=2, global_batch_size=16, micro_batch_size=8, precision="fp32", checkpoint_every_minutes=1e-9
        ),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=5e-3, embedding_updates="lazy"),
    )


def stop_after(monkeypatch, n_steps):
    steps, take_step = [], loop.take_step

    def counted(*given):
        steps.append(1)
        if len(steps) > n_steps:
            raise RuntimeError("killed")
        take_step(*given)

    monkeypatch.setattr(loop, "take_step", counted)


def test_killed_and_started_again_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    rare = replace(run, training=replace(run.training, checkpoint_every_minutes=60.0))
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    seldom_saved = EncoderLearner(rare, corpus).train_fold(fold_rows(corpus, tmp_path / "seldom"))
    assert np.array_equal(seldom_saved.oof, whole.oof), "saving must not move the weights"
    for n_steps in (1, 12, 13):  # after the first step, and on both sides of the end of an epoch
        rows = fold_rows(corpus, tmp_path / f"killed{n_steps}")
        with monkeypatch.context() as patch:
            stop_after(patch, n_steps)
            with pytest.raises(RuntimeError, match="killed"):
                EncoderLearner(run, corpus).train_fold(rows)
        again = EncoderLearner(run, corpus).train_fold(rows)
        assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test), n_steps


@pytest.mark.parametrize("adversary", [AdversarialSettings(), AdversarialSettings("fgm", epsilon=0.5)])
def test_a_fold_ends_where_the_dense_one_ends(run, tmp_path, adversary):
    corpus, run = make_corpus(), replace(run, adversarial=adversary)
    dense = replace(run, optimizer=replace(run.optimizer, embedding_updates="every_step"))
    rows = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "rows"))
    whole = EncoderLearner(dense, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    assert np.allclose(rows.oof, whole.oof, atol=2e-3)
    assert np.ptp(whole.oof) > 0.2


def test_a_checkpoint_of_the_other_kind_is_refused(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(run, corpus).train_fold(rows)
    monkeypatch.setattr("foldblend.learners.training.optimizer.choose_table", lambda *_: None)
    with pytest.raises(ValueError, match="updated the touched rows"):
        EncoderLearner(run, corpus).train_fold(rows)
