"""What the history and a tracker cost per step: seconds spent in them, as a share of the training's own seconds.

    python bench/tracking_cost.py --trackers none tensorboard

Trains a fold of MiniLM on the sample competition once per tracker, and times every call that notes something while it
trains. Timed inside the training, the figure does not depend on how fast the machine is at the moment.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from foldblend.commands import train  # noqa: E402
from foldblend.learners.training.tracking import TrackedFold, TrackedHistory  # noqa: E402
from foldblend.ledger.history import FoldHistory, read_history  # noqa: E402


class Timed:
    """Adds up the seconds of the outermost calls."""

    def __init__(self):
        self.seconds, self.calls, self.depth = 0.0, 0, 0

    def wrap(self, owner: type, name: str):
        inner = getattr(owner, name)

        def timed(history, *arguments):
            started = time.perf_counter()
            self.depth += 1
            try:
                return inner(history, *arguments)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds, self.calls = self.seconds + time.perf_counter() - started, self.calls + 1

        setattr(owner, name, timed)
        return lambda: setattr(owner, name, inner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trackers", nargs="+", default=["none", "tensorboard"])
    parser.add_argument("--run", default="minilm")
    parser.add_argument("--fidelity", type=float, default=1.0, help="share of the fold's training rows")
    parser.add_argument("--lines", type=int, default=0, help="train nothing: time so many lines, one per ten steps")
    flags = parser.parse_args()
    if flags.lines:
        for tracker in flags.trackers:
            print(time_lines(tracker, flags.lines), flush=True)
        return
    for tracker in flags.trackers:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            shutil.copytree(ROOT / "configs", root / "configs")
            os.environ["FOLDBLEND_ROOT"] = str(root)
            print(measure(root, tracker, flags.run, flags.fidelity), flush=True)


def measure(root: Path, tracker: str, run: str, fidelity: float) -> str:
    """Train one fold for one epoch; a line with the share."""
    timed = Timed()
    undo = [timed.wrap(owner, name) for owner in (FoldHistory, TrackedHistory) for name in ("add",)]
    words = ["--competition", "sample", "--run", run, "--fold", "0", "--training.epochs", "1", "--tracker", tracker]
    words += ["--study", "cost", "--fidelity", str(fidelity)]
    train.main(words)
    for each in undo:
        each()
    last = read_history(root / f"oof/sample/.studies/cost/{run}/fold0.history.jsonl")[-1]
    per_step = timed.seconds / last["steps"]
    share = timed.seconds / last["seconds"]
    return (
        f"tracker {tracker}: {1e3 * per_step:.3f} ms per step of {1e3 * last['seconds'] / last['steps']:.0f} ms, "
        f"{share:.3%} of the training, {timed.calls} calls"
    )


def time_lines(tracker: str, count: int) -> str:
    """Note so many readings of the loss, as a training does every ten steps; a line with the time per step."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        history = FoldHistory(root / "fold0.history.jsonl")
        if tracker != "none":
            tracked = TrackedFold("bench", "run", 0, root / "tracking", root / "fold0")
            history = TrackedHistory(tracker, tracked, {"optimizer.lr": 1e-4}, history)
        history.start(0)
        started, used = time.perf_counter(), time.process_time()
        for line in range(1, count + 1):
            where = {"step": 10 * line, "steps": 10 * count, "epoch": 1.0, "rows": 320 * line, "seconds": 2.0 * line}
            history.add({**where, "loss": 0.1, "lr": 1e-4, "grad_norm": 1.0})
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        if tracker != "none":
            history.finish({})
    per_step = 1e3 / (10 * count)
    return f"tracker {tracker}: {per_step * wall:.3f} ms per step, of it {per_step * cpu:.3f} ms on the CPU"


if __name__ == "__main__":
    main()
