"""The door as a user runs it: the real kaggle client, and a Kaggle of our own that scores what it is sent."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kaggle_server import KEY, SLUG, serving

import submit
from competition import kaggle_waiting
from ledger import log_sync
from ledger.log import read_log
from ledger.submissions import write_submission
from settings.loading import guard

PROJECT = Path(__file__).resolve().parents[1]
LABELS = ("joy", "fear")
N_TEST = 20
TRUTH = {f"t{k}": [int(k % 2 == 0), int(k % 3 == 0)] for k in range(N_TEST)}


@pytest.fixture
def kaggle(places, tmp_path, monkeypatch):
    """Competition `emo`, which is emo-2024 on Kaggle, with its files here."""
    monkeypatch.setattr(kaggle_waiting, "POLL_SECONDS", 0.01)
    settings = f"id_column: id\nfiles: {{source: kaggle, kaggle: {SLUG}}}\n"
    (places.configs / "competitions" / "emo.yaml").write_text(settings)
    places.data("emo").mkdir(parents=True)
    for name, rows in tables().items():
        (places.data("emo") / name).write_text("\n".join(rows) + "\n")
    with serving(TRUTH, monkeypatch, tmp_path / "home") as server:
        yield server


def tables():
    train = [f"r{k},words number {k * k},{k % 2},{k % 3 % 2}" for k in range(30)]
    return {
        "train.csv": ["id,text,joy,fear", *train],
        "test.csv": ["id,text", *(f"{name},new {name}" for name in TRUTH)],
        "sample_submission.csv": ["id,joy,fear", *(f"{name},0,0" for name in TRUTH)],
    }


def answer(wrong):
    """A CSV that is wrong in so many rows."""
    rows = [(name, 1 - row[0] if k < wrong else row[0], row[1]) for k, (name, row) in enumerate(TRUTH.items())]
    return ("id,joy,fear\n" + "".join(f"{name},{a},{b}\n" for name, a, b in rows)).encode()


def write(places, name="blend-1", wrong=2, cross_fitted=0.8):
    account = {
        "metric": "macro_f1", "in_sample": cross_fitted + 0.02, "cross_fitted": cross_fitted,
        "expected_fold_mean": {"score": cross_fitted + 0.01, "low": cross_fitted - 0.04, "high": cross_fitted + 0.06},
    }  # fmt: skip
    return write_submission(places, "emo", name, answer(wrong), {"competition": "emo", "account": account})


def run(*flags) -> int:
    return guard(lambda: submit.main(["--competition", "emo", *flags]))


def test_the_newest_is_handed_in_scored_and_logged(places, kaggle, capsys):
    old, new = write(places, "z", 5), write(places, "blend-1")
    os.utime(old, (1, 1))
    assert run("-m", "two runs") == 0
    shown = capsys.readouterr().out
    assert "fits the sample submission and blend-1.json" in shown and "5 left today; 0 handed in today" in shown
    assert kaggle.submissions[0]["content"] == new.read_bytes()
    public = kaggle.score(new.read_bytes())[0]
    assert f"public score: {public:.5g}" in shown and max(map(len, shown.splitlines())) <= 120
    (entry,) = read_log(places)
    digest = kaggle.submissions[0]["description"][-13:-1]
    assert (entry.file, entry.status, entry.ref) == ("submissions/emo/blend-1.csv", "complete", 1000)
    assert entry.sha256.startswith(digest) and entry.message == f"two runs [sha256 {digest}]"
    assert (entry.in_sample, entry.cross_fitted, entry.expected) == (0.8200000000000001, 0.8, 0.81)
    assert entry.public_score == pytest.approx(public, abs=1e-5)
    with open(places.submissions_log) as file:
        assert [row["competition"] for row in csv.DictReader(file)] == ["emo"]


def test_three_scored_ones_make_a_line(places, kaggle, capsys):
    for k in range(3):
        write(places, f"blend-{k}", wrong=k, cross_fitted=0.8 - k / 20)
        assert run(f"blend-{k}.csv") == 0
        assert ("least squares over 3" in capsys.readouterr().out) == (k == 2)


def test_a_dry_run_does_everything_but_the_upload(places, kaggle, capsys):
    write(places)
    assert run("--dry-run") == 0
    assert (
        "dry run, not uploaded: submissions/emo/blend-1.csv with the message 'blend-1 [sha256"
        in capsys.readouterr().out
    )
    assert kaggle.asked == ["ListSubmissions", "GetSubmissionLimits"] and read_log(places) == []


@pytest.mark.parametrize("log_is_lost", [False, True])
def test_the_same_bytes_are_handed_in_once(places, kaggle, capsys, log_is_lost):
    write(places)
    assert run() == 0
    write(places, "other-name")
    if log_is_lost:
        places.submissions_log.unlink()
    for _ in range(2):
        assert run("other-name.csv") == 2
        assert "handed in before, as submissions/emo/" in capsys.readouterr().err
    assert len(kaggle.submissions) == 1


FAULTS = [
    ("StartSubmissionUpload", (403, "You cannot submit until you accept the competition rules"), "rules of emo-2024"),
    ("CreateSubmission", (400, "The competition deadline has passed"), "takes no submissions any more"),
    ("CreateSubmission", (400, "Your team has used its submission allowance (5 of 5)"), "submission limit is reached"),
    ("ListSubmissions", (403, "Permission 'competitions.participate' was denied"), "no competition 'emo-2024'"),
    ("ListSubmissions", (401, "Unauthorized"), "kaggle auth login"),
    ("GetSubmissionLimits", (500, "oops"), "trouble of its own"),
    ("PUT", (400, "no"), "the upload failed, nothing was handed in"),
]


@pytest.mark.parametrize("method, fault, message", FAULTS)
def test_what_kaggle_refuses_is_one_message_and_leaves_no_row(places, kaggle, capsys, method, fault, message):
    write(places)
    kaggle.fault(method, fault)
    assert run() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert read_log(places) == [] and kaggle.submissions == []


def test_a_refused_file_can_be_handed_in_afterwards(places, kaggle):
    write(places)
    kaggle.fault("PUT", (400, "no"))
    assert [run(), run(), run()] == [2, 0, 2]
    assert len(kaggle.submissions) == len(read_log(places)) == 1


def test_a_reached_limit_is_known_before_the_upload(places, kaggle, capsys):
    for k in range(5):
        kaggle.add(f"{k}.csv", answer(k), "by hand")
    write(places, wrong=7)
    assert run() == 2
    assert "limit of today is reached: 5 handed in today" in capsys.readouterr().err
    assert "StartSubmissionUpload" not in kaggle.asked


def test_no_credentials_no_network_and_a_wrong_slug(places, kaggle, capsys, monkeypatch):
    write(places)
    assert run("--files.kaggle", "emo-2042") == 2
    assert "no competition 'emo-2042'" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.delenv("KAGGLE_KEY")
        assert run() == 2
    assert "no valid Kaggle credentials" in capsys.readouterr().err
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert run() == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_a_lost_answer_is_looked_for_in_the_list(places, kaggle, capsys):
    write(places)
    kaggle.fault("CreateSubmission", "cut after")
    assert run() == 0
    assert "the answer was lost; looking whether it arrived" in capsys.readouterr().out
    assert [(entry.ref, entry.status) for entry in read_log(places)] == [(1000, "complete")]
    assert len(kaggle.submissions) == 1


def test_where_nobody_knows_the_row_stays_until_it_is_known(places, kaggle, capsys, monkeypatch):
    write(places)
    kaggle.fault("CreateSubmission", "cut")
    assert run() == 2
    assert "Kaggle does not list it. Run: python src/submit.py --competition emo --sync" in capsys.readouterr().err
    assert [entry.status for entry in read_log(places)] == ["uploading"]
    assert run() == 2
    assert "may still arrive" in capsys.readouterr().err
    monkeypatch.setattr(log_sync, "ARRIVES_WITHIN_SECONDS", 0)
    assert run("--sync") == 0
    assert "never arrived; it can be handed in again" in capsys.readouterr().out
    assert run() == 0 and len(kaggle.submissions) == 1


@pytest.mark.parametrize("everything", [True, False])
def test_a_kill_between_upload_and_log_loses_nothing(places, kaggle, capsys, everything):
    """kill -9 while Kaggle takes the submission; the client's process may live a little longer, or not."""
    write(places)
    kaggle.fault("CreateSubmission", "hold")
    command = [sys.executable, str(PROJECT / "src" / "submit.py"), "--competition", "emo"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: "CreateSubmission" in kaggle.asked)
    (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    assert [(entry.ref, entry.status) for entry in read_log(places)] == [(0, "uploading")]
    kaggle.gate.set()
    wait_until(lambda: kaggle.submissions)
    kaggle.polls_until_scored = 0
    assert run("--sync") == 0
    assert "had arrived" in capsys.readouterr().out
    (entry,) = read_log(places)
    assert (entry.ref, entry.status, entry.cross_fitted) == (1000, "complete", 0.8)
    assert run() == 2 and len(kaggle.submissions) == 1


def test_ctrl_c_while_uploading_says_how_to_find_out(places, kaggle, capsys):
    write(places)
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


def wait_until(is_so, seconds=60):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_score_that_comes_late_is_filled_in_later(places, kaggle, capsys):
    write(places)
    kaggle.polls_until_scored = 10**6
    assert run("--wait", "0.001") == 0
    assert "not scored yet. Run: python src/submit.py --competition emo --sync" in capsys.readouterr().out
    assert read_log(places)[0].status == "pending"
    kaggle.polls_until_scored = 0
    assert run("--sync") == 0
    assert "updated, public" in capsys.readouterr().out and read_log(places)[0].status == "complete"


def test_what_kaggle_cannot_score_is_an_error_and_logged(places, kaggle, capsys):
    write(places)
    kaggle.truth = {"other": [0, 1]}
    assert run() == 2
    assert "Kaggle could not score blend-1.csv (ref 1000): Evaluation Exception" in capsys.readouterr().err
    assert read_log(places)[0].status == "error"


def test_plain_kaggle_submit_stays_possible_and_sync_fetches_it(places, kaggle, capsys):
    path = write(places)
    command = ["competitions", "submit", "-c", SLUG, "-f", str(path), "-m", "blend-1"]
    done = subprocess.run([sys.executable, "-m", "kaggle", *command], capture_output=True, text=True, check=True)
    assert "Successfully submitted" in done.stdout
    kaggle.polls_until_scored = 0
    assert run("--sync") == 0
    assert "handed in elsewhere, now in the log" in capsys.readouterr().out
    (entry,) = read_log(places)
    assert (entry.file, entry.expected, entry.status) == ("submissions/emo/blend-1.csv", 0.81, "complete")
    assert run() == 2 and "handed in before" in capsys.readouterr().err


def test_files_that_do_not_fit_never_reach_kaggle(places, kaggle, capsys):
    changed, short = write(places, "changed"), places.submissions("emo") / "short.csv"
    changed.write_bytes(answer(3))
    assert run("changed.csv") == 2
    assert "changed since it was written" in capsys.readouterr().err
    short.write_text("id,joy,fear\nt0,1,0\n")
    assert run("short.csv") == 2
    assert "19 ids of the sample submission are missing" in capsys.readouterr().err
    assert run("gone.csv") == 2
    assert "gone.csv is not there, nor in submissions/emo/" in capsys.readouterr().err
    assert kaggle.asked == []


def test_a_file_made_elsewhere_is_handed_in_without_local_scores(places, kaggle, capsys):
    path = places.root / "mine.csv"
    path.write_bytes(answer(1))
    assert run(str(path)) == 0
    assert "its local scores are not known" in capsys.readouterr().out
    assert (read_log(places)[0].file, read_log(places)[0].expected) == ("mine.csv", None)


def test_the_folder_of_a_named_csv_names_the_competition(places, kaggle, capsys):
    path = write(places)
    assert guard(lambda: submit.main([str(path), "--dry-run"])) == 0
    assert "submissions/emo/blend-1.csv" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--choose", "-1"), ("--wait", "-1"), ("--timeout", "0"), ("--files.kaggle", "a/b")])
def test_flags_that_cannot_be(places, kaggle, capsys, flags):
    write(places)
    assert run(*flags) == 2
    assert "expected" in capsys.readouterr().err and kaggle.asked == []


def test_a_competition_that_is_not_on_kaggle(places, kaggle, capsys):
    assert guard(lambda: submit.main(["--competition", "sample"])) == 2
    assert "not on Kaggle. Score it here: python bench/score_submission.py" in capsys.readouterr().err


def test_a_planted_key_is_nowhere_and_wide_permissions_are_named(places, kaggle, capfd, tmp_path, monkeypatch):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "kaggle.json").write_text(f'{{"username": "u", "key": "{KEY}"}}')
    (folder / "kaggle.json").chmod(0o644)
    monkeypatch.setenv("FOLDBLEND_TRACEBACK", "1")
    write(places)
    kaggle.fault("GetSubmissionLimits", (400, f"key {KEY}"))
    kaggle.fault("CreateSubmission", (400, f"key {KEY}"), (500, KEY))
    assert [run(), run(), run()] == [2, 2, 2]
    places.submissions_log.unlink()
    assert run("-m", "the end") == 0
    shown = "".join(capfd.readouterr())
    assert "kaggle.json can be read by others (mode 644). Run: chmod 600" in shown and "<hidden>" in shown
    texts = [path.read_text() for path in places.root.rglob("submissions/**/*") if path.is_file()]
    assert len(texts) == 3 and KEY not in shown + "".join(texts)


