"""Compare the runs in oof/, finished or not: which is better, is that more than noise, and what differs.

python src/runs.py
python src/runs.py --diff tfidf minilm
python src/runs.py --csv > runs.csv
python src/runs.py --watch
"""

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.console import Screen, clock_time, columns, job_line, table_lines, warn
from foldblend.data.tables import load_tables
from foldblend.errors import UserError
from foldblend.ledger.folds import load_folds
from foldblend.ledger.history import OpenHistory, find_open_histories
from foldblend.ledger.runs import PartOfRun, group_seeds, load_parts_of_runs
from foldblend.predictions import fold_title
from foldblend.scoring.inputs import Task, rows_to_score
from foldblend.scoring.validation.bootstrap import Difference
from foldblend.scoring.validation.comparing import Comparer, Predicted, RunScore
from foldblend.settings.loading import Job, open_job
from foldblend.settings.records import differing_settings, with_defaults
from foldblend.settings.yaml_files import split_names


def add_flags(parser) -> None:
    parser.add_argument("--runs", nargs="+", default=None, help="runs in oof/<competition>/; all by default")
    parser.add_argument("--diff", nargs=2, default=None, metavar="RUN", help="what differs between two runs")
    parser.add_argument("--csv", action="store_true", help="print everything that is known as a CSV")
    parser.add_argument("--watch", action="store_true", help="show the folds that train now until Ctrl-C")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")


def main(argv: list[str] | None = None) -> None:
    job = open_job("runs.py", argv, add_flags)
    print(f"competition {job.competition_name}: runs", file=sys.stderr if job.own.csv else sys.stdout, flush=True)
    if job.own.watch:
        watch(job)
        return
    names = split_names(job.own.diff or job.own.runs)
    if job.own.diff and len(set(names)) != 2:
        raise UserError(f"--diff {' '.join(job.own.diff)}: expected the names of two runs")
    compared = load_compared(job, names)
    if job.own.diff:
        print_difference(compared, *names)
    elif job.own.csv:
        print_csv(describe_runs(compared))
    else:
        print_table(compared, describe_runs(compared))


# ---------- What goes in


@dataclass(frozen=True)
class Compared:
    """The runs, and what compares them."""

    task: Task
    n_folds: int
    comparer: Comparer
    parts: dict[str, PartOfRun]
    """By name of the run."""
    predicted: dict[str, Predicted]
    """The same as scores."""


def load_compared(job: Job, names: list[str] | None) -> Compared:
    """Whatever is trained of the named runs, or of all. Raises UserError if it does not fit."""
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    folds = load_folds(job.paths, job.competition_name, tables, job.competition)
    left_out: list[str] = []
    parts = load_parts_of_runs(job.paths, job.competition_name, names, folds, tables, left_out)
    warn(*(f"left out: {sentence}" for sentence in left_out))
    task, rows = Task(job.competition.metric, job.competition.task, scale=tables.scale), rows_to_score(tables, folds)
    scores = (task.to_scores(part.oof, part.kind, rows.scores.allowed_at(part.rows)) for part in parts)
    predicted = {part.name: Predicted(part.name, part.rows, each) for part, each in zip(parts, scores, strict=True)}
    comparer = Comparer(task, rows, tables.known, job.own.seed)
    return Compared(task, folds.n_folds, comparer, {part.name: part for part in parts}, predicted)


# ---------- The table


@dataclass(frozen=True)
class RunLine:
    """What is known of one run."""

    part: PartOfRun
    score: RunScore
    behind: Difference | None
    """Its score above that of the table's first run, on the rows that both predicted; None for the first."""
    adds: Difference | None
    """What it adds to the blend of the others; None if not all its folds are trained, or there are no others."""


def describe_runs(compared: Compared) -> list[RunLine]:
    """A line per run, the best score first."""
    predicted, comparer = compared.predicted, compared.comparer
    scores = {name: comparer.score(run) for name, run in predicted.items()}
    order = sorted(predicted, key=lambda name: -scores[name].score)
    whole = [run for name, run in predicted.items() if len(compared.parts[name].folds) == compared.n_folds]
    added = comparer.measure_additions(whole)
    first = predicted[order[0]]
    behind = {name: comparer.compare(first, predicted[name]) for name in order[1:]}
    return [RunLine(compared.parts[name], scores[name], behind.get(name), added.get(name)) for name in order]


