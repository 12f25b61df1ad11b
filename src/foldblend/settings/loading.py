"""YAML and flags become frozen settings; a key that nothing reads, or of the wrong type, dies here by name."""

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from foldblend.errors import UserError
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.paths import Paths, find_paths
from foldblend.settings.run import READ_BY, RunSettings

# ---------- Strict reading: doubled or unknown keys, and names that would leave their folder, are refused.


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str, what: str) -> str:
    """A name that becomes a folder. Raises ValueError where it could leave its parent or break a command line."""
    if not NAME.fullmatch(name):
        raise UserError(f"{what} is {name!r}; expected letters, digits, `.`, `_`, `-`; a letter or digit first")
    return name


def parse_yaml(path: Path) -> dict:
    """A YAML mapping without doubled keys. Raises ValueError on anything else."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: other bytes, a date that is none
        raise UserError(f"{path} is not readable YAML: {error}. Mend it, or set out from one beside it") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `name: value`, found {type(values).__name__}")
    return values


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys; this one refuses, and a few aliases can stand for gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name); expected the value itself", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = sorted({str(key) for key in keys if keys.count(key) > 1})
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(doubled)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def refuse_unknown_keys(path: Path, values: dict, known: set[str]) -> None:
    """Raise ValueError for every dotted key of `values` that is not in `known`, and a group that is no mapping."""
    leaves = {key for key in known if not any(name.startswith(f"{key}.") for name in known)}
    for group in sorted((known - leaves) & values.keys()):
        if not isinstance(values[group], dict):
            found = type(values[group]).__name__
            raise UserError(
                f"{path}: {group} holds settings of its own; expected `name: value` below it, found {found}"
            )
    there = f"; expected {', '.join(sorted({key.split('.')[0] for key in known}))}"
    unknown = [
        f"unknown setting {key!r}{nearest(key, known) or there}" for key in _dotted(values, leaves) if key not in known
    ]
    if unknown:
        raise UserError(f"{path}: " + "; ".join(unknown))


def nearest(name: str, known) -> str:
    """`; did you mean 'epochs'?`, or nothing where no known name is near. A name in the wrong group is found too."""
    known, name = sorted(known), str(name)
    by_leaf = {full.rsplit(".", 1)[-1]: full for full in reversed(known)}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    leaf = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
    best = close[0] if close else by_leaf[leaf[0]] if leaf else ""
    return f"; did you mean {best!r}?" if best else ""


def _dotted(values: dict, leaves: set[str], prefix: str = "") -> list[str]:
    """Dotted keys; a setting in `leaves` may hold a mapping, whose keys are the user's own."""
    keys = []
    for key, value in values.items():
        goes_on = isinstance(value, dict) and value and f"{prefix}{key}" not in leaves
        keys += _dotted(value, leaves, f"{prefix}{key}.") if goes_on else [f"{prefix}{key}"]
    return keys


def describe_differences(stored: dict, now: dict) -> list[str]:
    """`optimizer.lr was 5e-05, is now 3e-05` for each leaf on which two nested dicts of plain values disagree."""
    missing = "not there"
    was, is_now = _leaves(stored), _leaves(now)
    return [
        f"{key} was {was.get(key, missing)}, is now {is_now.get(key, missing)}"
        for key in sorted(was.keys() | is_now.keys())
        if was.get(key, missing) != is_now.get(key, missing)
    ]


def changed_settings(run: RunSettings) -> list[str]:
    """`training.epochs 3` for each setting that the run's learner reads and that differs from its default."""
    now, default = _leaves(settings_of(run)), _leaves(default_settings_of(run))
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in now.items()}
    return [f"{key} {shown[key]}" for key in now if now[key] != default[key]]


def _leaves(values: dict, prefix: str = "") -> dict:
    leaves = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return leaves


# ---------- YAML and flags become frozen settings; a key that nothing reads, or of the wrong type, dies here by name.


@dataclass(frozen=True)
class Defaults:
    """What a bare command means; configs/default.yaml."""

    competition: str
    """A file in configs/competitions/, without .yaml."""
    run: str
    """The run that a bare train.py trains."""
    runs: tuple[str, ...]
    """The runs that run.sh trains and blends."""


@dataclass(frozen=True)
class Job:
    """One door's settings, resolved. `run` is None for doors that train nothing; `own` holds the door's own flags."""

    paths: Paths
    competition_name: str
    competition: CompetitionSettings
    run_name: str
    run: RunSettings | None
    own: Namespace


