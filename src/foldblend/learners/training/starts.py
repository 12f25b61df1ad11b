"""Going on from another training: the weights of a run's trained folds, or their mean, under a new head.

Which parts are new is told by their names: those of a classifier's fresh layers begin with `head` (nets/classifier.py).
All else is of the pretrained model, or adapters on it, and is taken over as it is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from foldblend.errors import UserError
from foldblend.learners.nets.folders import NOTE, OWN_MODEL, describe_model
from foldblend.learners.nets.pretrained import load_pretrained, load_tokenizer, refusing_code
from foldblend.learners.table import Start
from foldblend.learners.tokens.tokens import add_placeholders, fit_embeddings
from foldblend.learners.training.checkpoints import TrainState, load_weights, save_checkpoint
from foldblend.learners.training.weights import WEIGHTS, read_identity
from foldblend.settings.records import differing_settings, with_defaults
from foldblend.settings.run import RunSettings

HEAD = "head"
"""How the names of a classifier's fresh layers begin."""

# 1. The weights of trained folds, without their heads


def load_start(start: Start) -> dict[str, torch.Tensor]:
    """The weights to go on from, by their names in a fold's model: `encoder.<name>`; the mean over the start's folds.

    Raises: UserError: weights are missing, damaged, or not all of one model.
    """
    if start.settings is not None:
        return mean_weights(start.folders)
    encoder, _ = load_pretrained(start.folders[0], AutoModel)
    return {f"encoder.{name}": value for name, value in encoder.state_dict().items()}


def mean_weights(folders: Sequence[Path], with_head: bool = False) -> dict[str, torch.Tensor]:
    """The mean of trained folds' weights, by their names in the model; float32, integers of the first one.

    Args:   folders: of the folds; one is taken as it is.   with_head: whether heads are averaged, too.
    Raises: UserError: a fold's weights are missing or damaged, or have other names or shapes than the first one's.
    """
    first = _fold_weights(folders[0], with_head)
    if len(folders) == 1:
        return first
    # added up in float64, so that the order of the folds does not matter to the last bit of the mean
    total = {name: value.double() if value.is_floating_point() else value for name, value in first.items()}
    for folder in folders[1:]:
        other = _fold_weights(folder, with_head)
        if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in first.items()}:
            raise UserError(f"{folder}: its weights have other names or shapes than those of {folders[0]}")
        for name, value in other.items():
            if value.is_floating_point():
                total[name] += value
    return {name: (total[name] / len(folders)).to(value.dtype) if value.is_floating_point() else value
            for name, value in first.items()}  # fmt: skip


def _fold_weights(folder: Path, with_head: bool) -> dict[str, torch.Tensor]:
    tensors = ((name.removeprefix("model."), value) for name, value in load_weights(folder).items())
    return {name: value for name, value in tensors if with_head or not name.startswith(HEAD)}


def export_encoder(run: RunSettings, folders: Sequence[Path], target: Path) -> None:
    """Write the encoder of trained folds, or their mean, as an ordinary model: config, weights and tokenizer.

    Args:   run: as it was trained.   folders: of the folds.   target: an empty folder.
    Raises: UserError: the folds hold no encoder of their own, or damaged weights.
    """
    own = folders[0] / OWN_MODEL
    if not (own / "config.json").is_file():
        raise UserError(f"{folders[0]}: no {OWN_MODEL}/config.json. Train the fold again, with --overwrite")
    tensors = {name.removeprefix("encoder."): value for name, value in mean_weights(folders).items()}
    tokenizer = load_tokenizer(own)
    if run.cleaning.placeholder_tokens:
        add_placeholders(tokenizer, run.cleaning.placeholders)
    with refusing_code(own):
        config = AutoConfig.from_pretrained(own, local_files_only=True, trust_remote_code=False)
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    if not any(name.startswith("pooler.") for name in tensors) and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # a fold drops it unless model.pooling reads it
    fit_embeddings(encoder, tokenizer)
    encoder.load_state_dict(tensors)
    encoder.save_pretrained(target)
    tokenizer.save_pretrained(target)


