"""Door: weigh the runs in oof/, cut probabilities into labels, say the honest score, write the submission.

python src/blend.py
python src/blend.py --competition goemotions --runs tfidf minilm --strategy label
python src/blend.py --from submissions/goemotions/blend-1a2b3c4d.json
"""

import sys
from pathlib import Path

from competition.submission import build_submission, lint_submission, lint_submission_file, submission_bytes
from competition.tables import Tables, load_tables
from ledger.folds import Folds, load_folds
from ledger.runs import RunPredictions, load_runs
from ledger.submissions import earlier_submissions, write_submission
from scoring.blending import Blend, Runs, make_blend
from scoring.decoders import Task, decide
from scoring.parallel import single_threaded_products
from scoring.predictor import predict_folds
from scoring.probs import to_scores
from scoring.scores import Scores
from scoring.summary import score_table
from settings.loading import Job, guard, open_job


def add_flags(parser) -> None:
    parser.add_argument("--runs", nargs="+", default=None, help="runs in oof/<competition>/; all by default")
    parser.add_argument("--strategy", default="", help="hand in this strategy or run, whatever its score")
    parser.add_argument("--seed", type=int, default=0, help="of resamples, bags and repeated partitions")


def main(argv: list[str] | None = None) -> None:
    job = open_job("blend.py", argv, add_flags)
    tables = load_tables(job.competition, job.places.data(job.competition_name))
    folds = load_folds(job.places, job.competition_name, tables, job.competition)
    predictions = load_runs(job.places, job.competition_name, job.own.runs, folds, tables)
    task = Task(job.competition.metric, job.competition.task)
    runs = gather_runs(predictions, folds, tables, task)
    with single_threaded_products():
        blend = make_blend(task, runs, job.own.strategy, job.own.seed)
        print("\n".join(score_table(blend, task, find_notes(predictions))))
        path = hand_in(job, tables, predictions, blend, task)
    show_end(job, path)


def gather_runs(predictions: list[RunPredictions], folds: Folds, tables: Tables, task: Task) -> Runs:
    """The runs' held-out scores side by side."""
    scores = Scores([to_scores(run.oof, run.kind, task.kind) for run in predictions])
    return Runs(tuple(run.name for run in predictions), scores, tables.labels, folds.fold, folds.group)


def find_notes(predictions: list[RunPredictions]) -> dict[str, str]:
    """What a reader of the table must know of a run."""
    chosen = [run.name for run in predictions if any(record.get("selected_on_heldout") for record in run.records)]
    return {name: "selected on its held-out rows" for name in chosen}


def hand_in(job: Job, tables: Tables, predictions: list[RunPredictions], blend: Blend, task: Task) -> Path:
    """Predict the test rows, lint, write, lint again."""
    probs = predict_folds(blend.predictor, [to_scores(run.test_folds, run.kind, task.kind) for run in predictions])
    probs = probs.mean(axis=0)
    frame = build_submission(job.competition, tables, decide(blend.rule, probs), probs)
    earlier = earlier_submissions(job.places, job.competition_name)
    for finding in lint_submission(frame, job.competition, tables, blend.honest, earlier):
        print(f"look: {finding}")
    path = write_submission(job.places, job.competition_name, "blend", submission_bytes(frame), {})
    lint_submission_file(path, job.competition, tables, blend.honest)
    return path


def show_end(job: Job, path: Path) -> None:
    """The last lines: where the CSV is and how it is handed in."""
    shown = path.relative_to(job.places.root)
    slug = job.competition.files.kaggle or job.competition_name
    print(f"\n{shown}")
    print(f'kaggle competitions submit -c {slug} -f {shown} -m "{path.stem}"')


if __name__ == "__main__":
    sys.exit(guard(main))
