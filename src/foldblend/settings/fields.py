"""What a setting may be: its kind and range, declared beside it and checked in one place for every group."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from foldblend.errors import find_nearest, nearest

_RULE = "rule"
"""Key of a rule in the metadata of its dataclass field."""


@dataclass(frozen=True)
class Rule:
    """What a setting may be beyond its type. jsonargparse checks the type, `find_problems` the rule."""

    at_least: float | None = None
    more_than: float | None = None
    less_than: float | None = None
    at_most: float | None = None
    choices: Mapping[str, object] | None = None
    """A table whose keys are allowed. It is read at each check, so a plugin may add to it before settings are read."""
    aliases: Mapping[str, str] | None = None
    """Other names that people write -> the choice that they mean, for messages."""
    only_with: tuple[str, ...] = ()
    """A setting of the same group, and its values with which this one is read: ("pooling", "concat_last")."""
    internal: bool = False
    """Not a setting of any YAML; code fills it in."""

    def allows(self, value: object) -> bool:
        """Whether a value is one of the choices, or inside the range; nan is in no range."""
        if self.choices is not None:
            return value in self.choices
        if not isinstance(value, int | float):
            return True
        lower = (self.at_least is None or value >= self.at_least) and (self.more_than is None or value > self.more_than)
        upper = (self.at_most is None or value <= self.at_most) and (self.less_than is None or value < self.less_than)
        return lower and upper

    def find_alias(self, value: str) -> str:
        """`; did you mean 'macro_f1'?` for f1_macro and other names of a choice; empty if it is none."""
        choices, words = self.choices or {}, sorted(split_words(value))
        same = [choice for choice in choices if sorted(split_words(choice)) == words]
        alias = (self.aliases or {}).get("_".join(split_words(value)), "")
        found = same[0] if same else alias if alias in choices else ""
        return f"; did you mean {found!r}?" if found else ""

    def describe(self) -> str:
        """`1 or more`, `0 or more, less than 1`, `0.5 to 1`, or the choices; empty without a range and choices."""
        if self.choices is not None:
            return ", ".join(self.choices)
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        parts = [f"{self.at_least:g} or more"] if self.at_least is not None else []
        parts += [f"more than {self.more_than:g}"] if self.more_than is not None else []
        parts += [f"less than {self.less_than:g}"] if self.less_than is not None else []
        parts += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return ", ".join(parts)


def setting(default: Any = MISSING, **rule: Any) -> Any:
    """A dataclass field with a rule: `epochs: int = setting(2, at_least=1)`. The arguments are those of `Rule`."""
    return field(default=default, metadata={_RULE: Rule(**rule)})


def rule_of(declared: Any) -> Rule:
    """The rule of a dataclass field; one that allows everything if it was declared without `setting`."""
    return declared.metadata.get(_RULE, Rule())


def find_problems(group: Any, prefix: str = "") -> Iterator[str]:
    """Every setting of a dataclass and its groups that breaks its own rule, as sentences.

    Args:   group: an instance of a dataclass of settings.   prefix: `training.` for the group `training`.
    """
    for declared in fields(group):
        value, rule, name = getattr(group, declared.name), rule_of(declared), f"{prefix}{declared.name}"
        if is_dataclass(value):
            if not rule.internal:
                yield from find_problems(value, f"{name}.")
        elif rule.choices is not None and not rule.allows(value):
            hint = rule.find_alias(str(value)) or nearest(str(value), rule.choices) or f"; expected {rule.describe()}"
            yield f"{name} is {value!r}, which is not known{hint}"
        elif not rule.allows(value):
            yield f"{name} is {value}; expected {rule.describe()}"
        elif isinstance(value, float) and not math.isfinite(value):  # records are JSON, which has no nan and no inf
            yield f"{name} is {value}; expected a finite number"
        if rule.only_with and value != declared.default:
            yield from _find_unread(group, prefix, name, rule.only_with)


def _find_unread(group: Any, prefix: str, name: str, only_with: tuple[str, ...]) -> Iterator[str]:
    """A sentence if a setting was changed that nothing reads, as another one has the wrong value for it."""
    other, *readers = only_with
    chosen = getattr(group, other)
    if chosen not in readers:
        yield f"{name} is set, but {prefix}{other} is {chosen}; {only_read_by(readers)}"


def walk_settings(part: type, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, dataclass field, type) of a dataclass's settings in order; a group comes before its settings."""
    types = get_type_hints(part)
    for declared in fields(part):
        if not rule_of(declared).internal:
            name, kind = f"{prefix}{declared.name}", types[declared.name]
            yield name, declared, kind
            if isinstance(kind, type) and is_dataclass(kind):
                yield from walk_settings(kind, f"{name}.")


