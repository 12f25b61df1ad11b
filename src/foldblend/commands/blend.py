"""Blend the runs in oof/: weights, thresholds, an honest score, and the submission.

python src/blend.py
python src/blend.py --competition goemotions --runs tfidf minilm --strategy label_weights
python src/blend.py --from submissions/goemotions/blend-1a2b3c4d.json
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldblend.console import print_lines, say, warn
from foldblend.cores import give_back_freed_memory
from foldblend.data.answer_form import constants_record
from foldblend.data.tables import Tables, load_tables
from foldblend.errors import UserError
from foldblend.files import sha256_bytes
from foldblend.folding.other_texts import compare_texts, find_repeats
from foldblend.ledger.folds import Folds, load_folds
from foldblend.ledger.records import describe_environment, read_record
from foldblend.ledger.runs import BLEND, RunPredictions, check_same_inputs, group_seeds, input_hashes, load_runs
from foldblend.ledger.submissions import earlier_submissions, write_submission
from foldblend.predictions import TextComparison
from foldblend.scoring.blending import check_strategy, make_blend
from foldblend.scoring.ensembling.predictors import Recipe, mean_of_tables, recipe_from_record
from foldblend.scoring.ensembling.strategies import OLD_NAMES, refuse_strategy_names
from foldblend.scoring.inputs import (
    Runs,
    Scores,
    Task,
    TestScores,
    find_noise,
    number,
    put_side_by_side,
    rows_to_score,
    score_known,
    split_into_parts,
    without_runs,
)
from foldblend.scoring.report import (
    FEWEST_TEST_ROWS,
    BlendReport,
    TestFacts,
    describe_blend,
    report_lines,
    report_record,
    seed_lines,
    shift_lines,
    table_lines,
)
from foldblend.scoring.validation.shift import mean_run_probs, mean_test_probs
from foldblend.settings.loading import Job, open_job
from foldblend.settings.records import as_answered, competition_with_defaults, without_new_defaults
from foldblend.settings.yaml_files import split_names
from foldblend.submission.answers import build_submission, lint_submission, lint_submission_file, submission_bytes


def add_flags(parser) -> None:
    parser.add_argument("--runs", nargs="+", default=None, help="runs in oof/<competition>/; all finished by default")
    parser.add_argument("--strategy", default="", help="take this strategy or run, whatever its score")
    parser.add_argument(
        "--reestimate_priors",
        action="store_true",
        help="correct label shift; only if you know that the rates alone changed",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of resamples, bags and repeated partitions")
    parser.add_argument("--group_seeds", action="store_true", help="blend the mean of runs that differ in their seed")
    parser.add_argument("--from", default="", help="a submission's .json: write the identical .csv again")


def main(argv: list[str] | None = None) -> None:
    """Parse, load, blend or repeat a blend, write."""
    give_back_freed_memory()
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("blend.py", name_competition(argv), add_flags)
    print(f"competition {job.competition_name}: blend", flush=True)
    source = getattr(job.own, "from")
    print_end(job, repeat_blend(job, Path(source)) if source else blend_anew(job))


def name_competition(argv: list[str]) -> list[str]:
    """The flags, with the competition that a `--from` record is of unless it is named."""
    named = [flag.split("=", 1)[0] for flag in argv]
    if "--from" not in named or "--competition" in named:
        return argv
    at = named.index("--from")
    source = argv[at].split("=", 1)[1] if "=" in argv[at] else "".join(argv[at + 1 : at + 2])
    return [*argv, "--competition", read_record(Path(source), BLEND)["competition"]] if Path(source).is_file() else argv


# ---------- What goes in


@dataclass(frozen=True)
class Inputs:
    """What the stages before left on disk."""

    tables: Tables
    folds: Folds
    predictions: list[RunPredictions]
    test_scores: list[TestScores]
    task: Task
    texts: TextComparison | None
    """None if nobody asked for it, or if the test file is too small."""

    def without(self, names: list[str]) -> "Inputs":
        """The same without some runs."""
        kept = [number for number, run in enumerate(self.predictions) if run.name not in names]
        predictions, scores = ([each[number] for number in kept] for each in (self.predictions, self.test_scores))
        return replace(self, predictions=predictions, test_scores=scores)

    def digests(self) -> dict[str, str]:
        """Every file that went in -> its sha256."""
        return input_hashes(self.folds, self.predictions)


def load_inputs(job: Job, run_names: list[str] | None, compares_texts: bool = False) -> Inputs:
    """The competition's tables, its folds and the runs' predictions. Raises UserError if they do not fit."""
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    warn(*tables.notes)
    folds = load_folds(job.paths, job.competition_name, tables, job.competition)
    skipped: list[str] = []
    predictions = load_runs(job.paths, job.competition_name, run_names, folds, tables, skipped)
    say(*(f"left out, not all folds are trained: {note}" for note in skipped))
    task = Task(job.competition.metric, job.competition.task, scale=tables.scale)
    allowed = tables.of_learned(tables.test_allowed)
    test_scores = [TestScores(run.test_folds, run.kind, task, allowed) for run in predictions]
    texts = None
    if compares_texts and len(tables.test_texts) >= FEWEST_TEST_ROWS:
        texts = compare_texts(tables.train_texts, tables.test_texts)
    elif compares_texts and (repeats := find_repeats(tables.train_texts, tables.test_texts)):
        warn(f"{len(repeats)} of {len(tables.test_texts)} test texts are in the training file, too")
    return Inputs(tables.without_texts(), folds, predictions, test_scores, task, texts)


def gather_runs(inputs: Inputs) -> Runs:
    """The runs' out-of-fold scores side by side."""
    task = inputs.task
    runs = put_side_by_side(rows_to_score(inputs.tables, inputs.folds), inputs.predictions, task)
    refuse_strategy_names(runs.names)
    runs = replace(runs, fold=split_into_parts(runs.fold, runs.group))
    return runs if inputs.tables.known is None else score_known(runs, inputs.tables.known, task)


