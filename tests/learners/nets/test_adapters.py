import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft.utils.integrations import dequantize_bnb_weight
from safetensors.torch import load_file, save_file
from tiny_decoders import save_tiny_decoder
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import AutoModel, AutoModelForCausalLM

from foldblend.learners.nets import adapters
from foldblend.learners.nets.adapters import SharedBase, choose_base_dtype, load_base, merged
from foldblend.settings.nets import AdapterSettings

CPU = torch.device("cpu")
LORAS = {
    "lora": AdapterSettings(rank=4),
    "rslora": AdapterSettings(rank=4, rslora=True),
    "dora": AdapterSettings(rank=4, dora=True),
    "pissa": AdapterSettings(rank=4, init="pissa"),
    "pissa_rslora": AdapterSettings(rank=4, init="pissa", rslora=True),
    "pissa_some": AdapterSettings(rank=4, init="pissa", targets=("q_proj", "v_proj")),
    "biases": AdapterSettings(rank=4, bias="all", targets=("q_proj", "down_proj")),
}
OTHERS = {
    "prefix": AdapterSettings("prefix_tuning", virtual_tokens=5),
    "prompt": AdapterSettings("prompt_tuning", virtual_tokens=5),
    "full": AdapterSettings("none"),
}
FOUR_BIT = {
    "nf4": AdapterSettings(rank=4, quantization="nf4"),
    "nf4_dora": AdapterSettings(rank=4, quantization="nf4", dora=True),
    "nf4_prompt": AdapterSettings("prompt_tuning", quantization="nf4"),
}
ALL = LORAS | OTHERS | FOUR_BIT


def share(folder, settings, model_class=AutoModel):
    return SharedBase(folder, model_class, settings, CPU, "no")


def inputs():
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])}


def states_of(model):
    return model(**inputs(), use_cache=False).last_hidden_state


