"""What texts look like, and the groups that are made of it."""

import numpy as np
import pytest

from foldblend.reports.marks import find_script, find_terms, mark_texts, slice_rows

TEXTS = ["so happy 😀 #joy", "see https://t.co/x @ann", "plain words only", "1 ❤️", ""]


def test_marks():
    marks = mark_texts(TEXTS)
    assert marks.words.tolist() == [4, 3, 3, 2, 0]
    assert {name: has.tolist() for name, has in marks.has.items()} == {
        "a link": [False, True, False, False, False],
        "a name (@)": [False, True, False, False, False],
        "a hashtag": [True, False, False, False, False],
        "an emoji": [True, False, False, True, False],
    }


@pytest.mark.parametrize(
    "text, script",
    [
        ("hello", "Latin"),
        ("Привет ok", "Cyrillic"),
        ("こんにちは", "Japanese"),
        ("你好", "Chinese"),
        ("नमस्ते", "Devanagari"),
        ("123 !", "no letters"),
        ("😀", "no letters"),
        ("\ud83d", "no letters"),
    ],
)
def test_scripts(text, script):
    assert find_script(text) == script


def test_slices_are_neither_empty_nor_everything():
    slices = slice_rows(mark_texts(TEXTS), np.array([1, 0, 2, 1, 3]), {"source": ["a", "a", "b", "", "b"]}, {})
    assert slices and all(0 < rows.sum() < len(TEXTS) for _, _, rows in slices)
    by_name = {(what, which): rows.tolist() for what, which, rows in slices}
    assert by_name["source", "(empty)"] == [False, False, False, True, False]
    assert by_name["labels per row", "3 or more"] == [False] * 4 + [True]
    lengths = np.sum([rows for what, _, rows in slices if what == "words"], axis=0)
    assert lengths.tolist() == [1] * len(TEXTS)  # each row is in one part by length


def test_terms_are_whole_words_in_any_case():
    found = find_terms(["Damn it", "damnation", "what the hell?"], {"rude": ["damn", "hell"]})
    assert found["rude"].tolist() == [True, False, True]
