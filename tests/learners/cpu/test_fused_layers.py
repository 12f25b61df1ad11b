"""Every function of native/ against torch in float64, and whole layers against transformers' own."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, BertConfig, BertModel

from foldblend.learners.cpu import layers as fused_layers
from foldblend.learners.cpu.layers import NO_DROPOUT, FusedLayer, draw_dropout, fuse_layers, run, use_cpu_dropout
from foldblend.learners.nets.classifier import recompute_layers

pytestmark = pytest.mark.skipif(not fused_layers.is_available(), reason="no C compiler here")

HALF = torch.bfloat16
ROUNDING = {HALF: 2.0**-8, torch.float32: 1e-5}
"""Relative error of a state."""


@pytest.fixture(params=list(ROUNDING), ids=["bf16", "fp32"])
def dtype(request):
    return request.param


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def close(found, expected, atol=1e-5, rtol=1e-5):
    torch.testing.assert_close(found.double(), expected.double(), atol=atol, rtol=rtol)


def test_gelu_and_its_gradient(threads, dtype):
    torch.manual_seed(0)
    states = torch.cat([torch.linspace(-9, 9, 4000), torch.tensor([-100.0, 100, 0, -0.0]), torch.randn(92)])
    states, bias = states.to(dtype).view(32, 128), torch.randn(128)
    exact = (states.double() + bias).requires_grad_()
    outcome = F.gelu(exact)
    gradient = torch.randn(32, 128).to(dtype)
    outcome.backward(gradient.double())
    found, sums = torch.empty_like(states), torch.zeros(threads, 128)
    alone = torch.empty_like(states)
    run("gelu_forward", dtype, states, bias, None, alone, 32, 128)
    run("gelu_forward", dtype, states, bias, states, found, 32, 128)
    assert torch.equal(alone, found)
    close(found, outcome.detach(), atol=1e-5, rtol=ROUNDING[dtype])
    of_states = gradient.clone()
    run("gelu_backward", dtype, states, of_states, sums, 32, 128)
    close(of_states, exact.grad, atol=1e-5, rtol=2 * ROUNDING[dtype])  # the slope is rounded, and the gradient
    close(sums.sum(0), exact.grad.sum(0), atol=32 * ROUNDING[dtype])


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_norm_and_its_gradients(threads, dtype, drop):
    torch.manual_seed(1)
    rows, width, eps = 37, 48, 1e-12
    residual, out = torch.randn(rows, width) * 3 + 1, torch.randn(rows, width).to(dtype)
    bias, gain, shift, gradient = torch.randn(width), torch.randn(width), torch.randn(width), torch.randn(rows, width)
    dropped = draw_dropout(drop)
    added, moments, normed = torch.empty(rows, width), torch.empty(rows, 2), torch.empty(rows, width)
    states = torch.empty_like(out)
    where = (added, moments, normed, states, rows, width)
    run("norm_forward", dtype, residual, out, bias, gain, shift, eps, *dropped, *where)
    assert torch.equal(states, normed.to(dtype))
    alone = torch.empty(rows, width)
    where = (alone, torch.empty(rows, 2), alone, None, rows, width)
    run("norm_forward", dtype, residual, out, bias, gain, shift, eps, *dropped, *where)
    assert torch.equal(alone, normed)

    mask = ((added - residual).abs() > 1e-6) / (1 - drop) if drop else torch.ones(rows, width)
    exact = [tensor.double().requires_grad_() for tensor in (residual, out.double() + bias, gain, shift)]
    expected = F.layer_norm(exact[0] + exact[1] * mask, [width], exact[2], exact[3], eps)
    expected.backward(gradient.double())
    close(normed, expected.detach())
    close(added, (exact[0] + exact[1] * mask).detach())
    of_residual, of_out = torch.empty(rows, width), torch.empty(rows, width, dtype=dtype)
    sums = torch.zeros(threads, 3, width)
    run("norm_backward", dtype, gradient, added, moments, gain, *dropped, of_residual, of_out, sums, rows, width)
    close(of_residual, exact[0].grad)
    close(of_out, exact[1].grad, rtol=ROUNDING[dtype])
    of_gain, of_shift, of_bias = sums.sum(0)
    close(of_gain, exact[2].grad, atol=1e-4)
    close(of_shift, exact[3].grad, atol=1e-4)
    close(of_bias, exact[1].grad.sum(0), atol=1e-4)


def test_a_sum_of_two_precisions(dtype):
    to, other = torch.randn(64), torch.randn(64).to(dtype)
    expected = to + other.float()
    run("add_states", dtype, to, other, 64)
    assert torch.equal(to, expected)


def reference(qkv, seen, heads, mask=None):
    """Attention in float64: qkv (B, T, 3 H) -> (B, T, H), and the probabilities (B, heads, T, T) before `mask`."""
    batch, length, width = qkv.shape
    parts = qkv.view(batch, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    query, key, value = parts
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    probs = scores.masked_fill(~seen[:, None, None], -math.inf).softmax(-1)
    dropped = probs if mask is None else probs * mask
    return (dropped @ value).transpose(1, 2).reshape(batch, length, width // 3), probs


def attend(qkv, bias, seen, heads, dropped=NO_DROPOUT):
    batch, length, width = qkv.shape
    head = width // 3 // heads
    shape, out = (batch, length, heads, head, head**-0.5), qkv.new_empty(batch, length, width // 3)
    run("attention_forward", qkv.dtype, qkv, bias, seen, out, *shape, *dropped)
    return out, shape


@st.composite
def attentions(draw):
    """qkv (B, T, 3 H) and its bias, what is seen (B, T) of which at least one token a text, and the heads."""
    batch, length, heads = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    width = heads * draw(st.sampled_from([16, 32, 64]))
    seen = torch.rand(batch, length, generator=generator) < draw(st.sampled_from([0.3, 0.9, 1.0]))
    seen[torch.arange(batch), torch.randint(length, (batch,), generator=generator)] = True
    scale = draw(st.sampled_from([0.1, 1.0, 8.0]))
    dtype = draw(st.sampled_from(list(ROUNDING)))
    qkv = (torch.randn(batch, length, 3 * width, generator=generator) * scale).to(dtype)
    return qkv, torch.randn(3 * width, generator=generator), seen, heads


def error_of_scores(qkv, heads):
    """How far float32 may be off in the largest score, and so, relatively, in a probability."""
    query, key, _ = qkv.view(*qkv.shape[:2], 3, heads, -1).unbind(2)
    scores = torch.einsum("bihd,bjhd->bhij", query, key) * query.shape[-1] ** -0.5
    return 2.0**-23 * float(scores.abs().max())


@settings(max_examples=60, deadline=None)
@given(attentions())
def test_attention_and_its_gradient_whatever_is_padding(case):
    (qkv, bias, seen, heads), dtype = case, case[0].dtype
    exact = (qkv.double() + bias).requires_grad_()
    expected, _ = reference(exact, seen, heads)
    found, shape = attend(qkv, bias, seen, heads)
    last = torch.where(seen.any(1), seen.shape[1] - seen.flip(1).int().argmax(1), 0)
    present = torch.arange(seen.shape[1]) < last[:, None]  # up to the last token that is seen
    size, error = float(exact.detach().abs().max()), error_of_scores(exact.detach(), heads)
    close(found[present], expected[present].detach(), atol=(1e-5 + error) * size, rtol=ROUNDING[dtype])
    assert (found[~present] == 0).all()

    gradient = torch.randn(expected.shape).to(dtype) * present[..., None]
    expected.backward(gradient.double())
    of_qkv, sums = torch.full_like(qkv, torch.nan), torch.zeros(torch.get_num_threads(), qkv.shape[2])
    run("attention_backward", dtype, qkv, bias, seen, gradient, of_qkv, sums, *shape, *NO_DROPOUT)
    largest = float(exact.grad.abs().max())
    close(of_qkv, exact.grad, atol=(1e-4 + error) * largest, rtol=ROUNDING[dtype])
    close(sums.sum(0), exact.grad.sum((0, 1)), atol=(1e-3 + error) * largest)


def test_dropped_probabilities_and_their_gradient(threads, dtype):
    """Values that are a unit matrix show the probabilities, and so which of them were dropped."""
    torch.manual_seed(2)
    batch, length, heads, head = 4, 24, 2, 32
    width, seen = heads * head, torch.ones(4, 24, dtype=torch.bool)
    bias = torch.zeros(3 * width)
    qkv = torch.randn(batch, length, 3 * width).to(dtype)
    shown = qkv.clone()
    shown.view(batch, length, 3, heads, head)[:, :, 2] = torch.eye(length, head)[:, None].to(dtype)
    dropped = draw_dropout(0.4)
    found, shape = attend(shown, bias, seen, heads, dropped)
    _, probs = reference(shown.double(), seen, heads)
    kept = found.view(batch, length, heads, head).transpose(1, 2)[..., :length].double()
    mask = (kept > 0) / 0.6
    close(kept, probs * mask, rtol=ROUNDING[dtype])
    assert abs(float((mask > 0).double().mean()) - 0.6) < 0.03

    exact = qkv.double().requires_grad_()
    expected, _ = reference(exact, seen, heads, mask)
    close(attend(qkv, bias, seen, heads, dropped)[0], expected.detach(), rtol=ROUNDING[dtype])
    gradient = torch.randn(expected.shape).to(dtype)
    expected.backward(gradient.double())
    of_qkv, sums = torch.empty_like(qkv), torch.zeros(torch.get_num_threads(), 3 * width)
    run("attention_backward", dtype, qkv, bias, seen, gradient, of_qkv, sums, *shape, *dropped)
    close(of_qkv, exact.grad, atol=1e-4, rtol=ROUNDING[dtype])


def drawn_mask(dropped, n=160_000):
    """The dropout of n elements, as a norm's sum shows it."""
    zeros, ones = torch.zeros(n // 16, 16), torch.ones(n // 16, 16)
    added, moments, out = torch.empty_like(zeros), torch.empty(n // 16, 2), torch.empty_like(zeros)
    where = (added, moments, out, None, n // 16, 16)
    run("norm_forward", HALF, zeros, ones.to(HALF), zeros[0], ones[0], zeros[0], 1e-5, *dropped, *where)
    return added.flatten()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(probability):
    torch.manual_seed(3)
    mask = drawn_mask(draw_dropout(probability))
    error = 4 * (probability * (1 - probability) / len(mask)) ** 0.5
    assert abs(float((mask > 0).double().mean()) - (1 - probability)) < error
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - probability)])
    for step in (1, 2, 16, 48, 384):
        together = float(((mask[step:] > 0) & (mask[:-step] > 0)).double().mean())
        assert abs(together - (1 - probability) ** 2) < 2 * error, f"elements {step} apart are not independent"


