"""An entry of the log, and a submission as Kaggle lists it."""

from dataclasses import dataclass

from foldblend.ledger.submissions import LogEntry

ENTRY = LogEntry(
    "2026-01-02T03:04:05Z", "toy", "submissions/toy/a.csv", "a" * 64, 7, "complete", 0.61, 0.6, 0.62, 0.605, None, "try"
)
NOW = "2026-01-02T04:00:00Z"


@dataclass(frozen=True)
class Listed:
    ref: int
    file_name: str = "a.csv"
    description: str = "try"
    status: str = "complete"
    public_score: float | None = 0.5
    private_score: float | None = None
    total_bytes: int = 0
    date: str = "2026-01-02T03:30:00Z"
