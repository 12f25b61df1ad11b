"""Kills submit.py around every request that it makes and runs it again: each file is on Kaggle once, in the log once.

    python bench/submit_kills.py --kills 60

The real kaggle client speaks to the tests' own server on the loopback; kill -9 takes the command alone (its client's
process may live on and finish the upload) or both. Each kill is followed by `--sync` and the same command again.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import pytest  # noqa: E402
from emo_competition import TRUTH, answer, tables  # noqa: E402
from kaggle_server import SLUG, serving  # noqa: E402

from foldblend.files import sha256_bytes  # noqa: E402
from foldblend.ledger.submissions import read_log, write_submission  # noqa: E402
from foldblend.settings.paths import Paths  # noqa: E402

COMMAND = [sys.executable, str(ROOT / "src" / "submit.py"), "--competition", "emo"]
CLIENT_ENDS_SECONDS = 2.0
"""A client whose command was killed has finished by then."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        paths = prepare(Path(folder), patch)
        with serving(TRUTH, patch, Path(folder) / "home") as kaggle:
            kaggle.daily, kaggle.polls_until_scored = 10**6, 0
            report(paths, kaggle, kill_all(paths, kaggle, flags.kills, random.Random(flags.seed)))


def prepare(folder: Path, patch) -> Paths:
    """A root of its own with the tests' small competition."""
    patch.setenv("FOLDBLEND_ROOT", str(folder))
    shutil.copytree(ROOT / "configs", folder / "configs")
    paths = Paths(folder)
    (paths.configs / "competitions" / "emo.yaml").write_text(f"id_column: id\nfiles: {{kaggle: {SLUG}}}\n")
    paths.data("emo").mkdir(parents=True)
    for name, rows in tables().items():
        (paths.data("emo") / name).write_text("\n".join(rows) + "\n")
    return paths


def kill_all(paths: Paths, kaggle, kills: int, rng: random.Random) -> Counter:
    """The request at or shortly after which each kill came -> how often."""
    reached = Counter()
    for number in range(1, kills + 1):
        write_submission(paths, "emo", f"blend-{number}", distinct(number), {})
        kaggle.asked.clear()
        kaggle.faults = {name: [("slow", SLOW_SECONDS)] for name in REQUESTS}
        process = subprocess.Popen([*COMMAND, f"blend-{number}.csv"], start_new_session=True, **QUIET)
        wanted = REQUESTS[number % len(REQUESTS)]
        while wanted not in kaggle.asked and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1.5 * SLOW_SECONDS))
        both = rng.random() < 0.5
        (os.killpg if both else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        reached[kaggle.asked[-1]] += 1
        time.sleep(2 * SLOW_SECONDS if both else CLIENT_ENDS_SECONDS)
        again(number)
    return reached


REQUESTS = (
    "ListSubmissions",
    "GetSubmissionLimits",
    "StartSubmissionUpload",
    "PUT",
    "CreateSubmission",
    "GetSubmission",
)
SLOW_SECONDS = 0.15
"""Every answer takes so long, so that kills fall on either side of it."""
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def distinct(number: int) -> bytes:
    """An answer that no other number gives: its bits are laid over the rows."""
    header, *rows = answer(0).decode().splitlines()
    flipped = [row[:-1] + str(1 - int(row[-1])) if number >> k & 1 else row for k, row in enumerate(rows)]
    return ("\n".join([header, *flipped]) + "\n").encode()


def again(number: int) -> None:
    """Sync with a clock that has moved on, then the same command."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); "
    code += "from foldblend.commands import submit; from foldblend.ledger import log as log_sync\n"
    code += "log_sync.ARRIVES_WITHIN_SECONDS = 0; submit.main(['--competition', 'emo', '--sync'])"
    subprocess.run([sys.executable, "-c", code], check=True, **QUIET)
    subprocess.run([*COMMAND, f"blend-{number}.csv"], check=False, **QUIET)


def report(paths: Paths, kaggle, reached: Counter) -> None:
    """Print what was reached, and how many were lost, submitted twice or logged otherwise than Kaggle has them."""
    there = Counter(one["content"] for one in kaggle.submissions)
    wanted = [path.read_bytes() for path in paths.submissions("emo").glob("*.csv")]
    logged = {(one.ref, one.sha256) for one in read_log(paths)}
    known = {(one["ref"], sha256_bytes(one["content"])) for one in kaggle.submissions}
    for name, count in reached.most_common():
        print(f"  last request before the kill: {name:25} {count:3}")
    print(f"{reached.total()} kills: lost {sum(not there[one] for one in wanted)}, submitted twice "
          f"{sum(there[one] > 1 for one in wanted)}, missing or wrong in the log {len(logged ^ known)}")  # fmt: skip


if __name__ == "__main__":
    main()
