"""Door: weigh the runs in oof/, cut probabilities into labels, say the honest score, write the submission.

python src/blend.py
python src/blend.py --competition goemotions --runs tfidf minilm --strategy label
python src/blend.py --from submissions/goemotions/blend-1a2b3c4d.json
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from foldblend.data.tables import Tables, load_tables
from foldblend.errors import UserError
from foldblend.files import sha256_bytes
from foldblend.ledger.folds import Folds, load_folds
from foldblend.ledger.records import describe_environment, read_record
from foldblend.ledger.runs import RunPredictions, load_runs
from foldblend.ledger.submissions import earlier_submissions, write_submission
from foldblend.scoring.blending import describe_blend, make_blend
from foldblend.scoring.ensembling.predictors import Scores
from foldblend.scoring.parallel import give_back_freed_memory
from foldblend.scoring.recipe import Recipe, recipe_from_record
from foldblend.scoring.report import account_of, outcome_lines, seed_lines, shift_lines, table_lines
from foldblend.scoring.thresholds.rules import Task
from foldblend.scoring.validation.partitions import Runs, TestScores, deal_parts
from foldblend.settings.loading import Job, open_job, with_defaults
from foldblend.submission.answers import build_submission, lint_submission, lint_submission_file, submission_bytes


def add_flags(parser) -> None:
    parser.add_argument("--runs", nargs="+", default=None, help="runs in oof/<competition>/; all by default")
    parser.add_argument("--strategy", default="", help="hand in this strategy or run, whatever its score")
    parser.add_argument("--reestimate_priors", action="store_true", help="correct for label shift where it is found")
    parser.add_argument("--seed", type=int, default=0, help="of resamples, bags and repeated partitions")
    parser.add_argument("--from", default="", help="a submission's .json: write the identical .csv again")


def main(argv: list[str] | None = None) -> None:
    give_back_freed_memory()
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("blend.py", name_competition(argv), add_flags)
    source = getattr(job.own, "from")
    record = read_record(Path(source)) if source else {}
    tables = load_tables(job.competition, job.paths.data(job.competition_name))
    folds = load_folds(job.paths, job.competition_name, tables, job.competition)
    predictions = load_runs(job.paths, job.competition_name, record.get("runs", job.own.runs), folds, tables)
    tables = tables.without_texts()
    task = Task(job.competition.metric, job.competition.task)
    test_folds = [TestScores(run.test_folds, run.kind, task) for run in predictions]
    if source:
        path = repeat(job, tables, predictions, folds, test_folds, record, Path(source))
    else:
        path = blend_anew(job, tables, predictions, folds, test_folds, task)
    show_end(job, path)


def name_competition(argv: list[str]) -> list[str]:
    """The flags, with the competition that a `--from` record is of unless it is named."""
    named = [flag.split("=", 1)[0] for flag in argv]
    if "--from" not in named or "--competition" in named:
        return argv
    at = named.index("--from")
    source = argv[at].split("=", 1)[1] if "=" in argv[at] else "".join(argv[at + 1 : at + 2])
    return [*argv, "--competition", read_record(Path(source))["competition"]] if Path(source).is_file() else argv


def blend_anew(job: Job, tables: Tables, predictions, folds: Folds, test_folds: list[TestScores], task: Task) -> Path:
    """Choose, show and write a blend."""
    runs = gather_runs(predictions, folds, tables, task)
    blend = make_blend(task, runs, job.own.strategy, job.own.seed)
    table = table_lines(task, blend, find_notes(predictions)) + seed_lines(task, blend, group_seeds(predictions))
    print("\n".join(table), flush=True)
    recipe = Recipe(task.kind, blend.predictor, blend.rule)
    fold_probs = recipe.fold_probs(test_folds)
    outcome = describe_blend(task, blend, fold_probs, job.own.seed)
    print("\n" + "\n".join(outcome_lines(task, blend, outcome, len(fold_probs), len(runs.labels))))
    print("\n".join(shift_lines(blend, outcome, fold_probs, tables.label_names)))
    if job.own.reestimate_priors:
        priors, shifted = tables.labels.mean(axis=0), tuple(outcome.shifted.tolist())
        recipe = Recipe(task.kind, blend.predictor, blend.rule, priors, shifted)
    record = {
        "competition": job.competition_name,
        "runs": list(runs.names),
        "settings": {"competition": asdict(job.competition), "seed": job.own.seed, "strategy": job.own.strategy},
        "inputs": describe_inputs(predictions, folds),
        "recipe": recipe.to_record(),
        "account": account_of(task, blend, outcome, fold_probs, tables.label_names),
    }
    return hand_in(job, tables, recipe, fold_probs, blend.honest[0], record)


def gather_runs(predictions: list[RunPredictions], folds: Folds, tables: Tables, task: Task) -> Runs:
    """The runs' held-out scores side by side."""
    scores = Scores([task.to_scores(run.oof, run.kind) for run in predictions])
    return Runs(
        tuple(run.name for run in predictions), scores, tables.labels, deal_parts(folds.fold, folds.group), folds.group
    )


