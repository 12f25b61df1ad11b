import numpy as np
import pytest
from transformers import AutoTokenizer

from learners.tokens import tokenize


def test_rows_come_back_padded_on_the_right(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts = ("happy", "the sad day was it", "glad " * 100, "")
    tokens = tokenize(tokenizer, texts, max_length_tokens=16)
    alone = [tokenizer(text, truncation=True, max_length=16)["input_ids"] for text in texts]
    assert tokens.lengths.tolist() == [len(ids) for ids in alone] and tokens.lengths.max() == 16
    rows = np.array([3, 0, 1])
    batch = tokens.batch(rows)
    for i, row in enumerate(rows):
        n = len(alone[row])
        assert batch["input_ids"][i, :n].tolist() == alone[row]
        assert (batch["input_ids"][i, n:] == tokenizer.pad_token_id).all()
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
    assert batch["input_ids"].shape == (3, tokens.lengths[rows].max())


def test_a_tokenizer_without_pad_token_is_refused(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no pad token"):
        tokenize(tokenizer, ("a",), 16)
