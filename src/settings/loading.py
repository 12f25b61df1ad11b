"""YAML and flags become frozen settings; a key that nothing reads, or of the wrong type, dies here by name."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from settings.competition import CompetitionSettings
from settings.hiding import hide_keys
from settings.places import Places, find_places
from settings.run import READ_BY, RunSettings
from settings.strict import check_name, nearest, parse_yaml, refuse_unknown_keys


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

    places: Places
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
    places = find_places()
    defaults = load_defaults(places)
    parts = (RunSettings, CompetitionSettings) if with_run else (CompetitionSettings,)
    parser = _build_parser(door, defaults, add_flags, parts)
    if not {"-h", "--help"} & set(argv):
        _refuse_unknown_flags(argv, parser)
    picked = {"competition": _flag(argv, "competition") or defaults.competition}
    paths = {CompetitionSettings: find_config(places, "competitions", picked["competition"])}
    if with_run:
        picked["run"] = _flag(argv, "run") or defaults.run
        paths[RunSettings] = find_config(places, "runs", picked["run"])
    values = dict(picked)
    for part, path in paths.items():
        values |= load_part(part, path)
    given = _parse_object(parser, values, ", ".join(map(str, paths.values())))
    try:
        flags = parser.parse_args(argv, namespace=given, defaults=False)
    except ArgumentError as error:
        raise ValueError(f"src/{door}: {error}") from error
    own = Namespace({k: v for k, v in vars(flags).items() if not any(k in _names(part) for part in parts)})
    competition = _build(CompetitionSettings, flags, f"competition {picked['competition']}")
    if not with_run:
        return Job(places, picked["competition"], competition, "", None, own)
    run = _build(RunSettings, flags, f"run {picked['run']}")
    _refuse_unread(run, values, argv, paths[RunSettings])
    name = own.name or name_sibling(picked["run"], run.seed, values.get("seed", RunSettings.seed))
    return Job(places, picked["competition"], competition, check_name(name, "--name"), run, own)


def name_sibling(run_name: str, seed: int, own_seed: int) -> str:
    """The name of a run under `seed`: its own with the seed that its YAML has, else `<run>-seed<N>`."""
    return run_name if seed == own_seed else f"{run_name}-seed{seed}"


def load_defaults(places: Places) -> Defaults:
    """Read configs/default.yaml. Raises ValueError on a missing file or an unknown key."""
    path = places.configs / "default.yaml"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Defaults)
    values = parse_yaml(path)
    refuse_unknown_keys(path, values, _names(Defaults))
    return _build(Defaults, _parse_object(parser, values, path), str(path))


def load_competition(places: Places, name: str) -> CompetitionSettings:
    """The settings of configs/competitions/<name>.yaml alone. Raises ValueError as `open_job` does."""
    return _load_alone(CompetitionSettings, find_config(places, "competitions", name))


def load_run(places: Places, name: str) -> RunSettings:
    """The settings of configs/runs/<name>.yaml alone. Raises ValueError as `open_job` does."""
    path = find_config(places, "runs", name)
    run = _load_alone(RunSettings, path)
    _refuse_unread(run, parse_yaml(path), [], path)
    return run


def run_from_settings(settings: dict, where: str) -> RunSettings:
    """The reverse of `settings_of`, of values that come from a file. Raises ValueError, beginning with `where`."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunSettings)
    refuse_unknown_keys(Path(where), settings, _names(RunSettings))
    return _build(RunSettings, _parse_object(parser, settings, where), where)


def default_settings_of(run: RunSettings) -> dict:
    """What `settings_of` gives for a run that sets nothing but its learner: an older record's missing settings."""
    return settings_of(RunSettings(run.learner))


def settings_of(run: RunSettings) -> dict:
    """The settings the run's learner reads, as plain nested dicts: what a fold's record stores and is compared by."""
    return {name: value for name, value in asdict(run).items() if name in READ_BY[run.learner]}


def guard(main: Callable[[], None]) -> int:
    """Run a door; an error of files or settings becomes one message on stderr and exit status 2, Ctrl-C 130.

    An error with an `exit_status` of its own ends with that one.
    `FOLDBLEND_TRACEBACK=1` shows where it was raised.
    """
    try:
        main()
    except (ValueError, OSError) as error:
        if os.environ.get("FOLDBLEND_TRACEBACK"):
            print(hide_keys(traceback.format_exc()), file=sys.stderr)
        print(f"error: {hide_keys(str(error))}", file=sys.stderr)
        return getattr(error, "exit_status", 2)
    except KeyboardInterrupt:
        print("stopped; what was finished is whole, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def find_config(places: Places, folder: str, name: str) -> Path:
    """configs/<folder>/<name>.yaml. Raises ValueError with the nearest existing name."""
    check_name(name, f"the name of a file in configs/{folder}")
    path = places.configs / folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        there = f"There are: {', '.join(known)}"
        raise ValueError(f"configs/{folder}/{name}.yaml is missing{nearest(name, known)} {there}")
    return path


def load_part(part: type, path: Path) -> dict:
    """One YAML as a dict whose every key is a field of `part`. Raises ValueError naming the nearest field."""
    values = parse_yaml(path)
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
        raise ValueError(f"{path}: {said}") from error


def _build(part: type, flags: Namespace, where: str):
    """Nested namespaces become the frozen dataclass, which refuses conflicts as it is made."""
    try:
        return _as_dataclass(part, flags)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _as_dataclass(part: type, flags: Namespace):
    values = {}
    for field in fields(part):
        value = flags[field.name]  # by key: a setting may be called like a method of the namespace
        if value is None:  # the parser takes an empty value for any type
            raise ValueError(f"{field.name} is empty; expected a value, or the line taken out for the default")
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
    unknown = [f"unknown flag --{name}{nearest(name, known)}" for name in given if name not in known]
    if unknown:
        raise ValueError(f"{parser.prog}: " + "; ".join(unknown))


def _refuse_unread(run: RunSettings, values: dict, argv: list[str], path: Path) -> None:
    """A setting that the chosen learner never reads would be a silent no-op."""
    groups = {field.name for field in fields(RunSettings)}
    given = set(values) | {flag[2:].split("=", 1)[0].split(".")[0] for flag in argv if flag.startswith("--")}
    unread = sorted((given & groups) - READ_BY[run.learner])
    if unread:
        raise ValueError(f"{path}: learner {run.learner} does not read {', '.join(unread)}; take it out")