def split_words(name: str) -> list[str]:
    """Lower-case words and numbers of a name: `F1-Macro`, `f1_macro` and `f1 macro` are the same."""
    return re.findall(r"[a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())


def only_read_by(readers: Iterable[str]) -> str:
    """`only fgm or awp read it, so remove it`."""
    names = list(readers)
    return f"only {' or '.join(names)} {'reads' if len(names) == 1 else 'read'} it, so remove it"


def nearest_setting(name: str, known: Iterable[str], spell: Callable[[str], str] = repr) -> str:
    """`; did you mean 'training.epochs'?`, or nothing if no setting is near. One in the wrong group is found too.

    Args: spell: how the nearest name is written.
    """
    ordered, name = sorted(known), str(name)
    # several groups may have a setting of that name: training.epochs is meant rather than pretraining.epochs
    by_leaf = {full.rsplit(".", 1)[-1]: full for full in sorted(ordered, key=len, reverse=True)}
    best = find_nearest(name, ordered) or by_leaf.get(find_nearest(name.rsplit(".", 1)[-1], list(by_leaf)) or "")
    return f"; did you mean {spell(best)}?" if best else ""


# ---------- text as it is written: YAML reads yes as True, 1 as a number, null as nothing, 2024-01-01 as a date.


def keep_texts(values: Any, raw: Any, kinds: Mapping[str, Any], prefix: str = "") -> Any:
    """`values` of a YAML with every setting of text as it is written in the file.

    Args: values: nested, as YAML reads them.   raw: the same document with every scalar as text.
          kinds: dotted name of each setting -> its type.
    Example: `names: [yes, no, 1]` is read as [True, False, 1], and becomes ["yes", "no", "1"].
    """
    kept = {}
    for (key, value), of_raw in zip(values.items(), raw.values(), strict=True):
        name = f"{prefix}{key}"
        if name in kinds and value is not None:
            kept[key] = as_written(value, of_raw, kinds[name])
        else:
            kept[key] = keep_texts(value, of_raw, kinds, f"{name}.") if isinstance(value, dict) else value
    return kept


def as_written(value: Any, raw: Any, kind: Any) -> Any:
    """One value with its parts of text as they are written; parts of another kind stay as YAML reads them."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return raw  # a part of another YAML, whose texts are read when it is known what they are
    if is_dataclass(kind) and isinstance(value, dict):
        kinds = get_type_hints(kind)
        names = {own: str(key) for own, key in zip(value, raw, strict=True)}
        return {
            name: as_written(value[own], raw[name], kinds[name]) if name in kinds else value[own]
            for own, name in names.items()
        }
    if kind is str or (origin is Literal and all(isinstance(choice, str) for choice in inner)):
        return raw if isinstance(raw, str) else value
    if origin is tuple and isinstance(value, list):
        return [as_written(item, of_raw, inner[0]) for item, of_raw in zip(value, raw, strict=True)]
    if origin is dict and isinstance(value, dict):
        return {str(key): as_written(value[own], raw[key], inner[1]) for own, key in zip(value, raw, strict=True)}
    return value


def parse_flag(word: str, kind: Any) -> Any:
    """The word behind a flag as the YAML of that setting would be read; the word itself if it is no YAML."""
    if kind is str:
        return word
    try:
        return as_written(yaml.safe_load(word), yaml.load(word, Loader=yaml.BaseLoader), kind)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return word


def is_structured(kind: Any) -> bool:
    """Whether the setting is a list or a mapping."""
    return get_origin(kind) in (tuple, dict)


# ---------- a value of another kind, in plain words.


def find_misfits(values: Mapping[str, Any], kinds: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A sentence for every value that is not of its setting's kind; None is judged elsewhere."""
    found = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in kinds:
            found += [] if value is None or fits(value, kinds[name]) else [describe_misfit(name, value, kinds[name])]
        elif isinstance(value, dict):
            found += find_misfits(value, kinds, f"{name}.")
    return found


def describe_misfit(name: str, value: Any, kind: Any) -> str:
    """`text.columns is 'title'; expected a list, as [title]`."""
    origin, inner = get_origin(kind), get_args(kind)
    shown = f"{name} is {_shown(value)}"
    if origin is Literal and all(isinstance(choice, str) for choice in inner):
        return f"{shown}{nearest(str(value), inner) or ';'} expected {_choices(inner)}"
    if origin is tuple and is_dataclass(inner[0]):
        return _misfit_item(name, value, inner[0])
    if origin is tuple and isinstance(value, str | int | float) and inner[-1] is Ellipsis:
        parts = [part.strip() for part in str(value).strip("[]").split(",") if part.strip()] or ["NAME"]
        return f"{shown}; expected a list, as [{', '.join(map(_shown_in_yaml, parts))}]"
    if origin in (tuple, dict):
        part = _misfit_inside(value, kind)
        return f"{shown}; expected {describe_kind(kind)}" if part is None else f"{name} has {part}"
    return f"{shown}; expected {describe_kind(kind)}"


def _misfit_item(name: str, value: Any, kind: Any) -> str:
    """What is wrong with a list of groups of settings, or with the first wrong setting of one of them."""
    example = f"{name}: [{{{fields(kind)[0].name}: ...}}]"
    if not isinstance(value, list | tuple):
        return f"{name} is {_shown(value)}; expected a list, as {example}"
    kinds = get_type_hints(kind)
    for number, item in enumerate(value):
        where = f"{name}[{number}]"
        if not isinstance(item, dict):
            return f"{where} is {_shown(item)}; expected names and values, as {example}"
        for key, each in item.items():
            if key not in kinds:
                known = ", ".join(kinds)
                return f"{where} has an unknown setting {key!r}{nearest_setting(key, kinds) or '.'} There are: {known}"
            if each is not None and not fits(each, kinds[key]):
                return describe_misfit(f"{where}.{key}", each, kinds[key])
            if each is None:
                return f"{where}.{key} is empty; expected a value, or no such line for the default"
    return f"{name} is {_shown(value)}; expected {example}"


def fits(value: Any, kind: Any) -> bool:
    """Whether a value as YAML reads it is of the kind; numbers may be written as text (PyYAML reads 2e-5 so)."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner and not (isinstance(value, bool) and True not in inner and False not in inner)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        return len(each) == len(value) and all(map(fits, value, each))
    if origin is dict:
        return isinstance(value, dict) and all(fits(each, inner[1]) for each in value.values())
    if kind is bool:
        return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))
    if kind in (int, float):
        return not isinstance(value, bool) and _is_number(value, kind)
    if kind is Any:
        return True
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return isinstance(value, dict) and all(key in kinds and fits(each, kinds[key]) for key, each in value.items())
    return isinstance(value, kind) if isinstance(kind, type) else True


def describe_kind(kind: Any) -> str:
    """The kind in plain words, with an example of how it is written."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(describe_kind(each) for each in inner)
    if origin is Literal:
        return _choices(inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)} {'whole numbers' if inner[0] is int else 'numbers'}, as [1, {len(inner)}]"
    if origin is tuple:
        return "a list, as [a, b]"
    if origin is dict:
        return f"names with {'lists' if get_origin(inner[1]) is tuple else 'values'}, as {{{_example(inner[1])}}}"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "another value")


