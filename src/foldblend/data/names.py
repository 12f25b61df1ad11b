"""Names that are nearly the same: which one was meant, and by what two names differ that a screen shows alike."""

import difflib
import unicodedata
from collections.abc import Iterable

LOOK_ALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеіјорсухѕһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονυρ‐‑‒–—−’‘“”٫",
    "ABESIJKMHOPCTYXaeijopcyxshdqwABEZHIKMNOPTYXovup------''\"\",",
)
"""Cyrillic and Greek letters, dashes and quotes that look like another character -> that character."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'joy'?`, or nothing if no name is near; case, spaces and quotes do not count.

    If both look alike on a screen, a sentence on what differs follows.
    """
    best = find_nearest(name, names)
    if best is None:
        return ""
    difference = describe_difference(name, best)
    return f"; did you mean {best!r}?{' ' + difference if difference else ''}"


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was meant, or None if none is near."""
    names = list(names)
    for fold in (as_seen, lambda text: as_seen(text).casefold().strip(" \"'")):
        by_folded = {fold(other): other for other in reversed(names)}
        if fold(name) in by_folded:
            return by_folded[fold(name)]
    close = difflib.get_close_matches(fold(name), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def as_seen(text: str) -> str:
    """The text as a screen shows it: composed accents, no invisible characters, plain blanks, Latin look-alikes."""
    shown = "".join(" " if _is_blank(c) else c for c in text if not _is_invisible(c))
    return " ".join(unicodedata.normalize("NFKC", shown).translate(LOOK_ALIKES).split(" ")).strip(" ")


def describe_difference(found: str, other: str) -> str:
    """A sentence on what differs between two names that look alike; empty if a reader sees it.

    Example: describe_difference("gaiete\\u0301", "gaiet\\u00e9") -> "The first is written 'gaiete\\u0301' (accents as
             separate characters, Unicode NFD), the second 'gaiet\\xe9'."
    """
    if found == other or as_seen(found) != as_seen(other):
        return ""
    if unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", other):
        decomposed = [unicodedata.normalize("NFC", each) != each for each in (found, other)]
        notes = [" (accents as separate characters, Unicode NFD)" if each else "" for each in decomposed]
        return f"The first is written {found!a}{notes[0]}, the second {other!a}{notes[1]}."
    parts = [f"the {which} has {_list_odd(name)}" for which, name in (("first", found), ("second", other))]
    sentence = " and ".join(part for part, name in zip(parts, (found, other), strict=True) if _list_odd(name))
    return f"They look alike, but {sentence}." if sentence else ""


def _list_odd(name: str) -> str:
    """`U+200B ZERO WIDTH SPACE, ...`: the characters that are invisible or look like another one."""
    odd = [c for c in dict.fromkeys(name) if _is_invisible(c) or (_is_blank(c) and c != " ") or ord(c) in LOOK_ALIKES]
    odd += [c for c in dict.fromkeys(name) if c not in odd and unicodedata.normalize("NFKC", c) != c]
    said = [f"U+{ord(c):04X} {unicodedata.name(c, 'a control character')}" for c in odd]
    return ", ".join([*said, *(["a blank at an end"] if name != name.strip(" ") else [])])


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Cc") and character not in "\t\n"


def _is_blank(character: str) -> bool:
    return unicodedata.category(character) == "Zs" or character in "\t\n"
