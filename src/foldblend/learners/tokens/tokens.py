"""Every text of a competition as token ids, made once and shared by all folds of a run."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from torch import nn
from transformers import AddedToken

from foldblend.errors import UserError
from foldblend.files import FileError, add_texts, replacing, write_atomically
from foldblend.learners.training.weights import checksum
from foldblend.settings.data_files import PAIR

# Tokens.

CHUNK_TEXTS = 1024
"""Texts per call of a tokenizer: enough to keep its threads busy, few enough for long documents."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of texts of any length, end to end: row r is ids[starts[r]:starts[r + 1]]."""

    ids: np.ndarray
    """int32 (total,)."""
    starts: np.ndarray
    """int64 (n_texts + 1,)."""
    pad_id: int
    frame: tuple[int, int] = (0, 0)
    """Tokens before and after the text in every row: special tokens, a prompt."""
    room: int = 0
    """Most tokens of a text in a row; 0 is unknown, then rows cannot be augmented."""
    mask_id: int | None = None
    """The mask token, if the tokenizer has one."""
    whole: np.ndarray | None = None
    """int32 (n_texts,): tokens that each row would have if no text were truncated; None if that is not known."""
    beside: np.ndarray | None = None
    """float32 (n_texts, W): what a fold reads beside the texts; None if that is nothing."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n_texts,): tokens per row."""
        return np.diff(self.starts)

    def row(self, row: int) -> np.ndarray:
        """Return the tokens of one text, int32 (T,), its frame included."""
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask, int64 (B, T), of `rows`, padded on the right to the longest of them."""
        starts, ends = self.starts[rows], self.starts[rows + 1]
        positions = starts[:, None] + np.arange((ends - starts).max())  # (B, T)
        mask = positions < ends[:, None]
        # one gather for the whole batch; positions beyond the last row are clipped, and masked
        input_ids = np.where(mask, self.ids[np.minimum(positions, len(self.ids) - 1)], self.pad_id).astype(np.int64)
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        return {**inputs, **self.batch_beside(rows)}

    def batch_beside(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return beside, float32 (B, W), if there is anything beside the texts."""
        return {} if self.beside is None else {"beside": torch.from_numpy(self.beside[rows])}


