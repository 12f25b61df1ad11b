"""The dataset of a notebook that trains: what its runs need, and what they may not need; for bundle.py --train."""

import json
from dataclasses import asdict
from pathlib import Path

import yaml

from foldblend.bundling.dataset import (
    BundledModel,
    BundleFolder,
    as_json,
    as_yaml,
    copy_model_files,
    copy_plugins,
    dataset_metadata,
    kernel_metadata,
    make_title,
    write_package_wheel,
)
from foldblend.bundling.trainer import training_notebook
from foldblend.console import warn
from foldblend.errors import UserError
from foldblend.learners.nets.folders import MODEL_WEIGHTS, NEEDED, describe_model
from foldblend.learners.nets.pretrained import find_weights
from foldblend.learners.trained import model_group, model_name
from foldblend.predictions import fold_name
from foldblend.settings.loading import Job, load_defaults
from foldblend.settings.run import RunSettings
from foldblend.settings.yaml_files import find_config


def refuse_to_train(name: str, run: RunSettings) -> None:
    """Raises: UserError: the run needs what no bundle holds."""
    more = {
        "extra_rows": run.extra_rows,
        "loss.soft_targets": run.loss.soft_targets,
        "model.start_from": run.model.start_from,
        "pretraining.file": run.pretraining.file,
    }
    if found := [setting for setting, value in more.items() if value]:
        raise UserError(
            f"run {name} cannot be trained in a notebook: {', '.join(found)} reads more than the competition's files "
            "and pretrained weights. Train it elsewhere, or a copy of its YAML without that"
        )
    named = model_name(run)
    if named.startswith(("/", "~", "../../")):
        raise UserError(
            f"run {name}: the folder {named} has no place in a notebook. Move it below the project's folder or beside "
            "it, and name it from there, as ./models/mine"
        )


def describe_pretrained(name: str, run: RunSettings) -> BundledModel | None:
    """The pretrained model that the run starts from, with all of its files; None if it has none."""
    group = model_group(run)
    if not group:
        return None
    settings = getattr(run, group)
    folder, where = find_weights(settings.name, settings.revision)
    print(where, flush=True)
    return BundledModel(name, settings.name, folder, (*NEEDED, MODEL_WEIGHTS), describe_model(folder, True), False)


def describe_copy(model: BundledModel, run: RunSettings) -> dict:
    """Where the notebook finds a model, and under which name the run looks for it."""
    is_folder = model.name.startswith(("./", "../")) or (Path(model.name).is_dir() and "/" not in model.name[:1])
    revision = getattr(run, model_group(run)).revision
    return {"name": model.name, "revision": revision, "folder": f"models/{model.key}", "is_folder": is_folder}


def describe_training(
    job: Job, runs: dict[str, RunSettings], models: list[BundledModel], wanted: list[int], n_folds: int
) -> dict:
    """What the notebook trains, for bundle.json; it blends if all folds are trained."""
    return {
        "runs": list(runs),
        "folds": [fold_name(fold).removeprefix("fold") for fold in wanted],
        "blends": set(range(n_folds)) <= set(wanted),
        "data": data_names(job),
        "models": [describe_copy(model, runs[model.run]) for model in models],
    }


def data_names(job: Job) -> list[str]:
    """The competition's files that training reads, as Kaggle mounts them."""
    files = job.competition.files
    train = [files.train] if isinstance(files.train, str) else list(files.train)
    names = [*train, *([files.test] if files.test else []), *([files.sample_submission] if files.has_sample else [])]
    return list(dict.fromkeys(name.split("/")[0] for name in names))  # of all.zip/train.csv the archive


def fill_training(job: Job, runs: dict[str, RunSettings], models: list[BundledModel], bundle: BundleFolder) -> None:
    """The package, settings, folds, plugins and pretrained models; no rows and no labels."""
    for name in write_package_wheel(bundle):
        warn(f"src/foldblend/{name} is left out: git does not know it. If the notebook needs it, run: git add {name}")
    competition, plugins = job.competition_name, load_defaults(job.paths).plugins
    settings = json.loads(json.dumps(asdict(job.competition)))
    settings["files"]["source"] = "by_hand"  # the notebook reaches no server
    bundle.write(f"configs/competitions/{competition}.yaml", as_yaml(settings))
    defaults = {"competition": competition, "run": next(iter(runs)), "runs": list(runs)}
    bundle.write("configs/default.yaml", as_yaml({**defaults, **({"plugins": list(plugins)} if plugins else {})}))
    todo = list(runs)
    while todo:
        path = find_config(job.paths, "runs", todo.pop())
        bundle.copy(path, f"configs/runs/{path.name}")
        base = yaml.safe_load(path.read_text(encoding="utf-8")).get("base")
        todo += [base] if base else []
    for suffix in (".csv", ".json"):
        path = job.paths.folds(competition).with_suffix(suffix)
        bundle.copy(path, f"folds/{path.name}")
    for name in copy_plugins(plugins, job.paths.root, bundle):
        warn(f"plugin {name} is an installed package; attach a dataset with its wheel and install it in the notebook")
    for model in models:
        copy_model_files(model, bundle)


def write_training(
    job: Job, name: str, owner: str, gpu: bool, about: dict, folder: Path, dataset: BundleFolder
) -> None:
    """bundle.json, the notebook, and Kaggle's metadata files of both."""
    competition, files = job.competition_name, job.competition.files
    title, slug = make_title(competition, name), files.kaggle or competition
    own = {"name": name, "competition": competition, "test": files.test, "sample_submission": files.sample_submission}
    listed = {"files": dict(sorted(dataset.files.items()))}
    dataset.write("bundle.json", as_json({**own, **about, **listed}).encode())
    dataset.write("dataset-metadata.json", as_json(dataset_metadata(owner, title)).encode())
    (folder / "notebook").mkdir()
    for file, values in (
        ("train.ipynb", training_notebook(name, slug, f"{owner}/{title}", job.own.limit_hours)),
        ("kernel-metadata.json", kernel_metadata(owner, title, slug, gpu, [], "train")),
    ):
        (folder / "notebook" / file).write_text(as_json(values), encoding="utf-8")