def test_dropout_follows_torchs_seed_and_differs_from_call_to_call():
    torch.manual_seed(5)
    first, second = (drawn_mask(draw_dropout(0.1)) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(drawn_mask(draw_dropout(0.1)), first)
    assert float(((first > 0) & (second > 0)).double().mean()) == pytest.approx(0.81, abs=0.005)
    assert draw_dropout(0.0) == NO_DROPOUT
    assert drawn_mask(draw_dropout(1.0)).abs().max() == 0


KINDS = ("bert", "electra", "roberta", "xlm-roberta", "camembert")
MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] + [0] * 8])


def outcome(model, in_bf16, mask=MASK):
    """States of the tokens that are there, and every gradient, of the same three texts."""
    torch.manual_seed(7)
    ids = torch.randint(5, 15, MASK.shape)
    with torch.autocast("cpu", HALF, enabled=in_bf16):
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = torch.linspace(-1, 1, states.numel()).view(states.shape)
    (states * weights)[MASK.bool()].sum().backward()
    gradients = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}
    return states[MASK.bool()].detach(), gradients


def load(folder, **rates):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **rates}
    return AutoModel.from_pretrained(folder, dtype=torch.float32, **rates).train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_bf16", [True, False])
def test_every_layer_computes_in_one_piece(tiny_encoder, monkeypatch, kind, in_bf16):
    model, calls = load(tiny_encoder(kind)), []
    use_cpu_dropout(model)
    assert fuse_layers(model)
    for part in (fused_layers._Attention, fused_layers._FeedForward):
        apply = part.apply
        monkeypatch.setattr(part, "apply", lambda *a, apply=apply, part=part: calls.append(part) or apply(*a))
    outcome(model, in_bf16)
    assert calls == [fused_layers._Attention, fused_layers._FeedForward] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_layers_compute_what_transformers_does(tiny_encoder, kind):
    """Against float32, they may err as far as torch's own bfloat16 does."""
    exact, plain, fused = (load(tiny_encoder(kind)) for _ in range(3))
    use_cpu_dropout(plain)
    use_cpu_dropout(fused)
    assert fuse_layers(fused)
    assert sum(isinstance(module, FusedLayer) for module in fused.modules()) == 2
    results = [outcome(exact, False), outcome(plain, True), outcome(fused, True)]
    (states, gradients), others = results[0], results[1:]
    errors = [(found - states).norm() / states.norm() for found, _ in others]
    assert errors[1] < 1.5 * errors[0] + 1e-4
    assert gradients.keys() == others[1][1].keys()
    largest = max(gradient.norm() for gradient in gradients.values())
    for name, gradient in gradients.items():
        errors = [(found[name] - gradient).norm() for _, found in others]
        assert errors[1] < 1.5 * errors[0] + 0.01 * gradient.norm() + 1e-4 * largest, name


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_they_agree(tiny_encoder, kind):
    exact, fused = (load(tiny_encoder(kind)) for _ in range(2))
    use_cpu_dropout(fused)
    assert fuse_layers(fused)
    (states, gradients), (found, others) = outcome(exact, False), outcome(fused, False)
    close(found, states, atol=2e-5)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        close(others[name], gradient, atol=1e-4 * largest)