def pad_rows(rows: Sequence[np.ndarray], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad rows of token ids on the right to the longest: input_ids and attention_mask, int64 (B, T)."""
    lengths = np.array([len(row) for row in rows])
    input_ids = np.full((len(rows), lengths.max()), pad_id, dtype=np.int64)
    mask = np.arange(lengths.max()) < lengths[:, None]
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def tokenize(tokenizer, texts: Sequence[str], max_length_tokens: int, tail_fraction: float = 0.0) -> Tokens:
    """Make token ids of every text, in the tokenizer's special tokens, at most `max_length_tokens` per row.

    A text with PAIR in it is two texts, which the tokenizer's own separator joins; of two that are too long together
    the longer one is truncated first.

    Args:   tail_fraction: of a text that is too long, the share of the kept tokens that comes from its end.
    Raises: UserError: the tokenizer has no pad token, or its special tokens leave no room.
    """
    if tokenizer.pad_token_id is None:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no pad token, so rows cannot be batched")
    before, after = find_frame(tokenizer)
    room = max_length_tokens - len(before) - len(after)
    if room < 1:
        raise UserError(
            f"model.max_length_tokens is {max_length_tokens}; {tokenizer.name_or_path} puts {len(before)} special "
            f"tokens before and {len(after)} after a text, which leaves no room for it"
        )
    if any(PAIR in text for text in texts):
        return _tokenize_pairs(tokenizer, texts, (before, after), max_length_tokens, tail_fraction)
    empty = [] if before or after else [tokenizer.pad_token_id]  # a model must be given something

    def encode(part: list[str]) -> list[list[int]]:
        return [ids or empty for ids in encode_plain(tokenizer, part)]

    ids, starts, whole = frame_rows(encode, texts, (before, after), room, tail_fraction)
    frame = (len(before), len(after))
    return Tokens(ids, starts, tokenizer.pad_token_id, frame, room, tokenizer.mask_token_id, whole)


def frame_rows(
    encode: Callable[[list[str]], list[list[int]]],
    texts: Sequence[str],
    frame: tuple[list[int], list[int]],
    room: int,
    tail_fraction: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode texts chunk by chunk and put each, truncated to `room` tokens, between the tokens of `frame`.

    Returns: `ids`, `starts` and `whole`, as `Tokens` has them.
    """
    before, after = frame
    flat, lengths, whole = [], [], []
    for start in range(0, len(texts), CHUNK_TEXTS):
        pieces = encode(list(texts[start : start + CHUNK_TEXTS]))
        rows = [[*before, *cut_text(ids, room, tail_fraction), *after] for ids in pieces]
        flat.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        lengths += map(len, rows)
        whole += [len(before) + len(ids) + len(after) for ids in pieces]
    return np.concatenate(flat), np.cumsum([0, *lengths]), np.array(whole, np.int32)


def _tokenize_pairs(
    tokenizer, texts: Sequence[str], frame: tuple[list[int], list[int]], max_length_tokens: int, tail_fraction: float
) -> Tokens:
    """Make the rows of pairs; `room` is 0, as which tokens are text differs from row to row."""
    before, after = frame
    between = find_separator(tokenizer, before, after)
    room = max_length_tokens - len(before) - len(between) - len(after)
    if room < 2:
        raise UserError(f"model.max_length_tokens is {max_length_tokens}, which leaves no room for two texts; raise it")
    rows, whole = [], []
    for start in range(0, len(texts), CHUNK_TEXTS):
        halves = [text.partition(PAIR)[::2] for text in texts[start : start + CHUNK_TEXTS]]
        both = (encode_plain(tokenizer, [half[i] for half in halves]) for i in (0, 1))
        for first, second in zip(*both, strict=True):
            # a short second text leaves its room to the first; if both are long each gets half
            n_first = min(len(first), max(room - len(second), room - room // 2))
            kept = cut_text(first, n_first, tail_fraction), cut_text(second, room - n_first, tail_fraction)
            rows.append(np.array([*before, *kept[0], *between, *kept[1], *after], np.int32))
            whole.append(len(before) + len(first) + len(between) + len(second) + len(after))
    starts = np.cumsum([0, *map(len, rows)])
    ends, ids = (len(before), len(after)), np.concatenate(rows)
    return Tokens(ids, starts, tokenizer.pad_token_id, ends, 0, tokenizer.mask_token_id, np.array(whole, np.int32))


def find_separator(tokenizer, before: list[int], after: list[int]) -> list[int]:
    """Find the special tokens that the tokenizer puts between two texts: BERT `[SEP]`, RoBERTa `</s></s>`.

    A tokenizer that has no form for two texts has its separator, or its end token, between them.
    Raises: UserError: it has none of these.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", "a")["input_ids"]
    # what stands between "a" and "a" once both and the frame are taken away
    start, end = [*before, *plain], [*plain, *after]
    if whole[: len(start)] == start and whole[len(whole) - len(end) :] == end and len(whole) >= len(start) + len(end):
        return whole[len(start) : len(whole) - len(end)]
    known = (i for i in (tokenizer.sep_token_id, tokenizer.eos_token_id) if i is not None)
    separator = next(known, None)
    if separator is None:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer has no separator for the two texts of text.pair. Join them by "
            "text.template instead"
        )
    return [separator]


def cut_text(ids: list[int], room: int, tail_fraction: float) -> list[int]:
    """Truncate to `room` ids: the first ones, and with a tail share the last ones too, without the middle.

    Example: cut_text([0, 1, ..., 9], 4, 0.5) -> [0, 1, 8, 9]
    Source:  Sun et al. 2019, arXiv:1905.05583, section 5.3 (510 tokens: 128 of the head, 382 of the tail).
    """
    if len(ids) <= room:
        return ids
    n_tail = int(room * tail_fraction)
    return ids[: room - n_tail] + ids[len(ids) - n_tail :]


def find_frame(tokenizer) -> tuple[list[int], list[int]]:
    """Find the special tokens that the tokenizer puts before and after a text; none for most decoders.

    Raises: UserError: it changes the text's own tokens as well.
    """
    plain = tokenizer("a", add_special_tokens=False, padding=False)["input_ids"]
    whole = tokenizer("a", padding=False)["input_ids"]
    for n_before in range(len(whole) - len(plain) + 1):
        if whole[n_before : n_before + len(plain)] == plain:
            return whole[:n_before], whole[n_before + len(plain) :]
    raise UserError(f"{tokenizer.name_or_path}: 'a' is {plain} alone but {whole} with special tokens around it")


# The cache on disk: files named by the hash of what the tokens follow from, shared by runs, folds and processes.

FORMAT = 2
"""Increase it when the code makes other tokens from the same inputs."""

TOKENIZER_FILES = (
    *("*token*.json", "vocab*", "merges.txt", "*.model", "config.json"),
    *("*.jinja", "additional_chat_templates/*.jinja"),
)
"""What a tokenizer and its chat templates are read from, in a folder of weights."""


def load_or_make(
    cache_dir: Path | None, weights: Path, texts: Sequence[str], settings: dict, make: Callable[[], Tokens]
) -> Tokens:
    """Map tokens from the cache if they are there and undamaged; otherwise make them and write them.

    Args:   cache_dir: None is no cache.   weights: the folder with the tokenizer's files.
            settings: everything else that the tokens follow from, in JSON's types.   make: makes the tokens.
    Raises: FileError: the disk refused.
    """
    if cache_dir is None:
        return make()
    stem = cache_dir / hash_inputs(weights, texts, settings)
    found = _read(stem)
    if found is None:
        # read back rather than kept: the arrays are then mapped from the file, and shared by all processes
        _write(stem, make())
        found = _read(stem)
    if found is None:
        raise FileError(
            f"{stem}.json: the tokens just written cannot be read back. Check the disk, or run: rm -r '{cache_dir}'"
        )
    return found


def hash_inputs(weights: Path, texts: Sequence[str], settings: dict) -> str:
    """Hash texts, tokenizer files, settings and the versions of the tokenizing libraries, to 32 hex digits."""
    versions = [FORMAT, tokenizers.__version__, transformers.__version__]
    total = hashlib.sha256(json.dumps([versions, settings], sort_keys=True).encode())
    for path in sorted({path for pattern in TOKENIZER_FILES for path in weights.glob(pattern)}):
        name = path.relative_to(weights).as_posix()
        # a name alone would not do: two folders may hold other merges under the same name
        total.update(f"{name}:{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    add_texts(total, texts)
    return total.hexdigest()[:32]


def _read(stem: Path) -> Tokens | None:
    """Read the tokens, or None if a file is missing or damaged."""
    try:
        record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(_array_path(stem, name), mmap_mode="r", allow_pickle=False) for name in record["arrays"]
        }
        whole = record["crc32"] == checksum(arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    # a cache may be cut off by a full disk, or written by two processes: it is then made again, and no run fails
    if not whole:
        return None
    frame = tuple(record["frame"])
    return Tokens(
        arrays["ids"], arrays["starts"], record["pad_id"], frame, record["room"], record["mask_id"], arrays.get("whole")
    )


def _write(stem: Path, tokens: Tokens) -> None:
    """Write the arrays first and the record with their checksum last; each file atomically."""
    arrays = {"ids": tokens.ids, "starts": tokens.starts}
    arrays |= {} if tokens.whole is None else {"whole": tokens.whole}
    record = {"pad_id": tokens.pad_id, "frame": tokens.frame, "room": tokens.room, "mask_id": tokens.mask_id}
    for name, array in arrays.items():
        with replacing(_array_path(stem, name)) as file:
            np.save(file, array, allow_pickle=False)
    text = json.dumps({**record, "arrays": list(arrays), "crc32": checksum(arrays)})
    write_atomically(stem.with_suffix(".json"), text.encode())


def _array_path(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}.npy")


# Placeholders that cleaning writes (`<URL>`) as tokens of their own, and embeddings for them.


def add_placeholders(tokenizer, placeholders: Sequence[str]) -> int:
    """Make each placeholder one token, in exactly this spelling; call it before texts are tokenized.

    Returns: how many were new to the tokenizer; then the model needs `fit_embeddings`.
    """
    # not normalised: an uncased tokenizer would look for `<url>`; lstrip: the space before it leaves no token behind
    return tokenizer.add_tokens([AddedToken(name, normalized=False, lstrip=True) for name in placeholders])


def fit_embeddings(model: nn.Module, tokenizer) -> int:
    """Give the model an embedding for every token; a matrix that is large enough stays as it is.

    New rows are drawn around the mean of the known ones: seed torch first. If the model is frozen under adapters, they
    stay as drawn unless the embedding matrix is trained too.
    Returns: how many embeddings were added.
    """
    n_known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > n_known:
        model.resize_token_embeddings(len(tokenizer))
    return max(0, len(tokenizer) - n_known)


# Texts as data: whatever a text spells, no control token comes out of it.
#
# Forums write `<s>` as strike-through, papers write `[SEP]`, and a chat log is full of `<|im_end|>`. A tokenizer would
# make the special token of that name, so that a text could end its own row, or hide a part of itself as padding.

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
    # a tokenizer that adds no space encodes a piece inside a text as one that stands alone
    anchor = _call(tokenizer, [ANCHOR], split_special_tokens)[0] if _adds_a_space(tokenizer) else []
    rows = _call(tokenizer, [(ANCHOR if anchor else "") + piece for piece in pieces], split_special_tokens)
    return [row[len(anchor) :] for row in rows]


def _encode(tokenizer, texts: list[str], at_start: bool) -> list[list[int]]:
    """Encode all texts at once, and those that name a control token again, in parts that do not."""
    control, forbidden = _control_tokens(tokenizer)
    first = _call(tokenizer, texts, True) if at_start else encode_inside(tokenizer, texts, True)
    rows = list(first)
    for i, text in enumerate(texts):
        # split_special_tokens does not help a slow tokenizer whose vocabulary has the name; then the ids show it
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
