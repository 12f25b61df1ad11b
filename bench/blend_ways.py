"""The ways to blend that people use, on the arrays of blend_data.py; each answers dev and test rows together.

Those that need a library of their own (hillclimbers, AutoGluon, Optuna) are quoted by blend_goemotions.py instead.
"""

import numpy as np
from blend_data import Bench
from scipy.optimize import differential_evolution, minimize
from sklearn.linear_model import LogisticRegression

from foldblend.scoring.ensembling.predictors import mix
from foldblend.scoring.ensembling.strategies import climb_once
from foldblend.scoring.inputs import Task, logit, sigmoid
from foldblend.scoring.metrics.formulas import label_f1, macro_f1
from foldblend.scoring.thresholds.exact import tune_thresholds

TASK = Task("macro_f1")


def usual_ways(bench: Bench, seed: int) -> dict[str, np.ndarray]:
    """Decisions bool (D + T, L) on dev and test rows, by the name of the way."""
    oof, labels = [sigmoid(run) for run in bench.oof], bench.labels
    hidden = [sigmoid(np.concatenate([d.mean(0), t.mean(0)])) for d, t in zip(bench.dev, bench.test, strict=True)]
    reached = [macro_f1(labels, run >= tune_thresholds(run, labels)) for run in oof]
    single, equal = int(np.argmax(reached)), np.full(len(oof), 1 / len(oof))

    def weighted(weights):
        return mix(hidden, weights) >= tune_thresholds(mix(oof, weights), labels)

    return {
        "best single at 0.5": hidden[single] >= 0.5,
        "best single, 0.01 grid": hidden[single] >= grid_thresholds(oof[single], labels),
        "best single, exact": hidden[single] >= tune_thresholds(oof[single], labels),
        "equal mean at 0.5": mix(hidden, equal) >= 0.5,
        "equal mean, exact": weighted(equal),
        "Caruana, exact": weighted(climb_once(TASK, oof, labels)),
        "Caruana a class, exact": by_class(oof, hidden, labels),
        "Nelder-Mead weights, exact": weighted(search_nelder_mead(oof, labels)),
        "differential evolution, exact": weighted(search_evolution(oof, labels, seed)),
        "LR stack on logits, exact": stack_regressions(bench, hidden),
    }


def grid_thresholds(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The best of 0.01, 0.02, ... a label."""
    grid = np.arange(0.01, 1.0, 0.01, dtype=np.float32)
    return grid[np.argmax([label_f1(labels, probs >= cut) for cut in grid], axis=0)]


def by_class(oof: list[np.ndarray], hidden: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """A greedy ensemble of its own for each label."""
    answer = np.empty(hidden[0].shape, bool)
    for label in range(labels.shape[1]):
        one, there, truth = ([run[:, [label]] for run in runs] for runs in (oof, hidden, [labels]))
        weights = climb_once(TASK, one, truth[0])
        answer[:, [label]] = mix(there, weights) >= tune_thresholds(mix(one, weights), truth[0])
    return answer


def _loss(weights, oof, labels):
    weights = np.abs(weights) / max(np.abs(weights).sum(), 1e-9)
    mixed = np.clip(mix(oof, weights), 0, 1)
    return -macro_f1(labels, mixed >= tune_thresholds(mixed, labels))


def _normal(weights):
    return np.abs(weights) / np.abs(weights).sum()


def search_nelder_mead(oof: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Weights by Nelder-Mead from the equal mean, thresholds tuned inside: float64 (M,)."""
    start = np.full(len(oof), 1 / len(oof))
    found = minimize(_loss, start, (oof, labels), method="Nelder-Mead", options={"maxfev": 300})
    return _normal(found.x)


def search_evolution(oof: list[np.ndarray], labels: np.ndarray, seed: int) -> np.ndarray:
    """Weights by differential evolution, thresholds tuned inside: float64 (M,)."""
    bounds = [(0, 1)] * len(oof)
    found = differential_evolution(_loss, bounds, (oof, labels), maxiter=8, popsize=5, seed=seed, polish=False)
    return _normal(found.x)


def stack_regressions(bench: Bench, hidden: list[np.ndarray]) -> np.ndarray:
    """A logistic regression per label on the runs' log-odds; thresholds tuned on its predictions across the folds."""
    answer = np.empty(hidden[0].shape, bool)
    there = np.stack([logit(run) for run in hidden], axis=2)
    for label in range(bench.labels.shape[1]):
        features, target = np.stack([run[:, label] for run in bench.oof], axis=1), bench.labels[:, label]
        crossed = np.empty((len(target), 1), np.float32)
        for fold in range(int(bench.fold.max()) + 1):
            held = bench.fold == fold
            model = LogisticRegression(max_iter=300).fit(features[~held], target[~held])
            crossed[held, 0] = model.predict_proba(features[held])[:, 1]
        whole = LogisticRegression(max_iter=300).fit(features, target)
        cut = tune_thresholds(crossed, target[:, None])
        answer[:, label] = whole.predict_proba(there[:, label])[:, 1].astype(np.float32) >= cut
    return answer