def test_two_finals_are_proposed_without_asking_kaggle(places, kaggle, capsys):
    assert run("--choose", "2") == 2
    assert "no submission of emo has a scored record" in capsys.readouterr().err
    write(places, "best", 0, 0.80)
    write(places, "near", 1, 0.799)
    write(places, "far", 6, 0.79)
    write(places, "bad", 15, 0.5)
    assert run("--choose", "2") == 0
    shown = capsys.readouterr().out
    assert "0 of the 4 submissions here are handed in and scored: choosing from all" in shown
    assert "1. submissions/emo/best.csv: expected 0.8100 +- 0.0304\n   the best expected score" in shown
    assert "2. submissions/emo/far.csv" in shown and "good one: 30.0% of its rows" in shown
    assert "not handed in yet: python src/submit.py submissions/emo/far.csv" in shown
    assert kaggle.asked == []
    for name in ("near", "bad"):
        assert run(f"{name}.csv") == 0
    capsys.readouterr()
    assert run("--choose", "2") == 0
    shown = capsys.readouterr().out
    assert "1. submissions/emo/near.csv" in shown and "not handed in yet" not in shown
    assert "no other good one answers otherwise: 1 proposed, not 2" in shown


def test_a_blend_goes_in_as_blend_py_wrote_it(places, kaggle, capsys):
    """What one door writes the other reads: account, hash, competition."""
    from test_blend import LABELS, N_ROWS, write_competition, write_runs

    import blend

    hidden = write_competition(places)
    write_runs(places, hidden)
    assert guard(lambda: blend.main(["--competition", "small"])) == 0
    assert "python src/submit.py submissions/small/blend-" in capsys.readouterr().out
    truth = (hidden[N_ROWS:] > 0).astype(int)
    kaggle.truth = {f"t{k}": row.tolist() for k, row in enumerate(truth)}
    flags = ["--competition", "small", "--files.kaggle", SLUG]
    assert guard(lambda: submit.main(flags)) == 0
    (entry,) = read_log(places)
    assert len(LABELS) == 3 and entry.competition == "small" and entry.status == "complete"
    assert 0 < entry.cross_fitted < entry.in_sample < 1 and entry.expected is not None
    assert guard(lambda: submit.main([*flags, "--choose", "1"])) == 0
    assert "1. submissions/small/blend-" in capsys.readouterr().out


def test_the_first_door_fetches_what_is_absent(places, kaggle, capsys):
    import io
    import zipfile

    import make_folds

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, rows in tables().items():
            archive.writestr(name, "\n".join(rows) + "\n")
            (places.data("emo") / name).unlink()
    kaggle.archive = data.getvalue()
    assert guard(lambda: make_folds.main(["--competition", "emo", "--near_duplicates", "1.0"])) == 0
    assert f"written (from Kaggle's {SLUG})" in capsys.readouterr().out
    assert np.isin([path.name for path in places.data("emo").iterdir()], list(tables())).all()
