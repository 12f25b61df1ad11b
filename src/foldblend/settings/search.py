"""What a search may change: one YAML in configs/search/, each range checked against what its setting can be."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal

from foldblend.errors import UserError, nearest
from foldblend.settings.fields import (
    describe_misfit,
    find_misfits,
    find_problems,
    fits,
    nearest_setting,
    setting,
    walk_settings,
)
from foldblend.settings.loading import load_run
from foldblend.settings.paths import Paths
from foldblend.settings.run import RunSettings
from foldblend.settings.yaml_files import find_unread_groups, kinds_of, list_configs, parse_yaml, refuse_unknown_keys


@dataclass(frozen=True)
class SearchSettings:
    """One search over the settings of a run: docs/tuning.md. The ranges are below `space`."""

    run: str = "minilm"
    """The base run: a file in configs/runs/, without .yaml. What the search does not change is as it is there."""
    folds: tuple[int, ...] = (0, 1)
    """The folds that every trial trains and is scored on. At least one fold must be left for the check at the end."""
    fidelity: float = setting(1.0, more_than=0, at_most=1)
    """Share of each fold's training rows that a trial learns from; all held-out rows are scored. The check at the end
    uses all rows."""
    trials: int = setting(30, at_least=1)
    """Number of trials, over all processes that share the study."""
    hours: float = setting(0.0, at_least=0)
    """No trial starts after this time, counted from the start of each process; 0 is no limit."""
    seed: int = setting(0, at_least=0)
    """Seed of the search; one process alone repeats a study exactly."""
    random_trials: int = setting(10, at_least=1)
    """The first trials are drawn at random, before TPE learns from them."""
    pruner: Literal["median", "none"] = "median"
    """`median`: a trial is stopped if a held-out score while it trains, or of its first fold, is below the median of
    the other trials at the same point."""
    noise_seeds: int = setting(3, at_least=2)
    """The base run is trained with this many seeds on the same folds first: their spread is the noise."""
    confirm_folds: tuple[int, ...] = ()
    """Folds of the check at the end; empty is the first one that the search does not use."""
    confirm_seeds: int = setting(3, at_least=1)
    """Seeds of the check at the end: the best settings and the base run are trained with each, on all rows."""

    def __post_init__(self) -> None:
        problems = list(find_problems(self))
        problems += ["folds is empty; expected a list, as [0, 1]"] if not self.folds else []
        for name in ("folds", "confirm_folds"):
            numbers = getattr(self, name)
            if len(set(numbers)) < len(numbers) or any(number < 0 for number in numbers):
                problems.append(f"{name} is {list(numbers)}; expected different numbers, 0 or more")
        both = sorted(set(self.folds) & set(self.confirm_folds))
        if both:
            problems.append(
                f"confirm_folds has fold {both[0]}, which the search uses, too; its scores would be too good"
            )
        if problems:
            raise UserError("; ".join(problems))

    def check_folds(self, n_folds: int) -> tuple[int, ...]:
        """The folds of the check at the end. Raises UserError: a fold that the competition lacks, or none is left."""
        unknown = [fold for fold in (*self.folds, *self.confirm_folds) if fold >= n_folds]
        if unknown:
            raise UserError(f"the search names fold {unknown[0]}; the competition has folds 0 to {n_folds - 1}")
        left = [fold for fold in range(n_folds) if fold not in self.folds]
        if not left:
            raise UserError(
                f"folds is {list(self.folds)}, all folds of the competition: none is left to check the best settings "
                "on. Remove one"
            )
        return self.confirm_folds or (left[0],)


Value = str | int | float | bool | tuple
"""What a setting can be."""


@dataclass(frozen=True)
class Parameter:
    """One setting that the search changes."""

    name: str
    """Dotted, as optimizer.lr."""
    low: float | None = None
    """Smallest and largest value of a number; None if there are `choices`."""
    high: float | None = None
    step: float | None = None
    """Distance of the values; None is any."""
    log: bool = False
    """Whether small values are tried as often as large ones, as for learning rates."""
    is_whole: bool = False
    choices: tuple[Value, ...] = ()
    only_with: Mapping[str, tuple[Value, ...]] | None = None
    """Other settings of the search, and their values with which this one is tried."""

    def is_tried_with(self, values: Mapping[str, Value]) -> bool:
        """Whether the values of the parameters before this one ask for it."""
        return all(values.get(name) in allowed for name, allowed in (self.only_with or {}).items())

    def holds(self, value: Any) -> bool:
        """Whether a value is in the range."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None
        return isinstance(value, int | float) and self.low <= value <= self.high

    def edges(self) -> tuple[Value, ...]:
        """Values that must be allowed if the range is."""
        assert self.choices or (self.low is not None and self.high is not None)
        return self.choices or tuple(int(edge) if self.is_whole else edge for edge in (self.low or 0, self.high or 0))


