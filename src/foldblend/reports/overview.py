"""All runs and blends side by side: what they score and cost, how they learned, and what the leaderboard said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foldblend.reports.page import Chart, Column, Section, Series, Table, write_share
from foldblend.scoring.finals import fit_line
from foldblend.scoring.inputs import Task
from foldblend.scoring.validation.bootstrap import Difference
from foldblend.scoring.validation.decided import Decided

Z90 = 1.645
MOST_CURVES = 6
"""Runs whose training is drawn."""
MOST_POINTS = 120
"""Points of one line; a history with more is thinned."""


@dataclass(frozen=True)
class RunFacts:
    """One run, and what its records say."""

    decided: Decided
    n_folds: int
    """Trained."""
    seconds: float | None
    rows_per_second: float | None
    n_parameters: int | None
    date: str
    device: str
    is_blend: bool = False
    """Whether it is the blend that the report makes for itself."""
    selected: bool = False
    """Whether its folds chose their weights by the held-out rows."""
    histories: Mapping[int, Sequence[Mapping]] = field(default_factory=dict)
    """Fold -> the lines of its training."""
    behind: Difference | None = None
    """Its score above that of the best run, on the rows that both predicted; None for the best."""
    adds: Difference | None = None
    """What it adds to the blend of the others; None if not all its folds are trained, or there are no others."""

    @property
    def name(self) -> str:
        return self.decided.name


@dataclass(frozen=True)
class BlendFacts:
    """One submission of blend.py, by its record."""

    name: str
    chosen: str
    cross_fitted: float | None
    in_sample: float | None
    expected: float | None
    low: float | None
    high: float | None
    public: float | None
    """From submissions/log.csv."""
    private: float | None


def overview_section(task: Task, runs: Sequence[RunFacts], blends: Sequence[BlendFacts], n_folds: int) -> Section:
    """Args: runs: the best first.   blends: of submissions/, the newest last."""
    findings = _findings(task, runs, blends, n_folds)
    blocks: list = [_runs_table(task, runs, n_folds), _scores_chart(task, runs), *_adds_chart(task, runs)]
    blocks += _public_chart(task, blends)
    if blends:
        blocks.append(_blends_table(task, blends))
    blocks += [chart for run in runs if run.histories for chart in _training_charts(task, run)][: 2 * MOST_CURVES]
    return Section("overview", "Runs and blends", findings, blocks)


def _findings(task: Task, runs: Sequence[RunFacts], blends: Sequence[BlendFacts], n_folds: int) -> list[str]:
    sign, best = task.entry.sign, runs[0]
    better = "higher" if task.entry.greater_is_better else "lower"
    lines = [
        f"Best: {best.name} with {task.metric} {sign * best.decided.score:.4f} cross-fitted ({better} is better), "
        f"90 % interval {_interval_words(task, best.decided)}; in-sample {sign * best.decided.in_sample:.4f}, which "
        "is too good, as its thresholds were tuned on the same rows."
        if not task.takes_probs
        else f"Best: {best.name} with {task.metric} {sign * best.decided.score:.4f} on out-of-fold rows ({better} is "
        f"better), 90 % interval {_interval_words(task, best.decided)}. The metric takes probabilities, so there are "
        "no thresholds and no in-sample score of one run."
    ]
    if any(run.is_blend for run in runs):
        lines.append(
            "The run called blend is made by the report, with one weight per run, fitted without the rows that it "
            "answers; blend.py searches further."
        )
    unsure = [run.name for run in runs[1:] if run.behind and run.behind.high >= 0]
    if unsure:
        lines.append(f"No more than noise behind the best: {', '.join(unsure[:6])}.")
    useful = [run.name for run in runs if run.adds and run.adds.low > 0]
    if any(run.adds for run in runs):
        lines.append(f"Add something to the blend of the others: {', '.join(useful) or 'none beyond noise'}.")
    partly = [f"{run.name} ({run.n_folds} of {n_folds})" for run in runs if run.n_folds < n_folds]
    if partly:
        lines.append(f"Not all folds are trained of {', '.join(partly)}: their scores are of fewer rows.")
    selected = [run.name for run in runs if run.selected]
    if selected:
        lines.append(f"Too good, as their weights were selected on the held-out rows: {', '.join(selected)}.")
    if not blends:
        lines.append("No blend yet: python src/blend.py makes one.")
    return lines


def _interval(task: Task, run: Decided) -> tuple[float, float]:
    """90 % interval of the score on the metric's own scale, which it never leaves."""
    sign, (least, most) = task.entry.sign, task.entry.bounds
    low, high = sorted((sign * (run.score - Z90 * run.error), sign * (run.score + Z90 * run.error)))
    return max(low, least), min(high, most)


