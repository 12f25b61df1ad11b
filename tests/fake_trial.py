"""Stands in for train.py where a study is tested: writes a fold of the competition `small` at once.

Held-out predictions are better the nearer logistic.inverse_regularization is to 1, and the score beside them is less
the larger it is.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from foldblend.commands import guard
from foldblend.data.tables import load_tables
from foldblend.ledger.folds import load_folds
from foldblend.ledger.history import FoldHistory, history_path
from foldblend.ledger.oof import training_lock, write_fold
from foldblend.predictions import FoldPredictions
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths

sys.path.insert(0, str(Path(__file__).parent / "commands"))
from small_competition import N_ROWS, hidden_log_odds


class FakeTraining:
    """As queueing.queue.Training, in this process: a look at the held-out rows first, then the fold."""

    largest = float("inf")
    """A training with a larger value crashes."""

    def __init__(self, job, slot, threads):
        self.job, self.slot, self.seconds, self.progress, self.lines = job, slot, 1.0, "", ["error: too large"]
        self.process, self.n_polls, self.stopped = self, 0, False
        self.flags = dict(zip(job.command[2::2], job.command[3::2], strict=True))
        with open(study_paths(self.flags).oof("small") / "starts.txt", "a") as log:
            log.write(f"{job.name}\n")

    def poll(self):
        self.n_polls += 1
        if self.stopped:
            return 143
        if strength_of(self.flags) > self.largest:
            return 1
        if self.n_polls == 1:
            note_look(self.flags)
        if self.n_polls < 20:
            return None
        train(self.flags)
        return 0

    def new_lines(self):
        return []

    def error_lines(self):
        return self.lines

    def ask_to_stop(self):
        self.stopped = True


def study_paths(flags):
    return Paths(Path(os.environ["FOLDBLEND_ROOT"]), flags["--study"])


def strength_of(flags):
    return float(flags.get("--logistic.inverse_regularization", 20))


def note_look(flags):
    """A held-out score in the middle of the training."""
    history = FoldHistory(history_path(study_paths(flags), "small", flags["--name"], int(flags["--fold"])))
    history.start(0)
    score = 1 / strength_of(flags)
    history.add({"step": 5, "steps": 10, "rows": 5, "seconds": 1, "heldout_macro_f1": score})


def train(flags):
    paths, name, fold, strength = study_paths(flags), flags["--name"], int(flags["--fold"]), strength_of(flags)
    competition = load_competition(paths, "small")
    tables = load_tables(competition, paths.data("small"))
    folds = load_folds(paths, "small", tables, competition)
    rng = np.random.default_rng([int(flags.get("--seed", 42)), fold])
    hidden = hidden_log_odds()
    seen = (hidden + (0.3 + 2 * abs(np.log(strength))) * rng.normal(size=hidden.shape)).astype(np.float32)
    rows = np.flatnonzero(folds.fold == fold)
    predictions = FoldPredictions(fold, rows, seen[rows], seen[N_ROWS:], "logits", {"macro_f1": 1 / strength})
    settings = {"learner": "tfidf", "logistic": {"inverse_regularization": strength}}
    write_fold(paths, "small", name, folds, tables, predictions, {"settings": settings, "seconds": 1.0})


def main(flags):
    fold = study_paths(flags).oof("small") / flags["--name"] / f"fold{flags['--fold']}.json"
    with training_lock(study_paths(flags), "small", flags["--name"], int(flags["--fold"])):
        if not fold.exists():
            time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
            train(flags)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True)))))
