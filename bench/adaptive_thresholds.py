"""Adaptive thresholds against robust ones, on rows drawn from the GoEmotions OOF rows; the truth is 10,853 other rows.

    python bench/adaptive_thresholds.py --draws 40

Two predictions that need no fit, so that only the thresholds differ: the mean of nine runs, and minilm_ft, whose test
rows are answered by the mean of its five fold models. "One fold": other OOF rows. "Average": the dev and test rows.
"""

import argparse

import numpy as np
from blend_data import Bench, load_bench
from blend_small import N_TRUTH, TASK

from foldblend.scoring.inputs import sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.thresholds.rules import decide, tune_rule


def predictions(bench: Bench) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name: float32 probabilities (N, L) of the OOF rows and (D + T, L) of dev and test rows."""
    tuned = bench.runs.index("minilm_ft")
    others = [run for run in range(len(bench.runs)) if run != tuned]

    def both(run: int) -> np.ndarray:
        return np.concatenate([sigmoid(bench.dev[run]).mean(axis=0), sigmoid(bench.test[run]).mean(axis=0)])

    return {
        "mean of nine": (
            np.mean([sigmoid(bench.oof[run]) for run in others], axis=0),
            np.mean([both(run) for run in others], axis=0),
        ),
        "minilm_ft": (sigmoid(bench.oof[tuned]), both(tuned)),
    }


def gains(bench: Bench, oof: np.ndarray, hidden: np.ndarray, n_rows: int, seed: int) -> tuple[float, float]:
    """What adaptive thresholds gain on other OOF rows, and on the dev and test rows."""
    order = np.random.default_rng([77, seed, n_rows]).permutation(len(oof))
    rows, others = order[:n_rows], order[n_rows : n_rows + N_TRUTH]
    rule = tune_rule(TASK, "adaptive", oof[rows], bench.labels[rows])
    truths = [(oof[others], bench.labels[others])]
    truths.append((hidden, np.concatenate([bench.dev_labels, bench.test_labels])))
    one_fold, average = (
        macro_f1(labels, decide(rule, probs)) - macro_f1(labels, probs >= rule.thresholds) for probs, labels in truths
    )
    return one_fold, average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 2000, 5000])
    parser.add_argument("--draws", type=int, default=40)
    asked = parser.parse_args()
    bench = load_bench()
    print("predictions     rows   one fold (s.e.)   average (s.e.)")
    for name, (oof, hidden) in predictions(bench).items():
        for n_rows in asked.rows:
            drawn = np.array([gains(bench, oof, hidden, n_rows, seed) for seed in range(asked.draws)])
            means, errors = drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / len(drawn) ** 0.5
            cells = [f"{mean:+.4f} ({error:.4f})" for mean, error in zip(means, errors, strict=True)]
            print(f"{name:14} {n_rows:5}  {cells[0]}  {cells[1]}", flush=True)


if __name__ == "__main__":
    main()
