"""competition/: probabilities and labels of new texts, as a table, as JSON lines, or to be read."""

import json

import numpy as np

from competition.new_rows import NewRows
from competition.problems import excerpt
from competition.reading import table_bytes

LABELS = "labels"
"""The column of the decided labels, whose names are joined by JOINT."""
JOINT = "|"
SHOWN = 4
"""Labels shown of a text that is printed, the decided ones at least."""


def prediction_bytes(
    rows: NewRows, label_names: tuple[str, ...], probs: np.ndarray, decisions: np.ndarray | None, suffix: str
) -> bytes:
    """All rows as a file of that suffix.

    Args:   probs: float32 (n, L).   decisions: bool (n, L), or None where the metric takes probabilities alone.
            suffix: `.csv`: id (or text, where there are no ids), a column a label, `labels`. `.jsonl`: an object a
            row: `id`, `text`, `probs` by name, `labels`.
    Raises: ValueError: another suffix; label names that a CSV could not hold apart.
    """
    if suffix == ".jsonl":
        return _json_lines(rows, label_names, probs, decisions)
    if suffix != ".csv":
        raise ValueError(f"--output ends in {suffix!r}; expected .csv or .jsonl")
    first = "id" if rows.ids else "text"
    clash = [name for name in label_names if name in (first, LABELS) or JOINT in name]
    if clash:
        raise ValueError(f"label {clash[0]!r} cannot be told apart in a CSV of predictions; write a .jsonl")
    header = [first, *label_names, *([] if decisions is None else [LABELS])]
    named = decided_names(label_names, decisions) if decisions is not None else [None] * len(probs)
    cells = (
        [name, *map(str, row), *([] if labels is None else [JOINT.join(labels)])]
        for name, row, labels in zip(rows.ids or rows.texts, probs, named, strict=True)
    )
    return table_bytes(header, cells)


def decided_names(label_names: tuple[str, ...], decisions: np.ndarray) -> list[list[str]]:
    """Names of each row's labels, in label order."""
    return [[label_names[k] for k in np.flatnonzero(row)] for row in decisions]


def prediction_lines(
    rows: NewRows, label_names: tuple[str, ...], probs: np.ndarray, decisions: np.ndarray | None
) -> list[str]:
    """Two lines a text: the text, and its likeliest labels; `*` stands behind those that are decided."""
    lines = []
    for number, text in enumerate(rows.texts):
        decided = decisions[number] if decisions is not None else np.zeros(len(label_names), bool)
        order = np.lexsort((-probs[number], ~decided))
        shown = order[: max(SHOWN, int(decided.sum()))]
        words = [f"{label_names[k]} {probs[number, k]:.3f}{' *' if decided[k] else ''}" for k in shown]
        lines += [f"{rows.ids[number]}: {excerpt(text)}" if rows.ids else excerpt(text), f"  {', '.join(words)}"]
    return lines


def _json_lines(rows, label_names, probs, decisions) -> bytes:
    named = decided_names(label_names, decisions) if decisions is not None else None
    lines = []
    for number, text in enumerate(rows.texts):
        row = {"id": rows.ids[number]} if rows.ids else {}
        row |= {"text": text, "probs": {name: float(str(p)) for name, p in zip(label_names, probs[number])}}
        row |= {LABELS: named[number]} if named is not None else {}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines).encode()
