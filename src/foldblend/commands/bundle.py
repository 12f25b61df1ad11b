"""Pack all that an offline Kaggle notebook needs to predict with a blend, or to train: a dataset and the notebook.

python src/bundle.py --competition goemotions --owner YOUR_KAGGLE_NAME
python src/bundle.py --space     # a folder for a Space of Hugging Face
python src/bundle.py --plan --rows_per_second deberta=120 tfidf=2000 --limit_hours 9
python src/bundle.py --train --runs deberta-v3-base --limit_hours 9 --owner YOUR_KAGGLE_NAME
python src/bundle.py --from submissions/goemotions/blend-1a2b3c4d.json --owner YOUR_KAGGLE_NAME --push
"""

import json
import re
import shlex
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from foldblend.bundling.dataset import (
    BundledModel,
    BundleFolder,
    Package,
    as_json,
    choose_packages,
    choose_required,
    copy_blend,
    copy_model,
    copy_plugins,
    copy_weights,
    dataset_metadata,
    download_wheel,
    kernel_metadata,
    make_title,
    measure,
    notebook,
    own_requirements,
    write_package_wheel,
)
from foldblend.bundling.hours import RunSpeed, describe_source, measure_speed, plan_lines, read_speeds, too_long
from foldblend.bundling.parity import N_ROWS, ExpectedRun, Parity, choose_rows, parity_files
from foldblend.bundling.space import fill_space
from foldblend.commands.inputs import predict_trained, prepare_folds, prepare_tables, resolve_trained
from foldblend.commands.sources.bundled_training import (
    describe_pretrained,
    describe_training,
    fill_training,
    refuse_to_train,
    write_training,
)
from foldblend.console import print_lines, say, warn
from foldblend.data.tables import Tables
from foldblend.errors import UserError
from foldblend.files import describe_old, hold_lock, list_old, replacing_folder, sha256_bytes
from foldblend.kaggle.client import default_owner, push
from foldblend.learners.nets.folders import MODEL_WEIGHTS, NEEDED, describe_model
from foldblend.learners.table import needs_gpu
from foldblend.learners.trained import MODEL, check_folds, find_model, model_name, needs_weights
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.folds import parse_fold_numbers
from foldblend.ledger.records import read_record
from foldblend.ledger.runs import BLEND, TrainedRun, check_same_questions, find_blend, load_run, load_trained_runs
from foldblend.scoring.ensembling.predictors import recipe_from_record
from foldblend.settings.loading import Job, load_defaults, open_job, run_from_settings
from foldblend.settings.loading import load_run as load_run_settings
from foldblend.settings.records import settings_of
from foldblend.settings.run import RunSettings
from foldblend.settings.yaml_files import split_names

OWNER = "OWNER"
"""Used as the Kaggle name if none is known."""


def add_flags(parser) -> None:
    parser.add_argument("--from", default="", help="a blend's .json, or its name; the competition's newest by default")
    parser.add_argument("--owner", default="", help="your Kaggle name; the one of your credentials by default")
    parser.add_argument("--no_wheels", action="store_true", help="download no wheels of other packages")
    parser.add_argument("--model_sources", nargs="+", default=[], help="Kaggle models to attach instead of copies, "
                        "as owner/model/framework/variation/version")  # fmt: skip
    parser.add_argument("--gpu", default="auto", choices=["auto", "yes", "no"], help="one T4; auto: for neural runs")
    parser.add_argument("--average_folds", action="store_true", help="predict with one model per run, the "
                        "mean of its folds' weights")  # fmt: skip
    parser.add_argument("--space", action="store_true", help="a folder for a Space of Hugging Face instead: the page "
                        "of predict.py --serve")  # fmt: skip
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"], help="the notebook "
                        "predicts in; auto: bf16 where the GPU computes in it, else fp16 where it is safe")  # fmt: skip
    parser.add_argument("--no_parity", action="store_true", help="leave out the parity check, by which the notebook "
                        "stops if its first predictions are not those of training's machine")  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="only estimate the notebook's hours, from a short "
                        "prediction by the first fold of each run here, or from --rows_per_second")  # fmt: skip
    parser.add_argument("--rows_per_second", nargs="+", default=[], help="with --plan: NAME=ROWS, how fast one model "
                        "of a run predicts on the notebook's machine")  # fmt: skip
    parser.add_argument("--limit_hours", type=float, default=9.0, help="of the competition, for --plan and --train (9)")
    parser.add_argument("--train", action="store_true", help="a notebook that trains folds of --runs within "
                        "--limit_hours, goes on from its own output, and then blends them")  # fmt: skip
    parser.add_argument("--runs", nargs="+", default=None, help="with --train: by default as in default.yaml")
    parser.add_argument("--fold", nargs="+", default=["all"], help="with --train: 3, 0 1, 0-2 or all")
    parser.add_argument("--push", action="store_true", help="upload dataset and notebook through the kaggle client")