def test_without_a_mask_too(tiny_encoder):
    exact, fused = (load(tiny_encoder("bert")) for _ in range(2))
    use_cpu_dropout(fused)
    assert fuse_layers(fused)
    whole = torch.ones_like(MASK)
    close(outcome(fused, True, whole)[0], outcome(exact, False, whole)[0], atol=0.05)
    close(outcome(fused, True, None)[0], outcome(exact, False, whole)[0], atol=0.05)


def test_prediction_is_the_same_and_draws_nothing(tiny_encoder):
    model = load(tiny_encoder("roberta"), hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    use_cpu_dropout(model)
    assert fuse_layers(model)
    trained, predicted = outcome(model.eval(), True)[0], []
    for _ in range(2):
        torch.manual_seed(7)
        ids = torch.randint(5, 15, MASK.shape)
        with torch.inference_mode(), torch.autocast("cpu", HALF):
            predicted.append(model(input_ids=ids, attention_mask=MASK).last_hidden_state[MASK.bool()])
    assert torch.equal(predicted[0], predicted[1]) and torch.equal(predicted[0], trained)


def test_layers_computed_again_draw_the_same_and_copies_stand_alone(tiny_encoder):
    model = load(tiny_encoder("bert"), hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    use_cpu_dropout(model)
    assert fuse_layers(model)
    again, other = copy.deepcopy(model), copy.deepcopy(model)
    recompute_layers(again)
    gradients = [outcome(each, True)[1] for each in (model, again)]
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    with torch.no_grad():
        next(iter(other.encoder.layer)).output.dense.weight.zero_()
    assert not torch.equal(outcome(other, True)[0], outcome(model, True)[0])


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.3), (0.4, 0.2)])
def test_gradients_under_dropout_are_those_of_what_was_drawn(tiny_encoder, rates):
    """The slope along a random direction of all weights, by differences under one seed, in float32."""
    hidden, of_probs = rates
    model = load(tiny_encoder("bert"), hidden_dropout_prob=hidden, attention_probs_dropout_prob=of_probs)
    use_cpu_dropout(model)
    assert fuse_layers(model)
    weights = [weight for name, weight in model.named_parameters() if "layer." in name]
    torch.manual_seed(11)
    direction = [torch.randn_like(weight) * weight.norm() / weight.numel() ** 0.5 for weight in weights]
    outcome(model, False)
    slope = sum(float((weight.grad * step).detach().sum()) for weight, step in zip(weights, direction, strict=True))

    def shifted(size):
        with torch.no_grad():
            for weight, step in zip(weights, direction, strict=True):
                weight += size * step
        value = float(outcome_value(model))
        with torch.no_grad():
            for weight, step in zip(weights, direction, strict=True):
                weight -= size * step
        return value

    size = 1e-3
    assert (shifted(size) - shifted(-size)) / (2 * size) == pytest.approx(slope, rel=0.02, abs=0.02)
    dropped, kept = outcome_value(model), outcome_value(model.eval())
    assert abs(float(dropped - kept)) > 1e-5, "nothing was dropped"