def find_notes(predictions: list[RunPredictions]) -> dict[str, str]:
    """What a reader of the table must know of a run."""
    chosen = [run.name for run in predictions if any(record.get("selected_on_heldout") for record in run.records)]
    return {name: "selected on its held-out rows" for name in chosen}


def group_seeds(predictions: list[RunPredictions]) -> list[list[str]]:
    """Names of runs that differ in their seed alone, the shortest name first; runs on their own are left out."""
    groups: dict[str, list[str]] = {}
    for run in predictions:
        settings = with_defaults(dict(run.records[0]["settings"])) if run.records else {}
        if settings.pop("seed", None) is not None:
            groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run.name)
    return [sorted(names, key=lambda name: (len(name), name)) for names in groups.values() if len(names) > 1]


def describe_inputs(predictions: list[RunPredictions], folds: Folds) -> dict[str, str]:
    """Every file that went in -> its sha256."""
    files = {path: digest for run in predictions for path, digest in run.files.items()}
    return {"folds": folds.sha256, **files}


def hand_in(job: Job, tables: Tables, recipe: Recipe, fold_probs: np.ndarray, oof_answers, record: dict) -> Path:
    """Lint the submission, write it with its record, lint the file. The name is of what went in: same in, same name."""
    path = job.paths.submissions(job.competition_name) / f"{name_submission(record)}.csv"
    data, frame = build_bytes(job, tables, recipe, fold_probs)
    earlier = earlier_submissions(job.paths, job.competition_name)
    earlier = {digest: other for digest, other in earlier.items() if other != path}
    for finding in lint_submission(frame, job.competition, tables, oof_answers, earlier):
        print(f"look: {finding}")
    record = {**record, "environment": describe_environment(Path(__file__).parent)}
    path = write_submission(job.paths, job.competition_name, path.stem, data, record)
    lint_submission_file(path, job.competition, tables, oof_answers)
    return path


def name_submission(record: dict) -> str:
    """`blend-` and 8 hex digits of the inputs, the settings and the recipe."""
    parts = {key: record[key] for key in ("competition", "runs", "settings", "inputs", "recipe")}
    return f"blend-{sha256_bytes(json.dumps(parts, sort_keys=True).encode())[:8]}"


def build_bytes(job: Job, tables: Tables, recipe: Recipe, fold_probs: np.ndarray):
    """The submission as bytes and as a table."""
    probs, answer = recipe.answer(fold_probs)
    frame = build_submission(job.competition, tables, answer if answer.dtype == bool else None, probs)
    return submission_bytes(frame, job.competition.submission.separator), frame


def repeat(job: Job, tables: Tables, predictions, folds: Folds, test_folds: list, record: dict, source: Path) -> Path:
    """Write the submission that a record describes once more. Raises ValueError where anything that went in changed."""
    found = describe_inputs(predictions, folds)
    changed = sorted(name for name in found | record["inputs"] if found.get(name) != record["inputs"].get(name))
    if changed:
        raise UserError(f"{source}: {len(changed)} of its inputs changed or are gone: {', '.join(changed[:5])}")
    if record["settings"]["competition"] != json.loads(json.dumps(asdict(job.competition))):
        raise UserError(f"{source}: configs/competitions/{job.competition_name}.yaml or its flags changed since")
    recipe = recipe_from_record(record["recipe"])
    data, _ = build_bytes(job, tables, recipe, recipe.fold_probs(test_folds))
    if sha256_bytes(data) != record["csv_sha256"]:
        raise UserError(f"{source}: the same inputs gave other bytes than its csv_sha256; other library versions?")
    print(f"byte for byte the submission of {source}")
    return write_submission(job.paths, job.competition_name, source.stem, data, record)


def show_end(job: Job, path: Path) -> None:
    """The last lines: where the CSV is and how it is handed in."""
    shown = path.relative_to(job.paths.root)
    slug = job.competition.files.kaggle or job.competition_name
    print(f"\n{shown}")
    if job.competition.files.source not in ("sample", "goemotions"):
        print(f"python src/submit.py {shown}  # logs its score, too; or by hand:")
    print(f'kaggle competitions submit -c {slug} -f {shown} -m "{path.stem}"')
