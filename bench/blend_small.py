"""Small competitions drawn from the GoEmotions OOF rows, where the truth of every strategy is known.

    python bench/blend_small.py --rows 1000 2000 5000 --seeds 0:20
    python bench/blend_small.py --rows 1000 2000 --seeds 1000:1012 --pool all --quick

Each draw takes rows of nine runs (`--pool all`: of ten, minilm_ft among them, which is far above the others) as a
competition of its own. `--quick` compares the trusted blend with the one of before version 0.3 and nothing else.
The truth of one fold's models is the score on 10,853 other OOF rows; that of the fold average is the score on dev and
test together. Without `--pool all` and `--quick` it writes bench/figures/small_competitions.json, which
bench/blend_figure.py draws.
"""

import argparse
import json
from dataclasses import dataclass

import numpy as np
from blend_data import PROJECT, Bench, load_bench

from foldblend.cores import single_threaded_products
from foldblend.scoring.blending import Blend, make_blend
from foldblend.scoring.ensembling.predictors import mix
from foldblend.scoring.ensembling.strategies import STRATEGIES, Given, climb_once
from foldblend.scoring.inputs import Partition, Runs, Scores, Task, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.report import TestFacts, describe_blend
from foldblend.scoring.thresholds.exact import tune_thresholds
from foldblend.scoring.thresholds.rules import Rule, decide, tune_rule
from foldblend.scoring.validation.choice import predict_outer

TASK = Task("macro_f1")
N_TRUTH = 10_853
"""Rows that each draw's truth is taken from, as many as dev and test have."""
RESULTS = PROJECT / "bench" / "figures" / "small_competitions.json"


@dataclass
class Draw:
    """One small competition and the two sets of rows that know its truth: (scores, labels)."""

    runs: Runs
    truths: dict[str, tuple[list[np.ndarray], np.ndarray]]