def main(argv: list[str] | None = None) -> None:
    job = open_job("bundle.py", argv, add_flags)
    print(f"competition {job.competition_name}: bundle", flush=True)
    if job.own.limit_hours <= 0:
        raise UserError(f"--limit_hours is {job.own.limit_hours}; expected more than 0, as 9 or 12")
    if job.own.train:
        bundle_training(job)
        return
    if job.own.runs or job.own.fold != ["all"]:
        raise UserError("--runs and --fold are for --train; without it the notebook predicts with a blend (--from)")
    path = find_blend(job.paths, job.competition_name, getattr(job.own, "from"))
    record = read_record(path, BLEND)
    check_same_questions(path, record, job.competition_name, asdict(job.competition))
    check_space(job)
    owner = check_owner(job.own.owner or default_owner())
    if job.own.push and not owner:
        raise UserError("--push needs your Kaggle name: add --owner NAME")
    runs = load_runs(job, record)
    if job.own.plan:
        plan(job, runs)
        return
    settings = [run_from_settings(run.settings, f"oof/{job.competition_name}/{run.name}/fold0.json") for run in runs]
    models = [describe(run, each, bool(job.own.model_sources)) for run, each in zip(runs, settings, strict=True)]
    required = choose_required(own_requirements(), any(map(is_four_bit, settings)))
    target = job.paths.bundle(job.competition_name) / f"{path.stem}{'-space' if job.own.space else ''}"
    busy = f"{target}: another bundle.py makes or uploads this bundle now. Wait for it, then run this again"
    with hold_lock(target.with_name(f".{target.name}.lock"), busy):
        before = list_old(target.parent)
        if job.own.space:
            make_space(job, path, record, runs, [model for model in models if model], target)
            return
        with replacing_folder(target) as folder:
            dataset = BundleFolder(folder / "dataset")
            fill_dataset(job, path, record, runs, [model for model in models if model], dataset)
            for name, data in ({} if job.own.no_parity else parity_files(gather_parity(job, runs))).items():
                dataset.write(name, data)
            packages = {} if job.own.no_wheels else choose_packages(required)
            missing = fetch(packages, dataset)
            gpu = job.own.gpu == "yes" or (job.own.gpu == "auto" and any(needs_gpu(each.learner) for each in settings))
            write_metadata(job, path.stem, owner or OWNER, gpu, required, packages, folder, dataset)
            dataset.prove()
        kept = [each for each in list_old(target.parent) if each not in before]
        if kept:
            say(describe_old(job.paths.root, kept))
        show(job, target, owner, missing, models)
        if job.own.push:
            push(target / "dataset", target / "notebook", path.stem, print)


def check_space(job: Job) -> None:
    """Raises: UserError: flags that are about Kaggle beside --space."""
    beside = [flag for flag in ("push", "model_sources", "average_folds") if job.own.space and getattr(job.own, flag)]
    if beside:
        raise UserError(f"--space and --{beside[0]} do not go together. Leave out --{beside[0]}")


