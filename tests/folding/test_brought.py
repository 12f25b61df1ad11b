"""Groups and folds of the user, joined with groups of texts."""

import numpy as np
import pytest

from foldblend.folding.draw import describe_large_groups, draw_folds
from foldblend.folding.duplicates import join_groups, split_by_fold


def test_rows_stay_together_if_text_or_author_says_so():
    assert join_groups(np.array([0, 1, 0, 2]), ["ann", "ann", "bob", ""]).tolist() == [0, 0, 0, 1]
    assert join_groups(np.array([0, 1, 2]), ["", "", ""]).tolist() == [0, 1, 2]
    assert join_groups(np.zeros(0, np.int64), []).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_joined_groups_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    texts, authors = rng.integers(0, 15, 40), rng.integers(0, 15, 40)
    texts = np.unique(texts, return_inverse=True)[1]
    found = join_groups(texts, [f"a{name}" if name else "" for name in authors])
    expected = list(range(40))
    for a in range(40):
        for b in range(a):
            if texts[a] == texts[b] or authors[a] == authors[b] != 0:
                expected = [expected[a] if group == expected[b] else group for group in expected]
    same = np.array(expected)[:, None] == np.array(expected)
    assert np.array_equal(found[:, None] == found, same)


def test_folds_that_tear_groups_are_kept_and_the_torn_rows_named():
    group, torn = split_by_fold(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]))
    assert group.tolist() == [0, 1, 2, 2, 3] and torn.tolist() == [0, 1]


def test_no_author_is_in_two_folds():
    rng = np.random.default_rng(0)
    authors = np.array([f"a{number}" for number in rng.integers(0, 40, 400)])
    texts = [f"{' '.join(rng.choice(['sun', 'moon', 'rain', 'dog'], 6))} {row * 7919}" for row in range(400)]
    fold, group = draw_folds(texts, rng.random((400, 3)) < 0.3, n_folds=5, groups=authors)
    assert all(len(set(fold[authors == name])) == 1 for name in set(authors))
    assert all(len(set(fold[group == number])) == 1 for number in set(group))


def test_a_large_group_is_named_with_some_of_its_texts():
    group = np.r_[np.zeros(100, np.int64), np.arange(1, 201)]
    ids = np.array([f"r{row}" for row in range(300)])
    (line,) = describe_large_groups(group, ids, [f"text {row}" for row in range(300)])
    assert line.startswith("100 of 300 rows (33%) are one group") and "'r0' 'text 0'" in line
    assert "near_duplicates" in line
    assert describe_large_groups(np.arange(300), ids, ["a"] * 300) == []
