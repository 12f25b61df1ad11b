"""Models for bench/train_speed.py: the real MiniLM, and random weights of the real sizes that need a GPU."""

import gc
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    Qwen2Config,
    Qwen2Tokenizer,
    RobertaConfig,
)

from foldblend.learners.nets.pretrained import find_weights
from foldblend.settings.records import settings_of
from foldblend.settings.run import AdapterSettings, ModelSettings, OptimizerSettings, RunSettings, TrainingSettings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

MODELS = {
    "minilm": ("encoder", None),
    "bert-3x384": ("encoder", lambda: small_bert(3, 384)),
    "bert-6x384": ("encoder", lambda: small_bert(6, 384)),
    "bert-12x768": ("encoder", lambda: small_bert(12, 768)),
    "qwen-8x512": (
        "decoder",
        lambda: Qwen2Config(
            vocab_size=32000,
            hidden_size=512,
            intermediate_size=2048,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
        ),
    ),
    "roberta-base": (
        "encoder",
        lambda: RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5),
    ),
    "deberta-v3-large": (
        "encoder",
        lambda: DebertaV2Config(
            vocab_size=128100,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            type_vocab_size=0,
            layer_norm_eps=1e-7,
            relative_attention=True,
            position_buckets=256,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            max_relative_positions=-1,
        ),
    ),
    "qwen2.5-1.5b": (
        "decoder",
        lambda: Qwen2Config(
            vocab_size=151936,
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            max_position_embeddings=32768,
            tie_word_embeddings=True,
        ),
    ),
    "qwen2.5-14b": (
        "decoder",
        lambda: Qwen2Config(
            vocab_size=152064,
            hidden_size=5120,
            intermediate_size=13824,
            num_hidden_layers=48,
            num_attention_heads=40,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            tie_word_embeddings=False,
        ),
    ),
}
"""Name -> learner, and the configuration its publishers gave it; encoders read MiniLM's words, ids below 30,522."""
VOCABULARY = 30_000
"""Most tokens of a decoder's tokenizer, which is trained on the texts."""


def small_bert(n_layers: int, width: int) -> BertConfig:
    """MiniLM's shape (6 layers of 384) and its neighbours in size."""
    heads = width // 32 if width < 512 else width // 64
    return BertConfig(
        hidden_size=width, num_hidden_layers=n_layers, num_attention_heads=heads, intermediate_size=4 * width
    )


def save_model(name: str, folder: Path, texts: Iterable[str]) -> str:
    """Save random weights of a real configuration and a tokenizer that reads `texts` in words; returns the folder."""
    learner, configure = MODELS[name]
    kind, dtype = (AutoModelForCausalLM, torch.bfloat16) if learner == "decoder" else (AutoModel, torch.float32)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        kind.from_config(configure(), dtype=dtype).save_pretrained(folder)
    gc.collect()
    torch.cuda.empty_cache()  # the trainings need that memory
    if learner == "decoder":  # AutoTokenizer reads whatever lies beside a Qwen2 as byte pairs
        tokenizer = Qwen2Tokenizer().train_new_from_iterator(texts, VOCABULARY)
    else:
        tokenizer = AutoTokenizer.from_pretrained(find_weights(MINILM, "main")[0], local_files_only=True)
    tokenizer.save_pretrained(folder)
    fill_vocabulary(folder)
    return str(folder)


def fill_vocabulary(folder: Path) -> None:
    """Add words that no text has to a saved tokenizer, up to the model's number of embeddings.

    A tokenizer with less than half of the model's tokens is refused, as it is of another model.
    """
    wanted = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first = 1 + max([*vocabulary.values(), *(added["id"] for added in tokenizer["added_tokens"])])
    vocabulary.update({f"<unread {number}>": number for number in range(first, wanted)})
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def write_run(path: Path, name: str, folder: str | None, epochs: int, batch: int, quantization: str = "none") -> None:
    """The run's settings as JSON, for every side alike. Raises SystemExit: an encoder's base asked for in 4 bits."""
    learner, _ = MODELS[name]
    if quantization != "none" and learner != "decoder":
        raise SystemExit(f"--quantization {quantization} is of decoders; {name} is an {learner}")
    rates = OptimizerSettings(lr=1.5e-4, head_lr=1e-3) if name == "minilm" else OptimizerSettings(lr=2e-5)
    run = RunSettings(
        learner,
        model=ModelSettings(name=folder or MINILM),
        adapter=AdapterSettings(quantization=quantization),
        training=TrainingSettings(
            epochs=epochs,
            global_batch_size=batch,
            micro_batch_size=batch,
            collapse_check_after_steps=0 if folder else TrainingSettings.collapse_check_after_steps,  # random weights
        ),
        optimizer=rates,
    )
    path.write_text(json.dumps(settings_of(run)), encoding="utf-8")
