"""The words of a blend: 80 columns whatever the runs are called, and every number where a reader looks for it."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import make_runs

from foldblend.cores import single_threaded_products
from foldblend.errors import UserError
from foldblend.scoring.arrays import blend_arrays
from foldblend.scoring.blending import make_blend
from foldblend.scoring.inputs import Scores, Task, sigmoid
from foldblend.scoring.report import candidate_words, describe_blend, row_rule_words
from foldblend.scoring.thresholds.rules import Rule, decide

LONG = (
    "deberta-v3-large-mlm-fgm-seed-1",
    "deberta-v3-large-mlm-fgm-seed-2",
    "qwen2.5-7b-instruct-lora-with-answers",
    "tfidf-word-and-char-svm",
    "roberta-large",
    "nbsvm",
)


def blend(names, strategy="shrunk_stack", metric="macro_f1"):
    noise = np.linspace(0.6, 2, len(names))
    runs, new = (make_runs(n_rows=n, n_labels=3, noise=noise, seed=n) for n in (160, 80))
    rng = np.random.default_rng(0)
    test = [sigmoid((run + 0.3 * rng.normal(size=(5, *run.shape))).astype(np.float32)) for run in new.scores.runs]
    oof = [sigmoid(run) for run in runs.scores.runs]
    return blend_arrays(
        Task(metric), dict(zip(names, oof, strict=True)), runs.labels, runs.fold, dict(zip(names, test, strict=True)),
        label_names=("joy", "fear", "anger"), strategy=strategy,
    )  # fmt: skip


@pytest.mark.parametrize("names", [LONG[-2:], LONG])
def test_the_report_fits_80_columns(names):
    result = blend(names)
    lines = result.lines
    assert max(map(len, lines)) <= 80
    assert all(sum(name in line.split() for line in lines) >= 1 for name in names)
    for start in (
        "Chosen: shrunk_stack, robust thresholds",
        f"Honest CV score, choice included: {result.honest_score:.4f}",
        f"Expected on the test set, 5-fold average: {result.expected['score']:.4f}, 90 % interval",
        "Thresholds were tuned on single-fold predictions",
        "Score lost if a run is removed",
    ):
        assert any(line.startswith(start) for line in lines), start
    (chosen,) = [line for line in lines if line.startswith("> ")]
    assert chosen.split()[1:3] == ["shrunk_stack", "robust"]


def test_a_long_name_is_written_once_and_its_chosen_line_is_marked():
    lines = blend(LONG, LONG[0]).lines
    at = lines.index(f"  {LONG[0]}")
    assert lines[at + 1].startswith("> ") and lines[at + 1].split()[1] == "robust"
    assert lines[at + 2].split()[0] == "exact"
    assert sum(line == f"  {LONG[0]}" for line in lines) == 1


def test_a_loss_says_that_lower_is_better_and_has_no_thresholds():
    result = blend(LONG[-2:], "mean_probs", "log_loss")
    assert result.lines[0] == "Score table: log_loss, lower is better"
    assert "Chosen: mean_probs" in result.lines
    assert not any("Thresholds" in line for line in result.lines)
    assert 0 < result.expected["low"] < result.expected["score"] < result.expected["high"]


def test_candidates_and_row_rules_in_words():
    assert candidate_words("a + b + exact") == "a + b, exact thresholds"
    assert candidate_words("mean_probs + none") == "mean_probs"
    names = ("joy", "neutral")
    assert row_rule_words(Rule(), names) == ""
    rule = Rule(exclusive=1, at_most=2, at_least_one=True)
    assert row_rule_words(rule, names) == "neutral only alone, at most 2 labels per row, at least one label per row"
    assert row_rule_words(Rule(at_most=1), names) == "at most 1 label per row"


@pytest.mark.parametrize("n_test, hidden, expected_for", [(3, 0, 160), (29, 0, 160), (30, 0, 30), (3, 7000, 7000)])
@pytest.mark.parametrize("metric", ["macro_auc", "macro_f1", "log_loss"])
def test_few_test_rows_measure_nothing_and_no_interval_leaves_the_metric(metric, n_test, hidden, expected_for):
    runs, new = (make_runs(n_rows=n, n_labels=3, noise=(0.05, 0.1), seed=n) for n in (160, n_test))
    oof, test = ([sigmoid(8 * run) for run in each.scores.runs] for each in (runs, new))
    names = ("a", "b")
    result = blend_arrays(
        Task(metric), dict(zip(names, oof, strict=True)), runs.labels, runs.fold,
        dict(zip(names, [np.stack([run] * 5) for run in test], strict=True)), hidden_test_rows=hidden,
    )  # fmt: skip
    record = result.record
    assert record["expected_for_rows"] == expected_for and record["test_rows_here"] == n_test
    low, high = (record["metric"] != "log_loss" and (0, 1)) or (0, np.inf)
    for each in (record["expected_one_fold"], record["expected_fold_mean"]):
        assert low <= each["low"] <= each["score"] <= each["high"] <= high
    is_few = n_test < 30
    text = " ".join(" ".join(result.lines).split())
    assert (f"warning: the test file here has {n_test} rows, too few to say anything" in text) == is_few
    assert ("5-fold average adds cannot be measured on so few test rows" in text) == is_few
    assert bool(record["label_shift"]) != is_few


# ---------- What decides is what is printed


def run_arrays(runs, n_test=60, test_is="", metric="macro_f1", strategy=""):
    oof = {name: sigmoid(run) for name, run in zip(runs.names, runs.scores.runs, strict=True)}
    new = make_runs(n_rows=n_test, n_labels=runs.labels.shape[1], noise=np.ones(len(oof)), seed=9)
    test = {name: sigmoid(run) for name, run in zip(runs.names, new.scores.runs, strict=True)}
    return blend_arrays(
        Task(metric), oof, runs.labels, runs.fold, test, groups=runs.group, test_is=test_is, strategy=strategy
    )


@pytest.mark.parametrize("noise", [(0.1, 4.0, 4.0, 4.0), (1.0, 1.0), (0.5, 1.5)])
def test_the_printed_lead_decides(noise, monkeypatch):
    """A blend was once chosen beside "above the best single run: -0.0038, 90 % from -0.0075 to -0.0001"."""
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    result = run_arrays(make_runs(n_rows=200, n_labels=3, noise=noise))
    choice, text = result.record["choice"], " ".join(" ".join(result.lines).split())
    replaced = result.chosen != choice["trusted"]
    assert (choice["lead"] > choice["needed"]) == replaced
    said = f"lead {choice['lead']:+.4f}, needed {choice['needed']:.4f}"
    name = candidate_words(choice["nearest"])
    if replaced:
        assert result.chosen == choice["nearest"]
        assert f"It replaces {candidate_words(choice['trusted'])}: {said}" in text
    else:
        assert f"No run or strategy is surely better. Nearest to that is {name}: {said}" in text
    lead = result.record["above_best_single"]
    table = {line["name"]: line["cross_fitted"] for line in result.record["table"]}
    assert lead["gain"] == pytest.approx(table[result.chosen] - table[result.record["best_single"]])
    assert lead["high"] >= 0  # no run that is surely better is passed over


def test_a_forced_strategy_is_said_to_be_forced(monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    result = run_arrays(make_runs(n_rows=120, n_labels=3, noise=(1.0, 1.0)), strategy="mean_logits")
    assert "  as --strategy asks, whatever the others score" in result.lines


@pytest.mark.parametrize(
    "said, words",
    [
        ("mean_of_folds", "predictions of run0, run1 are a mean of folds"),
        ("one_fold", "predictions of run0, run1 are those of one fold"),
        ("", "predictions of run0, run1 may be a mean of folds or those of one fold"),
    ],
)
def test_the_forecast_says_whether_it_is_of_one_fold_or_of_a_mean(said, words, monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    result = run_arrays(make_runs(n_rows=120, n_labels=3, noise=(1.0, 1.0)), test_is=said, strategy="mean_probs")
    assert words in " ".join(" ".join(result.lines).split())
    assert result.record["test_is"] == {"run0": said, "run1": said}


def test_an_unknown_word_for_the_test_predictions_is_refused():
    with pytest.raises(UserError, match="test_is is 'mean'; expected mean_of_folds or one_fold"):
        run_arrays(make_runs(n_rows=120, n_labels=3, noise=(1.0,)), test_is="mean")


def test_groups_that_the_api_is_given_widen_the_interval(monkeypatch):
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    few = make_runs(n_rows=100, n_labels=3, noise=(1.0,))
    rows = np.repeat(np.arange(100), 4)
    runs = replace(few, scores=Scores([few.scores.runs[0][rows]]), labels=few.labels[rows], fold=rows % 5, group=rows)
    grouped, alone = (run_arrays(each).expected for each in (runs, replace(runs, group=np.arange(400))))
    assert grouped["high"] - grouped["low"] > 1.6 * (alone["high"] - alone["low"])


# ---------- The forecast on runs that know nothing


@single_threaded_products()
def test_of_pure_noise_the_forecast_is_not_too_good(monkeypatch):
    """Half of the chosen line's own score was in it, the best of many: 0.007 too high on noise."""
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    errors, naive, task = [], [], Task("macro_f1")
    for seed in range(9):
        rng = np.random.default_rng([seed, 77])
        runs = make_runs(n_rows=200, n_labels=3, noise=(1.0, 1.0, 1.0), seed=seed)
        runs.scores.runs[:] = [rng.normal(size=run.shape).astype(np.float32) for run in runs.scores.runs]
        blend = make_blend(task, runs, seed=seed)
        new = make_runs(n_rows=4_000, n_labels=3, noise=(1.0, 1.0, 1.0), seed=1_000 + seed)
        scores = Scores([rng.normal(size=run.shape).astype(np.float32) for run in new.scores.runs])
        truth = task.score(new.labels, decide(blend.rule, blend.predictor.predict(scores)))
        said = describe_blend(task, blend, None, seed).one_fold.expected
        errors.append(said - truth)
        naive.append(max(each.score for each in blend.candidates) - truth)
    error = np.std(errors, ddof=1) / 3
    assert abs(np.mean(errors)) < 2.5 * error + 0.003
    assert np.mean(naive) > np.mean(errors)
