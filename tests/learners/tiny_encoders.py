"""Random encoders of real architectures, saved with small real tokenizers as the hub's repositories hold them.

Weights are those of the pretraining class (a language-model head on top, no pooler where the hub's has none), so that
loading strips and misses what it does for the real ones; a tokenizer is the file the hub has: a word list, byte-level
merges, or SentencePiece alone.
"""

import io
import json

import torch

WORDS = "happy glad joyful sad gloomy tearful angry furious mad calm plain dull the a is was today it".split()
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert", "deberta-v2", "modernbert")


def save_encoder(architecture, folder):
    """Fill `folder` with config, weights and tokenizer of a tiny `architecture`."""
    import transformers
    from transformers import AutoTokenizer

    (folder / "config.json").write_text(json.dumps({"model_type": architecture}))
    TOKENIZERS[architecture](folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    name, settings = CLASSES[architecture]
    n_words = max(tokenizer.get_vocab().values()) + 1
    config = CONFIGS[architecture](transformers)(vocab_size=n_words, pad_token_id=tokenizer.pad_token_id, **settings)
    torch.manual_seed(0)
    getattr(transformers, name)(config).save_pretrained(folder)
    return folder


def word_list(folder):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))


def byte_merges(folder):
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(sentences(), vocab_size=400, min_frequency=1, special_tokens=special)
    tokenizer.save_model(str(folder))


def modern_bytes(folder):
    """Byte-level pieces with BERT's special tokens, in tokenizer.json alone."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer.train_from_iterator(sentences(), vocab_size=400, min_frequency=1, special_tokens=special)
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {name: f"[{name[:-6].upper()}]" for name in ("unk_token", "cls_token", "sep_token", "pad_token")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, mask_token="[MASK]", **names)
    fast.save_pretrained(folder)


def sentence_pieces(name, **options):
    def write(folder):
        from sentencepiece import SentencePieceTrainer

        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()),
            model_writer=model,
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
        (folder / name).write_bytes(model.getvalue())

    return write


def sentences():
    return [" ".join(WORDS[start:] + WORDS[:start]) for start in range(len(WORDS))]


def deberta_pieces(folder):
    """spm.model and a tokenizer_config.json of 52 bytes are all the hub has of DeBERTa-v3's tokenizer."""
    special = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}
    pieces = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
    options = {f"{key}_id": value for key, value in special.items()}
    sentence_pieces("spm.model", **options, **{f"{key}_piece": value for key, value in pieces.items()})(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')


TOKENIZERS = {
    "bert": word_list,
    "distilbert": word_list,
    "electra": word_list,
    "roberta": byte_merges,
    "xlm-roberta": sentence_pieces("sentencepiece.bpe.model"),
    "camembert": sentence_pieces("sentencepiece.bpe.model"),
    "deberta-v2": deberta_pieces,
    "modernbert": modern_bytes,
}
POSITIONS = {"max_position_embeddings": 64}
ROBERTA = {**SIZES, "max_position_embeddings": 66, "type_vocab_size": 1}  # two places go to padding, as in 514
CLASSES = {
    "bert": ("BertForPreTraining", {**SIZES, **POSITIONS}),
    "distilbert": ("DistilBertForMaskedLM", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, **POSITIONS}),
    "electra": ("ElectraForPreTraining", {**SIZES, **POSITIONS, "embedding_size": 16}),
    "roberta": ("RobertaForMaskedLM", ROBERTA),
    "xlm-roberta": ("XLMRobertaForMaskedLM", ROBERTA),
    "camembert": ("CamembertForMaskedLM", ROBERTA),
    "deberta-v2": (
        "DebertaV2ForMaskedLM",
        {  # as deberta-v3-base has them
            **SIZES,
            "max_position_embeddings": 64,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "max_relative_positions": -1,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": (
        "ModernBertForMaskedLM",
        {**SIZES, **POSITIONS, "local_attention": 8, "bos_token_id": 1, "eos_token_id": 2}
        | {"cls_token_id": 1, "sep_token_id": 2},
    ),
}
CONFIGS = {
    name: lambda library, name=name: library.models.auto.configuration_auto.CONFIG_MAPPING[name]
    for name in ARCHITECTURES
}