def open_job(
    door: str, argv: Sequence[str] | None, add_flags: Callable[[ArgumentParser], None], with_run: bool = False
) -> Job:
    """Resolve configs/default.yaml, the competition's YAML, the run's YAML and the flags, in rising priority.

    Args:   door: the command's file name, for messages.   argv: flags, None for the process's own.
            add_flags: adds the door's own flags to the parser.
            with_run: whether the door takes `--run` and its settings.
    Raises: ValueError: an unknown key or flag (with the nearest right one), a wrong type, a conflict.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parts = (RunSettings, CompetitionSettings) if with_run else (CompetitionSettings,)
    if {"-h", "--help"} & set(argv):  # an installed package explains itself outside of a workspace, too
        _build_parser(door, Defaults("", "", ()), add_flags, parts).parse_args(["--help"])
    paths = find_paths()
    defaults = load_defaults(paths)
    parser = _build_parser(door, defaults, add_flags, parts)
    _refuse_unknown_flags(argv, parser)
    picked = {"competition": _flag(argv, "competition") or defaults.competition}
    yamls = {CompetitionSettings: find_config(paths, "competitions", picked["competition"])}
    if with_run:
        picked["run"] = _flag(argv, "run") or defaults.run
        yamls[RunSettings] = find_config(paths, "runs", picked["run"])
    values = dict(picked)
    for part, path in yamls.items():
        values |= load_part(part, path)
    given = _parse_object(parser, values, ", ".join(map(str, yamls.values())))
    try:
        flags = parser.parse_args(argv, namespace=given, defaults=False)
    except ArgumentError as error:
        raise UserError(f"src/{door}: {error}") from error
    own = Namespace({k: v for k, v in vars(flags).items() if not any(k in _names(part) for part in parts)})
    competition = _build(CompetitionSettings, flags, f"competition {picked['competition']}")
    if not with_run:
        return Job(paths, picked["competition"], competition, "", None, own)
    run = _build(RunSettings, flags, f"run {picked['run']}")
    _refuse_unread(run, values, argv, yamls[RunSettings])
    name = own.name or name_sibling(picked["run"], run.seed, values.get("seed", RunSettings.seed))
    return Job(paths, picked["competition"], competition, check_name(name, "--name"), run, own)


def name_sibling(run_name: str, seed: int, own_seed: int) -> str:
    """The name of a run under `seed`: its own with the seed that its YAML has, else `<run>-seed<N>`."""
    return run_name if seed == own_seed else f"{run_name}-seed{seed}"


def load_defaults(paths: Paths) -> Defaults:
    """Read configs/default.yaml. Raises ValueError on a missing file or an unknown key."""
    path = paths.configs / "default.yaml"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Defaults)
    values = parse_yaml(path)
    refuse_unknown_keys(path, values, _names(Defaults))
    return _build(Defaults, _parse_object(parser, values, path), str(path))


def load_competition(paths: Paths, name: str) -> CompetitionSettings:
    """The settings of configs/competitions/<name>.yaml alone. Raises ValueError as `open_job` does."""
    return _load_alone(CompetitionSettings, find_config(paths, "competitions", name))


def load_run(paths: Paths, name: str) -> RunSettings:
    """The settings of configs/runs/<name>.yaml alone. Raises ValueError as `open_job` does."""
    path = find_config(paths, "runs", name)
    run = _load_alone(RunSettings, path)
    _refuse_unread(run, parse_yaml(path), [], path)
    return run


def run_from_settings(settings: dict, where: str) -> RunSettings:
    """The reverse of `settings_of`, of values that come from a file. Raises ValueError, beginning with `where`."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunSettings)
    settings = with_new_names(settings)[0]
    refuse_unknown_keys(Path(where), settings, _names(RunSettings))
    return _build(RunSettings, _parse_object(parser, settings, where), where)


def default_settings_of(run: RunSettings) -> dict:
    """What `settings_of` gives for a run that sets nothing but its learner: an older record's missing settings."""
    return settings_of(RunSettings(run.learner))


def settings_of(run: RunSettings) -> dict:
    """The settings the run's learner reads, as plain nested dicts: what a fold's record stores and is compared by."""
    return {name: value for name, value in asdict(run).items() if name in READ_BY[run.learner]}


def find_config(paths: Paths, folder: str, name: str) -> Path:
    """configs/<folder>/<name>.yaml. Raises ValueError with the nearest existing name."""
    check_name(name, f"the name of a file in configs/{folder}")
    path = paths.configs / folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        there = f"There are: {', '.join(known)}"
        raise UserError(f"configs/{folder}/{name}.yaml is missing{nearest(name, known)} {there}")
    return path


