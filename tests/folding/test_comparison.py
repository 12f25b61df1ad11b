"""Test texts against training texts: repeats are counted, other texts are told apart if they differ."""

import numpy as np

from foldblend.folding.other_texts import compare_texts, find_repeats, find_telling_words


def texts(n, words, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words.split(), 8)) + f" {seed}x{row}" for row in range(n)]


WORDS = "sun moon rain dog cat tree house river road bridge"


def test_texts_of_the_same_kind_cannot_be_told_apart():
    found = compare_texts(texts(400, WORDS, 0), texts(300, WORDS, 1))
    assert abs(found.auc - 0.5) < 3 * found.error < 0.1 and found.n_repeats == 0
    assert len(found.train_scores) == len(found.rows) == 400 and len(found.test_scores) == 300


def test_texts_of_another_kind_are_told_apart():
    found = compare_texts(texts(400, WORDS, 0), texts(300, WORDS + " storm storm storm", 1))
    assert found.auc > 0.7


def test_repeats_are_counted_whatever_their_case_and_not_classified():
    train = texts(300, WORDS, 0)
    test = [*(text.upper() + "!" for text in train[:30]), *texts(270, WORDS, 1)]
    found = compare_texts(train, test)
    assert (found.n_repeats, found.n_test) == (30, 300)
    assert len(found.test_scores) == 270 and len(found.train_scores) == 270 and not set(found.rows) & set(range(30))


def test_too_few_texts_and_texts_without_a_common_word_say_nothing():
    assert compare_texts(["a b", "c d"], ["e f"] * 40).auc == 0.5
    assert compare_texts([f"q{row}" for row in range(40)], [f"z{row}" for row in range(40)]).auc == 0.5


def test_words_that_tell_the_files_apart():
    ours = [f"story {k} of the old town" for k in range(40)]
    theirs = [f"story {k} of the new city" for k in range(40, 80)]
    words = {word: shares for word, *shares in find_telling_words(ours, theirs)}
    assert words["old"] == [1.0, 0.0] and words["city"] == [0.0, 1.0]
    assert list(words)[-1] in ("story", "of", "the")  # in all texts: it tells nothing
    assert find_telling_words(ours[:3], theirs) == []


def test_repeated_test_rows_name_the_first_training_row():
    assert find_repeats(["A b", "c", "a  B!"], ["x", "a b", "C"]) == [(1, 0), (2, 1)]
