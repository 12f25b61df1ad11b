import numpy as np
import pytest
import torch
from accelerate import Accelerator

from foldblend import console
from foldblend.errors import UserError
from foldblend.learners.tokens.tokens import Tokens
from foldblend.learners.training import predicting
from foldblend.learners.training.predicting import predict_logits

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


class Echo(torch.nn.Module):
    """Says the first token of each row, so that a row out of place shows."""

    def forward(self, input_ids, attention_mask):
        return torch.stack([input_ids[:, 0], attention_mask.sum(1)], 1)


def echo_tokens(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.zeros(starts[-1], np.int32)
    ids[starts[:-1]] = np.arange(len(lengths))
    return Tokens(ids, starts, 0)


def test_every_row_in_the_order_asked(monkeypatch):
    monkeypatch.setitem(predicting.TOKENS_PER_BATCH, "cpu", 50)
    rng = np.random.default_rng(0)
    tokens = echo_tokens(rng.integers(1, 20, 200))
    rows = rng.permutation(200)[:77]
    logits = predict_logits(Accelerator(cpu=True), Echo(), tokens, rows, 2)
    assert logits.dtype == np.float32
    assert np.array_equal(logits[:, 0], rows) and np.array_equal(logits[:, 1], tokens.lengths[rows])


def test_its_progress_counts_every_row_once(monkeypatch, capsys):
    monkeypatch.setitem(predicting.TOKENS_PER_BATCH, "cpu", 50)
    monkeypatch.setattr(console, "is_terminal", lambda stream: True)
    monkeypatch.setattr(console, "DRAW_EVERY_SECONDS", 0.0)
    predict_logits(Accelerator(cpu=True), Echo(), echo_tokens(np.full(60, 9)), np.arange(60), 2)
    drawn = [line for line in capsys.readouterr().err.split("\r") if line.startswith("prediction ")]
    assert len(drawn) > 5 and drawn[-1].startswith("prediction 100% [") and "60 rows" in drawn[-1]
    assert console._live == []


def test_no_rows_give_an_empty_table():
    assert predict_logits(Accelerator(cpu=True), Echo(), echo_tokens([1, 2]), np.array([], np.int64), 2).shape == (0, 2)


def test_the_model_is_in_training_mode_again():
    model = Echo()
    predict_logits(Accelerator(cpu=True), model, echo_tokens([1, 2]), np.array([0, 1]), 2)
    assert model.training


class Small(Echo):
    """Holds so many tokens at once."""

    def __init__(self, room):
        super().__init__()
        self.room, self.tried = room, []

    def forward(self, input_ids, attention_mask):
        self.tried.append(input_ids.numel())
        if input_ids.numel() > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(input_ids, attention_mask)


def test_batches_that_do_not_fit_are_taken_again_in_halves(capsys):
    rng = np.random.default_rng(0)
    tokens, rows = echo_tokens(rng.integers(1, 20, 200)), rng.permutation(200)[:90]
    model = Small(60)
    logits = predict_logits(Accelerator(cpu=True), model, tokens, rows, 2)
    assert np.array_equal(logits[:, 0], rows) and np.array_equal(logits[:, 1], tokens.lengths[rows])
    refused = [tried for tried in model.tried if tried > model.room]
    assert len(refused) > 1 and refused == sorted(set(refused), reverse=True), "it does not try what was refused again"
    assert len(refused) == capsys.readouterr().err.count("prediction: out of memory: at most")


def test_a_text_that_does_not_fit_alone_ends_it():
    with pytest.raises(UserError, match="Predicting 1 texts at once does not fit .* goes on from the last save"):
        predict_logits(Accelerator(cpu=True), Small(5), echo_tokens([3, 9, 4]), np.arange(3), 2)


def test_shards_of_a_model_do_not_try_again(monkeypatch):
    monkeypatch.setattr(predicting, "is_sharded", lambda model: True)
    model = Small(5)
    with pytest.raises(UserError):
        predict_logits(Accelerator(cpu=True), model, echo_tokens([3, 3, 3]), np.arange(3), 2)
    assert len(model.tried) == 1
