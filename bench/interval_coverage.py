"""Simulated competitions with known truth: does the 90 % interval hold it in 90 % of them, and is the score right?

    python bench/interval_coverage.py --seeds 100000:100500 --jobs 2
    python bench/interval_coverage.py --seeds 100000:100500 --report    # the table of what is finished

One seed is one competition: its labels (1 to 100), rows (300 to 8,000), folds (2 to 10), rates (0.3 to 0.002),
duplicate groups, runs and test sets are drawn from it. It goes through the real blend. Per world there are several test
sets of the same size, so that the luck of the test rows averages out. Finished worlds are lines of a .jsonl in --into;
a second call goes on behind them. Constants were chosen on seeds below 100,000; quote seeds from there on.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from blend_data import PROJECT

from foldblend.cores import single_threaded_products
from foldblend.scoring.blending import make_blend
from foldblend.scoring.ensembling.predictors import Recipe, mix
from foldblend.scoring.ensembling.strategies import climb_once
from foldblend.scoring.inputs import Runs, Scores, Task, sigmoid, split_into_parts
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.report import describe_blend, report_record
from foldblend.scoring.thresholds.exact import tune_thresholds
from foldblend.scoring.thresholds.rules import decide

TASK = Task("macro_f1")
N_TESTS = {300: 8, 10_000: 1}
"""Test sets per world by their rows; forecast and interval are made anew for each."""
MOST_CELLS = 30_000
"""Rows x labels of a world at most: bench speed is what limits it, not what is measured."""
SIGNAL = 2.5
"""Standard deviation of a row's true log-odds of a label."""

# ---------- A world


@dataclass(frozen=True)
class World:
    """What is drawn before the rows are."""

    n_rows: int
    n_labels: int
    n_folds: int
    n_test: int
    group_size: int
    """Rows per duplicate group; half of the rows are in groups, the others alone."""
    lowest_rate: float
    """Label rates fall from 0.3 to this, evenly on the log scale."""
    calibrated: bool
    correlation: float
    """Share of the labels' true log-odds that comes from factors they have in common."""
    n_runs: int
    dominant: bool
    """Whether one run sees much more than all others."""


def draw_world(rng: np.random.Generator) -> World:
    """Every setting by itself, drawn again until rows x labels are few enough."""
    while True:
        n_rows, n_labels = int(rng.choice([300, 1000, 2500, 8000])), int(rng.choice([1, 3, 8, 20, 50, 100]))
        if n_rows * n_labels <= MOST_CELLS:
            break
    return World(
        n_rows, n_labels,
        n_folds=int(rng.choice([2, 3, 5, 10])),
        n_test=int(rng.choice([300, 10_000])),
        group_size=int(rng.choice([1, 5, 20], p=[0.5, 0.25, 0.25])),
        lowest_rate=float(rng.choice([0.3, 0.03, 0.002])),
        calibrated=bool(rng.random() < 0.5),
        correlation=float(rng.choice([0.0, 0.6])),
        n_runs=int(rng.integers(2, 6)),
        dominant=bool(rng.random() < 0.25),
    )  # fmt: skip


@dataclass
class Truth:
    """How labels come about and what each run sees of a row."""

    world: World
    base: np.ndarray
    """float64 (L,): mean true log-odds."""
    loadings: np.ndarray
    """float64 (2, L): of the factors that labels have in common, unit columns."""
    noise: np.ndarray
    """float64 (M, 2): standard deviation of what a run sees wrongly, the same in all folds, and anew in each fold."""
    shared_noise: float
    """The same, of what all runs see wrongly together."""
    bend: np.ndarray
    """float64 (M, 2, L): slope and shift of a run's log-odds; 1 and 0 if it is calibrated."""