def take_steps(model, n=2):
    """Move what is trained, as a fold does."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for step in range(n):
        torch.manual_seed(step)
        optimizer.zero_grad()
        (states_of(model)[:, -6:] - 1).square().mean().backward()
        optimizer.step()


def contents(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ALL)
def test_what_a_fold_did_is_gone_for_the_next(tiny_decoder, name):
    """Bit for bit: all weights, what they answer, and what two steps make of them."""
    used, fresh = share(tiny_decoder("qwen2"), ALL[name]), share(tiny_decoder("qwen2"), ALL[name])
    first = used.adapt(1, False)
    start = contents(first)
    take_steps(first)
    assert not same(start, contents(first))
    second, alone = used.adapt(2, False), fresh.adapt(2, False)
    assert same(contents(second), contents(alone))
    take_steps(second)
    take_steps(alone)
    assert same(contents(second), contents(alone))
    assert same(start, contents(used.adapt(1, False)))


@pytest.mark.parametrize("name", [name for name in ALL if name != "full"])
def test_the_base_stays_as_it_was_loaded(tiny_decoder, name):
    loaded = load_base(tiny_decoder("qwen2"), AutoModel, ALL[name], CPU, "no")
    shared = share(tiny_decoder("qwen2"), ALL[name])
    for seed in range(2):
        take_steps(shared.adapt(seed, False))
    shared._restore()
    assert same(contents(loaded), contents(shared.base))


@pytest.mark.parametrize("name", ALL)
def test_two_steps_move_all_that_is_trained_and_nothing_else(tiny_decoder, name):
    model = share(tiny_decoder("qwen2"), ALL[name]).adapt(0, False)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    before = contents(model)
    take_steps(model)
    moved = {n for n, value in contents(model).items() if not torch.equal(value, before[n])}
    assert trained and moved == trained


def test_a_fresh_lora_changes_nothing_and_other_seeds_draw_other_weights(tiny_decoder):
    settings = LORAS["lora"]
    plain = load_base(tiny_decoder("qwen2"), AutoModel, settings, CPU, "no")
    shared = share(tiny_decoder("qwen2"), settings)
    model = shared.adapt(0, False).eval()
    assert torch.equal(states_of(model), states_of(plain))
    drawn = contents(model)
    assert not same(drawn, contents(shared.adapt(1, False)))


@pytest.mark.parametrize("name", LORAS)
def test_updates_are_scaled_by_alpha_over_rank_or_over_its_root(tiny_decoder, name):
    settings = replace(LORAS[name], rank=9, alpha=6.0)
    layers = [m for m in share(tiny_decoder("qwen2"), settings).adapt(0, False).modules() if hasattr(m, "lora_A")]
    assert {layer.scaling["default"] for layer in layers} == {2.0 if settings.rslora else 6 / 9}
    layer = layers[0]
    down, up = torch.ones_like(layer.lora_A["default"].weight), torch.ones_like(layer.lora_B["default"].weight)
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = down, up
    assert torch.allclose(layer.get_delta_weight("default"), up @ down * layer.scaling["default"])


@pytest.mark.parametrize("name", ["pissa", "pissa_rslora"])
def test_pissa_starts_from_the_base_split_in_two(tiny_decoder, name):
    """The strongest directions move into the adapter, their sum stays the matrix, whatever scales the adapter."""
    settings = LORAS[name]
    plain = load_base(tiny_decoder("qwen2"), AutoModel, settings, CPU, "no")
    model = share(tiny_decoder("qwen2"), settings).adapt(0, False).eval()
    assert torch.allclose(states_of(model), states_of(plain), atol=1e-4)
    layer = model.base_model.model.layers[0].mlp.up_proj
    values = torch.linalg.svdvals(plain.layers[0].mlp.up_proj.weight)
    assert torch.allclose(torch.linalg.svdvals(layer.base_layer.weight)[:-4], values[4:], atol=1e-4)
    assert torch.allclose(torch.linalg.svdvals(layer.get_delta_weight("default"))[:4], values[:4], atol=1e-4)


@pytest.mark.parametrize("name", [*LORAS, "prefix", "prompt"])
def test_merged_for_inference_and_apart_again(tiny_decoder, name):
    model = share(tiny_decoder("qwen2"), ALL[name]).adapt(0, False)
    take_steps(model)
    model.eval()
    apart, before = states_of(model), contents(model)
    with merged(model):
        together = states_of(model)
        assert name in ("prefix", "prompt") or not same(before, contents(model))
    assert torch.allclose(apart, together, atol=1e-4)
    assert same(before, contents(model)) and torch.equal(states_of(model), apart)


def test_a_few_rows_are_not_worth_merging(tiny_decoder):
    model = share(tiny_decoder("qwen2"), LORAS["lora"]).adapt(0, False)
    take_steps(model)
    before = contents(model)
    with merged(model, n_rows=3):
        assert same(before, contents(model))


@pytest.mark.parametrize("free, where", [(100 * 2**30, "cuda"), (8 * 2**30, "cpu")])
def test_what_merging_changes_is_kept_on_a_gpu_that_has_room(monkeypatch, free, where):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free // 2, free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: free)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: free - free // 2)
    weight = SimpleNamespace(is_cuda=True, device=torch.device("cuda"), nbytes=2**30)
    assert adapters.choose_keeping_device([weight, weight]) == torch.device(where)
    assert adapters.choose_keeping_device([torch.ones(2)]) == torch.device("cpu")


def test_an_error_inside_still_takes_adapters_apart(tiny_decoder):
    model = share(tiny_decoder("qwen2"), LORAS["dora"]).adapt(0, False)
    take_steps(model)
    before = contents(model)
    with pytest.raises(RuntimeError, match="killed"), merged(model):
        raise RuntimeError("killed")
    assert same(before, contents(model))


@pytest.mark.parametrize("name", FOUR_BIT)
def test_four_bits_are_read_only(tiny_decoder, name):
    """Neither merged nor repacked at a prediction; the same training goes on after it."""
    with_look, without = (share(tiny_decoder("qwen2"), FOUR_BIT[name]).adapt(0, False) for _ in range(2))
    packed = [p for p in with_look.parameters() if p.dtype == torch.uint8]
    assert len(packed) == 14 and not any(p.requires_grad for p in packed)
    take_steps(with_look)
    take_steps(without)
    before = contents(with_look)
    with merged(with_look.eval()), torch.inference_mode():
        assert states_of(with_look).isfinite().all()
    assert same(before, contents(with_look))
    take_steps(with_look.train())
    take_steps(without)
    assert same(contents(with_look), contents(without))


def test_four_bits_are_near_the_whole_weights(tiny_decoder):
    whole = load_base(tiny_decoder("qwen2"), AutoModel, AdapterSettings(), CPU, "no").eval()
    small = load_base(tiny_decoder("qwen2"), AutoModel, FOUR_BIT["nf4"], CPU, "no").eval()
    for name, module in small.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.quant_state.nested and module.weight.quant_state.quant_type == "nf4"
            weight, near = whole.get_submodule(name).weight, dequantize_bnb_weight(module.weight)
            assert 0 < (weight - near).norm() / weight.norm() < 0.12
    assert torch.equal(small.embed_tokens.weight, whole.embed_tokens.weight)


def test_widths_that_bitsandbytes_reads_wrongly_on_a_cpu_are_refused(tmp_path):
    folder = save_tiny_decoder(tmp_path, "qwen2", hidden_size=96)
    with pytest.raises(ValueError, match=r"96 columns.*multiples of 64.*adapter.quantization none"):
        load_base(folder, AutoModel, FOUR_BIT["nf4"], CPU, "no")


def test_all_that_is_trained_is_float32_on_a_bf16_base(tiny_decoder, monkeypatch):
    monkeypatch.setattr(adapters, "choose_base_dtype", lambda *_: torch.bfloat16)
    for settings in (LORAS["biases"], LORAS["dora"], LORAS["pissa"], OTHERS["prompt"]):
        shared = share(tiny_decoder("qwen2"), settings)
        for seed in range(2):
            model = shared.adapt(seed, False)
            dtypes = {(p.requires_grad, p.dtype) for p in model.parameters()}
            assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
        shared._restore()
        assert {p.dtype for p in shared.base.parameters()} == {torch.bfloat16}


def test_the_base_is_bf16_only_where_a_gpu_computes_in_it():
    cuda = torch.device("cuda")
    assert choose_base_dtype("lora", "bf16", cuda) == torch.bfloat16
    for kind, precision, device in (("lora", "fp16", cuda), ("lora", "no", cuda), ("none", "bf16", cuda)):
        assert choose_base_dtype(kind, precision, device) == torch.float32
    assert choose_base_dtype("lora", "bf16", CPU) == torch.float32


@pytest.mark.parametrize("name", ["lora", "nf4", "prompt", "full"])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_decoder, name):
    settings = replace(ALL[name], **({"dropout": 0.0} if name in ("lora", "nf4") else {}))
    shared, gradients, calls = share(tiny_decoder("qwen2"), settings), [], []
    for checkpointing in (False, True, True):
        model = shared.adapt(0, checkpointing)
        layer = shared.base.layers[0]
        handle = layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        states_of(model).square().mean().backward()
        handle.remove()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})
        assert len(shared.base.get_input_embeddings()._forward_hooks) == checkpointing
    assert len(calls) == 1 + 2 + 2
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6)
        assert torch.equal(gradients[1][name], gradients[2][name])


def test_weights_that_are_missing_are_named(tiny_decoder, tmp_path):
    folder = shutil.copytree(tiny_decoder("qwen2"), tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, first 'layers.1.mlp.up_proj.weight'"):
        load_base(folder, AutoModel, AdapterSettings(), CPU, "no")


def test_code_of_a_repository_is_not_run(tiny_decoder, tmp_path):
    """As stella_en_1.5B_v5 comes: config.json names classes of its own, the weights are Qwen2's."""
    folder = tmp_path / "custom"
    plain = load_base(tiny_decoder("qwen2"), AutoModel, AdapterSettings(), CPU, "no")
    plain.save_pretrained(folder)  # an embedding model's weights are named without `model.`
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_qwen.Qwen2Model", "AutoConfig": "modeling_qwen.Qwen2Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_qwen.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    model = load_base(folder, AutoModel, AdapterSettings(), CPU, "no")
    assert type(model).__module__ == "transformers.models.qwen2.modeling_qwen2" and not (tmp_path / "ran").exists()
    assert same(contents(model), contents(plain))


