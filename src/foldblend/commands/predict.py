"""Predict new texts: probabilities and labels of new texts, by the trained folds and the recipe of a blend.

python src/predict.py --text "what a day" "leave me alone"
python src/predict.py --competition goemotions --input new.csv --output predictions.csv
python src/predict.py --serve     # a page in the browser
python src/predict.py --input test.csv --answer submission.csv --from submissions/sample/blend-1a2b3c4d.json
python src/predict.py --parity bundle/sample/blend-1a2b3c4d/dataset/parity
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from foldblend.bundling.parity import check_fold, compare, load_parity
from foldblend.commands.inputs import predict_average, predict_trained, resolve_trained
from foldblend.console import say, warn
from foldblend.data.answer_form import recorded_constants
from foldblend.data.tables import learned_columns
from foldblend.errors import UserError
from foldblend.files import check_outputs, write_atomically
from foldblend.learners.trained import check_folds
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.records import describe_environment, read_record
from foldblend.ledger.runs import BLEND, TrainedRun, check_same_questions, find_blend, load_trained_runs
from foldblend.predictions import FULL, fold_name
from foldblend.reports.demo import DemoPage
from foldblend.scoring.ensembling.predictors import Recipe, recipe_from_record
from foldblend.scoring.inputs import Task, TestScores, to_probs
from foldblend.scoring.metrics.table import to_values
from foldblend.scoring.thresholds.robust import ADAPT_FROM
from foldblend.settings.loading import Job, open_job
from foldblend.submission.answers import build_submission, submission_bytes, with_constants
from foldblend.submission.new_texts import (
    Answered,
    NewRows,
    answer_tables,
    check_answer,
    prediction_bytes,
    prediction_lines,
    read_rows,
    typed_rows,
    with_allowed,
)

LIBRARIES = ("torch", "transformers", "accelerate", "scikit-learn")
"""Whose versions may change predictions."""


def add_flags(parser) -> None:
    parser.add_argument("--from", default="", help="a blend's .json, or its name; the competition's newest by default")
    parser.add_argument("--texts", nargs="+", default=[], help="texts to predict; `--text` is the same")
    parser.add_argument("--input", default="", help="texts in a file like the competition's test file, or a .jsonl")
    parser.add_argument("--output", default="", help="a .csv or .jsonl to write; printed by default")
    parser.add_argument("--answer", default="", help="a .csv to write in the form that the competition wants")
    parser.add_argument("--overwrite", action="store_true", help="write over an --output or --answer that exists")
    parser.add_argument("--sample", default="", help="the sample submission; the one in data/ by default")
    kinds = ["", "auto", "fp32", "bf16", "fp16"]
    parser.add_argument("--precision", default="", choices=kinds, help="other than trained in: auto on other devices")
    parser.add_argument(
        "--average_folds", action="store_true", help="one model per run, the mean of its folds' weights"
    )
    parser.add_argument("--serve", action="store_true", help="a page on this machine alone; needs gradio")
    parser.add_argument("--port", type=int, default=7860, help="of --serve; 0 takes any that is free")
    parser.add_argument("--parity", default="", help="only predict the rows of this folder of a bundle, and stop with "
                        "a message if they are not predicted as when the folds were trained")  # fmt: skip
    parser.add_argument("--models", default="", help="a folder to search for pretrained models, as /kaggle/input")


def main(argv: list[str] | None = None) -> None:
    job = open_job("predict.py", name_texts(sys.argv[1:] if argv is None else argv), add_flags)
    refuse_outputs(job)
    check_serve(job)
    if job.own.serve:
        from foldblend.commands.demo import LOOPBACK, serve

        serve(load_page(job), LOOPBACK, job.own.port)
        return
    path, record = find_record(job)
    if job.own.parity:
        check_parity(job, load_recipe(job, record)[1])
        return
    rows = gather_rows(job)
    recipe, runs = load_recipe(job, record)
    print(f"{path.name}: {len(rows.texts):,} texts, runs {', '.join(run.name for run in runs)}", flush=True)
    found = answer_rows(job, record, recipe, runs, rows, partial(predict_run, job))
    warn(*found.warnings)
    write(job, found.rows, found.label_names, found.probs, found.decisions, found.scale)


def find_record(job: Job) -> tuple[Path, dict]:
    """The blend's record, and what it says. Raises: UserError: there is none, or it answers other questions."""
    path = find_blend(job.paths, job.competition_name, getattr(job.own, "from"))
    record = read_record(path, BLEND)
    check_same_questions(path, record, job.competition_name, asdict(job.competition))
    return path, record


