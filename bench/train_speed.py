"""How fast a fold is trained: ours against Hugging Face's Trainer, on the same model, rows, epochs, batch and rates.

    python bench/train_speed.py                                        # MiniLM, GoEmotions, fold 0, CPU
    python bench/train_speed.py --rows 2000 --epochs 1
    python bench/train_speed.py --device cuda --model roberta-base     # random weights of the real size
    python bench/train_speed.py --device cuda --model qwen2.5-14b --quantization nf4 --rows 7000 --epochs 3

Each side runs in a process of its own, start-up, imports, tokens, weights and the held-out prediction included, once
for each of `--seeds`. On a CPU the sides take turns of seconds, the others halted, so that a machine that slows down
slows all of them; on a GPU, whose memory they would share, they run one after the other.

Trainer runs twice: as it is (rows shuffled, padded to the longest of a batch, float32, saving every 500 steps), and
with the best its documentation offers (rows grouped by length, bf16 or, on GPUs without it, fp16, fused AdamW, large
evaluation batches, nothing saved). All use the same learning rates, and the same cut-off rule for macro-F1; macro
average precision (AP) needs no thresholds. Times are medians over the seeds, scores means. CPU seconds are beside the
wall's, as they hold on a machine that others use too.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from train_speed_models import MODELS, save_model, write_run

from foldblend.data.tables import load_tables
from foldblend.ledger.folds import load_folds
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import find_paths

SIDES = {
    "ours": "ours",
    "trainer": "Trainer, as it is",
    "trainer_best": "Trainer, grouped by length, 16 bits",
}
TURNS = {"ours": 4.0, "trainer": 20.0, "trainer_best": 6.0}
"""Seconds, about in proportion to what each takes, so that they also end about together."""

POLL_SECONDS = 0.02
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
            for together in [args.sides] if args.device == "cpu" else [[side] for side in args.sides]:
                for side, result in run_sides(together, folder, args.device, number, seed).items():
                    results[side].append(result)
                    print(f"  {side}: {json.dumps(result)}", flush=True)
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
    paths = find_paths()
    competition = load_competition(paths, args.competition)
    tables = load_tables(competition, paths.data(args.competition))
    fold = load_folds(paths, args.competition, tables, competition).fold
    rng = np.random.default_rng(0)
    train, heldout = np.flatnonzero(fold != args.fold), np.flatnonzero(fold == args.fold)
    if args.rows:
        n_heldout = args.heldout or max(500, len(heldout) * args.rows // len(train))
        train, heldout = rng.permutation(train)[: args.rows], rng.permutation(heldout)[:n_heldout]
    rows = np.concatenate([train, heldout])
    texts = np.array([tables.train_texts[row] for row in rows])
    np.savez(path, texts=texts, labels=tables.labels[rows], names=np.array(tables.label_names), n_train=len(train))
    return len(train), len(heldout)


def run_sides(names: list[str], folder: Path, device: str, number: int, seed: int) -> dict[str, dict]:
    """Processes from start to end, in turns: seconds each had of the wall and of the CPU, and what it measured."""
    sides = [Side(name, folder / f"{name}{number}", device, seed) for name in names]
    try:
        while any(side.usage is None for side in sides):
            for side in sides:
                if side.usage is None:
                    side.take_turn(TURNS[side.name] if len(sides) > 1 else math.inf)
    finally:
        for side in sides:
            side.end()
    return {side.name: side.result() for side in sides}


class Side:
    """One side's process, halted but for its turns."""

    def __init__(self, name: str, out: Path, device: str, seed: int):
        out.mkdir()
        self.name, self.out, self.child, self.usage, self.seconds = name, out, None, None, 0.0
        self.command = [sys.executable, CHILD, name, out.parent, out, str(seed)]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        self.env = {**os.environ, **hidden, "HF_HUB_OFFLINE": "1"}

    def take_turn(self, seconds: float) -> None:
        """Run for `seconds`, or to the end. Raises SystemExit where the process failed."""
        started = time.monotonic()
        if self.child is None:
            self.child = subprocess.Popen(self.command, env=self.env)
        else:
            os.kill(self.child.pid, signal.SIGCONT)
        status = None
        while status is None and time.monotonic() - started < seconds:
            time.sleep(POLL_SECONDS)
            status = self._status()
        if status is None:
            os.kill(self.child.pid, signal.SIGSTOP)
        self.seconds += time.monotonic() - started
        if status:
            raise SystemExit(f"{self.name} failed, see above")

    def _status(self) -> int | None:
        pid, status, usage = os.wait4(self.child.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.usage = usage
        return status

    def end(self) -> None:
        """Leave no halted process behind."""
        if self.child is not None and self.usage is None:
            os.kill(self.child.pid, signal.SIGKILL)

    def result(self) -> dict:
        """Seconds and scores."""
        found = json.loads((self.out / "result.json").read_text(encoding="utf-8"))
        cpu_seconds = self.usage.ru_utime + self.usage.ru_stime
        return {"seconds": round(self.seconds, 1), "cpu_seconds": round(cpu_seconds, 1), **found}


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