def test_a_model_that_reads_images_too_gives_its_text_part(tiny_decoder):
    model = load_base(tiny_decoder("gemma3"), AutoModel, AdapterSettings(), CPU, "no")
    assert type(model).__name__ == "Gemma3TextModel"


@pytest.mark.parametrize(
    "settings",
    [LORAS["lora"], AdapterSettings(targets=("q_proj",), bias="all"), AdapterSettings("none"), FOUR_BIT["nf4_dora"]],
    ids=["all-linear", "some", "full", "nf4"],
)
def test_of_a_generator_that_reads_images_too_all_that_is_trained_gets_a_gradient(tiny_decoder, settings):
    folder = tiny_decoder("gemma3")
    model = share(folder, settings, AutoModelForCausalLM).adapt(0, False)
    assert not any("vision" in name or "projector" in name for name, _ in model.named_modules())
    for _ in range(2):  # LoRA's A has no gradient while B is 0
        model.zero_grad()
        model(**inputs()).logits.square().mean().backward()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        torch.optim.SGD(trained.values(), lr=1e-3).step()
    assert trained and not [name for name, p in trained.items() if p.grad is None or not p.grad.any()]


def test_a_generator_that_reads_images_too_answers_texts_as_the_whole_model(tiny_decoder):
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder("gemma3"), dtype=torch.float32).eval()
    text = load_base(tiny_decoder("gemma3"), AutoModelForCausalLM, AdapterSettings(), CPU, "no").eval()
    with torch.inference_mode():
        assert torch.equal(text(**inputs()).logits, whole(**inputs()).logits)
    assert text.lm_head.weight is text.get_input_embeddings().weight


