"""What a setting may be, declared beside it and checked in one place for every group of settings."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

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


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'epochs'?`, or nothing if no known name is near. A name in the wrong group is found too."""
    ordered, name = sorted(known), str(name)
    by_leaf = {full.rsplit(".", 1)[-1]: full for full in reversed(ordered)}
    close = difflib.get_close_matches(name, ordered, n=1, cutoff=0.6)
    leaf = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
    best = close[0] if close else by_leaf[leaf[0]] if leaf else ""
    return f"; did you mean {best!r}?" if best else ""
