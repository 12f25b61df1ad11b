"""Tiny causal models of real config classes with a byte-level BPE and a chat template, saved as the real ones are."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED_TEMPLATE = "{{ strftime_now('%d %b %Y') }}\n" + TEMPLATE
CORPUS = [
    "today it was happy glad joyful sad gloomy tearful angry furious mad the plain text",
    "joy, sadness, anger, joyful, none, yes, no\nLabels: joy Text: user system assistant",
] * 5
SIZES = {
    "initializer_range": 0.3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def make_tokenizer(template=TEMPLATE, **special):
    """Byte-level BPE of a few hundred tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=names[1:2],
        **special,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_tiny_chat(folder, kind="qwen2"):
    """A random Qwen2 or Llama of 2 layers x 32 and its tokenizer; wide enough for adapters to learn on it."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    config_class, model_class = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[
        kind
    ]
    torch.manual_seed(0)
    eos = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model_class(config_class(vocab_size=len(tokenizer), **SIZES, **eos)).save_pretrained(folder)
    return folder