def answer_rows(
    job: Job, record: dict, recipe: Recipe, runs: list[TrainedRun], rows: NewRows, predict: Callable[..., TestScores]
) -> Answered:
    """What the recipe answers. Args: predict: a run, rows and their allowed labels -> the run's scores of them."""
    label_names, constants = recorded_constants(record, runs[0].label_names)
    rows = with_allowed(rows, job.competition, label_names, runs[0].label_names)
    learned = learned_columns(label_names, runs[0].label_names)
    allowed = None if rows.allowed is None else rows.allowed[:, learned]
    scores = [predict(run, rows, allowed) for run in runs]
    probs, answer = recipe.answer(recipe.fold_probs(scores), allowed)
    probs, answer = (with_constants(each, label_names, constants, job.competition.task) for each in (probs, answer))
    lacking = rows.lacking if any(run.settings.get("use_features") for run in runs) else ()
    found = [f"no {', '.join(lacking)} is given, so the features count as missing"] if lacking else []
    scale = np.array(record["scale"], np.float64) if "scale" in record else None
    if rows.allowed is not None:  # a constant label is not always among the candidates
        probs, answer = (np.where(rows.allowed, each, each.dtype.type(0)) for each in (probs, answer))
    said = (*rows.warnings(), *found, *recipe_warnings(recipe, len(rows.texts)))
    return Answered(rows, label_names, learned, probs, answer if answer.dtype == bool else None, scale, said)


def load_page(job: Job) -> DemoPage:
    """The page of `--serve`, with the blend's models behind it."""
    from foldblend.commands.demo import Demo, make_page

    path, record = find_record(job)
    recipe, runs = load_recipe(job, record)
    print(f"{path.name}: runs {', '.join(run.name for run in runs)}", flush=True)
    return make_page(job, path.stem, Demo(job, recipe, runs, partial(answer_rows, job, record, recipe, runs)))


def name_texts(argv: list[str]) -> list[str]:
    """The flags, `--text` under a name that the settings of the text columns (`--text.columns`) leave free."""
    return [f"--texts{flag[6:]}" if flag == "--text" or flag.startswith("--text=") else flag for flag in argv]


def check_serve(job: Job) -> None:
    """Raises: UserError: --serve with flags that make no sense beside it, or without its library."""
    own = job.own
    beside = [
        flag for flag in ("texts", "input", "output", "answer", "average_folds") if own.serve and getattr(own, flag)
    ]
    if beside:
        named = "text" if beside[0] == "texts" else beside[0]
        raise UserError(f"--serve and --{named} do not go together: the page asks for texts. Leave out --{named}")
    if own.serve:
        from foldblend.reports.demo import check_gradio

        check_gradio()


def refuse_outputs(job: Job) -> None:
    """Raises: UserError: --output or --answer would replace an input, a file of the project, or a file that exists."""
    own = job.own
    check_outputs(
        {"--output": own.output, "--answer": own.answer},
        {"--input": own.input, "--sample": own.sample, "--from": getattr(own, "from")},
        job.paths.kept,
        own.overwrite,
    )


def check_parity(job: Job, runs: list[TrainedRun]) -> None:
    """Predict the rows of a bundle's parity check by every fold; a line on each that predicts as it did in training.

    Raises: UserError: one does not, or the files do not belong to these runs.
    """
    from foldblend.learners.trained import describe_here

    if job.own.texts or job.own.input:
        raise UserError("--parity predicts rows of its own. Run it first, then again without it for your texts")
    parity, environment = load_parity(Path(job.own.parity)), describe_environment(Path(__file__).parent)
    versions = {name: environment[name] for name in LIBRARIES}
    task, by_name = Task(job.competition.metric, job.competition.task), {run.name: run for run in runs}
    for expected in parity.runs:
        run = by_name.get(expected.name)
        if run is None or len(run.checkpoints) != len(expected.tables):
            raise UserError(f"{job.own.parity} belongs to another blend: its run {expected.name} is not in this one")
        settings = resolve_trained(job, run, job.own.models, job.own.precision)
        device, precision = describe_here(settings, run.checkpoints[0])
        own = job.own.models, job.own.precision
        tables = predict_trained(job, run, parity.texts, parity.features, *own, refuse_nan=False)
        for folder, then, now in zip(run.checkpoints, expected.tables, tables, strict=True):
            comparison = compare(*(_finite_probs(each, run.kind, task) for each in (then, now)))
            title = "all rows" if folder.name == fold_name(FULL) else f"fold {folder.name.removeprefix('fold')}"
            if comparison is not None:
                say(check_fold(expected, title, comparison, precision, device, versions))
    say(f"parity check passed: {len(parity.texts)} rows, runs {', '.join(run.name for run in parity.runs)}")


