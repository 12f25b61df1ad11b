import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import FRAMES, bert, decoder, roberta

from foldblend.learners.tokens.tokens import cut_text, find_frame, tokenize

TEXTS = ("happy", "the sad day was it", "glad " * 100 + "mad", "", "Ärger < s > [day] </")
kinds = pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)


def rows_of(tokens):
    return [tokens.row(row).tolist() for row in range(len(tokens.lengths))]


@kinds
def test_rows_are_the_tokenizers_own(kind, tmp_path):
    """Cutting at the end gives what the tokenizer's own truncation on the right gives."""
    tokenizer = kind(tmp_path)
    tokens = tokenize(tokenizer, TEXTS, 12)
    tokenizer.truncation_side = "right"
    expected = [tokenizer(text, truncation=True, max_length=12)["input_ids"] for text in TEXTS]
    expected = [ids or [tokenizer.pad_token_id] for ids in expected]  # a model must be given something
    assert rows_of(tokens) == expected and tokens.lengths.max() == 12
    assert (tokens.frame, tokens.room) == (FRAMES[kind], 12 - sum(FRAMES[kind]))
    assert tokens.mask_id == tokenizer.mask_token_id


@kinds
@pytest.mark.parametrize("tail_fraction, n_tail", [(0.0, 0), (0.3, 3), (0.75, 7)])
def test_head_and_tail_of_a_long_text_inside_its_special_tokens(kind, tail_fraction, n_tail, tmp_path):
    tokenizer, (before, after) = kind(tmp_path), FRAMES[kind]
    room, n_tail = 12 - before - after, int((12 - before - after) * tail_fraction)
    long = rows_of(tokenize(tokenizer, TEXTS[2:3], 12, tail_fraction))[0]
    whole = tokenizer(TEXTS[2])["input_ids"]
    text = whole[before : len(whole) - after]
    kept = text[: room - n_tail] + text[len(text) - n_tail :]
    assert long == whole[:before] + kept + whole[len(whole) - after :] and len(long) == 12
    short = tokenize(tokenizer, TEXTS[:1], 12, tail_fraction)
    assert rows_of(short)[0] == tokenizer(TEXTS[0])["input_ids"]


@given(st.integers(0, 30), st.integers(1, 20), st.floats(0, 0.99))
def test_a_cut_keeps_both_ends_in_order(length, room, share):
    ids = list(range(length))
    kept = cut_text(ids, room, share)
    assert len(kept) == min(length, room) and kept == sorted(set(kept))
    n_tail = int(room * share)
    if length > room:
        assert kept[: room - n_tail] == ids[: room - n_tail] and kept[room - n_tail :] == ids[length - n_tail :]


@kinds
def test_batches_are_padded_on_the_right(kind, tmp_path):
    tokenizer = kind(tmp_path)
    tokens = tokenize(tokenizer, TEXTS, 16)
    rows = np.array([3, 0, 1])
    batch = tokens.batch(rows)
    assert batch["input_ids"].shape == (3, tokens.lengths[rows].max())
    for i, row in enumerate(rows):
        n = tokens.lengths[row]
        assert batch["input_ids"][i, :n].tolist() == tokens.row(row).tolist()
        assert (batch["input_ids"][i, n:] == tokenizer.pad_token_id).all()
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)


def test_chunks_leave_no_seam(monkeypatch, tmp_path):
    from foldblend.learners.tokens import tokens as module

    whole = tokenize(bert(tmp_path), TEXTS, 12)
    monkeypatch.setattr(module, "CHUNK_TEXTS", 2)
    parts = tokenize(bert(tmp_path), TEXTS, 12)
    assert np.array_equal(whole.ids, parts.ids) and np.array_equal(whole.starts, parts.starts)
    assert parts.ids.dtype == np.int32 and parts.starts.dtype == np.int64


def test_a_tokenizer_without_pad_token_is_refused(tmp_path):
    tokenizer = decoder()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no pad token"):
        tokenize(tokenizer, ("a",), 16)


def test_no_room_beside_the_special_tokens_is_refused():
    with pytest.raises(ValueError, match=r"max_length_tokens is 2; .*1 special tokens before and 1 after"):
        tokenize(roberta(), ("a",), 2)


def test_a_tokenizer_that_rewrites_what_it_frames_is_refused(tmp_path):
    tokenizer = bert(tmp_path)

    class Rewriting:
        name_or_path = "odd"

        def __call__(self, text, **how):
            return tokenizer(text, **how) if how.get("add_special_tokens") is False else {"input_ids": [2, 99, 3]}

    with pytest.raises(ValueError, match=r"odd: 'a' is \[\d+\] alone but \[2, 99, 3\]"):
        find_frame(Rewriting())