def print_table(compared: Compared, lines: Sequence[RunLine]) -> None:
    """Scores, then facts about the trainings, then seeds."""
    entry = compared.task.entry
    better = "higher" if entry.greater_is_better else "lower"
    scores = [("run", "score", "+- rows", "+- folds", "vs first", "adds")]
    facts = [("run", "folds", "time", "params", "date", "commit", "device")]
    for line in lines:
        part, score = line.part, line.score
        name, folds = _short(part.name), f"{len(part.folds)}/{compared.n_folds}{'+full' * part.has_full}"
        spread = "" if score.spread is None else f"{score.spread:.4f}"
        differences = (_signed(found, entry.sign) for found in (line.behind, line.adds))
        scores.append((name, f"{entry.sign * score.score:.4f}", f"{score.error:.4f}", spread, *differences))
        facts.append((name, folds, _hours(part), _count(part), _date(part), _commit(part), _device(part)[:16]))
    print("\n".join([f"\n{compared.task.metric}, cross-fitted; {better} is better", "", *table_lines(scores), ""]))
    print("  score     on the folds themselves; blend.py's table adds other splits")
    print("  +- rows   standard deviation if other rows had been drawn")
    print("  +- folds  standard deviation over the folds, each scored alone")
    print("  vs first  against the first line, on the rows that both predicted")
    print("  adds      to the blend of the others, if all folds are trained")
    print("  *         more than noise: its 90 % interval leaves out 0\n")
    print("\n".join(table_lines(facts)))
    by_name = {line.part.name: entry.sign * line.score.score for line in lines}
    whole = [line.part for line in lines if len(line.part.folds) == compared.n_folds]
    for names in group_seeds(whole):
        of = [by_name[name] for name in names]
        print(f"{len(of)} seeds of {names[0]}: mean {np.mean(of):.4f}, sd {np.std(of, ddof=1):.4f}")


def print_csv(lines: Sequence[RunLine]) -> None:
    """Everything that is known of the runs, as a CSV on stdout; differences are on the tasks' scale, more is better."""
    rows = []
    for line in lines:
        part, settings = line.part, line.part.records[0]["settings"] if line.part.records else {}
        row = {
            "run": part.name,
            "learner": settings.get("learner", ""),
            "seed": settings.get("seed", ""),
            "score": line.score.score,
            "error_rows": line.score.error,
            "sd_folds": line.score.spread,
        }
        for name, found in (("vs_first", line.behind), ("adds", line.adds)):
            values = (found.gain, found.low, found.high) if found else ("", "", "")
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
        row |= {
            "folds": " ".join(map(str, part.folds)),
            "seconds": _seconds(part),
            "parameters": part.records[0].get("n_parameters", "") if part.records else "",
            "device": _device(part),
            "date": _date(part),
            "commit": _commit(part),
        }
        rows.append(row)
    writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


# ---------- Words for one run


NAME_COLUMNS = 22


def _short(name: str) -> str:
    """A long name loses its middle."""
    return name if len(name) <= NAME_COLUMNS else f"{name[: NAME_COLUMNS - 11]}…{name[-10:]}"


def _signed(found: Difference | None, sign: int) -> str:
    if found is None:
        return ""
    return f"{sign * found.gain:+.4f}{'*' if found.low > 0 or found.high < 0 else ' '}"


def _seconds(part: PartOfRun) -> float | str:
    return sum(record.get("seconds", 0) for record in part.records) if part.records else ""


def _hours(part: PartOfRun) -> str:
    return clock_time(_seconds(part)) if part.records else ""


def _count(part: PartOfRun) -> str:
    """22713216 -> 22.7M; empty if the record does not say."""
    n_parameters = part.records[0].get("n_parameters", 0) if part.records else 0
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_parameters >= size:
            return f"{n_parameters / size:.1f}{letter}"
    return str(n_parameters or "")