def _finite_probs(table: np.ndarray, kind: str, task: Task) -> np.ndarray:
    """Probabilities (n, L) of a run's predictions; nan in rows that hold no numbers."""
    probs, good = np.full(table.shape, np.nan, np.float32), np.isfinite(table).all(axis=1)
    probs[good] = to_probs(task.to_scores(table[good], kind), task.kind)
    return probs


def gather_rows(job: Job) -> NewRows:
    """The texts of --text or --input. Raises: UserError: there are none, or both."""
    if bool(job.own.texts) == bool(job.own.input):
        raise UserError('src/predict.py: expected either --input FILE or --text "..."')
    return (
        read_rows(Path(job.own.input), job.competition)
        if job.own.input
        else typed_rows(job.own.texts, job.competition.text.pair, job.competition.features)
    )


def load_recipe(job: Job, record: dict) -> tuple[Recipe, list[TrainedRun]]:
    """The recipe, and the trained runs that it hangs on."""
    recipe = recipe_from_record(record["recipe"])
    names = [record["runs"][k] for k in recipe.used_runs(len(record["runs"]))]
    runs = load_trained_runs(job.paths, record, names, WEIGHTS)
    for run in runs:
        check_folds(run.settings, run.fold, run.checkpoints, run.weights_sha256, run.left_out)
    return recipe.of_used_runs(len(record["runs"])), runs


def predict_run(job: Job, run: TrainedRun, rows: NewRows, allowed: np.ndarray | None) -> TestScores:
    """One run's scores of the texts, a table per fold. Args: allowed: as in `Scores`."""
    if job.own.average_folds and len(run.checkpoints) > 1:
        tables = predict_average(job, run, rows, job.own.models, job.own.precision)
    else:
        tables = predict_trained(job, run, rows.texts, rows.features, job.own.models, job.own.precision)
    return TestScores(tables, run.kind, Task(job.competition.metric, job.competition.task), allowed)


def recipe_warnings(recipe: Recipe, n_texts: int) -> list[str]:
    """What the recipe does with these rows beyond weights and thresholds, as sentences."""
    found = []
    if recipe.shifted:
        found.append(f"the blend was made with --reestimate_priors: label rates are estimated on these {n_texts} texts")
    if recipe.rule.calibration is not None and n_texts >= ADAPT_FROM:
        found.append(f"the blend saw too few test rows to adapt its thresholds to: they adapt to these {n_texts} texts")
    return found


def write(
    job: Job,
    rows: NewRows,
    label_names: tuple[str, ...],
    probs: np.ndarray,
    decisions: np.ndarray | None,
    scale: np.ndarray | None,
):
    """Write the files that were asked for; print the predictions if none was. Args: scale: as in `Tables`."""
    files = {}
    if job.own.answer:
        files[job.own.answer] = submission_of(job, rows, label_names, probs, decisions, scale)
    if scale is not None:
        probs = to_values(probs, scale)
    if job.own.output:
        suffix = Path(job.own.output).suffix
        files[job.own.output] = prediction_bytes(rows, label_names, probs, decisions, suffix)
    for name, data in files.items():
        write_atomically(Path(name), data)
        print(f"{name}: {len(rows.texts):,} rows")
    if not files:
        print("\n" + "\n".join(prediction_lines(rows, label_names, probs, decisions)))


def submission_of(job: Job, rows: NewRows, label_names: tuple[str, ...], probs, decisions, scale) -> bytes:
    """The bytes of a submission, checked."""
    sample = Path(job.own.sample or job.paths.data(job.competition_name) / job.competition.files.sample_submission)
    tables, warnings = answer_tables(job.competition, label_names, rows, sample)
    warn(*warnings)
    frame = build_submission(job.competition, replace(tables, scale=scale), decisions, probs)
    data = submission_bytes(frame, job.competition.submission.separator)
    check_answer(data, Path(job.own.answer), job.competition, tables)
    return data