@dataclass(frozen=True)
class Search:
    """A search as it was read, with its base run."""

    name: str
    """Of the file, without .yaml."""
    settings: SearchSettings
    base: RunSettings
    space: tuple[Parameter, ...]
    """A parameter stands after those that its `only_with` names."""

    def run_with(self, values: Mapping[str, Value], seed: int | None = None) -> RunSettings:
        """The base run with other values. Raises UserError if they contradict each other."""
        return with_values(self.base, {**values, **({} if seed is None else {"seed": seed})})

    def values_of(self, run: RunSettings) -> dict[str, Value]:
        """The values that a run has of the parameters that would be tried."""
        values: dict[str, Value] = {}
        for parameter in self.space:
            if parameter.is_tried_with(values):
                values[parameter.name] = value_of(run, parameter.name)
        return values


def with_values(run: RunSettings, values: Mapping[str, Value]) -> RunSettings:
    """A run with other values of settings by their dotted names. Raises UserError if they contradict each other."""
    changes: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    grouped: dict[str, dict] = {}
    for name, value in values.items():
        if "." in name:
            group, leaf = name.split(".", 1)
            grouped.setdefault("plugin" if not hasattr(run, group) else group, {})[leaf] = value
    changes |= {group: replace(getattr(run, group), **leaves) for group, leaves in grouped.items()}
    return replace(run, **changes)


def value_of(run: RunSettings, name: str) -> Value:
    """A setting by its dotted name."""
    group, _, leaf = name.rpartition(".")
    owner = run if not group else getattr(run, group) if hasattr(run, group) else run.plugin
    return getattr(owner, leaf)


# ---------- The file.


RANGE_KEYS = {"low": float, "high": float, "step": float, "log": bool, "choices": tuple, "only_with": dict}
N_TRIED = 300
"""So many random combinations are built before a search starts: none may be one that a run refuses."""


def load_search(paths: Paths, name: str) -> Search:
    """The search of configs/search/<name>.yaml, or of a file by its path.

    Raises: UserError: no such file; an unknown key or setting, with the nearest one; a range outside of what the
            setting can be; a combination that a run refuses.
    """
    path = find_search(paths, name)
    run_kinds = kinds_of(RunSettings)
    kinds = {declared: kind for declared, _, kind in walk_settings(SearchSettings)}
    values = parse_yaml(path, {**kinds, **_kinds_in_space(run_kinds)})
    space = values.pop("space", None)
    refuse_unknown_keys(path, values, set(kinds), {"space"})
    misfits = find_misfits(values, kinds)
    if misfits:
        raise UserError(f"{path}: {'; '.join(misfits)}")
    empty = [key for key, value in values.items() if value is None]
    if empty:
        raise UserError(f"{path}: {empty[0]} is empty; expected a value, or no such line for the default")
    try:
        settings = SearchSettings(**{key: _as_kind(value, kinds[key]) for key, value in values.items()})
        base = load_run(paths, settings.run)
        parameters = order_space([_read_parameter(key, value, base) for key, value in _entries(space)])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    search = Search(path.stem, settings, base, parameters)
    _check_combinations(path, search)
    return search