def _date(part: PartOfRun) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(part.finished_at))


def _commit(part: PartOfRun) -> str:
    commit = part.records[0].get("environment", {}).get("git_commit", "") if part.records else ""
    return commit[:8] if " " not in commit else ""


def _device(part: PartOfRun) -> str:
    return str(part.records[0].get("device", "")).split(",")[0] if part.records else "made elsewhere"


# ---------- Two runs


def print_difference(compared: Compared, first: str, second: str) -> None:
    """The settings that differ, and the paired bootstrap of the second run's score minus the first's."""
    parts = [compared.parts[name] for name in (first, second)]
    if all(part.records for part in parts):
        differing = differing_settings(*(with_defaults(part.records[0]["settings"]) for part in parts))
        rows = [("setting", first, second), *((key, _plain(one), _plain(other)) for key, one, other in differing)]
        print("\n".join(["", *table_lines(rows)]) if differing else "\nno setting differs")
    else:
        print("\nno settings to compare: one of the runs was made by another program")
    found = compared.comparer.compare(*(compared.predicted[name] for name in (first, second)))
    if found is None:
        raise UserError(f"{first} and {second} have no fold in common: folds {parts[0].folds} and {parts[1].folds}")
    common = len(np.intersect1d(parts[0].rows, parts[1].rows))
    sign, metric = compared.task.entry.sign, compared.task.metric
    low, high = sorted((sign * found.low, sign * found.high))
    print(f"\n{metric} of {second} minus {first}, on the {common:,} rows that both predicted:")
    print(f"  {sign * found.gain:+.4f}, 90 % interval {low:+.4f} to {high:+.4f}")
    is_noise = found.low <= 0 <= found.high
    print("  no more than noise" if is_noise else f"  more than noise: {second if found.gain > 0 else first} is better")


def _plain(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:13]}…{text[-10:]}"


# ---------- The folds that train now


WATCH_SECONDS = 2.0
RECENT_LINES = 20
"""The rate is that of the last so many lines."""
STALE_SECONDS = 600
"""A training that has said nothing for so long is said to be silent."""


def watch(job: Job) -> None:
    """A live table of the folds that train now, on this machine or any that shares the folder; until Ctrl-C."""
    screen = Screen()
    try:
        while True:
            lines = watch_lines(job, columns(), time.time())
            screen.show([f"{len(lines)} fold{'s' * (len(lines) != 1)} in training", *lines])
            time.sleep(WATCH_SECONDS)
    finally:
        screen.show([])


def watch_lines(job: Job, width: int, now: float) -> list[str]:
    """A line per fold with a history and without predictions yet."""
    lines = []
    for history in find_open_histories(job.paths, job.competition_name):
        state = _describe(history, job.competition.metric, now)
        lines.append(
            job_line(f"{history.run} {fold_title(history.fold)}", history.entries[-1]["seconds"], state, width)
        )
    return lines


def _describe(history: OpenHistory, metric: str, now: float) -> str:
    """Percent, loss, held-out score, rows per second and time left of one history."""
    entries, last, silent = history.entries, history.entries[-1], max(now - history.written_at, 0.0)
    words = [f"{100 * last['step'] // max(last['steps'], 1):3d}%"]
    for key, shown in (("loss", "loss"), (f"heldout_{metric}", metric)):
        values = [entry[key] for entry in entries if key in entry]
        words += [f"{shown} {values[-1]:.4f}"] if values else []
    early = entries[-RECENT_LINES] if len(entries) >= RECENT_LINES else entries[0]
    steps, seconds = last["step"] - early["step"], last["seconds"] - early["seconds"]
    if silent > STALE_SECONDS:
        words.append(f"silent for {clock_time(silent)}")
    elif steps > 0 and seconds > 0:
        left = (last["steps"] - last["step"]) * seconds / steps - silent
        words += [f"{(last['rows'] - early['rows']) / seconds:.0f} r/s", f"{clock_time(max(left, 0))} left"]
    return "  ".join(words)
