"""Each label: how well it is found, where its threshold is and how sure that is, whether its probabilities are true."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.reports.page import Block, Browser, Chart, Column, Section, Series, Table, write_share
from foldblend.scoring.inputs import Task
from foldblend.scoring.metrics.formulas import mae, pearson, rmse, spearman
from foldblend.scoring.metrics.table import to_values
from foldblend.scoring.validation.decided import CUTS, RECALLS, Curves, Decided, score_labels, trace_curves

MOST_LABELS = 300
"""Labels in a table: the most frequent."""
MOST_CURVES = 60
"""Labels with curves."""
MOST_RUNS = 12
"""Runs with curves."""


@dataclass(frozen=True)
class LabelShift:
    """Mean probabilities of all runs on out-of-fold and test rows, float64 (L,) each."""

    oof: np.ndarray
    test: np.ndarray
    p: np.ndarray
    """p-values of no shift, times L."""
    shifted: np.ndarray
    """int64: labels whose shift is more than chance and large enough to matter."""


def labels_section(
    task: Task, runs: Sequence[Decided], label_names: Sequence[str], shift: LabelShift | None
) -> Section:
    """Args: runs: the one to look at first.   shift: None without test rows, or with too few."""
    if task.scale is not None:
        return _values_section(task, runs, label_names)
    counts = runs[0].labels.sum(axis=0).astype(int)
    order = np.argsort(-counts, kind="stable")
    findings, blocks = _scores_blocks(task, runs, label_names, order)
    if shift is not None:
        finding, chart = _shift_blocks(shift, label_names, order)
        findings.append(finding)
        blocks.append(chart)
    else:
        findings.append("Label shift is not judged: there are no test predictions, or too few test rows.")
    if len(runs) > 1:
        blocks.append(_every_run(runs, label_names, order))
    drawn = [int(label) for label in order[:MOST_CURVES] if counts[label] > 0]
    blocks.append(_curves(runs[:MOST_RUNS], label_names, drawn))
    return Section("labels", "Labels", findings, blocks)


# ---------- Scores


def _scores_blocks(
    task: Task, runs: Sequence[Decided], label_names: Sequence[str], order: np.ndarray
) -> tuple[list[str], list[Block]]:
    run, rng = runs[0], np.random.default_rng(0)
    found = score_labels(run)
    counts, n = run.labels.sum(axis=0).astype(int), len(run.labels)
    thresholds = run.rule.thresholds
    columns = [Column("label"), Column("rows", "int"), Column("prevalence", "share"), Column("precision", "score")]
    columns += [Column("recall", "score"), Column("F1", "score"), Column("low", "score", "90 % interval of F1")]
    columns += [Column("high", "score"), Column("AP", "score", "average precision")]
    if thresholds is not None:
        columns += [
            Column("threshold", "score"),
            Column("from", "score", "90 % interval of the best threshold"),
            Column("to", "score"),
            Column("F1 at 0.5", "score"),
        ]
    rows = []
    for label in order[:MOST_LABELS]:
        row = [label_names[label], int(counts[label]), float(counts[label] / n)]
        row += [float(found.precision[label]), float(found.recall[label]), float(found.f1[label])]
        row += [*map(float, found.f1_interval[:, label]), float(found.ap[label])]
        if thresholds is not None:
            curves = trace_curves(run.probs[:, label], run.labels[:, label], rng) if counts[label] else None
            row += [float(thresholds[label]), *(curves.best if curves else (None, None)), _f1_at_half(run, label)]
        rows.append(row)
    shown = order[:40]
    dots = Series(
        "F1", [label_names[k] for k in shown], found.f1[shown].tolist(), *found.f1_interval[:, shown].tolist()
    )
    note = _decision_words(task, run)
    blocks: list[Block] = [
        Table("label_scores", f"Scores by label, {run.name}", columns, rows, note, in_terminal=30),
        Chart("label_f1", f"F1 by label, {run.name}", "dots", "F1", "label", [dots], "With 90 % intervals."),
    ]
    return _findings(task, run, label_names, found.f1, counts), blocks


def _f1_at_half(run: Decided, label: int) -> float:
    decided, truth = run.probs[:, label] >= 0.5, run.labels[:, label].astype(bool)
    return float(2 * (decided & truth).sum() / max(decided.sum() + truth.sum(), 1))


def _decision_words(task: Task, run: Decided) -> str:
    if not task.takes_probs:
        return "Cross-fitted: decided by thresholds that were tuned on other folds. The threshold shown is of all rows."
    how = "the likeliest label" if task.kind == "multiclass" else "labels with probability 0.5 or more"
    return f"{task.metric} takes probabilities and decides nothing; precision, recall and F1 are of {how}."


def _findings(task: Task, run: Decided, label_names: Sequence[str], f1: np.ndarray, counts: np.ndarray) -> list[str]:
    there = np.flatnonzero(counts)
    order = there[np.argsort(f1[there])]
    weak = ", ".join(f"{label_names[k]} {f1[k]:.2f}" for k in order[:5])
    strong = ", ".join(f"{label_names[k]} {f1[k]:.2f}" for k in order[::-1][:3])
    lines = [f"{run.name}: lowest F1 {weak}; highest {strong}."]
    never = [label_names[k] for k in there if f1[k] == 0]
    if never:
        lines.append(
            f"Never found: {', '.join(never[:12])}{f' and {len(never) - 12} more' if len(never) > 12 else ''}."
        )
    error = calibration_error(run)
    lines.append(
        f"Calibration: a probability of {run.name} is off by {write_share(error)} on average"
        f"{'' if error > 0.02 else ', so it can be read as a rate'}."
    )
    if run.rule.thresholds is not None:
        low = float(np.median(run.rule.thresholds))
        lines.append(f"Half of the thresholds are below {low:.2f}; at 0.5 macro-F1 would be {_macro_at_half(run):.4f}.")
    return lines


def _macro_at_half(run: Decided) -> float:
    return float(np.mean([_f1_at_half(run, label) for label in range(run.labels.shape[1])]))


def calibration_error(run: Decided) -> float:
    """Mean distance of probability and rate over ten bins of all cells, weighted by cells (Naeini et al. 2015)."""
    probs, labels = run.probs.ravel(), run.labels.ravel()
    bins = np.minimum((probs * 10).astype(int), 9)
    sums = [np.bincount(bins, weights=each, minlength=10) for each in (probs, labels)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(probs))


def _every_run(runs: Sequence[Decided], label_names: Sequence[str], order: np.ndarray) -> Table:
    """F1 of each label by every run."""
    shown = runs[:MOST_RUNS]
    columns = [Column("label"), *(Column(run.name, "score") for run in shown)]
    f1 = [score_f1(run) for run in shown]
    rows = [(label_names[label], *(float(each[label]) for each in f1)) for label in order[:MOST_LABELS]]
    return Table("f1_by_run", "F1 by label, every run", columns, rows)


def score_f1(run: Decided) -> np.ndarray:
    """F1 of each label, float64 (L,)."""
    labels, decided = run.labels.astype(bool), run.decisions
    assert decided is not None
    return 2 * (labels & decided).sum(axis=0) / np.maximum(labels.sum(axis=0) + decided.sum(axis=0), 1)


# ---------- Curves


def _curves(runs: Sequence[Decided], label_names: Sequence[str], drawn: Sequence[int]) -> Browser:
    rng = np.random.default_rng(0)
    of = [[_one(run, label, rng) for label in drawn] for run in runs]
    data = {
        "runs": [run.name for run in runs],
        "labels": [label_names[label] for label in drawn],
        "recalls": RECALLS.round(3).tolist(),
        "cuts": CUTS.round(3).tolist(),
        "of": of,
    }
    note = (
        "The dot is the threshold of all rows; the band is the 90 % interval of the best threshold over resamples of "
        "the rows. On the dotted line probabilities are true rates."
    )
    if len(label_names) > len(drawn):
        note += f" The {len(drawn)} most frequent labels."
    return Browser("curves", "Two runs, label by label", "curves", data, note)


def _one(run: Decided, label: int, rng: np.random.Generator) -> dict:
    labels = run.labels[:, label].astype(bool)
    if not labels.any():  # a run of some folds may lack a rare label
        nothing: list = []
        return {"precision": nothing, "f1": nothing, "threshold": None, "bins": [nothing, nothing, nothing]}
    found: Curves = trace_curves(run.probs[:, label], labels, rng)
    thresholds = run.rule.thresholds
    return {
        "precision": [round(value, 3) for value in found.precision.tolist()],
        "f1": [round(value, 3) for value in found.f1.tolist()],
        "threshold": None if thresholds is None else [float(thresholds[label]), *found.best],
        "bins": [[round(value, 3) for value in each.tolist()] for each in found.bins],
    }


# ---------- Shift


def _shift_blocks(shift: LabelShift, label_names: Sequence[str], order: np.ndarray) -> tuple[str, Chart]:
    names = ", ".join(label_names[label] for label in shift.shifted[:8])
    said = (
        f"Label shift: the runs see {names} more or less often on the test rows than on training rows."
        if len(shift.shifted)
        else "Label shift: no label is seen more or less often on the test rows than on training rows, beyond chance."
    )
    shown = order[:30]
    of = [label_names[label] for label in shown]
    series = [
        Series("out-of-fold rows", of, shift.oof[shown].tolist()),
        Series("test rows", of, shift.test[shown].tolist()),
    ]
    note = "Mean probability over all runs."
    return said, Chart("shift", "Label shift", "dots", "mean probability", "label", series, note)


# ---------- Regression


def _values_section(task: Task, runs: Sequence[Decided], names: Sequence[str]) -> Section:
    """Errors of each column; there are no labels, thresholds or decisions."""
    run, scale = runs[0], task.scale
    assert scale is not None
    truth, said = to_values(run.labels, scale), to_values(run.probs, scale)
    rows, charts = [], []
    for k, name in enumerate(names):
        own, other = truth[:, [k]], said[:, [k]]
        numbers = (rmse(own, other), mae(own, other), pearson(own, other), spearman(own, other))
        rows.append((name, *map(float, numbers), float((other - own).mean())))
        if k < 12:
            charts.append(_true_against_predicted(name, own[:, 0], other[:, 0], k))
    columns = [Column("column"), Column("RMSE", "score"), Column("MAE", "score"), Column("Pearson", "score")]
    columns += [Column("Spearman", "score"), Column("mean error", "signed", "predicted minus true")]
    findings = ["A regression: there are no labels, thresholds, PR curves or label shift to show."]
    table = Table("columns", f"Errors by column, {run.name}", columns, rows, in_terminal=12)
    return Section("labels", "Columns", findings, [table, *charts])


def _true_against_predicted(name: str, truth: np.ndarray, said: np.ndarray, k: int) -> Chart:
    """Twenty parts of the predictions, each with the mean and the middle 80 % of what is true."""
    parts = np.array_split(np.argsort(said, kind="stable"), min(20, max(len(said) // 20, 1)))
    x = [float(said[part].mean()) for part in parts]
    y = [float(truth[part].mean()) for part in parts]
    low, high = ([float(np.quantile(truth[part], q)) for part in parts] for q in (0.1, 0.9))
    note = "The band holds 80 % of the true values; on the dotted line both agree."
    return Chart(
        f"column{k}",
        name,
        "lines",
        "predicted",
        "true",
        [Series("mean of the true", x, y, low, high)],
        note,
        diagonal=True,
    )
