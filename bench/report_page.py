"""Time and size of the report on GoEmotions with ten runs: python bench/report_page.py --folder FOLDER

Writes a project into FOLDER, which must not exist: the real texts, the ten real runs of $FOLDBLEND_SHARED/bench with
their folds, and a blend if `--blend` asks for it. Then `report.py` runs on it as a command of its own.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from blend_data import PROJECT, Bench, load_bench

from foldblend.data.fetch import ensure_data
from foldblend.data.tables import load_tables
from foldblend.folding.duplicates import group_same, split_by_fold
from foldblend.ledger.folds import write_folds
from foldblend.ledger.oof import write_fold
from foldblend.predictions import FoldPredictions
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths


def write_goemotions(bench: Bench, root: Path, n_runs: int) -> Paths:
    """A project with GoEmotions' files, the folds that the runs were trained on, and the first runs."""
    paths = Paths(root)
    shutil.copytree(PROJECT / "configs", paths.configs)
    competition = load_competition(paths, "goemotions")
    ensure_data("goemotions", competition, paths)
    tables = load_tables(competition, paths.data("goemotions"))
    if tables.label_names != bench.label_names or not np.array_equal(tables.labels, bench.labels):
        raise ValueError("the rows of the bench data are not those of the competition's files")
    group, _ = split_by_fold(group_same(tables.train_texts)[0], bench.fold)
    folds = write_folds(paths, "goemotions", competition, tables, bench.fold, group, is_adopted=True)
    for run, oof, dev, test in list(zip(bench.runs, bench.oof, bench.dev, bench.test, strict=True))[:n_runs]:
        for fold in range(folds.n_folds):
            rows = np.flatnonzero(folds.fold == fold)
            both = np.concatenate([dev[fold % len(dev)], test[fold % len(test)]])
            predictions = FoldPredictions(fold, rows, oof[rows], both, "logits")
            write_fold(paths, "goemotions", run, folds, tables, predictions, {"settings": {"made": "elsewhere"}})
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--blend", action="store_true", help="blend the runs first")
    given = parser.parse_args()
    if not given.folder.exists():
        write_goemotions(load_bench(), given.folder, given.runs)
        if given.blend:
            run_command(given.folder, "blend")
    seconds = run_command(given.folder, "report")
    page = given.folder / "submissions" / "goemotions" / "report.html"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{seconds:.1f} s, {page.stat().st_size / 1e6:.2f} MB, peak memory {peak:.2f} GB")


def run_command(root: Path, name: str) -> float:
    """Seconds of wall time that one command takes."""
    words = [sys.executable, str(PROJECT / "src" / f"{name}.py"), "--competition", "goemotions"]
    start = time.perf_counter()
    subprocess.run(words, check=True, env={**os.environ, "FOLDBLEND_ROOT": str(root)})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
