"""The command as a user runs it: the real kaggle client, and a Kaggle of our own that scores what it is sent."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emo_competition import answer, kaggle, run, tables, write
from kaggle_server import SLUG

from foldblend.commands import guard, submit
from foldblend.files import sha256_bytes
from foldblend.ledger.submissions import read_log

__all__ = ["kaggle"]
"""The fixture."""


def test_the_newest_is_submitted_scored_and_logged(paths, kaggle, capsys):
    old, new = write(paths, "z", 5), write(paths, "blend-1")
    os.utime(old, (1, 1))
    assert run("-m", "two runs") == 0
    shown = capsys.readouterr().out
    assert "It fits the sample submission and blend-1.json." in shown
    assert "Submissions: 5 left today; 0 used today" in shown
    assert kaggle.submissions[0]["content"] == new.read_bytes()
    public = kaggle.score(new.read_bytes())[0]
    assert f"Public score: {public:.5g}" in shown and max(map(len, shown.splitlines())) <= 80
    (entry,) = read_log(paths)
    digest = kaggle.submissions[0]["description"][-13:-1]
    assert (entry.file, entry.status, entry.ref) == ("submissions/emo/blend-1.csv", "complete", 1000)
    assert entry.sha256.startswith(digest) and entry.message == f"two runs [sha256 {digest}]"
    assert (entry.in_sample, entry.cross_fitted, entry.expected) == (0.8200000000000001, 0.8, 0.81)
    assert entry.public_score == pytest.approx(public, abs=1e-5)
    with open(paths.submissions_log) as file:
        assert [row["competition"] for row in csv.DictReader(file)] == ["emo"]


def test_three_scored_ones_make_a_line(paths, kaggle, capsys):
    for k in range(3):
        write(paths, f"blend-{k}", wrong=k, cross_fitted=0.8 - k / 20)
        assert run(f"blend-{k}.csv") == 0
        assert ("  3 submissions, residuals" in capsys.readouterr().out) == (k == 2)


def test_a_dry_run_does_everything_but_the_upload(paths, kaggle, capsys):
    write(paths)
    assert run("--dry-run") == 0
    shown = capsys.readouterr().out
    assert "submissions/emo/blend-1.csv: " in shown
    assert "Dry run, nothing was uploaded. Message: blend-1 [sha256" in shown
    assert kaggle.asked == ["ListSubmissions", "GetSubmissionLimits"] and read_log(paths) == []


@pytest.mark.parametrize("log_is_lost", [False, True])
def test_the_same_bytes_are_submitted_once(paths, kaggle, capsys, log_is_lost):
    write(paths)
    assert run() == 0
    write(paths, "other-name")
    if log_is_lost:
        paths.submissions_log.unlink()
    for _ in range(2):
        assert run("other-name.csv") == 2
        assert "submitted before, as submissions/emo/" in capsys.readouterr().err
    assert len(kaggle.submissions) == 1


def test_a_score_that_comes_late_is_filled_in_later(paths, kaggle, capsys):
    write(paths)
    kaggle.polls_until_scored = 10**6
    assert run("--wait", "0.001") == 0
    assert "Not scored yet. Run: python src/submit.py --competition emo --sync" in capsys.readouterr().out
    assert read_log(paths)[0].status == "pending"
    kaggle.polls_until_scored = 0
    assert run("--sync") == 0
    assert "updated, public" in capsys.readouterr().out and read_log(paths)[0].status == "complete"


def test_plain_kaggle_submit_stays_possible_and_sync_fetches_it(paths, kaggle, capsys):
    path = write(paths)
    command = ["competitions", "submit", "-c", SLUG, "-f", str(path), "-m", "blend-1"]
    done = subprocess.run([sys.executable, "-m", "kaggle", *command], capture_output=True, text=True, check=True)
    assert "Successfully submitted" in done.stdout
    kaggle.polls_until_scored = 0
    assert run("--sync") == 0
    assert "submitted elsewhere, now in the log" in capsys.readouterr().out
    (entry,) = read_log(paths)
    assert (entry.file, entry.expected, entry.status) == ("submissions/emo/blend-1.csv", 0.81, "complete")
    assert run() == 2 and "submitted before" in capsys.readouterr().err


def test_files_that_do_not_fit_never_reach_kaggle(paths, kaggle, capsys):
    changed, short = write(paths, "changed"), paths.submissions("emo") / "short.csv"
    changed.write_bytes(answer(3))
    assert run("changed.csv") == 2
    assert "changed since it was written" in capsys.readouterr().err
    short.write_text("id,joy,fear\nt0,1,0\n")
    assert run("short.csv") == 2
    assert "19 ids of the sample submission are missing" in capsys.readouterr().err
    assert run("gone.csv") == 2
    assert "gone.csv does not exist, nor does it in submissions/emo/" in capsys.readouterr().err
    assert kaggle.asked == []


def test_a_file_made_elsewhere_is_submitted_without_local_scores(paths, kaggle, capsys):
    path = paths.root / "mine.csv"
    path.write_bytes(answer(1))
    assert run(str(path)) == 0
    assert "its local scores are unknown" in capsys.readouterr().out
    assert (read_log(paths)[0].file, read_log(paths)[0].expected) == ("mine.csv", None)


def test_the_folder_of_a_named_csv_names_the_competition(paths, kaggle, capsys):
    path = write(paths)
    assert guard(lambda: submit.main([str(path), "--dry-run"])) == 0
    assert "submissions/emo/blend-1.csv" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--choose", "-1"), ("--wait", "-1"), ("--timeout", "0"), ("--files.kaggle", "a/b")])
def test_flags_that_cannot_be(paths, kaggle, capsys, flags):
    write(paths)
    assert run(*flags) == 2
    assert "expected" in capsys.readouterr().err and kaggle.asked == []


def test_a_competition_that_is_not_on_kaggle(paths, kaggle, capsys):
    assert guard(lambda: submit.main(["--competition", "sample"])) == 2
    assert "not on Kaggle. Score it here: python bench/score_submission.py" in capsys.readouterr().err


def test_a_bare_call_sends_the_best_expected_one_and_says_what_it_is(paths, kaggle, capsys):
    """Not the newest, which may be an experiment with a forced strategy; then the best of the others."""
    for name, wrong, score in (("good", 1, 0.8), ("best", 2, 0.85), ("trial", 3, 0.6)):
        write(paths, name, wrong, score)
    assert run() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "submissions/emo/best.csv, the best expected of those not submitted yet" in shown
    assert "a blend: expected macro_f1 0.8600, 90 % interval 0.8100 to 0.9100" in shown
    assert run() == 0 and run() == 0
    assert [Path(entry.file).stem for entry in read_log(paths)] == ["best", "good", "trial"]
    capsys.readouterr()
    assert run() == 2 and "submitted before, as submissions/emo/best.csv" in capsys.readouterr().err


def test_the_competition_comes_from_a_path_that_does_not_exist_and_the_path_is_named(paths, kaggle, capsys):
    path = write(paths)
    assert guard(lambda: submit.main([str(path.with_name("blend-2.csv"))])) == 2
    shown = capsys.readouterr()
    assert "competition emo: submit" in shown.out
    assert "blend-2.csv does not exist, nor does it in submissions/emo/; did you mean 'blend-1.csv'?" in shown.err


def test_what_kaggle_could_not_score_can_be_sent_again(paths, kaggle, capsys):
    """The fault may have been Kaggle's own: the same bytes go in once more, also if the answer is lost then."""
    write(paths)
    truth, kaggle.truth = kaggle.truth, {"other": [0, 1]}
    assert run() == 2 and "the same command submits it again" in " ".join(capsys.readouterr().err.split())
    kaggle.truth = truth
    kaggle.fault("CreateSubmission", "cut after")
    assert run() == 0
    assert [(entry.ref, entry.status) for entry in read_log(paths)] == [(1000, "error"), (1001, "complete")]
    assert run() == 2 and "submitted before" in capsys.readouterr().err