# ---------- A new blend


def blend_anew(job: Job) -> Path:
    """Choose, print and write a blend."""
    strategy, seed = find_strategy(job.own.strategy), job.own.seed
    inputs = load_inputs(job, split_names(job.own.runs), compares_texts=True)
    task, label_names = inputs.task, inputs.tables.label_names

    runs = gather_runs(inputs)
    if not job.own.group_seeds:
        check_strategy(strategy, runs.names, task, len(label_names))
    noise = [] if job.own.runs else [name for name in find_noise(runs) if not strategy.startswith(name)]
    if noise:
        say(f"left out, as their predictions agree with no label and no other run: {', '.join(noise)}")
        runs, inputs = without_runs(runs, noise), inputs.without(noise)
    seeds = group_seeds(inputs.predictions)
    joined = join_seeds(inputs.predictions, seeds) if job.own.group_seeds else {}
    if job.own.group_seeds:
        runs = join_runs(runs, joined)
        check_strategy(strategy, runs.names, task, len(label_names))
    blend = make_blend(task, runs, strategy, seed)
    print_lines(table_lines(task, blend, find_notes(inputs.predictions, joined)))
    print_lines(seed_lines(task, blend, [] if joined else seeds))

    recipe = Recipe(task.kind, blend.predictor, blend.rule, groups=tuple(joined.values()))
    fold_probs = recipe.fold_probs(inputs.test_scores)
    all_runs, training = runs, None
    if inputs.tables.known is not None:  # a label shifts in rows of which nobody knows it, too
        all_runs = put_side_by_side(rows_to_score(inputs.tables, inputs.folds), inputs.predictions, task)
        all_runs, training = join_runs(all_runs, joined) if joined else all_runs, (inputs.tables.labels, all_runs.group)
    means = mean_run_probs(task, all_runs.scores), mean_test_probs(task, recipe.grouped(inputs.test_scores))
    brought = {run.name: run.test_is for run in inputs.predictions if not run.records}
    groups = number(inputs.tables.test_metric_groups)
    has_full = bool(member_lines(inputs.predictions, recipe))
    facts = TestFacts(
        means, job.competition.files.hidden_test_rows, inputs.texts, brought, groups, has_full, training=training
    )
    report = describe_blend(task, blend, fold_probs, seed, facts)
    print_lines(["", *report_lines(task, blend, report, label_names), *shift_lines(task, report, label_names)])
    if job.own.reestimate_priors:
        recipe = correct_priors(recipe, inputs, report)
    recipe = recipe.settled(fold_probs)

    print_lines(member_lines(inputs.predictions, recipe))
    print_lines(inputs.tables.label_lines)
    record = {
        "competition": job.competition_name,
        "runs": [run.name for run in inputs.predictions],
        "settings": {
            **{"competition": asdict(job.competition), "seed": seed, "strategy": strategy},
            **({"group_seeds": True} if joined else {}),
        },
        "inputs": inputs.digests(),
        "recipe": recipe.to_record(),
        "report": report_record(task, blend, report, label_names),
        **constants_record(inputs.tables.constants, inputs.tables.answer_names),
        **({} if inputs.tables.scale is None else {"scale": inputs.tables.scale.tolist()}),
    }
    return write_blend(job, inputs.tables, recipe, fold_probs, blend.honest[0], record)


