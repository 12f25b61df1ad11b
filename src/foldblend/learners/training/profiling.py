"""Where the time of a fold goes: a few steps, a prediction and a save are timed and scaled to the whole fold.

python src/train.py --run minilm --fold 0 --profile
python src/train.py --run minilm --plan --price_per_hour 2.5
"""

import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from foldblend.learners.table import FoldRows
from foldblend.learners.training.checkpoints import TrainState
from foldblend.learners.training.loop import BuiltFold, build_fold, plan_steps, take_step

WARM_STEPS, TIMED_STEPS, TRACED_STEPS = 3, 20, 4
TIMED_ROWS = 512
"""Rows predicted."""
TRACE = "trace.json.gz"


class Spans:
    """Seconds by name; time spent in an inner span is not counted in the outer one."""

    def __init__(self, wait: Callable[[], None] = lambda: None):
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.wait, self.since = wait, 0.0

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the time inside under `name`."""
        self._record()
        self.open.append(name)
        try:
            yield
        finally:
            self._record()
            self.open.pop()

    def watch(self, owner, method: str, name: str) -> None:
        """Count every call of `owner.method` under `name`."""
        function = getattr(owner, method)

        def watched(*args, **kwargs):
            with self.span(name):
                return function(*args, **kwargs)

        setattr(owner, method, watched)

    def _record(self) -> None:
        self.wait()
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.since
        self.since = now


@dataclass(frozen=True)
class Shares:
    """What was measured, and how often each part occurs in a whole fold."""

    seconds: dict[str, float]
    """One start-up, one step's parts, one row's prediction, one save."""
    times: dict[str, float]
    """How often each of them occurs in one fold."""
    peak_bytes: int
    memory_bytes: int
    """Memory of the device."""
    n_rows: int
    """Training rows of all epochs together."""

    @property
    def fold_seconds(self) -> float:
        """Expected seconds of the fold from a cold start."""
        return sum(value * self.times[name] for name, value in self.seconds.items())

    def table(self) -> str:
        """The parts in the order of a fold, as Markdown."""
        lines = ["| part | seconds once | times in a fold | seconds in a fold | share |", "|---|---|---|---|---|"]
        for name, value in self.seconds.items():
            whole = value * self.times[name]
            cells = f"{value:.5f} | {self.times[name]:.0f} | {whole:.1f} | {whole / self.fold_seconds:.1%}"
            lines.append(f"| {name} | {cells} |")
        lines.append(f"| all | | | {self.fold_seconds:.1f} | {self.n_rows / self.fold_seconds:.1f} rows/s |")
        return "\n".join([*lines, f"\npeak memory {self.peak_bytes / 1e9:.2f} GB"])

    def plan(self, n_folds: int, price_per_hour: float) -> str:
        """What `n_folds` folds will take, one after the other: hours, memory and, if a price is given, money."""
        outside = ("start-up", "tokens, weights, model", "evaluation", "prediction", "checkpointing")
        in_steps = sum(value * self.times[name] for name, value in self.seconds.items() if name not in outside)
        start = self.seconds["start-up"]
        hours = (start + n_folds * (self.fold_seconds - start)) / 3600
        lines = [
            ("in training", f"{self.n_rows / in_steps:.0f} rows/s"),
            ("a fold", f"{in_words(self.fold_seconds)}, {in_steps / self.fold_seconds:.0%} of it training steps"),
            (f"{n_folds} folds", f"{in_words(hours * 3600)} one after the other, started once with --fold all"),
            ("memory", f"{self.peak_bytes / 1e9:.1f} of {self.memory_bytes / 1e9:.1f} GB, the longest texts included"),
        ]
        if price_per_hour:
            lines.append(("money", f"{hours * price_per_hour:.2f} at {price_per_hour:g} an hour"))
        return "\n".join(f"{name:12} {words}" for name, words in lines)


def in_words(seconds: float) -> str:
    """A duration in the unit that fits it: `48 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def profile_fold(learner, rows: FoldRows, folder: Path | None) -> Shares:
    """Time the parts of one fold and write a torch profiler trace into `folder`, if given; nothing else is kept.

    Args:   learner: a NeuralLearner.   rows: the fold; its checkpoint_dir is left alone.
    """
    learner.tell_truncation()
    started_up = time.time() - psutil.Process().create_time()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    spans = Spans(torch.cuda.synchronize if learner.accelerator.device.type == "cuda" else lambda: None)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with spans.span("tokens, weights, model"):
            fold, state = build_fold(learner, replace(rows, checkpoint_dir=Path(scratch)))
        steps = _choose_steps(learner, rows)
        for step in steps[:WARM_STEPS]:
            _take(learner, fold, state, step)
        _time_steps(learner, fold, state, spans, steps[WARM_STEPS : WARM_STEPS + TIMED_STEPS])
        with spans.span("checkpointing"):
            fold.store.save_checkpoint(state)
        if folder is not None:
            _trace(learner, fold, state, steps[WARM_STEPS + TIMED_STEPS :], folder)
        timed_rows = (rows.heldout if len(rows.heldout) else rows.train)[:TIMED_ROWS]
        with spans.span("prediction"):
            learner.predict(fold.model, timed_rows)
    spans.seconds["prediction"] /= len(timed_rows)
    return _scale({"start-up": started_up, **spans.seconds}, learner, fold, rows)


def _choose_steps(learner, rows: FoldRows) -> list[np.ndarray]:
    """Rows of as many steps as are taken, drawn as epochs' are; the first step has the longest texts."""
    batch, lengths = learner.run.training.global_batch_size, learner.tokens.lengths
    wanted, steps = WARM_STEPS + TIMED_STEPS + TRACED_STEPS, []
    for epoch in range(wanted):  # of a small competition, several epochs
        steps += plan_steps(learner, rows, epoch)
        if len(steps) >= wanted:
            break
    steps[0] = rows.train[np.argsort(-lengths[rows.train], kind="stable")[:batch]]
    return steps[:wanted]


def _take(learner, fold: BuiltFold, state: TrainState, rows: np.ndarray) -> None:
    take_step(learner, fold, state, rows)
    state.step = (state.step + 1) % fold.steps_of_epochs[0]  # the learning rate of a step inside the training


def _time_steps(learner, fold: BuiltFold, state: TrainState, spans: Spans, steps: list[np.ndarray]) -> None:
    """Leave the seconds of one step's parts in `spans`; the methods that it times are as before afterwards."""
    parts = {
        "input": [(fold.augmentation, "batch")],
        "forward": [(learner, "batch_loss")],
        "backward": [(learner.accelerator, "backward")],
        "optimiser": [(fold.optimizer, "step"), (fold.optimizer, "zero_grad")],
    }
    rest = "clipping, seeds, loss shown"
    before = {}
    for name, methods in parts.items():
        spans.seconds[name] = 0.0
        for owner, method in methods:
            before[id(owner), method] = (owner, method, vars(owner).get(method))
            spans.watch(owner, method, name)
    for step in steps:
        with spans.span(rest):
            _take(learner, fold, state, step)
    for owner, method, own in before.values():
        delattr(owner, method) if own is None else setattr(owner, method, own)
    for name in (*parts, rest):
        spans.seconds[name] /= len(steps)


def _trace(learner, fold: BuiltFold, state: TrainState, steps: list[np.ndarray], folder: Path) -> None:
    """Write the profiler's trace of some steps, and its table of operators beside it."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        for step in steps:
            _take(learner, fold, state, step)
    profiler.export_chrome_trace(str(folder / TRACE))
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=60)
    (folder / "operators.txt").write_text(table, encoding="utf-8")


def _scale(seconds: dict[str, float], learner, fold: BuiltFold, rows: FoldRows) -> Shares:
    """The shares of a whole fold: prediction is split into evaluations and the fold's predictions; a save is counted
    per epoch or per `checkpoint_every_minutes`, whichever comes more often."""
    training, n_heldout = learner.run.training, len(rows.heldout)
    n_steps = fold.n_steps
    # the last epoch's end is evaluated only if the weights are chosen by it
    evaluations = training.epochs * training.evaluations_per_epoch - (not fold.store.selection.by_heldout)
    once = {name: seconds[name] for name in ("start-up", "tokens, weights, model")}
    step = {name: value for name, value in seconds.items() if name not in (*once, "prediction", "checkpointing")}
    in_training = n_steps * sum(step.values())
    saves = max(training.epochs, in_training / 60 / training.checkpoint_every_minutes)
    ordered = {**once, **step, "evaluation": seconds["prediction"], "prediction": seconds["prediction"]}
    times = dict.fromkeys(once, 1.0) | dict.fromkeys(step, float(n_steps))
    times |= {"evaluation": evaluations * n_heldout, "prediction": n_heldout + len(learner.corpus.test_rows)}
    ordered["checkpointing"], times["checkpointing"] = seconds["checkpointing"], saves
    return Shares(ordered, times, *_memory(learner.accelerator.device), fold.n_rows)


def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes of memory this process took at its peak, and bytes there are."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, psutil.virtual_memory().total
