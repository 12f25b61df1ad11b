"""Kills teach.py at random moments and starts it again: no answer is lost, and none that was logged is asked for again.

    python bench/teacher_kills.py --kills 20

The command asks the tests' own server on the loopback, which refuses, fails, breaks off, answers in prose and says 429.
A request that is under way at a kill is sent again: its answer was never received. So at most `concurrency` texts per
kill are answered a second time, and none whose answer was in the log.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from teacher_server import MOODS, last_text, serving  # noqa: E402

from foldblend.files import sha256_file  # noqa: E402
from foldblend.settings.loading import load_teacher  # noqa: E402
from foldblend.settings.paths import Paths  # noqa: E402
from foldblend.teaching.questions import LabelList, ask_for_labels  # noqa: E402

CONCURRENCY = 6
TROUBLE = ("busy", "fail", "cut", "no_json", "refuse", "length", "prose", "foreign")
"""What happens to about every third request."""
COMMAND = [sys.executable, str(ROOT / "src" / "teach.py"), "--competition", "moods", "--teacher", "t"]
COMMAND += ["--rows", "new.csv", "--name", "labels"]


@dataclass
class Outcome:
    """What came of it."""

    kills: int = 0
    starts: int = 0
    n_texts: int = 0
    n_requests: int = 0
    logged_at_kills: list[int] = field(default_factory=list)
    asked_again: list[str] = field(default_factory=list)
    """Texts that were asked about though their answer was in the log: there must be none."""
    answered_twice: int = 0
    """Texts that the server answered more than once: those under way at a kill."""
    missing: int = 0
    """Texts without an answer in the end: there must be none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_restart(Path(folder), flags.kills, flags.texts, flags.seed)
    print(f"{outcome.kills} kills (kill -9), {outcome.starts} starts, {outcome.n_texts:,} texts")
    print(f"answers in the log at the kills: {' '.join(map(str, outcome.logged_at_kills))}")
    print(f"{outcome.n_requests:,} requests, failures and retries among them")
    print(f"{outcome.missing} answers lost, {len(outcome.asked_again)} logged answers asked for again")
    most = outcome.kills * CONCURRENCY
    print(f"{outcome.answered_twice} texts answered twice, as they were under way at a kill (at most {most} may be)")
    if outcome.missing or outcome.asked_again or outcome.answered_twice > most:
        sys.exit(1)


def kill_and_restart(folder: Path, kills: int, n_texts: int, seed: int) -> Outcome:
    """Start the command again and again, kill it at random moments, let the last start finish, and count."""
    rng = random.Random(seed)
    moods = list(MOODS.values())
    texts = [f"text {number} is {moods[number % 3][number % 2]}" for number in range(n_texts)]
    outcome = Outcome(n_texts=n_texts)
    troubled = random.Random(seed + 1)

    def plan(number, body):
        return troubled.choice(TROUBLE) if troubled.random() < 0.3 else "answer"

    with serving(plan=plan, delay=0.05) as server:
        paths = prepare(folder, texts, server.url)
        key_of = keys(paths, texts)
        log = paths.data("moods") / "labels.answers.jsonl"
        for number in range(kills + 1):
            logged, seen = logged_keys(log), len(server.bodies)
            process = subprocess.Popen(COMMAND, env=environment(folder), **QUIET)
            outcome.starts += 1
            if number < kills:
                wait_for_answers(process, log, len(logged) + rng.randrange(1, max(n_texts // (kills + 2), 2)))
                time.sleep(rng.uniform(0, 0.1))
                process.send_signal(signal.SIGKILL)
                outcome.kills += 1
            process.wait()
            time.sleep(0.3)  # what was under way has reached the server
            asked = [last_text(body) for body in server.bodies[seen:]]
            outcome.asked_again += [text for text in asked if key_of[text] in logged]
            outcome.logged_at_kills.append(len(logged_keys(log)))
        outcome.n_requests = server.n_requests
        outcome.answered_twice = sum(count > 1 for count in server.answered.values())
        outcome.missing = len(set(key_of.values()) - logged_keys(log))
        assert process.returncode == 0, process.returncode
        before = sha256_file(paths.data("moods") / "labels.npz"), server.n_requests
        subprocess.run(COMMAND, env=environment(folder), check=True, **QUIET)
        assert before == (sha256_file(paths.data("moods") / "labels.npz"), server.n_requests)
    return outcome


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "FOLDBLEND_ROOT": str(folder)}


def prepare(folder: Path, texts: list[str], url: str) -> Paths:
    """A root with a competition whose labels the texts say, a file of texts, and a teacher at the server."""
    shutil.copytree(ROOT / "configs", folder / "configs", dirs_exist_ok=True)
    paths = Paths(folder)
    (paths.configs / "competitions" / "moods.yaml").write_text("id_column: id\n")
    (paths.configs / "teachers" / "t.yaml").write_text(
        f'model: m\nbase_url: {url}\nkey_variable: ""\nconcurrency: {CONCURRENCY}\nretry_seconds: 0.01\nattempts: 40\n'
        "timeout_seconds: 5\n"
    )
    data = paths.data("moods")
    data.mkdir(parents=True)
    rows = [f"r{n},row {n},{int(n % 3 == 0)},{int(n % 3 == 1)},{int(n % 3 == 2)}" for n in range(9)]
    (data / "train.csv").write_text("\n".join(["id,text,joy,fear,anger", *rows, ""]))
    (data / "test.csv").write_text("id,text\nt0,a\n")
    (data / "sample_submission.csv").write_text("id,joy,fear,anger\nt0,0,0,0\n")
    lines = [f"n{number},{text}" for number, text in enumerate(texts)]
    (data / "new.csv").write_text("\n".join(["id,text", *lines, ""]))
    return paths


def keys(paths: Paths, texts: list[str]) -> dict[str, str]:
    """Text -> the key of its question."""
    labels = LabelList(("joy", "fear", "anger"), {})
    questions = ask_for_labels(load_teacher(paths, "t", {}), labels, texts, [()])
    return {texts[each.row]: each.key for each in questions}


def logged_keys(log: Path) -> set[str]:
    """Keys of the whole lines of the log; a line twice would be an answer that was paid for twice."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    counts = Counter(json.loads(line)["key"] for line in lines)
    assert not [key for key, count in counts.items() if count > 1]
    return set(counts)


def wait_for_answers(process: subprocess.Popen, log: Path, count: int) -> None:
    """Until the log has so many lines, or the command has ended."""
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < count):
        time.sleep(0.005)


if __name__ == "__main__":
    main()
