"""Made-up runs for the scoring tests: a hidden logit a label, seen by each run through its own noise and scale."""

import numpy as np

from foldblend.scoring.ensembling.strategies import Given
from foldblend.scoring.inputs import Partition, Runs, Scores, Task, sigmoid


def make_runs(n_rows=300, n_labels=4, noise=(0.5, 1.0, 2.0), seed=0, kind="multilabel") -> Runs:
    """One run a noise level; label l has a rate between 0.1 and 0.5."""
    rng = np.random.default_rng(seed)
    hidden = 2 * rng.normal(size=(n_rows, n_labels)) - np.linspace(0.5, 2.5, n_labels)
    if kind == "multilabel":
        labels = rng.random(hidden.shape) < sigmoid(hidden)
    else:
        labels = np.eye(n_labels, dtype=bool)[(hidden + rng.gumbel(size=hidden.shape)).argmax(axis=1)]
    scores = [(hidden + level * rng.normal(size=hidden.shape)).astype(np.float32) for level in noise]
    names = tuple(f"run{number}" for number in range(len(noise)))
    return Runs(names, Scores(scores), labels, np.arange(n_rows) % 5, np.arange(n_rows))


def give(runs: Runs, metric="macro_f1", kind="multilabel") -> Given:
    return Given(Task(metric, kind), runs.scores, runs.labels, Partition(runs.fold), 0)
