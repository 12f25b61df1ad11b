"""What may go wrong while handing in: refusals, lost answers, kills, keys that must not show."""

import os
import signal
import subprocess
import sys

import pytest
from emo_competition import PROJECT, answer, kaggle, run, wait_until, write
from kaggle_server import KEY

from foldblend.ledger import submissions as log_sync
from foldblend.ledger.submissions import read_log

__all__ = ["kaggle"]
"""The fixture."""


FAULTS = [
    ("StartSubmissionUpload", (403, "You cannot submit until you accept the competition rules"), "rules of emo-2024"),
    ("CreateSubmission", (400, "The competition deadline has passed"), "takes no more submissions"),
    ("CreateSubmission", (400, "Your team has used its submission allowance (5 of 5)"), "submission limit is reached"),
    ("ListSubmissions", (403, "Permission 'competitions.participate' was denied"), "no competition 'emo-2024'"),
    ("ListSubmissions", (401, "Unauthorized"), "kaggle auth login"),
    ("GetSubmissionLimits", (500, "oops"), "an error of its own"),
    ("PUT", (400, "no"), "the upload failed, nothing was submitted"),
]


@pytest.mark.parametrize("method, fault, message", FAULTS)
def test_what_kaggle_refuses_is_one_message_and_leaves_no_row(paths, kaggle, capsys, method, fault, message):
    write(paths)
    kaggle.fault(method, fault)
    assert run() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert read_log(paths) == [] and kaggle.submissions == []


def test_a_refused_file_can_be_submitted_afterwards(paths, kaggle):
    write(paths)
    kaggle.fault("PUT", (400, "no"))
    assert [run(), run(), run()] == [2, 0, 2]
    assert len(kaggle.submissions) == len(read_log(paths)) == 1


def test_a_reached_limit_is_known_before_the_upload(paths, kaggle, capsys):
    for k in range(5):
        kaggle.add(f"{k}.csv", answer(k), "by hand")
    write(paths, wrong=7)
    assert run() == 2
    assert "limit of today is reached: 5 used today" in capsys.readouterr().err
    assert "StartSubmissionUpload" not in kaggle.asked


def test_no_credentials_no_network_and_a_wrong_slug(paths, kaggle, capsys, monkeypatch):
    write(paths)
    assert run("--files.kaggle", "emo-2042") == 2
    assert "no competition 'emo-2042'" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.delenv("KAGGLE_KEY")
        assert run() == 2
    assert "no valid Kaggle credentials" in capsys.readouterr().err
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert run() == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_a_lost_answer_is_looked_for_in_the_list(paths, kaggle, capsys):
    write(paths)
    kaggle.fault("CreateSubmission", "cut after")
    assert run() == 0
    assert "The answer was lost. Asking Kaggle whether the file arrived" in capsys.readouterr().out
    assert [(entry.ref, entry.status) for entry in read_log(paths)] == [(1000, "complete")]
    assert len(kaggle.submissions) == 1


def test_where_nobody_knows_the_row_stays_until_it_is_known(paths, kaggle, capsys, monkeypatch):
    write(paths)
    kaggle.fault("CreateSubmission", "cut")
    assert run() == 2
    assert "Kaggle does not list it. Run: python src/submit.py --competition emo --sync" in capsys.readouterr().err
    assert [entry.status for entry in read_log(paths)] == ["uploading"]
    assert run() == 2
    assert "may still arrive" in capsys.readouterr().err
    monkeypatch.setattr(log_sync, "ARRIVES_WITHIN_SECONDS", 0)
    assert run("--sync") == 0
    assert "never arrived; it can be submitted again" in capsys.readouterr().out
    assert run() == 0 and len(kaggle.submissions) == 1


@pytest.mark.parametrize("everything", [True, False])
def test_a_kill_between_upload_and_log_loses_nothing(paths, kaggle, capsys, everything):
    """kill -9 while Kaggle takes the submission; the client's process may live a little longer, or not."""
    write(paths)
    kaggle.fault("CreateSubmission", "hold")
    command = [sys.executable, str(PROJECT / "src" / "submit.py"), "--competition", "emo"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: "CreateSubmission" in kaggle.asked)
    (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    assert [(entry.ref, entry.status) for entry in read_log(paths)] == [(0, "uploading")]
    kaggle.gate.set()
    wait_until(lambda: kaggle.submissions)
    kaggle.polls_until_scored = 0
    assert run("--sync") == 0
    assert "had arrived" in capsys.readouterr().out
    (entry,) = read_log(paths)
    assert (entry.ref, entry.status, entry.cross_fitted) == (1000, "complete", 0.8)
    assert run() == 2 and len(kaggle.submissions) == 1


def test_ctrl_c_while_uploading_says_how_to_find_out(paths, kaggle, capsys):
    write(paths)
    kaggle.fault("CreateSubmission", "hold")
    command = [sys.executable, str(PROJECT / "src" / "submit.py"), "--competition", "emo"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "CreateSubmission" in kaggle.asked)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 2 and error.count("\n") == 1 and "--sync in 5 minutes" in error
    kaggle.gate.set()
    wait_until(lambda: kaggle.submissions)
    assert run("--sync") == 0 and "had arrived" in capsys.readouterr().out


def test_what_kaggle_cannot_score_is_an_error_and_logged(paths, kaggle, capsys):
    write(paths)
    kaggle.truth = {"other": [0, 1]}
    assert run() == 2
    assert "Kaggle could not score blend-1.csv (ref 1000): Evaluation Exception" in capsys.readouterr().err
    assert read_log(paths)[0].status == "error"


def test_a_planted_key_is_nowhere_and_wide_permissions_are_named(paths, kaggle, capfd, tmp_path, monkeypatch):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "kaggle.json").write_text(f'{{"username": "u", "key": "{KEY}"}}')
    (folder / "kaggle.json").chmod(0o644)
    monkeypatch.setenv("FOLDBLEND_TRACEBACK", "1")
    write(paths)
    kaggle.fault("GetSubmissionLimits", (400, f"key {KEY}"))
    kaggle.fault("CreateSubmission", (400, f"key {KEY}"), (500, KEY))
    assert [run(), run(), run()] == [2, 2, 2]
    paths.submissions_log.unlink()
    assert run("-m", "the end") == 0
    shown = " ".join("".join(capfd.readouterr()).split())  # a warning is wrapped
    assert "kaggle.json can be read by others (mode 644). Run: chmod 600" in shown and "<redacted>" in shown
    texts = [path.read_text() for path in paths.root.rglob("submissions/**/*") if path.is_file()]
    assert len(texts) == 3 and KEY not in shown + "".join(texts)