def test_a_base_that_fsdp_has_wrapped_is_loaded_anew(tiny_decoder):
    """Its layers are wrapped once already, and hold shards."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        shared = share(tiny_decoder("qwen2"), LORAS["lora"])
        first = shared.adapt(1, False)
        start, base = contents(first), shared.base
        for layer in base.layers:
            fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
        assert same(start, contents(shared.adapt(1, False))) and shared.base is not base
        assert not any(isinstance(module, FSDPModule) for module in shared.base.modules())
        base = shared.base
        shared.adapt(2, False)
        assert shared.base is base
    finally:
        torch.distributed.destroy_process_group()


def test_gemma2_computes_its_attention_eagerly(tiny_decoder):
    """Its logits are capped inside the attention, which torch's fused one leaves out."""
    model = load_base(tiny_decoder("gemma2"), AutoModel, AdapterSettings(), CPU, "no")
    assert model.config._attn_implementation == "eager" and model.config.attn_logit_softcapping


@pytest.mark.parametrize("name", ["lora", "nf4", "prefix", "prompt"])
def test_adapters_go_on_a_model_of_tokens_too(tiny_decoder, name):
    model = share(tiny_decoder("qwen2"), ALL[name], AutoModelForCausalLM).adapt(0, False)
    loss = model(**inputs(), labels=inputs()["input_ids"]).loss
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_layers_that_are_not_there_are_named(tiny_decoder):
    with pytest.raises(ValueError, match="query"):
        share(tiny_decoder("qwen2"), AdapterSettings(targets=("query",))).adapt(0, False)
