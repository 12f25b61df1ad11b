"""Scores submissions against labels that were kept aside in data/<competition>/truth.csv; no other command reads them.

    python bench/score_submission.py --competition goemotions submissions/goemotions/blend.csv

Each part that truth.csv names (GoEmotions: dev and test) is scored by itself, and their mean stands below. Beside them
stands what the submission's .json said beforehand, cross-fitted on the training rows.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from foldblend.commands import guard  # noqa: E402
from foldblend.data.fetch import TRUTH, ensure_data  # noqa: E402
from foldblend.data.labels import read_labels  # noqa: E402
from foldblend.data.reading import FileForm, Problems, raise_if_any, read_table  # noqa: E402
from foldblend.data.tables import Tables, load_tables, submission_form, train_label_form  # noqa: E402
from foldblend.errors import UserError  # noqa: E402
from foldblend.scoring.metrics.formulas import class_log_loss  # noqa: E402
from foldblend.scoring.metrics.table import METRICS  # noqa: E402
from foldblend.settings.competition import CompetitionSettings  # noqa: E402
from foldblend.settings.loading import load_competition  # noqa: E402
from foldblend.settings.paths import find_paths  # noqa: E402
from foldblend.submission.answers import lint_submission_file, read_answers  # noqa: E402

PART = "part"
"""Column of truth.csv that names a row's part; all rows are one part where it is not there."""
DECISION_METRICS = ("macro_f1", "micro_f1", "weighted_f1", "subset_accuracy")
PROBABILITY_METRICS = ("macro_auc", "macro_ap", "log_loss")


def main(argv: Sequence[str] | None = None) -> int:
    return guard(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--competition", required=True, help="a file in configs/competitions/")
    parser.add_argument("submissions", nargs="+", type=Path, help="CSV files")
    args = parser.parse_args(argv)
    paths = find_paths()
    competition = load_competition(paths, args.competition)
    for message in ensure_data(args.competition, competition, paths):
        print(message)
    tables = load_tables(competition, paths.data(args.competition))
    truth, parts = load_truth(competition, tables, paths.data(args.competition) / TRUTH)
    names = metric_names(competition)
    print(_line("", "part", names))
    for path in args.submissions:
        scores = score_submission(path, competition, tables, truth, parts)
        for part, values in scores.items():
            print(_line(path.stem, part, [f"{values[name]:.4f}" for name in names]))
        print(f"  {names[0]} of other test rows: standard error {standard_error(path, competition, tables, truth):.4f}")
        for said, value in estimates(path.with_suffix(".json")).items():
            print(f"  its .json said {said}: {value:.4f}")


def load_truth(competition: CompetitionSettings, tables: Tables, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n_test, L) bool and part names (n_test,) of the kept-aside rows, in the order of the sample submission.

    Raises: UserError: no truth.csv, or its ids are not the test rows'.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there: this competition keeps no labels of its test rows")
    problems = Problems(path)
    table = read_table(path, FileForm(), problems)
    raise_if_any([problems])
    labels = read_labels(table, train_label_form(competition, tables.answer_names), problems)
    raise_if_any([problems])
    row_of = {name: row for row, name in enumerate(table.column(competition.id_column))}
    if row_of.keys() != set(tables.sample_ids.tolist()):
        raise UserError(f"{path}: its ids are not the sample submission's; remove it, and it is written again")
    order = [row_of[name] for name in tables.sample_ids.tolist()]
    parts = np.array(table.column(PART) if PART in table.header else ["all"] * len(table.rows))
    return labels[order], parts[order]


def score_submission(
    path: Path, competition: CompetitionSettings, tables: Tables, truth: np.ndarray, parts: np.ndarray
) -> dict[str, dict[str, float]]:
    """Scores of one file, metric by metric, for each part and their mean; the file is linted first."""
    lint_submission_file(path, competition, tables)
    table = read_table(path, submission_form(competition, "utf-8"), Problems(path))
    answers = read_answers(table, competition, tables.answer_names, Problems(path))
    scores = {}
    for part in dict.fromkeys(parts.tolist()):
        rows = parts == part
        scores[part] = score_rows(competition, truth[rows], answers[rows])
    if len(scores) > 1:
        names = metric_names(competition)
        scores["mean"] = {name: float(np.mean([values[name] for values in scores.values()])) for name in names}
    return scores


N_RESAMPLES = 200
"""Bootstrap resamples of the test rows."""


def standard_error(path: Path, competition: CompetitionSettings, tables: Tables, truth: np.ndarray) -> float:
    """How far the first metric of a file moves over bootstrap resamples of the test rows: a standard deviation."""
    table = read_table(path, submission_form(competition, "utf-8"), Problems(path))
    answers = read_answers(table, competition, tables.answer_names, Problems(path))
    rng, name = np.random.default_rng(0), metric_names(competition)[0]
    drawn = (rng.integers(0, len(truth), len(truth)) for _ in range(N_RESAMPLES))
    return float(np.nanstd([score_rows(competition, truth[rows], answers[rows])[name] for rows in drawn]))


def score_rows(competition: CompetitionSettings, labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Every metric of the table, for labels bool (n, L) and decisions or probs (n, L)."""
    functions = {name: METRICS[name].score for name in metric_names(competition)}
    if competition.task == "multiclass" and "log_loss" in functions:
        functions["log_loss"] = class_log_loss
    return {name: function(labels, answers) for name, function in functions.items()}


def metric_names(competition: CompetitionSettings) -> list[str]:
    """The metrics that take this form of answer, the competition's own first where it is among them."""
    if competition.submission.form == "ranked":
        return [competition.metric]
    in_probs = competition.submission.form == "probabilities"
    usual = PROBABILITY_METRICS if in_probs else DECISION_METRICS
    entry = METRICS[competition.metric]
    own = [competition.metric] if entry.takes_probs == in_probs and not entry.by_groups else []
    return list(dict.fromkeys((*own, *usual)))


def estimates(record_path: Path) -> dict[str, float]:
    """Every in-sample and cross-fitted number of a submission's record; empty where there is no record."""
    if not record_path.is_file():
        return {}
    said = _numbers(json.loads(record_path.read_text(encoding="utf-8")))
    return {name: value for name, value in said.items() if "cross_fitted" in name or "in_sample" in name}


def _numbers(record, prefix: str = "") -> dict[str, float]:
    """Dotted key -> number, for every number of nested dicts."""
    if isinstance(record, dict):
        return {
            key: value for name, part in record.items() for key, value in _numbers(part, f"{prefix}.{name}").items()
        }
    is_number = isinstance(record, (int, float)) and not isinstance(record, bool)
    return {prefix.removeprefix("."): float(record)} if is_number else {}


def _line(name: str, part: str, cells: Sequence[str]) -> str:
    return f"{name:<24} {part:<6} " + " ".join(f"{cell:>15}" for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
