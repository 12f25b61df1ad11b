"""Pack all that an offline Kaggle notebook needs to predict with a blend: a dataset and the notebook.

python src/bundle.py --competition goemotions --owner YOUR_KAGGLE_NAME
python src/bundle.py --from submissions/goemotions/blend-1a2b3c4d.json --owner YOUR_KAGGLE_NAME --push
"""

from dataclasses import asdict
from pathlib import Path

from foldblend.bundling.dataset import (
    BundledModel,
    Package,
    as_json,
    building,
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
from foldblend.console import warn
from foldblend.errors import UserError
from foldblend.kaggle.client import default_owner, push
from foldblend.learners.nets.folders import NEEDED, describe_model
from foldblend.learners.table import needs_gpu
from foldblend.learners.trained import MODEL, check_folds, find_model, model_name, needs_weights
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.records import read_record
from foldblend.ledger.runs import TrainedRun, check_same_questions, find_blend, load_trained_runs
from foldblend.scoring.ensembling.predictors import recipe_from_record
from foldblend.settings.loading import Job, load_defaults, open_job, run_from_settings
from foldblend.settings.paths import Paths
from foldblend.settings.run import RunSettings

OWNER = "OWNER"
"""Used as the Kaggle name if none is known."""


def add_flags(parser) -> None:
    parser.add_argument("--from", default="", help="a blend's .json, or its name; the competition's newest by default")
    parser.add_argument("--owner", default="", help="your Kaggle name; the one of your credentials by default")
    parser.add_argument("--no_wheels", action="store_true", help="download no wheels of other packages")
    parser.add_argument("--model_sources", nargs="+", default=[], help="Kaggle models to attach instead of copies, "
                        "as owner/model/framework/variation/version")  # fmt: skip
    parser.add_argument("--gpu", default="auto", choices=["auto", "yes", "no"], help="one T4; auto: for neural runs")
    parser.add_argument("--push", action="store_true", help="upload dataset and notebook through the kaggle client")


def main(argv: list[str] | None = None) -> None:
    job = open_job("bundle.py", argv, add_flags)
    print(f"competition {job.competition_name}: bundle", flush=True)
    path = find_blend(job.paths, job.competition_name, getattr(job.own, "from"))
    record = read_record(path)
    check_same_questions(path, record, job.competition_name, asdict(job.competition))
    owner = job.own.owner or default_owner()
    if job.own.push and not owner:
        raise UserError("--push needs your Kaggle name: add --owner NAME")
    runs = load_runs(job, record)
    settings = [run_from_settings(run.settings, f"oof/{job.competition_name}/{run.name}/fold0.json") for run in runs]
    models = [describe(run, each, bool(job.own.model_sources)) for run, each in zip(runs, settings, strict=True)]
    required = choose_required(own_requirements(), any(map(is_four_bit, settings)))
    target = job.paths.bundle(job.competition_name) / path.stem
    with building(target) as folder:
        fill_dataset(job, path, record, runs, [model for model in models if model], folder / "dataset")
        packages = {} if job.own.no_wheels else choose_packages(required)
        missing = fetch(packages, folder / "dataset" / "wheels")
        gpu = job.own.gpu == "yes" or (job.own.gpu == "auto" and any(needs_gpu(each.learner) for each in settings))
        write_metadata(job, path.stem, owner or OWNER, gpu, required, packages, folder)
    show(job, target, owner, missing, models)
    if job.own.push:
        push(target / "dataset", target / "notebook", path.stem, print)


def load_runs(job: Job, record: dict) -> list[TrainedRun]:
    """The trained runs that the recipe uses; the weights of every fold are checked."""
    recipe = recipe_from_record(record["recipe"])
    names = [record["runs"][k] for k in recipe.used_runs(len(record["runs"]))]
    runs = load_trained_runs(job.paths, record, names, WEIGHTS)
    for run in runs:
        check_folds(run.settings, run.fold, run.checkpoints)
    return runs


def describe(run: TrainedRun, settings: RunSettings, attached: bool) -> BundledModel | None:
    """What the run needs of its pretrained model; None if it has none."""
    if not model_name(settings):
        return None
    folder, whole = find_model(settings, run.checkpoints[0]), needs_weights(settings)
    patterns = (*NEEDED, "*.safetensors") if whole else NEEDED
    proof = describe_model(folder, whole)
    return BundledModel(run.name, model_name(settings), folder, patterns, proof, attached and whole)


def is_four_bit(settings: RunSettings) -> bool:
    """Whether the run's base model is loaded by bitsandbytes."""
    return settings.learner in ("decoder", "generator") and settings.adapter.quantization == "nf4"


def fill_dataset(
    job: Job, path: Path, record: dict, runs: list[TrainedRun], models: list[BundledModel], folder: Path
) -> None:
    """The package, settings, weights, models and plugins."""
    write_package_wheel(folder / "wheels")
    sample = job.paths.data(job.competition_name) / job.competition.files.sample_submission
    plugins = load_defaults(job.paths).plugins
    copy_blend(job.paths, path, record, [run.name for run in runs], sample, plugins, folder)
    for name in copy_plugins(plugins, job.paths.root, folder):
        warn(f"plugin {name} is an installed package; attach a dataset with its wheel and install it in the notebook")
    inside = Paths(folder)
    for run in runs:
        copy_weights(run.checkpoints, WEIGHTS, inside.checkpoints(job.competition_name, run.name))
    for model in models:
        copy_model(model, inside.checkpoints(job.competition_name, model.run), MODEL, folder)


def fetch(packages: dict[str, Package], folder: Path) -> list[str]:
    """Download the wheels. Returns a sentence for each that failed; it is then not listed."""
    missing = []
    for number, package in enumerate(list(packages.values()), start=1):
        print(f"wheel {number} of {len(packages) + len(missing)}: {package.pin}", flush=True)
        sentence = download_wheel(package, folder)
        if sentence:
            missing.append(sentence)
            del packages[package.name]
    return missing


def write_metadata(
    job: Job, name: str, owner: str, gpu: bool, required: list[str], packages: dict[str, Package], folder: Path
) -> None:
    """bundle.json, the notebook, and Kaggle's metadata files of both."""
    competition, files = job.competition_name, job.competition.files
    title, slug = make_title(competition, name), files.kaggle or competition
    about = {
        "name": name,
        "competition": competition,
        "record": f"submissions/{competition}/{name}.json",
        "test": files.test,
        "sample_submission": files.sample_submission,
        "sample": f"data/{competition}/{files.sample_submission}" if files.has_sample else "",
        "required": required,
        "packages": {each.name: {"file": each.file, "requires": each.requires} for each in packages.values()},
    }
    kernel = kernel_metadata(owner, title, slug, gpu, list(job.own.model_sources))
    for part, values in {
        "dataset/bundle.json": about,
        "dataset/dataset-metadata.json": dataset_metadata(owner, title),
        "notebook/predict.ipynb": notebook(name, slug, f"{owner}/{title}"),
        "notebook/kernel-metadata.json": kernel,
    }.items():
        path = folder / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json(values), encoding="utf-8")


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
        print(f"kaggle datasets create -p {shown}/dataset --dir-mode zip && kaggle kernels push -p {shown}/notebook")
