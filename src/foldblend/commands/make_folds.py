"""Draw the folds of a competition once, or read those that its settings name, and show them.

python src/make_folds.py --competition goemotions
"""

from foldblend.commands.inputs import make_draw, prepare_folds, prepare_tables
from foldblend.console import columns, print_lines, warn
from foldblend.data.tables import Tables
from foldblend.files import describe_old, hold_lock, list_old
from foldblend.folding.draw import describe_conflicts, describe_folds
from foldblend.folding.duplicates import find_conflicts, group_same
from foldblend.ledger.folds import Folds, draw_and_write_folds
from foldblend.ledger.runs import find_stale_runs
from foldblend.settings.loading import Job, open_job


def add_flags(parser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="draw or read again; the old files are kept in folds/.old/"
    )


def main(argv: list[str] | None = None) -> None:
    job = open_job("make_folds.py", argv, add_flags)
    print(f"competition {job.competition_name}: {job.competition.n_folds} folds", flush=True)
    tables = prepare_tables(job)
    folds, outcome = draw_or_keep(job, tables)
    print(f"{job.paths.folds(job.competition_name).relative_to(job.paths.root)}: {outcome}")
    show(folds, tables)
    stale = find_stale_runs(job.paths, job.competition_name, folds)
    if stale:
        again = f"src/train.py --competition {job.competition_name} --run NAME --fold all --overwrite"
        shown = ", ".join(f"{name} ({count})" for name, count in stale.items())
        warn(
            "trained on other folds, and refused from now on: "
            f"oof/{job.competition_name}/ {shown}. Train again: accelerate launch {again}"
        )


def draw_or_keep(job: Job, tables: Tables) -> tuple[Folds, str]:
    """The folds, and what was done; folds that exist are replaced with --overwrite only."""
    path = job.paths.folds(job.competition_name)
    made = f"read from {job.competition.folds.file}" if job.competition.folds.file else "drawn"
    if not job.own.overwrite:
        outcome = f"kept; they were {made} on this training file" if path.exists() else made
        return prepare_folds(job, tables), outcome
    draw, old = make_draw(job, tables), list_old(path.parent)
    with hold_lock(path.with_name(f".{path.stem}.lock")):
        folds = draw_and_write_folds(job.paths, job.competition_name, job.competition, tables, draw)
    kept = [each for each in list_old(path.parent) if each not in old]
    return folds, f"{made} again" + (f"; {describe_old(job.paths.root, kept)}" if kept else "")


def show(folds: Folds, tables: Tables) -> None:
    """Label counts per fold, and texts whose copies have other labels."""
    labels, names = tables.labels, tables.label_names
    conflicts = find_conflicts(group_same(tables.train_texts)[0], labels)
    lines = describe_folds(labels, names, folds.fold, folds.group, folds.n_folds, columns())
    lines += tables.label_lines
    print_lines([*lines, *describe_conflicts(conflicts, tables.train_ids, tables.train_texts, labels, names)])
