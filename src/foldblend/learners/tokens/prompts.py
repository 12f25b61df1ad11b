"""Prompts of causal language models: the words around every text, and the text, as token ids.

The words around the text are the user's own and are encoded once: special tokens in them count. The text is data: it
is truncated if it is too long, and a placeholder or a special token's name in it has no meaning.
"""

import re
from itertools import chain, pairwise

import numpy as np
from jinja2 import TemplateError

from foldblend.errors import UserError
from foldblend.learners.tokens.tokens import CHUNK_TEXTS, Tokens, cut_text
from foldblend.settings.run import PromptSettings

MARK = "\ue000text\ue001"
"""Marks the text's place while a chat template is filled; private-use characters, which no template writes."""

ANCHOR = "\n"
"""A SentencePiece tokenizer puts a space before whatever it encodes; pieces are encoded after this, and its ids are
removed again."""

SAME_DAY = "{%- macro strftime_now(form) -%}26 Jul 2024{%- endmacro -%}"
"""Some chat templates write today's date (Llama 3.2); a run killed tonight must resume tomorrow with this prompt."""


def build_prompts(
    tokenizer,
    prompt: PromptSettings,
    texts: tuple[str, ...],
    label_names: tuple[str, ...],
    max_length_tokens: int,
    tail_fraction: float = 0.0,
) -> Tokens:
    """Make the token ids of every text's prompt, at most `max_length_tokens` long; only the text itself is truncated.

    Args:   texts: n texts.   label_names: L names, for `{labels}`.   tail_fraction: of a text that is too long, the
            share of the kept tokens that comes from its end.
    Raises: UserError: the words around the text leave it no room; the chat template is missing or refuses.
    """
    before, after = split_prompt(tokenizer, prompt, label_names)
    spaces = " " * (len(before) - len(before.rstrip(" ")))  # belongs to the first word's token
    head = _leading_ids(tokenizer, prompt) + _encode_words(tokenizer, before[: len(before) - len(spaces)])
    tail = _encode_words(tokenizer, after)
    room = max_length_tokens - len(head) - len(tail)
    if room < 1:
        raise UserError(
            f"the prompt without its text has {len(head) + len(tail)} tokens; model.max_length_tokens "
            f"{max_length_tokens} leaves no room for a text"
        )
    flat, lengths = [], []
    for start in range(0, len(texts), CHUNK_TEXTS):
        pieces = encode_data(tokenizer, [spaces + text for text in texts[start : start + CHUNK_TEXTS]])
        rows = [[*head, *cut_text(ids, room, tail_fraction), *tail] for ids in pieces]
        flat.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        lengths += map(len, rows)
    starts, frame = np.cumsum([0, *lengths]), (len(head), len(tail))
    return Tokens(np.concatenate(flat), starts, pad_id(tokenizer), frame, room, tokenizer.mask_token_id)


def split_prompt(tokenizer, prompt: PromptSettings, label_names: tuple[str, ...]) -> tuple[str, str]:
    """Split the prompt into what comes before and after the text. Raises: UserError: as `build_prompts`."""
    labels = ", ".join(label_names)
    parts = [part.replace("{labels}", labels) for part in prompt.template.split("{text}")]
    if prompt.form == "plain":
        return parts[0], parts[1]
    messages = [{"role": "user", "content": MARK.join(parts)}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system.replace("{labels}", labels)})
    filled = _fill_chat(tokenizer, messages).split(MARK)
    if len(filled) != 2:
        raise UserError(f"{tokenizer.name_or_path}: the chat template shows the user's message {len(filled) - 1} times")
    return filled[0], filled[1]


def encode_data(tokenizer, pieces: list[str]) -> list[list[int]]:
    """Make the token ids of texts inside a prompt; special tokens' names in them are plain letters.

    Raises: UserError: a special token came out all the same.
    """
    names = [re.escape(name) for name in _control_tokens(tokenizer)]
    control = re.compile("|".join(names)) if names else None
    split = [_break_up(control, piece) for piece in pieces]
    ids = iter(_encode_inside(tokenizer, list(chain(*split)), split_special_tokens=True))
    rows = [list(chain.from_iterable(next(ids) for _ in parts)) for parts in split]
    forbidden = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    for piece, row in zip(pieces, rows):
        if not forbidden.isdisjoint(row):
            raise UserError(f"{tokenizer.name_or_path}: {piece[:80]!r} became a special token; use its fast tokenizer")
    return rows


def pad_id(tokenizer) -> int:
    """Return the id that fills short rows; the attention mask hides it, so any id will do if a model names none."""
    known = (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None)
    return next(known, 0)


def _fill_chat(tokenizer, messages) -> str:
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    if not template:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; set prompt.form plain")
    if "strftime_now" in template:
        template = SAME_DAY + template
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except TemplateError as error:
        fix = "; leave prompt.system empty and put it into prompt.template" if len(messages) > 1 else ""
        raise UserError(f"{tokenizer.name_or_path}: the chat template refuses ({error}){fix}") from error


def _leading_ids(tokenizer, prompt) -> list[int]:
    """The begin token of a plain prompt, if the tokenizer adds one; a chat template writes its own."""
    if prompt.form == "chat" or tokenizer.bos_token_id is None:
        return []
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return [tokenizer.bos_token_id] if tokenizer.bos_token_id in ids else []


def _encode_words(tokenizer, words: str) -> list[int]:
    """Make ids of the user's own words, in which special tokens count."""
    return _encode_inside(tokenizer, [words], split_special_tokens=False)[0]


def _encode_inside(tokenizer, pieces: list[str], split_special_tokens: bool) -> list[list[int]]:
    """Make ids of each piece as it follows other text: without a begin token, without an added space."""
    how = {"add_special_tokens": False, "split_special_tokens": split_special_tokens}
    if not pieces:
        return []
    anchor = tokenizer(ANCHOR, **how)["input_ids"] if _adds_a_space(tokenizer) else []
    ids = tokenizer([(ANCHOR if anchor else "") + piece for piece in pieces], **how)["input_ids"]
    return [row[len(anchor) :] for row in ids]


def _adds_a_space(tokenizer) -> bool:
    return tokenizer.tokenize("a")[:1] in (["▁a"], ["▁"])


def _control_tokens(tokenizer) -> list[str]:
    """Tokens that a text must not write: special ones, and bracketed ones of the chat template; longest first."""
    template = str(tokenizer.chat_template or "")
    added = tokenizer.added_tokens_decoder.values()
    bracketed = re.compile(r"[<\[].*[>\]]")
    return sorted(
        (t.content for t in added if t.special or (bracketed.fullmatch(t.content) and t.content in template)),
        key=len,
        reverse=True,
    )


def _break_up(control, piece: str) -> list[str]:
    """Split a piece after the first letter of every control token's name in it, so that no part holds a name."""
    cuts = [0, *(found.start() + 1 for found in control.finditer(piece)), len(piece)] if control else [0, len(piece)]
    return [piece[start:end] for start, end in pairwise(cuts) if start < end]
