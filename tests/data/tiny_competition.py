"""A small competition whose files a test writes, breaks, and reads."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from foldblend.data.tables import load_tables
from foldblend.settings.competition import CompetitionSettings, LabelsSettings, SubmissionSettings
from foldblend.settings.data_files import FeaturesSettings, FilesSettings, TextSettings

PROJECT = Path(__file__).resolve().parents[2]
TRAIN = [["id", "text", "joy", "fear"]] + [[f"r{k}", f"text {k}", str(k % 2), str(k % 3 % 2)] for k in range(12)]
TEST = [["id", "text", "joy", "fear"]] + [[f"t{k}", f"other {k}", "NONE", "NONE"] for k in range(4)]
SAMPLE = [["id", "joy", "fear"]] + [[f"t{k}", "0", "0"] for k in range(4)]


@dataclass
class Files:
    """Three tables in a folder, written as a CSV writer writes them."""

    folder: Path
    train: list = field(default_factory=lambda: [row[:] for row in TRAIN])
    test: list = field(default_factory=lambda: [row[:] for row in TEST])
    sample: list = field(default_factory=lambda: [row[:] for row in SAMPLE])

    def write(self) -> Path:
        for name, rows in (("train", self.train), ("test", self.test), ("sample_submission", self.sample)):
            (self.folder / f"{name}.csv").write_bytes(as_csv(rows))
        return self.folder

    def load(self, competition: CompetitionSettings):
        return load_tables(competition, self.write())


def as_csv(rows, separator=",") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(rows)
    return text.getvalue().encode("utf-8")


def settings(task="multilabel", n_folds=2, metric="macro_f1", **groups) -> CompetitionSettings:
    """`settings(labels=dict(form="class", ...))`, the rest as it comes."""
    kinds = {"files": FilesSettings, "text": TextSettings, "labels": LabelsSettings, "submission": SubmissionSettings,
             "features": FeaturesSettings}  # fmt: skip
    return CompetitionSettings(
        id_column="id", task=task, n_folds=n_folds, metric=metric,
        **{name: kinds[name](**values) for name, values in groups.items()},
    )  # fmt: skip
