"""From YAML files and flags to frozen settings: strict reading, flags, building.

An unknown key or flag, a wrong type and a value that cannot work are errors here, before anything else runs.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from foldblend.errors import UserError, nearest
from foldblend.plugins import load_plugins
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.fields import (
    describe_misfit,
    find_misfits,
    fits,
    is_structured,
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
from foldblend.settings.yaml_files import (
    check_learner,
    check_name,
    find_config,
    find_unread_groups,
    kinds_of,
    list_configs,
    load_part,
    names_of,
    plugin_groups,
    refuse_unknown_keys,
    stored_part,
    walk_all,
)

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
    groups = tuple((name, settings) for part in parts for name, settings in plugin_groups(part).items())
    parser = _parser_of_command(command, defaults, add_flags, parts, groups)
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
        values |= stored_part(*trained) if trained and is_record else load_part(part, path)
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
    return _build_alone(CompetitionSettings, merge(asdict(competition), changes), where)


def load_run(paths: Paths, name: str) -> RunSettings:
    """The settings of configs/runs/<name>.yaml alone. Raises UserError as `open_job` does."""
    path = find_config(paths, "runs", name)
    values = load_part(RunSettings, path)
    run = build_run(values, str(path))
    _check_read(run, values, path)
    return run


def build_run(values: dict, where: str) -> RunSettings:
    """A run of nested values, as a YAML has them. Raises UserError, whose message begins with `where`."""
    return _build_alone(RunSettings, values, where)


def load_teacher(paths: Paths, name: str, flags: Mapping[str, str]) -> TeacherSettings:
    """The settings of configs/teachers/<name>.yaml, changed by flags.

    Args:   flags: name of a setting -> the word behind its flag.
    Raises: UserError: as `open_job` does.
    """
    path, kinds = find_config(paths, "teachers", name), kinds_of(TeacherSettings)
    changes = {key: parse_flag(word, kinds[key]) for key, word in flags.items()}
    if misfits := find_misfits(changes, kinds):
        raise UserError("; ".join(f"--{each}" for each in misfits))
    return _build_alone(TeacherSettings, load_part(TeacherSettings, path) | changes, str(path))


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


@lru_cache(maxsize=16)
def _parser_of_command(
    command: str,
    defaults: Defaults,
    add_flags: Callable[[ArgumentParser], None],
    parts: tuple[type, ...],
    groups: tuple[tuple[str, type], ...],
) -> ArgumentParser:
    """Making a parser takes longer than using it, and it is the same until a plugin adds one of the `groups`."""
    return _build_parser(command, defaults, add_flags, parts)


def _empty_parser(with_help: bool = False, **options: Any) -> ArgumentParser:
    """Docstrings are read for `--help` alone: parsing the source of every dataclass is half of a command's start."""
    set_parsing_settings(docstring_parse_attribute_docstrings=with_help)
    return ArgumentParser(exit_on_error=False, **options)


def _add_settings(parser: ArgumentParser, part: type, with_help: bool = False) -> None:
    """Add a flag per setting; its help is the docstring below the field, and its range."""
    parser.add_class_arguments(part, skip={each.name for each in fields(part) if rule_of(each).internal})
    for name, settings in plugin_groups(part).items():
        parser.add_class_arguments(settings, name)
    if not with_help:
        return
    ranges = {name: rule_of(declared).describe() for name, declared, _ in walk_all(part)}
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


def _check_read(run: RunSettings, given: Iterable[str], path: Path) -> None:
    """Raise UserError if a group was given that the chosen learner does not read: it would have no effect."""
    unread = find_unread_groups(run.learner, given)
    if unread:
        raise UserError(f"{path}: learner {run.learner} does not read {', '.join(unread)}; remove it")


def _load_alone(part: type[Settings], path: Path) -> Settings:
    return _build_alone(part, load_part(part, path), str(path))


def _build_alone(part: type[Settings], values: dict, where: str) -> Settings:
    parser = _parser_of(part, tuple(plugin_groups(part).items()))  # type: ignore[arg-type]  # classes are hashable
    return _build(part, _parse_object(parser, values, where), where)


@lru_cache(maxsize=16)
def _parser_of(part: type, groups: tuple[tuple[str, type], ...]) -> ArgumentParser:
    """As `_parser_of_command`."""
    parser = _empty_parser()
    _add_settings(parser, part)
    return parser


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
    check_learner(settings, where)
    older = {group: values for group, values in BEFORE_IT_EXISTED.items() if group in settings}
    settings = merge(older, settings)
    refuse_unknown_keys(Path(where), settings, names_of(RunSettings))
    return build_run(settings, where)
