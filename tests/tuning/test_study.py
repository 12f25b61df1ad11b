"""A study in its storage: trials are proposed, claimed, continued after a kill, and counted once."""

import subprocess
import sys
import warnings
from contextlib import ExitStack

import optuna
import pytest

from foldblend.errors import UserError
from foldblend.settings.search import Parameter, SearchSettings
from foldblend.tuning import study as studies
from foldblend.tuning.study import SharedStudy, TrialState, TriedEverythingError, falls_behind, hide_in, hide_password

SPACE = (
    Parameter("optimizer.lr", 1e-5, 1e-3, log=True),
    Parameter("training.epochs", 1, 4, is_whole=True),
    Parameter("loss.name", choices=("bce", "focal")),
    Parameter("loss.focal_gamma", 0.5, 3.0, only_with={"loss.name": ("focal",)}),
    Parameter("tfidf.word_ngrams", choices=((1, 1), (1, 2))),
)


def open_study(folder, settings=SearchSettings(trials=6), definition=None, space=SPACE, url="", **more):  # noqa: B008
    url = url or f"sqlite:///{folder / 'study.db'}"
    return SharedStudy(url, folder, "small/s", "maximize", space, settings, definition or {"folds": [0]}, **more)


def work_off(study):
    """Claim and end trials until there are none; their values by number."""
    done = {}
    while own := study.claim(may_start=True):
        done[own.number] = own.values
        study.end(own, TrialState.COMPLETE, -abs(own.values["optimizer.lr"] - 1e-4))
    return done


def test_conditional_settings_are_tried_only_with_what_they_name(tmp_path):
    done = work_off(open_study(tmp_path, SearchSettings(trials=15)))
    assert sorted(done) == list(range(15))
    for values in done.values():
        assert ("loss.focal_gamma" in values) == (values["loss.name"] == "focal")
        assert 1e-5 <= values["optimizer.lr"] <= 1e-3 and values["training.epochs"] in (1, 2, 3, 4)
        assert values["tfidf.word_ngrams"] in ((1, 1), (1, 2))


def test_a_study_is_repeated_exactly_also_if_it_is_opened_anew_for_each_trial(tmp_path):
    settings = SearchSettings(trials=14, random_trials=5)
    once = work_off(open_study(tmp_path / "a", settings))
    often = {}
    for _ in range(14):
        study = open_study(tmp_path / "b", settings)
        own = study.claim(may_start=True)
        often[own.number] = own.values
        study.end(own, TrialState.COMPLETE, -abs(own.values["optimizer.lr"] - 1e-4))
    assert once == often
    other = work_off(open_study(tmp_path / "c", SearchSettings(trials=14, random_trials=5, seed=1)))
    assert other != once


def test_a_trial_whose_process_ended_is_continued_and_counted_once(tmp_path):
    died = open_study(tmp_path)
    lost = died.claim(may_start=True)
    still = open_study(tmp_path)  # a second process at work
    other = still.claim(may_start=True)
    assert other.number == 1 and other.values != lost.values
    lost.lock.close()  # what the kernel does when a process is killed
    heir = open_study(tmp_path)
    taken = heir.claim(may_start=True)
    assert (taken.number, taken.values, taken.is_continued) == (0, lost.values, True)
    assert heir.claim(may_start=True).number == 2  # trial 1 has a process that lives
    assert len(heir.counted()) == 3


