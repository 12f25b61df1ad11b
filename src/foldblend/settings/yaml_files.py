"""One YAML file of settings, read strictly: repeated and unknown keys are errors, as are names that leave their folder.

A run's file may begin with the values of another one (`base:`), and may have the names of older releases.
"""

import re
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from foldblend.console import warn
from foldblend.errors import UserError, nearest
from foldblend.settings.fields import find_misfits, keep_texts, nearest_setting, walk_settings
from foldblend.settings.paths import Paths
from foldblend.settings.records import with_new_names
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def split_names(words: Sequence[str] | None) -> list[str] | None:
    """The names of a flag that takes several, separated by spaces or commas: `--runs a b`, `--runs a,b`."""
    return None if words is None else [name for word in words for name in word.split(",") if name]


def check_name(name: str, what: str) -> str:
    """Return a name that becomes a folder. Raises UserError if it could leave its parent or break a command line."""
    if not NAME.fullmatch(name):
        raise UserError(f"{what} is {name!r}; expected letters, digits, `.`, `_`, `-`; a letter or digit first")
    return name


def find_config(paths: Paths, folder: str, name: str) -> Path:
    """configs/<folder>/<name>.yaml; a run may also be in configs/runs/published/.

    Raises: UserError: no such file, with the nearest name that exists; or it is in both folders.
    """
    check_name(name, f"the name of a file in configs/{folder}")
    found = [path for path in list_configs(paths, folder) if path.stem == name]
    if not found:
        known = sorted({path.stem for path in list_configs(paths, folder)})
        hint = nearest(name, known)
        raise UserError(f"configs/{folder}/{name}.yaml is missing{hint or '.'} There are: {', '.join(known)}")
    if len(found) > 1:
        raise UserError(f"run {name} is in two files, {found[0]} and {found[1]}; rename one of them")
    return found[0]


def list_configs(paths: Paths, folder: str) -> list[Path]:
    """The YAML files of configs/competitions/, or of configs/runs/ and then configs/runs/published/."""
    folders = [paths.configs / folder, *([paths.configs / folder / "published"] if folder == "runs" else [])]
    return [path for each in folders for path in sorted(each.glob("*.yaml"))]


def load_part(part: type, path: Path) -> dict:
    """One YAML as a dict whose every key is a setting of `part`; the YAML of a run on top of that of its `base`.

    Raises: UserError: an unknown key, with the nearest known one; a value of another kind; a base that is missing.
    """
    values, base = _read_part(part, path)
    if base is None:
        return values
    base_path = _find_base(path, base)
    base_values, its_base = _read_part(part, base_path)
    if its_base is not None:
        raise UserError(
            f"{path}: base {base} has a base itself, {its_base}; only one level is allowed. Set base: {its_base} and "
            f"copy the settings of {base_path.name}"
        )
    learner = values.get("learner", base_values.get("learner"))
    unread = find_unread_groups(learner, base_values) if learner in LEARNERS else []
    if unread:
        raise UserError(
            f"{path}: learner {learner} does not read {', '.join(unread)}, which base {base} sets. Choose a base with "
            f"learner {learner}, or none"
        )
    return _inherit(base_values, values, set(kinds_of(part)))


BASE = "base"
"""The key of a run's YAML that names another run, whose values are taken first."""


def _read_part(part: type, path: Path) -> tuple[dict, Any]:
    """The checked values of one file alone, and the base that it names, None without one."""
    is_run = part is RunSettings
    values = parse_yaml(path, {**kinds_of(part), **({BASE: str} if is_run else {})})
    base = None
    if is_run:
        if BASE in values:
            base = "" if values[BASE] is None else values[BASE]
            values = {name: value for name, value in values.items() if name != BASE}
        values = _read_old_names(values, path)
        check_learner(values, str(path))
    refuse_unknown_keys(path, values, names_of(part), {BASE} if is_run else set())
    misfits = find_misfits(values, kinds_of(part))
    if misfits:
        raise UserError(f"{path}: " + "; ".join(misfits))
    return values, base


def _find_base(path: Path, base: Any) -> Path:
    """The file that `base: NAME` means. Raises UserError: no name of a file, none of that name, or the file itself."""
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base is {base!r}; expected the name of a file in configs/runs/, as minilm")
    folder = path.parent.parent if path.parent.name == "published" else path.parent
    try:
        found = find_config(Paths(folder.parent.parent), "runs", base)
    except UserError as error:
        raise UserError(f"{path}: base is {base!r}: {error}") from None
    if found == path:
        raise UserError(f"{path}: base is {base!r}, which is this file itself; name another run, or remove the line")
    return found


def _inherit(base: dict, own: dict, leaves: set[str], prefix: str = "") -> dict:
    """The values of `base`, replaced by `own` key by key in each group; a list or mapping is replaced as a whole."""
    merged = base | own
    for key in base.keys() & own.keys():
        is_group = isinstance(base[key], dict) and isinstance(own[key], dict) and f"{prefix}{key}" not in leaves
        if is_group:
            merged[key] = _inherit(base[key], own[key], leaves, f"{prefix}{key}.")
    return merged


