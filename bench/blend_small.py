"""Small competitions drawn from the GoEmotions OOF rows, where the truth of every strategy is known.

    python bench/blend_small.py --rows 1000 2000 5000 --draws 20

Each draw takes rows of nine runs (without minilm_ft) as a competition of its own. The truth of one fold's models is
the score on 10,853 other OOF rows; that of the fold average is the score on dev and test together. Writes
bench/figures/small_competitions.json, which bench/blend_figure.py draws.
"""

import argparse
import json
from dataclasses import dataclass

import numpy as np
from blend_data import PROJECT, Bench, load_bench

from foldblend.cores import single_threaded_products
from foldblend.scoring.blending import Blend, make_blend
from foldblend.scoring.ensembling.predictors import mix
from foldblend.scoring.ensembling.strategies import Given, climb_once
from foldblend.scoring.inputs import Partition, Runs, Scores, Task, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.report import soften_answers
from foldblend.scoring.thresholds.exact import tune_thresholds
from foldblend.scoring.thresholds.rules import Rule, decide, tune_rule
from foldblend.scoring.validation.bootstrap import Buckets, make_additive
from foldblend.scoring.validation.choice import predict_outer
from foldblend.scoring.validation.expected import estimate_score

TASK = Task("macro_f1")
N_TRUTH = 10_853
"""Rows that each draw's truth is taken from, as many as dev and test have."""
RESULTS = PROJECT / "bench" / "figures" / "small_competitions.json"


@dataclass
class Draw:
    """One small competition and the two sets of rows that know its truth: (scores, labels)."""

    runs: Runs
    truths: dict[str, tuple[list[np.ndarray], np.ndarray]]


def draw_competition(bench: Bench, n_rows: int, seed: int) -> Draw:
    """Rows at random, folds at random, nine runs."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(bench.labels))
    rows, others = order[:n_rows], order[n_rows : n_rows + N_TRUTH]
    used = [number for number, name in enumerate(bench.runs) if name != "minilm_ft"]
    fold = rng.permutation(n_rows) % 5
    runs = Runs(
        tuple(bench.runs[k] for k in used), Scores([bench.oof[k][rows] for k in used]), bench.labels[rows], fold,
        np.arange(n_rows),
    )  # fmt: skip
    hidden = [np.concatenate([bench.dev[k][0], bench.test[k][0]]) for k in used]
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


def play(bench: Bench, n_rows: int, seed: int) -> dict:
    """One draw: what was promised, what was true, what else would have been."""
    draw = draw_competition(bench, n_rows, seed)
    blend = make_blend(TASK, draw.runs, seed=seed)
    buckets = Buckets(draw.runs.fold, seed)
    honest = [make_additive(TASK, draw.runs.labels, answer, buckets) for answer in blend.honest]
    said = estimate_score(honest, soften_answers(TASK, blend, buckets), n_rows, N_TRUTH, seed)
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
    parser.add_argument("--draws", type=int, default=20)
    asked = parser.parse_args()
    bench = load_bench()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for n_rows in asked.rows:
        results[str(n_rows)] = [play(bench, n_rows, seed) for seed in range(asked.draws)]
        print("\n".join(report(n_rows, results[str(n_rows)])), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=0), encoding="utf-8")


if __name__ == "__main__":
    main()
