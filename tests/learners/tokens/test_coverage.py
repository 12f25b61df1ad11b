"""What of the texts a model reads: truncated texts are counted, and a tokenizer that knows none of them is refused."""

import numpy as np
import pytest
from tiny_tokenizers import bert, decoder, roberta
from transformers import BertConfig, LlamaConfig, RobertaConfig

from foldblend.errors import UserError
from foldblend.learners.tokens.coverage import check_known, measure_truncation, most_positions, unknown_share
from foldblend.learners.tokens.prompts import build_prompts
from foldblend.learners.tokens.tokens import Tokens, tokenize
from foldblend.settings.nets import PromptSettings

LENGTHS = [10, 20, 30, 100, 400]


def tokens_of(lengths, most):
    kept = np.minimum(lengths, most)
    starts = np.cumsum([0, *kept])
    return Tokens(np.zeros(starts[-1], np.int32), starts, 0, whole=np.array(lengths, np.int32))


def test_what_is_cut_and_what_more_would_cost():
    got = measure_truncation(tokens_of(LENGTHS, 32), 32, 512)
    assert got.texts_cut == 0.4 and got.tokens_cut == pytest.approx(1 - 124 / 560)
    assert got.suggested_tokens == 416 and got.texts_cut_then == 0 and got.times_tokens == pytest.approx(560 / 124)
    assert got.line("model.max_length_tokens") == (
        "40 % of the texts are longer than model.max_length_tokens 32; 78 % of all tokens are cut off and not read. "
        "--model.max_length_tokens 416 reads 100 % of the texts whole, in about 4.5 times the time"
    )
    assert set(got.record()) >= {"max_length_tokens", "texts_cut", "tokens_cut"}


def test_a_suggestion_is_no_longer_than_the_model_reads():
    got = measure_truncation(tokens_of(LENGTHS, 32), 32, 128)
    assert got.suggested_tokens == 128 and got.texts_cut_then == 0.2
    at_most = measure_truncation(tokens_of(LENGTHS, 128), 128, 128)
    assert "The model reads no longer texts" in at_most.line("model.max_length_tokens")


def test_nothing_cut_says_nothing():
    got = measure_truncation(tokens_of(LENGTHS, 512), 512, 512)
    assert got.line("model.max_length_tokens") == "" and got.texts_cut == got.tokens_cut == 0
    assert measure_truncation(Tokens(np.zeros(1, np.int32), np.array([0, 1]), 0), 8, None) is None


def test_whole_lengths_are_of_texts_before_they_are_cut(tmp_path):
    texts = ("happy", "sad " * 50)
    assert tokenize(bert(tmp_path), texts, 12).whole.tolist() == [3, 52]
    prompt = PromptSettings(template="it {text} was")
    made = build_prompts(decoder(), prompt, texts, ("joy",), 24)
    assert made.lengths[1] == 24 and made.whole[0] == made.lengths[0] and made.whole[1] > 50


def test_positions_of_a_model():
    assert most_positions(BertConfig(max_position_embeddings=512)) == 512
    assert most_positions(RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512
    assert most_positions(LlamaConfig(max_position_embeddings=8192)) == 8192


def test_unknown_words_are_refused_above_the_setting(tmp_path):
    tokenizer = bert(tmp_path)
    texts = ("happy day", "счастливый день", "सुखी")
    tokens = tokenize(tokenizer, texts, 16)
    assert unknown_share(tokens, tokenizer.unk_token_id)[1] == 1
    check_known(tokens, tokenizer, texts, 0.9, "model")
    with pytest.raises(
        UserError, match=r"does not know \d+% of the texts' tokens; model.max_unknown_share allows 20%.*сч"
    ):
        check_known(tokens, tokenizer, texts, 0.2, "model")


def test_a_tokenizer_of_bytes_knows_everything(tmp_path):
    for tokenizer in (roberta(), decoder()):
        check_known(tokenize(tokenizer, ("счастливый", ""), 64), tokenizer, ("счастливый", ""), 0.0, "model")