def write_average(run: RunSettings, folders: Sequence[Path], target: Path) -> RunSettings:
    """Write one model whose weights are the mean of trained folds', heads included, in the form of a fold's folder.

    An encoder's folds start from one model, so their weights lie close enough to be averaged (Wortsman et al. 2022,
    arXiv:2203.05482). LoRA's matrices do not, as A begins at random in each fold, but the base does: the mean of the
    updates B A is the update of an adapter whose rank is the folds' together, to rounding.

    Args:    run: as the folds were trained; the caller has proven that they are of one run, and so of one start.
    Returns: the run that the written weights fit.
    Raises:  UserError: these folds have no mean.
    """
    adapter, k = run.adapter, len(folders)
    is_lora = run.learner in ("decoder", "generator") and adapter.kind == "lora"
    if run.learner not in ("encoder", "decoder", "generator"):
        raise UserError(f"a {run.learner} has no weights that could be averaged")
    if run.use_features:
        raise UserError("use_features: each fold reads the columns beside the text in its own way")
    if run.learner != "encoder" and adapter.kind not in ("lora", "none"):
        raise UserError(f"adapter.kind {adapter.kind}: what it learns began at random in each fold")
    if is_lora and (adapter.dora or adapter.init == "pissa" or adapter.bias != "none"):
        raise UserError("only plain LoRA can be averaged, without dora, pissa and trained biases")
    tensors = mean_weights(folders, with_head=True)
    if is_lora:
        folds = [_fold_weights(folder, with_head=True) for folder in folders]
        for name in tensors:
            if "lora_A" in name:
                tensors[name] = torch.cat([fold[name] for fold in folds])  # (K r, in)
            elif "lora_B" in name:
                tensors[name] = torch.cat([fold[name] / k for fold in folds], dim=1)  # (out, K r)
        alpha = adapter.alpha * (k**0.5 if adapter.rslora else k)  # the scale of an update stays what it was
        run = replace(run, adapter=replace(adapter, rank=adapter.rank * k, alpha=alpha))
    identity = read_identity(folders[0] / WEIGHTS)
    save_checkpoint(
        target / WEIGHTS, {f"model.{name}": value for name, value in tensors.items()}, TrainState(), identity
    )
    return run


# 2. Into a new model


def take_start(model: nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Put the start's weights into a new fold's model, in place; its head, and what is frozen, stay as they are.

    Args:   tensors: of `load_start`.   source: what messages call them.
    Raises: UserError: the model has other layers or sizes.
    """
    trained = {name: value for name, value in _own_parts(model).items() if not name.startswith(HEAD)}
    # a pooler is taken over where both have one; a model that does not read it has dropped it
    tensors = {name: value for name, value in tensors.items() if name in trained or ".pooler." not in name}
    missing, unknown = sorted(trained.keys() - tensors.keys()), sorted(tensors.keys() - trained.keys())
    if missing and all(".pooler." in name for name in missing):
        raise UserError(f"{source}: it has no pooler. Set model.pooling to cls or mean")
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which this model does not have"
        raise UserError(f"{source}: it is of another model: it {what}. {SAME_MODEL}")
    for name, value in tensors.items():
        if value.shape != trained[name].shape:
            shapes = f"{name} is {tuple(value.shape)} there, {tuple(trained[name].shape)} here"
            raise UserError(f"{source}: it is of another model: {shapes}. {SAME_MODEL}")
    with torch.no_grad():
        for name, value in tensors.items():
            trained[name].copy_(value)


SAME_MODEL = "Set model.name, and for a decoder the group adapter, to those of that run"


def _own_parts(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that a fold saves: all but the frozen ones."""
    frozen = tuple(name for name, each in model.named_parameters(remove_duplicate=False) if not each.requires_grad)
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if not name.startswith(frozen)}


