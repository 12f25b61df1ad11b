"""What texts look like, one by one: length, links, names, hashtags, emoji and script; for drift and for slices."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

URL, MENTION, HASHTAG = re.compile(r"https?://\S|www\.\S"), re.compile(r"(?<!\w)@\w"), re.compile(r"(?<!\w)#\w")
EMOJI = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55]|\ufe0f|[0-9#*]\u20e3")
"""Pictographs, flags and symbols that are shown as pictures (Unicode TR 51)."""
LETTER = re.compile("[A-Za-z]")
WORD = re.compile(r"\S+")
LETTERS_READ = 400
"""A text's script is that of most of its first so many characters."""
CJK = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}


@dataclass(frozen=True)
class Marks:
    """Of n texts."""

    words: np.ndarray
    """int64 (n,): words between spaces."""
    characters: np.ndarray
    """int64 (n,)."""
    has: Mapping[str, np.ndarray]
    """`a link`, `a name (@)`, `a hashtag`, `an emoji` -> bool (n,)."""
    script: np.ndarray
    """(n,) str: `Latin`, `Cyrillic`, `Chinese` and so on; `no letters` if there are none."""


def mark_texts(texts: Sequence[str]) -> Marks:
    """Measure texts.

    Example: mark_texts(["so happy 😀 #joy"]).has["an emoji"] -> [True]
    """
    patterns = {"a link": URL, "a name (@)": MENTION, "a hashtag": HASHTAG}
    has = {name: np.array([bool(pattern.search(text)) for text in texts], bool) for name, pattern in patterns.items()}
    # most texts are ASCII, and a search for emoji costs a step per character
    has["an emoji"] = np.array([not text.isascii() and bool(EMOJI.search(text)) for text in texts], bool)
    return Marks(
        words=np.array([len(WORD.findall(text)) for text in texts], np.int64),
        characters=np.array([len(text) for text in texts], np.int64),
        has=has,
        script=np.array([find_script(text) for text in texts], dtype=object),
    )


def find_script(text: str) -> str:
    """The script of most letters of a text. Example: find_script("Привет ok") -> "Cyrillic"."""
    part = text[:LETTERS_READ]
    if part.isascii():
        return "Latin" if LETTER.search(part) else "no letters"
    counts = Counter(_script_of(character) for character in part if character.isalpha())
    return counts.most_common(1)[0][0] if counts else "no letters"


@cache
def _script_of(character: str) -> str:
    """By the first word of the letter's name in Unicode, which is its script."""
    word = unicodedata.name(character, "unknown").split()[0].split("-")[0]
    return CJK.get(word, word.capitalize())


# ---------- Groups of rows


LENGTH_PARTS = 4


def slice_rows(
    marks: Marks, per_row: np.ndarray | None, columns: Mapping[str, Sequence[str]], terms: Mapping[str, np.ndarray]
) -> list[tuple[str, str, np.ndarray]]:
    """Groups of rows that may be harder than others.

    Args:    per_row: int64 (n,), labels per row; None if a row has one anyway.
             columns: the user's columns, n cells each; the ten most frequent values make a slice each.
             terms: of `find_terms`.
    Returns: what is sliced, the slice, and bool (n,); slices of all rows or none are left out.
    """
    found = []
    edges = np.unique(np.quantile(marks.words, np.linspace(0, 1, LENGTH_PARTS + 1)).round().astype(int))
    for low, high in pairwise(edges.tolist()):
        first = low if low == edges[0] else low + 1
        found.append(("words", f"{first:,} to {high:,}", (marks.words >= first) & (marks.words <= high)))
    for name, has in marks.has.items():
        found += [("text has", name, has), ("text has", f"no {name.split(' ', 1)[1]}", ~has)]
    found += [("script", script, marks.script == script) for script, _ in Counter(marks.script).most_common(8)]
    if per_row is not None:
        found += [("labels per row", str(n), per_row == n) for n in range(3)] + [
            ("labels per row", "3 or more", per_row > 2)
        ]
    for name, cells in columns.items():
        values = np.array(cells, dtype=object)
        found += [(name, value or "(empty)", values == value) for value, _ in Counter(cells).most_common(10)]
    found += [("terms", name, has) for name, has in terms.items()]
    return [(what, which, rows) for what, which, rows in found if 0 < rows.sum() < len(rows)]


def find_terms(texts: Sequence[str], lists: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Which texts have a word of each list, whole words in any case: bool (n,) each."""
    found = {}
    for name, words in lists.items():
        anywhere = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words), re.IGNORECASE)
        found[name] = np.array([bool(anywhere.search(text)) for text in texts], bool)
    return found
