"""The ten real GoEmotions runs in $FOLDBLEND_SHARED/bench, as arrays and as a project."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from foldblend.data.tables import load_tables  # noqa: E402
from foldblend.ledger.folds import write_folds  # noqa: E402
from foldblend.ledger.oof import write_fold  # noqa: E402
from foldblend.predictions import FoldPredictions  # noqa: E402
from foldblend.scoring.inputs import Task  # noqa: E402
from foldblend.settings.loading import load_competition  # noqa: E402
from foldblend.settings.paths import Paths  # noqa: E402


@dataclass(frozen=True)
class Bench:
    """Scores are log-odds; N training rows, D rows of dev and T of test that nothing may be tuned on."""

    runs: tuple[str, ...]
    label_names: tuple[str, ...]
    oof: list[np.ndarray]
    """M arrays (N, L) float32."""
    dev: list[np.ndarray]
    """M arrays (K, D, L): the fold models one by one where they are known, else K = 1, their mean."""
    test: list[np.ndarray]
    """M arrays (K, T, L)."""
    labels: np.ndarray
    dev_labels: np.ndarray
    test_labels: np.ndarray
    fold: np.ndarray


def shared_folder() -> Path:
    """The folder of the bench data. Raises ValueError if it is missing."""
    folder = os.environ.get("FOLDBLEND_SHARED")
    if not folder or not (Path(folder) / "bench" / "goemotions_oof.npz").is_file():
        raise ValueError("bench/goemotions_oof.npz is missing; set FOLDBLEND_SHARED to the folder that has it")
    return Path(folder)


def load_bench() -> Bench:
    """All ten runs; only minilm_ft comes with its fold models."""
    with np.load(shared_folder() / "bench" / "goemotions_oof.npz", allow_pickle=False) as file:
        names = [str(name) for name in file["models"]]
        dev = [_scores(run)[None] for run in file["dev"]]
        test = [_scores(run)[None] for run in file["test"]]
        folded = names.index("minilm_ft")
        dev[folded], test[folded] = _scores(file["minilm_ft_dev_folds"]), _scores(file["minilm_ft_test_folds"])
        labels = [file[key].astype(bool) for key in ("y_oof", "y_dev", "y_test")]
        label_names = tuple(str(name) for name in file["classes"])
        return Bench(
            tuple(names), label_names, [_scores(run) for run in file["oof"]], dev, test, *labels,
            file["fold"].astype(np.int64),
        )  # fmt: skip


def _scores(probs: np.ndarray) -> np.ndarray:
    return Task("macro_f1").to_scores(probs.astype(np.float32), "probs")


def write_project(bench: Bench, root: Path) -> Paths:
    """A project folder with these runs in oof/bench, whose test rows are dev and test together."""
    paths = Paths(root)
    _write_competition(bench, paths)
    competition = load_competition(paths, "bench")
    tables = load_tables(competition, paths.data("bench"))
    folds = write_folds(paths, "bench", competition, tables, bench.fold, np.arange(len(bench.fold)))
    for run, oof, dev, test in zip(bench.runs, bench.oof, bench.dev, bench.test, strict=True):
        for fold in range(folds.n_folds):
            rows = np.flatnonzero(bench.fold == fold)
            both = np.concatenate([dev[fold % len(dev)], test[fold % len(test)]])
            predictions = FoldPredictions(fold, rows, oof[rows], both, "logits")
            write_fold(paths, "bench", run, folds, tables, predictions, {"settings": {"made": "elsewhere"}})
    return paths


def _write_competition(bench: Bench, paths: Paths):
    settings = paths.configs / "competitions" / "bench.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("id_column: id\nmetric: macro_f1\n", encoding="utf-8")
    (paths.configs / "default.yaml").write_text("competition: bench\nrun: none\nruns: [none]\n", encoding="utf-8")
    paths.data("bench").mkdir(parents=True)
    names = ",".join(bench.label_names)
    _write_lines(paths, "train.csv", f"id,text,{names}", _train_lines(bench.labels))
    n_test = len(bench.dev_labels) + len(bench.test_labels)
    _write_lines(paths, "test.csv", "id,text", (f"t{row},test row {row}" for row in range(n_test)))
    zeros = ",".join("0" * len(bench.label_names))
    _write_lines(paths, "sample_submission.csv", f"id,{names}", (f"t{row},{zeros}" for row in range(n_test)))


def _train_lines(labels: np.ndarray):
    for row, cells in enumerate(labels.astype(int).tolist()):
        yield f"r{row},training row {row}," + ",".join(map(str, cells))


def _write_lines(paths: Paths, name: str, header: str, lines):
    text = "\n".join([header, *lines]) + "\n"
    (paths.data("bench") / name).write_text(text, encoding="utf-8")
