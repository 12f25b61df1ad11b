"""Show what the models do: one HTML page of a competition's data, runs, labels and errors, which opens from disk.

python src/report.py --data     # before any training: the data alone
python src/report.py            # everything: submissions/<competition>/report.html
python src/report.py --text     # the essentials in the terminal
python src/report.py --errors_of minilm --slices source --terms rude=damn,hell
python src/report.py --errors_of minilm --attributions worst    # which words spoke for a label; or ids of rows
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import prepare_tables
from foldblend.console import print_lines, say, warn
from foldblend.cores import single_threaded_products
from foldblend.data.tables import Tables, read_columns
from foldblend.data.texts import clean_texts
from foldblend.errors import UserError, nearest
from foldblend.files import sha256_file, write_atomically
from foldblend.folding.duplicates import find_conflicts, group_same, group_texts
from foldblend.folding.other_texts import compare_texts, find_repeats, find_telling_words
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.folds import Folds, load_folds
from foldblend.ledger.history import history_path, read_history, read_studies
from foldblend.ledger.runs import PartOfRun, find_runs, load_parts_of_runs, load_runs
from foldblend.ledger.submissions import local_files, read_log
from foldblend.predictions import fold_name
from foldblend.reports.data_page import DataFacts, TokenLengths, competition_words, data_sections
from foldblend.reports.errors import ExplainedText, Texts, attribution_blocks, errors_section, rows_to_explain
from foldblend.reports.labels import LabelShift, labels_section
from foldblend.reports.marks import Marks, find_terms, mark_texts
from foldblend.reports.overview import (
    BlendFacts,
    RunFacts,
    SearchFacts,
    overview_section,
    together_section,
    tuning_section,
)
from foldblend.reports.page import Page, Section, draw_charts, render, terminal_lines
from foldblend.scoring.inputs import Runs, Scores, Task, TestScores, rows_to_score
from foldblend.scoring.metrics.table import to_values
from foldblend.scoring.report import FEWEST_TEST_ROWS
from foldblend.scoring.validation.bootstrap import Difference
from foldblend.scoring.validation.comparing import Comparer, Predicted
from foldblend.scoring.validation.decided import Decided, compare_decided, decide_run
from foldblend.scoring.validation.shift import compare_means, find_shifted, mean_run_probs, mean_test_probs
from foldblend.settings.loading import Job, load_defaults, load_run, open_job, run_from_settings
from foldblend.settings.yaml_files import list_configs, split_names


def add_flags(parser) -> None:
    parser.add_argument("--data", action="store_true", help="the data alone; needs no run and no folds")
    parser.add_argument(
        "--terminal", action="store_true", help="print the essentials and write no page; --text is the same"
    )
    parser.add_argument("--output", default="", help="the page; submissions/<competition>/report.html by default")
    parser.add_argument(
        "--png", action="store_true", help="write every chart as PNG into a folder beside the page, too"
    )
    parser.add_argument("--run", default="", help="whose tokenizer counts tokens; the default run by default")
    parser.add_argument("--runs", nargs="+", default=None, help="runs in oof/<competition>/; all by default")
    parser.add_argument("--errors_of", default="", help="the run whose errors are shown; the best by default")
    parser.add_argument("--slices", nargs="+", default=None, help="columns of the training file to group rows by")
    parser.add_argument(
        "--terms", nargs="+", default=None, metavar="NAME=WORD,WORD", help="lists of words to group rows by"
    )
    parser.add_argument("--attributions", nargs="+", default=None, metavar="ID", help="training rows whose words are "
                        "weighed by the run whose errors are shown, an encoder; `worst`: those with the largest "
                        "loss")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    # `text` is a group of settings, too, so the parser would take the bare flag for a file of them
    job = open_job("report.py", ["--terminal" if flag == "--text" else flag for flag in argv], add_flags)
    print(f"competition {job.competition_name}: report", flush=True)
    path, terms = find_output(job), parse_terms(job.own.terms)
    check_names(job)
    tables = prepare_tables(job)
    columns = load_columns(job, tables)
    folds = find_folds(job, tables)
    marks = mark_texts(tables.train_texts)
    with ThreadPoolExecutor(1) as beside:  # texts are read in Python and runs compared in numpy: two cores at once
        data = beside.submit(lambda: data_sections(gather_data(job, tables, folds, marks)))
        found = find_terms(tables.train_texts, terms)
        texts = Texts(tables.train_ids.tolist(), tables.train_texts, tables.label_names, marks, columns, found)
        sections = [] if job.own.data else [*run_sections(job, tables, folds, texts), *tuning_sections(job)]
        sections += data.result()
    page = Page(
        title=f"{job.competition_name}: {'data' if job.own.data else 'report'}",
        facts=[f"Made {time.strftime('%Y-%m-%d %H:%M')} by report.py; all texts and numbers are in this file."],
        sections=sections,
    )
    if job.own.terminal:
        print_lines(["", *terminal_lines(page)])
    else:
        write_page(job, page, path)


def write_page(job: Job, page: Page, path: Path) -> None:
    """The page, and its charts as PNGs if they are asked for."""
    write_atomically(path, render(page).encode("utf-8"))
    shown = path.relative_to(job.paths.root) if path.is_relative_to(job.paths.root) else path
    if job.own.png:
        count = draw_charts(page, path.with_suffix(""))
        say(f"{shown.with_suffix('')}/: {count} charts as PNG")
    say(f"{shown}: open it in a browser")


def check_names(job: Job) -> None:
    """Refuse names of runs that are unknown before anything is computed. Raises UserError."""
    if job.own.run:
        load_run(job.paths, job.own.run)
    names = split_names(job.own.runs) or find_runs(job.paths, job.competition_name)
    if job.own.errors_of and job.own.errors_of not in (*names, BLEND):
        raise unknown_run(job.own.errors_of, [*names, BLEND])


def unknown_run(named: str, names: list[str]) -> UserError:
    """The error for `--errors_of`."""
    return UserError(f"--errors_of {named}: no such run{nearest(named, names) or '.'} There are: {', '.join(names)}")


def parse_terms(given: list[str] | None) -> dict[str, list[str]]:
    """`rude=damn,hell` -> {"rude": ["damn", "hell"]}. Raises UserError: a word without a name, or a name twice."""
    terms: dict[str, list[str]] = {}
    for each in given or []:
        name, _, listed = each.partition("=")
        words = [word.strip() for word in listed.split(",") if word.strip()]
        if not name or not words or name in terms:
            raise UserError(f"--terms {each!r}: expected NAME=WORD,WORD, each name once, as in --terms rude=damn,hell")
        terms[name] = words
    return terms


def find_output(job: Job) -> Path:
    """Where the page goes. Raises UserError: a name that is no page's, or a folder of files with records."""
    given = job.own.output
    if not given:
        return job.paths.submissions(job.competition_name) / "report.html"
    path = Path(given).resolve()
    if path.suffix != ".html" or path.is_dir():
        raise UserError(f"--output {given} is not a page; expected a name that ends in .html")
    return path