def test_a_public_score_far_outside_its_interval_is_a_warning(paths, kaggle, capsys):
    write(paths, "near", 2, 0.8)
    assert run() == 0 and "far outside" not in capsys.readouterr().out
    write(paths, "far", 19, 0.8)
    assert run("far.csv") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: far.csv: public score " in shown and "far outside of the expected 0.7600 to 0.8600" in shown


def test_two_finals_are_proposed_without_asking_kaggle(paths, kaggle, capsys):
    assert run("--choose", "2") == 2
    assert "no submission of emo has a scored record" in capsys.readouterr().err
    write(paths, "best", 0, 0.80)
    write(paths, "near", 1, 0.799)
    write(paths, "far", 6, 0.79)
    write(paths, "bad", 15, 0.5)
    assert run("--choose", "2") == 0
    shown = capsys.readouterr().out
    assert "Kaggle has scored 0 of the 4 submissions here: choosing from all of them" in shown
    assert "1. submissions/emo/best.csv: expected 0.8100 +- 0.0304\n   the best expected score" in shown
    assert "2. submissions/emo/far.csv" in shown and "30.0% of its rows differ" in shown
    assert "Not submitted yet. Run: python src/submit.py submissions/emo/far.csv" in shown
    assert kaggle.asked == []
    for name in ("near", "bad"):
        assert run(f"{name}.csv") == 0
    capsys.readouterr()
    assert run("--choose", "2") == 0
    shown = capsys.readouterr().out
    assert "1. submissions/emo/near.csv" in shown and "Not submitted yet" not in shown
    assert "2. submissions/emo/bad.csv" in shown and "the next best expected score; no other is as good" in shown
    write(paths, "twin", 1, 0.799)
    for name in ("best", "far", "bad"):
        (paths.submissions("emo") / f"{name}.csv").unlink()
    assert run("--choose", "2") == 0
    assert "Only 1 proposed, not 2: every other one has the same answers" in capsys.readouterr().out


