"""New texts predicted by a run's trained folds, and the pretrained model that they need."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from foldblend.errors import UserError
from foldblend.features import Features
from foldblend.files import sha256_file
from foldblend.learners.nets.folders import NOTE, OWN_MODEL, find_described, read_model_type
from foldblend.learners.nets.pretrained import find_weights
from foldblend.learners.table import Corpus, Learner, build_learner
from foldblend.learners.training.weights import WEIGHTS, check_training, damaged, hash_fold_rows
from foldblend.predictions import FULL, fold_name
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS

# 1. The pretrained model of a trained run: where it was when the run trained, or in a bundle

MODEL = "model.json"
"""In the folder of a bundled run: which files its pretrained model needs, and where they are."""


def needs_weights(run: RunSettings) -> bool:
    """Whether a trained fold holds less than the whole model, so that the pretrained weights are read too."""
    return model_group(run) == "embeddings" or run.learner in ("decoder", "generator")


def model_name(run: RunSettings) -> str:
    """The pretrained model as the settings name it; empty for a run that has none."""
    group = model_group(run)
    return getattr(run, group).name if group else ""


def find_model(run: RunSettings, checkpoint: Path) -> Path:
    """The folder of the run's pretrained model: what a fold holds of it if that is enough, else where it was found.

    Raises: UserError: it is not found.
    """
    own = checkpoint / OWN_MODEL
    if not needs_weights(run) and (own / "config.json").is_file():
        return own
    group = getattr(run, model_group(run))
    return find_weights(group.name, group.revision)[0]


def resolve_model(run: RunSettings, checkpoint: Path, searched: str) -> RunSettings:
    """The run with its pretrained model from where a bundle put it, or from what the fold itself holds of it.

    Args:   checkpoint: checkpoints/<competition>/<run>/fold<k>.
            searched: a folder that may hold copies of models somewhere; empty searches nothing.
    Raises: UserError: the model is not found.
    """
    if not model_group(run):
        return run
    bundled = checkpoint.parent / MODEL
    if bundled.is_file():
        return _resolve_bundled(run, bundled, searched)
    if not needs_weights(run):
        own = checkpoint / OWN_MODEL
        return with_model_folder(run, own) if (own / "config.json").is_file() else run
    return _resolve_moved(run, checkpoint, searched)


def _resolve_bundled(run: RunSettings, note: Path, searched: str) -> RunSettings:
    wanted = json.loads(note.read_text(encoding="utf-8"))
    if wanted["folder"]:
        return with_model_folder(run, (note.parent / wanted["folder"]).resolve())
    found, n_configs = find_described(wanted["proof"], searched)
    if found is not None:
        return with_model_folder(run, found)
    where = f"in {searched}" if searched else "anywhere: --models names no folder"
    raise UserError(
        f"{note.parent.name}: {wanted['name']} is not {where} ({n_configs} config.json looked at). Attach the model "
        "to the notebook in the very files that the run was trained on, or bundle it without --model_sources"
    )


def _resolve_moved(run: RunSettings, checkpoint: Path, searched: str) -> RunSettings:
    """The run with its base model where it was, else where `searched` has the same files."""
    try:
        find_model(run, checkpoint)
        return run
    except UserError as error:
        note = checkpoint / NOTE
        if not note.is_file():
            raise
        found, n_configs = find_described(json.loads(note.read_text(encoding="utf-8"))["proof"], searched)
        if found is not None:
            return with_model_folder(run, found)
        tried = f"{searched} has {n_configs} models, none of the same files" if searched else str(error)
        raise UserError(
            f"The base model of run {checkpoint.parent.name} is not where it was: {model_name(run)}. Its folds hold "
            f"only what was trained on top ({tried}). Put it back, or name a folder that holds it: --models FOLDER"
        ) from error


# 2. New texts


def predict_folds(
    run: RunSettings,
    corpus: Corpus,
    checkpoints: list[Path],
    show: Callable[[str], None],
    refuse_nan: bool = True,
) -> list[np.ndarray]:
    """Each fold's predictions of the corpus's test rows: K tables float32 (n_test, L).

    Args:   corpus: the new texts; no training rows.   checkpoints: one folder per fold.
            show: called with a line before each fold.   refuse_nan: whether predictions must be numbers.
    Raises: UserError: weights are missing, damaged or of other settings, or predict what is no number.
    """
    return _predict_with(build_learner(run, corpus), checkpoints, show, refuse_nan)


def attribute_fold(run: RunSettings, corpus: Corpus, checkpoint: Path, labels: Sequence[Sequence[int]]):
    """Which tokens of new texts spoke for labels: an Attribution (nets/attributions.py) per text.

    Args:   checkpoint: the folder of a trained fold.   labels: those that are asked about, of each text.
    Raises: UserError: the run is no encoder; weights are missing or damaged.
    """
    learner = build_learner(run, corpus)
    if not hasattr(learner, "attribute_fold"):
        raise UserError(f"a {run.learner} has no token attributions; expected a run of an encoder")
    return learner.attribute_fold(checkpoint, labels)


class TrainedModels:
    """The folds of one run, read from the disk once, for a page that is asked again and again.

    Args: task: `multilabel` or `multiclass`.   checkpoints: one folder per fold, checked by `check_folds`.
    """

    def __init__(self, run: RunSettings, label_names: tuple[str, ...], task: str, checkpoints: list[Path]):
        self.run, self.checkpoints = run, checkpoints
        self.nothing = Corpus((), np.zeros((0, len(label_names)), bool), label_names, task)
        self.learner: Learner | None = None

    def predict(self, texts: tuple[str, ...], features: Features | None = None) -> list[np.ndarray]:
        """As `predict_folds` predicts these texts, at least one."""
        corpus = replace(self.nothing, texts=texts, features=features)
        if self.learner is not None and hasattr(self.learner, "read_texts"):
            self.learner.read_texts(corpus)
        else:  # a learner of a plugin may know one corpus only
            self.learner = build_learner(self.run, corpus)
            if hasattr(self.learner, "keep_models"):
                self.learner.keep_models()
        return _predict_with(self.learner, self.checkpoints, lambda what: None)


def _predict_with(
    learner: Learner, checkpoints: list[Path], show: Callable[[str], None], refuse_nan: bool = True
) -> list[np.ndarray]:
    tables = []
    for k, folder in enumerate(checkpoints):
        show(f"fold {k + 1} of {len(checkpoints)}")
        try:
            table = learner.predict_fold(folder)
        except (KeyError, IndexError, UnicodeDecodeError, json.JSONDecodeError) as error:  # an array is missing or cut
            raise damaged(folder / WEIGHTS, f"{type(error).__name__}: {error}") from error
        wrong = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(wrong) and refuse_nan:
            raise UserError(
                f"{folder}: its weights predict NaN or infinite values for {len(wrong)} of {len(table)} texts, the "
                f"first in row {wrong[0] + 1}. Predict with --precision fp32 (in a bundle's notebook: PRECISION = "
                '"fp32"); if that changes nothing, restore the weights or train the fold again'
            )
        tables.append(table)
    return tables


def describe_here(run: RunSettings, checkpoint: Path) -> tuple[str, str]:
    """The device that predicts here, and the precision in which a run's folds do: `1 x Tesla T4`, `fp16`.

    The precision is empty for a run without a net.
    """
    if not model_group(run):
        return f"{platform.machine()} cpu", ""
    from foldblend.learners.processes.devices import choose_precision, describe_device, find_device

    device = find_device()
    precision = choose_precision(run.training.precision, device, read_model_type(find_model(run, checkpoint)))
    name, _, precision = describe_device(device, 1, precision).rpartition(", ")
    return name, precision


def check_folds(
    settings: dict, fold: np.ndarray, checkpoints: list[Path], hashes: list[str], left_out: list[list[int]]
) -> None:
    """Prove that each fold's weights are those of its record: of these settings, of that fold's rows, these bytes.

    Args:   settings: as the folds' records have them.   fold: int64 (N,), which fold held out which training row.
            hashes: sha256 of each fold's weights; empty for a record that has none.
            left_out: of each fold, training rows that it did not learn.
    Raises: UserError: what differs, or a file that is missing or damaged.
    """
    for k, folder in enumerate(checkpoints):
        number = FULL if folder.name == fold_name(FULL) else k
        taught = fold != number
        taught[left_out[k]] = False
        rows = hash_fold_rows(np.flatnonzero(taught), np.flatnonzero(fold == number))
        check_training(folder, settings, rows)
        path = folder / WEIGHTS
        if hashes[k] and sha256_file(path) != hashes[k]:
            run, number = folder.parent.name, folder.name.removeprefix("fold")
            raise UserError(
                f"{path}: not the weights that the fold was trained to (their sha256 is not the one in oof/). Restore "
                f"them, or train the fold again: accelerate launch src/train.py --run {run} --fold {number} --overwrite"
            )


def model_group(run: RunSettings) -> str:
    """The group of settings that names the run's pretrained model; empty if it has none."""
    return next((group for group in ("model", "embeddings") if group in LEARNERS[run.learner].reads), "")


def with_model_folder(run: RunSettings, folder: Path) -> RunSettings:
    """The run, its pretrained model taken from a folder."""
    group = model_group(run)
    return replace(run, **{group: replace(getattr(run, group), name=str(folder))})
