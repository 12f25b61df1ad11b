"""A teacher's answers: read strictly, logged, counted by kind, made into probabilities, compared with true labels."""

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldblend.errors import UserError, is_unicode
from foldblend.files import read_bytes

# ---------- One answer


KINDS = ("usable", "refused", "cut", "unreadable", "unknown")
"""`refused`: the model or a filter declined. `cut`: it ran out of tokens. `unreadable`: not in the form that was asked
for. `unknown`: too few labels of the list in it."""


@dataclass(frozen=True)
class Reply:
    """What came back for one question, as the log keeps it."""

    content: str
    """The answer's text; of a refusal what was said instead."""
    finish: str
    """`stop`, `length` or `refusal`."""
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Named:
    """The labels that an answer names."""

    kind: str
    """One of KINDS."""
    labels: tuple[str, ...] = ()
    n_unknown: int = 0
    """Labels in it that are not in the list, which are left out."""
    n_too_many: int = 0


def read_labels(reply: Reply, names: Sequence[str], least: int, most: int) -> Named:
    """The labels that a reply names, each once, at most `most`. Case and spaces around a name do not count."""
    if kind := failed_kind(reply):
        return Named(kind)
    found = _as_list(_parse(reply.content), "labels")
    if found is None:
        found = _listed(reply.content, names)
    if found is None:
        return Named("unreadable")
    matched = [find_label(name, names) for name in found]
    known = list(dict.fromkeys(name for name in matched if name is not None))
    n_unknown = matched.count(None)
    if len(known) < least or (n_unknown and not known):
        return Named("unknown", (), n_unknown)
    return Named("usable", tuple(known[:most]), n_unknown, max(len(known) - most, 0))


def find_label(said: str, names: Sequence[str]) -> str | None:
    """The label that is spelt so, whatever its case if only one is; None if there is none."""
    said = said.strip()
    if said in names:
        return said
    close = [name for name in names if name.casefold() == said.casefold()]
    return close[0] if len(close) == 1 else None


def failed_kind(reply: Reply) -> str:
    """The kind of a reply that holds no whole answer; empty for others."""
    return {"refusal": "refused", "length": "cut"}.get(reply.finish, "")


def read_texts(reply: Reply, names: Sequence[str]) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:
    """The kind of a reply, and the texts that it holds with the labels that it gives them (none for paraphrases)."""
    if kind := failed_kind(reply):
        return kind, []
    value = _parse(reply.content)
    found = value.get("texts") if isinstance(value, dict) else value
    if not isinstance(found, list):
        return "unreadable", []
    texts = []
    for each in found:
        text = each.get("text") if isinstance(each, dict) else each
        if not isinstance(text, str) or not text.strip() or not is_unicode(text):
            continue
        given = _as_list(each, "labels") or [] if isinstance(each, dict) else []
        labels = [name for name in (find_label(name, names) for name in given) if name is not None]
        texts.append((" ".join(text.split()), tuple(dict.fromkeys(labels))))
    return ("usable" if texts else "unreadable"), texts


THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
FENCE = re.compile(r"^\s*```[a-z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


def _parse(content: str):
    """The JSON value that the answer is, alone, in a code fence, or after a model's thoughts; None if it is none."""
    content = THOUGHTS.sub("", content)
    fenced = FENCE.match(content)
    try:
        return json.loads(fenced[1] if fenced else content)
    except (ValueError, RecursionError):
        return None


def _as_list(value, key: str) -> list[str] | None:
    """The list of texts that a JSON value is, or has below `key`."""
    if isinstance(value, dict):
        value = value.get(key)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return None


def _listed(content: str, names: Sequence[str]) -> list[str] | None:
    """The pieces of a plain list, if each but an unknown word or two is a label: prose is not read."""
    content = THOUGHTS.sub("", content).strip()
    if not content or content[0] in "{[":
        return None
    lines = [_bare(line) for line in re.split(r"[;\n]", content)]
    split = [[line] if find_label(line, names) else [_bare(piece) for piece in line.split(",")] for line in lines]
    pieces = [piece for line in split for piece in line if piece]  # a label may have a comma
    known = [find_label(piece, names) is not None for piece in pieces]
    short = all(is_known or len(piece.split()) <= 3 for piece, is_known in zip(pieces, known, strict=True))
    return pieces if any(known) and short else None


def _bare(piece: str) -> str:
    """Without bullets, quotes and a full stop."""
    return piece.strip(" \t\r-*•.\"'`")


# ---------- The log: a line per answer, on the disk before the next step, read again by every start
#
# A kill loses no answer that was written, and at most the last line is cut off; that one is asked for again.


LOG_FIELDS = {"key": str, "answer": str, "finish": str, "tokens": list}


class AnswerLog:
    """The answers so far, by the key of the question. The caller holds a lock on the file."""

    def __init__(self, path: Path):
        """Read the log, and cut off a last line that a kill left unfinished.

        Raises: UserError: a line in it is damaged, or it cannot be read or written.
        """
        self.path = path
        self.replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(read_bytes(path)) if path.exists() else 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if os.fstat(self._file).st_size > whole:
                os.ftruncate(self._file, whole)
                os.fsync(self._file)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}). Make its folder writable") from error
        self._size = whole

    def _read(self, data: bytes) -> int:
        """Take in every whole line; returns how many bytes these are."""
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if any(not isinstance(entry.get(name), kind) for name, kind in LOG_FIELDS.items()):
                    raise ValueError("a field is missing")
                tokens_in, tokens_out = map(int, entry["tokens"])
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(
                    f"{self.path}: line {number} is damaged ({error}). Remove that line: the text is asked about again"
                ) from None
            self.replies[entry["key"]] = Reply(entry["answer"], entry["finish"], tokens_in, tokens_out)
        return len(data) - len(rest)

    def append(self, key: str, reply: Reply) -> None:
        """Write one answer; it is on the disk when this returns. Threads take turns."""
        tokens = [reply.tokens_in, reply.tokens_out]
        entry = {"key": key, "answer": reply.content, "finish": reply.finish, "tokens": tokens}
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            try:
                written = os.write(self._file, line)  # one write, so that a kill leaves whole lines and one cut at most
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:  # the disk is full: half a line must not be the beginning of the next one
                os.ftruncate(self._file, self._size)
                raise
            self._size += len(line)
            self.replies[key] = reply

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


