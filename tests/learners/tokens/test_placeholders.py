import pytest
import torch
from tiny_tokenizers import FRAMES, bert
from transformers import BertConfig, BertModel

from foldblend.learners.tokens.tokens import add_placeholders, fit_embeddings, tokenize

THREE = ("<URL>", "<USER>", "<HASHTAG>")


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_each_placeholder_is_one_token_and_the_rest_as_before(kind, tmp_path):
    tokenizer = kind(tmp_path)
    text, plain = "<USER> happy the <URL> sad<HASHTAG> mad", "happy the sad mad"
    before = tokenizer(plain)["input_ids"]
    assert add_placeholders(tokenizer, THREE) == 3
    url, user, hashtag = tokenizer.convert_tokens_to_ids(THREE)
    assert len({url, user, hashtag, tokenizer.unk_token_id}) == 4
    row = tokenize(tokenizer, (text,), 64).row(0).tolist()
    assert [i for i in row if i in (url, user, hashtag)] == [user, url, hashtag]
    around = tokenizer.decode([i for i in row if i not in (url, user, hashtag)], skip_special_tokens=True)
    assert around.split() == plain.split() and tokenizer(plain)["input_ids"] == before
    assert len(row) <= len(before) + 4, "a placeholder leaves no token for the space before it"


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_they_last_through_a_save(kind, tmp_path):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = kind(tmp_path)
    add_placeholders(tokenizer, THREE)
    tokenizer.save_pretrained(tmp_path / "saved")
    load = AutoTokenizer if kind is bert else PreTrainedTokenizerFast
    again = load.from_pretrained(tmp_path / "saved")
    assert add_placeholders(again, THREE) == 0 and len(again) == len(tokenizer)
    assert again("happy <URL>")["input_ids"] == tokenizer("happy <URL>")["input_ids"]


def test_the_model_gets_embeddings_for_them_and_keeps_the_others(tmp_path):
    tokenizer = bert(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    before = model.get_input_embeddings().weight.detach().clone()
    add_placeholders(tokenizer, THREE)
    assert fit_embeddings(model, tokenizer) == 3 and fit_embeddings(model, tokenizer) == 0
    after = model.get_input_embeddings().weight
    assert len(after) == len(before) + 3 and torch.equal(after[:-3], before)
    ids = torch.tensor([tokenizer("<URL> happy")["input_ids"]])
    assert torch.isfinite(model(ids).last_hidden_state).all()


def test_a_matrix_with_room_to_spare_is_left_alone(tmp_path):
    tokenizer = bert(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=len(tokenizer) + 8, **sizes))
    add_placeholders(tokenizer, THREE)
    assert fit_embeddings(model, tokenizer) == 0
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) + 5


def test_another_spelling_is_no_placeholder(tmp_path):
    tokenizer = bert(tmp_path)
    add_placeholders(tokenizer, THREE)
    assert set(tokenizer.convert_tokens_to_ids(THREE)).isdisjoint(tokenizer("<url> <User>")["input_ids"])
