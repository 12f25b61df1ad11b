"""Names of special tokens in texts stay letters, in every kind of tokenizer (case special_tokens_in_text)."""

import pytest
from tiny_tokenizers import FRAMES, bert, decoder, roberta, sentencepiece

from foldblend.learners.tokens.tokens import encode_data, encode_plain, tokenize

NAMES = [
    "[SEP]",
    "[CLS]",
    "[PAD]",
    "[MASK]",
    "[UNK]",
    "<s>",
    "</s>",
    "<pad>",
    "<mask>",
    "<unk>",
    "<|endoftext|>",
    "<bos>",
]
TEXTS = ["a happy {} day", "{}", "{}{}", "was{}", "{} was", "<{}>"]


def special_ids(tokenizer):
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("encode", [encode_plain, encode_data])
def test_no_text_makes_a_special_token(kind, encode, tmp_path):
    tokenizer = kind(tmp_path)
    texts = [text.replace("{}", name) for text in TEXTS for name in (*NAMES, *tokenizer.all_special_tokens)]
    for text, ids in zip(texts, encode(tokenizer, texts), strict=True):
        assert special_ids(tokenizer).isdisjoint(ids), text
        assert ids, text


def test_a_row_has_the_special_tokens_of_its_frame_alone(tmp_path):
    tokenizer = bert(tmp_path)
    row = tokenizer.convert_ids_to_tokens(tokenize(tokenizer, ("a happy [SEP] day",), 32).row(0).tolist())
    assert row[0] == "[CLS]" and row[-1] == "[SEP]" and row.count("[SEP]") == 1


@pytest.mark.parametrize("kind", [bert, roberta, decoder, sentencepiece])
def test_other_texts_are_as_the_tokenizer_makes_them(kind, tmp_path):
    tokenizer, texts = kind(tmp_path), ["happy day", "", "it was < sad > [today]", "Ärger"]
    assert encode_plain(tokenizer, texts) == tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_a_name_that_only_normalising_makes(tmp_path):
    """Full-width letters become the token's name inside SentencePiece's own normalisation, in its own vocabulary."""
    tokenizer = sentencepiece(tmp_path)
    (ids,) = encode_plain(tokenizer, ["was ＜pad＞ it"])
    assert special_ids(tokenizer).isdisjoint(ids) and len(ids) > 3


def test_letters_of_a_name_stay_in_the_text(tmp_path):
    tokenizer = roberta(tmp_path)
    (ids,) = encode_plain(tokenizer, ["sad </s> day"])
    assert tokenizer.decode(ids) == "sad </s> day"
