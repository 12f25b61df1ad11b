"""Case, spaces, punctuation, links and @mentions do not make another text; everything else does."""

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.folding.duplicates import find_conflicts, fold_text, group_same

SAME = [
    ("So  HAPPY!!", "so happy"),
    ("don't", "dont"),
    ("don’t — really…", "Dont really"),
    ("hi @Ann_B look https://t.co/x?a=1", "Hi @bob look www.example.com"),
    ("Straße", "STRASSE"),
    ("ﬁne ①", "fine 1"),
    ("café", "cafe\u0301"),
    ("I ❤\ufe0f you", "i ❤ you"),
    ("a\u200bb\tc\x00", "abc"),
    ("100% #sure", "100 sure"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
]
DIFFERENT = [
    ("😀", "😡"),
    ("!!!", "???"),
    ("...", "!"),
    ("@ann", "@bob"),
    ("https://a.com", "https://b.com"),
    ("good", "goods"),
    ("me@home.org", "me@work.org"),
    ("cafe", "café"),
    ("привет", "пока"),
    ("你好", "您好"),
    ("♥", "♡"),
]


@pytest.mark.parametrize("one, other", SAME)
def test_same(one, other):
    assert fold_text(one) == fold_text(other)


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_different(one, other):
    assert fold_text(one) != fold_text(other)


WORDS = st.lists(st.text(string.ascii_lowercase + "0123456789äß😀日", min_size=1, max_size=6), min_size=1, max_size=6)


@settings(deadline=None)
@given(WORDS, st.randoms())
def test_any_case_space_and_punctuation(words, random):
    noise = [random.choice([" ", "  ", "\n", "!", ", ", "... ", "-", "’", "\u3000", "¡"]) for _ in words]
    written = "".join(random.choice([word, word.upper()]) + extra for word, extra in zip(words, noise, strict=True))
    assert fold_text(" " + written) == fold_text(" ".join(words))


@settings(deadline=None)
@given(st.text())
def test_never_empty_and_stable(text):
    key = fold_text(text)
    assert key or not text.strip()
    assert fold_text(text) == key == fold_text(text + " ")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Good day", "good DAY!", "bad day", "😀", "?", "!"]), max_size=12))
def test_groups_are_those_of_the_keys(texts):
    same, keys = group_same(texts)
    assert [keys[group] for group in same] == [fold_text(text) for text in texts]
    assert keys == sorted(set(keys))


def test_conflicts():
    same = np.array([0, 1, 0, 2, 1, 3, 2])
    labels = np.array([[0, 1], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1], [1, 0]], dtype=bool)
    assert [rows.tolist() for rows in find_conflicts(same, labels)] == [[1, 4], [3, 6]]
    assert find_conflicts(same[:3], labels[:3]) == []
    assert find_conflicts(same[:0], labels[:0]) == []