def _interval_words(task: Task, run: Decided) -> str:
    return "{:.4f} to {:.4f}".format(*_interval(task, run))


def _runs_table(task: Task, runs: Sequence[RunFacts], n_folds: int) -> Table:
    sign = task.entry.sign
    columns = [
        Column("run"),
        Column("score", "score", "cross-fitted: thresholds for one fold are tuned on the others"),
        Column("low", "score", "90 % interval over other draws of rows"),
        Column("high", "score"),
        Column("in-sample", "score", "thresholds tuned and scored on the same rows: too good"),
        Column("+- folds", "score", "standard deviation over the folds, each scored alone"),
        Column("vs best", "signed", "on the rows that both predicted"),
        Column("adds", "signed", "what the blend of all loses without it"),
        Column("folds", "int"),
        Column("time", "seconds", "of training, all folds"),
        Column("rows/s", "number", "while training"),
        Column("parameters", "int"),
        Column("date"),
        Column("device"),
    ]
    rows = []
    for run in runs:
        own, scores = run.decided, list(run.decided.fold_scores.values())
        low, high = _interval(task, own)
        spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
        in_sample = None if task.takes_probs else sign * own.in_sample
        gains = (None if found is None else sign * found.gain for found in (run.behind, run.adds))
        rows.append(
            (run.name, sign * own.score, low, high, in_sample, spread, *gains, run.n_folds, run.seconds,
             run.rows_per_second, run.n_parameters, run.date, run.device)
        )  # fmt: skip
    kept = [k for k, column in enumerate(columns) if k < 9 or any(row[k] for row in rows)]
    shown = [[row[k] for k in kept] for row in rows]
    return Table("runs", "Runs", [columns[k] for k in kept], shown, in_terminal=15)


def _scores_chart(task: Task, runs: Sequence[RunFacts]) -> Chart:
    sign, shown = task.entry.sign, runs[:30]
    bounds = [_interval(task, run.decided) for run in shown]
    names, scores = [run.name for run in shown], [sign * run.decided.score for run in shown]
    series = Series("cross-fitted", names, scores, [low for low, _ in bounds], [high for _, high in bounds])
    return Chart("run_scores", "Cross-fitted scores", "dots", task.metric, "run", [series], "With 90 % intervals.")


def _adds_chart(task: Task, runs: Sequence[RunFacts]) -> list[Chart]:
    sign = task.entry.sign
    order = sorted((run for run in runs if run.adds), key=lambda run: -run.adds.gain)
    if not order:
        return []
    bounds = [sorted((sign * run.adds.low, sign * run.adds.high)) for run in order]
    names, gains = [run.name for run in order], [sign * run.adds.gain for run in order]
    series = Series("adds", names, gains, [low for low, _ in bounds], [high for _, high in bounds])
    note = "What the blend of all runs loses without each, cross-fitted, with 90 % intervals."
    return [Chart("adds", "What each run adds", "dots", f"{task.metric} of the blend", "run", [series], note)]


# ---------- Blends, and the leaderboard