def load_part(part: type, path: Path) -> dict:
    """One YAML as a dict whose every key is a field of `part`. Raises ValueError naming the nearest field."""
    values = parse_yaml(path)
    if part is RunSettings:
        try:
            values, replaced = with_new_names(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if replaced:
            names = ", ".join(f"{old} to {new}" for old, new in replaced.items())
            _warn_once(f"{path} has old names, which are still read; rename {names}")
    refuse_unknown_keys(path, values, _names(part))
    return values


def _build_parser(door, defaults, add_flags, parts) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog=f"src/{door}", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--competition", default=defaults.competition, help="a file in configs/competitions/")
    if RunSettings in parts:
        parser.add_argument("--run", default=defaults.run, help="a file in configs/runs/")
        parser.add_argument("--name", default="", help="name of the run in oof/, where it is not the YAML's")
    add_flags(parser)
    for part in parts:
        parser.add_class_arguments(part)
    return parser


def _load_alone(part: type, path: Path):
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(part)
    return _build(part, _parse_object(parser, load_part(part, path), path), str(path))


def _parse_object(parser, values, path):
    try:
        return parser.parse_object(values)
    except ArgumentError as error:
        said = str(error).replace("the following arguments are required:", "must be set, as they have no default:")
        said += "" if "xpected" in said or "must be" in said else "; expected a value as src/train.py --help says"
        raise UserError(f"{path}: {said}") from error


def _build(part: type, flags: Namespace, where: str):
    """Nested namespaces become the frozen dataclass, which refuses conflicts as it is made."""
    try:
        return _as_dataclass(part, flags)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _as_dataclass(part: type, flags: Namespace):
    values = {}
    for field in fields(part):
        value = flags[field.name]  # by key: a setting may be called like a method of the namespace
        if value is None:  # the parser takes an empty value for any type
            raise UserError(f"{field.name} is empty; expected a value, or the line taken out for the default")
        values[field.name] = _as_dataclass(field.type, value) if is_dataclass(field.type) else value
    return part(**values)


def _names(part: type, prefix: str = "") -> set[str]:
    """Dotted names of all settings of a dataclass, its groups included."""
    names = set()
    for field in fields(part):
        names.add(prefix + field.name)
        if is_dataclass(field.type):
            names |= _names(field.type, f"{prefix}{field.name}.")
    return names


def _flag(argv: list[str], name: str) -> str:
    """The value of `--name VALUE` or `--name=VALUE`, before the full parser can be built."""
    for here, following in zip(argv, [*argv[1:], ""]):
        if here == f"--{name}":
            return following
        if here.startswith(f"--{name}="):
            return here.split("=", 1)[1]
    return ""


def _refuse_unknown_flags(argv: list[str], parser: ArgumentParser) -> None:
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    given = [flag[2:].split("=", 1)[0] for flag in argv if flag.startswith("--") and len(flag) > 2]
    hint = lambda name: f"; it is now --{RENAMED[name]}" if name in RENAMED else nearest(name, known)  # noqa: E731
    unknown = [f"unknown flag --{name}{hint(name)}" for name in given if name not in known]
    if unknown:
        raise UserError(f"{parser.prog}: " + "; ".join(unknown))


def _refuse_unread(run: RunSettings, values: dict, argv: list[str], path: Path) -> None:
    """A setting that the chosen learner never reads would be a silent no-op."""
    groups = {field.name for field in fields(RunSettings)}
    given = set(values) | {flag[2:].split("=", 1)[0].split(".")[0] for flag in argv if flag.startswith("--")}
    unread = sorted((given & groups) - READ_BY[run.learner])
    if unread:
        raise UserError(f"{path}: learner {run.learner} does not read {', '.join(unread)}; take it out")


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


@cache
def _warn_once(line: str) -> None:
    """One line on stderr, by the first process of a launch alone."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {line}", file=sys.stderr)


def with_defaults(stored: dict) -> dict:
    """Stored settings of a run as this version would store them: new names, and the defaults of newer settings."""
    if stored.get("learner") not in READ_BY:
        return stored
    defaults = default_settings_of(RunSettings(stored["learner"]))
    return merge(json.loads(json.dumps(defaults)), with_new_names(stored)[0])


def merge(defaults: dict, values: dict) -> dict:
    """`values`, completed from `defaults` in nested dicts too."""
    merged = defaults | values
    for key in defaults.keys() & values.keys():
        if isinstance(defaults[key], dict) and isinstance(values[key], dict):
            merged[key] = merge(defaults[key], values[key])
    return merged
