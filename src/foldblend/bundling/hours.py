"""How long a notebook will take, from the speed of each run, against Kaggle's limit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from foldblend.console import table_lines
from foldblend.errors import UserError

START_SECONDS = 300
"""A guess: the session starts, wheels are installed, libraries are imported, once per command."""
PARITY_ROWS = 64
CLOSE = 0.8
"""Of the limit; beyond it a slower machine than thought would lose the submission."""


@dataclass(frozen=True)
class RunSpeed:
    """How fast one run predicts."""

    name: str
    models: int
    """That predict every row: its folds, or 1 for their mean."""
    folds: int
    """That the parity check loads."""
    rows_per_second: float
    """Of one model."""
    load_seconds: float
    """Of one model."""
    source: str
    """Where the speed is from, in words."""

    def seconds(self, n_rows: int, has_parity: bool) -> float:
        """Of all its models for so many rows; the parity check loads every fold once more."""
        predicted = self.models * (self.load_seconds + n_rows / self.rows_per_second)
        return predicted + has_parity * self.folds * (self.load_seconds + PARITY_ROWS / self.rows_per_second)


def read_speeds(given: Sequence[str], runs: Sequence[str]) -> dict[str, float]:
    """`--rows_per_second`: `NAME=ROWS` per run -> its rows per second.

    Raises: UserError: not of that form, no speed, or no run of the blend.
    """
    speeds = {}
    for word in given:
        name, _, number = word.rpartition("=")
        try:
            speed = float(number)
        except ValueError:
            speed = 0.0
        if not name or not 0 < speed < float("inf"):
            raise UserError(f"--rows_per_second {word}: expected NAME=ROWS, as in {runs[0]}=350")
        if name not in runs:
            raise UserError(f"--rows_per_second names run {name}; the runs of the blend are {', '.join(runs)}")
        speeds[name] = speed
    return speeds


def measure_speed(predict: Callable[[int], float], few: int, many: int) -> tuple[float, float]:
    """Rows per second, and the seconds of loading, from two timed predictions.

    Args: predict: predicts so many rows and returns the seconds.   few, many: the two numbers of rows.
    """
    first = predict(few)
    second = predict(many) if many > few else first
    if second <= first or many <= few:  # too fast to tell from loading: loading counts as predicting
        return max(many, 1) / max(second, 1e-3), 0.0
    speed = (many - few) / (second - first)
    return speed, max(0.0, first - few / speed)


def plan_lines(speeds: Sequence[RunSpeed], n_rows: int, limit_hours: float, has_parity: bool) -> list[str]:
    """A table of the runs, and the total against the limit."""
    rows = [("run", "models", "rows/s", "hours", "speed")]
    total = float(START_SECONDS)
    for run in sorted(speeds, key=lambda each: -each.seconds(n_rows, has_parity)):
        seconds = run.seconds(n_rows, has_parity)
        total += seconds
        rows.append((run.name, str(run.models), f"{run.rows_per_second:,.4g}", f"{seconds / 3600:.2f}", run.source))
    parts = "start of 5 minutes (a guess)" + (" and parity check" if has_parity else "")
    return [
        *table_lines(rows),
        f"{n_rows:,} rows take about {total / 3600:.2f} h of {limit_hours:g} h, {parts} included",
    ]


def too_long(speeds: Sequence[RunSpeed], n_rows: int, limit_hours: float, has_parity: bool) -> str:
    """What to do if it takes longer than the limit, or nearly so; empty if it does not."""
    seconds = {run.name: run.seconds(n_rows, has_parity) for run in speeds}
    hours = (START_SECONDS + sum(seconds.values())) / 3600
    if hours <= CLOSE * limit_hours:
        return ""
    slowest = max(seconds, key=lambda name: seconds[name])
    folds = " Predict with one model per run: --average_folds." if any(run.models > 1 for run in speeds) else ""
    says = "takes too long" if hours > limit_hours else "leaves little time for a slower machine"
    return (
        f"the notebook {says}: about {hours:.1f} h of {limit_hours:g} h.{folds} Or blend without {slowest}, which "
        f"takes {seconds[slowest] / 3600:.1f} h: python src/blend.py --runs ..."
    )


def describe_source(device: str, speed_given: Mapping[str, float], run: str) -> str:
    """Where a run's speed is from: `given`, or `measured here (1 x Tesla T4, fp16)`."""
    return "given" if run in speed_given else f"measured here ({device})"
