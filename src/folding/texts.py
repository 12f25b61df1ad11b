"""Folding room: a text without what does not make it another text: case, spaces, punctuation, links, names."""

import re
import unicodedata

import numpy as np

LINK, NAME, RAW = "\ue000", "\ue001", "\ue002"
"""Private characters: what a link and an @mention become, and the mark of a text kept as it is."""
LINK_OR_NAME = re.compile(r"(?P<link>(?:https?://|www\.)\S+)|(?<!\w)@\w+", re.IGNORECASE)
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


class _Dropped(dict):
    """Table for str.translate, filled as characters are met: None for those that are dropped, emoji are kept."""

    def __missing__(self, code: int):
        character = chr(code)
        kind = unicodedata.category(character)
        ascii_symbol = kind[0] == "S" and code < 128
        dropped = kind[0] in "PZ" or kind in ("Cc", "Cf") or ascii_symbol or code in VARIATION_SELECTORS
        self[code] = None if dropped else code
        return self[code]


DROPPED = _Dropped()


def fold_text(text: str) -> str:
    """Fold case (full Unicode), compatibility forms, links and @mentions; drop spaces, punctuation and controls.

    Example: fold_text("So  HAPPY!! @bob https://t.co/x") == fold_text("so happy... @Ann www.a.com")
    A text of which nothing but links and names is left is kept as written: two lone links are not one text.
    Source:  Unicode TR 15 and 3.13 (NFKC_Casefold).
    """
    shortened = LINK_OR_NAME.sub(lambda found: LINK if found["link"] else NAME, text)
    folded = shortened if shortened.isascii() else unicodedata.normalize("NFKC", shortened)
    folded = folded.casefold()
    folded = folded if folded.isascii() else unicodedata.normalize("NFKC", folded)
    key = folded.translate(DROPPED)
    return key if key.strip(LINK + NAME) else RAW + text.strip()


def group_same(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """Group texts that fold to the same.

    Returns: (N,) int64, the position of each text's key in the sorted keys, and these keys. Whatever the order of
             the texts, the keys are the same.
    """
    keys = [fold_text(text) for text in texts]
    distinct = sorted(set(keys))
    position = {key: number for number, key in enumerate(distinct)}
    return np.fromiter((position[key] for key in keys), dtype=np.int64, count=len(keys)), distinct


def find_conflicts(same: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Rows of every text that stands in the table with different labels.

    Args:   same: (N,) int64 of `group_same`.   labels: (N, L) bool.
    Returns: one (n,) int64 array of rows a text, in the order of their first rows.
    """
    order = np.argsort(same, kind="stable")
    borders = np.flatnonzero(np.diff(same[order])) + 1
    groups = np.split(order, borders)
    conflicts = [rows for rows in groups if len(rows) > 1 and (labels[rows] != labels[rows[0]]).any()]
    return sorted(conflicts, key=lambda rows: int(rows[0]))
