"""Learners, losses, metrics and strategies that are defined outside the package.

`plugins: [my_module]` in configs/default.yaml names modules of the workspace root, or installed ones. Every command
imports them before it reads settings; the decorators below put what they define into the same tables as the
package's own learners, losses, metrics and strategies.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, MutableMapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Literal, TypeVar

from foldblend.errors import UserError
from foldblend.settings.tables import LEARNERS, LOSSES, LossEntry

Registered = TypeVar("Registered", bound=Callable[..., Any])
"""A class or a function that a decorator returns as it was."""
_REGISTERED: dict[tuple[str, str], tuple[MutableMapping, str]] = {}
"""(what, name) -> its table, and the module that registered it."""
_root: Path | None = None
"""The workspace whose plugins are loaded."""


def learner(
    name: str,
    settings: type | None = None,
    reads: Sequence[str] = ("seed", "cleaning"),
    needs_gpu: bool = False,
) -> Callable[[Registered], Registered]:
    """Decorate a class `(run: RunSettings, corpus: Corpus)` that has `train_fold`: `learner: name` in a run's YAML.

    Args:   settings: a frozen dataclass, every field with a default. It becomes the group `name` of the run's YAML and
                of the flags (`--<name>.<field>`), is checked like the package's own groups, and is `run.plugin`.
            reads: the package's own groups that it reads, too: seed, cleaning, model, training, ...
            needs_gpu: whether a GPU saves hours.
    """

    def register(build: Registered) -> Registered:
        from foldblend.settings.run import learner_entry

        _register(LEARNERS, "learner", name, learner_entry(name, build, reads, settings, needs_gpu), build.__module__)
        return build

    return register


def loss(
    name: str, tasks: Sequence[str] = ("multilabel",), soft_targets: bool = False
) -> Callable[[Registered], Registered]:
    """Decorate a function `(settings, labels, task) -> torch.nn.Module`: `loss: {name: ...}` in a run's YAML.

    The module takes (logits, targets), both float32 (B, L), and returns a scalar: summed over rows, mean over labels.
    Import torch inside the function: `blend` loads plugins too, and starts without torch.

    Args: tasks: the kinds of competitions that it is for.   soft_targets: whether targets may be fractions.
    """

    def register(build: Registered) -> Registered:
        entry = LossEntry(build, tuple(tasks), soft_targets=soft_targets)
        _register(LOSSES, "loss", name, entry, build.__module__)
        return build

    return register


def metric(
    name: str,
    answer: Literal["decisions", "probs", "list"] = "decisions",
    greater_is_better: bool = True,
    rows: Callable | None = None,
) -> Callable[[Registered], Registered]:
    """Decorate a function `(labels, answer) -> float`: `metric: name` in a competition's YAML.

    Args:   answer: `decisions`, a bool (N, L) table made by tuned thresholds, or `probs`, float32 (N, L) as they are;
                `list`, probabilities of which each row's k highest are submitted as a list: the function (and `rows`)
                takes a third argument k, and the name ends in `_at_k`: `ndcg_at_k` is used as `ndcg_at_5`.
            greater_is_better: False for an error or a loss.
            rows: the values per row, float64 (N,), whose mean the metric is, if there are such: the interval of the
                expected score is then computed without calling the metric once per resample.
    """
    if answer not in ("decisions", "probs", "list"):
        raise UserError(f"metric {name}: answer is {answer!r}; expected decisions, probs or list")
    if answer == "list" and not name.endswith("_at_k"):
        raise UserError(f"metric {name}: answer is list, so its name must end in _at_k, as ndcg_at_k")

    def register(score: Registered) -> Registered:
        from foldblend.scoring.metrics.table import METRICS, Metric

        takes: Literal["decisions", "probs"] = "decisions" if answer == "decisions" else "probs"
        entry = Metric(score, takes, rows, greater_is_better, is_ranked=answer == "list")
        _register(METRICS, "metric", name, entry, score.__module__)
        return score

    return register


def strategy(name: str) -> Callable[[Registered], Registered]:
    """Decorate a function `(given: Given) -> Strategy` that weights the runs: one more candidate of `blend`."""

    def register(fit: Registered) -> Registered:
        from foldblend.scoring.ensembling.strategies import STRATEGIES

        _register(STRATEGIES, "strategy", name, fit, fit.__module__)
        return fit

    return register


def load_plugins(names: Sequence[str], root: Path) -> None:
    """Import the modules that configs/default.yaml names; one that is loaded already stays as it is.

    Args:   names: module names, such as `my_module` or `my_package.losses`.   root: the workspace, searched first.
    Raises: UserError: a module is missing, or named like an installed one, or registers a name that is taken. An error
            of the plugin's own keeps its type and its traceback.
    """
    root = root.resolve()
    _enter(root, names)
    for name in names:
        _check_findable(name, root)
        try:
            importlib.import_module(name)
        except UserError as error:
            raise UserError(f"plugin {name} cannot be used: {error}") from error
        except Exception as error:
            error.add_note(f"(raised by the plugin {name}, which `plugins` in configs/default.yaml names)")
            raise


def _enter(root: Path, names: Sequence[str]) -> None:
    """Put the workspace last on the path, where it shadows no library, and forget the plugins of another workspace."""
    global _root
    if _root is not None and _root != root:
        # tests and notebooks change the workspace within one process
        old = [name for name, module in sys.modules.items() if _is_of(name, module, _root)]
        for key in [key for key, (_, owner) in _REGISTERED.items() if owner in old]:
            table, _ = _REGISTERED.pop(key)
            table.pop(key[1], None)
            if key in _REPLACED:
                table[key[1]] = _REPLACED.pop(key)
        for name in old:
            del sys.modules[name]
        sys.path[:] = [folder for folder in sys.path if folder != str(_root)]
        _root = None
    if _root is None and names:
        # last, so that a file of the workspace can never replace a library
        sys.path.append(str(root))
        importlib.invalidate_caches()
        _root = root


def _is_of(name: str, module: object, root: Path) -> bool:
    """Whether a module is a file of the workspace; an environment inside its folder is not."""
    top, file = root / name.split(".")[0], Path(getattr(module, "__file__", None) or "/")
    return file == top.with_suffix(".py") or file.is_relative_to(top)


def _check_findable(name: str, root: Path) -> None:
    """Raise UserError if no module has this name, or if the workspace's would be hidden by an installed one."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"plugins holds {name!r}; expected the name of a module, such as my_module")
    top = name.split(".")[0]
    installed = _find_elsewhere(top, root)
    here = [path for path in (root / f"{top}.py", root / top / "__init__.py") if path.is_file()]
    if here and installed is not None:
        raise UserError(f"plugin {name} is named like an installed module ({installed.origin}); rename {here[0]}")
    if not here and installed is None:
        raise UserError(
            f"plugin {name} is missing: no {root / top}.py and no installed module of that name was found. Write it, "
            "or take it out of `plugins` in configs/default.yaml"
        )


