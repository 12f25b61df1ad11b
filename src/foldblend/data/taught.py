"""Labels that a model gave to texts, as one .npz in data/<competition>/: our own blend's, or another teacher's.

Labels of a model that has seen a row know that row's answer. So a file of our own models holds one set of labels per
fold: set k is spoken by models that never saw fold k, and a run that trains fold k (that is, without it) reads set k.
A teacher that has seen no row of the competition gives one set for all folds.

An .npz of plain arrays, read by foldblend.npz: texts as utf-8 bytes and where each ends, and a JSON header.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foldblend.errors import UserError, nearest
from foldblend.files import replacing
from foldblend.npz import load_npz, write_npz

FORMAT, VERSION = "taught rows", 1
KINDS = {
    "train": "training rows of the competition, by their ids",
    "test": "test rows of the competition, by their ids",
    "unlabelled": "rows of another file",
    "written": "texts that a teacher wrote; `origins` says after which training row, if after one",
}
MOST_HEADER_BYTES = 1 << 24
NOT_OURS = "Write it again, by src/teach.py"


@dataclass(frozen=True)
class TaughtRows:
    """N rows with labels that a model gave them; L labels, K sets of labels (one per fold, or one for all)."""

    kind: str
    """What rows these are, one of KINDS."""
    ids: list[str]
    """N ids, each once."""
    texts: list[str]
    """N texts as `Tables` has them: template applied, a pair joined by PAIR."""
    label_names: tuple[str, ...]
    """L names."""
    probs: np.ndarray
    """float32 (K, N, L) in [0, 1]; nan is unknown and teaches nothing. Set k is for the training without fold k."""
    weights: np.ndarray
    """float32 (K, N) or (1, N), 0 or more: how much each row counts; a row of weight 0 is not learned."""
    folds_sha256: str = ""
    """`Folds.sha256` of the folds that the sets are for; empty if there is one set for all folds."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """What made the labels: runs and hashes of a blend, or the teacher's model and prompt. Values that JSON can hold,
    no absolute path and no key."""
    contents: list[str] | None = None
    """N texts without the literal words of text.template, as `Tables.compared_texts`; None if they are `texts`."""
    origins: list[str] | None = None
    """N ids of the training rows after which a teacher wrote the texts, "" for none; None if that is nowhere so."""

    @property
    def n_sets(self) -> int:
        """K."""
        return len(self.probs)

    @property
    def compared_texts(self) -> list[str]:
        """What duplicates are looked for in, N texts."""
        return self.texts if self.contents is None else self.contents

    def of_fold(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """The labels that may teach the training without `fold`: probs (N, L) and weights (N,), float32."""
        return self.probs[fold if self.n_sets > 1 else 0], self.weights[fold if len(self.weights) > 1 else 0]


def write_taught(path: Path, competition_name: str, rows: TaughtRows) -> None:
    """Check rows and write them, whole or not at all; equal rows give equal bytes.

    Args:   path: data/<competition>/<name>.npz.
    Raises: ValueError: rows that no reader would take, a fault of the caller.   FileError: see `files.replacing`.
    """
    if problems := find_problems(rows):
        raise ValueError(f"{path}: refused to write: {'; '.join(problems)}")
    header = {
        "format": FORMAT,
        "schema_version": VERSION,
        "competition": competition_name,
        "kind": rows.kind,
        "folds_sha256": rows.folds_sha256,
        "made_by": rows.made_by,
    }
    arrays = {"header": np.frombuffer(json.dumps(header, allow_nan=False, sort_keys=True).encode(), np.uint8)}
    for name in TEXTS:
        values = getattr(rows, name)
        arrays |= _pack(name, values or ())
    arrays |= {"probs": rows.probs.astype(np.float32), "weights": rows.weights.astype(np.float32)}
    with replacing(path) as file:
        write_npz(file, arrays)


TEXTS = ("ids", "texts", "label_names", "contents", "origins")
"""Fields of text, which are stored as bytes and their ends."""
EXPECTED = {
    "header": ("B", (None,)),
    **{name: ("B", (None,)) for name in TEXTS},
    **{f"{name}_ends": ("i", (None,)) for name in TEXTS},
    "probs": ("f", (None, None, None)),
    "weights": ("f", (None, None)),
}


def read_taught(
    path: Path, competition_name: str, label_names: Sequence[str], folds_sha256: str = "", n_folds: int = 0
) -> TaughtRows:
    """Read rows that `write_taught` wrote, with their labels in the order of the competition's.

    Args:   label_names: of the competition; a label that the file does not have comes back as unknown.
            folds_sha256, n_folds: of the competition's folds now.
    Returns: rows whose `label_names` are those given.
    Raises: UserError: no such file, damaged, of another competition, with labels that the competition does not have,
            or made on other folds than those of now.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; expected the .npz that src/teach.py writes into that folder")
    arrays = load_npz(path, EXPECTED)
    header = _read_header(path, arrays["header"], competition_name)
    texts = {name: _unpack(path, name, arrays[name], arrays[f"{name}_ends"]) for name in TEXTS}
    rows = TaughtRows(
        header["kind"],
        texts["ids"],
        texts["texts"],
        tuple(texts["label_names"]),
        arrays["probs"],
        arrays["weights"],
        header["folds_sha256"],
        header["made_by"],
        texts["contents"] or None,
        texts["origins"] or None,
    )
    if problems := find_problems(rows):
        raise UserError(f"{path}: {'; '.join(problems)}. {NOT_OURS}")
    _check_folds(path, rows, folds_sha256, n_folds)
    return _in_order(path, rows, tuple(label_names))


