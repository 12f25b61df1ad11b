"""Where everything of one project is on disk; the only place that spells a folder's name."""

import os
from dataclasses import dataclass
from pathlib import Path

from foldblend.errors import UserError


@dataclass(frozen=True)
class Paths:
    """The folders under one root. Nothing is created here; writers create what they write into."""

    root: Path
    study: str = ""
    """The study whose trials are trained: their folds and checkpoints are kept apart from those of runs."""

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def kept(self) -> list[Path]:
        """The folders whose files were given or have a record: no command writes over one because a flag names it."""
        return [
            self.root / name for name in ("configs", "data", "folds", "oof", "submissions", "checkpoints", "bundle")
        ]

    def data(self, competition: str) -> Path:
        return self.root / "data" / competition

    def folds(self, competition: str) -> Path:
        """The CSV of the folds; its .json lies beside it."""
        return self.root / "folds" / f"{competition}.csv"

    def oof(self, competition: str) -> Path:
        """One folder a run below this one."""
        return self._apart(self.root / "oof" / competition)

    def _apart(self, folder: Path) -> Path:
        """Hidden folders are no runs: whatever lists runs passes over them."""
        return folder / ".studies" / self.study if self.study else folder

    def submissions(self, competition: str) -> Path:
        return self.root / "submissions" / competition

    @property
    def submissions_log(self) -> Path:
        """One row per submission, of all competitions."""
        return self.root / "submissions" / "log.csv"

    def bundle(self, competition: str) -> Path:
        """One folder a blend below this one: what a notebook elsewhere predicts with."""
        return self.root / "bundle" / competition

    @property
    def tracking(self) -> Path:
        """What experiment trackers write that have no server."""
        return self.root / "tracking"

    def checkpoints(self, competition: str, run: str) -> Path:
        return self._apart(self.root / "checkpoints" / competition) / run

    def pretrained(self, competition: str) -> Path:
        """Weights pretrained on the competition's own texts, one folder a model, texts and settings."""
        return self.root / "checkpoints" / competition / "pretrained"

    def tokens(self, competition: str) -> Path:
        """Token ids of the competition's texts, kept for the next run; may be deleted at any time."""
        return self.root / "checkpoints" / competition / ".tokens"


def find_paths() -> Paths:
    """The workspace: `$FOLDBLEND_ROOT`, else this checkout, else the nearest folder upward with configs/default.yaml.

    Raises: UserError: the package is installed, and neither names a workspace.
    """
    named = os.environ.get("FOLDBLEND_ROOT")
    if named:
        return Paths(Path(named).resolve())
    if checkout := find_checkout():
        return Paths(checkout)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "configs" / "default.yaml").is_file():
            return Paths(folder)
    raise UserError(
        f"no workspace found: neither {here} nor a folder above it holds configs/default.yaml. Work in a clone of the "
        "repository, or set FOLDBLEND_ROOT to a folder with configs/default.yaml, configs/competitions/<name>.yaml and "
        "configs/runs/<name>.yaml"
    )


def find_checkout() -> Path | None:
    """The repository that this file is in; None if the package is installed."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and Path(__file__).is_relative_to(root / "src") else None
