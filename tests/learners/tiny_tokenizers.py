"""Small real tokenizers: how BERT, RoBERTa, T5 and decoders with and without a begin token frame a text."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

WORDS = "happy glad joyful sad gloomy tearful angry furious mad calm plain dull the a is was today it".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz<>URLSEHATG@#/:."


def bert(tmp_path):
    """Uncased WordPiece: [CLS] text [SEP]."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"<>", *LETTERS[:26]]
    (tmp_path / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in LETTERS[:26])]))
    return BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))


def _byte_level(specials, single):
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    ids = [(name, tokenizer.token_to_id(name)) for name in specials if name in single]
    if single:
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return tokenizer


def roberta(_=None):
    """Byte-level BPE: <s> text </s>."""
    made = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<s> $A </s>")
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, mask_token="<mask>", unk_token="<unk>", **names)


def decoder(_=None):
    """As Qwen: nothing around a text, no mask token; saved to cut and pad on the left, as generation wants it."""
    made = _byte_level(["<|endoftext|>"], "")
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", truncation_side="left", **names)


def decoder_with_bos(_=None):
    """As Llama: a begin token, no end."""
    made = _byte_level(["<bos>", "<eos>", "<pad>"], "<bos> $A")
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def sentencepiece(_=None):
    """Unigram pieces with a space before the first word, as XLM-RoBERTa and T5; text </s>."""
    letters = [(letter, -5.0) for letter in LETTERS] + [(f"▁{word}", -2.0) for word in WORDS]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0), ("▁", -3.0), *letters]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


FRAMES = {bert: (1, 1), roberta: (1, 1), decoder: (0, 0), decoder_with_bos: (1, 0), sentencepiece: (0, 1)}
