"""Show what the models do: one HTML page of a competition's data, runs, labels and errors, which opens from disk.

python src/report.py --data                        # before any training: the data alone
python src/report.py                               # everything: submissions/<competition>/report.html
python src/report.py --text                        # the essentials in the terminal
python src/report.py --errors_of minilm --terms "rude=damn,hell" --slices source
"""

import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import prepare_tables
from foldblend.console import print_lines, say, warn
from foldblend.data.tables import Tables
from foldblend.errors import UserError
from foldblend.files import write_atomically
from foldblend.folding.duplicates import (
    compare_texts,
    find_conflicts,
    find_repeats,
    find_telling_words,
    group_same,
    group_texts,
)
from foldblend.ledger.folds import Folds, load_folds
from foldblend.reports.data_page import DataFacts, TokenLengths, competition_words, data_sections
from foldblend.reports.marks import mark_texts
from foldblend.reports.page import Page, render, terminal_lines
from foldblend.scoring.inputs import Task
from foldblend.scoring.metrics.table import to_values
from foldblend.settings.loading import Job, list_configs, load_defaults, load_run, open_job


def add_flags(parser) -> None:
    parser.add_argument("--data", action="store_true", help="the data alone; needs no run and no folds")
    parser.add_argument(
        "--terminal", action="store_true", help="print the essentials and write no page; --text is the same"
    )
    parser.add_argument("--output", default="", help="the page; submissions/<competition>/report.html by default")
    parser.add_argument("--run", default="", help="whose tokenizer counts tokens; the default run by default")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    # `text` is a group of settings, too, so the parser would take the bare flag for a file of them
    job = open_job("report.py", ["--terminal" if flag == "--text" else flag for flag in argv], add_flags)
    print(f"competition {job.competition_name}: report", flush=True)
    path = find_output(job)
    tables = prepare_tables(job)
    folds = find_folds(job, tables)
    page = Page(
        title=f"{job.competition_name}: {'data' if job.own.data else 'report'}",
        facts=[f"Made {time.strftime('%Y-%m-%d %H:%M')} by report.py"],
        sections=data_sections(gather_data(job, tables, folds)),
    )
    if job.own.terminal:
        print_lines(["", *terminal_lines(page)])
        return
    write_atomically(path, render(page).encode("utf-8"))
    say(f"{path.relative_to(job.paths.root) if path.is_relative_to(job.paths.root) else path}: open it in a browser")


def find_output(job: Job) -> Path:
    """Where the page goes. Raises UserError: a name that is no page's, or a folder of files with records."""
    given = job.own.output
    if not given:
        return job.paths.submissions(job.competition_name) / "report.html"
    path = Path(given).resolve()
    if path.suffix != ".html" or path.is_dir():
        raise UserError(f"--output {given} is no page; expected a name that ends in .html")
    return path


def find_folds(job: Job, tables: Tables) -> Folds | None:
    """The competition's folds; None if they are not drawn yet."""
    if not job.paths.folds(job.competition_name).exists():
        return None
    return load_folds(job.paths, job.competition_name, tables, job.competition)


# ---------- The data


def gather_data(job: Job, tables: Tables, folds: Folds | None) -> DataFacts:
    """Everything that the data page shows."""
    competition = job.competition
    task = Task(competition.metric, competition.task, scale=tables.scale)
    better = "higher" if task.entry.greater_is_better else "lower"
    sizes = len(tables.train_ids), len(tables.test_ids)
    same = group_same(tables.compared_texts)[0]
    return DataFacts(
        words=competition_words(job.competition_name, asdict(competition), *sizes, better),
        ids=tables.train_ids.tolist(),
        texts=tables.train_texts,
        labels=tables.labels,
        label_names=tables.label_names,
        test_ids=tables.test_ids.tolist(),
        test_texts=tables.test_texts,
        marks=mark_texts(tables.train_texts),
        test_marks=mark_texts(tables.test_texts),
        group=folds.group if folds else group_texts(tables.compared_texts, competition.near_duplicates),
        fold=folds.fold if folds else None,
        conflicts=[] if tables.scale is not None else find_conflicts(same, tables.labels),
        repeats=find_repeats(tables.train_texts, tables.test_texts),
        comparison=compare_texts(tables.train_texts, tables.test_texts),
        telling=find_telling_words(tables.train_texts, tables.test_texts),
        one_label=task.kind == "multiclass",
        values=find_values(tables),
        tokens=count_tokens_of(job, tables),
        notes=[*tables.notes, *tables.label_lines],
    )


def find_values(tables: Tables) -> np.ndarray | None:
    """What a regression learns on its own scale, float64 (N, L), nan if unknown; None for labels."""
    if tables.scale is None or tables.soft is None:
        return None
    values = to_values(tables.soft, tables.scale)
    return values if tables.known is None else np.where(tables.known, values, np.nan)


def count_tokens_of(job: Job, tables: Tables) -> TokenLengths | None:
    """Lengths in tokens of a run that reads tokens; None if its tokenizer is not on this machine.

    Raises: UserError: the run that `--run` names is unknown.
    """
    name = job.own.run or load_defaults(job.paths).run
    if not job.own.run and not any(path.stem == name for path in list_configs(job.paths, "runs")):
        return None
    run = load_run(job.paths, name)
    if run.learner not in READ_TOKENS:
        if job.own.run:
            warn(f"--run {name} reads no tokens: its learner is {run.learner}")
        return None
    from foldblend.learners.nets.pretrained import count_tokens, find_here

    folder = find_here(run.model.name, run.model.revision)
    train = count_tokens(folder, tables.train_texts) if folder else None
    if folder is None or train is None:
        if job.own.run:
            warn(f"--run {name}: the tokenizer of {run.model.name} is not on this machine, so tokens are not counted")
        return None
    return TokenLengths(name, train, count_tokens(folder, tables.test_texts), run.model.max_length_tokens)


READ_TOKENS = ("encoder", "decoder", "generator")
"""Learners that truncate texts at `model.max_length_tokens`."""
