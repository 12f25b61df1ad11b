"""Kills the whole main job at random moments and starts it again: is the submission the undisturbed one?

    python bench/faults.py --kills 100

A small competition, TF-IDF and a tiny encoder, 3 folds: folds, tokenising, training, blend. Every other kill -9 comes
at a random time, the others at a random moment of writing a file (half of them with half of it on the disk). After
each, the same commands run to their end. `--stages 1` kills while a file of each kind is written instead;
`--launched 10` kills the commands of run.sh, each a process of its own, the queue of trainings among them.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("src", "tests/faults", "tests/learners")]
os.environ.update(HF_HUB_OFFLINE="1", FOLDBLEND_THREADS="1", TOKENIZERS_PARALLELISM="false")

from small_job import (  # noqa: E402
    WriteSteps,
    answers,
    copy_root,
    finish_job,
    import_everything,
    make_root,
    stage_of,
    start_commands,
    start_job,
    strays,
)
from tiny_encoders import save_encoder  # noqa: E402

STAGES = {
    "folds": r"folds/small\.csv$",
    "checkpoint": r"/checkpoint\.safetensors$",
    "weights": r"net/.*/weights\.safetensors$",
    "predictions": r"net/fold1\.npz$",
    "record of a fold": r"net/fold1\.json$",
    "submission": r"submissions/.*\.csv$",
}
"""What is being written -> the name that the file is about to get."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--stages", type=int, default=0, help="kills while each kind of file is written, instead")
    parser.add_argument("--launched", type=int, default=0, help="kills of run.sh's commands, instead")
    flags = parser.parse_args()
    import_everything()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "encoder").mkdir()
        encoder = save_encoder("bert", folder / "encoder")
        template = make_root(folder / "template", encoder, flags.rows, n_folds=flags.folds)
        start = start_commands if flags.launched else start_job
        seconds, wanted = measure(folder, template, start)
        steps = count_steps(folder, template, wanted)
        print(f"undisturbed: {seconds:.1f} s, {steps} moments of writing", flush=True)
        rng = random.Random(flags.seed)
        if flags.launched:
            kills = [(rng.uniform(0, seconds), WriteSteps()) for _ in range(flags.launched)]
        else:
            kills = plan_stages(flags.stages) if flags.stages else plan_kills(flags.kills, seconds, steps, rng)
        report(disturb(folder, template, kills, wanted, start))


def measure(folder: Path, template: Path, start) -> tuple[float, dict[str, bytes]]:
    """Seconds and answers of a job that nothing disturbs."""
    root = copy_root(template, folder / "undisturbed")
    started = time.monotonic()
    finish_job(root, start)
    return time.monotonic() - started, answers(root)


def count_steps(folder: Path, template: Path, wanted: dict[str, bytes]) -> int:
    """Moments of writing in a job. Raises: RuntimeError: two undisturbed jobs differ."""
    root, steps = copy_root(template, folder / "counted"), WriteSteps()
    os.waitpid(start_job(root, steps.install_and_tell), 0)
    if answers(root) != wanted or "submission 1" not in wanted:
        raise RuntimeError("two undisturbed jobs differ, or wrote no submission")
    return int((root / "steps").read_text())


def plan_kills(kills: int, seconds: float, steps: int, rng: random.Random) -> list[tuple[float, WriteSteps]]:
    """(seconds after the start, moment of writing) of each kill; of the two, the one that is not 0 counts."""
    return [
        (rng.uniform(0, 0.95 * seconds), WriteSteps())
        if k % 2
        else (0.0, WriteSteps(rng.randint(1, steps), half=k % 4 == 0))
        for k in range(kills)
    ]


def plan_stages(times: int) -> list[tuple[float, WriteSteps]]:
    return [(0.0, WriteSteps(named=name, half=True)) for name in STAGES.values() for _ in range(times)]


def disturb(folder: Path, template: Path, kills: list, wanted: dict[str, bytes], start) -> Counter:
    """(where the kill fell, what became of it) -> how often."""
    outcomes = Counter()
    for number, (seconds, steps) in enumerate(kills):
        root = copy_root(template, folder / f"kill{number}")
        where = kill_once(root, seconds, start if seconds else partial(start_job, prepare=steps.install))
        outcomes[where, see(root, wanted, start)] += 1
    return outcomes


def kill_once(root: Path, seconds: float, start) -> str:
    """Start the job and kill all of it after so many seconds, or let it kill itself; where that was."""
    pid = start(root)
    if seconds:
        time.sleep(seconds)
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        return "not killed: it was done"
    return stage_of(root) + ("" if seconds else ", while writing")


def see(root: Path, wanted: dict[str, bytes], start) -> str:
    """Run the same commands again: `the same`, or what is wrong."""
    try:
        finish_job(root, start)
    except RuntimeError as error:
        print(error, flush=True)
        return "failed"
    if answers(root) != wanted:
        return "another answer"
    if left := strays(root):
        print(f"left behind: {', '.join(left)}", flush=True)
        return "the same, strays left"
    return "the same"


def report(outcomes: Counter) -> None:
    for (where, outcome), count in sorted(outcomes.items()):
        print(f"  {where:30} {outcome:22} {count:4}")
    killed = sum(count for (where, _), count in outcomes.items() if not where.startswith("not killed"))
    survived = sum(n for (where, outcome), n in outcomes.items() if "the same" in outcome and where[:3] != "not")
    strewn = sum(count for (_, outcome), count in outcomes.items() if "strays" in outcome)
    print(f"{killed} kills: {survived} survived, {killed - survived} lost; {strewn} left temporary files behind")


if __name__ == "__main__":
    main()
