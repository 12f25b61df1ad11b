"""Clocks that were set back; names with spaces, unicode and dots; cells that a spreadsheet would run."""

import os
import time

import pytest

from foldblend.ledger.submissions import find_submission
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.data_files import FilesSettings


def test_a_clock_that_goes_backwards_changes_no_answer(paths, words, run_command, monkeypatch):
    assert run_command("train", "--run", words)[0] == 0 and run_command("blend")[0] == 0
    (first,) = paths.submissions("toy").glob("*.csv")
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert run_command("train", "--run", words, "--overwrite")[0] == 0 and run_command("blend")[0] == 0
    assert {path.read_bytes() for path in paths.submissions("toy").glob("*.csv")} == {first.read_bytes()}


def test_the_newest_of_times_to_come_is_not_guessed(paths, words, run_command):
    assert run_command("train", "--run", words)[0] == 0 and run_command("blend")[0] == 0
    (path,) = paths.submissions("toy").glob("*.csv")
    assert find_submission(paths, "toy", "") == path
    os.utime(path, (time.time() + 7200,) * 2)
    with pytest.raises(ValueError, match=r"has a date in the future: the clock was set back.*Name the one"):
        find_submission(paths, "toy", "")
    assert find_submission(paths, "toy", path.name) == path


@pytest.mark.parametrize("name", ["my train ü 😀.csv", 'it\'s $HOME; `x` & "y".csv', "sub/train 1.csv"])
def test_odd_names_of_files(paths, words, run_command, name):
    path = paths.data("toy") / name
    path.parent.mkdir(exist_ok=True)
    (paths.data("toy") / "train.csv").rename(path)
    (paths.configs / "competitions" / "toy.yaml").write_text("id_column: id\nn_folds: 3\nnear_duplicates: 1.0\n")
    assert run_command("train", "--run", words, "--files.train", name)[0] == 0
    status, out, _ = run_command("blend", "--files.train", name)
    assert status == 0 and "submissions/toy/blend-" in out


@pytest.mark.parametrize("name", ["../train.csv", "/etc/passwd", "a/../../b.csv", "", "a\0b", "x" * 300])
def test_names_that_leave_the_data_are_refused(name):
    for file in ("train", "test", "sample_submission"):
        with pytest.raises(ValueError, match=f"files.{file} is .*expected the name of a file inside data/"):
            CompetitionSettings("id", files=FilesSettings(**{file: name}))


@pytest.mark.parametrize("flag", ["--run", "--name"])
def test_names_that_become_folders_are_plain(paths, words, run_command, flag):
    for name in ("..", "../toy", "a b", "tôy", "a/b", ".hidden", "$(x)"):
        status, _, error = run_command("train", *([flag, name] if flag == "--run" else ["--run", words, flag, name]))
        assert status == 2 and error.startswith("error: ") and repr(name) in error
    assert not list(paths.root.glob("**/*.npz"))


def test_formulas_and_odd_ids_come_through_as_they_are(paths, words, run_command):
    """The ids are the competition's own: changing one would be a wrong answer, so none is shielded."""
    ids = {"r90": "=1+1", "r91": "@SUM(A1)", "r92": "-2", "r93": "r 93", "r94": "é😀", "r95": "../x", "r96": "a;b|c"}
    for file in ("test.csv", "sample_submission.csv"):
        path = paths.data("toy") / file
        text = path.read_text()
        for old, new in ids.items():
            text = text.replace(f"\n{old},", f"\n{new},")
        path.write_text(text, encoding="utf-8")
    assert run_command("train", "--run", words)[0] == 0 and run_command("blend")[0] == 0
    (path,) = paths.submissions("toy").glob("*.csv")
    written = [line.rsplit(",", 3)[0] for line in path.read_text(encoding="utf-8").splitlines()]
    assert written[1:8] == list(ids.values()) and written[8] == "r97"
