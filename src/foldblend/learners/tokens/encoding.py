"""Texts as token ids, as data: whatever a text spells, no control token comes out of it.

Forums write `<s>` as strike-through, papers write `[SEP]`, and a chat log is full of `<|im_end|>`. A tokenizer would
make the special token of that name, so that a text could end its own row, or hide a part of itself as padding.
"""

import re
import unicodedata
from itertools import chain, pairwise

ANCHOR = "\n"
"""A SentencePiece tokenizer puts a space before whatever it encodes; pieces are encoded after this, and its ids are
removed again."""


def encode_plain(tokenizer, texts: list[str]) -> list[list[int]]:
    """Make the ids of every text, whole and without special tokens around it; it starts as a row starts.

    Returns: one list of ids per text; a special token's name in it is plain letters.
    """
    return _encode(tokenizer, texts, at_start=True)


def encode_data(tokenizer, pieces: list[str]) -> list[list[int]]:
    """Make the ids of texts inside a prompt, as each follows other text; as `encode_plain` otherwise."""
    return _encode(tokenizer, pieces, at_start=False)


def encode_inside(tokenizer, pieces: list[str], split_special_tokens: bool) -> list[list[int]]:
    """Make ids of each piece as it follows other text: without a begin token, without an added space."""
    if not pieces:
        return []
    anchor = _call(tokenizer, [ANCHOR], split_special_tokens)[0] if _adds_a_space(tokenizer) else []
    rows = _call(tokenizer, [(ANCHOR if anchor else "") + piece for piece in pieces], split_special_tokens)
    return [row[len(anchor) :] for row in rows]


def _encode(tokenizer, texts: list[str], at_start: bool) -> list[list[int]]:
    """Encode all texts at once, and those that name a control token again, in parts that do not."""
    control, forbidden = _control_tokens(tokenizer)
    first = _call(tokenizer, texts, True) if at_start else encode_inside(tokenizer, texts, True)
    rows = list(first)
    for i, text in enumerate(texts):
        if (control and control.search(text)) or not forbidden.isdisjoint(rows[i]):
            rows[i] = _encode_in_parts(tokenizer, text, control, forbidden, at_start)
    return rows


def _encode_in_parts(tokenizer, text: str, control, forbidden: set[int], at_start: bool) -> list[int]:
    """Encode a text that a tokenizer would find a control token in.

    A tokenizer whose vocabulary holds the name as an ordinary piece (SentencePiece), or which finds it only after its
    own normalisation (full-width `＜s＞`), makes the token from the letters, too; so the name is broken up.
    """
    ids: list[int] = []
    for spelling in dict.fromkeys((text, unicodedata.normalize("NFKC", text))):
        parts = _break_up(control, spelling)
        lead = _call(tokenizer, parts[:1], True) if at_start and parts else []
        ids = list(chain(*lead, *encode_inside(tokenizer, parts[len(lead) :], True)))
        if forbidden.isdisjoint(ids):
            return ids
    unknown = tokenizer.unk_token_id
    kept = [unknown if i in forbidden else i for i in ids]
    return [i for i in kept if i is not None]


def _call(tokenizer, texts: list[str], split_special_tokens: bool) -> list[list[int]]:
    how = {"add_special_tokens": False, "truncation": False, "padding": False, "verbose": False}
    how |= {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(texts, split_special_tokens=split_special_tokens, **how)["input_ids"] if texts else []


def _adds_a_space(tokenizer) -> bool:
    return tokenizer.tokenize("a")[:1] in (["▁a"], ["▁"])


def _control_tokens(tokenizer) -> tuple[re.Pattern | None, set[int]]:
    """Tokens that a text must not write: special ones, and bracketed ones of the chat template.

    Returns: a pattern of their names, the longest first, or None; the ids of the special ones but the unknown token.
    """
    template, added = str(tokenizer.chat_template or ""), tokenizer.added_tokens_decoder
    bracketed = re.compile(r"[<\[].*[>\]]")
    names = [
        token.content
        for token in added.values()
        if token.special or (bracketed.fullmatch(token.content) and token.content in template)
    ]
    forbidden = {i for i, token in added.items() if token.special} - {tokenizer.unk_token_id}
    pattern = "|".join(re.escape(name) for name in sorted(filter(None, names), key=len, reverse=True))
    return re.compile(pattern) if pattern else None, forbidden


def _break_up(control: re.Pattern | None, text: str) -> list[str]:
    """Split a text after the first letter of every control token's name in it, so that no part holds a name."""
    cuts = [0, *(found.start() + 1 for found in control.finditer(text)), len(text)] if control else [0, len(text)]
    return [text[start:end] for start, end in pairwise(cuts) if start < end]
