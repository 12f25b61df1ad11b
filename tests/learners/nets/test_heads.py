from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foldblend.learners.nets.classifier import AttentionPooling, LabelWiseLinear, Pooling, pool_states, sample_dropout
from foldblend.settings.nets import ModelSettings
from foldblend.settings.run import RunSettings

WIDTH = 6


def draw(lengths, seed=0):
    """States (B, T, H) with large rubbish where there is no token, and the mask."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(len(lengths), max(lengths), WIDTH)).astype(np.float32)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    states[mask == 0] = rng.choice([-1e6, 1e6])
    return torch.from_numpy(states), torch.from_numpy(mask)


REFERENCES = {
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
    "mean": lambda states: states.mean(0),
    "max": lambda states: states.max(0),
}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from(sorted(REFERENCES)), st.integers(0, 99))
def test_pooling_is_numpys_over_each_text_alone(lengths, how, seed):
    states, mask = draw(lengths, seed)
    expected = [REFERENCES[how](states[i, :n].numpy()) for i, n in enumerate(lengths)]
    assert pool_states(states, mask, how).numpy() == pytest.approx(np.stack(expected), abs=1e-6)


@pytest.mark.parametrize("n_means", [1, 4])
def test_attention_is_a_weighted_mean_of_the_real_tokens(n_means):
    torch.manual_seed(0)
    states, mask = draw([3, 5])
    pooling = AttentionPooling(WIDTH, n_means)
    with torch.no_grad():
        pooled = pooling(states, mask)
        assert pooled.shape == (2, n_means, WIDTH)
        for i, n in enumerate((3, 5)):
            scores = pooling.score(torch.tanh(pooling.dense(states[i, :n])))  # (n, n_means)
            assert torch.allclose(pooled[i], scores.softmax(0).T @ states[i, :n], atol=1e-5)


def test_each_label_starts_from_the_mean_and_learns_where_to_look():
    states, mask = draw([3, 5])
    pooling, head = Pooling(WIDTH, 4, ModelSettings(pooling="label_attention")), LabelWiseLinear(WIDTH, 4)
    mean = pool_states(states, mask, "mean")
    output = SimpleNamespace(last_hidden_state=states)
    assert torch.allclose(pooling(output, mask), mean.unsqueeze(1).expand(2, 4, WIDTH), atol=1e-5)
    assert torch.allclose(head(pooling(output, mask)), nn.functional.linear(mean, head.weight, head.bias), atol=1e-5)
    head(pooling(output, mask))[:, 2].sum().backward()  # label 2 alone learns
    moved = pooling.attention.score.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, False, True, False]
    with torch.no_grad():
        pooling.attention.score.weight -= pooling.attention.score.weight.grad
    views = pooling(output, mask)
    assert torch.allclose(views[:, 1], mean, atol=1e-5) and not torch.allclose(views[:, 2], mean, atol=1e-2)


@pytest.mark.parametrize("of_layer", ["cls", "mean"])
def test_the_last_layers_stand_side_by_side(of_layer):
    layers, mask = [draw([2, 3], seed)[0] for seed in range(5)], draw([2, 3])[1]
    pooling = Pooling(WIDTH, 4, ModelSettings(pooling="concat_last", concat_layers=3, concat_states=of_layer))
    pooled = pooling(SimpleNamespace(hidden_states=tuple(layers)), mask)
    assert pooled.shape == (2, 3 * WIDTH) == (2, pooling.width)
    for part, layer in zip(pooled.split(WIDTH, dim=1), layers[2:], strict=True):
        assert torch.equal(part, pool_states(layer, mask, of_layer))


def test_sampled_dropout_averages_its_draws_and_is_off_in_evaluation():
    torch.manual_seed(0)
    head, dropout, pooled = nn.Linear(WIDTH, 3), nn.Dropout(0.5), torch.randn(4, WIDTH)
    torch.manual_seed(1)
    got = sample_dropout(head, dropout, pooled, 5)
    torch.manual_seed(1)
    draws = [head(dropout(pooled)) for _ in range(5)]
    assert torch.allclose(got, sum(draws) / 5, atol=1e-6) and not torch.equal(draws[0], draws[1])
    assert torch.equal(sample_dropout(head, dropout.eval(), pooled, 5), head(pooled))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dropout_samples": 5, "head_dropout": 0.0}, "all samples are alike"),
        ({"dropout_samples": 0}, "model.dropout_samples is 0; expected 1 or more"),
        ({"concat_layers": 2}, "model.concat_layers is set, but model.pooling is mean"),
        ({"head_dropout": 1.0}, "model.head_dropout is 1.0"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RunSettings("encoder", model=ModelSettings(**settings))