# 3. Whether it can be a start of this run


def check_start(run: RunSettings, start: Start, folder: Path, vocabulary: Mapping[str, int]) -> None:
    """Refuse another training that this run cannot go on from.

    Args:   folder: of this run's pretrained model.   vocabulary: token -> id of this run's tokenizer.
    Raises: UserError: what differs, and what to set.
    """
    said = f"model.start_from {start.source}"
    if start.settings is None:
        if run.learner != "encoder":
            raise UserError(
                f"{said}: a folder with a whole model, and a {run.learner} goes on from adapters. Name a run and a "
                "fold, COMPETITION/RUN/fold0; or set model.name to that folder"
            )
        _check_vocabulary(said, load_tokenizer(start.folders[0]).get_vocab(), vocabulary)
        return
    settings = with_defaults(dict(start.settings))
    if settings["learner"] != run.learner:
        raise UserError(
            f"{said}: its learner is {settings['learner']}, that of this run {run.learner}. Start from the same kind"
        )
    if run.learner == "encoder":
        _check_placeholders(said, settings["cleaning"], asdict(run.cleaning))
        own = start.folders[0] / OWN_MODEL
        if (own / "config.json").is_file():
            _check_vocabulary(said, load_tokenizer(own).get_vocab(), vocabulary)
        return
    _check_base(said, start, folder)
    _check_adapters(said, start, settings, run)


def _check_placeholders(said: str, theirs: Mapping, ours: Mapping) -> None:
    """Added tokens are numbered in the order of the settings that add them."""
    names = ("placeholder_tokens", "urls", "users", "hashtags")
    differing = [
        f"cleaning.{name} is {theirs[name]} there, {ours[name]} here" for name in names if theirs[name] != ours[name]
    ]
    if differing and (theirs["placeholder_tokens"] or ours["placeholder_tokens"]):
        raise UserError(f"{said}: its tokens for links and names are others: {'; '.join(differing)}. Set them alike")


def _check_vocabulary(said: str, theirs: Mapping[str, int], ours: Mapping[str, int]) -> None:
    """A table of embeddings is read by token number, so every token has to have the same one."""
    common = theirs.keys() & ours.keys()
    if any(theirs[token] != ours[token] for token in common) or 2 * len(common) < max(len(theirs), len(ours)):
        raise UserError(
            f"{said}: its tokenizer is another one, {len(theirs):,} tokens against {len(ours):,}, of which "
            f"{sum(theirs[token] == ours[token] for token in common):,} are the same. {SAME_MODEL}"
        )


def _check_base(said: str, start: Start, folder: Path) -> None:
    """Adapters are changes of one base model."""
    for trained in start.folders:
        path = trained / NOTE
        note = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if note is not None and note["proof"] != describe_model(folder, True):
            raise UserError(f"{said}: its adapters are on {note['name']}, which is not this run's model. {SAME_MODEL}")


LOOSE = ("dropout", "quantization", "init")
"""Settings of adapters in which two trainings of one kind and shape may differ."""


def _check_adapters(said: str, start: Start, settings: dict, run: RunSettings) -> None:
    """The same shape, and one fold: A and B of two folds began at random each, so their means have no meaning."""
    ours = asdict(run.adapter)
    loose = LOOSE if "pissa" not in (settings["adapter"]["init"], ours["init"]) else LOOSE[:2]
    differing = [
        f"adapter.{name} is {there} there, {here} here"
        for name, there, here in differing_settings(settings["adapter"], ours)
        if name not in loose
    ]
    if differing:
        raise UserError(f"{said}: its adapters have another shape: {'; '.join(differing)}. {SAME_MODEL}")
    if len(start.folders) > 1 and run.adapter.kind != "none":
        raise UserError(
            f"{said}: adapters of {len(start.folders)} folds began at random each, so they have no mean of this shape. "
            f"Name one fold: {start.source}/fold0"
        )
