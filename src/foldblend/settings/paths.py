"""Where everything of one project lies on disk; the only place that spells a folder's name."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The folders under one root. Nothing is created here; writers create what they write into."""

    root: Path

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    def data(self, competition: str) -> Path:
        return self.root / "data" / competition

    def folds(self, competition: str) -> Path:
        """The CSV of the folds; its .json lies beside it."""
        return self.root / "folds" / f"{competition}.csv"

    def oof(self, competition: str) -> Path:
        """One folder a run below this one."""
        return self.root / "oof" / competition

    def submissions(self, competition: str) -> Path:
        return self.root / "submissions" / competition

    @property
    def submissions_log(self) -> Path:
        """One row a submission that was handed in, of all competitions."""
        return self.root / "submissions" / "log.csv"

    def bundle(self, competition: str) -> Path:
        """One folder a blend below this one: what a notebook elsewhere predicts with."""
        return self.root / "bundle" / competition

    def checkpoints(self, competition: str, run: str) -> Path:
        return self.root / "checkpoints" / competition / run

    def tokens(self, competition: str) -> Path:
        """Token ids of the competition's texts, kept for the next run; may be deleted at any time."""
        return self.root / "checkpoints" / competition / ".tokens"


def find_paths() -> Paths:
    """The repository this file stands in, or the folder `$FOLDBLEND_ROOT` names (tests, a second workspace)."""
    named = os.environ.get("FOLDBLEND_ROOT")
    return Paths(Path(named).resolve() if named else Path(__file__).resolve().parents[3])
