"""How fast a fold is trained: ours against Hugging Face's Trainer, on the same model, rows, epochs, batch and rates.

    python bench/train_speed.py                                        # MiniLM, GoEmotions, fold 0, CPU
    python bench/train_speed.py --rows 2000 --epochs 1
    python bench/train_speed.py --device cuda --model roberta-base     # random weights of the real size
    python bench/train_speed.py --device cuda --model qwen2.5-14b --quantization nf4 --rows 7000 --epochs 3

Each side runs in a process of its own, start-up, imports, tokens, weights and the held-out prediction included, one
after the other, once round for each of `--seeds`. Trainer runs twice: as it is (rows shuffled, padded to the longest of
a batch, float32, saving every 500 steps), and with the best its documentation offers (rows grouped by length, bf16 or,
on GPUs without it, fp16, fused AdamW, large evaluation batches, nothing saved). All use the same learning rates, and
the same cut-off rule for macro-F1; macro average precision (AP) needs no cut-offs. Times are medians over the seeds,
scores means.
CPU seconds are beside the wall's, as they hold on a machine that others use too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from train_speed_models import MODELS, save_model, write_run

from competition.tables import load_tables
from ledger.folds import load_folds
from settings.loading import load_competition
from settings.places import find_places

SIDES = {
    "ours": "ours",
    "trainer": "Trainer, as it is",
    "trainer_best": "Trainer, grouped by length, 16 bits",
}
SCORES = ("macro_f1", "macro_ap")
CHILD = Path(__file__).with_name("train_speed_child.py")


def main() -> None:
    args = parse_flags()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        n_train, n_heldout = write_rows(folder / "rows.npz", args)
        texts = np.load(folder / "rows.npz")["texts"].tolist()
        name = save_model(args.model, folder / "model", texts) if args.model != "minilm" else None
        write_run(folder / "run.json", args.model, name, args.epochs, args.batch, args.quantization)
        print(
            f"{args.model} on {args.device}: {n_train} rows x {args.epochs} epochs, {n_heldout} held out, "
            f"batch {args.batch}, seeds {args.seeds}",
            flush=True,
        )
        results = {side: [] for side in args.sides}
        for number, seed in enumerate(args.seeds):
            for side in args.sides:
                results[side].append(run_side(side, folder, args.device, number, seed))
                print(f"  {side}: {json.dumps(results[side][-1])}", flush=True)
    show(results, n_train * args.epochs)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--competition", default="goemotions")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--rows", type=int, default=0, help="training rows drawn from the fold; 0 is all of them")
    parser.add_argument("--heldout", type=int, default=0, help="held-out rows; 0 is the share of --rows")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32, help="rows a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=sorted(MODELS), default="minilm")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none", help="of a decoder's base")
    parser.add_argument("--sides", nargs="+", choices=sorted(SIDES), default=list(SIDES))
    return parser.parse_args()


def write_rows(path: Path, args: argparse.Namespace) -> tuple[int, int]:
    """The texts and labels that every side reads, and how many rows teach and are held out."""
    places = find_places()
    competition = load_competition(places, args.competition)
    tables = load_tables(competition, places.data(args.competition))
    fold = load_folds(places, args.competition, tables, competition).fold
    rng = np.random.default_rng(0)
    train, heldout = np.flatnonzero(fold != args.fold), np.flatnonzero(fold == args.fold)
    if args.rows:
        n_heldout = args.heldout or max(500, len(heldout) * args.rows // len(train))
        train, heldout = rng.permutation(train)[: args.rows], rng.permutation(heldout)[:n_heldout]
    rows = np.concatenate([train, heldout])
    texts = np.array([tables.train_texts[row] for row in rows])
    np.savez(path, texts=texts, labels=tables.labels[rows], names=np.array(tables.label_names), n_train=len(train))
    return len(train), len(heldout)


def run_side(side: str, folder: Path, device: str, number: int, seed: int) -> dict:
    """One process from start to end: seconds of the wall and of the CPU, and what it measured itself."""
    out = folder / f"{side}{number}"
    out.mkdir()
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    started = time.monotonic()
    command = [sys.executable, CHILD, side, folder, out, str(seed)]
    child = subprocess.Popen(command, env={**os.environ, **hidden, "HF_HUB_OFFLINE": "1"})
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"{side} failed, see above")
    found = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return {"seconds": round(seconds, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), **found}


def show(results: dict[str, list[dict]], n_rows: int) -> None:
    """What each side took and scored as a table, and how many times faster ours is."""
    print(f"\n| {'':32} | rows/s | real tokens/s | rows / CPU s | peak GB | macro-F1 | macro-AP | ours is faster by |")
    print("|---|---|---|---|---|---|---|---|")
    summaries = {side: _summary(runs) for side, runs in results.items()}
    for side, run in summaries.items():
        ratio = ""
        if "ours" in summaries and side != "ours":
            ours = summaries["ours"]
            ratio = f"{run['seconds'] / ours['seconds']:.2f}x ({run['cpu_seconds'] / ours['cpu_seconds']:.2f}x CPU)"
        cells = [f"{n_rows / run['seconds']:.1f}", f"{run['tokens'] / run['seconds']:.0f}"]
        cells += [f"{n_rows / run['cpu_seconds']:.1f}", f"{run['peak_gb']:.2f}"]
        cells += [*(f"{run[score]:.4f}" for score in SCORES), ratio]
        print(f"| {SIDES[side]:32} | {' | '.join(cells)} |")


def _summary(runs: list[dict]) -> dict:
    return {key: (statistics.mean if key in SCORES else statistics.median)(run[key] for run in runs) for key in runs[0]}


if __name__ == "__main__":
    main()