def find_folds(job: Job, tables: Tables) -> Folds | None:
    """The competition's folds; None if they are not drawn yet."""
    if not job.paths.folds(job.competition_name).exists():
        return None
    return load_folds(job.paths, job.competition_name, tables, job.competition)


# ---------- The data


def gather_data(job: Job, tables: Tables, folds: Folds | None, marks: Marks) -> DataFacts:
    """Everything that the data page shows."""
    competition = job.competition
    task = Task(competition.metric, competition.task, scale=tables.scale)
    better = "higher" if task.entry.greater_is_better else "lower"
    sizes = len(tables.train_ids), len(tables.test_ids)
    train, test = tables.train_texts, tables.test_texts
    both = group_same([*train, *test])[0]  # folding 50,000 texts takes a second: once for all that asks
    same = both[: len(train)] if tables.compared_texts == train else group_same(tables.compared_texts)[0]
    return DataFacts(
        words=competition_words(job.competition_name, asdict(competition), *sizes, better),
        ids=tables.train_ids.tolist(),
        texts=tables.train_texts,
        labels=tables.labels,
        label_names=tables.label_names,
        test_ids=tables.test_ids.tolist(),
        test_texts=tables.test_texts,
        marks=marks,
        test_marks=mark_texts(tables.test_texts),
        group=folds.group if folds else group_texts(tables.compared_texts, competition.near_duplicates),
        fold=folds.fold if folds else None,
        conflicts=[] if tables.scale is not None else find_conflicts(same, tables.labels),
        repeats=find_repeats(train, test, same=both),
        comparison=compare_texts(train, test, same=both),
        telling=find_telling_words(train, test, same=both),
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


def load_columns(job: Job, tables: Tables) -> dict[str, list[str]]:
    """The columns of the training file that `--slices` names, N cells each. Raises UserError: one is not there."""
    names = split_names(job.own.slices) or []
    return read_columns(job.competition, job.paths.data(job.competition_name), names, tables.train_ids) if names else {}


# ---------- The runs


@single_threaded_products()
def run_sections(job: Job, tables: Tables, folds: Folds | None, texts: Texts) -> list[Section]:
    """What the runs do; one section that says how to train the first if there are none."""
    name = job.competition_name
    if folds is None or not (job.own.runs or find_runs(job.paths, name)):
        said = f"No run is trained yet. Run: accelerate launch src/train.py --competition {name} --fold all"
        return [Section("overview", "Runs and blends", [said])]
    left_out: list[str] = []
    parts = load_parts_of_runs(job.paths, name, split_names(job.own.runs), folds, tables, left_out)
    warn(*(f"left out: {sentence}" for sentence in left_out))
    task, rows = Task(job.competition.metric, job.competition.task, scale=tables.scale), rows_to_score(tables, folds)
    runs = decide_runs(job, tables, task, rows, parts, folds.n_folds)
    shown = pick_shown(job, runs)
    decided = [run.decided for run in [shown, *(run for run in runs if run is not shown)]]
    whole = [part.name for part in parts if len(part.folds) == folds.n_folds]
    errors = errors_section(task, shown.decided, texts)
    if job.own.attributions:
        part = next((part for part in parts if part.name == shown.name), None)
        explained = explain_rows(job, tables, part, shown.decided)
        errors = replace(errors, blocks=[*errors.blocks, *attribution_blocks(shown.decided, texts, explained)])
    shift = measure_shift(job, tables, task, folds, whole)
    return [
        overview_section(task, runs, gather_blends(job), folds.n_folds),
        labels_section(task, decided, tables.label_names, shift),
        errors,
        together_section(task, runs, tables.label_names, texts.ids, texts.texts),
    ]


def tuning_sections(job: Job) -> list[Section]:
    """What studies of tune.py found; nothing if there is none."""
    studies = [SearchFacts(**study) for study in read_studies(job.paths, job.competition_name)]
    return [tuning_section(studies)] if studies else []


BLEND = "blend"
"""Name of the blend that the report makes, unless a run has it."""


def decide_runs(
    job: Job, tables: Tables, task: Task, rows: Runs, parts: list[PartOfRun], n_folds: int
) -> list[RunFacts]:
    """Every run and the blend of those that predicted all rows, the best first, those that lack folds last."""
    predicted = [
        Predicted(part.name, part.rows, task.to_scores(part.oof, part.kind, rows.scores.allowed_at(part.rows)))
        for part in parts
    ]
    comparer = Comparer(task, rows, tables.known, job.own.seed)
    whole = [run for run, part in zip(predicted, parts, strict=True) if len(part.folds) == n_folds]
    adds = comparer.measure_additions(whole)
    facts = [
        describe_part(job, part, decide_run(task, rows, run, tables.known, job.own.seed), adds.get(part.name))
        for part, run in zip(parts, predicted, strict=True)
    ]
    if len(whole) > 1 and BLEND not in {part.name for part in parts}:
        blend = decide_run(task, rows, comparer.blend(whole, BLEND), tables.known, job.own.seed)
        facts.append(RunFacts(blend, n_folds, None, None, None, "", "", is_blend=True))
    facts.sort(key=lambda run: (run.n_folds < n_folds, -run.decided.score))
    best = facts[0].decided
    return [facts[0], *(replace(run, behind=compare_decided(best, run.decided)) for run in facts[1:])]


def describe_part(job: Job, part: PartOfRun, decided: Decided, adds: Difference | None) -> RunFacts:
    """One run with what its records and histories say."""
    first = part.records[0] if part.records else {}
    found = {k: read_history(history_path(job.paths, job.competition_name, part.name, k)) for k in part.folds}
    histories = {fold: entries for fold, entries in found.items() if entries}
    taught = sum(entries[-1]["rows"] for entries in histories.values())
    spent = sum(entries[-1]["seconds"] for entries in histories.values())
    return RunFacts(
        decided=decided,
        n_folds=len(part.folds),
        seconds=sum(record.get("seconds", 0) for record in part.records) or None,
        rows_per_second=taught / spent if spent else None,
        n_parameters=first.get("n_parameters") or None,
        date=time.strftime("%Y-%m-%d", time.localtime(part.finished_at)),
        device=str(first.get("device", "")).split(",")[0] if part.records else "made elsewhere",
        selected=any(record.get("selected_on_heldout") for record in part.records),
        histories=histories,
        adds=adds,
    )


def pick_shown(job: Job, runs: list[RunFacts]) -> RunFacts:
    """The run whose errors are shown: the named one, else the best. Raises UserError: there is no such run."""
    named = job.own.errors_of
    if not named:
        return runs[0]
    found = [run for run in runs if run.name == named]
    if not found:
        raise unknown_run(named, [run.name for run in runs])
    return found[0]


def explain_rows(job: Job, tables: Tables, part: PartOfRun | None, run: Decided) -> list[ExplainedText]:
    """Which tokens of the rows that `--attributions` names spoke for their labels, by models that never saw them.

    Args:   part: the run in oof/; None for the blend that the report makes.
    Raises: UserError: the run is no trained encoder, its weights are not here or others, or there is no such row.
    """
    from foldblend.learners.table import Corpus
    from foldblend.learners.trained import attribute_fold, resolve_model

    if part is None or not part.records or part.records[0]["settings"]["learner"] != "encoder":
        raise UserError(
            f"--attributions: {run.name} is not a run of an encoder that was trained here. Name one: --errors_of RUN"
        )
    numbers = {str(tables.train_ids[row]): k for k, row in enumerate(run.rows.tolist())}
    named = None if job.own.attributions == ["worst"] else job.own.attributions
    if unknown := [id_ for id_ in named or [] if id_ not in numbers]:
        raise UserError(
            f"--attributions: {run.name} has predicted no training row with the id {unknown[0]!r}"
            f"{nearest(unknown[0], list(numbers))}; expected ids of the training file, or `worst`"
        )
    asked = rows_to_explain(run, None if named is None else [numbers[id_] for id_ in named])
    settings = run_from_settings(part.records[0]["settings"], f"oof/{job.competition_name}/{part.name}")
    nothing = np.zeros((0, len(tables.label_names)), dtype=bool)
    found = {}
    for fold, record in zip(part.folds, part.records, strict=True):
        own = [(row, labels) for row, labels in asked if run.fold[row] == fold]
        if not own:
            continue
        checkpoint = find_weights_of(job, part.name, fold, record)
        rows = run.rows[[row for row, _ in own]]
        cleaned = tuple(clean_texts([tables.train_texts[row] for row in rows], settings.cleaning))
        features = tables.train_features.take(rows) if settings.use_features and tables.train_features else None
        corpus = Corpus(cleaned, nothing, tables.label_names, job.competition.task, features=features)
        told = attribute_fold(resolve_model(settings, checkpoint, ""), corpus, checkpoint, [each for _, each in own])
        for (row, labels), each in zip(own, told, strict=True):
            found[row] = ExplainedText(row, labels, each.pieces, each.shares, each.logits, each.neutral)
    return [found[row] for row, _ in asked]


def find_weights_of(job: Job, run: str, fold: int, record: dict) -> Path:
    """The folder of a fold's weights. Raises UserError: they are not there, or not those of the fold's record."""
    folder = job.paths.checkpoints(job.competition_name, run) / fold_name(fold)
    path, again = folder / WEIGHTS, f"accelerate launch src/train.py --run {run} --fold {fold} --overwrite"
    if not path.is_file():
        raise UserError(f"--attributions: {path.relative_to(job.paths.root)} is missing. Restore it, or run: {again}")
    if record.get("weights_sha256") not in (None, "", sha256_file(path)):
        raise UserError(
            f"--attributions: {path.relative_to(job.paths.root)} does not hold the weights that the fold was trained "
            f"to. Restore them, or run: {again}"
        )
    return folder


def gather_blends(job: Job) -> list[BlendFacts]:
    """The submissions with their records and their scores on the leaderboard, oldest first."""
    logged = {entry.sha256: entry for entry in read_log(job.paths) if entry.competition == job.competition_name}
    facts = []
    for file in sorted(local_files(job.paths, job.competition_name), key=lambda file: file.path.stat().st_mtime_ns):
        if file.report is None:
            continue
        scores, expected, entry = file.scores(), file.expected or {}, logged.get(file.sha256)
        facts.append(
            BlendFacts(
                file.path.stem, file.report.get("chosen", ""), scores["cross_fitted"], scores["in_sample"],
                scores["expected"], expected.get("low"), expected.get("high"),
                entry.public_score if entry else None, entry.private_score if entry else None,
            )
        )  # fmt: skip
    return facts


def measure_shift(job: Job, tables: Tables, task: Task, folds: Folds, whole: list[str]) -> LabelShift | None:
    """Label rates that the runs see on out-of-fold and test rows; None if there are too few test rows to say."""
    if len(tables.test_ids) < FEWEST_TEST_ROWS or not whole or task.scale is not None:
        return None
    runs = load_runs(job.paths, job.competition_name, whole, folds, tables)
    allowed, test_allowed = (tables.of_learned(each) for each in (tables.allowed, tables.test_allowed))
    scores = Scores([task.to_scores(run.oof, run.kind, allowed) for run in runs], allowed)
    here = mean_run_probs(task, scores)
    there = mean_test_probs(task, [TestScores(run.test_folds, run.kind, task, test_allowed) for run in runs])
    p = compare_means(here, there, folds.group)
    return LabelShift(here.mean(axis=0), there.mean(axis=(0, 1)), p, find_shifted(p, here, there))
