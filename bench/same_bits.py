"""Prove that a change of the code changes no prediction: hash what a checkout makes, compare with another one's hashes.

    python bench/same_bits.py /path/to/old before.json
    python bench/same_bits.py . after.json --compare before.json
    python bench/same_bits.py . after.json --compare before.json --only oof/toy/decoder   # seconds: a few runs

Every checkout gets the same inputs, made here from fixed seeds in a scratch folder: toy competitions, tiny random
models, predictions to blend. Only its commands are called, nothing is imported from it, so its files may be laid out in
any way. Hashed are the arrays of every trained fold, the folds and the bytes of every submission, never names of files
or records. A command that fails is shown, and what it should have made counts as missing. With `--compare` the exit
status is 1 if anything differs or is missing. Use one interpreter and one machine for both: other versions of a library
or another processor give other bits. About 15 minutes on one core; `--sample_minilm` takes 8 more.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from same_bits_inputs import BLENDS, RUNS, TASKS, save_models, write_blend, write_run, write_toy

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "numpy", "scipy", "scikit-learn", "numba", "pandas")
# Each strategy forced on the first blend, by its name and by its older one.
STRATEGIES = {
    "mean_probs": "mean_probs",
    "mean_logits": "mean_logits",
    "shared_weights": "shared",
    "label_weights": "label",
    "cross_label_stack": "wide",
    "shrunk_stack": "steady",
    "hill_climbing": "greedy",
    "coordinate_search": "coordinate",
}


@dataclass
class Bench:
    """One checkout, the scratch folder its commands work in, and what they made so far."""

    checkout: Path
    root: Path
    only: str
    with_minilm: bool
    hashes: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def wants(self, name: str) -> bool:
        """Whether something called so, or something in it, was asked for by `--only`."""
        return name.startswith(self.only) or self.only.startswith(name)

    def call(self, command: str, *flags, may_fail: bool = False) -> bool:
        """Run `src/<command>.py`; a failure is shown and noted. Returns whether it ended well."""
        own = {"FOLDBLEND_ROOT": str(self.root), "FOLDBLEND_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        own |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own
        line = [sys.executable, str(self.checkout / "src" / f"{command}.py"), *map(str, flags)]
        done = subprocess.run(line, env=env, cwd=self.root, text=True, capture_output=True, check=False)
        said = f"{command} {' '.join(map(str, flags))}"
        if done.returncode and not may_fail:
            self.failures.append(said)
            print(f"FAILED {said}\n{(done.stdout + done.stderr)[-3000:]}", flush=True)
        elif not done.returncode:
            print(said, flush=True)
        return not done.returncode

    def add_file(self, name: str, path: Path) -> None:
        if path.is_file():
            self.hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()

    def add_run(self, name: str, competition: str, run: str) -> None:
        """Every array of every fold of a run, as `name/fold0/array`."""
        for path in sorted((self.root / "oof" / competition / run).glob("fold*.npz")):
            with np.load(path, allow_pickle=False) as arrays:
                for key in sorted(arrays.files):
                    content = f"{arrays[key].dtype.str} {arrays[key].shape} ".encode() + arrays[key].tobytes()
                    self.hashes[f"{name}/{path.stem}/{key}"] = hashlib.sha256(content).hexdigest()

    def blend(self, name: str, competition: str, *flags, may_fail: bool = False) -> bool:
        """Blend, and hash the one submission it writes; its file's name is of no matter."""
        folder = self.root / "submissions" / competition
        shutil.rmtree(folder, ignore_errors=True)
        done = self.call("blend", "--competition", competition, *flags, may_fail=may_fail)
        written = sorted(folder.glob("*.csv"))
        if done and len(written) == 1:
            self.add_file(name, written[0])
        return done


def main() -> None:
    args = parse_flags()
    with tempfile.TemporaryDirectory(prefix="same_bits_") as folder:
        bench = Bench(args.checkout.resolve(), Path(folder), args.only, args.sample_minilm)
        shutil.copytree(bench.checkout / "configs", bench.root / "configs")
        run_toys(bench, args.jobs)
        run_blends(bench, args.jobs)
        run_sample(bench, args.jobs)
    found = {"environment": describe_environment(), "hashes": dict(sorted(bench.hashes.items()))}
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(bench.hashes)} hashes, {len(bench.failures)} failed commands")
    same = True
    if args.compare:
        same = compare(json.loads(args.compare.read_text(encoding="utf-8")), found, bench)
    sys.exit(0 if same and not bench.failures else 1)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a folder with src/ and configs/ of this project")
    parser.add_argument("out", type=Path, help="JSON file to write the hashes into")
    parser.add_argument("--compare", type=Path, help="JSON file that another checkout's hashes were written into")
    parser.add_argument("--only", default="", help="start of the names that are made: oof/toy/encoder, blend/, sample")
    parser.add_argument("--jobs", type=int, default=1, help="commands side by side, of one thread each")
    parser.add_argument("--sample_minilm", action="store_true", help="also tfidf and minilm on the sample, as run.sh")
    return parser.parse_args()


