"""Rows with rare labels are seen more often; a function of a fold's training rows, so no copy crosses a fold."""

from difflib import get_close_matches

import numpy as np

from settings.augmentation import AugmentationSettings


def oversample(
    rows: np.ndarray,
    labels: np.ndarray,
    label_names: tuple[str, ...],
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Append rows that carry a rare label, or one that the settings name, drawn with replacement.

    Args:    rows: int64 (n,), the fold's training rows.   labels: bool (N, L), of all rows; only `rows` are read.
    Returns: int64 (n + round(factor x rows with a rare label),): `rows`, then the drawn ones; its length does not
             depend on `rng`.
    Raises:  ValueError: no label of a name that the settings say.
    """
    if not settings.oversample_factor:
        return rows
    labels = labels[rows]
    carriers = rows[labels[:, find_rare(labels, label_names, settings)].any(1)]
    if len(carriers) == 0:
        return rows
    drawn = rng.choice(carriers, round(settings.oversample_factor * len(carriers)))
    return np.concatenate([rows, drawn])


def find_rare(labels: np.ndarray, label_names: tuple[str, ...], settings: AugmentationSettings) -> np.ndarray:
    """int64 (R,): the labels named, or the rare ones among those that the training rows (n, L) have.

    Raises as `oversample` does.
    """
    if settings.oversample_labels:
        return np.array([_find_label(name, label_names) for name in settings.oversample_labels])
    counts = labels.sum(0)
    there = np.flatnonzero(counts)
    if settings.oversample_k_rarest:
        return there[np.argsort(counts[there], kind="stable")[: settings.oversample_k_rarest]]
    return there[counts[there] < settings.oversample_rarer_than * len(labels)]


def _find_label(name: str, label_names: tuple[str, ...]) -> int:
    if name not in label_names:
        near = get_close_matches(name, label_names, 1, 0.0)[0]
        raise ValueError(f"augmentation.oversample_labels: there is no label {name!r}; did you mean {near!r}?")
    return label_names.index(name)
