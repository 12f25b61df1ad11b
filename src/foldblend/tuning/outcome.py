"""What a study found: its table, which settings mattered, its figures, and the best settings as the YAML of a run."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from foldblend.errors import UserError
from foldblend.files import write_atomically, write_whole
from foldblend.settings.loading import load_run
from foldblend.settings.paths import Paths
from foldblend.settings.records import differing_settings, settings_of
from foldblend.settings.search import Search, Value
from foldblend.settings.yaml_files import BASE, find_config, parse_yaml
from foldblend.tuning.study import SharedStudy, values_of

FOUND_BY = "# Found by tune.py, study "
"""How the YAML of a study begins its second line: only such a file is ever replaced."""


@dataclass(frozen=True)
class Noise:
    """The base run under several seeds, on the folds of the search."""

    scores: tuple[float, ...]
    """Of each seed, the base run's own first; one, if its learner has no seed."""

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds."""
        if len(self.scores) < 2:
            return None
        return (sum((score - self.mean) ** 2 for score in self.scores) / (len(self.scores) - 1)) ** 0.5

    def describe(self, metric: str) -> str:
        if self.spread is None:
            return f"{metric} {self.scores[0]:.4f}; its learner has no seed"
        return f"{metric} mean {self.mean:.4f}, sd {self.spread:.4f} over {len(self.scores)} seeds"


# ---------- Tables.


def best_rows(study: SharedStudy, search: Search, importance: Mapping[str, float]) -> list[tuple[str, ...]]:
    """A table: each setting of the search, its value in the base run and in the best trial, and its importance."""
    best = study.best()
    found = values_of(best, study.space) if best else {}
    base = search.values_of(search.base)
    rows = [("setting", "base", "best", "importance")]
    for parameter in sorted(study.space, key=lambda each: -importance.get(each.name, 0)):
        name = parameter.name
        share = f"{importance[name]:.0%}" if name in importance else ""
        rows.append((name, shown(base.get(name)), shown(found.get(name)), share))
    return rows


def trial_rows(study: SharedStudy, base_score: float, most: int = 5) -> list[tuple[str, ...]]:
    """A table of the best trials, with what each scores above the base run."""
    order = sorted(study.complete(), key=lambda trial: (-study.sign * trial.value, trial.number))
    rows = [("trial", "score", "vs base")]
    return rows + [(str(t.number), f"{t.value:.4f}", f"{t.value - base_score:+.4f}") for t in order[:most]]


def count_states(study: SharedStudy) -> str:
    """`30 trials: 24 complete, 6 stopped early`."""
    counted = study.counted()
    words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}
    counts = {word: sum(trial.state.name == state for trial in counted) for state, word in words.items()}
    return f"{len(counted)} trials: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def shown(value: Value | None) -> str:
    """A value in at most 14 characters."""
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 14 else f"{text[:13]}…"


# ---------- Figures.


def draw_figures(study: SharedStudy, importance: Mapping[str, float], metric: str, base: Noise, folder: Path) -> list:
    """history.png and importance.png in the study's folder; the second only if there is something to show."""
    from matplotlib.figure import Figure

    paths, figure = [], Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    complete = study.complete()
    axes.scatter([t.number for t in complete], [t.value for t in complete], s=18, label="trials")
    best: list[float] = []
    for trial in complete:
        best.append(trial.value if not best else (max if study.sign > 0 else min)(best[-1], trial.value))
    axes.step([t.number for t in complete], best, where="post", color="tab:orange", label="best so far")
    axes.axhline(base.mean, color="tab:gray", label="base run")
    if base.spread:
        axes.axhspan(base.mean - base.spread, base.mean + base.spread, color="tab:gray", alpha=0.2, lw=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="trial", ylabel=f"{metric}, cross-fitted")
    axes.legend()
    paths.append(_save(figure, folder / "history.png"))
    if importance:
        figure = Figure(figsize=(7, 1 + 0.35 * len(importance)), layout="constrained")
        axes = figure.subplots()
        names = list(importance)[::-1]
        axes.barh(names, [importance[name] for name in names])
        axes.set(xlabel="importance")
        paths.append(_save(figure, folder / "importance.png"))
    return paths


def _save(figure, path: Path) -> Path:
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
    return path


# ---------- The best settings as the YAML of a run.


def tuned_path(paths: Paths, study_name: str) -> Path:
    """Where the best settings of a study are written.

    Raises: UserError: a file of that name is there that no study wrote.
    """
    path = paths.configs / "runs" / f"{study_name}-tuned.yaml"
    if path.is_file() and FOUND_BY not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{path}: exists and is not of a study; rename it, or start the search with --study NAME")
    return path


def write_tuned(
    path: Path, paths: Paths, search: Search, values: Mapping[str, Value], study: str, lines: Sequence[str]
) -> None:
    """Write a run of the base's settings and those that were found.

    Args: lines: sentences for the header: competition, trials, score, spread, date.
    """
    root, base_path = search.settings.run, find_config(paths, "runs", search.settings.run)
    root = parse_yaml(base_path).get(BASE, root)  # a base cannot have a base: its own settings are copied
    differing = differing_settings(settings_of(load_run(paths, root)), settings_of(search.run_with(values)))
    nested: dict = {BASE: root}
    for name, _, value in differing:
        group, _, leaf = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[leaf] = value
    body = yaml.safe_dump(nested, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
    head = [f"accelerate launch src/train.py --run {path.stem} --fold all", f"{FOUND_BY[2:]}{study}.", *lines]
    wrapped = [f"# {line}" for text in head for line in textwrap.wrap(text, 116)]
    write_atomically(path, ("\n".join(wrapped) + "\n" + body).encode())
