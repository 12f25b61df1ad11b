"""What unlabelled rows are worth: GoEmotions with 2,000 labelled rows, the rest of its training rows without labels.

    python bench/more_rows.py --root FOLDER                              # hours on 2 cores
    python bench/more_rows.py --root FOLDER --rows 600 --unlabelled 2000 --seeds 0 --ways alone distilled  # a rehearsal

Each seed draws other labelled rows, stratified by labels, and trains anew: `alone`, the run on the labelled rows;
`pseudo`, with the surest labels of a blend of --teachers for the unlabelled rows; `distilled`, with all probabilities
of that blend, at a temperature; `pretrained`, which reads all texts before the folds; `both`, the last two together.
Macro-F1 of the official dev and test rows, their mean, thresholds tuned on OOF rows. Finished scores are lines of
FOLDER/scores.jsonl: the same command goes on behind them after a kill.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "bench")]

from score_submission import load_truth, score_submission  # noqa: E402

from foldblend.data.fetch import TRUTH, ensure_data  # noqa: E402
from foldblend.data.tables import load_tables  # noqa: E402
from foldblend.settings.loading import load_competition, load_run  # noqa: E402
from foldblend.settings.paths import Paths  # noqa: E402

DISTILLED = "extra_rows: [{file: all.npz, share: 0.8}]\ndistillation: {loss: bce, temperature: 2}"
PRETRAINED = "pretraining: {epochs: 2, file: unlabelled.csv}"
WAYS = {
    "alone": "",
    "pseudo": "extra_rows: [{file: sure.npz, share: 0.8, hard_labels: true}]",
    "distilled": DISTILLED,
    "pretrained": PRETRAINED,
    "both": f"{DISTILLED}\n{PRETRAINED}",
}
LINEAR = {way: WAYS[way] for way in ("alone", "pseudo")} | {"distilled": "extra_rows: [{file: all.npz, share: 0.8}]"}
"""The same for learners that take no steps, and so have no temperature and no pretraining."""
TAUGHT = {"pseudo": ("sure", 0.5), "distilled": ("all", 1.0), "both": ("all", 1.0)}
"""Way -> the file of teach.py that it reads, and the share of each label's rows that the file keeps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, type=Path, help="a folder of its own, for configs, data and models")
    parser.add_argument("--rows", type=int, default=2_000, help="labelled rows")
    parser.add_argument("--unlabelled", type=int, default=0, help="unlabelled rows; 0 is all others")
    parser.add_argument("--n_folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run", default="minilm", help="the student, a file in configs/runs/")
    parser.add_argument("--teachers", nargs="+", default=["tfidf", "nbsvm"], help="runs of the blend beside it")
    parser.add_argument("--ways", nargs="+", default=[], choices=WAYS, help="by default all that the run has")
    args = parser.parse_args()
    linear = load_run(Paths(PROJECT), args.run).learner in ("tfidf", "nbsvm", "embeddings")
    texts = LINEAR if linear else WAYS
    args.ways = args.ways or list(texts)
    root = args.root.resolve()
    scores = root / "scores.jsonl"
    for seed in args.seeds:
        paths = Paths(root / f"seed{seed}")
        write_project(paths, args, seed, texts)
        for way in args.ways:
            if (seed, way) not in read_scores(scores):
                score = run_way(paths, args, seed, way)
                with scores.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"seed": seed, "way": way, "macro_f1": score}) + "\n")
                print(f"seed {seed}, {way}: macro-F1 {score:.4f}", flush=True)
    print("\n".join(table_lines(read_scores(scores), args.ways)))


def run_way(paths: Paths, args: argparse.Namespace, seed: int, way: str) -> float:
    """Macro-F1 of a student, the mean of dev and test; its teacher is trained first if it has one."""
    if way in TAUGHT:
        file, keep = TAUGHT[way]
        if not (paths.data("part") / f"{file}.npz").is_file():
            for run in args.teachers:
                command(paths, "train_all.py", "--runs", run)
            teachers = [*args.teachers, train(paths, "alone", seed)]
            command(paths, "blend.py", "--runs", *teachers)
            rows = ["--rows", "unlabelled.csv", "--keep", str(keep), "--name", file]
            command(paths, "teach.py", "--from-blend", *rows)
    command(paths, "blend.py", "--runs", train(paths, way, seed))
    return score_newest(paths)


def train(paths: Paths, run: str, seed: int) -> str:
    """All folds of a run, and the name that they have in oof/."""
    command(paths, "train_all.py", "--runs", run, "--seed", str(seed))
    return f"{run}-seed{seed}"


def read_scores(path: Path) -> dict[tuple[int, str], float]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {(each["seed"], each["way"]): each["macro_f1"] for each in map(json.loads, lines)}


def table_lines(scores: dict[tuple[int, str], float], ways: list[str]) -> list[str]:
    """A line for each way: the mean over its seeds, and its gain over the first way on the seeds that both have."""
    lines = []
    for way in ways:
        found = {seed: score for (seed, name), score in scores.items() if name == way}
        gains = np.array([score - scores[seed, ways[0]] for seed, score in found.items() if (seed, ways[0]) in scores])
        error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else float("nan")
        mean = np.mean(list(found.values()))
        lines.append(f"{way:10} {mean:.4f}  gain {gains.mean():+.4f} (s.e. {error:.4f}, {len(gains)} seeds)")
    return lines


def write_project(paths: Paths, args: argparse.Namespace, seed: int, texts: dict[str, str]) -> None:
    """Competition `part` with the labelled and the unlabelled rows, and a run for each way; what is there stays."""
    if (paths.data("part") / "unlabelled.csv").is_file():
        return
    source = PROJECT / "configs"
    for folder in ("runs", "competitions"):
        (paths.configs / folder).mkdir(parents=True, exist_ok=True)
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
    part.mkdir(parents=True, exist_ok=True)
    header, *rows = read_csv(whole / "train.csv")
    keep = [header.index(name) for name in ("id", "text")]
    write_csv(part / "train.csv", [header, *(rows[k] for k in labelled)])
    for name in ("test.csv", "sample_submission.csv", TRUTH):
        (part / name).write_bytes((whole / name).read_bytes())
    text = (paths.configs / "competitions" / "goemotions.yaml").read_text()
    text = text.replace("source: goemotions", "kaggle: ''").replace("n_folds: 5", f"n_folds: {args.n_folds}")
    (paths.configs / "competitions" / "part.yaml").write_text(text)
    for name, text in texts.items():
        (paths.configs / "runs" / f"{name}.yaml").write_text(f"base: {args.run}\n{text}\n")
    write_csv(part / "unlabelled.csv", [["id", "text"], *([rows[k][i] for i in keep] for k in others)])


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
    print(" ".join([name, *flags]), flush=True)
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
