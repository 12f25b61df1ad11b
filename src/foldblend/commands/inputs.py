"""What every training command begins with: the competition's tables and folds, made first if they are missing."""

from foldblend.data.fetch import ensure_data
from foldblend.data.tables import Tables, load_tables
from foldblend.files import hold_lock
from foldblend.folding.draw import draw_folds
from foldblend.ledger.folds import Folds, ensure_folds
from foldblend.settings.loading import Job


def prepare_tables(job: Job) -> Tables:
    """The competition's tables; missing files are downloaded or generated, by one of several processes."""
    data_dir = job.paths.data(job.competition_name)
    with hold_lock(data_dir.with_name(f".{job.competition_name}.lock")):
        for line in ensure_data(job.competition_name, job.competition, job.paths):
            print(line, flush=True)
    return load_tables(job.competition, data_dir)


def prepare_folds(job: Job, tables: Tables) -> Folds:
    """The competition's folds; drawn now if nobody has drawn them."""
    return ensure_folds(job.paths, job.competition_name, job.competition, tables, draw_folds)
