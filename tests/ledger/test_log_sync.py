"""Kaggle's list and the log become one, whatever was lost of the log."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_entries import ENTRY, NOW, Listed

from foldblend.files import sha256_bytes
from foldblend.ledger.submissions import (
    describe_file,
    find_submission,
    marked,
    read_log,
    reconcile,
    refuse_resubmission,
    sync_log,
    write_submission,
)


def submission(paths, name="a", content=b"id,joy\nt0,1\n", expected=0.62):
    account = {
        "metric": "macro_f1",
        "in_sample": 0.61,
        "cross_fitted": 0.6,
        "expected_fold_mean": {"score": expected, "low": 0.5, "high": 0.7},
    }
    return write_submission(paths, "toy", name, content, {"report": account})


def test_a_lost_log_is_written_anew_from_the_list(paths):
    """By the mark in the message, by the file's name, and by the message that blend.py's own command line gives."""
    by_mark, by_name, by_message = (submission(paths, name, name.encode()) for name in "abc")
    listed = [
        Listed(1, "other.csv", marked("x", sha256_bytes(b"a"))),
        Listed(2, "b.csv", "by hand", total_bytes=1),
        Listed(3, "submission.csv", "c", total_bytes=1, status="pending", public_score=None),
        Listed(4, "b.csv", "of another size, so of other bytes", total_bytes=99),
        Listed(5, "unknown.csv", "=evil()", status="error", public_score=None),
    ]
    found, said = sync_log(paths, "toy", listed)
    assert [Path(entry.file).name for entry in found] == ["a.csv", "b.csv", "c.csv", "b.csv", "unknown.csv"]
    digests = [sha256_bytes(path.read_bytes()) for path in (by_mark, by_name, by_message)]
    assert [entry.sha256 for entry in found] == [*digests, "", ""]
    assert [entry.expected for entry in found] == [0.62, 0.62, 0.62, None, None]
    assert [entry.public_score for entry in found] == [0.5, 0.5, None, 0.5, None]
    assert [entry.status for entry in found] == ["complete", "complete", "pending", "complete", "error"]
    assert len(said) == 5 and read_log(paths) == found
    assert sync_log(paths, "toy", listed) == (found, [])


def test_scores_that_were_pending_are_filled_in_and_other_competitions_left_alone():
    other = replace(ENTRY, competition="other", ref=7, public_score=None)
    log = [replace(ENTRY, status="pending", public_score=None), other]
    after, said = reconcile(log, [Listed(7, private_score=0.4)], [], "toy", NOW)
    assert after == [replace(ENTRY, public_score=0.5, private_score=0.4), other]
    assert said == ["submissions/toy/a.csv (ref 7): updated, public 0.5"]


def test_an_upload_that_was_cut_off_is_found_again_or_given_up_after_a_while():
    message = marked("try", ENTRY.sha256)
    cut = replace(ENTRY, ref=0, status="uploading", public_score=None, message=message)
    after, said = reconcile([cut], [Listed(9, "a.csv", message)], [], "toy", NOW)
    assert (after, len(said)) == ([replace(cut, ref=9, status="complete", public_score=0.5)], 1)
    assert [one.ref for one in reconcile([cut], [Listed(9, "renamed.csv", f"x {message}")], [], "toy", NOW)[0]] == [9]
    assert reconcile([cut], [], [], "toy", "2026-01-02T03:05:00Z")[0] == [cut]
    after, said = reconcile([cut], [], [], "toy", NOW)
    assert after == [] and "never arrived; it can be submitted again" in said[0]
    assert reconcile([cut], [], [], "other", NOW)[0] == [cut]
    assert (
        reconcile([cut], [], [], "toy", "2026-01-01T00:00:00Z")[0] == []
    )  # a clock set back does not keep it for ever


def test_the_same_name_with_another_mark_is_another_submission():
    cut = replace(ENTRY, ref=0, status="uploading", message="try")
    after, _ = reconcile([cut], [Listed(9, "a.csv", "try [sha256 bbbbbbbbbbbb]")], [], "toy", ENTRY.time)
    assert [entry.ref for entry in after] == [0, 9]


@given(st.permutations([Listed(ref, f"{ref}.csv", f"m{ref}") for ref in range(1, 6)]), st.integers(0, 5))
def test_whatever_part_of_the_log_is_lost_the_list_restores_it(listed, kept):
    whole, _ = reconcile([], listed, [], "toy", NOW)
    assert {entry.ref for entry in whole} == {1, 2, 3, 4, 5}
    again, _ = reconcile(whole[:kept], listed, [], "toy", NOW)
    assert again == whole


def test_the_same_bytes_are_refused_a_second_time(paths):
    file = describe_file(paths, submission(paths), "toy")
    entry = replace(ENTRY, sha256=file.sha256)
    with pytest.raises(
        ValueError, match=r"submitted before, as submissions/toy/a.csv on .* \(ref 7\), public score 0.605"
    ):
        refuse_resubmission([entry], file, "toy")
    with pytest.raises(ValueError, match="cut off at .* may still arrive"):
        refuse_resubmission([replace(entry, ref=0)], file, "toy")
    refuse_resubmission([entry], file, "other")
    refuse_resubmission([ENTRY], file, "toy")


def test_a_file_that_changed_since_it_was_written_is_refused(paths):
    path = submission(paths)
    path.write_bytes(b"id,joy\nt0,0\n")
    with pytest.raises(ValueError, match="has changed since it was written.*blend.py --from"):
        describe_file(paths, path, "toy")
    path.with_suffix(".json").unlink()
    assert describe_file(paths, path, "toy").report is None


def test_a_file_of_another_competition_is_refused(paths):
    path = write_submission(paths, "toy", "a", b"id,joy\n", {"competition": "other"})
    with pytest.raises(ValueError, match="made for other, not for toy. Run: .* --competition other submissions/toy"):
        describe_file(paths, path, "toy")


def test_the_newest_is_found_and_what_is_not_there_is_named(paths):
    with pytest.raises(ValueError, match=r"no CSV in submissions/toy/ Run: python src/blend.py --competition toy"):
        find_submission(paths, "toy", "")
    old, new = submission(paths, "z"), submission(paths, "a")
    os.utime(old, (1, 1))
    assert find_submission(paths, "toy", "") == new
    assert find_submission(paths, "toy", "z.csv") == find_submission(paths, "toy", str(old)) == old
    with pytest.raises(ValueError, match="gone.csv does not exist, nor does it in submissions/toy/"):
        find_submission(paths, "toy", "gone.csv")


def test_a_mark_is_the_end_of_a_one_line_message():
    assert marked("two\nlines", "0123456789abcdef") == "two lines [sha256 0123456789ab]"
