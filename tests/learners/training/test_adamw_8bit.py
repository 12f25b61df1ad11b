import copy
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from toy_corpus import fold_rows, make_corpus
from transformers import BertConfig, BertModel, BertTokenizerFast

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop, neural
from foldblend.learners.training.optimizer import build_optimizer
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

SETTINGS = OptimizerSettings(lr=1e-2, head_lr=1e-2, weight_decay=0.1, state_precision="8bit")
pytestmark = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is for Linux")


class Reader(nn.Module):
    """A table, a matrix that is worth 8 bits, and a bias that is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.body, self.head = nn.Embedding(200, 64), nn.Linear(64, 128), nn.Linear(128, 1)

    def forward(self, ids):
        return self.head(self.body(self.words(ids).mean(1)).relu()).squeeze(-1)


def step(model, optimizer, seed):
    ids = torch.randint(200, (16, 4), generator=torch.Generator().manual_seed(seed))
    (model(ids) - ids.float().mean(1) / 100).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(settings, n_steps=60):
    model = Reader()
    optimizer = build_optimizer(model, settings)
    for seed in range(n_steps):
        step(model, optimizer, seed)
    return model, optimizer


def flat(optimizer):
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def test_moves_as_adamw_does_with_a_quarter_of_the_moments():
    (dense, float32), (model, optimizer) = (
        trained(replace(SETTINGS, state_precision=kind)) for kind in ("float32", "8bit")
    )
    start = Reader()
    for name, weight in model.named_parameters():
        moved = dense.get_parameter(name) - start.get_parameter(name)
        assert (weight - dense.get_parameter(name)).norm() < 0.25 * moved.norm(), name
    assert not torch.equal(model.body.weight, dense.body.weight)
    kept = optimizer.state[model.body.weight]
    n_bytes = sum(kept[name].nbytes for name in ("state1", "state2", "absmax1", "absmax2"))
    assert n_bytes < 0.27 * sum(float32.state[dense.body.weight][name].nbytes for name in ("exp_avg", "exp_avg_sq"))


def test_tables_and_small_tensors_keep_float32():
    model, optimizer = trained(SETTINGS, n_steps=1)
    kinds = {name: optimizer.state[weight]["state1"].dtype for name, weight in model.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == torch.uint8} == {"body.weight"}
    assert model.words.weight.numel() > 4096  # by its kind, not by its size


def test_goes_on_from_a_file_bit_for_bit():
    model, optimizer = trained(SETTINGS, n_steps=5)
    stored = load(save(flat(optimizer)))
    assert all(torch.is_tensor(value) for value in stored.values())
    again = copy.deepcopy(model)
    resumed = build_optimizer(again, SETTINGS)
    state: dict = {}
    for name, value in stored.items():
        state.setdefault(int(name.split(".")[0]), {})[name.split(".", 1)[1]] = value
    resumed.load_state_dict({"state": state, "param_groups": resumed.state_dict()["param_groups"]})
    for seed in range(5, 12):
        step(model, optimizer, seed)
        step(again, resumed, seed)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))


@pytest.fixture
def run(tiny_bert, tmp_path, fresh_accelerate):
    folder = tmp_path / "wide"
    tokenizer = BertTokenizerFast.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    training = TrainingSettings(epochs=2, global_batch_size=16, precision="fp32", checkpoint_every_minutes=1e-9)
    return RunSettings("encoder", model=ModelSettings(name=str(folder)), training=training, optimizer=SETTINGS)


def test_a_fold_killed_and_started_again_ends_the_same(run, tmp_path, monkeypatch):
    corpus = make_corpus()
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows = fold_rows(corpus, tmp_path / "killed")
    steps, take_step = [], loop.take_step

    def killed(learner, fold, *more):
        steps.append(fold.optimizer.optimizer)
        if len(steps) > 7:
            raise RuntimeError("killed")
        take_step(learner, fold, *more)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(run, corpus).train_fold(rows)
    assert any(state["state1"].dtype == torch.uint8 for state in steps[0].state.values())
    with monkeypatch.context() as patch:
        n_first, train = [], neural.train
        patch.setattr(neural, "train", lambda *given: (n_first.append(given[-1].step), train(*given))[1])
        again = EncoderLearner(run, corpus).train_fold(rows)
    assert n_first == [7], "it went on from its save"
    assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)


def test_rows_that_wait_are_refused():
    with pytest.raises(ValueError, match=r"embedding_updates lazy .* with optimizer\.state_precision 8bit"):
        RunSettings("encoder", optimizer=OptimizerSettings(state_precision="8bit", embedding_updates="lazy"))


def test_a_launch_that_spreads_weights_is_refused(run, monkeypatch):
    monkeypatch.setattr("foldblend.learners.training.neural.spreads", lambda accelerator: True)
    with pytest.raises(ValueError, match=r"optimizer\.state_precision 8bit works on whole tensors"):
        EncoderLearner(run, make_corpus())


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        build_optimizer(Reader(), SETTINGS)
