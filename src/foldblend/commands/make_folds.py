"""Door: draw the folds of a competition once, and show them.

python src/make_folds.py --competition goemotions
"""

from foldblend.data.fetch import ensure_data
from foldblend.data.tables import Tables, load_tables
from foldblend.files import hold_lock
from foldblend.folding.draw import describe_conflicts, describe_folds, draw_folds
from foldblend.folding.duplicates import find_conflicts, group_same
from foldblend.ledger.folds import Folds, draw_and_write_folds, ensure_folds
from foldblend.ledger.runs import find_stale_runs
from foldblend.settings.loading import Job, open_job


def add_flags(parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="draw anew over the folds that are there")


def main(argv: list[str] | None = None) -> None:
    job = open_job("make_folds.py", argv, add_flags)
    data_dir = job.paths.data(job.competition_name)
    with hold_lock(data_dir.with_name(f".{job.competition_name}.lock")):
        for line in ensure_data(job.competition_name, job.competition, job.paths):
            print(line)
    tables = load_tables(job.competition, data_dir)
    folds, verdict = draw_or_keep(job, tables)
    print(f"{job.paths.folds(job.competition_name).relative_to(job.paths.root)}: {verdict}")
    show(folds, tables)
    stale = find_stale_runs(job.paths, job.competition_name, folds)
    if stale:
        print(
            f"made on other folds and refused from now on: oof/{job.competition_name}/ {', '.join(stale)}. "
            f"Train anew with src/train.py --competition {job.competition_name} --run NAME --fold all --overwrite"
        )


def draw_or_keep(job: Job, tables: Tables) -> tuple[Folds, str]:
    """The folds, and what was done; a file that is there is replaced with --overwrite only."""
    at = (job.paths, job.competition_name, job.competition, tables)
    path = job.paths.folds(job.competition_name)
    if not job.own.overwrite:
        verdict = "kept as it was; it is of this training file" if path.exists() else "drawn"
        return ensure_folds(*at, draw_folds), verdict
    with hold_lock(path.with_name(f".{path.stem}.lock")):
        return draw_and_write_folds(*at, draw_folds), "drawn anew"


def show(folds: Folds, tables: Tables) -> None:
    """The counts a fold, and texts whose labels contradict each other."""
    labels, names = tables.labels, tables.label_names
    conflicts = find_conflicts(group_same(tables.train_texts)[0], labels)
    lines = describe_folds(labels, names, folds.fold, folds.group, folds.n_folds)
    print("\n".join([*lines, *describe_conflicts(conflicts, tables.train_ids, tables.train_texts, labels, names)]))