# ---------- All answers


@dataclass
class Tally:
    """How many answers were of which kind."""

    kinds: Counter
    n_unknown: int = 0
    n_too_many: int = 0

    def lines(self) -> list[str]:
        """What a user must know, as sentences; empty if every answer was usable."""
        said = {
            "refused": "refused by the model or a filter",
            "cut": "cut off: raise max_answer_tokens",
            "unreadable": "in another form than asked for",
            "unknown": "with too few labels of the list",
        }
        total = sum(self.kinds.values())
        found = [
            f"{self.kinds[kind]:,} of {total:,} answers {words}" for kind, words in said.items() if self.kinds[kind]
        ]
        if self.n_unknown:
            found.append(f"{self.n_unknown:,} labels that are not in the list were left out")
        if self.n_too_many:
            found.append(f"{self.n_too_many:,} labels beyond max_labels were left out")
        return found


def count_votes(
    named: Iterable[tuple[int, int, Named]], shape: tuple[int, int], names: Sequence[str]
) -> tuple[np.ndarray, Tally]:
    """Probabilities: the share of a row's usable answers that name a label.

    Args:    named: (set, row, what was named) of each answer.   shape: sets and rows.
    Returns: float32 (sets, rows, L), nan for a row without a usable answer; and the counts.
    """
    position = {name: label for label, name in enumerate(names)}
    votes, usable = np.zeros((*shape, len(names)), np.float32), np.zeros(shape, np.float32)
    tally = Tally(Counter())
    for n_set, row, one in named:
        tally.kinds[one.kind] += 1
        tally.n_unknown += one.n_unknown
        tally.n_too_many += one.n_too_many
        if one.kind == "usable":
            usable[n_set, row] += 1
            votes[n_set, row, [position[name] for name in one.labels]] += 1
    probs = np.full_like(votes, np.nan)
    answered = usable > 0
    probs[answered] = votes[answered] / usable[answered][:, None]
    return probs, tally


# ---------- Agreement with true labels


@dataclass(frozen=True)
class Agreement:
    """How well decisions agree with true labels; arrays (L,)."""

    n_rows: int
    true_rate: np.ndarray
    given_rate: np.ndarray
    f1: np.ndarray
    """0 for a label that nobody names."""
    kappa: np.ndarray
    """Cohen's kappa; nan if the label and the teacher are both constant."""

    @property
    def macro_f1(self) -> float:
        """Mean of `f1`."""
        return float(self.f1.mean())


def measure_agreement(labels: np.ndarray, given: np.ndarray) -> Agreement:
    """F1 and Cohen's kappa of each label.

    Args:    labels, given: bool (n, L).
    Example: labels [[1], [1], [0], [0]], given [[1], [0], [0], [0]] -> f1 [0.667], kappa [0.5]
    Source:  Cohen 1960: (p - e) / (1 - e), p the share of rows on which both agree, e what their rates give by chance.
    """
    both, true, said = (labels & given).mean(0), labels.mean(0), given.mean(0)
    f1 = 2 * both / np.maximum(true + said, 1e-12)
    agreed = (labels == given).mean(0)
    chance = true * said + (1 - true) * (1 - said)
    kappa = np.full(len(true), np.nan)
    np.divide(agreed - chance, 1 - chance, out=kappa, where=chance < 1)
    return Agreement(len(labels), true, said, f1, kappa)
