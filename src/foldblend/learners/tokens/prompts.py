"""Prompts of causal language models: the words around every text, and the text, as token ids.

The words around the text are the user's own and are encoded once: special tokens in them count. The text is data: it
is truncated if it is too long, and a placeholder or a special token's name in it has no meaning.
"""

from jinja2 import TemplateError

from foldblend.errors import UserError
from foldblend.learners.tokens.tokens import Tokens, encode_data, encode_inside, frame_rows
from foldblend.settings.data_files import PAIR
from foldblend.settings.nets import PromptSettings

MARK = "\ue000text\ue001"
"""Marks the text's place while a chat template is filled; private-use characters, which no template writes."""

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

    def encode(part: list[str]) -> list[list[int]]:
        return encode_data(tokenizer, [spaces + text.replace(PAIR, "\n") for text in part])

    ids, starts, whole = frame_rows(encode, texts, (head, tail), room, tail_fraction)
    return Tokens(ids, starts, pad_id(tokenizer), (len(head), len(tail)), room, tokenizer.mask_token_id, whole)


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
    return encode_inside(tokenizer, [words], split_special_tokens=False)[0]