def test_a_kill_right_after_a_trial_was_written_loses_nothing(tmp_path):
    code = (
        "import os, sys; sys.path[:0] = ['src', 'tests/tuning']; from pathlib import Path\n"
        "from test_study import open_study\n"
        "study = open_study(Path(sys.argv[1]))\n"
        "study._take = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "study.claim(may_start=True)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    study = open_study(tmp_path)
    (trial,) = study.trials()
    own = study.claim(may_start=True)
    assert own.number == trial.number == 0 and own.is_continued and own.values["optimizer.lr"]
    assert len(work_off(study)) == 5


def test_the_budget_is_that_of_all_processes(tmp_path):
    one, other = open_study(tmp_path), open_study(tmp_path)
    claimed = [study.claim(may_start=True) for _ in range(4) for study in (one, other)]
    assert [own.number for own in claimed if own] == list(range(6))
    assert one.claim(may_start=False) is None


def test_nothing_is_tried_twice_and_a_small_space_ends(tmp_path):
    study = open_study(tmp_path, SearchSettings(trials=50), space=SPACE[2:3])
    values = [study.claim(may_start=True).values["loss.name"] for _ in range(2)]
    assert sorted(values) == ["bce", "focal"]
    with pytest.raises(TriedEverythingError, match="were tried before"):
        study.claim(may_start=True)


def test_a_silent_machine_is_given_up_and_its_trial_run_again(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    gone = open_study(tmp_path / "there", url=url, is_shared=True)
    lost = gone.claim(may_start=True)
    here = open_study(tmp_path / "here", url=url, is_shared=True)
    assert here.claim(may_start=True).values != lost.values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr(here.storage, "grace_period", -1)
        here.beat()
    again = here.claim(may_start=True)
    assert again.values == lost.values and again.number not in (0, 1)
    assert len(here.counted()) == 2
    gone.end(lost, TrialState.COMPLETE, 1.0)  # it was only asleep: what runs again counts
    assert [trial.state for trial in here.trials() if trial.number == 0] == [TrialState.FAIL]


def test_a_failed_trial_counts_and_is_not_tried_again(tmp_path):
    study = open_study(tmp_path, SearchSettings(trials=2))
    study.fail(study.claim(may_start=True), "refused")
    assert len(study.counted()) == 1 and study.best() is None
    assert study.claim(may_start=True).number == 1
    assert study.claim(may_start=True) is None


def test_another_search_under_the_same_name_is_refused(tmp_path):
    open_study(tmp_path)
    with pytest.raises(UserError, match="study small/s was started with another folds"):
        open_study(tmp_path, definition={"folds": [1]})


def test_the_base_run_informs_the_search_and_counts_for_no_budget(tmp_path):
    study = open_study(tmp_path, SearchSettings(trials=3))
    base = {"optimizer.lr": 1e-4, "training.epochs": 2, "loss.name": "bce", "tfidf.word_ngrams": (1, 2)}
    study.add_base(base, 0.0)
    study.add_base(base, 0.0)
    assert len(study.trials()) == 1 and study.counted() == [] and study.best() is None
    assert len(work_off(study)) == 3
    study.add_base({**base, "optimizer.lr": 1.0}, 9.0)
    assert study.best().value < 0


@pytest.mark.parametrize("values, sign, value, behind", [
    ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 0.29, True),
    ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 0.3, False),
    ([0.1, 0.2, 0.3, 0.4, 0.5], -1, 0.31, True),
    ([0.1, 0.2, 0.3, 0.4], 1, 0.0, False),
])  # fmt: skip
def test_a_trial_falls_behind_below_the_median_of_the_same_point(values, sign, value, behind):
    others = [optuna.create_trial(value=0.0, intermediate_values={5: each, 25: 9.0}) for each in values]
    assert falls_behind(5, value, others, sign) == behind


def test_reports_are_kept_and_pruning_can_be_off(tmp_path):
    for pruner, stopped in (("median", True), ("none", False)):
        study = open_study(tmp_path / pruner, SearchSettings(trials=9, pruner=pruner))
        for value in range(1, 6):
            own = study.claim(may_start=True)
            assert not study.report(own, 5, float(value))
            study.end(own, TrialState.COMPLETE, 0.0)
        assert study.report(study.claim(may_start=True), 5, 0.0) is stopped


SECRET = "postgresql://ann:pa55word@db.example.org:5432/studies?sslpassword=hush"


def test_no_message_shows_the_password_of_a_storage(tmp_path):
    assert hide_password(SECRET) == "postgresql://***@db.example.org:5432/studies"
    said = hide_in(f"could not connect to {SECRET} as ann with pa55word", SECRET)
    assert "pa55word" not in said and "hush" not in said and "ann " not in said
    for url in (SECRET, "nothing://ann:pa55word@host", "pa55word", "sqlite:////no/such/folder/pa55word?x"):
        with pytest.raises(UserError, match="cannot be opened") as refused:
            open_study(tmp_path, url=url)
        assert url.startswith("sqlite") or "pa55word" not in str(refused.value)


def test_locks_are_freed_when_a_trial_ends(tmp_path):
    study = open_study(tmp_path)
    own = study.claim(may_start=True)
    study.end(own, TrialState.PRUNED)
    with ExitStack() as stack:
        stack.enter_context(studies.hold_lock(tmp_path / ".trial-0000.lock", "busy"))


def test_processes_that_begin_a_study_at_the_same_moment_share_it(tmp_path):
    code = (
        "import sys; sys.path[:0] = ['src', 'tests/tuning']; from pathlib import Path\n"
        "from test_study import open_study\n"
        "sys.stdin.readline(); print(open_study(Path(sys.argv[1])).claim(may_start=True).number)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(words, **pipes) for _ in range(3)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert len(open_study(tmp_path).counted()) in (1, 2, 3)  # one that has ended leaves its trial to the next


def test_a_database_that_another_machine_makes_at_this_moment_is_opened_again(monkeypatch):
    answers = [RuntimeError("(sqlite3.IntegrityError) UNIQUE constraint failed"), "storage"]

    def connect(url):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(studies, "_connect", connect)
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: None)
    assert studies.open_storage("sqlite:///x.db") == "storage"
