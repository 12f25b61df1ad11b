"""The command that scores a submission against labels kept aside."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from foldblend.data.fetch import ensure_data
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.submission.answers import build_submission, submission_bytes

COMMAND = Path(__file__).resolve().parents[2] / "bench" / "score_submission.py"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("score_submission", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sample(paths):
    """The sample competition in a root of its own, and its tables."""
    competition = load_competition(paths, "sample")
    ensure_data("sample", competition, paths)
    return competition, load_tables(competition, paths.data("sample"))


def write(paths, competition, tables, decisions, name="x"):
    path = paths.submissions("sample") / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(submission_bytes(build_submission(competition, tables, decisions, None)))
    return path


def read_truth(paths, tables):
    lines = (paths.data("sample") / "truth.csv").read_text().split("\n")[1:-1]
    return np.array([[cell == "1" for cell in line.split(",")[1:]] for line in lines])


def test_scores_are_sklearns(command, paths, sample, capsys):
    competition, tables = sample
    truth = read_truth(paths, tables)
    decisions = truth ^ (np.random.default_rng(0).random(truth.shape) < 0.1)
    path = write(paths, competition, tables, decisions)
    assert command.main(["--competition", "sample", str(path)]) == 0
    header, line, error = capsys.readouterr().out.strip().split("\n")
    assert header.split() == ["part", "macro_f1", "micro_f1", "weighted_f1", "subset_accuracy"]
    expected = [f1_score(truth, decisions, average=kind) for kind in ("macro", "micro", "weighted")]
    expected.append((truth == decisions).all(axis=1).mean())
    assert line.split() == ["x", "all", *[f"{value:.4f}" for value in expected]]
    drawn = [np.random.default_rng(seed).integers(0, len(truth), len(truth)) for seed in range(60)]
    spread = np.std([f1_score(truth[rows], decisions[rows], average="macro") for rows in drawn])
    assert error.startswith("  macro_f1 of other test rows: standard error 0.")
    assert float(error.split()[-1]) == pytest.approx(spread, rel=0.3)


def test_parts_are_scored_apart_and_their_mean_stands_below(command, paths, sample, capsys):
    competition, tables = sample
    truth = read_truth(paths, tables)
    path = write(paths, competition, tables, truth ^ (np.arange(len(truth)) % 2 == 1)[:, None])
    file = paths.data("sample") / "truth.csv"
    lines = file.read_text().split("\n")[:-1]
    parted = [f"{line},{part}" for line, part in zip(lines, ["part", *["dev", "test"] * 1000])]
    file.write_text("\n".join([parted[0], *parted[:0:-1]]) + "\n")
    assert command.main(["--competition", "sample", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.strip().split("\n")[1:-1]]
    assert [row[1] for row in rows] == ["test", "dev", "mean"] or [row[1] for row in rows] == ["dev", "test", "mean"]
    scores = {row[1]: float(row[2]) for row in rows}
    assert (scores["dev"], scores["test"], scores["mean"]) == (1.0, 0.0, 0.5)


def test_what_the_record_said_stands_beside(command, paths, sample, capsys):
    competition, tables = sample
    path = write(paths, competition, tables, ~read_truth(paths, tables))
    record = {"score": {"cross_fitted": 0.61, "in_sample": 0.65}, "seconds": 3.0, "is_cross_fitted": True}
    path.with_suffix(".json").write_text(json.dumps(record))
    assert command.main(["--competition", "sample", str(path)]) == 0
    said = [line.strip() for line in capsys.readouterr().out.split("\n") if "json" in line]
    assert said == ["its .json said score.cross_fitted: 0.6100", "its .json said score.in_sample: 0.6500"]


def test_probabilities_are_scored_as_such(command, paths, sample, capsys):
    config = paths.configs / "competitions" / "sample.yaml"
    config.write_text(config.read_text().replace("submission:\n  form: columns", "submission:\n  form: probabilities"))
    competition = load_competition(paths, "sample")
    assert competition.submission.form == "probabilities"
    tables = sample[1]
    truth = read_truth(paths, tables)
    probs = np.clip(truth * 0.4 + np.random.default_rng(0).random(truth.shape) * 0.6, 0.0, 1.0)
    path = paths.submissions("sample") / "p.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(submission_bytes(build_submission(competition, tables, None, probs)))
    assert command.main(["--competition", "sample", str(path)]) == 0
    header, line, error = capsys.readouterr().out.strip().split("\n")
    assert header.split() == ["part", "macro_auc", "macro_ap", "log_loss"]
    expected = (
        roc_auc_score(truth, probs, average="macro"),
        average_precision_score(truth, probs, average="macro"),
        np.mean([log_loss(truth[:, k], probs[:, k], labels=[False, True]) for k in range(truth.shape[1])]),
    )
    assert line.split() == ["p", "all", *[f"{value:.4f}" for value in expected]]


def test_a_wrong_submission_is_refused(command, paths, sample, capsys):
    path = paths.root / "short.csv"
    rows = (paths.data("sample") / "sample_submission.csv").read_text().splitlines()
    path.write_text("\n".join(rows[:-1]) + "\n")
    assert command.main(["--competition", "sample", str(path)]) == 2
    assert "1 ids of the sample submission are missing" in capsys.readouterr().err


def test_a_competition_without_truth(command, paths, sample, capsys):
    competition, tables = sample
    path = write(paths, competition, tables, ~read_truth(paths, tables))
    config = paths.configs / "competitions" / "mine.yaml"
    config.write_text("id_column: ID\ntext:\n  columns: [Tweet]\n")
    paths.data("sample").rename(paths.data("mine"))
    (paths.data("mine") / "truth.csv").unlink()
    assert command.main(["--competition", "mine", str(path)]) == 2
    assert "keeps no labels of its test rows" in capsys.readouterr().err
