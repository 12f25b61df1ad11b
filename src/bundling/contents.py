"""bundling/: a folder that holds everything a trained blend needs to predict, laid out like the project's own root.

So `src/predict.py` runs in it as it runs at home. It is built beside its place and gets its name when it is whole.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from settings.places import Places


@dataclass(frozen=True)
class BundledModel:
    """The pretrained model of one run."""

    run: str
    name: str
    """As the run's settings name it."""
    folder: Path
    """Where it lies here."""
    patterns: tuple[str, ...]
    """The files of it that predicting needs."""
    proof: dict
    """What a copy of it is known by."""
    attached: bool
    """Whether the notebook gets it from elsewhere, so that it is not copied."""

    @property
    def key(self) -> str:
        """A folder's name; runs that start from the same files share it."""
        words = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.name).strip("-.")
        return f"{words[-60:].strip('-.')}-{self.proof['config_sha256'][:8]}{'-w' if len(self.proof) > 1 else ''}"


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when the block ends well, in the place of what was there."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_sources(code: Path, target: Path) -> None:
    """The project's own code, and nothing that was left beside it.

    Args: code: the folder src/ of the code that runs now.
    """
    for pattern in ("*.py", "*.[ch]"):
        for path in sorted(code.rglob(pattern)):
            _copy(path, target / "src" / path.relative_to(code))
    for name in ("LICENSE", "requirements.txt"):
        _copy(code.parent / name, target / name)


def copy_blend(places: Places, record_path: Path, record: dict, runs: Sequence[str], sample: Path, target: Path):
    """The blend's record, the folds, the sample submission, settings, and the records of the runs' folds."""
    competition = record["competition"]
    inside = Places(target)
    _copy(record_path, inside.submissions(competition) / record_path.name)
    _copy(places.folds(competition), inside.folds(competition))
    settings = record["settings"]["competition"]
    _copy(sample, inside.data(competition) / settings["files"]["sample_submission"])
    _write_yaml(inside.configs / "competitions" / f"{competition}.yaml", settings)
    _write_yaml(inside.configs / "default.yaml", {"competition": competition, "run": runs[0], "runs": list(runs)})
    for run in runs:
        for path in sorted(places.oof(competition).joinpath(run).glob("fold*.json")):
            _copy(path, inside.oof(competition) / run / path.name)


def copy_weights(checkpoints: Sequence[Path], weights_name: str, run_folder: Path) -> None:
    """Each fold's weights into `run_folder`/fold<k>."""
    for folder in checkpoints:
        _copy(folder / weights_name, run_folder / folder.name / weights_name)


def copy_model(model: BundledModel, run_folder: Path, note_name: str, target: Path) -> None:
    """A run's pretrained model, unless it is attached, and beside the run's folds the note that says where it is."""
    folder = target / "models" / model.key
    if not model.attached:
        for pattern in model.patterns:
            for path in sorted(model.folder.glob(pattern)):
                _copy(path, folder / path.relative_to(model.folder))
    up = "/".join([".."] * len(run_folder.relative_to(target).parts))
    note = {"name": model.name, "folder": "" if model.attached else f"{up}/models/{model.key}", "proof": model.proof}
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / note_name).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path) -> tuple[int, int]:
    """How many files there are, and how many bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)


def _write_yaml(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
