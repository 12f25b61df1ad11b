"""Is a search worth its time? Found settings against the defaults, and against more seeds of the defaults.

    python bench/tuning_gain.py --competition goemotions --search minilm --trials 12

tune.py runs first: noise, trials, and the check with fresh seeds on a fold that no trial saw. Then the seconds that
the trials took are spent on more seeds of the base run on the same fold, all rows, and three answers are compared
there: the mean of the base run's check seeds, the mean of as many seeds of the found settings, and the mean of the
base run's check seeds and the extra ones. Everything is kept in oof/<competition>/.studies/ and is not repeated.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from foldblend.commands import tune  # noqa: E402
from foldblend.commands.inputs import prepare_folds, prepare_tables  # noqa: E402
from foldblend.ledger.oof import FOLD  # noqa: E402
from foldblend.ledger.records import read_record  # noqa: E402
from foldblend.queueing.queue import without_flags  # noqa: E402
from foldblend.scoring.validation.comparing import Predicted  # noqa: E402
from foldblend.settings.loading import open_job  # noqa: E402
from foldblend.tuning.study import trial_name  # noqa: E402

FIRST_EXTRA_SEED = 3001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], add_help=False)
    parser.add_argument("--most_seeds", type=int, default=12, help="at most so many extra seeds of the base run")
    flags, argv = parser.parse_known_args()
    tune.main(argv)
    job = open_job("tune.py", argv, tune.add_flags)
    search = tune.open_search(job)
    tables = prepare_tables(job)
    folds = prepare_folds(job, tables)
    work = tune.Work(job, search, job.own.study or search.name, tables, folds, without_flags(argv, tune.OWN))
    study = tune.open_study(work)
    best, check = study.best(), search.settings.check_folds(folds.n_folds)
    if best is None or not (work.folder / f"check-{trial_name(best.number)}-seed2001").is_dir():
        sys.exit("the search found nothing above the base run: all of its time would have been better spent on seeds")
    compare(work, study, best, check, flags.most_seeds)


def compare(work, study, best, check, most: int) -> None:
    """Train the extra seeds and print the three answers and their differences."""
    names = [path.name for path in work.folder.iterdir()]
    base = sorted(name for name in names if name.startswith("check-base-seed"))
    found = sorted(name for name in names if name.startswith(f"check-{trial_name(best.number)}-seed"))
    spent = sum(seconds_of(work, trial_name(trial.number)) for trial in study.counted())
    per_seed = sum(seconds_of(work, name) for name in base) / len(base)
    count = min(most, int(spent / per_seed))
    extra = [f"extra-seed{seed}" for seed in work.seeds(count, FIRST_EXTRA_SEED)]
    print(f"\nthe trials took {spent:.0f} s, a seed of the base run takes {per_seed:.0f} s: {count} more seeds")
    jobs = [job for name in extra for job in work.jobs(name, {"seed": int(name[10:])}, check, 1.0)]
    work.train(jobs)
    answers = {
        f"mean of {len(base)} seeds of the base run": mean_of(work, base),
        f"mean of {len(found)} seeds of the found settings": mean_of(work, found),
        f"mean of {len(base) + count} seeds of the base run": mean_of(work, [*base, *extra]),
    }
    first, tuned, seeds = (Predicted(name, *answer) for name, answer in answers.items())
    sign = work.task.entry.sign
    for each in (first, tuned, seeds):
        score = work.comparer.score(each)
        print(f"{each.name}: {work.task.metric} {sign * score.score:.4f}, sd of the rows {score.error:.4f}")
    for one, other in ((first, tuned), (first, seeds), (seeds, tuned)):
        gain = work.comparer.compare(one, other)
        low, high = sorted((sign * gain.low, sign * gain.high))
        print(f"{other.name} minus {one.name}: {sign * gain.gain:+.4f}, 90 % interval {low:+.4f} to {high:+.4f}")


def mean_of(work, names) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and the mean score of several runs of the study on them."""
    predicted = [work.predicted(name) for name in names]
    return predicted[0].rows, np.mean([each.scores for each in predicted], axis=0, dtype=np.float32)


def seconds_of(work, name: str) -> float:
    """What the folds of a run took, those that were finished."""
    return sum(read_record(path, FOLD).get("seconds", 0.0) for path in (work.folder / name).glob("fold*.json"))


if __name__ == "__main__":
    main()
