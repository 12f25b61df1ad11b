"""New texts predicted by a run's trained folds, and the pretrained model that they need."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from foldblend.errors import UserError
from foldblend.learners.nets.pretrained import find_weights
from foldblend.learners.table import Corpus, build_learner
from foldblend.learners.training.weights import check_training, hash_fold_rows
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS

# 1. The pretrained model of a trained run: where it was when the run trained, or in a bundle

MODEL = "model.json"
"""In the folder of a bundled run: which files its pretrained model needs, and where they are."""
NEEDED = ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja")
"""Files that say how a model is built and reads texts; its weights are *.safetensors."""


def needs_weights(run: RunSettings) -> bool:
    """Whether a trained fold holds less than the whole model, so that the pretrained weights are read too."""
    return model_group(run) == "embeddings" or run.learner in ("decoder", "generator")


def model_name(run: RunSettings) -> str:
    """The pretrained model as the settings name it; empty for a run that has none."""
    group = model_group(run)
    return getattr(run, group).name if group else ""


def find_model(run: RunSettings) -> Path:
    """The folder of the run's pretrained model. Raises UserError: it is not found."""
    group = getattr(run, model_group(run))
    return find_weights(group.name, group.revision)[0]


def describe_model(folder: Path, with_weights: bool) -> dict[str, str | int]:
    """What tells a copy of a model's folder from another model: its config's sha256, the size of each weights file."""
    proof = {"config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()}
    weights = sorted(folder.glob("*.safetensors")) if with_weights else []
    return {**proof, **{path.name: path.stat().st_size for path in weights}}


def resolve_model(run: RunSettings, run_folder: Path, searched: str) -> RunSettings:
    """The run with its pretrained model from where a bundle put it; unchanged outside of bundles.

    Args:   run_folder: checkpoints/<competition>/<run>.   searched: a folder that may hold copies of models somewhere.
    Raises: UserError: a bundle's model is not found.
    """
    path = run_folder / MODEL
    if not path.is_file():
        return run
    wanted = json.loads(path.read_text(encoding="utf-8"))
    if wanted["folder"]:
        return with_model_folder(run, (run_folder / wanted["folder"]).resolve())
    configs = sorted(Path(searched).rglob("config.json")) if searched else []
    for config in configs:
        if describe_model(config.parent, True) == wanted["proof"]:
            return with_model_folder(run, config.parent)
    where = f"in {searched}" if searched else "anywhere: --models names no folder"
    raise UserError(
        f"{run_folder.name}: {wanted['name']} is not {where} ({len(configs)} config.json looked at). Attach the model "
        "to the notebook in the very files that the run was trained on, or bundle it without --model_sources"
    )


# 2. New texts


def predict_folds(
    run: RunSettings, corpus: Corpus, checkpoints: list[Path], show: Callable[[str], None]
) -> list[np.ndarray]:
    """Each fold's predictions of the corpus's test rows: K tables float32 (n_test, L).

    Args:   corpus: the new texts; no training rows.   checkpoints: one folder per fold.
            show: called with a line before each fold.
    Raises: UserError: weights are missing, damaged or of other settings.
    """
    learner, tables = build_learner(run, corpus), []
    for k, folder in enumerate(checkpoints):
        show(f"fold {k + 1} of {len(checkpoints)}")
        tables.append(learner.predict_fold(folder))
    return tables


def check_folds(settings: dict, fold: np.ndarray, checkpoints: list[Path]) -> None:
    """Prove that each fold's weights are of these settings and of that fold's rows.

    Args:   settings: as the folds' records have them.   fold: int64 (N,), which fold held out which training row.
    Raises: UserError: what differs, or a file that is missing or damaged.
    """
    for k, folder in enumerate(checkpoints):
        rows = hash_fold_rows(np.flatnonzero(fold != k), np.flatnonzero(fold == k))
        check_training(folder, settings, rows)


def model_group(run: RunSettings) -> str:
    """The group of settings that names the run's pretrained model; empty if it has none."""
    return next((group for group in ("model", "embeddings") if group in LEARNERS[run.learner].reads), "")


def with_model_folder(run: RunSettings, folder: Path) -> RunSettings:
    """The run, its pretrained model taken from a folder."""
    group = model_group(run)
    return replace(run, **{group: replace(getattr(run, group), name=str(folder))})
