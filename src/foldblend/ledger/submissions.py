"""submissions/<competition>/<name>.csv and the .json that says how it was made.

The .json is written first, the .csv last: a .csv that is there is whole and described. A .json alone is what a kill
between the two leaves; nothing reads it, and the same command writes it again.
"""

import time
from pathlib import Path

from foldblend.errors import UserError
from foldblend.files import sha256_bytes, sha256_file, write_atomically
from foldblend.ledger.records import write_record
from foldblend.settings.loading import check_name
from foldblend.settings.paths import Paths

CLOCKS_DIFFER_SECONDS = 60
"""A file server's clock may be ahead of ours by so much."""


def write_submission(paths: Paths, competition_name: str, name: str, csv_bytes: bytes, record: dict) -> Path:
    """Write a submission and its record, which gets the CSV's hash as `csv_sha256`.

    Returns: the CSV's path.
    Raises: UserError: a name that is no file name.   ValueError: a record that JSON cannot hold.
            FileError: the folder cannot be written; an earlier submission of that name is unchanged.
    """
    path = paths.submissions(check_name(competition_name, "competition")) / f"{check_name(name, 'submission')}.csv"
    write_record(path.with_suffix(".json"), {**record, "csv_sha256": sha256_bytes(csv_bytes)})
    write_atomically(path, csv_bytes)
    return path


def earlier_submissions(paths: Paths, competition_name: str) -> dict[str, Path]:
    """sha256 -> path of every CSV in submissions/<competition>/; of two equal ones, the first by name."""
    csvs = sorted(paths.submissions(competition_name).glob("*.csv"), reverse=True)
    return {sha256_file(path): path for path in csvs}


def find_submission(paths: Paths, competition_name: str, named: str) -> Path:
    """The CSV of that path or of that name in submissions/<competition>/; without a name the newest there.

    Raises: UserError: it does not exist, or the clock was set back, so that nobody knows which one is the newest.
    """
    folder = paths.submissions(competition_name)
    where = f"{folder.relative_to(paths.root)}/"
    if named:
        for path in (Path(named).resolve(), folder / named):
            if path.is_file():
                return path
        raise UserError(f"{named} does not exist, nor does it in {where}")
    csvs = sorted(folder.glob("*.csv"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not csvs:
        raise UserError(f"no CSV in {where} Run: python src/blend.py --competition {competition_name}")
    if csvs[-1].stat().st_mtime > time.time() + CLOCKS_DIFFER_SECONDS:
        raise UserError(
            f"{where}{csvs[-1].name} has a date in the future: the clock was set back, so the newest CSV is not known. "
            "Name the one to submit"
        )
    return csvs[-1]
