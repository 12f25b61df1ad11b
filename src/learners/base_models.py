"""Where a trained run's pretrained model lies when new texts are predicted: where it always did, or in a bundle."""

import hashlib
import json
from pathlib import Path

from learners.pretrained import find_weights
from learners.trained import model_group, with_model_folder
from settings.run import RunSettings

MODEL = "model.json"
"""Beside a bundled run's folds: which files its pretrained model needs, and where they are."""
NEEDED = ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja")
"""What says of a model how it is built and how it reads texts; its weights are *.safetensors."""


def needs_weights(run: RunSettings) -> bool:
    """Whether a trained fold holds less than the whole model, so that the pretrained weights are read too."""
    return model_group(run) == "embeddings" or run.learner in ("decoder", "generator")


def model_name(run: RunSettings) -> str:
    """The pretrained model as the settings name it; empty for a run that has none."""
    group = model_group(run)
    return getattr(run, group).name if group else ""


def find_model(run: RunSettings) -> Path:
    """The folder of the run's pretrained model. Raises ValueError where it is not to be had."""
    group = getattr(run, model_group(run))
    return find_weights(group.name, group.revision)[0]


def describe_model(folder: Path, with_weights: bool) -> dict[str, str | int]:
    """What proves a copy of a model's folder: its config's sha256, and the size of each file of its weights."""
    proof = {"config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()}
    weights = sorted(folder.glob("*.safetensors")) if with_weights else []
    return {**proof, **{path.name: path.stat().st_size for path in weights}}


def resolve_model(run: RunSettings, run_folder: Path, searched: str) -> RunSettings:
    """The run with its pretrained model from where a bundle put it; outside of bundles as it is.

    Args:   run_folder: checkpoints/<competition>/<run>.   searched: a folder that may hold copies of models somewhere.
    Raises: ValueError: a bundle's model is nowhere.
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
    raise ValueError(
        f"{run_folder.name}: {wanted['name']} is not {where} ({len(configs)} config.json looked at). Attach the model "
        "to the notebook in the very files that the run was trained on, or bundle it without --model_sources"
    )