def draw_competition(bench: Bench, n_rows: int, seed: int, pool: str = "nine") -> Draw:
    """Rows at random, folds at random, nine runs or all."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(bench.labels))
    rows, others = order[:n_rows], order[n_rows : n_rows + N_TRUTH]
    used = [number for number, name in enumerate(bench.runs) if pool == "all" or name != "minilm_ft"]
    fold = rng.permutation(n_rows) % 5
    runs = Runs(
        tuple(bench.runs[k] for k in used), Scores([bench.oof[k][rows] for k in used]), bench.labels[rows], fold,
        np.arange(n_rows),
    )  # fmt: skip
    hidden = [np.concatenate([bench.dev[k].mean(axis=0), bench.test[k].mean(axis=0)]) for k in used]
    both = np.concatenate([bench.dev_labels, bench.test_labels])
    return Draw(
        runs, {"one fold": ([bench.oof[k][others] for k in used], bench.labels[others]), "average": (hidden, both)}
    )


def score_truths(draw: Draw, predict, rule: Rule) -> dict[str, float]:
    """True macro-F1 of a way of predicting, by kind of truth."""
    return {
        kind: macro_f1(labels, decide(rule, predict(scores))) for kind, (scores, labels) in draw.truths.items()
    }  # fmt: skip


def score_naive(draw: Draw) -> dict[str, dict]:
    """What people do: exact thresholds on the rows that are scored, best run, equal mean, Caruana."""
    labels, probs = draw.runs.labels, [sigmoid(run) for run in draw.runs.scores.runs]
    reached = [macro_f1(labels, run >= tune_thresholds(run, labels)) for run in probs]
    ways = {"best run, exact": np.eye(len(probs))[int(np.argmax(reached))]}
    ways["equal mean, exact"] = np.full(len(probs), 1 / len(probs))
    ways["Caruana, exact"] = climb_once(TASK, probs, labels)
    table = {}
    for name, weights in ways.items():
        mixed = mix(probs, weights)
        rule = Rule(thresholds=tune_thresholds(mixed, labels))

        def predict(scores, weights=weights):
            return mix([sigmoid(run) for run in scores], weights)

        table[name] = {"in": macro_f1(labels, decide(rule, mixed)), **score_truths(draw, predict, rule)}
    return table


def score_strategies(draw: Draw, blend: Blend) -> dict[str, dict]:
    """Every blend of our own as if it had been forced."""
    given = Given(TASK, draw.runs.scores, draw.runs.labels, Partition(draw.runs.fold), 0)
    table, outer = {}, {}
    for candidate in blend.candidates:
        if candidate.is_single:
            continue
        fit = candidate.fits[0]
        strategy = blend.strategies[fit.strategy]
        if fit.strategy not in outer:
            outer[fit.strategy] = predict_outer(strategy, given)
        rule = tune_rule(TASK, fit.tuning, outer[fit.strategy], draw.runs.labels)
        predictor = strategy.predictor(given.partition.n_parts, 0)
        truths = score_truths(draw, lambda scores, predictor=predictor: predictor.predict(Scores(scores)), rule)
        table[candidate.name] = {"in": candidate.in_sample, "cf": candidate.score, **truths}
    return table


NOW, BEFORE = "mean_of_blends + adaptive", "shrunk_stack + robust"
"""The trusted line, and that of before version 0.3."""


def play_quickly(bench: Bench, n_rows: int, seed: int, pool: str) -> dict:
    """One draw: the truths of these two lines and of what is between them, fitted on all rows."""
    draw = draw_competition(bench, n_rows, seed, pool)
    given = Given(TASK, draw.runs.scores, draw.runs.labels, Partition(draw.runs.fold), seed)
    truths = {}
    for name in ("mean_of_blends", "shrunk_stack"):
        strategy = STRATEGIES[name](given)
        outer, predictor = predict_outer(strategy, given), strategy.predictor(given.partition.n_parts, 0)
        for tuning in ("adaptive", "robust"):
            rule = tune_rule(TASK, tuning, outer, draw.runs.labels)
            truths[f"{name} + {tuning}"] = score_truths(
                draw, lambda scores, predictor=predictor: predictor.predict(Scores(scores)), rule
            )
    return truths


def quick_report(n_rows: int, pool: str, draws: list[dict]) -> list[str]:
    """What each line scores above the one of before, with standard errors over draws."""
    lines = [f"{n_rows} rows, pool {pool}, {len(draws)} draws: above {BEFORE}, one fold and average"]
    for name in draws[0]:
        gains = [np.array([d[name][kind] - d[BEFORE][kind] for d in draws]) for kind in ("one fold", "average")]
        cells = [f"{gain.mean():+.4f} ({gain.std(ddof=1) / len(gain) ** 0.5:.4f})" for gain in gains if name != BEFORE]
        lines.append(f"  {name:26} {'  '.join(cells)}")
    return lines


def play(bench: Bench, n_rows: int, seed: int, pool: str = "nine") -> dict:
    """One draw: what was promised, what was true, what else would have been."""
    draw = draw_competition(bench, n_rows, seed, pool)
    blend = make_blend(TASK, draw.runs, seed=seed)
    said = describe_blend(TASK, blend, None, seed, TestFacts(hidden_rows=N_TRUTH), weighs_runs=False).one_fold
    truths = score_truths(draw, lambda scores: blend.predictor.predict(Scores(scores)), blend.rule)
    headline = float(np.mean([macro_f1(draw.runs.labels, answer) for answer in blend.honest]))
    default = {"in": blend.choice.in_sample, "cf": headline, **truths}
    expected_ = {"expected": said.expected, "low": said.low, "high": said.high}
    return {
        "chosen": blend.choice.name, "default": {**default, **expected_},
        "naive": score_naive(draw), "fixed": score_strategies(draw, blend),
    }  # fmt: skip


def report(n_rows: int, draws: list[dict]) -> list[str]:
    """Means over the draws as a table, then regret and honesty."""

    def mean(values):
        return float(np.mean(values))

    lines = [f"{n_rows} rows, {len(draws)} draws        in-sample  cross-fitted  true, one fold  true, average"]
    for group in ("naive", "fixed"):
        for name in draws[0][group]:
            rows = [draw[group][name] for draw in draws]
            crossed = f"{mean([row['cf'] for row in rows]):.4f}" if "cf" in rows[0] else ""
            lines.append(
                f"  {name:24} {mean([row['in'] for row in rows]):9.4f}  {crossed:>12}"
                f"  {mean([row['one fold'] for row in rows]):14.4f}  {mean([row['average'] for row in rows]):13.4f}"
            )
    default = [draw["default"] for draw in draws]
    ours = {key: np.array([row[key] for row in default]) for key in default[0]}
    lines.append(
        f"  {'default (chosen)':24} {ours['in'].mean():9.4f}  {ours['cf'].mean():12.4f}"
        f"  {ours['one fold'].mean():14.4f}  {ours['average'].mean():13.4f}"
    )
    for kind in ("one fold", "average"):
        best = max(mean([draw["fixed"][name][kind] for draw in draws]) for name in draws[0]["fixed"])
        caruana = mean([draw["naive"]["Caruana, exact"][kind] for draw in draws])
        lines.append(
            f"  {kind}: above Caruana {ours[kind].mean() - caruana:+.4f}; "
            f"regret against the best fixed strategy {best - ours[kind].mean():+.4f}"
        )
    for kind in ("one fold", "average"):
        gain = np.array([draw["default"][kind] - draw["fixed"][BEFORE][kind] for draw in draws])
        lines.append(f"  {kind}: above {BEFORE} {gain.mean():+.4f} ({gain.std(ddof=1) / len(gain) ** 0.5:.4f})")
    errors = {name: ours[name] - ours["one fold"] for name in ("in", "cf", "expected")}
    held = ((ours["low"] < ours["one fold"]) & (ours["one fold"] < ours["high"])).mean()
    lines.append("  error against the truth of one fold's models, mean (and its standard error):")
    lines += [
        f"    {name:9} {error.mean():+.4f} ({error.std(ddof=1) / len(error) ** 0.5:.4f})"
        for name, error in errors.items()
    ]
    lines.append(f"  the 90 % interval held it in {held:.0%} of draws")
    return lines


@single_threaded_products()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 2000, 5000])
    parser.add_argument("--seeds", default="0:20", help="FIRST:LAST, the last one not included")
    parser.add_argument("--pool", choices=["nine", "all"], default="nine")
    parser.add_argument("--quick", action="store_true", help="the trusted blend against the one of before only")
    asked = parser.parse_args()
    bench, seeds = load_bench(), range(*(int(end) for end in asked.seeds.split(":")))
    if asked.quick:
        for n_rows in asked.rows:
            draws = [play_quickly(bench, n_rows, seed, asked.pool) for seed in seeds]
            print("\n".join(quick_report(n_rows, asked.pool, draws)), flush=True)
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for n_rows in asked.rows:
        draws = [play(bench, n_rows, seed, asked.pool) for seed in seeds]
        print("\n".join(report(n_rows, draws)), flush=True)
        if asked.pool == "all":
            continue  # the figure shows the nine
        results[str(n_rows)] = draws
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=0), encoding="utf-8")


if __name__ == "__main__":
    main()
