"""Settings as records store them: compared, completed with what older releases meant, and hashed as they were then."""

import json
import os
import shlex
from dataclasses import asdict
from typing import Any

from foldblend.errors import UserError
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.paths import find_paths
from foldblend.settings.run import RunSettings
from foldblend.settings.sources import DistillationSettings
from foldblend.settings.tables import LEARNERS


def settings_of(run: RunSettings) -> dict:
    """The settings that the run's learner reads, as plain nested dicts: what a fold's record stores."""
    read = _all_settings_of(run)
    # "other" is the default of no group: everything that is not in SOURCES is stored
    return {name: value for name, value in read.items() if json.dumps(value) != json.dumps(SOURCES.get(name, "other"))}


SOURCES: dict[str, Any] = {"extra_rows": (), "distillation": asdict(DistillationSettings())}
"""Settings that are stored only if they are used -> what a record without them means. Most runs have neither, and their
records and hashes are those of before these settings existed."""


def _all_settings_of(run: RunSettings) -> dict:
    entry = LEARNERS[run.learner]
    own = {run.learner: asdict(run.plugin)} if entry.settings is not None else {}
    return _with_relative_folders({name: value for name, value in asdict(run).items() if name in entry.reads}) | own


MAY_BE_FOLDERS = (("model", "name"), ("model", "start_from"), ("embeddings", "name"))
"""Settings that are a hub name or a folder."""


def _with_relative_folders(settings: dict) -> dict:
    """Settings with every absolute folder as the way to it from the project: records are public, user names are not."""
    for group, name in MAY_BE_FOLDERS:
        value = settings.get(group, {}).get(name, "")
        if isinstance(value, str) and value.startswith(("/", "~")):
            settings = {**settings, group: {**settings[group], name: relative_folder(value)}}
    return settings


def relative_folder(name: str) -> str:
    """`/home/me/models/mini` -> `../models/mini`, from the project's folder; any other name as it is."""
    if not name.startswith(("/", "~")):
        return name
    way = os.path.relpath(os.path.expanduser(name), find_paths().root)
    return way if way.startswith("..") else f"./{way}"


BEFORE_IT_EXISTED = {"tfidf": {"strip_accents": True}}
"""Settings whose default is not what runs did before there was such a setting."""


def default_settings_of(run: RunSettings) -> dict:
    """What an older record means by a setting that it lacks: the default, or what runs did before it existed."""
    default = settings_of(RunSettings(run.learner))
    return merge(default, {group: values for group, values in BEFORE_IT_EXISTED.items() if group in default})


def describe_differences(stored: dict, now: dict) -> list[str]:
    """`optimizer.lr was 5e-05, is now 3e-05` for each setting in which two nested dicts of plain values differ."""
    return [f"{key} was {was}, is now {is_now}" for key, was, is_now in differing_settings(stored, now)]


def differing_settings(first: dict, second: dict) -> list[tuple[str, Any, Any]]:
    """Name and both values of each setting in which two nested dicts of plain values differ; `missing` if one has none.

    Example: {"optimizer": {"lr": 5e-05}}, {"optimizer": {"lr": 3e-05}} -> [("optimizer.lr", 5e-05, 3e-05)]
    """
    # a record without them and one with their defaults are the same
    unused = {name: value for name, value in SOURCES.items() if name in first or name in second}
    one, other = (flat_settings(unused | each) for each in (first, second))
    one, other, missing = _split_lists(one, other), _split_lists(other, one), "missing"
    named = ((key, one.get(key, missing), other.get(key, missing)) for key in sorted(one.keys() | other.keys()))
    return [(key, value, changed) for key, value, changed in named if value != changed]


def flags_to(stored: dict, now: dict) -> str:
    """Flags that set every setting in which `now` differs to what it is in `stored`: `--optimizer.lr 5e-05`."""
    was, is_now = flat_settings(stored), flat_settings(now)
    return " ".join(
        f"--{key} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in was.items()
        if value != is_now.get(key)
    )


def changed_settings(run: RunSettings) -> list[str]:
    """`training.epochs 3` for each setting that the run's learner reads and that differs from its default."""
    now, default = (flat_settings(_all_settings_of(each)) for each in (run, RunSettings(run.learner)))
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in now.items()}
    shown["extra_rows"] = ", ".join(each.name for each in run.extra_rows)
    return [f"{key} {shown[key]}" for key in now if now[key] != default[key]]


