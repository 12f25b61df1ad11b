"""Tiny decoders of real config classes, saved with a byte-level tokenizer as the real ones are; read by AutoModel."""

import torch
from tiny_chat import make_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
CONFIGS = {
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "gemma2": Gemma2Config,
    "gemma3_text": Gemma3TextConfig,
}
KINDS = [*CONFIGS, "gemma3"]
WITHOUT_PAD_TOKEN = {"llama", "mistral"}
EXTRA_TOKENS = {"llama": ["<|finetune_right_pad_id|>"], "mistral": ["</s>"]}


def save_tiny_decoder(folder, kind, tokenizer=None, **changes):
    """A random model of `kind` of 2 layers x 64; `gemma3` reads images too, as Gemma 3 from 4B on does."""
    tokenizer = tokenizer or make_tokenizer()
    tokenizer.add_tokens(EXTRA_TOKENS.get(kind, []), special_tokens=True)
    if kind in WITHOUT_PAD_TOKEN:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **changes}
    torch.manual_seed(0)
    if kind == "gemma3":
        vision = SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
        text = Gemma3TextConfig(**sizes)
        model = Gemma3ForConditionalGeneration(
            Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        )
    else:
        model = AutoModelForCausalLM.from_config(CONFIGS[kind](**sizes))
    model.save_pretrained(folder)
    return folder
