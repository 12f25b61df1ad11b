"""competition/: data/<competition>/ filled where it is empty: made here, copied, downloaded, or asked for."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from competition.goemotions import goemotions_files
from competition.kaggle_download import download_files
from competition.kaggle_secrets import find_wide_permissions
from competition.problems import shown_path
from competition.sample import sample_files
from settings.competition import CompetitionSettings, FilesSettings
from settings.places import Places

TRUTH = "truth.csv"
"""Labels of the test rows, kept aside; only bench/score_submission.py reads it."""
FILLED = ("train.csv", "test.csv", "sample_submission.csv", TRUTH)
"""What the sources `sample` and `goemotions` fill."""


def ensure_data(competition_name: str, competition: CompetitionSettings, places: Places) -> list[str]:
    """Fill data/<competition>/ where its files are absent, never over one that is there; what was done, as sentences.

    Raises: ValueError: files are absent and only the user can get them, a source was changed, or there is no network.
    """
    files = competition.files
    folder = places.data(competition_name)
    stated = [files.train, files.test, files.sample_submission]
    by_us = files.source in ("sample", "goemotions")
    if by_us and not set(stated) <= set(FILLED):
        raise ValueError(f"files.source {files.source} fills {', '.join(FILLED[:3])}, not {', '.join(stated)}")
    absent = [name for name in (FILLED if by_us else stated) if not (folder / name).is_file()]
    if not absent:
        return []
    where = shown_path(folder)
    if files.source == "by_hand":
        raise ValueError(f"{where}: {', '.join(absent)} not there. {how_to_get(competition_name, files)}")
    if files.source == "kaggle":
        origin = _fill_from_kaggle(competition_name, files, folder, absent)
    else:
        groups = tuple(competition.labels.groups)
        contents, origin = sample_files() if files.source == "sample" else goemotions_files(places.root, groups)
        for name in absent:
            with _writing(folder / name) as file:
                file.write(contents[name])
    looks = [f"look: {finding}" for finding in find_wide_permissions()] if files.source == "kaggle" else []
    return [*looks, f"{where}: {', '.join(absent)} written ({origin})"]


def _fill_from_kaggle(competition_name: str, files: FilesSettings, folder: Path, absent: list[str]) -> str:
    """Where they came from. Raises ValueError with the commands that do the same by hand."""
    try:
        return download_files(files.kaggle or competition_name, folder, absent, _writing)
    except ValueError as error:
        where = f"{shown_path(folder)}: {', '.join(absent)} not there, and not fetched: {error}"
        raise ValueError(f"{where}. By hand: {how_to_get(competition_name, files)}") from error


def how_to_get(competition_name: str, files: FilesSettings) -> str:
    """What fills data/<competition>/, as a sentence."""
    folder = f"data/{competition_name}"
    if files.instructions:
        return f"{files.instructions} (into {folder}/)"
    if files.source == "kaggle" or files.kaggle:
        slug = files.kaggle or competition_name
        return (
            f"Run: kaggle competitions download -c {slug} -p {folder} && unzip {folder}/{slug}.zip -d {folder} "
            f"(accept the rules on https://www.kaggle.com/competitions/{slug}/rules first)"
        )
    if files.source == "by_hand":
        return f"Put it into {folder}/, or state its name under files: in configs/competitions/{competition_name}.yaml"
    return f"Run: python src/make_folds.py --competition {competition_name} (files.source {files.source} fills it)"


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the block ends, so that a kill leaves it whole or absent.

    What a killed one left is removed: a door fills one competition's folder at a time, under its lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f".{path.name}-*"):
        abandoned.unlink()
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