def _blends_table(task: Task, blends: Sequence[BlendFacts]) -> Table:
    columns = [Column("submission"), Column("made by")]
    columns += [Column("cross-fitted", "score"), Column("in-sample", "score")]
    columns += [
        Column("expected", "score", "on the test rows, average of the folds"),
        Column("low", "score"),
        Column("high", "score"),
    ]
    columns += [Column("public", "score"), Column("private", "score")]
    rows = [
        (each.name, each.chosen, each.cross_fitted, each.in_sample, each.expected, each.low, each.high, each.public,
         each.private)
        for each in reversed(blends)
    ]  # fmt: skip
    if not any(each.private is not None for each in blends):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("blends", "Submissions", columns, rows, "The expected score has a 90 % interval.", in_terminal=5)


def _public_chart(task: Task, blends: Sequence[BlendFacts]) -> list[Chart]:
    """Local against public scores, with the fitted line from three submissions on."""
    pairs = [(each.cross_fitted, each.public, each.name) for each in blends]
    known = [(local, public, name) for local, public, name in pairs if local is not None and public is not None]
    if not known:
        return []
    local, public, names = (list(each) for each in zip(*known, strict=True))
    series, note = [Series("submissions", local, public, names=names)], "The dotted line is where both agree."
    line = fit_line(local, public)
    if line:
        ends = [min(local), max(local)]
        series.append(Series("least squares", ends, [line.intercept + line.slope * x for x in ends]))
        note += f" Fitted: public = {line.intercept:.4f} {line.slope:+.4f} x cross-fitted, spread {line.spread:.4f}."
    return [
        Chart(
            "public",
            "Local against public",
            "points",
            f"{task.metric}, cross-fitted",
            f"{task.metric}, public",
            series,
            note,
            diagonal=True,
        )
    ]


# ---------- Training


