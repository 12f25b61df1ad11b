"""Kills tune.py at random moments while two processes share one study: no trial is lost, none is trained twice.

    python bench/tune_kills.py --kills 20

A study of the tfidf learner on the sample competition. One of the two processes, drawn by chance, is ended by kill -9
at a random moment after it began to work on a trial, and started again with the same command, until there were so many
kills; then both may finish.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEARCH = """run: tfidf
folds: [0]
trials: {trials}
noise_seeds: 2
confirm_seeds: 1
pruner: none
space:
  logistic.inverse_regularization: {{low: 0.1, high: 10, log: true}}
  tfidf.max_features: {{low: 1000, high: 20000, log: true}}
"""
STARTED, MOST_SECONDS = "== started", 10.0
SCORED = "held-out macro_f1"
"""What the log of a training says when the fold is written."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), random.Random(flags.seed)
        shutil.copytree(ROOT / "configs", root / "configs")
        (root / "configs" / "search" / "kills.yaml").write_text(SEARCH.format(trials=flags.trials))
        started = time.monotonic()
        kills = kill_all(root, flags.kills, rng)
        report(root, flags.trials, kills, time.monotonic() - started)


def start(root: Path, number: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "src" / "tune.py"), "--search", "kills", "--side_by_side", "1"]
    log = open(root / f"process{number}.log", "ab")  # noqa: SIM115  # the process keeps it
    process = subprocess.Popen(command, env={**os.environ, "FOLDBLEND_ROOT": str(root)}, stdout=log, stderr=log)
    log.write(f"{STARTED} {process.pid}\n".encode())  # long before its own first line
    log.flush()
    return process


def kill_all(root: Path, wanted: int, rng: random.Random) -> int:
    """Kill and start again; returns how many kills there were when the study ended."""
    processes, kills = [start(root, number) for number in (0, 1)], 0
    while kills < wanted and all(process.poll() is None for process in processes):
        number = rng.randrange(2)
        wait_for_trial(root, number, processes[number])
        time.sleep(rng.uniform(0, MOST_SECONDS))
        if processes[number].poll() is None:
            processes[number].send_signal(signal.SIGKILL)
            processes[number].wait()
            kills += 1
            print(f"kill {kills} of {wanted}", flush=True)
            processes[number] = start(root, number)
    for number, process in enumerate(processes):
        if process.wait():
            log = (root / f"process{number}.log").read_text()
            sys.exit(f"a process ended with {process.returncode}:\n{log[-3000:]}")
    return kills


def wait_for_trial(root: Path, number: int, process: subprocess.Popen) -> None:
    """Until the process that was started last works on a trial, or has ended."""
    log = root / f"process{number}.log"
    while process.poll() is None and "trial-" not in log.read_text().rpartition(f"{STARTED} {process.pid}\n")[2]:
        time.sleep(0.2)


def report(root: Path, wanted: int, kills: int, seconds: float) -> None:
    """Count the trials in the storage, and how often each of their folds was trained to its end."""
    import optuna

    folder = root / "oof/sample/.studies/kills"
    study = optuna.load_study(study_name="sample/kills", storage=f"sqlite:///{folder / 'study.db'}")
    trials = [trial for trial in study.trials if "base" not in trial.user_attrs]
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    drawn = collections.Counter(str(trial.params) for trial in trials)
    logs = {
        path.parent.name: path.read_text().count(SCORED) for path in root.glob("checkpoints/*/.studies/*/trial-*/*.log")
    }
    starts = sum(path.read_text().count("== ") for path in root.glob("checkpoints/*/.studies/*/trial-*/*.log"))
    continued = sum(path.read_text().count("goes on, ") for path in root.glob("process*.log"))
    print(
        f"\n{kills} kills of one of two processes in {seconds:.0f} s, {continued} trials continued, {starts} trainings"
    )
    print(f"trials wanted {wanted}, in the study {len(trials)}, complete {len(complete)}")
    print(f"lost: {wanted - len(complete)}")
    repeated = sum(count - 1 for count in drawn.values()) + sum(max(0, log.count(SCORED) - 1) for log in logs)
    print(f"repeated (same values twice, or a fold trained to its end twice): {repeated}")
    if wanted != len(complete) or repeated:
        sys.exit(1)


if __name__ == "__main__":
    main()
