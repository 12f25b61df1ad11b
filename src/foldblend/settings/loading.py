"""From YAML files and flags to frozen settings: strict reading, flags, building.

An unknown key or flag, a wrong type and a value that cannot work are errors here, before anything else runs.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from foldblend.console import warn
from foldblend.errors import UserError, nearest
from foldblend.plugins import load_plugins
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.fields import (
    describe_misfit,
    find_misfits,
    fits,
    is_structured,
    keep_texts,
    nearest_setting,
    parse_flag,
    rule_of,
    walk_settings,
)
from foldblend.settings.paths import Paths, find_paths
from foldblend.settings.records import BEFORE_IT_EXISTED, RENAMED, merge, with_new_names
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS
from foldblend.settings.teacher import TeacherSettings

Settings = TypeVar("Settings")
"""A dataclass of settings."""


@dataclass(frozen=True)
class Defaults:
    """What a command without `--competition` and `--run` uses: configs/default.yaml."""

    competition: str
    """A file in configs/competitions/, without .yaml."""
    run: str
    """The run that train.py trains: a file in configs/runs/, without .yaml."""
    runs: tuple[str, ...]
    """The runs that run.sh trains and blends."""
    plugins: tuple[str, ...] = ()
    """Python modules of this folder, or installed ones, that add learners, losses, metrics and strategies:
    docs/architecture.md shows how."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = "none"
    """Where trainings send their settings, history and scores beside oof/: docs/training.md. No part of a run: a
    training is the same with and without it. As a flag, `--tracker wandb`."""


@dataclass(frozen=True)
class Job:
    """The settings of one command."""

    paths: Paths
    competition_name: str
    competition: CompetitionSettings
    run_name: str
    run: RunSettings | None
    """None for commands that train nothing."""
    own: Namespace
    """The command's own flags."""


# ---------- One command: default.yaml, then the competition's YAML, then the run's YAML, then the flags.


def open_job(
    command: str,
    argv: Sequence[str] | None,
    add_flags: Callable[[ArgumentParser], None],
    with_run: bool = False,
    find_trained: Callable[[Paths, str, str], tuple[Path, dict] | None] | None = None,
) -> Job:
    """Read configs/default.yaml, the competition's YAML, the run's YAML and the flags; later ones win.

    Args:   command: the command's file name, for messages.   argv: flags; None for those of the process.
            add_flags: adds the command's own flags to the parser.
            with_run: whether the command takes `--run` and its settings.
            find_trained: (paths, competition, run) -> the record and the settings of a run that was trained under a
            name of its own, so that `--run` may name it without a YAML; None if there is none.
    Raises: UserError: an unknown or repeated flag, an unknown key, a wrong type, settings that contradict each other.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parts = (RunSettings, CompetitionSettings) if with_run else (CompetitionSettings,)
    if {"-h", "--help"} & set(argv):  # an installed package explains itself outside of a workspace, too
        _build_parser(command, _defaults_for_help(), add_flags, parts, with_help=True).parse_args(["--help"])
    paths = find_paths()
    defaults = load_defaults(paths)
    parser = _build_parser(command, defaults, add_flags, parts)
    _check_flags(argv, parser)
    picked = {"competition": _or(_flag(argv, "competition"), defaults.competition)}
    yamls: dict[type, Path] = {CompetitionSettings: find_config(paths, "competitions", picked["competition"])}
    trained = None
    if with_run:
        picked["run"] = _or(_flag(argv, "run"), defaults.run)
        is_yaml = any(path.stem == picked["run"] for path in list_configs(paths, "runs"))
        trained = None if is_yaml or find_trained is None else find_trained(paths, picked["competition"], picked["run"])
        yamls[RunSettings] = trained[0] if trained else find_config(paths, "runs", picked["run"])
    values: dict = dict(picked)
    for part, path in yamls.items():
        is_record = trained is not None and part is RunSettings
        values |= _stored_part(*trained) if trained and is_record else load_part(part, path)
    given = _parse_object(parser, values, ", ".join(map(str, yamls.values())))
    argv = _plain_flags(argv, {name: kind for part in parts for name, kind in kinds_of(part).items()}, f"src/{command}")
    try:
        flags = parser.parse_args(argv, namespace=given, defaults=False)
    except ArgumentError as error:
        raise UserError(f"src/{command}: {_in_plain_words(error)}") from error
    of_parts = {name for part in parts for name in names_of(part)}
    own = Namespace({name: value for name, value in vars(flags).items() if name not in of_parts})
    competition = _build(CompetitionSettings, flags, f"competition {picked['competition']}")
    if not with_run:
        return Job(paths, picked["competition"], competition, "", None, own)
    run = _build(RunSettings, flags, f"run {picked['run']}")
    _check_read(run, {*values, *(name.split(".")[0] for name, _ in _given_flags(argv))}, yamls[RunSettings])
    own_seed = values.get("seed", RunSettings.seed)
    name = own.name or (picked["run"] if trained else name_sibling(picked["run"], run.seed, own_seed))
    return Job(paths, picked["competition"], competition, check_name(name, "--name"), run, own)


def name_sibling(run_name: str, seed: int, own_seed: int) -> str:
    """The name of a run that is trained with `seed`: its own with its YAML's seed, otherwise `<run>-seed<N>`."""
    return run_name if seed == own_seed else f"{run_name}-seed{seed}"


