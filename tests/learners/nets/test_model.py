from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from foldblend.learners.nets.classifier import build_model, check_positions
from foldblend.settings.nets import ModelSettings

POOLINGS = ("mean", "cls", "last", "max", "attention", "label_attention", "pooler", "concat_last")
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = (IDS != 0).long()


def build(folder, bias=None, **settings):
    settings = {"concat_layers": 2, **settings} if settings.get("pooling") == "concat_last" else settings
    return build_model(folder, ModelSettings(name=str(folder), **settings), bias, 3, seed=1)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_has_a_gradient_and_padding_changes_nothing(tiny_bert, pooling, head):
    """A parameter outside the graph would stall DDP."""
    model = build(tiny_bert, pooling=pooling, head=head)
    model(IDS, MASK).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    with torch.no_grad():
        together, alone = model.eval()(IDS, MASK), model(IDS[1:, :3], MASK[1:, :3])
    assert together.dtype == torch.float32 and torch.allclose(together[1:], alone, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_encoder_in_bf16_has_logits_in_float32(tiny_bert, pooling):
    model = build(tiny_bert, pooling=pooling, head="mlp").eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(IDS, MASK)
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize("settings", [{"head": "mlp"}, {"pooling": "concat_last"}, {"dropout_samples": 3}])
def test_the_prior_reaches_the_last_layer(tiny_bert, settings):
    bias = np.float32([1, -2, 3])
    model = build(tiny_bert, bias, **settings).eval()
    assert torch.equal(model.head.bias.detach(), torch.from_numpy(bias))
    model.head.weight.data.zero_()
    assert torch.equal(model(IDS, MASK).detach(), torch.from_numpy(bias).expand(2, 3))


def test_fresh_layers_are_drawn_from_the_seed_alone(tiny_bert):
    settings = ModelSettings(name=str(tiny_bert), pooling="attention", head="mlp")
    one, same, other = (build_model(tiny_bert, settings, None, 3, seed) for seed in (1, 1, 2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        if name.startswith("head") and value.ndim == 2:
            assert not torch.equal(value, other.state_dict()[name])


def test_the_pooler_is_the_pretrained_one_and_is_dropped_where_it_is_not_read(tiny_bert):
    model, plain = build(tiny_bert, pooling="pooler").eval(), AutoModel.from_pretrained(tiny_bert).eval()
    pooled = plain(input_ids=IDS, attention_mask=MASK).pooler_output
    assert torch.allclose(model(IDS, MASK), model.head(pooled), atol=1e-6)
    assert build(tiny_bert, pooling="cls").encoder.pooler is None


def test_a_pooler_that_would_be_random_is_refused(tiny_bert, tmp_path):
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((tiny_bert / name).read_bytes())
    weights = load_file(tiny_bert / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, tmp_path / "model.safetensors", {"format": "pt"})
    assert build(tmp_path, pooling="cls").encoder.pooler is None
    with pytest.raises(ValueError, match="the weights hold no pooler, it would be random; set model.pooling to cls"):
        build(tmp_path, pooling="pooler")
    less = {k: v for k, v in weights.items() if "layer.1.output" not in k}
    save_file(less, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"4 weights are missing, first .*not the whole model"):
        build(tmp_path)


def test_more_layers_or_positions_than_there_are_is_refused(tiny_bert):
    settings = replace(ModelSettings(name=str(tiny_bert)), pooling="concat_last", concat_layers=3)
    with pytest.raises(ValueError, match="2 layers, model.concat_layers is 3"):
        build_model(tiny_bert, settings, None, 3, seed=1)
    encoder = build(tiny_bert).encoder
    check_positions(encoder, 64)
    with pytest.raises(ValueError, match=r"65 tokens, BertModel has 64 positions; set --model.max_length_tokens 64"):
        check_positions(encoder, 65)
