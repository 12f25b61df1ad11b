"""Direct searches for ensemble weights that climb the metric itself, one set of weights for all labels.

Both tune thresholds for each mixture they try. They look at few rows, for F1 is a staircase and its highest step is
an accident of the rows; the stacks in `stacking.py` climb log loss instead.
"""

from collections.abc import Iterator

import numpy as np

from foldblend.scoring.ensembling.predictors import mix
from foldblend.scoring.inputs import Task
from foldblend.scoring.thresholds.rules import decide, tune_quickly

MAX_MEMBERS = 8
"""Models that one hill climb takes, with repeats."""
N_BAGS = 3
"""Hill climbs averaged, each over a random half of the rows."""
STEPS = (0.2, 0.1, 0.05)
"""Weight that coordinate search moves at a time."""


def quick_score(task: Task, probs: np.ndarray, labels: np.ndarray) -> float:
    """The metric with thresholds tuned on the same rows: what a search climbs."""
    return task.score(labels, decide(tune_quickly(task, probs, labels), probs))


def climb_hill(task: Task, runs: list[np.ndarray], labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Greedy selection with replacement, bagged: float64 (M,) weights >= 0 with sum 1.

    Args:   runs: M tables of probabilities, float32 (n, L).   labels: bool (n, L).
    Source: Caruana et al. 2004, "Ensemble selection from libraries of models".
    """
    weights = np.zeros(len(runs))
    for _ in range(N_BAGS):
        rows = rng.permutation(len(labels))[: max(len(labels) // 2, 1)]
        weights += climb_once(task, [run[rows] for run in runs], labels[rows])
    return weights / weights.sum()


def climb_once(task: Task, runs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """The best prefix of one greedy path: float64 (M,) weights."""
    counts, total = np.zeros(len(runs)), np.zeros(labels.shape, np.float32)
    best_score, best = -np.inf, counts
    for size in range(1, MAX_MEMBERS + 1):
        reached = [quick_score(task, (total + run) / np.float32(size), labels) for run in runs]
        picked = int(np.argmax(reached))
        counts[picked] += 1
        total += runs[picked]
        if reached[picked] > best_score:
            best_score, best = reached[picked], counts.copy()
    return best / best.sum()


def search_coordinates(task: Task, runs: list[np.ndarray], labels: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    """Coordinate search from the best single run: weight moves to or from one run while the metric rises."""
    singles = [quick_score(task, run, labels) for run in runs]
    weights, best = np.eye(len(runs))[int(np.argmax(singles))], max(singles)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for moved in _neighbours(weights, step):
                score = quick_score(task, mix(runs, moved), labels)
                if score > best + 1e-6:
                    weights, best, improved = moved, score, True
    return weights


def _neighbours(weights: np.ndarray, step: float) -> Iterator[np.ndarray]:
    """Weights with one run's weight moved up or down by a step, the others scaled to keep the sum at 1."""
    for run in range(len(weights)):
        for wanted in (weights[run] + step, weights[run] - step):
            rest = 1 - weights[run]
            if 0 <= wanted <= 1 and rest > 0:
                moved = weights * (1 - wanted) / rest
                moved[run] = wanted
                yield moved
