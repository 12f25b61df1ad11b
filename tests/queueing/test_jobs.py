from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldblend.queueing.queue import FoldJob, split_flags, take_part, without_flags


@given(st.integers(0, 40), st.integers(1, 50))
def test_the_parts_hold_every_job_once_in_order(n_jobs, n_parts):
    jobs = [FoldJob(f"run{k % 3}", k, (), "", Path("log"), False) for k in range(n_jobs)]
    parts = [take_part(jobs, f"{part}/{n_parts}") for part in range(n_parts)]
    assert sorted(job.fold for part in parts for job in part) == list(range(n_jobs))
    assert all([job.fold for job in part] == sorted(job.fold for job in part) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert take_part(jobs, "") == jobs


@pytest.mark.parametrize("part", ["2/2", "1", "-1/2", "0/0", "a/b", "1/2/3", " 0/2", "٠/2"])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ValueError, match="expected I/N with I from 0 to N-1"):
        take_part([], part)


def test_own_flags_are_taken_out_with_their_values():
    argv = ["--runs", "a", "b", "--part=0/2", "--n_folds", "3", "--text.columns=[x, y]", "--fold", "0"]
    assert split_flags(argv)[0] == ("runs", ["--runs", "a", "b"])
    assert without_flags(argv, {"runs", "part", "fold"}) == ["--n_folds", "3", "--text.columns=[x, y]"]
    with pytest.raises(ValueError, match="no flag before 'tfidf'"):
        split_flags(["tfidf", "--fold", "0"])
