"""The default blend of ten real GoEmotions runs against what people use, on dev and test nothing was tuned on.

    python bench/blend_goemotions.py

The ways below are recomputed on the same rows, with paired bootstraps (1,000 resamples of dev and test rows) of the
default's lead. Rows of other libraries are quoted from $FOLDBLEND_SHARED/bench/README.md, measured on the same file.
"""

import argparse
import re

import numpy as np
from blend_data import Bench, load_bench, shared_folder
from blend_ways import TASK, usual_ways

from foldblend.cores import single_threaded_products
from foldblend.scoring.blending import make_blend
from foldblend.scoring.ensembling.predictors import Recipe, predict_folds
from foldblend.scoring.inputs import Runs, Scores, sigmoid
from foldblend.scoring.metrics.formulas import macro_f1
from foldblend.scoring.report import describe_blend, report_lines, table_lines
from foldblend.scoring.thresholds.robust import tune_robust_thresholds
from foldblend.scoring.thresholds.rules import decide
from foldblend.scoring.validation.bootstrap import Buckets, make_additive, resample


def print_ways(bench: Bench, ours: np.ndarray, seed: int) -> None:
    """Dev, test, their mean, and the default's paired lead on the mean."""
    n_dev, truth = len(bench.dev_labels), np.concatenate([bench.dev_labels, bench.test_labels])
    halves = (slice(0, n_dev), slice(n_dev, len(truth)))

    def scores(answer):
        return [macro_f1(truth[half], answer[half]) for half in halves]

    def draws(answer):
        drawn = []
        for half in halves:
            buckets = Buckets(np.zeros(len(truth[half]), np.int64), 0)
            additive = make_additive(TASK, truth[half], answer[half], buckets)
            drawn.append(resample([additive], np.ones(len(buckets.starts), bool), 1.0, 1000, 0)[:, 0])
        return np.mean(drawn, axis=0)

    base = draws(ours)
    dev, test = scores(ours)
    print(f"{'default blend.py':34} dev {dev:.4f}  test {test:.4f}  mean {(dev + test) / 2:.4f}")
    for name, answer in usual_ways(bench, seed).items():
        lead = base - draws(answer)
        low, high = np.quantile(lead, [0.05, 0.95])
        dev, test = scores(answer)
        print(
            f"{name:34} dev {dev:.4f}  test {test:.4f}  mean {(dev + test) / 2:.4f}"
            f"  default leads by {np.mean(scores(ours)) - (dev + test) / 2:+.4f}, 90 % from {low:+.4f} to {high:+.4f}"
        )


def print_quoted() -> None:
    """The table of $FOLDBLEND_SHARED/bench/README.md: way, dev, test, mean."""
    text = (shared_folder() / "bench" / "README.md").read_text(encoding="utf-8")
    print("\nquoted from $FOLDBLEND_SHARED/bench/README.md (measured there on the same file):")
    for line in text.split("## Small")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"0\.\d+", cells[3]):
            print(
                f"  {cells[0]:62} dev {cells[3]}  test {cells[4]}  mean {(float(cells[3]) + float(cells[4])) / 2:.4f}"
            )


def print_honesty(bench: Bench, seed: int) -> None:
    """minilm_ft alone, whose fold models are known: what was expected of one and of their mean, and what was true."""
    run = bench.runs.index("minilm_ft")
    runs = Runs(("minilm_ft",), Scores([bench.oof[run]]), bench.labels, bench.fold, np.arange(len(bench.labels)))
    blend = make_blend(TASK, runs, seed=seed)
    print("\nhonesty, minilm_ft alone (its five fold models are known one by one):")
    for name, folds, truth in (("dev", bench.dev, bench.dev_labels), ("test", bench.test, bench.test_labels)):
        fold_probs = predict_folds(blend.predictor, [folds[run]])
        said = describe_blend(TASK, blend, fold_probs, seed)
        alone = [macro_f1(truth, decide(blend.rule, probs)) for probs in fold_probs]
        averaged = macro_f1(truth, decide(blend.rule, fold_probs.mean(axis=0)))
        one = said.one_fold
        held = sum(one.low < score < one.high for score in alone)
        print(
            f"  {name:4} one fold: expected {one.expected:.4f} [{one.low:.4f}, {one.high:.4f}],"
            f" true {np.mean(alone):.4f} ({held} of {len(alone)} held);"
            f" in-sample said {blend.choice.in_sample:.4f}"
        )
        expected = one.expected + said.gain
        print(
            f"  {name:4} average:  expected {expected:.4f}, true {averaged:.4f}, error {expected - averaged:+.4f};"
            f" gain of averaging: expected {said.gain:+.4f}, true {averaged - np.mean(alone):+.4f}"
        )


def print_gap(bench: Bench) -> None:
    """Ways for thresholds of single models to meet the average of five, minilm_ft."""
    run = bench.runs.index("minilm_ft")
    cuts = tune_robust_thresholds(sigmoid(bench.oof[run]), bench.labels)
    print("\nhow OOF thresholds cross to the mean of five fold models (minilm_ft, robust thresholds):")
    for name, folds, truth in (("dev", bench.dev, bench.dev_labels), ("test", bench.test, bench.test_labels)):
        probs = sigmoid(folds[run])
        ways = {
            "mean of probabilities": probs.mean(0) >= cuts, "mean of log-odds": sigmoid(folds[run].mean(0)) >= cuts,
            "majority vote": (probs >= cuts).mean(0) > 0.5,
        }  # fmt: skip
        rate = (probs >= cuts).mean(axis=(0, 1)).sum()
        shown = ", ".join(f"{way} {macro_f1(truth, done):.4f} ({done.mean(0).sum():.3f})" for way, done in ways.items())
        print(f"  {name}: F1 (labels a row): {shown}; one fold's models decide {rate:.3f} labels a row")


@single_threaded_products()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    bench = load_bench()
    runs = Runs(bench.runs, Scores(bench.oof), bench.labels, bench.fold, np.arange(len(bench.labels)))
    blend = make_blend(TASK, runs, seed=seed)
    recipe = Recipe("multilabel", blend.predictor, blend.rule)
    test_folds = [np.concatenate([d, t], axis=1) for d, t in zip(bench.dev, bench.test, strict=True)]
    fold_probs = recipe.fold_probs(test_folds)
    report = describe_blend(TASK, blend, fold_probs, seed)
    lines = [*table_lines(TASK, blend, {}), "", *report_lines(TASK, blend, report, bench.label_names)]
    print("\n".join(lines))
    print()
    print_ways(bench, recipe.answer(fold_probs)[1], seed)
    print_quoted()
    print_honesty(bench, seed)
    print_gap(bench)


if __name__ == "__main__":
    main()