def outcome_value(model):
    """What `outcome` takes the gradient of."""
    torch.manual_seed(7)
    ids = torch.randint(5, 15, MASK.shape)
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=MASK).last_hidden_state.double()
    weights = torch.linspace(-1, 1, states.numel()).view(states.shape)
    return (states * weights)[MASK.bool()].sum()


def test_a_backward_pass_inside_autocast(tiny_encoder):
    gradients = []
    for inside in (False, True):
        model = load(tiny_encoder("bert"))
        use_cpu_dropout(model)
        assert fuse_layers(model)
        torch.manual_seed(7)
        states = model(input_ids=torch.randint(5, 15, MASK.shape), attention_mask=MASK).last_hidden_state
        with torch.autocast("cpu", HALF, enabled=inside):
            states[MASK.bool()].square().sum().backward()
        gradients.append(model.encoder.layer[0].output.dense.weight.grad)
    close(gradients[1], gradients[0], atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_masks_of_another_kind_are_left_to_the_layer_itself(tiny_encoder, attention):
    """True and False, as torch's own attention takes them; one mask for all texts."""
    exact, fused = (load(tiny_encoder("bert")) for _ in range(2))
    for model in (exact, fused):
        model.set_attn_implementation(attention)
    assert fuse_layers(fused)
    close(outcome(fused, False)[0], outcome(exact, False)[0], atol=2e-5)
    layers = [model.encoder.layer[0] for model in (exact, fused)]
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 5:] = -1e9
    states = torch.randn(3, 9, 32)
    close(*(layer(states, mask) for layer in layers), atol=2e-5)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1, 0x7FC00000, 0x7F800001])
