"""How even and how clean are our folds on real tweets, against what a competitor would reach for instead?

python bench/fold_quality.py [--n-folds 5] [--seeds 3] [--copies 1]

GoEmotions' 43,410 training rows from data/goemotions, fetched as any command does. `--copies 3` stacks three copies
whose words are shuffled, for the time at 130,000 rows. Writes nothing into the project.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import KFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldblend.data.fetch import ensure_data
from foldblend.data.tables import load_tables
from foldblend.folding.draw import COMMON_ROWS, rate_deviation, stratify
from foldblend.folding.duplicates import group_texts
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import find_paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=1)
    flags = parser.parse_args()
    texts, labels, names = load_rows(flags.copies)
    started = time.perf_counter()
    group = group_texts(texts, 0.8)
    grouping = time.perf_counter() - started
    crossing = np.bincount(group)[group] > 1
    print(f"{len(texts)} rows, {group.max() + 1} groups of distinct texts, {crossing.sum()} rows have a copy")
    print(f"grouping alone: {grouping:.1f} s\n")
    print("folds                        seconds   max dev  mean dev  counts >= 1 off   rows in torn groups")
    for name, draw in strategies(labels, names, group, flags.n_folds).items():
        rows = [measure(draw, seed, labels, group, flags.n_folds) for seed in range(flags.seeds)]
        seconds, worst, mean, off, torn = np.mean(rows, axis=0)
        seconds += grouping if name == "ours" else 0
        print(f"{name:27} {seconds:8.1f}  {worst:8.2%}  {mean:8.2%}  {off:15.1f}   {torn:19.0f}")
    print(
        f"\ndev: relative deviation of a fold's label rate from all rows, labels of {COMMON_ROWS}+ rows; mean of seeds."
    )
    print("counts off: labels (of all) with a fold that is one row or more away from its exact share.")


def load_rows(copies: int) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    paths = find_paths()
    competition = load_competition(paths, "goemotions")
    ensure_data("goemotions", competition, paths)
    tables = load_tables(competition, paths.data("goemotions"))
    rng = np.random.default_rng(0)
    texts = list(tables.train_texts)
    for _ in range(copies - 1):
        texts += [" ".join(rng.permutation(text.split())) for text in tables.train_texts]
    return texts, np.tile(tables.labels, (copies, 1)), tables.label_names


def strategies(labels, names, group, n_folds):
    """Name -> a draw by seed; what a notebook would write in three lines, and ours."""

    def ours(seed):
        return stratify(labels, group, n_folds, seed)

    def iterative(seed):
        return by_splitter(MultilabelStratifiedKFold(n_folds, shuffle=True, random_state=seed), labels)

    def plain(seed):
        return by_splitter(KFold(n_folds, shuffle=True, random_state=seed), labels)

    return {"ours": ours, "iterative-stratification": iterative, "sklearn KFold": plain}


def by_splitter(splitter, labels: np.ndarray) -> np.ndarray:
    fold = np.empty(len(labels), dtype=np.int64)
    for k, (_, heldout) in enumerate(splitter.split(labels, labels)):
        fold[heldout] = k
    return fold


def measure(draw, seed: int, labels: np.ndarray, group: np.ndarray, n_folds: int) -> tuple[float, ...]:
    started = time.perf_counter()
    fold = draw(seed)
    seconds = time.perf_counter() - started
    deviation = rate_deviation(labels, fold, n_folds)[:, labels.sum(axis=0) >= COMMON_ROWS]
    counts = np.stack([labels[fold == k].sum(axis=0) for k in range(n_folds)])
    off = (np.abs(counts - counts.mean(axis=0)).max(axis=0) >= 1).sum()
    lowest, highest = np.full(group.max() + 1, n_folds), np.zeros(group.max() + 1, dtype=np.int64)
    np.minimum.at(lowest, group, fold)
    np.maximum.at(highest, group, fold)
    return seconds, deviation.max(), deviation.mean(), off, (lowest != highest)[group].sum()


if __name__ == "__main__":
    main()