def make_space(
    job: Job, path: Path, record: dict, runs: list[TrainedRun], models: list[BundledModel], target: Path
) -> None:
    """The folder of a Space, whole or not at all."""
    with replacing_folder(target) as folder:
        space = BundleFolder(folder)
        fill_dataset(job, path, record, runs, models, space)
        fill_space(space, job.competition_name, path.stem, [run.name for run in runs], own_requirements())
        space.prove()
    n_files, size = measure(target)
    shown = target.relative_to(job.paths.root)
    print(f"{shown}: {n_files} files, {size / 1e6:,.1f} MB")
    print(f"try it here: python {shlex.quote(f'{shown}/app.py')}; it answers at every address of this machine")
    print(f"hf upload YOUR_NAME/{job.competition_name} {shlex.quote(str(shown))} . --repo-type space")


PROBED = 16, 256
"""Rows of the two predictions that are timed."""


def plan(job: Job, runs: list[TrainedRun]) -> None:
    """Estimate the notebook's hours and compare them with the limit; makes no bundle."""
    own, files = job.own, job.competition.files
    given = read_speeds(own.rows_per_second, [run.name for run in runs])
    tables = prepare_tables(job)
    n_rows = files.hidden_test_rows or len(tables.test_ids)
    if not files.hidden_test_rows:
        warn(
            f"hours are for the {n_rows:,} test rows here. If the hidden test has another size, set "
            f"files.hidden_test_rows in configs/competitions/{job.competition_name}.yaml"
        )
    speeds = []
    for run in runs:
        device = "" if run.name in given else " ".join(describe_device(job, run)).strip()
        speed, loading = (given[run.name], 0.0) if run.name in given else probe(job, run, tables)
        models = 1 if own.average_folds else len(run.checkpoints)
        source = describe_source(device, given, run.name)
        speeds.append(RunSpeed(run.name, models, len(run.checkpoints), speed, loading, source))
    question = speeds, n_rows, own.limit_hours, not own.no_parity
    print_lines(["", *plan_lines(*question)])
    if len(given) < len(runs):
        say("The notebook's GPU has another speed than this machine: give it by --rows_per_second NAME=ROWS")
    if warning := too_long(*question):
        warn(warning)


def describe_device(job: Job, run: TrainedRun) -> tuple[str, str]:
    """The device here and the precision of a run on it."""
    from foldblend.learners.trained import describe_here

    return describe_here(resolve_trained(job, run, "", job.own.precision), run.checkpoints[0])


def probe(job: Job, run: TrainedRun, tables: Tables) -> tuple[float, float]:
    """Rows per second of the run's first fold here, and the seconds in which it is loaded."""
    texts, first = [*tables.test_texts, *tables.train_texts], replace(run, checkpoints=run.checkpoints[:1])
    features = None
    if tables.test_features is not None and tables.train_features is not None:
        features = tables.test_features.followed_by(tables.train_features)

    def predict(n: int) -> float:
        rows = choose_rows(texts, n)
        own = None if features is None else features.take(rows)
        started = time.monotonic()
        predict_trained(job, first, [texts[row] for row in rows], own, "", job.own.precision)
        return time.monotonic() - started

    few, many = (min(n, len(texts)) for n in PROBED)
    predict(few)  # libraries are imported, caches are warm
    return measure_speed(predict, few, many)


# ---------- The notebook that trains


def bundle_training(job: Job) -> None:
    """Make the dataset and the notebook that trains folds of runs.

    Raises: UserError: a run learns from more than the competition's files and pretrained weights.
    """
    own, competition = job.own, job.competition_name
    owner = check_owner(own.owner or default_owner())
    if own.push and not owner:
        raise UserError("--push needs your Kaggle name: add --owner NAME")
    names = split_names(own.runs) or list(load_defaults(job.paths).runs)
    runs = {name: load_run_settings(job.paths, name) for name in names}
    folds = prepare_folds(job, prepare_tables(job))
    wanted = parse_fold_numbers(own.fold, folds.n_folds)
    for name, run in runs.items():
        refuse_to_train(name, run)
    models = [found for name, run in runs.items() if (found := describe_pretrained(name, run))]
    required = choose_required(own_requirements(), any(map(is_four_bit, runs.values())))
    asked = [names, wanted, {name: settings_of(run) for name, run in runs.items()}, folds.sha256]
    name = f"train-{sha256_bytes(json.dumps(asked).encode())[:8]}"
    target = job.paths.bundle(competition) / name
    busy = f"{target}: another bundle.py makes or uploads this bundle now. Wait for it, then run this again"
    with hold_lock(target.with_name(f".{target.name}.lock"), busy):
        with replacing_folder(target) as folder:
            dataset = BundleFolder(folder / "dataset")
            fill_training(job, runs, models, dataset)
            packages = {} if own.no_wheels else choose_packages(required)
            missing = fetch(packages, dataset)
            about = {
                **describe_training(job, runs, models, wanted, folds.n_folds),
                **describe_packages(required, packages),
            }
            gpu = own.gpu == "yes" or (own.gpu == "auto" and any(needs_gpu(run.learner) for run in runs.values()))
            write_training(job, name, owner or OWNER, gpu, about, folder, dataset)
            dataset.prove()
        show(job, target, owner, missing, list(models))
        say(
            f"The notebook trains {len(wanted)} folds of {', '.join(names)} and stops after {own.limit_hours:g} hours. "
            "To go on, attach its output to its next version as an input. Both GPUs of T4 x2 train a fold each"
        )
        if own.push:
            push(target / "dataset", target / "notebook", name, print)


