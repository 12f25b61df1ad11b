"""A competition small enough to be disturbed a hundred times, and the whole main job on it, in a process of its own.

The job is what run.sh does after installing: folds, two runs, the blend. It is forked from a process that has imported
everything, so that a kill falls into the work and not into imports.
"""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
MOODS = {"joy": "happy glad joyful", "sadness": "sad gloomy tearful", "anger": "angry furious mad"}
FILLERS = "the a is was today it plain dull calm".split()
COMPETITION = "id_column: id\nn_folds: {n_folds}\nnear_duplicates: 1.0\n"
ENCODER = """learner: encoder
model: {{name: {folder}, head_dropout: 0.1}}
optimizer: {{lr: 5e-3, head_lr: 5e-3}}
training: {{epochs: 2, global_batch_size: 16, precision: fp32, checkpoint_every_minutes: 1e-6}}
"""
TFIDF = "learner: tfidf\ntfidf: {word_ngrams: [1, 1], char_ngrams: [0, 0], min_rows: 1}\n"


def make_root(root: Path, encoder: Path, n_train: int = 120, n_test: int = 30, n_folds: int = 3) -> Path:
    """A root with competition `small`, its data, and the runs `words` (TF-IDF) and `net` (a tiny encoder)."""
    for kind, name, text in (
        ("competitions", "small", COMPETITION.format(n_folds=n_folds)),
        ("runs", "words", TFIDF),
        ("runs", "net", ENCODER.format(folder=encoder)),
    ):
        (root / "configs" / kind).mkdir(parents=True, exist_ok=True)
        (root / "configs" / kind / f"{name}.yaml").write_text(text)
    (root / "configs" / "default.yaml").write_text("competition: small\nrun: net\nruns: [words, net]\n")
    data = root / "data" / "small"
    data.mkdir(parents=True)
    for name, lines in table_lines(n_train, n_test).items():
        (data / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return root


def table_lines(n_train: int, n_test: int, seed: int = 0) -> dict[str, list[str]]:
    """The three files, line by line: texts that say their labels among words that say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n_train + n_test, len(MOODS))) < 0.4
    words = [mood.split() for mood in MOODS.values()]

    def text(row):
        said = [words[j][rng.integers(0, 3)] for j in np.flatnonzero(row)]
        return " ".join(rng.permutation([*said, *rng.choice(FILLERS, rng.integers(3, 9))]))

    rows = [(f"r{i}", text(row), *row.astype(int)) for i, row in enumerate(labels)]
    names = ",".join(MOODS)
    return {
        "train.csv": [f"id,text,{names}", *(",".join(map(str, row)) for row in rows[:n_train])],
        "test.csv": ["id,text", *(f"{row[0]},{row[1]}" for row in rows[n_train:])],
        "sample_submission.csv": [f"id,{names}", *(f"{row[0]},0,0,0" for row in rows[n_train:])],
    }


def run_commands() -> None:
    """The commands in the order in which run.sh calls them, the trainings in this process."""
    from foldblend.commands import blend, make_folds, train
    from foldblend.scoring import blending

    blending.N_REPEATS = 1  # of this process: the same files in less time
    at = ["--competition", "small"]
    say("folds")
    make_folds.main(at)
    for run in ("words", "net"):
        say(f"training {run}")
        train.main([*at, "--run", run, "--fold", "all"])
    say("blend")
    blend.main([*at, "--runs", "words", "net"])


def say(stage: str) -> None:
    print(f"== {stage}", flush=True)


def start_job(root: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork the job and return its process id; what it prints goes to job.log in the root.

    Args:   prepare: called in the child, before the first command.
    """
    pid = os.fork()
    with suppress(PermissionError, ProcessLookupError):  # both do it, as either may come first
        os.setpgid(pid, pid)
    if pid:
        return pid
    log = os.open(root / "job.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["FOLDBLEND_ROOT"] = str(root)
    status = 1
    try:
        prepare()
        run_commands()
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def start_commands(root: Path) -> int:
    """The job as run.sh runs it, a process a command, in a process group of its own; returns its process id.

    The trainings are in none: what kills the group leaves them to notice that the queue is gone.
    """
    env = {**os.environ, "FOLDBLEND_ROOT": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with open(root / "job.log", "ab") as log:
        return subprocess.Popen(
            ["bash", "-ec", COMMANDS], cwd=PROJECT, env=env, stdout=log, stderr=log, start_new_session=True
        ).pid


COMMANDS = """
echo "== folds"; python src/make_folds.py --competition small
echo "== training"; python src/train_all.py --competition small --runs words net
echo "== blend"; python src/blend.py --competition small --runs words net
"""


def finish_job(root: Path, start: Callable[[Path], int] = start_job) -> None:
    """Run the job to its end. Raises: RuntimeError: it failed."""
    _, status = os.waitpid(start(root), 0)
    if status:
        raise RuntimeError(f"the job in {root} ended with {os.waitstatus_to_exitcode(status)}:\n{tail(root)}")


def tail(root: Path) -> str:
    return (root / "job.log").read_text()[-3000:]


def stage_of(root: Path) -> str:
    """The stage in which the job was cut off."""
    return (re.findall(r"^== (.*)$", (root / "job.log").read_text(), re.M) or ["start"])[-1]


def answers(root: Path) -> dict[str, bytes]:
    """What a job leaves that must not depend on how often it was killed: folds, predictions, the submission.

    A submission is named after its inputs, to which the seconds of a training belong, so its name counts for nothing.
    """
    kept = {path: path.relative_to(root) for path in [*root.glob("folds/*.csv"), *root.glob("oof/*/*/*.npz")]}
    csvs = sorted(root.glob("submissions/*/*.csv"))
    kept |= {path: f"submission {number}" for number, path in enumerate(csvs, 1)}
    return {str(name): path.read_bytes() for path, name in kept.items()}


def strays(root: Path) -> list[str]:
    """Hidden files and files of unfinished writing, but for the empty file that is a dead holder's lock."""
    everything = (path for folder in ("data", "folds", "oof", "checkpoints", "submissions") for path in
                  (root / folder).rglob("*"))  # fmt: skip
    hidden = (path for path in everything if path.is_file() and (path.name[0] == "." or path.suffix == ".tmp"))
    return sorted(str(path.relative_to(root)) for path in hidden if path.suffix != ".lock" or path.stat().st_size)


class WriteSteps:
    """Counts the moments at which a file is forced to the disk or gets its name, and dies at the chosen one."""

    def __init__(self, at: int = 0, named: str = "", half: bool = False):
        self.at, self.named, self.half, self.count = at, named, half, 0
        self.told: Path | None = None
        self.fsync, self.replace = os.fsync, os.replace

    def install(self) -> None:
        os.fsync, os.replace = self._fsync, self._replace

    def install_and_tell(self) -> None:
        """As `install`; the count so far stands in the file `steps` of the root."""
        self.told = Path(os.environ["FOLDBLEND_ROOT"]) / "steps"
        self.install()

    def _fsync(self, descriptor: int) -> None:
        self._step(lambda: self._cut(descriptor))
        self.fsync(descriptor)

    def _replace(self, source, target, **more) -> None:
        if self.named and re.search(self.named, str(target)):
            self._die(lambda: self._cut_file(source))
        self._step(lambda: self._cut_file(source))
        self.replace(source, target, **more)

    def _step(self, cut: Callable[[], None]) -> None:
        self.count += 1
        if self.told:
            self.told.write_text(str(self.count))
        if self.count == self.at:
            self._die(cut)

    def _die(self, cut: Callable[[], None]) -> None:
        """kill -9, with half of what was to be written on the disk where so asked."""
        if self.half:
            cut()
        os.kill(os.getpid(), signal.SIGKILL)

    def _cut_file(self, path) -> None:
        os.truncate(path, os.path.getsize(path) // 2)

    def _cut(self, descriptor: int) -> None:
        if os.path.isfile(f"/proc/self/fd/{descriptor}"):
            self._cut_file(os.readlink(f"/proc/self/fd/{descriptor}"))


def copy_root(template: Path, root: Path) -> Path:
    """The root of one experiment: what the competitor has before the first command."""
    shutil.copytree(template, root)
    return root


def import_everything() -> None:
    """What the commands import, now, before anything is forked."""
    import foldblend.learners.encoder
    import foldblend.learners.tfidf  # noqa: F401
    from foldblend.commands import (
        blend,  # noqa: F401
        make_folds,  # noqa: F401
        train,  # noqa: F401
    )

    gc.freeze()


def snapshot(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of every file below, hidden ones apart."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