def _training_charts(task: Task, run: RunFacts) -> list[Chart]:
    """The loss of every fold, and the held-out score if it was measured on the way."""
    charts = []
    score = f"heldout_{task.metric}"
    for key, what in (("loss", "training loss"), (score, f"held-out {task.metric}")):
        series = []
        for fold, entries in sorted(run.histories.items()):
            points = [
                (entry.get("epoch", entry["step"]), entry[key]) for entry in entries if entry.get(key) is not None
            ]
            points = points[:: -(-len(points) // MOST_POINTS) or 1]
            if len(points) > 1:
                series.append(Series(f"fold {fold}", [x for x, _ in points], [y for _, y in points]))
        if series:
            charts.append(Chart(f"train_{run.name}_{key}", f"{run.name}: {what}", "lines", "epoch", what, series))
    return charts


# ---------- Runs together


COMPARED_ROWS = 6_000
"""Rows that errors are correlated on."""
MOST_RUNS = 25


def together_section(
    task: Task, runs: Sequence[RunFacts], label_names: Sequence[str], ids: Sequence[str], texts: Sequence[str]
) -> Section:
    """How far runs err alike, and the rows on which they disagree most; `runs` that predicted all rows."""
    title = "Runs together"
    whole = [run for run in runs if not run.is_blend and len(run.decided.rows) == len(runs[0].decided.rows)][:MOST_RUNS]
    if len(whole) < 2:
        return Section("together", title, ["There are not two runs with all folds, so there is nothing to compare."])
    rows = np.random.default_rng(0).permutation(len(whole[0].decided.rows))[:COMPARED_ROWS]
    errors = np.stack([(run.decided.probs[rows] - run.decided.labels[rows]).ravel() for run in whole])
    alike = np.corrcoef(errors)
    names = [run.name for run in whole]
    series = [Series(name, names, row.tolist()) for name, row in zip(names, alike, strict=True)]
    note = "Correlation of probability minus label over rows and labels, in percent. Runs that err alike add little."
    blocks: list = [
        Chart("alike", "How far runs err alike", "heat", "run above", "run on the left", series, note, share=True)
    ]
    first = whole[0]
    pairs = [(float(alike[0, k]), k) for k in range(1, len(whole))]
    _, other = min(pairs)
    findings = [
        f"Least like {first.name} in its errors: {names[other]} ({write_share(float(alike[0, other]))} correlated)."
    ]
    if first.decided.decisions is not None:
        blocks.append(_disagreement(whole[:5], label_names, ids, texts))
    return Section("together", title, findings, blocks)


def _disagreement(
    runs: Sequence[RunFacts], label_names: Sequence[str], ids: Sequence[str], texts: Sequence[str]
) -> Table:
    """The rows on which the probabilities of the best runs lie farthest apart."""
    apart = np.stack([run.decided.probs for run in runs]).std(axis=0).sum(axis=1)
    positions = np.argsort(-apart, kind="stable")[:60]

    def names_of(row: np.ndarray) -> str:
        return ", ".join(label_names[label] for label in np.flatnonzero(row)) or "none"

    columns = [Column("text", "long"), Column("true"), *(Column(run.name) for run in runs), Column("id")]
    rows = [
        (
            texts[runs[0].decided.rows[k]][:300],
            names_of(runs[0].decided.labels[k]),
            *(names_of(run.decided.decisions[k]) for run in runs),
            ids[runs[0].decided.rows[k]],
        )
        for k in positions
    ]
    return Table("disagree", "Where the best runs disagree", columns, rows, "Rows whose probabilities differ most.")


# ---------- Searches over settings


@dataclass(frozen=True)
class SearchFacts:
    """One study of tune.py."""

    name: str
    run: str
    metric: str
    greater_is_better: bool
    trials: Sequence[Mapping[str, float]]
    """`number` and `score` of the complete ones, by number."""
    base_score: float
    """Mean over the seeds of the base run, on the same folds."""
    base_spread: float | None
    """Standard deviation over its seeds; None if it has one."""
    importance: Mapping[str, float]
    """Setting -> its share of what made trials differ; empty if that is not known."""


def tuning_section(studies: Sequence[SearchFacts]) -> Section:
    """How each search went: its trials against the base run, and which settings mattered."""
    findings, blocks = [], []
    for k, study in enumerate(studies):
        numbers = [trial["number"] for trial in study.trials]
        scores = [trial["score"] for trial in study.trials]
        better = max if study.greater_is_better else min
        best = [better(scores[: i + 1]) for i in range(len(scores))]
        sign = 1 if study.greater_is_better else -1
        gain = sign * (best[-1] - study.base_score) if best else 0.0
        noise = "of one seed" if study.base_spread is None else f"standard deviation {study.base_spread:.4f} over seeds"
        said = f"{study.name}: {len(scores)} trials are complete; base run {study.run} {study.base_score:.4f}, {noise}."
        if best:
            said += f" The best trial has {best[-1]:.4f} ({gain:+.4f}); the best of many is best by luck, too."
        findings.append(said)
        base = Series("base run", [min(numbers, default=0), max(numbers, default=1)], [study.base_score] * 2)
        if study.base_spread is not None:
            low, high = study.base_score - study.base_spread, study.base_score + study.base_spread
            base = Series(base.name, base.x, base.y, [low] * 2, [high] * 2)
        blocks.append(
            Chart(
                f"study-{k}", f"Trials of {study.name}", "lines", "trial", f"{study.metric}, cross-fitted",
                [Series("each trial", numbers, scores), Series("best so far", numbers, best), base],
                "The band is one standard deviation of the base run's seeds.",
            )
        )  # fmt: skip
        if study.importance:
            order = sorted(study.importance, key=lambda name: -study.importance[name])
            shares = Series("importance", order, [study.importance[name] for name in order])
            blocks.append(
                Chart(
                    f"importance-{k}", f"Settings that mattered in {study.name}", "bars", "share of what made trials "
                    "differ", "setting", [shares], "PED-ANOVA, from the complete trials.", share=True,
                )
            )  # fmt: skip
    return Section("tuning", "Searches over settings", findings, blocks)
