"""A large language model that labels or writes texts: one YAML in configs/teachers/, one frozen dataclass."""

import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from foldblend.errors import SECRET_NAME, UserError
from foldblend.settings.fields import find_problems, setting


@dataclass(frozen=True)
class TeacherSettings:
    """A model behind any server that speaks OpenAI's API (OpenAI, vLLM, llama.cpp, Ollama), and how it is asked."""

    model: str = ""
    """The model's name, as its server calls it."""
    base_url: str = "https://api.openai.com/v1"
    """The server's address up to `/v1`, as `http://localhost:11434/v1` of Ollama. It holds no key: see key_variable."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable with the server's key, whose name ends in KEY, TOKEN, SECRET or PASSWORD. Empty: the
    server wants none, as one on this machine. Keys are read from nowhere else, and written nowhere."""
    instruction: str = "Which labels fit the text?"
    """What is asked of each text, in words, before the list of labels. Their definitions are `labels.definitions` of
    the competition's YAML."""
    min_labels: int = setting(1, at_least=0)
    """Fewest labels of a text; 0 allows none. With one label per row it is 1, and so is max_labels."""
    max_labels: int = setting(4, at_least=1)
    """Most labels of a text. Of an answer with more, the first ones count."""
    votes: int = setting(1, at_least=1, at_most=64)
    """How often each text is asked about. A label's probability is the share of the answers that name it, so several
    votes give soft labels; they need a temperature above 0."""
    temperature: float = setting(0.2, at_least=0, at_most=2)
    """0 gives the likeliest answer. For several votes, and to write texts, 0.7 to 1."""
    examples: int = setting(0, at_least=0, at_most=100)
    """Training rows with their labels that are shown before each text. An answer that saw rows of a fold must not teach
    it, so each text is asked about once per fold, with examples of the other folds: the cost is that many times as
    high. 0 shows none, and one answer serves all folds."""
    seed: int = setting(0, at_least=0)
    """Of the draw of examples and of `--limit`."""
    structured: Literal["auto", "schema", "text"] = "auto"
    """`schema`: the server is given a JSON schema that allows no other labels. `text`: it is only asked for JSON, and
    its answer is read strictly. `auto`: the first, and the second if the server refuses it."""
    max_answer_tokens: int = setting(300, at_least=1)
    """Longest answer. Raise it for models that think before they answer, and to write texts."""
    max_text_characters: int = setting(8000, at_least=1)
    """Longer texts are cut to so many characters before they are sent."""
    concurrency: int = setting(8, at_least=1, at_most=256)
    """Requests at a time."""
    requests_per_minute: int = setting(0, at_least=0)
    """Most requests per minute; 0 is no limit but the server's own, which is obeyed in any case."""
    attempts: int = setting(6, at_least=1)
    """How often a request is sent that meets a busy or failing server. A text without an answer is asked about again by
    the next start of the command."""
    retry_seconds: float = setting(1.0, more_than=0)
    """The wait before the second attempt; it doubles each time, up to a minute. A server's Retry-After is obeyed."""
    timeout_seconds: float = setting(60.0, more_than=0)
    """How long one answer is waited for."""
    input_price: float = setting(0.0, at_least=0)
    """Dollars per million tokens that are sent."""
    output_price: float = setting(0.0, at_least=0)
    """Dollars per million tokens of answers."""
    cost_limit: float = setting(1.0, at_least=0)
    """Dollars above which the command asks before it begins, unless `--yes` is given. A run that comes to cost twice
    what was shown stops, too."""

    def __post_init__(self) -> None:
        problems = [*find_problems(self), *_find_conflicts(self)]
        if problems:
            raise UserError("; ".join(problems))


def _find_conflicts(teacher: TeacherSettings) -> Iterator[str]:
    if not teacher.model:
        yield "model is empty; expected the model's name, as its server calls it"
    if teacher.min_labels > teacher.max_labels:
        yield f"min_labels is {teacher.min_labels}, more than max_labels, {teacher.max_labels}"
    if teacher.votes > 1 and teacher.temperature == 0:
        yield f"votes is {teacher.votes}, and with temperature 0 all would be the same. Set temperature 0.7, or votes 1"
    if teacher.key_variable and not SECRET_NAME.search(teacher.key_variable):
        yield (
            f"key_variable is {teacher.key_variable[:40]!r}; expected the name of an environment variable that ends in "
            "KEY, TOKEN, SECRET or PASSWORD, so that its value is kept out of messages. Not the key itself"
        )
    try:
        parts = urllib.parse.urlsplit(teacher.base_url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        secret = bool(parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        known, secret = False, False
    if not known:
        yield f"base_url is {teacher.base_url!r}; expected an address, as http://localhost:8000/v1"
    elif secret:
        yield "base_url holds a user, a password or a query; expected the address alone. For a key, see key_variable"