# ---------- What both have


def check_owner(owner: str) -> str:
    """Raises: UserError: it cannot be a name at Kaggle, which goes into addresses and files."""
    if owner and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", owner):
        raise UserError(f"--owner is {owner!r}; expected your name as in https://www.kaggle.com/NAME")
    return owner


def load_runs(job: Job, record: dict) -> list[TrainedRun]:
    """The trained runs that the recipe uses; the weights of every fold are checked."""
    recipe = recipe_from_record(record["recipe"])
    names = [record["runs"][k] for k in recipe.used_runs(len(record["runs"]))]
    runs = load_trained_runs(job.paths, record, names, WEIGHTS)
    for run in runs:
        check_folds(run.settings, run.fold, run.checkpoints, run.weights_sha256, run.left_out)
    return runs


def gather_parity(job: Job, runs: list[TrainedRun]) -> Parity:
    """Rows that the notebook predicts first, with their predictions in oof/: test rows; if they are few, held-out ones.

    A held-out row is compared for the one fold that predicted it.
    """
    tables = prepare_tables(job)
    folds = prepare_folds(job, tables)
    test = choose_rows(tables.test_texts)
    train = choose_rows(tables.train_texts, N_ROWS - len(test)) if len(test) < N_ROWS else np.zeros(0, np.int64)
    texts = [*(tables.test_texts[row] for row in test), *(tables.train_texts[row] for row in train)]
    features = None
    if tables.test_features is not None and tables.train_features is not None:
        features = tables.test_features.take(test).followed_by(tables.train_features.take(train))
    expected = []
    for run in runs:
        found = load_run(job.paths, job.competition_name, run.name, folds, tables)
        rows = np.full((len(run.checkpoints), len(texts), len(run.label_names)), np.nan, np.float32)
        for k in range(len(rows)):
            rows[k, : len(test)] = found.test_folds[k][test]
            own = run.fold[train] == k  # none of the model of all rows
            rows[k, len(test) :][own] = found.oof[train[own]]
        record = found.records[0]
        expected.append(ExpectedRun(run.name, rows, record.get("device", ""), record.get("environment", {})))
    return Parity(tuple(texts), features, tuple(expected))


def describe(run: TrainedRun, settings: RunSettings, attached: bool) -> BundledModel | None:
    """What the run needs of its pretrained model; None if it has none."""
    if not model_name(settings):
        return None
    folder, whole = find_model(settings, run.checkpoints[0]), needs_weights(settings)
    patterns = (*NEEDED, MODEL_WEIGHTS) if whole else NEEDED
    proof = describe_model(folder, whole)
    return BundledModel(run.name, model_name(settings), folder, patterns, proof, attached and whole)


def is_four_bit(settings: RunSettings) -> bool:
    """Whether the run's base model is loaded by bitsandbytes."""
    return settings.learner in ("decoder", "generator") and settings.adapter.quantization == "nf4"


