"""A study from the search file to the YAML of its best settings; trainings are those of tests/fake_trial.py."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from fake_trial import FakeTraining
from small_competition import write_competition, write_runs

from foldblend.commands import guard, report, tune
from foldblend.ledger.history import read_studies
from foldblend.settings.loading import load_run

TESTS = Path(__file__).parents[1]
SEARCH = """run: strong
folds: [0]
trials: 4
noise_seeds: 2
confirm_folds: [2, 3, 4]
confirm_seeds: 1
space:
  logistic.inverse_regularization: {low: 0.5, high: 30, log: true}
"""


@pytest.fixture
def small(paths, monkeypatch):
    write_runs(paths, write_competition(paths), noise=())
    (paths.configs / "runs" / "strong.yaml").write_text("learner: tfidf\nlogistic: {inverse_regularization: 20}\n")
    (paths.configs / "search" / "mine.yaml").write_text(SEARCH)
    monkeypatch.setattr("foldblend.queueing.queue.Training", FakeTraining)
    monkeypatch.setattr("foldblend.queueing.queue.POLL_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(tune, "start_words", lambda name: [sys.executable, str(TESTS / "fake_trial.py")])
    monkeypatch.setattr(tune, "LOOK_EVERY_SECONDS", 0)
    return paths


def run_tune(capsys, *flags, status=0):
    assert guard(lambda: tune.main(["--competition", "small", "--search", "mine", *flags])) == status
    shown = capsys.readouterr()
    return shown.out if not status else shown.err


def starts(paths):
    """How often each fold of each run was started."""
    return Counter((paths.root / "oof/small/.studies/mine/starts.txt").read_text().splitlines())


def test_a_study_ends_with_a_verdict_and_a_run_that_is_not_repeated(small, capsys):
    shown = run_tune(capsys)
    assert max(map(len, shown.splitlines())) <= 80 or "oof/" in shown
    assert "strong: macro_f1 mean" in shown and "sd" in shown and "over 2 seeds" in shown
    assert "4 trials: 4 complete" in shown and "logistic.inverse_regularization" in shown
    assert "check: base run and trial-" in shown and "on fold 2, 3, 4, 1 seed:" in shown
    verdict = shown.split("minus the base run, on fold 2, 3, 4, 1 seed:")[1].splitlines()
    is_gain = "more than noise" in verdict[3]
    assert "standard error 0." in verdict[1] and ("noise" in verdict[3] or "no gain was shown" in verdict[3])
    assert ("accelerate launch" in shown) == is_gain and ("Not recommended over strong" in shown) != is_gain
    studies = small.root / "oof/small/.studies/mine"
    assert {path.name for path in studies.glob("*.png")} == {"history.png", "importance.png"}
    (facts,) = read_studies(small, "small")
    assert (facts["name"], facts["run"], facts["greater_is_better"], len(facts["trials"])) == (
        "mine",
        "strong",
        True,
        4,
    )
    assert set(facts["importance"]) == {"logistic.inverse_regularization"} and facts["base_spread"] is not None
    report.main(["--competition", "small"])
    page = (small.submissions("small") / "report.html").read_text()
    assert "mine: 4 trials are complete; base run strong" in page and '"importance-0":' in page
    capsys.readouterr()

    text = (small.configs / "runs" / "mine-tuned.yaml").read_text()
    assert text.splitlines()[1].startswith("# Found by tune.py, study mine.")
    assert "4 trials: 4 complete" in text and "sd 0." in text and "standard error" in text
    values = yaml.safe_load(text)
    assert values["base"] == "strong" and set(values["logistic"]) == {"inverse_regularization"}
    tuned = load_run(small, "mine-tuned")
    assert tuned.logistic.inverse_regularization == values["logistic"]["inverse_regularization"] < 20

    before = starts(small)
    assert set(before.values()) == {1}
    again = run_tune(capsys)
    assert starts(small) == before and "started" not in again and again.endswith(shown.split("1 seed:")[1])
    assert "4 trials: 4 complete" in run_tune(capsys, "--show")
    assert not [path for path in small.oof("small").iterdir() if path.name[0] != "."]  # nothing that blend.py takes


def test_a_trial_that_falls_behind_is_stopped_and_the_others_are_not(small, capsys, monkeypatch):
    monkeypatch.setattr("foldblend.tuning.study.FEWEST_TO_PRUNE", 1)
    shown = run_tune(capsys, "--trials", "6", "--side_by_side", "2")
    stopped = shown.count("stopped early, its held-out score")
    assert 1 <= stopped <= 5 and f"6 trials: {6 - stopped} complete, {stopped} stopped early" in shown
    best = max(
        float(line.split()[-1]) for line in shown.splitlines() if line.startswith("trial-") and "macro_f1" in line
    )
    assert f"{best:.4f}" in shown.split("trial   score")[1].splitlines()[1]


def test_trials_that_cannot_be_trained_end_the_search_with_a_reason(small, capsys, monkeypatch):
    monkeypatch.setattr(FakeTraining, "largest", 20)
    (small.configs / "search" / "mine.yaml").write_text(SEARCH.replace("low: 0.5, high: 30", "low: 21, high: 30"))
    said = run_tune(capsys, "--attempts", "1", "--trials", "9", status=2)
    assert "3 trials could not be trained" in said and "start another study with --study NAME" in said


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--show"], "its base run is not trained yet"),
        (["--trials", "-1"], "expected --trials"),
        (["--study", "a/b"], "--study is 'a/b'"),
        (["--storage", "nothing://ann:pa55word@host/x"], r"storage nothing://***@host/x cannot be opened"),
        (["--serch", "x"], "did you mean --search"),
    ],
)
@pytest.mark.usefixtures("small")
def test_what_cannot_work_is_said_before_anything_is_trained(capsys, flags, message):
    said = run_tune(capsys, *flags, status=2)
    assert message in said.replace("\n  ", " ") and "pa55word" not in said


def test_a_run_that_chooses_by_heldout_rows_is_refused(small, capsys):
    (small.configs / "runs" / "strong.yaml").write_text("learner: encoder\ntraining: {selection: best_score}\n")
    (small.configs / "search" / "mine.yaml").write_text("run: strong\nspace: {optimizer.lr: {low: 1e-5, high: 1e-4}}\n")
    assert "chooses weights by held-out rows" in run_tune(capsys, status=2)


def test_a_yaml_of_the_users_own_is_not_replaced(small, capsys):
    path = small.configs / "runs" / "mine-tuned.yaml"
    path.write_text("base: strong\n")
    assert "exists and is not of a study" in run_tune(capsys, status=2)
    assert path.read_text() == "base: strong\n"


def start():
    """tune.py as a process, whose trainings are processes that take half a second."""
    code = (
        "import sys; from foldblend.commands import run_command, tune; "
        f"tune.start_words = lambda name: [sys.executable, {str(TESTS / 'fake_trial.py')!r}]; "
        "sys.argv[:1] = ['src/tune.py']; sys.exit(run_command('tune'))"
    )
    words = [sys.executable, "-c", code, "--competition", "small", "--search", "mine"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_processes_one_of_them_killed_lose_and_repeat_no_trial(small, monkeypatch):
    """Twenty kills with a real learner: bench/tune_kills.py."""
    import optuna

    short = SEARCH.replace("[2, 3, 4]", "[2]").replace("trials: 4", "trials: 3")
    (small.configs / "search" / "mine.yaml").write_text(short)
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent / "src"))
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    folder = small.root / "oof/small/.studies/mine"
    first = start()
    while not (folder / "trial-0001").exists() and not list(folder.glob(".trial-*.lock")):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    processes = [start(), start()]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    study = optuna.load_study(study_name="small/mine", storage=f"sqlite:///{folder / 'study.db'}")
    trials = [trial for trial in study.trials if "base" not in trial.user_attrs]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert len({str(trial.params) for trial in trials}) == 3
    assert sum("goes on, " in each for each in outputs) == 1
    assert all("Another process checks" in each or "standard error" in each for each in outputs)
