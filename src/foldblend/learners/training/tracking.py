"""A fold's history sent to an experiment tracker, too: TensorBoard, W&B, MLflow or Trackio, by Accelerate's trackers.

One run of the tracker per fold, grouped by the run's name. It gets the settings, every line of the history, and the
final scores. A training is the same with and without it: the tracker is no setting of a run and is in no record.

Without a server in the tracker's own environment variables, everything is written below tracking/ in the workspace.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foldblend.console import warn
from foldblend.errors import UserError, redact
from foldblend.files import write_atomically

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
"""Name of a tracker -> the package that it needs."""
RUN_ID = "tracker_id"
"""File in a fold's checkpoint folder: a training that goes on goes on in the tracker, too; one with --overwrite is new.
"""


@dataclass(frozen=True)
class TrackedFold:
    """Which fold is tracked, and where."""

    competition: str
    run: str
    fold: int
    folder: Path
    """The workspace's folder for trackers that write files."""
    checkpoint_dir: Path

    @property
    def name(self) -> str:
        return f"{self.run} fold {self.fold}"

    def find_id(self) -> str:
        """The same for every start of one training."""
        path = self.checkpoint_dir / RUN_ID
        if not path.is_file():
            write_atomically(path, secrets.token_hex(4).encode())
        words = f"{self.competition} {self.run} {self.fold} {path.read_text()}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]


def check_tracker(kind: str) -> None:
    """Raises UserError: the package that a tracker needs is not installed."""
    package = PACKAGES.get(kind, "")
    if package and find_spec(package) is None:
        raise UserError(f"tracker {kind} needs the package {package}. Run: pip install {package}, or set tracker none")


class TrackedHistory:
    """A history that sends each line to a tracker, too; as `learners.table.History`.

    A tracker that fails later on ends the tracking with a warning: no training dies of a server that is away.

    Args: settings: by dotted name.   history: `ledger.history.FoldHistory`.
    Raises: UserError: the tracker cannot be started.
    """

    def __init__(self, kind: str, fold: TrackedFold, settings: Mapping[str, Any], history):
        self.kind, self.history, self.settings, self.fold = kind, history, settings, fold
        self.tracker: Any = None
        self.last_step = 0

    def start(self, step: int) -> None:
        """Begin, or go on after `step` optimizer steps."""
        self.history.start(step)
        self.open(step)

    def open(self, step: int) -> None:
        """Start the tracker's run."""
        try:
            self.tracker = _start(self.kind, self.fold, step)
            self.tracker.store_init_configuration({name: _plain(value) for name, value in self.settings.items()})
        except Exception as error:  # a tracker's own: they share no class
            raise UserError(
                f"tracker {self.kind} cannot be started: {redact(str(error))[:300]}. Fix that, or set tracker none"
            ) from None

    def add(self, entry: Mapping[str, float | int | None]) -> None:
        """Note what was measured at a step."""
        self.history.add(entry)
        self.last_step = int(entry["step"] or 0)
        self._send({name: value for name, value in entry.items() if name != "step" and value is not None})

    def finish(self, scores: Mapping[str, float]) -> None:
        """Send the final scores and close; a learner that takes no steps has no history before."""
        if self.tracker is None:
            self.open(0)
        self._send({f"final_{name}": value for name, value in scores.items()})
        if self.tracker is not None:
            self._guard(self.tracker.finish)
            self.tracker = None

    def _send(self, values: Mapping[str, Any]) -> None:
        if self.tracker is not None:
            self._guard(self.tracker.log, dict(values), step=self.last_step)

    def _guard(self, call, *arguments, **more) -> None:
        try:
            call(*arguments, **more)
        except Exception as error:  # as above
            self.tracker = None
            warn(
                f"fold {self.fold.fold}: tracker {self.kind} failed, the training goes on without: {redact(str(error))}"
            )


def _plain(value: Any) -> str | int | float | bool:
    """Trackers take scalars."""
    return value if isinstance(value, str | int | float | bool) else str(value)


def _start(kind: str, fold: TrackedFold, step: int) -> Any:
    """A started tracker of Accelerate."""
    tracking = import_module("accelerate.tracking")
    import_module("accelerate").PartialState()  # which process this is: Accelerate's trackers ask for it
    folder, project = fold.folder, f"foldblend-{fold.competition}"
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tensorboard":
        name = f"{fold.competition}/{fold.run}/fold{fold.fold}"
        tracker = tracking.TensorBoardTracker(name, folder / "tensorboard", purge_step=step + 1 if step else None)
    elif kind == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")  # it prints a dozen lines per fold
        os.environ.setdefault("WANDB_CONSOLE", "off")  # our own lines are in the log of the training
        tracker = tracking.WandBTracker(
            project, id=fold.find_id(), name=fold.name, group=fold.run, dir=folder, resume="allow", save_code=False
        )
    elif kind == "mlflow":
        mlflow = import_module("mlflow")
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        tags = {"run": fold.run, "fold": str(fold.fold), "training": fold.find_id()}
        where = (folder / "mlflow").as_uri()
        earlier = _find_mlflow_run(project, tags["training"])
        tracker = tracking.MLflowTracker(project, where, earlier, tags, run_name=fold.name)
    else:
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        tracker = tracking.TrackioTracker(
            project, name=f"{fold.name} {fold.find_id()[:4]}", group=fold.run, resume="allow"
        )
    tracker.start()
    return tracker


def _find_mlflow_run(experiment: str, training: str) -> str | None:
    """The id of the run that an earlier start of the same training made; None without one."""
    mlflow = import_module("mlflow")
    known = mlflow.get_experiment_by_name(experiment)
    if known is None:
        return None
    wanted = f"tags.training = '{training}'"
    found = mlflow.search_runs([known.experiment_id], wanted, max_results=1, output_format="list")
    return found[0].info.run_id if found else None
