"""What is done to a text before a learner sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CleaningSettings:
    """Parts of a text that become placeholders or words, for training and test rows alike; all off by default."""

    urls: bool = False
    """A link (http or https) becomes `<URL>`."""
    users: bool = False
    """A mention `@name` becomes `<USER>`."""
    hashtags: bool = False
    """`#tag` becomes `<HASHTAG> tag`."""
    emoji_language: Literal["", "ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"] = ""
    """An emoji becomes its name in this language; empty leaves it."""
    placeholder_tokens: bool = False
    """Add the placeholders to the tokenizer: each is one token with an embedding of its own, not `<`, `URL`, `>`."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """What this cleaning writes in place of something."""
        written = {"<URL>": self.urls, "<USER>": self.users, "<HASHTAG>": self.hashtags}
        return tuple(placeholder for placeholder, on in written.items() if on)


def cleaning_conflicts(cleaning: CleaningSettings, has_tokenizer: bool) -> Iterator[str]:
    """Every value that cannot work, as sentences. `has_tokenizer`: whether the learner reads token ids."""
    if cleaning.placeholder_tokens and not cleaning.placeholders:
        yield "cleaning.placeholder_tokens is set, but cleaning writes none; set urls, users or hashtags"
    if cleaning.placeholder_tokens and not has_tokenizer:
        yield "cleaning.placeholder_tokens is set, but this learner has no vocabulary of tokens to add them to"