def load_defaults(paths: Paths) -> Defaults:
    """Read configs/default.yaml, and import its plugins: every command does so before it reads other settings.

    Raises: UserError: the file is missing, has an unknown key, or names a plugin that is missing.
    """
    defaults = _load_alone(Defaults, paths.configs / "default.yaml")
    load_plugins(defaults.plugins, paths.root)
    return defaults


TRACKERS = get_args(Defaults.__annotations__["tracker"])
"""The trackers by name."""


def find_tracker(paths: Paths, asked: str) -> str:
    """The tracker of `--tracker`, else of configs/default.yaml. Raises UserError with the nearest name."""
    if asked and asked not in TRACKERS:
        hint = nearest(asked, TRACKERS) or f"; expected {', '.join(TRACKERS)}"
        raise UserError(f"--tracker is {asked!r}{hint}")
    return asked or load_defaults(paths).tracker


def _defaults_for_help() -> Defaults:
    """Those of the workspace, so that the settings of its plugins are listed; none outside of a workspace."""
    try:
        return load_defaults(find_paths())
    except UserError:
        return Defaults("", "", ())


def load_competition(paths: Paths, name: str) -> CompetitionSettings:
    """The settings of configs/competitions/<name>.yaml alone. Raises UserError as `open_job` does."""
    return _load_alone(CompetitionSettings, find_config(paths, "competitions", name))


def change_competition(competition: CompetitionSettings, changes: dict, where: str) -> CompetitionSettings:
    """The settings with those of `changes`, groups of names and values as a YAML has them, in their place.

    Raises: UserError: an unknown setting, a value that cannot be; its message begins with `where`.
    """
    refuse_unknown_keys(Path(where), changes, names_of(CompetitionSettings))
    parser = _empty_parser()
    _add_settings(parser, CompetitionSettings)
    whole = merge(asdict(competition), changes)
    return _build(CompetitionSettings, _parse_object(parser, whole, where), where)


def load_run(paths: Paths, name: str) -> RunSettings:
    """The settings of configs/runs/<name>.yaml alone. Raises UserError as `open_job` does."""
    path = find_config(paths, "runs", name)
    values = load_part(RunSettings, path)
    run = build_run(values, str(path))
    _check_read(run, values, path)
    return run


def build_run(values: dict, where: str) -> RunSettings:
    """A run of nested values, as a YAML has them. Raises UserError, whose message begins with `where`."""
    parser = _empty_parser()
    _add_settings(parser, RunSettings)
    return _build(RunSettings, _parse_object(parser, values, where), where)


def load_teacher(paths: Paths, name: str, flags: Mapping[str, str]) -> TeacherSettings:
    """The settings of configs/teachers/<name>.yaml, changed by flags.

    Args:   flags: name of a setting -> the word behind its flag.
    Raises: UserError: as `open_job` does.
    """
    path, kinds = find_config(paths, "teachers", name), kinds_of(TeacherSettings)
    changes = {key: parse_flag(word, kinds[key]) for key, word in flags.items()}
    if misfits := find_misfits(changes, kinds):
        raise UserError("; ".join(f"--{each}" for each in misfits))
    parser = _empty_parser()
    _add_settings(parser, TeacherSettings)
    return _build(TeacherSettings, _parse_object(parser, load_part(TeacherSettings, path) | changes, path), str(path))


# ---------- Strict YAML: repeated and unknown keys are errors, as are names that would leave their folder.


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
        _check_learner(values, str(path))
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


def _stored_part(path: Path, settings: dict) -> dict:
    """The settings of a fold's record, as `load_part` gives those of a YAML."""
    values = with_new_names(settings)[0]
    _check_learner(values, str(path))
    refuse_unknown_keys(path, values, names_of(RunSettings))
    return values


