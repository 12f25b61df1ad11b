"""Sets of character pieces and their likeness, against Python's own sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.folding.duplicates import PIECE, hash_pieces, jaccard, split_chunks

LONG_TEXTS = st.lists(st.text("abc😀", min_size=PIECE, max_size=30), min_size=1, max_size=6)


def pieces(text):
    return [text[i : i + PIECE] for i in range(len(text) - PIECE + 1)]


@settings(deadline=None)
@given(LONG_TEXTS)
def test_equal_pieces_have_equal_hashes_and_no_others(texts):
    hashes, starts = hash_pieces(texts)
    flat = [piece for text in texts for piece in pieces(text)]
    assert len(hashes) == len(flat)
    assert starts.tolist() == np.cumsum([0] + [len(pieces(text)) for text in texts])[:-1].tolist()
    assert len(set(zip(flat, hashes.tolist(), strict=True))) == len(set(flat)) == len(set(hashes.tolist()))


@settings(deadline=None)
@given(LONG_TEXTS, st.data())
def test_jaccard_is_that_of_sets(texts, data):
    pair = st.tuples(*[st.integers(0, len(texts) - 1)] * 2)
    left, right = np.array(data.draw(st.lists(pair, min_size=1, max_size=8))).T
    sets = [set(pieces(text)) for text in texts]
    expected = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(jaccard(texts, left, right), expected, rtol=1e-12)


def test_no_two_of_many_pieces_share_a_hash():
    numbers = [f"{i:06d}"[:PIECE] + f"{i:06d}" for i in range(30_000)]
    hashes, _ = hash_pieces(numbers)
    assert len(np.unique(hashes)) == len({piece for text in numbers for piece in pieces(text)})


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_chunks_are_runs_of_bounded_size(lengths, chunk):
    parts = split_chunks(np.array(lengths, dtype=np.int64), chunk)
    assert [i for part in parts for i in range(len(lengths))[part]] == list(range(len(lengths)))
    for part in parts:
        assert lengths[part]
        assert sum(lengths[part][1:]) <= chunk
