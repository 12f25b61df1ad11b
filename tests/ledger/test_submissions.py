"""Submissions lie whole beside what made them, and are known again by their bytes."""

import os

import pytest

from foldblend.files import sha256_bytes
from foldblend.ledger.records import read_record
from foldblend.ledger.submissions import SUBMISSION, earlier_submissions, write_submission


def test_write_and_find_again(paths):
    assert earlier_submissions(paths, "toy") == {}
    first = write_submission(paths, "toy", "a", b"id,joy\nt0,1\n", {"weights": {"r": 1.0}})
    write_submission(paths, "toy", "b", b"id,joy\nt0,0\n", {})
    again = write_submission(paths, "toy", "c", first.read_bytes(), {})
    assert first == paths.submissions("toy") / "a.csv" and again.exists()
    assert earlier_submissions(paths, "toy") == {
        sha256_bytes(b"id,joy\nt0,1\n"): first,
        sha256_bytes(b"id,joy\nt0,0\n"): paths.submissions("toy") / "b.csv",
    }
    record = read_record(first.with_suffix(".json"), SUBMISSION)
    assert record == {"weights": {"r": 1.0}, "csv_sha256": sha256_bytes(first.read_bytes())}


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".."])
def test_names_stay_in_their_folder(paths, name):
    with pytest.raises(ValueError, match="submission is"):
        write_submission(paths, "toy", name, b"", {})


def test_the_csv_comes_last(paths, monkeypatch):
    """Cut off between the two, there is a record without a CSV, which nothing takes for a submission."""
    calls, replace = [], os.replace

    def cut(source, target):
        if calls:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write_submission(paths, "toy", "a", b"id,joy\n", {})
    assert [path.name for path in paths.submissions("toy").iterdir()] == ["a.json"]
    assert earlier_submissions(paths, "toy") == {}