def fill_dataset(
    job: Job, path: Path, record: dict, runs: list[TrainedRun], models: list[BundledModel], bundle: BundleFolder
) -> None:
    """The package, settings, weights, models and plugins."""
    for name in write_package_wheel(bundle):
        warn(f"src/foldblend/{name} is left out: git does not know it. If the notebook needs it, run: git add {name}")
    sample = job.paths.data(job.competition_name) / job.competition.files.sample_submission
    plugins = load_defaults(job.paths).plugins
    copy_blend(job.paths, path, record, [run.name for run in runs], sample, plugins, bundle)
    for name in copy_plugins(plugins, job.paths.root, bundle):
        warn(f"plugin {name} is an installed package; attach a dataset with its wheel and install it in the notebook")
    for run in runs:
        copy_weights(run.checkpoints, WEIGHTS, f"checkpoints/{job.competition_name}/{run.name}", bundle)
    for model in models:
        copy_model(model, f"checkpoints/{job.competition_name}/{model.run}", MODEL, bundle)


def fetch(packages: dict[str, Package], bundle: BundleFolder) -> list[str]:
    """Download the wheels. Returns a sentence for each that failed; it is then not listed."""
    missing = []
    for number, package in enumerate(list(packages.values()), start=1):
        print(f"wheel {number} of {len(packages) + len(missing)}: {package.pin}", flush=True)
        sentence = download_wheel(package, bundle.root / "wheels")
        if sentence:
            missing.append(sentence)
            del packages[package.name]
        else:
            bundle.note(f"wheels/{package.file}")
    return missing


def describe_packages(required: list[str], packages: dict[str, Package]) -> dict:
    """What the notebook installs if its image lacks it."""
    files = {each.name: {"file": each.file, "requires": each.requires} for each in packages.values()}
    return {"required": required, "packages": files}


def write_metadata(
    job: Job,
    name: str,
    owner: str,
    gpu: bool,
    required: list[str],
    packages: dict[str, Package],
    folder: Path,
    dataset: BundleFolder,
) -> None:
    """bundle.json, the notebook, and Kaggle's metadata files of both."""
    competition, files, own = job.competition_name, job.competition.files, job.own
    title, slug = make_title(competition, name), files.kaggle or competition
    flags = ["--average_folds"] if own.average_folds else []
    about: dict = {
        "name": name,
        "competition": competition,
        "record": f"submissions/{competition}/{name}.json",
        "test": files.test,
        "sample_submission": files.sample_submission,
        "sample": f"data/{competition}/{files.sample_submission}" if files.has_sample else "",
        **describe_packages(required, packages),
    }
    about["files"] = dict(sorted(dataset.files.items()))
    kernel = kernel_metadata(owner, title, slug, gpu, list(own.model_sources))
    dataset.write("bundle.json", as_json(about).encode())
    dataset.write("dataset-metadata.json", as_json(dataset_metadata(owner, title)).encode())
    (folder / "notebook").mkdir()
    for file, values in (
        ("predict.ipynb", notebook(name, slug, f"{owner}/{title}", flags, own.precision, not own.no_parity)),
        ("kernel-metadata.json", kernel),
    ):
        (folder / "notebook" / file).write_text(as_json(values), encoding="utf-8")


def show(job: Job, target: Path, owner: str, missing: list[str], models: list[BundledModel | None]) -> None:
    """What was made, what is missing, and the commands that upload it."""
    shown = target.relative_to(job.paths.root)
    n_files, size = measure(target / "dataset")
    print(f"{shown}/dataset: {n_files} files, {size / 1e6:,.1f} MB")
    for model in filter(None, models):
        where = "from --model_sources" if model.attached else f"copied to models/{model.key}"
        print(f"  {model.run}: {model.name}, {where}")
    for sentence in missing:
        warn(f"wheel missing: {sentence}")
    if job.own.no_wheels:
        warn("no wheels of other packages; the notebook runs only if the image meets every requirement")
    if not owner:
        warn(f"your Kaggle name is unknown: replace {OWNER} by it in both metadata files, or add --owner NAME")
    if not job.own.push:
        dataset, kernel = (shlex.quote(f"{shown}/{name}") for name in ("dataset", "notebook"))
        print(f"kaggle datasets create -p {dataset} --dir-mode zip && kaggle kernels push -p {kernel}")
