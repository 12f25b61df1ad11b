"""What unlabelled rows are worth: GoEmotions with 2,000 labelled rows, the rest of its training rows without labels.

    python bench/more_rows.py                                            # hours on 2 cores
    python bench/more_rows.py --rows 600 --unlabelled 2000 --seeds 0 --run tfidf --teachers tfidf nbsvm    # a rehearsal

Each seed draws other labelled rows, stratified by labels, and trains anew: `alone`, the run on the labelled rows;
`pseudo`, with the surest labels of a blend of --teachers for the unlabelled rows; `distilled`, with all probabilities
of that blend, at a temperature. Macro-F1 of the official dev and test rows, their mean, thresholds tuned on OOF rows.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "bench")]

from score_submission import load_truth, score_submission  # noqa: E402

from foldblend.data.fetch import TRUTH, ensure_data  # noqa: E402
from foldblend.data.tables import load_tables  # noqa: E402
from foldblend.settings.loading import load_competition  # noqa: E402
from foldblend.settings.paths import Paths  # noqa: E402

VARIANTS = {
    "alone": "",
    "pseudo": "extra_rows: [{file: sure.npz, share: 0.8, hard_labels: true}]",
    "distilled": "extra_rows: [{file: all.npz, share: 0.8}]\ndistillation: {loss: bce, temperature: 2}",
}
LINEAR = {"distilled": "extra_rows: [{file: all.npz, share: 0.8}]"}
"""The same for learners that take no steps, and so have no temperature."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000, help="labelled rows")
    parser.add_argument("--unlabelled", type=int, default=0, help="unlabelled rows; 0 is all others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run", default="minilm", help="the student, a file in configs/runs/")
    parser.add_argument("--teachers", nargs="+", default=["tfidf", "nbsvm", "minilm"], help="the runs of the blend")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--keep", type=float, default=0.5, help="share of each label's surest rows, for `pseudo`")
    args = parser.parse_args()
    scores: dict[str, list[float]] = {name: [] for name in args.variants}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for name, score in run_seed(Path(folder), args, seed).items():
                scores[name].append(score)
                print(f"seed {seed}, {name}: macro-F1 {score:.4f}", flush=True)
    for name, found in scores.items():
        gains = np.array(found) - np.array(scores[args.variants[0]])
        error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else float("nan")
        print(f"{name:10} mean {np.mean(found):.4f}  against {args.variants[0]} {gains.mean():+.4f} (s.e. {error:.4f})")


def run_seed(root: Path, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Macro-F1 of each variant, the mean of dev and test."""
    paths = Paths(root)
    write_project(paths, args, seed)
    command(paths, "train_all.py", "--runs", *args.teachers, "--seed", str(seed))
    found = sorted(each.name for each in paths.oof("part").iterdir())
    command(paths, "blend.py", "--runs", *found)
    for name, keep in (("sure", args.keep), ("all", 1.0)):
        rows = ["--rows", "unlabelled.csv", "--keep", str(keep), "--name", name]
        command(paths, "teach.py", "--from-blend", *rows)
    scores = {}
    for name in args.variants:
        command(paths, "train.py", "--run", name, "--seed", str(seed), "--name", name)
        command(paths, "blend.py", "--runs", name)
        scores[name] = score_newest(paths)
    return scores


def write_project(paths: Paths, args: argparse.Namespace, seed: int) -> None:
    """Competition `part` with the labelled and the unlabelled rows, and a run for each variant."""
    source = PROJECT / "configs"
    for folder in ("runs", "competitions"):
        (paths.configs / folder).mkdir(parents=True)
        for path in (source / folder).glob("*.yaml"):
            (paths.configs / folder / path.name).write_text(path.read_text())
    (paths.configs / "default.yaml").write_text((source / "default.yaml").read_text())
    competition = load_competition(paths, "goemotions")
    ensure_data("goemotions", competition, paths)
    whole, part = paths.data("goemotions"), paths.data("part")
    tables = load_tables(competition, whole)
    rng = np.random.default_rng(seed)
    labelled = draw_stratified(tables.labels, args.rows, rng)
    others = rng.permutation(np.setdiff1d(np.arange(len(tables.labels)), labelled))[: args.unlabelled or None]
    part.mkdir(parents=True)
    header, *rows = read_csv(whole / "train.csv")
    keep = [header.index(name) for name in ("id", "text")]
    write_csv(part / "train.csv", [header, *(rows[k] for k in labelled)])
    write_csv(part / "unlabelled.csv", [["id", "text"], *([rows[k][i] for i in keep] for k in others)])
    for name in ("test.csv", "sample_submission.csv", TRUTH):
        (part / name).write_bytes((whole / name).read_bytes())
    yaml = (paths.configs / "competitions" / "goemotions.yaml").read_text().replace("source: goemotions", "kaggle: ''")
    (paths.configs / "competitions" / "part.yaml").write_text(yaml)
    takes_steps = "training:" in (source / "runs" / f"{args.run}.yaml").read_text()
    for name, text in VARIANTS.items():
        text = text if takes_steps else LINEAR.get(name, text)
        (paths.configs / "runs" / f"{name}.yaml").write_text(f"base: {args.run}\n{text}\n")


def draw_stratified(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows, rising: of 1,000 draws the one in which each label's count is nearest to its share of all rows."""
    wanted = labels.mean(axis=0) * n
    draws = [np.sort(rng.permutation(len(labels))[:n]) for _ in range(1_000)]
    return min(draws, key=lambda rows: float((np.abs(labels[rows].sum(axis=0) - wanted) / np.sqrt(wanted)).max()))


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def command(paths: Paths, name: str, *flags: str) -> None:
    """Run a command of the project; what it said is shown if it failed."""
    words = [sys.executable, str(PROJECT / "src" / name), "--competition", "part", *flags]
    env = {**os.environ, "FOLDBLEND_ROOT": str(paths.root)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def score_newest(paths: Paths) -> float:
    competition = load_competition(paths, "part")
    tables = load_tables(competition, paths.data("part"))
    truth, parts = load_truth(competition, tables, paths.data("part") / TRUTH)
    newest = max(paths.submissions("part").glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)
    scores = score_submission(newest, competition, tables, truth, parts)
    return float(np.mean([scores[name]["macro_f1"] for name in ("dev", "test")]))


if __name__ == "__main__":
    main()