def _example(kind: Any) -> str:
    return "name: [a, b]" if get_origin(kind) is tuple else "name: 0" if kind is float else "name: other"


def _misfit_inside(value: Any, kind: Any) -> str | None:
    """The first part of a list or mapping that is of the wrong kind; None if it is none, or of the wrong length."""
    inner = get_args(kind)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            return None
        wrong = [(key, each) for key, each in value.items() if not fits(each, inner[1])]
        return f"{wrong[0][0]!r}: {_shown(wrong[0][1])}; expected {describe_kind(inner[1])} there" if wrong else None
    if not isinstance(value, list | tuple) or (inner[-1] is not Ellipsis and len(inner) != len(value)):
        return None
    wrong = [each for each in value if not fits(each, inner[0])]
    return f"{_shown(wrong[0])} in it; expected {describe_kind(inner[0])} there" if wrong else None


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, int) or (kind is float and isinstance(value, float)):
        return True
    if isinstance(value, float):
        return False
    try:
        kind(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _choices(choices: Sequence[Any]) -> str:
    shown = [str(choice) if choice != "" else "nothing" for choice in choices]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'group of names and values'}, {repr(value)[:60]}"
    return repr(value)[:80]


def _shown_in_yaml(part: str) -> str:
    return part if re.fullmatch(r"[\w .-]+", part) else f'"{part}"'