def run_toys(bench: Bench, jobs: int) -> None:
    """Two folds of every learner, the blend of all of them, and what predict.py says of new texts."""
    wanted = {name: [run for run in runs if bench.wants(f"oof/{name}/{run}")] for name, runs in RUNS.items()}
    models = save_models(bench.root / "models") if any(wanted.values()) else {}
    for competition in (name for name, runs in wanted.items() if runs):
        write_toy(bench.root, competition, TASKS[competition])
        draw_folds(bench, competition)
        for run in wanted[competition]:
            write_run(bench.root, run, RUNS[competition][run], models)
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda run, name=competition: train(bench, name, run), wanted[competition]))
        if len(wanted[competition]) == len(RUNS[competition]):
            predict_toy(bench, competition)


def draw_folds(bench: Bench, competition: str) -> None:
    bench.call("make_folds", "--competition", competition)
    bench.add_file(f"folds/{competition}", bench.root / "folds" / f"{competition}.csv")


def train(bench: Bench, competition: str, run: str) -> None:
    bench.call("train", "--competition", competition, "--run", run, "--fold", "all")
    bench.add_run(f"oof/{competition}/{run}", competition, run)


def predict_toy(bench: Bench, competition: str) -> None:
    """The default blend; then by the equal mean, which needs every run, answers for the test file as new texts."""
    bench.blend(f"toys/{competition}/blend", competition)
    if bench.blend(f"toys/{competition}/mean_probs", competition, "--strategy", "mean_probs"):
        test, answer = bench.root / "data" / competition / "test.csv", bench.root / f"{competition}.csv"
        bench.call("predict", "--competition", competition, "--input", test, "--output", answer, "--precision", "fp32")
        bench.add_file(f"toys/{competition}/predict", answer)


def run_blends(bench: Bench, jobs: int) -> None:
    """Small blends of predictions made from a seed: every metric, then every strategy."""
    wanted = [name for name in BLENDS if bench.wants(f"blend/{name}")]
    for name in wanted:
        write_blend(bench.root, name, *BLENDS[name])
        draw_folds(bench, name)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: bench.blend(f"blend/{name}", name), wanted))
    first = next(iter(BLENDS))
    for new, old in STRATEGIES.items() if first in wanted else ():
        if not bench.blend(f"blend/{first}/{new}", first, "--strategy", new, may_fail=True):
            bench.blend(f"blend/{first}/{new}", first, "--strategy", old)


def run_sample(bench: Bench, jobs: int) -> None:
    """The competition that ships with the project: drawn, trained and blended as a bare run.sh does."""
    if not bench.wants("sample"):
        return
    draw_folds(bench, "sample")
    for name in ("train", "test", "sample_submission"):
        bench.add_file(f"sample/{name}", bench.root / "data" / "sample" / f"{name}.csv")
    for run in ("tfidf", "minilm") if bench.with_minilm else ("tfidf",):
        bench.call("train_all", "--competition", "sample", "--runs", run, "--side_by_side", jobs)
        bench.add_run(f"sample/oof/{run}", "sample", run)
        bench.blend(f"sample/with-{run}", "sample")


def describe_environment() -> dict[str, str]:
    """What must be the same on both sides for bits to be comparable."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return {"python": platform.python_version(), "processor": processor, **versions}


def compare(old: dict, new: dict, bench: Bench) -> bool:
    """Print a table with one line per run or submission. Returns whether all is the same."""
    for name in sorted(old["environment"].keys() | new["environment"].keys()):
        before, after = old["environment"].get(name), new["environment"].get(name)
        if before != after:
            print(f"warning: {name} is {after}, was {before}: bits may differ for that alone")
    states = {
        name: state_of(old["hashes"].get(name), new["hashes"].get(name)) for name in old["hashes"] | new["hashes"]
    }
    asked = {name: state for name, state in sorted(states.items()) if state != "missing" or was_asked_for(name, bench)}
    for group in dict.fromkeys(map(group_of, asked)):
        found = {name.removeprefix(group): state for name, state in asked.items() if group_of(name) == group}
        print(f"{group:36} {describe_group(found)}")
    counts = {state: list(asked.values()).count(state) for state in ("same", "differs", "missing", "new")}
    print(", ".join(f"{state} {count}" for state, count in counts.items()))
    return not counts["differs"] and not counts["missing"]


def state_of(before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return "new" if before is None else "missing"
    return "same" if before == after else "differs"


def was_asked_for(name: str, bench: Bench) -> bool:
    return name.startswith(bench.only) and (bench.with_minilm or "minilm" not in name)


def group_of(name: str) -> str:
    """A run, for the arrays of its folds; every other file is a group of its own."""
    return "/".join(name.split("/")[:3]) if "oof/" in name else name


def describe_group(states: dict[str, str]) -> str:
    """How many are the same, and the names of all others."""
    same = list(states.values()).count("same")
    others = [f"{state}{f' {name[1:]}' if name else ''}" for name, state in states.items() if state != "same"]
    return ", ".join([*([f"same {same}"] if same else []), *others])


if __name__ == "__main__":
    main()
