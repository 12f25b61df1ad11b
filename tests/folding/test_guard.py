"""A row from elsewhere does not teach a fold whose held-out rows it copies, however many others come along."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.folding.duplicates import PIECE, fold_text, jaccard
from foldblend.folding.other_texts import find_contradictions, find_known_folds

WORDS = "the quiet river carried seven golden lanterns past every sleeping village under winter stars again".split()


def sentence(rng, n=12):
    return " ".join(rng.choice(WORDS, n)) + f" {rng.integers(1000)}"


def test_equal_and_nearly_equal_texts_are_found():
    rng = np.random.default_rng(0)
    own = [sentence(rng, 14) for _ in range(40)]
    fold = np.arange(40) % 4
    extra = [own[5].upper() + "!!", own[6] + " x", sentence(rng, 14), f"@you {own[7]}"]
    found = find_known_folds(own, fold, 4, extra)
    assert found.tolist() == [
        [False, True, False, False],
        [False, False, True, False],
        [False] * 4,
        [False] * 3 + [True],
    ]
    assert find_known_folds(own, fold, 4, extra, 1.0)[1].sum() == 0  # 1.0 compares equal texts only


def test_a_copy_of_a_copy_knows_what_the_copy_knows():
    base = " ".join([*WORDS, *(word[::-1] for word in WORDS)])
    near = base.replace("village ", "hamlets ")
    far = near.replace("golden", "silver")
    alone, both = (find_known_folds([base], np.array([0]), 2, extra) for extra in ([far], [near, far]))
    assert not alone.any() and both[:, 0].all() and not both[:, 1].any()


def test_what_half_of_the_texts_share_makes_no_two_the_same():
    rng = np.random.default_rng(1)
    form = "Dear sir or madam, I am writing to you about the order that I placed with your company last month. "
    own = [form + sentence(rng) for _ in range(30)]
    found = find_known_folds(own, np.zeros(30, np.int64), 1, [form + sentence(rng), own[3] + ".", own[4][len(form) :]])
    assert found[:, 0].tolist() == [False, True, True]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0.6, 0.8, 0.9]))
def test_no_near_copy_of_a_held_out_row_is_let_through(seed, threshold):
    """Random copies with random changes, many of one row, compared pair by pair."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghij"), rng.integers(2, 9))) for _ in range(300)]  # no form letters
    own = [" ".join(rng.choice(words, rng.integers(1, 14))) for _ in range(15)]
    fold = rng.integers(0, 3, len(own))
    copied = rng.integers(0, len(own), 60) if rng.random() < 0.5 else np.full(60, rng.integers(len(own)))
    extra = []
    for k in copied:
        changed = own[k].split()
        for _ in range(rng.integers(0, 4)):
            changed[rng.integers(len(changed))] = str(rng.choice(words))
        extra.append(" ".join(changed))
    found = find_known_folds(own, fold, 3, extra, threshold)
    keys, own_keys = [fold_text(text) for text in extra], [fold_text(text) for text in own]
    pairs = [(k, j) for k, key in enumerate(keys) for j, own_key in enumerate(own_keys)]
    long = np.array([pair for pair in pairs if min(len(keys[pair[0]]), len(own_keys[pair[1]])) >= PIECE])
    near = long[jaccard([*keys, *own_keys], long[:, 0], len(keys) + long[:, 1]) >= threshold] if len(long) else long
    equal = [(k, j) for k, j in pairs if keys[k] == own_keys[j]]
    assert all(found[k, fold[j]] for k, j in [*near.tolist(), *equal])


def test_a_row_that_contradicts_a_training_row_is_found():
    nan = np.nan
    own, labels = ["happy", "sad"], np.array([[1, 0], [0, 1]], bool)
    extra = np.float32([[1, 0], [0, 0], [nan, 0], [0, 1], [0.9, 0.1]])
    found = find_contradictions(own, labels, ["Happy!", "happy", "happy", "new", "HAPPY"], extra)
    assert found.tolist() == [1]


@pytest.mark.parametrize("own, extra", [([], ["a text"]), (["a text"], []), (["hi"], ["hi", "ho"])])
def test_few_or_short_texts(own, extra):
    found = find_known_folds(own, np.zeros(len(own), np.int64), 2, extra)
    assert found.shape == (len(extra), 2) and found.sum() == (own == ["hi"])