def find_search(paths: Paths, name: str) -> Path:
    """The file that `--search` names: a path, or a name in configs/search/. Raises UserError with the nearest name."""
    if Path(name).is_file():
        return Path(name)
    if not name:
        known = ", ".join(path.stem for path in list_configs(paths, "search")) or "none yet"
        raise UserError(f"--search names no file; expected configs/search/NAME.yaml. There are: {known}")
    known_names = [path.stem for path in list_configs(paths, "search")]
    stem = Path(name).name.removesuffix(".yaml")
    path = paths.configs / "search" / f"{stem}.yaml"
    if stem in known_names and Path(name).parent.name in ("", "search"):
        return path
    hint = nearest(stem, known_names) or "."
    raise UserError(f"--search {name}: no such file{hint} There are: {', '.join(known_names) or 'none yet'}")


def _kinds_in_space(run_kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Texts among the values of a range are read as they are written, as those of a run's YAML."""
    kinds: dict[str, Any] = {
        f"space.{name}.choices": GenericAlias(tuple, (kind, ...)) for name, kind in run_kinds.items()
    }
    for name in run_kinds:
        for other, kind in run_kinds.items():
            kinds[f"space.{name}.only_with.{other}"] = kind
    return kinds


def _as_kind(value: Any, kind: Any) -> Any:
    """A checked value: numbers may be written as text (PyYAML reads 1e-5 so), lists become tuples."""
    if kind in (int, float):
        return kind(value)
    return tuple(int(each) for each in value) if isinstance(value, list) else value


def _entries(space: Any) -> list[tuple[str, dict]]:
    if not isinstance(space, dict) or not space:
        raise UserError("space is empty; expected settings and ranges, as `optimizer.lr: {low: 1e-5, high: 1e-4}`")
    return list(space.items())


def _read_parameter(name: str, entry: Any, base: RunSettings) -> Parameter:
    """One line of `space`, checked against the setting that it names."""
    kinds = kinds_of(RunSettings)
    if name not in kinds:
        inside = [other for other in kinds if other.startswith(f"{name}.")]
        hint = f"; it is a group: write {inside[0]}, for example" if inside else nearest_setting(name, kinds)
        raise UserError(f"space: unknown setting {name!r}{hint}")
    if name in ("learner", "seed"):
        raise UserError(f"space: {name} is not searched; {'seeds are' if name == 'seed' else 'learners are'} compared "
                        f"{'as noise' if name == 'seed' else 'by runs.py'}. Remove it")  # fmt: skip
    if unread := find_unread_groups(base.learner, [name.split(".")[0]]):
        raise UserError(f"space: {name}: learner {base.learner} does not read {unread[0]}; remove it")
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict):
        raise UserError(f"space: {name} is {entry!r}; expected {{low: ..., high: ...}} or {{choices: [...]}}")
    unknown = [key for key in entry if key not in RANGE_KEYS]
    if unknown:
        hint = nearest(str(unknown[0]), RANGE_KEYS) or f"; expected some of {', '.join(RANGE_KEYS)}"
        raise UserError(f"space: {name} has an unknown key {unknown[0]!r}{hint}")
    only_with = _read_conditions(name, entry.get("only_with", {}))
    if "choices" in entry:
        return _read_choices(name, entry, kinds[name], only_with)
    return _read_range(name, entry, kinds[name], only_with)


def _read_conditions(name: str, given: Any) -> dict[str, tuple[Value, ...]] | None:
    if not isinstance(given, dict):
        raise UserError(f"space: {name}: only_with is {given!r}; expected {{SETTING: [values]}}")
    return {other: tuple(each if isinstance(each, list) else [each]) for other, each in given.items()} or None


def _read_choices(name: str, entry: dict, kind: Any, only_with: Any) -> Parameter:
    choices, others = entry["choices"], sorted(set(entry) - {"choices", "only_with"})
    if others:
        raise UserError(f"space: {name} has choices and {', '.join(others)}; expected one of the two kinds")
    if not isinstance(choices, list) or len(choices) < 2:
        raise UserError(f"space: {name}: choices is {choices!r}; expected a list of two values or more")
    wrong = [each for each in choices if not fits(each, kind)]
    if wrong:
        raise UserError(f"space: {describe_misfit(name, wrong[0], kind)}")
    typed = tuple(_typed(each, kind) for each in choices)
    if len(set(map(repr, typed))) < len(typed):
        raise UserError(f"space: {name}: a value is there twice in choices {choices}")
    return Parameter(name, choices=typed, only_with=only_with)


