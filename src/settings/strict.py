"""Strict reading: doubled or unknown keys, and names that would leave their folder, are refused."""

import difflib
import re
from pathlib import Path

import yaml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str, what: str) -> str:
    """A name that becomes a folder. Raises ValueError where it could leave its parent or break a command line."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} is {name!r}; expected letters, digits, `.`, `_`, `-`; a letter or digit first")
    return name


def parse_yaml(path: Path) -> dict:
    """A YAML mapping without doubled keys. Raises ValueError on anything else."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: other bytes, a date that is none
        raise ValueError(f"{path} is not readable YAML: {error}. Mend it, or set out from one beside it") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected settings as `name: value`, found {type(values).__name__}")
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
            raise ValueError(
                f"{path}: {group} holds settings of its own; expected `name: value` below it, found {found}"
            )
    there = f"; expected {', '.join(sorted({key.split('.')[0] for key in known}))}"
    unknown = [
        f"unknown setting {key!r}{nearest(key, known) or there}" for key in _dotted(values, leaves) if key not in known
    ]
    if unknown:
        raise ValueError(f"{path}: " + "; ".join(unknown))


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


def _leaves(values: dict, prefix: str = "") -> dict:
    leaves = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return leaves