def flat_settings(values: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= flat_settings(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return leaves


def _split_lists(leaves: dict, others: dict) -> dict:
    """The settings of a list of groups each by its own name, as `extra_rows[0].weight`, if both have as many groups."""
    split = {}
    for key, value in leaves.items():
        lists = [each for each in (value, others.get(key)) if isinstance(each, list)]
        is_groups = any(isinstance(each, dict) for one in lists for each in one)
        if not is_groups:
            split[key] = value
        elif len(lists) == 2 and len(lists[0]) == len(lists[1]):
            split |= flat_settings({f"{key}[{k}]": each for k, each in enumerate(value)})
        else:
            split[key] = ", ".join(each.get("file") or each.get("competition") or str(each) for each in value) or "none"
    return split


# ---------- Names that settings had in older releases: still read in YAML, records and checkpoints.


RENAMED = {
    "model.tail_share": "model.tail_fraction",
    "model.head_start": "model.head_init",
    "optimizer.moments": "optimizer.state_precision",
    "optimizer.embedding_rows": "optimizer.embedding_updates",
    "training.near_lowest_loss": "training.loss_tolerance",
    "answer.histories": "answer.beam_size",
    "adapter.start": "adapter.init",
}
"""Setting of a run in version 0.1 -> its name now."""
RENAMED_VALUES = {"optimizer.embedding_rows": {"all": "every_step", "touched": "lazy"}}
"""Old setting -> its old values -> what they are called now."""


def with_new_names(values: dict) -> tuple[dict, dict[str, str]]:
    """Settings of a run under the names of now, and which old names were replaced (old -> new).

    Raises UserError if a setting is there under both names.
    """
    values, replaced = dict(values), {}
    for old, new in RENAMED.items():
        group, name, new_name = *old.split("."), new.split(".")[1]
        if isinstance(values.get(group), dict) and name in values[group]:
            if new_name in values[group]:
                raise UserError(f"{old} and {new} are the same setting; remove {old}, its old name")
            value = values[group][name]
            value = RENAMED_VALUES.get(old, {}).get(value, value) if isinstance(value, str) else value
            others = {key: kept for key, kept in values[group].items() if key != name}
            values[group] = {**others, new_name: value}
            replaced[old] = new
    return values, replaced


def with_defaults(stored: dict) -> dict:
    """Stored settings of a run as this version would store them: new names, and the defaults of newer settings."""
    if stored.get("learner") not in LEARNERS:
        return stored
    defaults = default_settings_of(RunSettings(stored["learner"]))
    return _with_relative_folders(merge(json.loads(json.dumps(defaults)), with_new_names(stored)[0]))


def competition_with_defaults(stored: dict) -> dict:
    """Stored settings of a competition as this version would store them: with the defaults of newer settings."""
    defaults = asdict(CompetitionSettings(id_column=stored.get("id_column", "id")))
    return merge(json.loads(json.dumps(defaults)), stored)


def as_answered(competition: dict) -> dict:
    """A competition's stored settings without those that change no prediction: the definitions of labels."""
    labels = {name: value for name, value in competition["labels"].items() if name != "definitions"}
    return {**competition, "labels": labels}


FIRST_SETTINGS = {
    "id_column", "task", "metric", "n_folds", "fold_seed", "near_duplicates",
    "files.train", "files.test", "files.sample_submission", "files.encoding", "files.separator", "files.quoting",
    "files.source", "files.instructions", "files.kaggle", "text.columns", "text.template",
    "labels.form", "labels.column", "labels.delimiter", "labels.values", "labels.names", "labels.groups",
    "submission.form", "submission.column", "submission.delimiter", "submission.separator", "submission.values",
}  # fmt: skip
"""Settings of a competition up to version 0.2."""


def without_new_defaults(competition: dict) -> dict:
    """A competition's settings without those newer than 0.2 that have their default: hashes stay what they were."""
    defaults = asdict(CompetitionSettings(id_column=competition["id_column"]))

    def prune(values: dict, default: dict, prefix: str) -> dict:
        kept = {}
        for key, value in values.items():
            name = f"{prefix}{key}"
            if name in FIRST_SETTINGS:
                kept[key] = value
            elif isinstance(value, dict) and any(first.startswith(f"{name}.") for first in FIRST_SETTINGS):
                kept[key] = prune(value, default[key], f"{name}.")
            # as JSON, in which a tuple of the dataclass and a list of a file are the same
            elif key not in default or json.dumps(value) != json.dumps(default[key]):
                kept[key] = value
        return kept

    return prune(competition, defaults, "")


def merge(defaults: dict, values: dict) -> dict:
    """`values`, completed from `defaults` in nested dicts too."""
    merged = defaults | values
    for key in defaults.keys() & values.keys():
        if isinstance(defaults[key], dict) and isinstance(values[key], dict):
            merged[key] = merge(defaults[key], values[key])
    return merged
