"""The table of runs as a user sees it: whole and half-trained runs, two runs compared, folds that train now."""

import csv
import io
import json
import time

import pytest
from small_competition import write_competition, write_runs

from foldblend.commands import guard, runs
from foldblend.ledger.history import FoldHistory, history_path

SETTINGS = {"learner": "tfidf", "seed": 42}


def settings(number):
    return {"settings": {**SETTINGS, "seed": 42 + number}, "seconds": 60.0, "device": "cpu", "n_parameters": 22_700_000}


def run_runs(capsys, *flags, competition="small"):
    status = guard(lambda: runs.main(["--competition", competition, *flags]))
    shown = capsys.readouterr()
    assert status == 0, shown.err
    return shown.out


def table(shown):
    """The cells of the score table by run."""
    lines = [line.split() for line in shown.splitlines() if line.startswith("run")]
    return {cells[0]: cells[1:] for cells in lines[1:]}


@pytest.fixture
def small(paths):
    write_runs(paths, write_competition(paths), noise=(1.5, 0.3, 0.3), record=settings, n_trained=(5, 5, 2))
    return paths


@pytest.mark.usefixtures("small")
def test_the_table_is_sorted_and_fits_80_columns(capsys):
    shown = run_runs(capsys)
    assert max(map(len, shown.splitlines())) <= 80
    rows = [line.split() for line in shown.splitlines()]
    scores = [row for row in rows if row[:1] and row[0] in ("run0", "run1", "run2") and len(row) > 2 and "." in row[1]]
    assert [float(row[1]) for row in scores] == sorted((float(row[1]) for row in scores), reverse=True)
    assert {row[0] for row in scores} == {"run0", "run1", "run2"}
    worst = scores[-1]
    assert worst[0] == "run0"
    assert worst[-2].startswith("-") and worst[-2].endswith("*")  # the noisy run is worse, and that is no noise
    facts = [row for row in rows if row[:1] == ["run2"]][-1]
    assert facts[1:4] == ["2/5", "2:00", "22.7M"]
    assert "2 seeds of run0: mean" in shown  # the third has not all folds


@pytest.mark.usefixtures("small")
def test_what_a_run_adds_is_told_of_finished_runs_alone(capsys):
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(run_runs(capsys, "--csv")))}
    assert float(rows["run1"]["adds"]) > 0
    assert rows["run2"]["adds"] == ""
    assert rows["run2"]["folds"] == "0 1"
    assert rows["run1"]["learner"] == "tfidf"
    assert float(rows["run0"]["vs_first"]) < 0


@pytest.mark.usefixtures("small")
def test_two_runs_differ_in_settings_and_score(capsys):
    shown = run_runs(capsys, "--diff", "run0", "run2")
    assert [line.split() for line in shown.splitlines() if line.startswith("seed")] == [["seed", "42", "44"]]
    assert "macro_f1 of run2 minus run0, on the 48 rows that both predicted:" in shown
    assert "more than noise: run2 is better" in shown


@pytest.mark.usefixtures("small")
def test_a_run_beside_itself_is_refused(capsys):
    assert guard(lambda: runs.main(["--competition", "small", "--diff", "run0", "run0"])) == 2
    assert "expected the names of two runs" in capsys.readouterr().err


def test_a_loss_is_sorted_by_the_lowest(paths, capsys):
    hidden = write_competition(paths, metric="log_loss", form="probabilities")
    write_runs(paths, hidden, noise=(1.5, 0.3), record=settings)
    shown = run_runs(capsys)
    rows = [line.split() for line in shown.splitlines() if line.startswith("run") and "." in line]
    assert [row[0] for row in rows[:2]] == ["run1", "run0"]
    assert float(rows[0][1]) < float(rows[1][1])
    assert rows[1][4].startswith("+")  # a higher loss


def test_a_damaged_run_is_left_out_and_named(small, capsys):
    path = small.oof("small") / "run1" / "fold0.npz"
    path.write_bytes(path.read_bytes()[:-1])
    shown = run_runs(capsys)
    assert "left out:" in shown
    assert "run1" in shown
    assert guard(lambda: runs.main(["--competition", "small", "--runs", "run1"])) == 2


def test_predictions_made_elsewhere_have_a_line(small, capsys):
    folder = small.oof("small") / "theirs"
    folder.mkdir()
    for name, ids in (("oof", [f"r{i}" for i in range(120)]), ("test", [f"t{i}" for i in range(40)])):
        lines = ["id,joy,fear,anger", *(f"{each},0.2,{(i % 7) / 10},0.4" for i, each in enumerate(ids))]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    assert "made elsewhere" in run_runs(capsys)
    assert "no settings to compare" in run_runs(capsys, "--diff", "theirs", "run1")


def test_no_run_at_all_says_what_to_run(paths, capsys):
    write_runs(paths, write_competition(paths), noise=())
    assert guard(lambda: runs.main(["--competition", "small"])) == 2
    assert "holds no run yet. Run: accelerate launch src/train.py" in capsys.readouterr().err


def test_folds_that_train_are_watched(small, monkeypatch, capsys):
    history = FoldHistory(history_path(small, "small", "run2", 3))
    history.start(0)
    for step in (10, 20, 30):
        history.add({"step": step, "steps": 120, "rows": 16 * step, "seconds": step / 2, "loss": 0.25})
    history.add({"step": 30, "steps": 120, "rows": 480, "seconds": 16.0, "heldout_macro_f1": 0.5})
    done = FoldHistory(history_path(small, "small", "run0", 0))  # its predictions are there
    done.start(0)
    done.add({"step": 10, "steps": 10, "rows": 160, "seconds": 1.0, "loss": 0.1})

    class Own:
        competition_name = "small"
        paths = small

        class competition:
            metric = "macro_f1"

    now = history.path.stat().st_mtime
    (line,) = runs.watch_lines(Own, 100, now)
    assert line.split()[:3] == ["run2", "fold", "3"]
    for words in ("25%", "loss 0.2500", "macro_f1 0.5000", "29 r/s", "0:50 left"):
        assert words in line
    (line,) = runs.watch_lines(Own, 100, now + 3600)
    assert "silent for 1:00:00" in line

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    assert guard(lambda: runs.main(["--competition", "small", "--watch"])) == 130


def test_the_parameters_of_a_training_are_counted(paths, toy_competition, capsys):
    from foldblend.commands import train

    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    train.main(["--competition", "toy", "--run", "words", "--fold", "0"])
    record = json.loads((paths.oof("toy") / "words" / "fold0.json").read_text())
    assert record["n_parameters"] > 100
    assert "1/" in run_runs(capsys, competition="toy")
