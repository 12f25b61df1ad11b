"""Check that every file of the project is what its record says; list and remove what was set aside.

python src/check.py
python src/check.py --competition mine
python src/check.py --clean
"""

import shutil
import sys
from pathlib import Path

from foldblend.console import coloured
from foldblend.errors import UserError
from foldblend.files import OLD
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.integrity import check_project, count_words, find_old, measure
from foldblend.settings.loading import Job, open_job


class FaultsError(UserError):
    """Files that are not what their records say."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.exit_status = status


def add_flags(parser) -> None:
    parser.add_argument("--clean", action="store_true", help="list what is in .old/ folders, and remove it")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("check.py", argv, add_flags)
    if job.own.clean:
        clean(job)
        return
    named = any(flag.split("=", 1)[0] == "--competition" for flag in argv)
    print(f"{job.paths.root}: {f'competition {job.competition_name}' if named else 'all competitions'}", flush=True)
    findings = check_project(job.paths, job.competition_name if named else "", WEIGHTS)
    for kind, sentence in findings.found:
        print(f"{coloured(f'{kind}:', 'red')} {sentence}")
    print(f"{findings.n_files} files compared, {findings.n_bytes / 1e6:,.1f} MB: {count_words(findings)}")
    old = find_old(job.paths)
    if old:
        size = sum(map(measure, old))
        print(f"{len(old)} items set aside in {OLD}/ folders, {size / 1e6:,.1f} MB; --clean lists and removes them")
    if findings.status:
        raise FaultsError(
            f"{len(findings.found)} files are not what their records say. Restore them, or make them again with the "
            "command that made them. Nothing was changed",
            findings.status,
        )


def clean(job: Job) -> None:
    """Remove everything that was set aside, one line per item."""
    items = find_old(job.paths)
    for item in items:
        names = ", ".join(sorted(each.name for each in item.iterdir())) if item.is_dir() else ""
        print(f"removed {item.relative_to(job.paths.root)}: {names} ({measure(item) / 1e6:,.1f} MB)")
        remove(item)
    if not items:
        print(f"nothing was set aside: no {OLD}/ folder holds anything")


def remove(item: Path) -> None:
    """One item of an .old/ folder, and the folder if it was the last."""
    shutil.rmtree(item) if item.is_dir() else item.unlink()
    if not any(item.parent.iterdir()):
        item.parent.rmdir()