def stored_part(path: Path, settings: dict) -> dict:
    """The settings of a fold's record, as `load_part` gives those of a YAML."""
    values = with_new_names(settings)[0]
    check_learner(values, str(path))
    refuse_unknown_keys(path, values, names_of(RunSettings))
    return values


def parse_yaml(path: Path, kinds: Mapping[str, Any] | None = None) -> dict:
    """A YAML mapping without repeated keys. Raises UserError on anything else.

    Args: kinds: name of a setting -> its type; settings of text are given as they are written, `yes` as "yes".
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, Loader=StrictLoader)
        if kinds and isinstance(values, dict):
            values = keep_texts(values, yaml.load(text, Loader=yaml.BaseLoader), kinds)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or an impossible date
        raise UserError(f"{path} is not readable YAML: {error}. Fix it, or copy a file of that folder") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `name: value`, found {_in_words(values)}")
    return values


class StrictLoader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys, and expands a few aliases to gigabytes; this one refuses both."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name); expected the value itself", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        counts = Counter(key for key in keys if isinstance(key, Hashable))  # others are refused below
        repeated = sorted(str(key) for key, count in counts.items() if count > 1)
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(repeated)} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def refuse_unknown_keys(path: Path, values: dict, known: set[str], others: Iterable[str] = ()) -> None:
    """Raise UserError for every dotted key of `values` that is not in `known`, and for a group that is no mapping.

    Args: others: names that may have been meant, too: keys that are no settings.
    """
    leaves = {key for key in known if not any(name.startswith(f"{key}.") for name in known)}
    for group in sorted((known - leaves) & values.keys()):
        if not isinstance(values[group], dict):
            found = _in_words(values[group])
            raise UserError(f"{path}: {group} is a group of settings; expected `name: value` below it, found {found}")
    expected = f"; expected {', '.join(sorted({key.split('.')[0] for key in known}))}"
    unknown = [
        f"unknown setting {key!r}{nearest_setting(key, {*known, *others}) or expected}"
        for key in _dotted(values, leaves)
        if key not in known
    ]
    if unknown:
        raise UserError(f"{path}: " + "; ".join(unknown))


def _dotted(values: dict, leaves: set[str], prefix: str = "") -> list[str]:
    """Dotted keys; a setting in `leaves` may be a mapping, whose keys are the user's own."""
    keys = []
    for key, value in values.items():
        is_group = isinstance(value, dict) and value and f"{prefix}{key}" not in leaves
        keys += _dotted(value, leaves, f"{prefix}{key}.") if is_group else [f"{prefix}{key}"]
    return keys


def check_learner(values: dict, where: str) -> None:
    """An unknown learner is named before its group of settings is called unknown."""
    learner = values.get("learner")
    if isinstance(learner, str) and learner not in LEARNERS:
        hint = nearest(learner, LEARNERS) or f"; expected {', '.join(LEARNERS)}."
        raise UserError(
            f"{where}: learner is {learner!r}, which is not known{hint} If it is a plugin's, add the plugin's module "
            "to `plugins` in configs/default.yaml"
        )


def find_unread_groups(learner: str, given: Iterable[str]) -> list[str]:
    """Which of the given groups of settings a known learner does not read, sorted."""
    groups = {name.split(".")[0] for name in names_of(RunSettings)}
    entry = LEARNERS[learner]
    reads = entry.reads | ({learner} if entry.settings else set())
    return sorted((set(given) & groups) - reads)


# ---------- The names of settings.


def names_of(part: type) -> set[str]:
    """Dotted names of all settings of a dataclass and of its groups; of a run, those of plugins too."""
    return {name for name, _, _ in walk_all(part)}


def kinds_of(part: type) -> dict[str, Any]:
    """Dotted name of each setting -> its type, without groups."""
    return {name: kind for name, _, kind in walk_all(part) if not (isinstance(kind, type) and is_dataclass(kind))}


def walk_all(part: type) -> list[tuple[str, Any, Any]]:
    """`walk_settings`, continued by the groups of plugins' learners."""
    found = list(walk_settings(part))
    for name, settings in plugin_groups(part).items():
        found += [(name, fields(part)[0], settings), *walk_settings(settings, f"{name}.")]
    return found


def plugin_groups(part: type) -> dict[str, type]:
    """Groups that belong to a run because a plugin's learner has settings of its own."""
    if part is not RunSettings:
        return {}
    return {name: entry.settings for name, entry in LEARNERS.items() if entry.settings is not None}


# ---------- Runs of older releases.


def _read_old_names(values: dict, path: Path) -> dict:
    """The values of a run's YAML under new names, with one warning if it has old ones."""
    try:
        values, replaced = with_new_names(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if replaced:
        names = ", ".join(f"{old} to {new}" for old, new in replaced.items())
        _warn_once(f"{path} has old names, which are still read; rename {names}")
    return values


@cache
def _warn_once(line: str) -> None:
    """On stderr, as blend.py may be asked for its output alone; several files may say the same."""
    warn(line, stream=sys.stderr)


def _in_words(value: Any) -> str:
    """What YAML read, without Python's names of it. Example: [1] -> "a list, [1]"."""
    if value is None:
        return "nothing"
    kind = "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else "a value"
    return f"{kind}, {str(value)[:80]!r}" if kind != "a list" else f"{kind}, {str(value)[:80]}"
