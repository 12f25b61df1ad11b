"""Folding room: folds in words and numbers, for the eye that has to trust them."""

import numpy as np

SHOWN_CONFLICTS = 3
SHOWN_CHARACTERS = 60
COMMON_ROWS = 200
"""From this many rows on a label's rate is judged; below it one row is more than half a percent."""


def rate_deviation(labels: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """How far each label's rate in each fold is from its rate in all rows.

    Args:   labels: (N, L) bool.   fold: (N,) int64.
    Returns: float64 (n_folds, L), relative: 0.02 is 2 % more or less; 0 for a label without a positive.
    """
    rates = np.stack([labels[fold == k].mean(axis=0) for k in range(n_folds)])
    overall = labels.mean(axis=0)
    return np.divide(np.abs(rates - overall), overall, out=np.zeros_like(rates), where=overall > 0)


def describe_folds(
    labels: np.ndarray, label_names: tuple[str, ...], fold: np.ndarray, group: np.ndarray, n_folds: int
) -> list[str]:
    """Lines: groups, a table of label counts a fold, and the deviations."""
    sizes = np.bincount(group)
    deviation = rate_deviation(labels, fold, n_folds)
    lines = [f"{len(fold)} rows in {len(sizes)} groups of distinct texts; the largest group has {sizes.max()} rows"]
    width = max(len(name) for name in (*label_names, "(no label)"))
    lines.append(f"{'':{width}}" + "".join(f"  fold {k}" for k in range(n_folds)) + "    total  deviation")
    columns = list(zip(label_names, labels.T, deviation.max(axis=0), strict=True))
    columns += [("(no label)", ~labels.any(axis=1), None), ("rows", np.ones(len(fold), dtype=bool), None)]
    for name, rows, off in columns:
        counts = np.bincount(fold[rows], minlength=n_folds)
        share = "" if off is None else f"{off:10.2%}"
        lines.append(f"{name:{width}}" + "".join(f"{count:8d}" for count in counts) + f"{counts.sum():9d} {share}")
    return [*lines, _worst(labels, label_names, deviation)]


def _worst(labels: np.ndarray, label_names: tuple[str, ...], deviation: np.ndarray) -> str:
    common = np.flatnonzero(labels.sum(axis=0) >= COMMON_ROWS)
    if not len(common):
        return f"largest deviation of a label's rate from its rate in all rows: {deviation.max():.2%}"
    worst = common[np.argmax(deviation[:, common].max(axis=0))]
    return (
        f"deviation of a fold's label rates from all rows, labels of {COMMON_ROWS}+ rows: at most "
        f"{deviation[:, worst].max():.2%} ({label_names[worst]}), mean {deviation[:, common].mean():.2%}"
    )


def describe_conflicts(
    conflicts: list[np.ndarray], ids: np.ndarray, texts: list[str], labels: np.ndarray, label_names: tuple[str, ...]
) -> list[str]:
    """Lines: how many texts stand in the table with different labels, and the first of them."""
    if not conflicts:
        return ["no text stands there twice with different labels"]
    rows = sum(len(conflict) for conflict in conflicts)
    lines = [f"{len(conflicts)} texts ({rows} rows) stand there with different labels; they share a fold. The first:"]
    for conflict in conflicts[:SHOWN_CONFLICTS]:
        first = conflict[0]
        other = next(row for row in conflict if (labels[row] != labels[first]).any())
        for row in (first, other):
            names = ", ".join(name for name, has in zip(label_names, labels[row], strict=True) if has) or "(no label)"
            lines.append(f"  {str(ids[row])!r} {texts[row][:SHOWN_CHARACTERS]!r}: {names}")
    return lines