def test_a_blend_goes_in_as_blend_py_wrote_it(paths, kaggle, capsys):
    """What one command writes the other reads: account, hash, competition."""
    from small_competition import LABELS, N_ROWS, write_competition, write_runs

    from foldblend.commands import blend

    hidden = write_competition(paths)
    write_runs(paths, hidden)
    assert guard(lambda: blend.main(["--competition", "small"])) == 0
    assert "python src/submit.py submissions/small/blend-" in capsys.readouterr().out
    truth = (hidden[N_ROWS:] > 0).astype(int)
    kaggle.truth = {f"t{k}": row.tolist() for k, row in enumerate(truth)}
    flags = ["--competition", "small", "--files.kaggle", SLUG]
    assert guard(lambda: submit.main(flags)) == 0
    (entry,) = read_log(paths)
    assert len(LABELS) == 3 and entry.competition == "small" and entry.status == "complete"
    assert 0 < entry.cross_fitted < entry.in_sample < 1 and entry.expected is not None
    assert guard(lambda: submit.main([*flags, "--choose", "1"])) == 0
    assert "1. submissions/small/blend-" in capsys.readouterr().out


def test_the_first_command_fetches_what_is_absent(paths, kaggle, capsys):
    import io
    import zipfile

    from foldblend.commands import make_folds

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, rows in tables().items():
            archive.writestr(name, "\n".join(rows) + "\n")
            (paths.data("emo") / name).unlink()
    kaggle.archive = data.getvalue()
    assert guard(lambda: make_folds.main(["--competition", "emo", "--near_duplicates", "1.0"])) == 0
    assert f"written (from Kaggle's {SLUG})" in capsys.readouterr().out
    assert np.isin([path.name for path in paths.data("emo").iterdir()], list(tables())).all()


def test_what_was_checked_is_uploaded_although_the_file_changes_meanwhile(paths, kaggle, monkeypatch):
    path = write(paths)
    checked, limits = path.read_bytes(), submit.KaggleClient.limits

    def edit_and_ask(client):
        path.write_bytes(answer(9))
        return limits(client)

    monkeypatch.setattr(submit.KaggleClient, "limits", edit_and_ask)
    assert run() == 0
    assert kaggle.submissions[0]["content"] == checked != path.read_bytes()
    assert read_log(paths)[0].sha256 == sha256_bytes(checked)