def test_any_number_that_is_none_is_rounded_to_one(bits):
    shift = torch.full((16,), bits, dtype=torch.int32).view(torch.float32)
    zeros, states = torch.zeros(2, 16), torch.empty(2, 16, dtype=HALF)
    where = (torch.empty(2, 16), torch.empty(2, 2), torch.empty(2, 16), states, 2, 16)
    run("norm_forward", HALF, zeros, zeros.to(HALF), zeros[0], zeros[0], shift, 1e-5, *NO_DROPOUT, *where)
    assert states.isnan().all()


def test_what_is_not_a_number_stays_so(tiny_encoder):
    model = load(tiny_encoder("bert"))
    use_cpu_dropout(model)
    assert fuse_layers(model)
    with torch.no_grad():
        model.encoder.layer[0].attention.self.key.weight[0, 0] = torch.nan
    states, gradients = outcome(model, True)
    assert states.isnan().all() and gradients["encoder.layer.0.output.dense.weight"].isnan().all()


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "gelu_new"}, {"num_attention_heads": 4}, {"is_decoder": True}, {"intermediate_size": 40}]
)
def test_other_layers_stay_as_they_are(changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=30, **{**sizes, **changes}), add_pooling_layer=False)
    assert fuse_layers(model)
    assert not any(isinstance(module, FusedLayer) for module in model.modules())


