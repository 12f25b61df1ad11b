"""Draw folds: whole groups of rows go to folds so that every fold has every label in the same share.

Two steps: iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) assigns the groups one by one, then `balance`
moves and swaps groups to even out what that leaves. Multiclass is the case of one label per row.
"""

from itertools import combinations

import numpy as np
from scipy.sparse import csr_array, hstack

from foldblend.console import wrapped
from foldblend.errors import UserError
from foldblend.folding.duplicates import LARGEST_GROUP, LARGEST_SHARE, group_texts, join_groups

# ---------- texts and labels in, folds and groups out.


RARE_GROUPS_PER_FOLD = 10
"""If a label has fewer groups per fold than this, its groups are evened out as well as its rows."""


def draw_folds(
    texts: list[str],
    labels: np.ndarray,
    n_folds: int = 5,
    seed: int = 42,
    near_duplicates: float = 0.8,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Group texts that say the same, and assign every group to one fold.

    Args:    texts: N texts.   labels: bool (N, L).   seed: of the folds; the groups do not depend on it.
             near_duplicates: as for `group_texts`.
             groups: (N,) str, rows with the same one share a fold, too; an empty one is a row by itself.
    Returns: fold int64 (N,), 0..n_folds-1; group int64 (N,), 0..G-1, rows of one group share a fold.
    Example: draw_folds(["good", "Good!", "bad", "so so"], np.ones((4, 1), bool), n_folds=3)[1] -> [0, 0, 1, 2]
    Raises:  UserError: as `stratify`.
    """
    group = group_texts(texts, near_duplicates)
    if groups is not None:
        group = join_groups(group, groups)
    return stratify(labels, group, n_folds, seed), group


def stratify(labels: np.ndarray, group: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Assign whole groups to folds with even shares of each label, of rows without a label, and of rows.

    A label with fewer groups than folds is put into as many folds as it has groups.
    Args:    labels: bool (N, L).   group: int64 (N,), 0..G-1.
    Returns: fold int64 (N,), 0..n_folds-1.
    Raises:  UserError: fewer groups than folds.
    Source:  Sechidis, Tsoumakas, Vlahavas 2011, "On the Stratification of Multi-Label Data".
    """
    n_labels = labels.shape[1]
    columns = _count_columns(labels, group)  # (G, L + 2)
    _check_enough(columns.shape[0], n_folds)
    # Groups with equal columns are interchangeable, so they are balanced as kinds: S of them, far fewer than G.
    kind, kinds = _find_kinds(columns, seed)  # (G,), (S, L + 2)
    start = _stratify_groups(columns[:, :-1], n_folds, seed)  # (G,)
    counts = np.zeros((kinds.shape[0], n_folds), dtype=np.int64)  # (S, K)
    np.add.at(counts, (kind, start), 1)
    # the iterative start is random in its ties; what it leaves uneven is up to several percent for rare labels
    counts = balance(_add_presence(kinds, counts, n_labels), counts)
    return _assign(kind, counts, seed)[group]  # (N,)


def _count_columns(labels: np.ndarray, group: np.ndarray) -> csr_array:
    """int64 (G, L + 2): per group the positives of each label, the rows without a label, the rows."""
    n, n_labels = labels.shape
    row, column = np.nonzero(labels)
    empty = np.flatnonzero(~labels.any(axis=1))
    rows = np.concatenate([row, empty, np.arange(n)])
    columns = np.concatenate([column, np.full(len(empty), n_labels), np.full(n, n_labels + 1)])
    shape = (int(group.max()) + 1 if n else 0, n_labels + 2)
    counted = csr_array((np.ones(len(rows), dtype=np.int64), (group[rows], columns)), shape=shape)
    counted.sum_duplicates()
    return counted


def _check_enough(n_groups: int, n_folds: int) -> None:
    """Every fold can get a group."""
    if n_groups < n_folds:
        raise UserError(
            f"the training file: {n_groups} group{'s' * (n_groups > 1)} of distinct texts cannot fill {n_folds} folds; "
            f"{f'lower n_folds to {n_groups}' if n_groups > 1 else f'expected {n_folds} or more. Correct the texts'}, "
            "raise near_duplicates if different texts were joined, or remove groups if it is set"
        )


def _find_kinds(columns: csr_array, seed: int) -> tuple[np.ndarray, csr_array]:
    """Number the distinct rows: each group's kind int64 (G,), and the kinds (S, C).

    Rows are compared by a dot product with 62 random bits per column, which costs less than sorting sparse rows.
    """
    code = np.random.default_rng(seed).integers(1, 1 << 62, columns.shape[1], dtype=np.uint64)
    _, first, kind = np.unique(columns.astype(np.uint64) @ code, return_index=True, return_inverse=True)
    return kind, columns[first]


def _stratify_groups(columns: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """Each group's fold (G,) to start from; `no label` is a column of its own, so such rows are spread too."""
    present = columns.toarray() > 0
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # loads scikit-learn: seconds

    splitter = MultilabelStratifiedKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(present), dtype=np.int64)
    for k, (_, heldout) in enumerate(splitter.split(np.zeros(len(present)), present)):
        fold[heldout] = k
    return fold


def _add_presence(kinds: csr_array, counts: np.ndarray, n_labels: int) -> csr_array:
    """Add a column per rare label that counts its groups: many copies in one fold do not help the other folds."""
    presence = (kinds[:, :n_labels] > 0).astype(np.int64)
    size = counts.sum(axis=1)
    groups, rows = size @ presence, size @ kinds[:, :n_labels]
    rare = np.flatnonzero((groups < rows) & (groups < RARE_GROUPS_PER_FOLD * counts.shape[1]))
    return csr_array(hstack([kinds, presence[:, rare]]))


def _assign(kind: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Each group's fold (G,): of kind s, `counts[s, k]` groups drawn by the seed go to fold k."""
    # which groups of a kind go to which fold is chance, and nothing else is left to it
    shuffled = np.random.default_rng(seed).permutation(len(kind))
    order = shuffled[np.argsort(kind[shuffled], kind="stable")]
    fold = np.empty(len(kind), dtype=np.int64)
    fold[order] = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return fold


# ---------- balance: make folds more even by moving and swapping whole groups, until no single step helps.


CANDIDATES = 256
"""Kinds per side that a step compares, the best first by what moving one alone would gain."""
MAX_STEPS = 20_000
"""Enough for a million rows; every step makes the folds strictly more even, so this only bounds the time."""


def balance(kinds: csr_array, counts: np.ndarray) -> np.ndarray:
    """Lower the sum over folds and columns of (count - ideal)^2 / ideal, where ideal is a column's total / n_folds.

    Args:    kinds: int64 (S, C); what one group of kind s adds to each column.
             counts: int64 (S, K); how many groups of each kind each fold has.
    Returns: int64 (S, K) with the same row sums.
    """
    counts = counts.copy()
    kinds = csr_array(kinds, dtype=np.float64)
    total = counts.sum(axis=1) @ kinds  # (C,)
    n_folds = counts.shape[1]
    # a deviation of one row counts more in a rare label: chi-squared
    weight = n_folds / np.maximum(total, 1)  # (C,): 1 / ideal
    excess = counts.T @ kinds - total / n_folds  # (K, C)
    own = (kinds * kinds) @ weight  # (S,): half of what a move costs by itself
    pairs = list(combinations(range(n_folds), 2))
    idle, steps = 0, 0
    # pairs of folds in turn, as a step between two of them may open one between two others
    while idle < len(pairs) and steps < MAX_STEPS:  # done when no pair of folds has a step that helps
        step = _best_step(kinds, counts, weight, own, excess, *pairs[steps % len(pairs)])
        idle = 0 if step else idle + 1
        steps += 1
        if step:
            _take(step, kinds, counts, excess)
    return counts


def _best_step(kinds, counts, weight, own, excess, a: int, b: int):
    """The move or swap between folds a and b that gains most: (kind from a or -1, kind from b or -1, a, b).

    Moving a group x from a to b changes half the sum by own(x) - pull(x), where pull is how much more a has of x's
    columns than b. A swap is two moves, less 2 * (x * weight) @ y for the columns that both groups share.
    """
    # the derivative of the sum by moving one group: linear in its columns, so one product gives it for all kinds
    pull = kinds @ (weight * (excess[a] - excess[b]))  # (S,)
    # all pairs of kinds would be S**2: a good swap consists of moves that are nearly good alone
    from_a = _choose(own - pull, counts[:, a])
    from_b = _choose(own + pull, counts[:, b])
    shared = ((kinds[from_a] * weight) @ kinds[from_b].T).toarray()
    change = np.zeros((len(from_a) + 1, len(from_b) + 1))  # the last row and column stand for `nothing`
    change[:-1, :] += (own - pull)[from_a][:, None]
    change[:, :-1] += (own + pull)[from_b][None, :]
    change[:-1, :-1] -= 2 * shared
    i, j = np.unravel_index(np.argmin(change), change.shape)
    if change[i, j] > -1e-9:  # rounding must not make two folds swap for ever
        return None
    return (from_a[i] if i < len(from_a) else -1), (from_b[j] if j < len(from_b) else -1), a, b


def _choose(cost: np.ndarray, available: np.ndarray) -> np.ndarray:
    """Kinds that the fold has, at most CANDIDATES of the cheapest."""
    there = np.flatnonzero(available > 0)
    if len(there) <= CANDIDATES:
        return there
    return there[np.argpartition(cost[there], CANDIDATES)[:CANDIDATES]]


def _take(step, kinds, counts, excess) -> None:
    """Change `counts` and `excess` in place."""
    from_a, from_b, a, b = step
    for kind, source, target in ((from_a, a, b), (from_b, b, a)):
        if kind >= 0:
            counts[kind, source] -= 1
            counts[kind, target] += 1
            row = kinds[[kind]].toarray()[0]
            excess[source] -= row
            excess[target] += row


# ---------- what make_folds.py prints: counts per fold, deviations, texts with contradictory labels.


SHOWN_CONFLICTS = 3
SHOWN_CHARACTERS = 60
COMMON_ROWS = 200
"""A label's rate is judged from this many rows on; below it one row is more than half a percent."""


def rate_deviation(labels: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """How far each label's rate in each fold is from its rate in all rows.

    Args:    labels: bool (N, L).   fold: int64 (N,).
    Returns: float64 (n_folds, L), relative: 0.02 is 2 % more or less; 0 for a label without a positive.
    """
    rates = np.stack([labels[fold == k].mean(axis=0) for k in range(n_folds)])
    overall = labels.mean(axis=0)
    return np.divide(np.abs(rates - overall), overall, out=np.zeros_like(rates), where=overall > 0)


def describe_folds(
    labels: np.ndarray,
    label_names: tuple[str, ...],
    fold: np.ndarray,
    group: np.ndarray,
    n_folds: int,
    width: int = 80,
) -> list[str]:
    """Lines: rows and groups, a table of label counts per fold, and the deviations; none longer than `width`.

    Many folds are shown in several tables, one below the other; a long name of a label loses its end.
    """
    sizes = np.bincount(group)
    deviation = rate_deviation(labels, fold, n_folds)
    lines = [
        f"{len(fold)} rows in {len(sizes)} groups of distinct texts; the largest group has {sizes.max()} "
        f"row{'s' * int(sizes.max() > 1)}"
    ]
    counts = [np.bincount(fold[column], minlength=n_folds) for column in labels.T]  # L times (K,)
    counts += [np.bincount(fold[~labels.any(axis=1)], minlength=n_folds), np.bincount(fold, minlength=n_folds)]
    names = [_shortened(name) for name in (*label_names, "(no label)", "rows")]
    columns = [[f"fold {k}", *(f"{count[k]}" for count in counts)] for k in range(n_folds)]
    totals = ["total", *(f"{count.sum()}" for count in counts)]
    worst = ["deviation", *(f"{off:.2%}" for off in deviation.max(axis=0)), "", ""]
    for block in _fit_columns(["", *names], columns, [totals, worst], width):
        lines += _aligned(block)
    return [*lines, wrapped(_worst(labels, label_names, deviation))]


LONGEST_NAME = 30


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _width(column: list[str]) -> int:
    return max(map(len, column)) + 2


def _fit_columns(names: list[str], columns: list[list[str]], last: list[list[str]], width: int) -> list[list]:
    """Tables, as lists of columns, that each begin with the names and fit the width; `last` ends the last one."""
    blocks, used = [[names]], max(map(len, names))
    free = width - used
    for column in columns:
        if sum(map(_width, [*blocks[-1][1:], column])) > free and len(blocks[-1]) > 1:
            blocks.append([names])
        blocks[-1].append(column)
    if sum(map(_width, [*blocks[-1][1:], *last])) > free and len(blocks[-1]) > 1:
        blocks.append([names])
    blocks[-1] += last
    return blocks


def _aligned(block: list[list[str]]) -> list[str]:
    """The lines of a table: names on the left, numbers under each other."""
    names, *columns = block
    width, widths = max(map(len, names)), list(map(_width, columns))
    rows = zip(*columns, strict=True)
    return [
        (f"{name:{width}}" + "".join(f"{cell:>{own}}" for cell, own in zip(cells, widths, strict=True))).rstrip()
        for name, cells in zip(names, rows, strict=True)
    ]


SHOWN_OF_GROUP = 3


def describe_large_groups(group: np.ndarray, ids: np.ndarray, texts: list[str]) -> list[str]:
    """Sentences on groups that hold a large share of the rows, each with some of its texts; none without any.

    Args: group: int64 (N,), 0..G-1.   ids: (N,) str.   texts: N.
    """
    sizes = np.bincount(group)
    most = max(LARGEST_GROUP, LARGEST_SHARE * len(group))
    lines = []
    for large in sorted(np.flatnonzero(sizes > most), key=lambda number: -sizes[number])[:SHOWN_CONFLICTS]:
        rows = np.flatnonzero(group == large)
        shown = rows[np.linspace(0, len(rows) - 1, min(SHOWN_OF_GROUP, len(rows))).astype(int)]
        examples = "; ".join(f"{str(ids[row])!r} {texts[row][-SHOWN_CHARACTERS:]!r}" for row in shown)
        lines.append(
            f"{len(rows)} of {len(group)} rows ({len(rows) / len(group):.0%}) are one group and share a fold, as they "
            f"count as the same text: {examples}. If they are not, raise near_duplicates (1.0 joins equal texts only)"
        )
    return lines


def _worst(labels: np.ndarray, label_names: tuple[str, ...], deviation: np.ndarray) -> str:
    common = np.flatnonzero(labels.sum(axis=0) >= COMMON_ROWS)
    if not len(common):
        return f"Label rates in a fold differ from those of all rows by at most {deviation.max():.2%}"
    worst = common[np.argmax(deviation[:, common].max(axis=0))]
    most, mean = deviation[:, worst].max(), deviation[:, common].mean()
    return (
        f"Label rates in a fold differ from those of all rows by at most {most:.2%} ({label_names[worst]}), "
        f"{mean:.2%} on average (labels with {COMMON_ROWS} or more rows)"
    )


def describe_conflicts(
    conflicts: list[np.ndarray], ids: np.ndarray, texts: list[str], labels: np.ndarray, label_names: tuple[str, ...]
) -> list[str]:
    """Lines: how many texts appear with different labels, and the first of them."""
    if not conflicts:
        return ["No text appears twice with different labels"]
    rows = sum(len(conflict) for conflict in conflicts)
    lines = [f"{len(conflicts)} texts ({rows} rows) appear with different labels and share a fold. The first:"]
    for conflict in conflicts[:SHOWN_CONFLICTS]:
        first = conflict[0]
        other = next(row for row in conflict if (labels[row] != labels[first]).any())
        for row in (first, other):
            names = ", ".join(name for name, has in zip(label_names, labels[row], strict=True) if has) or "(no label)"
            lines.append(wrapped(f"  {str(ids[row])!r} {texts[row][:SHOWN_CHARACTERS]!r}: {names}", indent="      "))
    return lines


KEPT_PER_LABEL = 10
"""A sample keeps so many rows of each label, or all of them."""


def sample_rows(rows: np.ndarray, labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of training rows: the same for the same seed, a larger share holds a smaller one, no label is lost.

    Args:    rows: int64 (n,), rising.   labels: bool (N, L), of all rows.   share: more than 0, at most 1.
    Returns: int64 (m,), rising; all rows for a share of 1.
    """
    if share == 1:
        return rows
    order = np.random.default_rng([seed, len(rows)]).permutation(rows)
    kept = np.zeros(len(labels), bool)
    kept[order[: max(1, round(share * len(rows)))]] = True
    for label in range(labels.shape[1]):
        with_label = order[labels[order, label]]
        kept[with_label[:KEPT_PER_LABEL]] = True
    return np.flatnonzero(kept)