def parse_yaml(path: Path, kinds: Mapping[str, Any] | None = None) -> dict:
    """A YAML mapping without repeated keys. Raises UserError on anything else.

    Args: kinds: name of a setting -> its type; settings of text are given as they are written, `yes` as "yes".
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, Loader=_StrictLoader)
        if kinds and isinstance(values, dict):
            values = keep_texts(values, yaml.load(text, Loader=yaml.BaseLoader), kinds)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or an impossible date
        raise UserError(f"{path} is not readable YAML: {error}. Fix it, or copy a file of that folder") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `name: value`, found {type(values).__name__}")
    return values


class _StrictLoader(yaml.SafeLoader):
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
            found = type(values[group]).__name__
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


def _check_learner(values: dict, where: str) -> None:
    """An unknown learner is named before its group of settings is called unknown."""
    learner = values.get("learner")
    if isinstance(learner, str) and learner not in LEARNERS:
        hint = nearest(learner, LEARNERS) or f"; expected {', '.join(LEARNERS)}."
        raise UserError(
            f"{where}: learner is {learner!r}, which is not known{hint} If it is a plugin's, add the plugin's module "
            "to `plugins` in configs/default.yaml"
        )


def _check_read(run: RunSettings, given: Iterable[str], path: Path) -> None:
    """Raise UserError if a group was given that the chosen learner does not read: it would have no effect."""
    unread = find_unread_groups(run.learner, given)
    if unread:
        raise UserError(f"{path}: learner {run.learner} does not read {', '.join(unread)}; remove it")


def find_unread_groups(learner: str, given: Iterable[str]) -> list[str]:
    """Which of the given groups of settings a known learner does not read, sorted."""
    groups = {name.split(".")[0] for name in names_of(RunSettings)}
    entry = LEARNERS[learner]
    reads = entry.reads | ({learner} if entry.settings else set())
    return sorted((set(given) & groups) - reads)


# ---------- Flags.


def _build_parser(
    command: str,
    defaults: Defaults,
    add_flags: Callable[[ArgumentParser], None],
    parts: Sequence[type],
    with_help: bool = False,
) -> ArgumentParser:
    parser = _empty_parser(with_help, prog=f"src/{command}", allow_abbrev=False)
    parser.add_argument("--competition", default=defaults.competition, help="a file in configs/competitions/")
    if RunSettings in parts:
        parser.add_argument("--run", default=defaults.run, help="a file in configs/runs/")
        parser.add_argument("--name", default="", help="name of the run in oof/, if not the YAML's")
    add_flags(parser)
    for part in parts:
        _add_settings(parser, part, with_help)
    return parser


def _empty_parser(with_help: bool = False, **options: Any) -> ArgumentParser:
    """Docstrings are read for `--help` alone: parsing the source of every dataclass is half of a command's start."""
    set_parsing_settings(docstring_parse_attribute_docstrings=with_help)
    return ArgumentParser(exit_on_error=False, **options)


def _add_settings(parser: ArgumentParser, part: type, with_help: bool = False) -> None:
    """Add a flag per setting; its help is the docstring below the field, and its range."""
    parser.add_class_arguments(part, skip={each.name for each in fields(part) if rule_of(each).internal})
    for name, settings in _plugin_groups(part).items():
        parser.add_class_arguments(settings, name)
    if not with_help:
        return
    ranges = {name: rule_of(declared).describe() for name, declared, _ in _walk(part)}
    for action in parser._actions:
        if ranges.get(action.dest):
            action.help = f"{action.help}\nExpected: {ranges[action.dest]}."


def _given_flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(name, the words behind it) of every flag; a command's own argument may be among the words."""
    given: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, is_joined, value = word[2:].partition("=")
            given.append((name, [value] if is_joined else []))
        elif given:
            given[-1][1].append(word)
    return given