@pytest.mark.parametrize(
    "wrong", [torch.zeros(32, 32).t(), torch.zeros(32, 32, dtype=HALF), torch.zeros(32, 32, device="meta")]
)
def test_tensors_that_c_cannot_read_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected torch\.float32 in one piece on the CPU"):
        run("add_states", HALF, wrong, torch.zeros(32, 32, dtype=HALF), 1024)


def test_layers_in_bfloat16_under_norms_in_float32_are_left_to_themselves(tiny_encoder):
    plain, fused = (load(tiny_encoder("bert")) for _ in range(2))
    for model in (plain, fused):
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(HALF)
    assert fuse_layers(fused)
    close(outcome(fused, True)[0], outcome(plain, True)[0], atol=1e-6)


@pytest.fixture
def afresh():
    """The library is looked for anew, inside and after."""
    fused_layers.load_library.cache_clear()
    yield
    fused_layers.load_library.cache_clear()


@pytest.fixture
def hastily_compiled(monkeypatch, afresh):
    """What becomes of the file is the same without the optimisations, which take most of a compilation."""
    monkeypatch.setattr(fused_layers, "FLAGS", ("-O0", *(flag for flag in fused_layers.FLAGS if flag != "-O3")))


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false", "cc --nonsense", "./no_program"])
def test_without_a_compiler_layers_stay_as_they_are(tiny_encoder, monkeypatch, tmp_path, afresh, compiler):
    monkeypatch.chdir(tmp_path)
    Path("no_program").write_bytes(b"\x7fELF")
    Path("no_program").chmod(0o755)
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(fused_layers, "SOURCES", copy_sources(tmp_path))
    model = load(tiny_encoder("bert"))
    assert not fuse_layers(model)
    assert not any(isinstance(module, FusedLayer) for module in model.modules())
    assert not list(tmp_path.rglob("*.so"))


def test_it_is_compiled_once_and_again_when_the_files_change(monkeypatch, tmp_path, hastily_compiled):
    folder = copy_sources(tmp_path)
    monkeypatch.setattr(fused_layers, "SOURCES", folder)
    assert fused_layers.is_available()
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")}
    fused_layers.load_library.cache_clear()
    assert fused_layers.is_available() and len(made) == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")} == made
    with open(folder / "layers.c", "a") as file:
        file.write("/* changed */\n")
    fused_layers.load_library.cache_clear()
    assert fused_layers.is_available() and len(list(folder.rglob("*.so"))) == 4


def test_code_that_lies_where_nothing_may_be_written(monkeypatch, tmp_path, hastily_compiled):
    folder = copy_sources(tmp_path)
    (folder / "__pycache__").write_text("a file where the folder would be")
    monkeypatch.setattr(fused_layers, "SOURCES", folder)
    assert fused_layers.is_available()


def test_a_damaged_library_is_compiled_anew(monkeypatch, tmp_path, hastily_compiled):
    folder = copy_sources(tmp_path)
    monkeypatch.setattr(fused_layers, "SOURCES", folder)
    assert fused_layers.is_available()
    for path in folder.rglob("*.so"):
        path.unlink()  # its pages are still mapped
        path.write_bytes(b"")
    fused_layers.load_library.cache_clear()
    assert fused_layers.is_available()


def test_a_library_that_cannot_be_loaded_is_none(monkeypatch, tmp_path, afresh):
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho nonsense > "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(fused_layers, "SOURCES", copy_sources(tmp_path))
    assert not fused_layers.is_available()


def copy_sources(tmp_path):
    folder = tmp_path / "native"
    folder.mkdir()
    for path in fused_layers.SOURCES.glob("*.[ch]"):
        (folder / path.name).write_text(path.read_text())
    return folder