def draw_truth(world: World, rng: np.random.Generator) -> Truth:
    rates = np.geomspace(0.3, world.lowest_rate, world.n_labels)
    loadings = rng.normal(size=(2, world.n_labels))
    noise = SIGNAL * np.column_stack([rng.uniform(0.4, 1.4, world.n_runs), rng.uniform(0.2, 0.7, world.n_runs)])
    if world.dominant:
        noise[:, 0] += 1.0 * SIGNAL
        noise[0] = 0.3 * SIGNAL
    bend = np.stack([np.ones((world.n_runs, world.n_labels)), np.zeros((world.n_runs, world.n_labels))], axis=1)
    if not world.calibrated:
        bend[:, 0] = np.exp(rng.normal(0, 0.4, (world.n_runs, 1)) + rng.normal(0, 0.15, bend[:, 0].shape))
        bend[:, 1] = rng.normal(0, 0.7, (world.n_runs, 1)) + rng.normal(0, 0.4, bend[:, 1].shape)
    shared = SIGNAL * rng.uniform(0.1, 0.5)
    return Truth(world, _base_of(rates), loadings / np.linalg.norm(loadings, axis=0), noise, shared, bend)


def _base_of(rates: np.ndarray) -> np.ndarray:
    """The mean log-odds at which labels have these rates, float64 (L,), by bisection."""
    spread = SIGNAL * np.random.default_rng(0).normal(size=20_000)
    low, high = np.full(len(rates), -40.0), np.full(len(rates), 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        reached = np.array([sigmoid(spread + each).mean() for each in middle])
        low, high = np.where(reached < rates, middle, low), np.where(reached < rates, high, middle)
    return (low + high) / 2


@dataclass
class Rows:
    """Rows of a world: what every fold's model says of them, and the truth."""

    scores: list[np.ndarray]
    """M arrays float32 (K, N, L), log-odds."""
    labels: np.ndarray
    group: np.ndarray


def draw_rows(truth: Truth, n_rows: int, rng: np.random.Generator) -> Rows:
    """Rows in duplicate groups, with nearly the same text and so nearly the same scores and labels per group."""
    world = truth.world
    shape = (n_rows, world.n_labels)
    group = np.arange(n_rows)
    if world.group_size > 1:
        grouped = n_rows // 2 // world.group_size * world.group_size
        group[:grouped] = np.arange(grouped) // world.group_size
    group = np.unique(group, return_inverse=True)[1]

    def common(*dims: int) -> np.ndarray:
        """Standard normal noise that the rows of a group nearly share, float32 (..., N, L)."""
        if world.group_size == 1:
            return rng.standard_normal((*dims, *shape), np.float32)
        drawn = np.float32(0.97**0.5) * rng.standard_normal((*dims, group.max() + 1, shape[1]), np.float32)
        return drawn[..., group, :] + np.float32(0.03**0.5) * rng.standard_normal((*dims, *shape), np.float32)

    factors = rng.normal(size=(group.max() + 1, 2))[group]
    share = world.correlation
    signal = SIGNAL * (np.sqrt(share) * factors @ truth.loadings + np.sqrt(1 - share) * common())
    drawn = rng.random((group.max() + 1, world.n_labels))[group]  # a group's rows mostly have the same labels
    anew = rng.random(shape) < (0.0 if world.group_size == 1 else 0.05)
    labels = np.where(anew, rng.random(shape), drawn) < sigmoid(signal + truth.base)
    together, scores = truth.shared_noise * common(), []
    for (lasting, of_fold), (slope, shift) in zip(truth.noise, truth.bend, strict=True):
        seen = signal + together + lasting * common() + of_fold * common(world.n_folds)  # (K, N, L)
        variance = truth.shared_noise**2 + lasting**2 + of_fold**2
        kept = SIGNAL**2 / (SIGNAL**2 + variance)  # the posterior mean of the signal is this share of what is seen
        flat = 1 / np.sqrt(1 + np.pi / 8 * SIGNAL**2 * (1 - kept))  # a logistic mean over the rest (MacKay 1992)
        scores.append((slope * flat * (truth.base + kept * seen) + shift).astype(np.float32))
    return Rows(scores, labels, group)


# ---------- Playing it


def play(seed: int, strategy: str = "") -> dict:
    """One world: what was promised, and what was true on each of its test sets."""
    started = time.process_time()
    rng = np.random.default_rng([17, seed])
    world = draw_world(rng)
    truth = draw_truth(world, rng)
    train = draw_rows(truth, world.n_rows, rng)
    fold = rng.permutation(np.arange(train.group.max() + 1) % world.n_folds)[train.group]
    oof = [run[fold, np.arange(world.n_rows)] for run in train.scores]
    scores = [TASK.to_scores(run, "logits") for run in oof]
    names = tuple(f"run{number}" for number in range(world.n_runs))
    runs = Runs(names, Scores(scores), train.labels, split_into_parts(fold, train.group), train.group)
    blend = make_blend(TASK, runs, strategy, seed)
    naive = naive_blend(scores, train.labels)
    tests = []
    for _ in range(N_TESTS[world.n_test]):
        test = draw_rows(truth, world.n_test, rng)
        tests.append(score_test(blend, naive, [list(TASK.to_scores(run, "logits")) for run in test.scores], test, seed))
    return {
        "seed": seed, **asdict(world), "chosen": blend.choice.name, "row_rule": blend.row_rule,
        "in_sample": blend.choice.in_sample, "naive_in_sample": naive[2], "tests": tests,
        "seconds": time.process_time() - started,
    }  # fmt: skip


def naive_blend(scores: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Caruana's weights and exact thresholds on all rows, and the score on the same rows that people quote."""
    probs = [sigmoid(run) for run in scores]
    weights = climb_once(TASK, probs, labels)
    mixed = mix(probs, weights)
    thresholds = tune_thresholds(mixed, labels)
    return weights, thresholds, macro_f1(labels, mixed >= thresholds)


def score_test(blend, naive, test_scores: list[list[np.ndarray]], test: Rows, seed: int) -> dict:
    """One test set: the two forecasts and intervals, the two truths, and the truth of Caruana's blend."""
    recipe = Recipe(TASK.kind, blend.predictor, blend.rule)
    fold_probs = recipe.fold_probs(test_scores)
    report = describe_blend(TASK, blend, fold_probs, seed, weighs_runs=False)
    said = report_record(TASK, blend, report, [f"label{k}" for k in range(test.labels.shape[1])])
    one_fold = np.mean([macro_f1(test.labels, decide(blend.rule, probs)) for probs in fold_probs])
    weights, thresholds, _ = naive
    mixed = np.mean([mix([sigmoid(run[k]) for run in test_scores], weights) for k in range(len(fold_probs))], axis=0)
    return {
        "honest": report.honest, "one_fold": said["expected_one_fold"], "mean": said["expected_fold_mean"],
        "true_one_fold": float(one_fold), "true_mean": macro_f1(test.labels, recipe.answer(fold_probs)[1]),
        "true_naive": macro_f1(test.labels, mixed.astype(np.float32) >= thresholds),
    }  # fmt: skip


# ---------- The table


FACTORS = ("n_test", "n_rows", "n_labels", "n_folds", "group_size", "lowest_rate", "calibrated", "correlation",
           "n_runs", "dominant")  # fmt: skip


def summary(worlds: list[dict]) -> dict[str, tuple[float, float]]:
    """Means over worlds and their standard errors, by what is measured; a world's test sets are averaged first."""

    def each(measure) -> tuple[float, float]:
        values = np.array([np.mean([measure(world, test) for test in world["tests"]]) for world in worlds])
        return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan

    found = {}
    for kind in ("one_fold", "mean"):
        found[f"{kind} held"] = each(lambda _, t, k=kind: t[k]["low"] <= t[f"true_{k}"] <= t[k]["high"])
        found[f"{kind} bias"] = each(lambda _, t, k=kind: t[k]["score"] - t[f"true_{k}"])
        found[f"{kind} error"] = each(lambda _, t, k=kind: abs(t[k]["score"] - t[f"true_{k}"]))
    found["in-sample bias"] = each(lambda world, t: world["in_sample"] - t["true_mean"])
    found["in-sample error"] = each(lambda world, t: abs(world["in_sample"] - t["true_mean"]))
    found["Caruana bias"] = each(lambda world, t: world["naive_in_sample"] - t["true_naive"])
    found["Caruana error"] = each(lambda world, t: abs(world["naive_in_sample"] - t["true_naive"]))
    found["above Caruana"] = each(lambda _, t: t["true_mean"] - t["true_naive"])
    return found


def table(worlds: list[dict]) -> list[str]:
    """One line per value of each factor, and of all together; standard errors in brackets."""
    lines = [
        f"{len(worlds)} worlds, seeds {min(w['seed'] for w in worlds)} to {max(w['seed'] for w in worlds)}, "
        f"{np.mean([w['seconds'] for w in worlds]):.1f} s of CPU each",
        f"{'':18} {'':>6}  {'90 % interval held':^25}  {'bias of the forecast':^31}  absolute error",
        f"{'cell':18} {'worlds':>6}  {'one fold':>12} {'mean':>12}  {'one fold':>15} {'mean':>15}"
        "  one fold    mean  in-sample  Caruana's",
    ]
    lines.append(_line("all", worlds))
    for factor in FACTORS:
        lines += [
            _line(f"{factor} {value}", [world for world in worlds if world[factor] == value])
            for value in sorted({world[factor] for world in worlds})
        ]
    for size in sorted({world["group_size"] for world in worlds}):
        for n_test in sorted({world["n_test"] for world in worlds}):
            cell = [world for world in worlds if (world["group_size"], world["n_test"]) == (size, n_test)]
            lines.append(_line(f"group {size} test {n_test}", cell))
    for name, (mean, error) in summary(worlds).items():
        if name.startswith(("in-sample", "Caruana", "above")):
            lines.append(f"{name:18} {mean:+.4f} ({error:.4f})")
    return lines


def _line(name: str, worlds: list[dict]) -> str:
    if not worlds:
        return f"{name:18} {0:6}"
    found = summary(worlds)
    held = [f"{found[f'{kind} held'][0]:.3f} ({found[f'{kind} held'][1]:.3f})" for kind in ("one_fold", "mean")]
    bias = [f"{found[f'{kind} bias'][0]:+.4f} ({found[f'{kind} bias'][1]:.4f})" for kind in ("one_fold", "mean")]
    return (
        f"{name:18} {len(worlds):6}  {held[0]:>12} {held[1]:>12}  {bias[0]:>15} {bias[1]:>15}"
        f"  {found['one_fold error'][0]:8.4f}  {found['mean error'][0]:6.4f}  {found['in-sample error'][0]:9.4f}"
        f"  {found['Caruana error'][0]:9.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", required=True, help="FIRST:LAST, the last one not included")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--strategy", default="", help="force this candidate instead of choosing one")
    parser.add_argument("--into", type=Path, default=PROJECT / "bench" / "figures" / "coverage.jsonl")
    parser.add_argument("--report", action="store_true", help="print the table of finished worlds only")
    asked = parser.parse_args()
    seeds = range(*(int(end) for end in asked.seeds.split(":")))
    done = [json.loads(line) for line in asked.into.read_text().splitlines()] if asked.into.is_file() else []
    done = [world for world in done if world["seed"] in seeds]
    if not asked.report:
        left = sorted(set(seeds) - {world["seed"] for world in done})
        asked.into.parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(asked.jobs) as pool, asked.into.open("a") as file:
            for future in as_completed([pool.submit(play_quietly, seed, asked.strategy) for seed in left]):
                done.append(future.result())
                file.write(json.dumps(done[-1]) + "\n")
                file.flush()
    print("\n".join(table(done)))


@single_threaded_products()
def play_quietly(seed: int, strategy: str) -> dict:
    """`play` on one core."""
    os.environ["FOLDBLEND_THREADS"] = "1"
    return play(seed, strategy)


if __name__ == "__main__":
    main()
