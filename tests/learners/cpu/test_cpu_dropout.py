import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from foldblend.learners.cpu.layers import CpuDropout, draw_mask, use_cpu_dropout
from foldblend.learners.nets.classifier import recompute_layers

SHAPE = torch.Size((40, 50, 100))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.75])
def test_a_mask_keeps_the_share_asked_for_and_the_mean(dtype, probability):
    torch.manual_seed(3)
    mask = draw_mask(SHAPE, probability, dtype)
    assert mask.shape == SHAPE and mask.dtype == dtype
    kept = (mask != 0).double().mean().item()
    error = 4 * (probability * (1 - probability) / SHAPE.numel()) ** 0.5
    assert abs(kept - (1 - probability)) < error + (0.002 if dtype == torch.bfloat16 else 0)
    assert mask.double().mean().item() == pytest.approx(1, abs=error / (1 - probability))
    assert mask.unique().numel() == 2
    scale = mask.double().max().item()
    assert scale * round(65536 / scale) / 65536 == pytest.approx(1, abs=3e-5)


def test_masks_follow_torchs_seed_and_differ_from_call_to_call():
    torch.manual_seed(5)
    first, second = (draw_mask(SHAPE, 0.1, torch.float32) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(draw_mask(SHAPE, 0.1, torch.float32), first)
    assert not torch.equal(first, second)
    together = ((first > 0) & (second > 0)).double().mean().item()
    assert together == pytest.approx(0.81, abs=0.005), "masks of two calls must be independent"


def test_a_mask_of_one_number_and_of_certain_dropout():
    assert draw_mask(torch.Size((1,)), 0.5, torch.float32).shape == (1,)
    assert draw_mask(SHAPE, 1.0, torch.float32).abs().max() == 0


def test_off_in_evaluation_and_scales_the_gradient():
    states, dropout = torch.ones(30, 30, requires_grad=True), CpuDropout(0.3)
    assert dropout.eval()(states) is states
    dropped = dropout.train()(states)
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped.detach())


def tiny(kind, dropout=0.0):
    torch.manual_seed(1)
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "attn_implementation": "eager"}
        return DistilBertModel(DistilBertConfig(vocab_size=30, dropout=dropout, attention_dropout=dropout, **sizes))
    config, model = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[kind]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return model(config(vocab_size=30, **sizes, **rates, attn_implementation="eager"), add_pooling_layer=False)


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "whole"])
def test_attention_is_the_eager_one(kind, mask):
    """States and gradients, with and without a gradient asked for; padding is not looked at."""
    results = []
    for ours in (False, True):
        model = tiny(kind).train()
        if ours:
            use_cpu_dropout(model)
            assert model.config._attn_implementation == "cpu_dropout"
        states = model(input_ids=IDS, attention_mask=mask).last_hidden_state[mask.bool()]
        states.square().sum().backward()
        with torch.inference_mode():
            predicted = model.eval()(input_ids=IDS, attention_mask=mask).last_hidden_state[mask.bool()]
        results.append([states.detach(), predicted, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) > 20
    for eager, own in zip(*results, strict=True):
        assert torch.allclose(eager, own, atol=2e-5)


def test_every_dropout_is_taken_over_also_of_attention():
    model = nn.ModuleDict({"encoder": tiny("bert", dropout=0.2), "dropout": nn.Dropout(0.4)})
    use_cpu_dropout(model)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert {type(module) for module in found} == {CpuDropout} and {module.p for module in found} == {0.2, 0.4}
    for module in found:
        module.p = 0.0
    drawn = []
    for layer in model["encoder"].encoder.layer:
        layer.attention.self.dropout.p = 0.5
    for _ in range(2):
        drawn.append(model["encoder"].train()(input_ids=IDS, attention_mask=MASK).last_hidden_state)
    assert not torch.allclose(*drawn), "attention must drop too"


def test_layers_computed_again_draw_the_same_masks():
    gradients = []
    for again in (False, True):
        model = tiny("bert", dropout=0.3).train()
        use_cpu_dropout(model)
        if again:
            recompute_layers(model)
        torch.manual_seed(7)
        model(input_ids=IDS, attention_mask=MASK).last_hidden_state.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-5)


def test_a_model_saved_by_another_attention_is_read(tmp_path):
    model = tiny("bert")
    use_cpu_dropout(model)
    model.save_pretrained(tmp_path)
    assert np.isfinite(AutoModel.from_pretrained(tmp_path)(input_ids=IDS).last_hidden_state.detach().numpy()).all()