def correct_priors(recipe: Recipe, inputs: Inputs, report: BlendReport) -> Recipe:
    """The recipe with the rates of shifted labels re-estimated, as `--reestimate_priors` asks."""
    if report.shift is None or report.shift.correction is None:
        why = "too few test rows to see a shift" if report.shift is None else "no label shifted"
        warn(f"--reestimate_priors changes nothing: {why}")
        return recipe
    if not report.shift.correction.is_offered:
        warn("--reestimate_priors is applied as asked, against the evidence above")
    tables = inputs.tables
    n_known = len(tables.labels) if tables.known is None else np.maximum(tables.known.sum(axis=0), 1)
    return replace(recipe, priors=tables.labels.sum(axis=0) / n_known, shifted=tuple(report.shift.shifted.tolist()))


def find_strategy(asked: str) -> str:
    """Today's name of the strategy that `--strategy` asks for; an old name is a warning."""
    name, plus, tuning = asked.partition(" + ")
    if name in OLD_NAMES:
        warn(f"--strategy {name} is now called {OLD_NAMES[name]}")
    return OLD_NAMES.get(name, name) + plus + tuning


def join_seeds(predictions: list[RunPredictions], seeds: list[list[str]]) -> dict[str, tuple[int, ...]]:
    """Name of each run that is blended -> the positions of the runs that it is the mean of; empty if none are joined.

    Args: seeds: of `group_seeds`.
    """
    if not seeds:
        warn("--group_seeds changes nothing: no two runs differ in their seed alone")
        return {}
    position = {run.name: number for number, run in enumerate(predictions)}
    first = {name: names for names in seeds for name in names}
    groups: dict[str, tuple[int, ...]] = {}
    for run in predictions:
        names = first.get(run.name, [run.name])
        shown = f"{names[0]} ({len(names)} seeds)" if len(names) > 1 else run.name
        groups.setdefault(shown, tuple(position[name] for name in names))
    return groups


def join_runs(runs: Runs, joined: dict[str, tuple[int, ...]]) -> Runs:
    """The same rows with the mean of each group of runs as one run, and a line for each group."""
    if not joined:
        return runs
    say(*(f"{name}: the mean of {', '.join(runs.names[run] for run in of)}" for name, of in joined.items() if of[1:]))
    tables = [mean_of_tables([runs.scores.runs[run] for run in group]) for group in joined.values()]
    return replace(runs, names=tuple(joined), scores=Scores(tables, runs.scores.allowed))