def _find_elsewhere(top: str, root: Path) -> ModuleSpec | None:
    """The module of that name that Python finds without the workspace."""
    if top in sys.builtin_module_names:
        return importlib.util.find_spec(top)
    elsewhere = [folder for folder in sys.path if Path(folder).resolve() != root]
    spec = PathFinder.find_spec(top, elsewhere)
    return None if spec is None or spec.origin is None else spec  # a folder without __init__.py is no module


NEWER = {"macro_f2", "micro_f2", "samples_f2", "macro_f05", "micro_f05", "matthews", "quadratic_weighted_kappa"}
NEWER |= {"mean_ranks", "group_auc", "map_at_k"}
"""Names that the package itself took after plugins could: a plugin that has one of them keeps it."""
_REPLACED: dict[tuple[str, str], object] = {}
"""(what, name) of the package's own entries that a plugin's stand in for."""


def _register(table: MutableMapping, what: str, name: str, entry: object, owner: str) -> None:
    """Raise UserError if another module, or the package itself, has this name already."""
    known = _REGISTERED.get((what, name))
    is_newer = name in NEWER or re.sub(r"_at_\d+$", "_at_k", name) in NEWER
    if known is None and is_newer and name in table:
        _REPLACED[what, name] = table[name]
    # the same module may register again, as after a reload in a notebook
    elif name in table and (known is None or known[1] != owner):
        there = known[1] if known else "the package itself"
        raise UserError(f"{what} {name} is already registered by {there}; choose another name")
    table[name] = entry
    _REGISTERED[what, name] = (table, owner)
