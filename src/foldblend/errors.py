"""The errors that a user can fix, the names that were meant, and the keys that no message may show."""

import base64
import difflib
import json
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


class UserError(ValueError):
    """Something that the user of a command can fix: a file, a setting, a flag, an order of commands.

    The message says what is wrong, what was found, and which command to run next. A command prints this error as one
    message and ends with `exit_status`; every other exception keeps its traceback and ends the command with 1.
    """

    exit_status = 2
    """Of the command that ends with this error. The queue reads it: 2 is not tried again."""


# Names that are nearly the same: which one was meant, and by what two names differ that a screen shows alike.


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


LONGEST_NAME = 200
"""Characters; a longer text is no mistyped name, and comparing it takes time by the square of its length."""


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was meant, or None if none is near."""
    if len(name) > LONGEST_NAME:
        return None
    names = [other for other in names if len(other) <= LONGEST_NAME]
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


def is_unicode(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair, which JSON can spell and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


# Keys and tokens out of every text that is printed or kept: a server may send back what it was sent.
#
# It runs while other errors are reported, so it never fails itself: a source that cannot be read is passed over.


REDACTED = "<redacted>"
SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")
"""How an environment variable is called that holds a secret."""
SHORTEST = 8
"""Characters; a shorter value is no key, and replacing it would garble the text."""
QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]+")
"""An address with a query: the addresses at which Kaggle and the hub keep files are signed there."""
KAGGLE_FILES = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")


def redact(text: str) -> str:
    """The text without any key or token that this process can know, in every form in which one is sent.

    Known are environment variables that are called like a secret, Kaggle's credentials and the hub's stored token.

    Example: with HF_TOKEN=hf_0123456789, "401 for Bearer hf_0123456789" -> "401 for Bearer <redacted>"
    """
    try:
        forms = _forms()
    except (
        Exception
    ) as error:  # it runs while another error is told, so it must not fail, nor show what it could not hide
        return f"{REDACTED}: the keys in this message could not be found ({type(error).__name__})"
    for secret in sorted(forms, key=len, reverse=True):  # the longest first: one may be a part of another
        text = text.replace(secret, REDACTED)
    return QUERY.sub(rf"\1?{REDACTED}", text)


def kaggle_credential_files() -> list[Path]:
    """Kaggle's files of credentials that are there and may be read; KAGGLE_API_TOKEN may name one, too."""
    home = _home()
    folders = [Path(os.environ["KAGGLE_CONFIG_DIR"])] if os.environ.get("KAGGLE_CONFIG_DIR") else []
    config = os.environ.get("XDG_CONFIG_HOME")
    if config:
        folders.insert(0, Path(config) / "kaggle")
    elif home:
        folders.insert(0, home / ".config" / "kaggle")
    if home:
        folders.insert(0, home / ".kaggle")
    paths = [folder / name for folder in folders for name in KAGGLE_FILES]
    named = os.environ.get("KAGGLE_API_TOKEN", "")
    if named and len(named) < 256:
        paths.append(Path(named))
    return [path for path in dict.fromkeys(paths) if "\0" not in str(path) and _is_readable(path)]


def _is_readable(path: Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)  # unlike Path.is_file it never raises


def _forms() -> set[str]:
    """Every secret as it is, quoted for a URL, and with each user name as HTTP's basic authentication sends it."""
    users = {os.environ.get("KAGGLE_USERNAME", "")}
    secrets = {value for name, value in os.environ.items() if SECRET_NAME.search(name)}
    secrets |= set(_hub_token())
    for path in kaggle_credential_files():
        more_users, more_secrets = _read_credentials(path)
        users, secrets = users | more_users, secrets | more_secrets
    secrets = {secret.strip() for secret in secrets if len(secret.strip()) >= SHORTEST}
    pairs = [f"{user}:{secret}" for user in users for secret in secrets]
    # surrogateescape: an environment variable may hold bytes that are no UTF-8
    basic = {base64.b64encode(pair.encode(errors="surrogateescape")).decode() for pair in pairs}
    quoted = {urllib.parse.quote(secret, safe="", errors="surrogateescape") for secret in secrets}
    return secrets | basic | quoted


def _read_credentials(path: Path) -> tuple[set[str], set[str]]:
    """User names and keys in a file; a JSON that cannot be parsed is one secret as a whole."""
    content = _read(path)
    if path.suffix != ".json":
        return set(), {content}
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return set(), {content}
    if not isinstance(values, dict):
        return set(), set()
    secrets = {str(value) for name, value in values.items() if "key" in name or name.endswith("_token")}
    return {str(values.get("username", ""))}, secrets


def _hub_token() -> Iterator[str]:
    """What `hf auth login` stored."""
    home = _home()
    folder = os.environ.get("HF_HOME") or (home and home / ".cache" / "huggingface")
    if folder:
        yield _read(Path(folder) / "token")


def _read(path: Path) -> str:
    """The file's text, empty where it cannot be read."""
    with suppress(OSError, ValueError):  # ValueError: a path with a null character
        if os.path.isfile(path):  # unlike Path.is_file it never raises, and a pipe would block
            return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _home() -> Path | None:
    """None where the system knows no home of this user, as in a container that runs as a number."""
    with suppress(RuntimeError, KeyError):
        return Path.home()
    return None
