"""How fast scoring is, as ratios in one run, and how long the whole blend.py takes.

python bench/blend_speed.py            # metrics, thresholds, the whole blend.py on ten GoEmotions runs
python bench/blend_speed.py --large    # once: 1,000,000 rows x 100 labels x 5 runs, made up
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from blend_data import PROJECT, load_bench, write_project
from sklearn import metrics as reference

from foldblend.scoring.blending import make_blend
from foldblend.scoring.inputs import Runs, Scores, Task, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.thresholds.exact import tune_thresholds

REFERENCES = {
    "macro_f1": lambda y, a: reference.f1_score(y, a, average="macro", zero_division=0),
    "micro_f1": lambda y, a: reference.f1_score(y, a, average="micro", zero_division=0),
    "weighted_f1": lambda y, a: reference.f1_score(y, a, average="weighted", zero_division=0),
    "samples_f1": lambda y, a: reference.f1_score(y, a, average="samples", zero_division=0),
    "jaccard": lambda y, a: reference.jaccard_score(y, a, average="samples", zero_division=0),
    "subset_accuracy": reference.accuracy_score,
    "macro_auc": lambda y, a: reference.roc_auc_score(y, a, average="macro"),
    "macro_ap": lambda y, a: reference.average_precision_score(y, a, average="macro"),
    "log_loss": lambda y, a: np.mean([reference.log_loss(y[:, k], a[:, k]) for k in range(y.shape[1])]),
}


def best_time(function, repeats: int) -> tuple[float, float]:
    """Its value, and the shortest of some runs in seconds."""
    value, best = function(), np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return value, best


def time_metrics(probs: np.ndarray, labels: np.ndarray) -> None:
    """Every metric beside scikit-learn's."""
    print(f"metrics on {labels.shape[0]:,} x {labels.shape[1]}, milliseconds")
    for name, theirs in REFERENCES.items():
        answer = probs if METRICS[name].takes_probs else probs >= 0.3
        value, ours = best_time(lambda name=name, answer=answer: METRICS[name].score(labels, answer), 7)
        expected, slow = best_time(lambda theirs=theirs, answer=answer: theirs(labels, answer), 2)
        assert abs(value - expected) < 1e-6, (name, value, expected)
        print(f"  {name:16} {ours * 1e3:8.2f}  scikit-learn {slow * 1e3:8.1f}  x{slow / ours:.0f}")


def time_thresholds(probs: np.ndarray, labels: np.ndarray) -> None:
    """All classes' exact thresholds beside a grid of f1_score calls."""

    def grid():
        cuts = np.arange(0.01, 1.0, 0.01)
        return [
            cuts[np.argmax([reference.f1_score(labels[:, k], probs[:, k] >= cut, zero_division=0) for cut in cuts])]
            for k in range(labels.shape[1])
        ]

    exact, ours = best_time(lambda: tune_thresholds(probs, labels), 7)
    started = time.perf_counter()
    coarse = np.array(grid())
    slow = time.perf_counter() - started
    fine, rough = (macro_f1(labels, probs >= cuts) for cuts in (exact, coarse))
    print(
        f"exact thresholds of all {labels.shape[1]} classes: {ours * 1e3:.1f} ms (macro-F1 {fine:.4f});"
        f" 0.01 grid of f1_score: {slow:.1f} s ({rough:.4f})  x{slow / ours:.0f}"
    )


def time_command() -> None:
    """The whole default blend.py on ten runs, in a process of its own, files read and written."""
    with tempfile.TemporaryDirectory() as folder:
        bench = load_bench()
        write_project(bench, Path(folder))
        size = sum(run.nbytes for run in bench.oof) / 2**20
        del bench
        code = (
            "import resource, sys, time; sys.path.insert(0, 'src'); from foldblend.commands import blend\n"
            "started = time.perf_counter()\n"
            "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
            "before = peak(); blend.main([]); used = resource.getrusage(resource.RUSAGE_SELF)\n"
            "print(f'{time.perf_counter() - started:.1f} s wall, {used.ru_utime + used.ru_stime:.1f} s cpu,'"
            " f' peak memory {peak() - before:.0f} MiB above the {before:.0f} MiB of the imports;"
            f" the float32 OOF is {size:.0f} MiB')"
        )
        environment = {**os.environ, "FOLDBLEND_ROOT": folder}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, env=environment, text=True, capture_output=True
        )
        print(f"blend.py, ten runs: {(done.stdout or done.stderr).strip().splitlines()[-1]}")


def time_large() -> None:
    """Made-up runs of a million rows."""
    rng, shape = np.random.default_rng(0), (1_000_000, 100)
    offsets = np.linspace(-1, -6, shape[1], dtype=np.float32)
    hidden = rng.standard_normal(shape, np.float32) * 2 + offsets
    labels = rng.random(shape, np.float32) < sigmoid(hidden)
    runs = [hidden + rng.standard_normal(shape, np.float32) * np.float32(0.8 + 0.3 * run) for run in range(5)]
    del hidden
    started = time.perf_counter()
    given = Runs(tuple("abcde"), Scores(runs), labels, np.arange(shape[0]) % 5, np.arange(shape[0]))
    blend = make_blend(Task("macro_f1"), given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"1,000,000 x 100 x 5: {time.perf_counter() - started:.0f} s, peak memory {peak:.1f} GiB, {blend.choice.name}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="the made-up million rows instead")
    warnings.simplefilter("ignore")
    if parser.parse_args().large:
        time_large()
        return
    bench = load_bench()
    probs = sigmoid(bench.oof[bench.runs.index("minilm_ft")])
    time_metrics(probs, bench.labels)
    time_thresholds(probs, bench.labels)
    time_command()


if __name__ == "__main__":
    main()
