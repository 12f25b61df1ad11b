"""Texts as a run wants them: links, mentions, hashtags and emoji replaced by words, if its settings say so."""

import re
from collections.abc import Sequence

import emoji

from foldblend.settings.run import CleaningSettings

URL, USER, HASHTAG = re.compile(r"https?://\S+"), re.compile(r"@\w+"), re.compile(r"#(\w+)")
EDGE = "\0"
"""Put on both sides of an emoji's name until the spaces around it are set."""


def clean_texts(texts: Sequence[str], cleaning: CleaningSettings) -> list[str]:
    """Clean every text; cleaning twice changes nothing more, and no text becomes empty.

    Example: urls, users, hashtags, emoji_language "it": "@anna 😀 #felice https://t.co/x" ->
             "<USER> faccina con un gran sorriso <HASHTAG> felice <URL>"
    """
    if cleaning.emoji_language:
        emoji.config.load_language(cleaning.emoji_language)
    return [clean_text(text, cleaning) for text in texts]


def clean_text(text: str, cleaning: CleaningSettings) -> str:
    """One text; `clean_texts` has loaded the emoji's names."""
    if cleaning.urls:
        text = URL.sub("<URL>", text)
    if cleaning.users:
        text = USER.sub("<USER>", text)
    if cleaning.hashtags:
        text = HASHTAG.sub(r"<HASHTAG> \1", text)
    if cleaning.emoji_language and not text.isascii():  # the search for emoji costs a step per character
        text = _emoji_to_words(text, cleaning.emoji_language)
    return text


def _emoji_to_words(text: str, language: str) -> str:
    """Replace emoji by their names, with one space between a name and its neighbours."""

    def name(_, names):
        return EDGE + names[language].strip(":").replace("_", " ") + EDGE

    named = emoji.replace_emoji(text.replace(EDGE, " "), name)
    return text if EDGE not in named else re.sub(f" ?{EDGE}[ {EDGE}]*", " ", named).strip(" ")