def find_problems(rows: TaughtRows) -> list[str]:
    """Sentences on what is wrong with rows; none if they may be written and learned from."""
    n, n_labels = len(rows.texts), len(rows.label_names)
    if rows.kind not in KINDS:
        return [f"kind is {rows.kind!r}; expected {', '.join(KINDS)}"]
    problems = ["there are no rows"] if not n else []
    if len(set(rows.ids)) != len(rows.ids):
        problems.append(f"{len(rows.ids) - len(set(rows.ids))} ids are there twice")
    if len(set(rows.label_names)) != n_labels or not n_labels:
        problems.append(f"the labels are {list(rows.label_names)[:8]}; expected one or more names, each once")
    for name in ("ids", "contents", "origins"):
        values = getattr(rows, name)
        if values is not None and len(values) != n:
            problems.append(f"{name} has {len(values)} entries for {n} texts")
    if rows.probs.ndim != 3 or rows.probs.shape[1:] != (n, n_labels) or not len(rows.probs):
        return [*problems, f"probs is {rows.probs.shape}; expected (sets, {n} rows, {n_labels} labels)"]
    if rows.weights.ndim != 2 or rows.weights.shape not in ((1, n), (rows.n_sets, n)):
        return [*problems, f"weights is {rows.weights.shape}; expected (1, {n}) or ({rows.n_sets}, {n})"]
    if not ((rows.probs >= 0) & (rows.probs <= 1) | np.isnan(rows.probs)).all():
        problems.append("probs holds values outside [0, 1]")
    if not (np.isfinite(rows.weights) & (rows.weights >= 0)).all():
        problems.append("weights holds values that are not finite, or less than 0")
    if (rows.n_sets > 1) != bool(rows.folds_sha256):
        problems.append(f"{rows.n_sets} sets of labels with folds_sha256 {rows.folds_sha256!r}; expected it with sets")
    return problems


def _read_header(path: Path, data: np.ndarray, competition_name: str) -> dict[str, Any]:
    """The JSON header. Raises: UserError: it is none, of a newer version, or of another competition."""
    try:
        if len(data) > MOST_HEADER_BYTES:
            raise ValueError(f"{len(data):,} bytes")
        header = json.loads(data.tobytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header is not JSON ({error}). {NOT_OURS}") from None
    fields = {"format": str, "schema_version": int, "competition": str, "kind": str, "folds_sha256": str}
    fields["made_by"] = dict
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path}: holds no rows that a model labelled. {NOT_OURS}")
    if not isinstance(header.get("schema_version"), int) or header["schema_version"] > VERSION:
        raise UserError(
            f"{path}: schema_version is {header.get('schema_version')!r}, this version of Foldblend reads up to "
            f"{VERSION}. Update this project: git pull, or pip install -U foldblend"
        )
    wrong = [name for name, kind in fields.items() if not isinstance(header.get(name), kind)]
    if wrong:
        raise UserError(f"{path}: its header has no {', '.join(wrong)}. {NOT_OURS}")
    if header["competition"] != competition_name:
        raise UserError(
            f"{path}: was made for competition {header['competition']!r}, not {competition_name!r}. To learn from "
            "another competition's rows, name it: extra_rows: [{competition: NAME, labels: {...}}]"
        )
    return header


def _check_folds(path: Path, rows: TaughtRows, folds_sha256: str, n_folds: int) -> None:
    """Sets are for the folds of now: otherwise set k may know rows that fold k holds out."""
    if rows.n_sets > 1 and (rows.folds_sha256 != folds_sha256 or rows.n_sets != n_folds):
        raise UserError(
            f"{path}: its labels are for other folds than those in folds/ now, so they would know held-out rows. "
            "Train and blend the runs again on these folds, then run: python src/teach.py --from-blend, or restore the "
            "folds"
        )


def _in_order(path: Path, rows: TaughtRows, label_names: tuple[str, ...]) -> TaughtRows:
    """The rows with the competition's labels in their order; those that the file does not have are unknown."""
    if foreign := [name for name in rows.label_names if name not in label_names]:
        raise UserError(
            f"{path}: labels that the competition does not learn: {', '.join(foreign[:8])}"
            f"{nearest(foreign[0], label_names)}"
        )
    probs = np.full((*rows.probs.shape[:2], len(label_names)), np.nan, np.float32)
    probs[:, :, [label_names.index(name) for name in rows.label_names]] = rows.probs
    return TaughtRows(**{**vars(rows), "label_names": label_names, "probs": probs})


def _pack(name: str, values: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as utf-8 bytes, end to end, and int64 (n,), where each ends."""
    encoded = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = np.cumsum([len(each) for each in encoded], dtype=np.int64) if encoded else np.zeros(0, np.int64)
    return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_ends": ends}


def _unpack(path: Path, name: str, data: np.ndarray, ends: np.ndarray) -> list[str]:
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    if (ends < starts).any() or (int(ends[-1]) if len(ends) else 0) != len(data):
        raise UserError(f"{path}: the ends of {name} do not fit its {len(data):,} bytes; damaged. {NOT_OURS}")
    whole = data.tobytes()
    try:
        return [whole[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts.tolist(), ends.tolist())]
    except UnicodeDecodeError:
        raise UserError(f"{path}: {name} holds bytes that are not utf-8; damaged. {NOT_OURS}") from None