def _flag(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`, before the full parser can be built; None if it is not given."""
    words = dict(_given_flags(argv)).get(name)
    return None if words is None else words[0] if words else ""


def _or(given: str | None, default: str) -> str:
    """An empty name that was given stays one, and is refused: `--competition "$UNSET"` must not mean the default."""
    return default if given is None else given


def _check_flags(argv: Sequence[str], parser: ArgumentParser) -> None:
    """Raise UserError for unknown flags, and for a flag given twice, of which argparse would keep only the last."""
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    given = _given_flags(argv)
    names = [name for name, _ in given]
    unknown = [f"unknown flag --{name}{_flag_hint(name, known)}" for name in names if name not in known]
    if unknown:
        raise UserError(f"{parser.prog}: " + "; ".join(unknown))
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        values = " and ".join(" ".join([f"--{name}", *words]) for other, words in given if other == name)
        raise UserError(f"{parser.prog}: flag --{name} is given twice: {values}; give it once")


def _plain_flags(argv: Sequence[str], kinds: Mapping[str, Any], command: str) -> list[str]:
    """The flags with lists and mappings as the parser reads them; texts in them keep their spelling.

    Raises: UserError: a value of another kind, in plain words.
    """
    plain, misfits = list(argv), []
    for name, words in _given_flags(argv):
        if name not in kinds or not words:
            continue
        kind, value = kinds[name], parse_flag(words[0], kinds[name])
        if len(words) > 1 and is_structured(kind):
            misfits.append(f"--{name} has {len(words)} words; expected one: --{name} '[{', '.join(words)}]'")
        elif value is not None and not fits(value, kind):
            misfits.append(f"--{describe_misfit(name, value, kind)}")
        elif is_structured(kind):
            joined = f"--{name}={words[0]}"
            at, prefix = (plain.index(joined), f"--{name}=") if joined in plain else (plain.index(f"--{name}") + 1, "")
            plain[at] = prefix + json.dumps(value)
    if misfits:
        raise UserError(f"{command}: {'; '.join(misfits)}")
    return plain


def _in_plain_words(error: ArgumentError) -> str:
    """The parser's message without Python's names of types."""
    said = re.sub(r"<class '(\w+\.)*(\w+)'>", r"\2", str(error))
    said = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", said)
    return said.replace("typing.", "").replace("NoneType", "nothing")


def _flag_hint(name: str, known: Iterable[str]) -> str:
    return f"; it is now --{RENAMED[name]}" if name in RENAMED else nearest_setting(name, known, "--{}".format)


# ---------- Building the dataclasses.


def names_of(part: type) -> set[str]:
    """Dotted names of all settings of a dataclass and of its groups; of a run, those of plugins too."""
    return {name for name, _, _ in _walk(part)}


def kinds_of(part: type) -> dict[str, Any]:
    """Dotted name of each setting -> its type, without groups."""
    return {name: kind for name, _, kind in _walk(part) if not (isinstance(kind, type) and is_dataclass(kind))}


def _walk(part: type) -> list[tuple[str, Any, Any]]:
    """`walk_settings`, continued by the groups of plugins' learners."""
    found = list(walk_settings(part))
    for name, settings in _plugin_groups(part).items():
        found += [(name, fields(part)[0], settings), *walk_settings(settings, f"{name}.")]
    return found


def _plugin_groups(part: type) -> dict[str, type]:
    """Groups that belong to a run because a plugin's learner has settings of its own."""
    if part is not RunSettings:
        return {}
    return {name: entry.settings for name, entry in LEARNERS.items() if entry.settings is not None}


def _load_alone(part: type[Settings], path: Path) -> Settings:
    parser = _empty_parser()
    _add_settings(parser, part)
    return _build(part, _parse_object(parser, load_part(part, path), path), str(path))


def _parse_object(parser: ArgumentParser, values: dict, path: Path | str) -> Namespace:
    try:
        return parser.parse_object(values)
    except ArgumentError as error:
        said = _in_plain_words(error).replace(
            "the following arguments are required:", "must be set, as they have no default:"
        )
        said += "" if "xpected" in said or "must be" in said else "; expected a value as src/train.py --help says"
        raise UserError(f"{path}: {said}") from error


def _build(part: type[Settings], flags: Namespace, where: str) -> Settings:
    """Turn nested namespaces into the frozen dataclass, which checks itself when it is made."""
    try:
        extra: dict[str, Any] = {}
        if part is RunSettings and (entry := LEARNERS.get(flags["learner"])) and entry.settings:
            extra["plugin"] = _as_dataclass(entry.settings, flags[flags["learner"]])
        return _as_dataclass(part, flags, extra)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _as_dataclass(part: type[Settings], flags: Namespace, extra: dict | None = None) -> Settings:
    values = dict(extra or {})
    for name, _, kind in walk_settings(part):
        if "." not in name:
            value = flags[name]  # by key: a setting may have the name of a method of the namespace
            if value is None:  # the parser accepts an empty value for any type
                raise UserError(f"{name} is empty; expected a value, or no such line for the default")
            is_group = isinstance(kind, type) and is_dataclass(kind)
            if get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):  # a list of groups
                value = tuple(get_args(kind)[0](**vars(each)) for each in value)
            values[name] = _as_dataclass(kind, value) if is_group else value
    return part(**values)


# ---------- Runs of older releases, and runs out of records.


def run_from_settings(settings: dict, where: str) -> RunSettings:
    """The reverse of `settings_of`, for values that come from a file. Raises UserError; `where` begins its message."""
    settings = with_new_names(settings)[0]
    _check_learner(settings, where)
    older = {group: values for group, values in BEFORE_IT_EXISTED.items() if group in settings}
    settings = merge(older, settings)
    refuse_unknown_keys(Path(where), settings, names_of(RunSettings))
    return build_run(settings, where)


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
