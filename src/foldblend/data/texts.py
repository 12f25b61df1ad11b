"""The texts of a competition: built from columns, rows without any, and cleaned as a run wants them."""

import re
import string
from collections.abc import Sequence

import numpy as np

from foldblend.data.reading import Problems, TextTable
from foldblend.settings.data_files import PAIR, TextSettings
from foldblend.settings.run import CleaningSettings

# ---------- one text per row, from the columns that the settings name.


def build_texts(table: TextTable, text: TextSettings) -> list[str]:
    """One text per row; a pair is two texts with PAIR between. Only the template is a pattern, not braces in a text.

    Example: columns title, body; template "{title} | {body}" -> "Hi {you} | ..." for the title "Hi {you}".
    """
    columns = {name: table.column(name) for name in text.columns}
    if text.pair:
        parts = ([cell.replace(PAIR, " ") for cell in columns[name]] for name in text.pair)
        return [PAIR.join(two) for two in zip(*parts, strict=True)]
    if not text.template:
        return [" ".join(parts) for parts in zip(*columns.values(), strict=True)]
    return fill_template(table, text.template)


def fill_template(table: TextTable, template: str) -> list[str]:
    """One text per row: the template with the cells of the columns in its braces."""
    pieces = [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
    columns = {name: table.column(name) for _, name in pieces if name}
    return [
        "".join(literal + (columns[name][row] if name else "") for literal, name in pieces)
        for row in range(len(table.rows))
    ]


def strip_template(texts: Sequence[str], text: TextSettings) -> list[str] | None:
    """As `build_contents`, of texts that a template made; None if it has no literal words."""
    pieces = list(string.Formatter().parse(text.template))
    if not any(character.isalnum() for literal, _, _, _ in pieces for character in literal):
        return None
    pattern = "".join(re.escape(literal) + ("(.*?)" if name else "") for literal, name, _, _ in pieces)
    cells = re.compile(pattern, re.DOTALL)
    names = [name for _, name, _, _ in pieces if name]
    contents = []
    for each in texts:
        match = cells.fullmatch(each)
        cell = dict(zip(names, match.groups(), strict=True)) if match else {}
        contents.append(" ".join(cell[name] for name in text.columns) if match else each)
    return contents


def build_contents(table: TextTable, text: TextSettings) -> list[str] | None:
    """The cells of one row as one text, without the literal words of the template; None if it has none."""
    literals = "".join(literal for literal, _, _, _ in string.Formatter().parse(text.template))
    if not any(character.isalnum() for character in literals):
        return None
    columns = [table.column(name) for name in text.columns]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]


# ---------- rows without text: refused, allowed or left out, and always named.


def find_empty(table: TextTable, columns: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows without any text, and rows in which some of the text columns are empty, by position."""
    blank = np.array([[not text.strip().strip("\0 \t\r\n") for text in table.column(name)] for name in columns])
    counts = blank.sum(axis=0)  # (N,)
    return np.flatnonzero(counts == len(columns)).tolist(), np.flatnonzero(
        (counts > 0) & (counts < len(columns))
    ).tolist()


def check_texts(table: TextTable, text: TextSettings, report: Problems, drops: bool) -> TextTable:
    """The rows that have a text; rows without any are refused, allowed or left out as `text.empty` says.

    Args:   drops: whether these are training rows, which may be left out; test rows must be answered.
    """
    if not set(text.columns) <= set(table.header):
        return table
    empty, partly = find_empty(table, text.columns)
    report.note_rows(f"rows with a text in some of the text columns only ({len(partly)} of {len(table.rows)})", partly)
    shown = " and ".join(map(repr, text.columns))
    if not drops:
        report.note_rows(f"rows without text ({len(empty)} of {len(table.rows)}) are answered as they are", empty)
    elif empty and text.empty == "allow":
        report.note_rows(f"rows without text ({len(empty)} of {len(table.rows)}) are learned from as they are", empty)
    elif empty and text.empty == "drop":
        report.note_rows(f"rows without text ({len(empty)} of {len(table.rows)}) are left out", empty)
        return leave_out(table, set(empty), report)
    elif empty:
        report.add_rows(f"empty {shown}", [(row, f"{shown} is empty; expected a text") for row in empty])
        report.advise(
            f"set text.empty: drop to leave {_rows(len(empty))} without text out, or text.empty: allow to keep them"
        )
    return table


def _rows(count: int) -> str:
    return "the row" if count == 1 else f"the {count} rows"


def leave_out(table: TextTable, positions: set[int], report: Problems) -> TextTable:
    """The other rows; their numbers stay those of the file."""
    kept = [k for k in range(len(table.rows)) if k not in positions]
    report.row_numbers = [report.row_numbers[k] for k in kept]
    report.line_numbers = [report.line_numbers[k] for k in kept] if report.line_numbers else ()
    return TextTable(table.header, [table.rows[k] for k in kept])


# ---------- links, mentions, hashtags and emoji replaced by words, if a run's settings say so.

URL, USER, HASHTAG = re.compile(r"https?://\S+"), re.compile(r"@\w+"), re.compile(r"#(\w+)")
EDGE = "\0"
"""Put on both sides of an emoji's name until the spaces around it are set."""


def clean_texts(texts: Sequence[str], cleaning: CleaningSettings) -> list[str]:
    """Clean every text; cleaning twice changes nothing more, and no text becomes empty.

    Example: urls, users, hashtags, emoji_language "it": "@anna 😀 #felice https://t.co/x" ->
             "<USER> faccina con un gran sorriso <HASHTAG> felice <URL>"
    """
    if cleaning.emoji_language:
        import emoji  # here, as most runs keep their emoji

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
    import emoji

    def name(_, names):
        return EDGE + names[language].strip(":").replace("_", " ") + EDGE

    named = emoji.replace_emoji(text.replace(EDGE, " "), name)
    return text if EDGE not in named else re.sub(f" ?{EDGE}[ {EDGE}]*", " ", named).strip(" ")
