"""Folding room: deal groups of rows to folds so that every fold has every label in the same share.

Start: iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) of the groups; then folding/balance.py evens out
what it leaves. Multiclass is the case of one label a row.
"""

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from scipy.sparse import csr_array, hstack

from folding.balance import balance
from folding.duplicates import group_texts
from settings.competition import CompetitionSettings

RARE_GROUPS_PER_FOLD = 10
"""Below this many groups a fold, a label's groups are evened out as well as its rows."""


def draw_folds(
    texts: list[str], labels: np.ndarray, label_names: tuple[str, ...], competition: CompetitionSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Group duplicate texts and deal the groups to folds.

    Args:   labels: (N, L) bool.
    Returns: fold (N,) int64, 0..n_folds-1; group (N,) int64.
    Raises: ValueError: as `stratify`.
    """
    group = group_texts(texts, competition.near_duplicates)
    return stratify(labels, group, label_names, competition.n_folds, competition.fold_seed), group


def stratify(
    labels: np.ndarray, group: np.ndarray, label_names: tuple[str, ...], n_folds: int, seed: int
) -> np.ndarray:
    """Deal whole groups to folds with even shares of each label, of rows without a label, and of rows.

    Args:   labels: (N, L) bool.   group: (N,) int64, 0..G-1.
    Returns: fold (N,) int64, 0..n_folds-1.
    Raises: ValueError: fewer groups than folds, or a label that cannot be in every fold.
    """
    columns = _count_columns(labels, group)  # (G, L + 2)
    _check_enough(columns[:, : labels.shape[1]], label_names, n_folds)
    kind, kinds = _find_kinds(columns, seed)
    start = _stratify_groups(columns[:, :-1], n_folds, seed)
    counts = np.zeros((kinds.shape[0], n_folds), dtype=np.int64)
    np.add.at(counts, (kind, start), 1)
    fold = _deal(kind, balance(_add_presence(kinds, counts, labels.shape[1]), counts), seed)[group]
    _check_every_fold(labels, fold, label_names, n_folds)
    return fold


def _count_columns(labels: np.ndarray, group: np.ndarray) -> csr_array:
    """(G, L + 2) int64: a group's positives of each label, rows without a label, rows."""
    n = len(labels)
    row, column = np.nonzero(labels)
    empty = np.flatnonzero(~labels.any(axis=1))
    rows = np.concatenate([row, empty, np.arange(n)])
    columns = np.concatenate([column, np.full(len(empty), labels.shape[1]), np.full(n, labels.shape[1] + 1)])
    shape = (int(group.max()) + 1 if n else 0, labels.shape[1] + 2)
    counted = csr_array((np.ones(len(rows), dtype=np.int64), (group[rows], columns)), shape=shape)
    counted.sum_duplicates()
    return counted


def _check_enough(positives: csr_array, label_names: tuple[str, ...], n_folds: int) -> None:
    n_groups = positives.shape[0]
    if n_groups < n_folds:
        raise ValueError(
            f"the training file: {n_groups} groups of distinct texts cannot fill {n_folds} folds; lower n_folds, "
            "or raise near_duplicates if different texts were joined"
        )
    groups = np.bincount(positives.indices, minlength=len(label_names))
    rare = [f"{name} ({count})" for name, count in zip(label_names, groups, strict=True) if count < n_folds]
    if rare:
        raise ValueError(
            f"the training file: labels with positives in fewer distinct texts than the {n_folds} folds: "
            f"{', '.join(rare)}. Each fold needs one to be scored on: lower n_folds, add rows, or take the "
            "label out of labels.names"
        )


def _find_kinds(columns: csr_array, seed: int) -> tuple[np.ndarray, csr_array]:
    """Number the distinct rows: (G,) int64 and (S, C). Rows are told apart by 63 random bits a column."""
    code = np.random.default_rng(seed).integers(1, 1 << 62, columns.shape[1], dtype=np.uint64)
    _, first, kind = np.unique(columns.astype(np.uint64) @ code, return_index=True, return_inverse=True)
    return kind, columns[first]


def _stratify_groups(columns: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """(G,) fold of each group; `no label` is a column of its own, so such rows are spread too."""
    present = columns.toarray() > 0
    splitter = MultilabelStratifiedKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(present), dtype=np.int64)
    for k, (_, heldout) in enumerate(splitter.split(np.zeros(len(present)), present)):
        fold[heldout] = k
    return fold


def _add_presence(kinds: csr_array, counts: np.ndarray, n_labels: int) -> csr_array:
    """Add the number of groups of each rare label that has copies: copies in one fold do not serve the others."""
    presence = (kinds[:, :n_labels] > 0).astype(np.int64)
    size = counts.sum(axis=1)
    groups, rows = size @ presence, size @ kinds[:, :n_labels]
    rare = np.flatnonzero((groups < rows) & (groups < RARE_GROUPS_PER_FOLD * counts.shape[1]))
    return csr_array(hstack([kinds, presence[:, rare]]))


def _deal(kind: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """(G,) fold of each group: `counts[s, k]` groups of kind s, drawn by the seed, go to fold k."""
    shuffled = np.random.default_rng(seed).permutation(len(kind))
    order = shuffled[np.argsort(kind[shuffled], kind="stable")]
    fold = np.empty(len(kind), dtype=np.int64)
    fold[order] = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return fold


def _check_every_fold(labels: np.ndarray, fold: np.ndarray, label_names: tuple[str, ...], n_folds: int) -> None:
    for k in range(n_folds):
        absent = np.flatnonzero(~labels[fold == k].any(axis=0))
        if len(absent):
            raise ValueError(
                f"the training file: fold {k} got no row of label {label_names[absent[0]]}: its rows stand together "
                "with those of other rare labels. Lower n_folds, or try another fold_seed"
            )
