"""The nearest name, and what differs between names that a screen shows alike."""

import pytest

from foldblend.errors import as_seen, describe_difference, nearest


@pytest.mark.parametrize(
    "found, known, words",
    [
        ("gaiet\u00e9", "gaiete\u0301", ["accents as separate characters, Unicode NFD", r"'gaiete\u0301'"]),
        ("joy", "joy\u200b", ["the second has U+200B ZERO WIDTH SPACE"]),
        ("j\u043ey", "joy", ["the first has U+043E CYRILLIC SMALL LETTER O"]),
        ("so sad", "so\u00a0sad", ["the second has U+00A0 NO-BREAK SPACE"]),
        ("joy ", "joy", ["the first has a blank at an end"]),
        ("\uff4aoy", "joy", ["the first has U+FF4A FULLWIDTH LATIN SMALL LETTER J"]),
        ("so\u2011so", "so-so", ["U+2011 NON-BREAKING HYPHEN"]),
    ],
)  # fmt: skip
def test_look_alikes_are_named_by_what_differs(found, known, words):
    said = nearest(found, ["other", known])
    assert said.startswith(f"; did you mean {known!r}?")
    for word in words:
        assert word in said


@pytest.mark.parametrize("found, known", [("Joy", "joy"), ("joyy", "joy"), (" 'joy'", "joy")])
def test_a_difference_that_everybody_sees_is_not_explained(found, known):
    assert nearest(found, [known, "fear"]) == f"; did you mean {known!r}?"


def test_the_same_looks_win_over_nearness():
    assert "'anger\\u200b'" in nearest("anger", ["angers", "anger\u200b"]).replace("\u200b", "\\u200b")


def test_nothing_near():
    assert nearest("joy", ["entirely else"]) == nearest("joy", []) == ""
    assert describe_difference("joy", "fear") == describe_difference("joy", "joy") == ""


def test_seen_texts_of_other_scripts_stay_apart():
    assert as_seen("день") != as_seen("ночь") and as_seen("喜び") == "喜び"