def _typed(value: Any, kind: Any) -> Value:
    """A choice as the setting holds it."""
    if isinstance(value, list):
        return tuple(value)
    return kind(value) if kind in (int, float) else value


def _read_range(name: str, entry: dict, kind: Any, only_with: Any) -> Parameter:
    if kind not in (int, float):
        raise UserError(f"space: {name} is not a number; expected {{choices: [...]}}")
    missing = [key for key in ("low", "high") if entry.get(key) is None]
    if missing:
        raise UserError(f"space: {name} lacks {' and '.join(missing)}; expected {{low: ..., high: ...}}")
    wrong = [key for key in ("low", "high", "step") if key in entry and not fits(entry[key], kind)]
    if wrong:
        raise UserError(f"space: {describe_misfit(f'{name}: {wrong[0]}', entry[wrong[0]], kind)}")
    low, high = (kind(entry[key]) for key in ("low", "high"))
    step, log = kind(entry["step"]) if "step" in entry else None, entry.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"space: {describe_misfit(f'{name}: log', log, bool)}")
    if not low < high:
        raise UserError(f"space: {name}: low is {low}, high is {high}; expected low < high")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"space: {name}: step is {step}; expected more than 0, at most {high - low:g}")
    if log and (low <= 0 or step is not None):
        why = f"low is {low}; expected more than 0" if low <= 0 else "step is set; expected one of the two"
        raise UserError(f"space: {name}: log is on, but {why}")
    return Parameter(name, low, high, step, log, kind is int, only_with=only_with)


def order_space(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The parameters, each after those that its `only_with` names.

    Raises: UserError: a condition on a setting that the search does not change, on a value that it never has, or a
            circle of conditions.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    for parameter in parameters:
        for other, allowed in (parameter.only_with or {}).items():
            if other not in by_name:
                hint = nearest(other, by_name) or "; expected a setting of this space"
                raise UserError(f"space: {parameter.name}: only_with names {other!r}, which is not searched{hint}")
            never = [value for value in allowed if not by_name[other].holds(value)]
            if never:
                raise UserError(
                    f"space: {parameter.name}: only_with says {other} {never[0]!r}, a value that it never has"
                )
    ordered: list[Parameter] = []
    while len(ordered) < len(parameters):
        placed = {parameter.name for parameter in ordered}
        ready = [p for p in parameters if p.name not in placed and set(p.only_with or {}) <= placed]
        if not ready:
            circle = ", ".join(p.name for p in parameters if p.name not in placed)
            raise UserError(f"space: {circle} depend on each other in a circle by only_with")
        ordered += ready
    return tuple(ordered)


def _check_combinations(path: Path, search: Search) -> None:
    """Raise UserError if a combination of values may come up that no run accepts: no trial is spent on it."""
    for values in draw_combinations(search.space):
        try:
            search.run_with(values)
        except UserError as error:
            shown = ", ".join(f"{name} {value}" for name, value in values.items())
            raise UserError(
                f"{path}: a trial may be refused, as one with {shown}: {error}. Change the range, or add only_with"
            ) from error


def draw_combinations(space: Sequence[Parameter]) -> Iterator[dict[str, Value]]:
    """Every edge of every range once, then random ones: always the same for a space."""
    rng = random.Random(0)
    wanted = [(parameter.name, edge) for parameter in space for edge in parameter.edges()]
    for fixed in [*wanted, *([("", 0)] * N_TRIED)]:
        values: dict[str, Value] = {}
        for parameter in space:
            if parameter.is_tried_with(values):
                is_fixed = parameter.name == fixed[0]
                values[parameter.name] = fixed[1] if is_fixed else rng.choice(parameter.edges())
        yield values


def describe_space(space: Sequence[Parameter]) -> list[dict[str, Any]]:
    """The ranges as plain values: what a study compares itself with when it is continued."""
    return json.loads(json.dumps([_plain(parameter) for parameter in space]))


def _plain(parameter: Parameter) -> dict[str, Any]:
    values = {declared.name: getattr(parameter, declared.name) for declared in fields(parameter)}
    return {name: value for name, value in values.items() if value not in (None, False, ())}
