"""What a generator may answer, as token ids: a list of labels, or yes or no to each label.

Labels, separators and ends are encoded piece by piece, in training as in prediction, so that an answer has exactly one
spelling in tokens. A `Menu` holds what may be written next.
"""

from dataclasses import dataclass

import numpy as np

from foldblend.errors import UserError
from foldblend.learners.tokens.prompts import encode_data, split_prompt
from foldblend.settings.run import AnswerSettings, PromptSettings


@dataclass(frozen=True)
class Menu:
    """Token ids of what may come next in an answer: `shared`, and then one of the entries."""

    shared: tuple[int, ...]
    """How all entries begin."""
    entries: tuple[tuple[int, ...], ...]
    """What follows in each; never empty, all different."""
    ends: tuple[int, ...]
    """Tokens that may follow an entry."""
    end: int | None = None
    """The token that ends the answer here, or None if it may not end here."""

    @property
    def rivals(self) -> list[tuple[int, ...]]:
        """For each entry, the tokens by which longer entries go on from it: `ful` for `joy`, if `joyful` is one too."""
        return [self._continuations(entry) for entry in self.entries]

    def _continuations(self, entry: tuple[int, ...]) -> tuple[int, ...]:
        """The next tokens of the other entries that begin with `entry`, rising."""
        n = len(entry)
        return tuple(sorted({other[n] for other in self.entries if other != entry and other[:n] == entry}))


def build_menu(pieces: list[list[int]], ends: tuple[int, ...], end: int | None = None) -> Menu:
    """Build a menu of whole pieces.

    Raises: UserError: two pieces are the same tokens, or one goes on with a token that may end another.
    """
    n_shared = _count_shared(pieces)
    entries = tuple(tuple(piece[n_shared:]) for piece in pieces)
    if len(set(entries)) < len(entries):
        raise UserError("two labels (or the answers to them) are the same tokens; give them names that differ")
    menu = Menu(tuple(pieces[0][:n_shared]), entries, ends, end)
    if any(set(rivals) & set(ends) for rivals in menu.rivals):
        raise UserError("a label continues with what may follow another label; set another answer.separator")
    return menu


def answer_lead(tokenizer, prompt: PromptSettings, label_names: tuple[str, ...]) -> str:
    """Return what goes between prompt and answer: a space, unless the prompt ends with one or with a new line.

    Raises: UserError: nothing follows the text, so nothing asks for the answer.
    """
    after = split_prompt(tokenizer, prompt, label_names)[1]
    if not after.strip():
        fix = 'such as --prompt.template "{text}\\nLabels:"'
        raise UserError(f"prompt.template ends with the text; a generator needs words after it, {fix}")
    return "" if after[-1:].isspace() else " "


def end_token(tokenizer) -> int:
    """Return the token that ends an answer. Raises: UserError: the tokenizer names none."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no end token, so an answer could not end")
    return tokenizer.eos_token_id


class ListAnswers:
    """Lists of labels in submission order; with `one_label` (multiclass) the list is the one label.

    Raises: UserError: labels that cannot be told from each other, from `none` or from the separator.
    """

    def __init__(self, tokenizer, answer: AnswerSettings, label_names: tuple[str, ...], lead: str, one_label: bool):
        wrong = [name for name in label_names if answer.separator in name or name == answer.none]
        if wrong and not one_label:
            fix = "set another answer.separator or answer.none"
            raise UserError(f"label {wrong[0]!r} holds the separator, or is the answer for no label; {fix}")
        self.eos, self.one_label = end_token(tokenizer), one_label
        names = label_names if one_label else (*label_names, answer.none)
        self.first = encode_data(tokenizer, [lead + name for name in names])
        self.later = encode_data(tokenizer, [answer.separator + name for name in label_names])
        if _count_shared(self.later) < 1:
            raise UserError(f"answer.separator {answer.separator!r} melts into the label's tokens; set another")
        self.follow = (self.eos, self.later[0][0])  # what may follow a label: the end, or a separator

    def written(self, labels: tuple[int, ...]) -> list[int]:
        """Write a list of these labels, given in rising order, as token ids without its end."""
        pieces = [self.first[labels[0]], *(self.later[label] for label in labels[1:])]
        return [i for piece in pieces for i in piece]

    def whole(self, row: np.ndarray) -> list[int]:
        """Write the whole answer for a row of labels, bool (L,), as token ids."""
        labels = np.flatnonzero(row)
        return [*(self.written(labels) if len(labels) else self.first[-1]), self.eos]

    def opening(self) -> Menu:
        """The menu of the first label; `none` is the last entry if a row may have no label."""
        return build_menu(self.first, (self.eos,) if self.one_label else self.follow)

    def after(self, last: int) -> Menu:
        """The menu after label `last`, which is not the last of all: a later label, or the end."""
        return build_menu(self.later[last + 1 :], self.follow, end=self.eos)

    def count_tokens(self, n_histories: int) -> int:
        """Most branch tokens of a row, unless a list so far has more than four labels."""
        longest = max(map(len, self.later))
        return n_histories * (4 * longest + sum(len(piece) - 1 for piece in self.later))


class YesNoAnswers:
    """A question for every label and one menu for all of them: entry 0 is yes, entry 1 is no."""

    def __init__(self, tokenizer, answer: AnswerSettings, label_names: tuple[str, ...], lead: str):
        asked = [lead + answer.question.replace("{label}", name) for name in label_names]
        self.questions = encode_data(tokenizer, asked)
        words = [answer.yes, answer.no] if asked[0][-1:].isspace() else [f" {answer.yes}", f" {answer.no}"]
        self.menu = build_menu(encode_data(tokenizer, words), (end_token(tokenizer),))

    def count_tokens(self, n_histories: int) -> int:
        """Branch tokens of a row."""
        return len(self.questions) * (max(map(len, self.questions)) + sum(map(len, self.menu.entries)))


def _count_shared(pieces: list[list[int]]) -> int:
    """Count the tokens that all pieces begin with, leaving at least one to each."""
    n_shared = min(map(len, pieces)) - 1
    return next((i for i in range(n_shared) if len({piece[i] for piece in pieces}) > 1), n_shared)