def find_notes(predictions: list[RunPredictions], joined: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """What a reader of the table must know about a run, or about the mean of seeds. Args: joined: of `join_seeds`."""
    notes = {}
    for name, of in (joined or {run.name: (position,) for position, run in enumerate(predictions)}).items():
        runs = [predictions[each] for each in of]
        found = []
        if any(record.get("selected_on_heldout") for run in runs for record in run.records):
            found.append("selected on its held-out rows, so its scores are too good")
        if any(run.has_full for run in runs):
            found.append("its model of all rows predicts test rows only: no score shows it")
        if found:
            notes[name] = "; ".join(found)
    return notes


def member_lines(predictions: list[RunPredictions], recipe: Recipe) -> list[str]:
    """Which models the answer to a test row is the mean of, if some run has a model of all rows; otherwise nothing."""
    used = [predictions[k] for k in recipe.used_runs(len(predictions))]
    full = [run.name for run in used if run.has_full]
    if not full:
        return []
    n_folds = max(len(run.test_folds) for run in used) - 1
    others = [run.name for run in used if not run.has_full and len(run.test_folds) > 1]
    rest = f"; for {', '.join(others)} the mean of the folds is used" if others else ""
    return [
        f"a test row's answer is the mean over {n_folds} folds and, with the weight of one more fold, the model of all "
        f"rows of {', '.join(full)}{rest}. It has no out-of-fold predictions: weights, thresholds and scores are those "
        "of the folds"
    ]


def write_blend(
    job: Job, tables: Tables, recipe: Recipe, fold_probs: np.ndarray, oof_answers: np.ndarray, record: dict
) -> Path:
    """Lint the submission, write it with its record, lint the file."""
    path = job.paths.submissions(job.competition_name) / f"{name_submission(record)}.csv"
    data, frame = build_bytes(job, tables, recipe, fold_probs)
    earlier = earlier_submissions(job.paths, job.competition_name)
    earlier = {digest: other for digest, other in earlier.items() if other != path}
    warn(*lint_submission(frame, job.competition, tables, oof_answers, earlier))
    record = {**record, "environment": describe_environment(Path(__file__).parent)}
    path = write_submission(job.paths, job.competition_name, path.stem, data, record)
    lint_submission_file(path, job.competition, tables, oof_answers)
    return path


def name_submission(record: dict) -> str:
    """`blend-` and 8 hex digits of the inputs, the settings and the recipe: same in, same name."""
    parts = {key: record[key] for key in ("competition", "runs", "settings", "inputs", "recipe")}
    settings = parts["settings"]
    parts["settings"] = {**settings, "competition": as_answered(without_new_defaults(settings["competition"]))}
    return f"blend-{sha256_bytes(json.dumps(parts, sort_keys=True).encode())[:8]}"


def build_bytes(job: Job, tables: Tables, recipe: Recipe, fold_probs: np.ndarray) -> tuple[bytes, pd.DataFrame]:
    """The submission as bytes and as a table."""
    probs, answer = recipe.answer(fold_probs, tables.of_learned(tables.test_allowed))
    frame = build_submission(job.competition, tables, answer if answer.dtype == bool else None, probs)
    return submission_bytes(frame, job.competition.submission.separator), frame


# ---------- A blend once more


def repeat_blend(job: Job, source: Path) -> Path:
    """Write the submission that a record describes once more. Raises UserError if anything that went in changed."""
    record = read_record(source, BLEND)
    inputs = load_inputs(job, record["runs"])
    check_unchanged(job, inputs, record, source)
    recipe = recipe_from_record(record["recipe"])
    data, _ = build_bytes(job, inputs.tables, recipe, recipe.fold_probs(inputs.test_scores))
    if sha256_bytes(data) != record["csv_sha256"]:
        raise UserError(f"{source}: the same inputs gave other bytes than its csv_sha256; other library versions?")
    print(f"byte for byte the submission of {source}")
    return write_submission(job.paths, job.competition_name, source.stem, data, record)


def check_unchanged(job: Job, inputs: Inputs, record: dict, source: Path) -> None:
    """Raises UserError if files or the competition's settings are not those of the record."""
    check_same_inputs(source, record, inputs.digests())
    then, now = (
        competition_with_defaults(record["settings"]["competition"]),
        json.loads(json.dumps(asdict(job.competition))),
    )
    if as_answered(then) != as_answered(now):
        raise UserError(f"{source}: configs/competitions/{job.competition_name}.yaml or its flags changed since")


# ---------- What is printed


def print_end(job: Job, path: Path) -> None:
    """The last lines: where the CSV is and how to submit it."""
    shown, name, files = path.relative_to(job.paths.root), job.competition_name, job.competition.files
    print(f"\n{shown}")
    if files.kaggle:
        print(f"python src/submit.py {shown}  # logs its score, too; or by hand:")
        print(f'kaggle competitions submit -c {files.kaggle} -f {shown} -m "{path.stem}"')
    elif files.source in ("sample", "goemotions"):
        print(f"{name} is not on Kaggle. To score this CSV here:")
        print(f"python bench/score_submission.py --competition {name} {shown}")
    else:
        print("This CSV is your answer. If the competition is on Kaggle, give its name in Kaggle's URL to get the")
        print(f"submit command: files: {{kaggle: SLUG}} in configs/competitions/{name}.yaml")
