"""All folds of a run one after the other in one process, against side by side in processes of their own.

    python bench/folds_at_once.py                                                         # MiniLM, GoEmotions, CPU
    python bench/folds_at_once.py --device cuda --model qwen2.5-1.5b --side_by_side 5     # on one large GPU

A part of GoEmotions' training rows as a competition of its own in an empty folder; `train.py --fold all` against
`train_all.py`, alternating, start-up, tokens and predictions included. Processes on one GPU take turns unless its
driver's multi-process service (`nvidia-cuda-mps-control -d`) runs.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from train_speed_models import MINILM, MODELS, save_model

from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import find_paths

ROOT = Path(__file__).resolve().parents[1]
LABELS = 10
"""The most frequent ones, so that every fold has some of each."""
NAME, RUN, TEST_ROWS = "part", "run", 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side_by_side", type=int, default=0, help="as train_all.py's; 0 is its own choice")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=sorted(MODELS), default="minilm")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = make_root(Path(folder), args)
        beside = ["--side_by_side", str(args.side_by_side)] if args.side_by_side else []
        commands = {
            "one after the other": ["src/train.py", "--run", RUN, "--fold", "all"],
            "side by side": ["src/train_all.py", "--runs", RUN, *beside],
        }
        seconds = {name: [] for name in commands}
        for _ in range(args.repeats):
            for name, command in commands.items():
                seconds[name].append(run(root, [*command, "--competition", NAME], args.device))
                print(f"  {name}: {seconds[name][-1]:.1f} s", flush=True)
    first, second = (statistics.median(seconds[name]) for name in commands)
    rows = args.rows * (args.folds - 1) * args.epochs
    print(f"| {args.model}, {args.folds} folds | seconds | trained rows/s |\n|---|---|---|")
    print(f"| one after the other, one process | {first:.1f} | {rows / first:.0f} |")
    print(f"| side by side | {second:.1f} | {rows / second:.0f} |\nside by side is {first / second:.2f}x as fast")


def make_root(root: Path, args: argparse.Namespace) -> Path:
    """A folder with the competition and the run; texts and labels are GoEmotions'."""
    paths = find_paths()
    competition = load_competition(paths, "goemotions")
    tables = load_tables(competition, paths.data("goemotions"))
    drawn = np.random.default_rng(0).permutation(len(tables.train_texts))[: args.rows + TEST_ROWS]
    kept = np.argsort(-tables.labels.sum(0))[:LABELS]
    names = [tables.label_names[label] for label in kept]
    data = root / "data" / NAME
    data.mkdir(parents=True)
    for file, rows, labelled in (
        ("train.csv", drawn[: args.rows], True),
        ("test.csv", drawn[args.rows :], False),
        ("sample_submission.csv", drawn[args.rows :], True),
    ):
        with open(data / file, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            with_text = file != "sample_submission.csv"
            writer.writerow(["id", *(["text"] if with_text else []), *(names if labelled else [])])
            for row in rows:
                texts, labels = [tables.train_texts[row]] if with_text else [], tables.labels[row, kept].astype(int)
                writer.writerow([row, *texts, *(labels if labelled else [])])
    for folder, name, content in (
        ("competitions", NAME, {"id_column": "id", "n_folds": args.folds}),
        ("runs", RUN, run_settings(args, root, [tables.train_texts[row] for row in drawn])),
        (".", "default", {"competition": NAME, "run": RUN, "runs": [RUN]}),
    ):
        path = root / "configs" / folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return root


def run_settings(args: argparse.Namespace, root: Path, texts: list[str]) -> dict:
    kind = MODELS[args.model][0]
    model = MINILM if args.model == "minilm" else save_model(args.model, root / "model", texts)
    pooling = {"pooling": "last"} if kind == "decoder" else {}
    training = {"epochs": args.epochs, **({} if model == MINILM else {"collapse_check_after_steps": 0})}
    return {"learner": kind, "model": {"name": model, **pooling}, "training": training}


def run(root: Path, command: list[str], device: str) -> float:
    """Seconds of one command from a state without trained folds or tokens."""
    for folder in ("oof", "checkpoints", "tokens"):
        subprocess.run(["rm", "-rf", root / folder], check=True)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    env = {**os.environ, **hidden, "FOLDBLEND_ROOT": str(root), "HF_HUB_OFFLINE": "1", "GOMP_SPINCOUNT": "2000"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - started


if __name__ == "__main__":
    main()
