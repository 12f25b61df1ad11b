"""Rows that say the same share a group: against the Jaccard similarity of all pairs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import foldblend.folding.duplicates as duplicates
from foldblend.folding.duplicates import fold_text, group_texts

WORDS = [
    "the",
    "happy",
    "sad",
    "angry",
    "dog",
    "cat",
    "runs",
    "jumps",
    "over",
    "moon",
    "sun",
    "night",
    "today",
    "always",
]


def brute_force(texts, threshold):
    """Groups by comparing every pair; numbered by their first row."""
    keys = [fold_text(text) for text in texts]
    sets = [{key[i : i + 5] for i in range(len(key) - 4)} for key in keys]
    group = list(range(len(texts)))
    for a, b in combinations(range(len(texts)), 2):
        near = sets[a] and sets[b] and len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold < 1
        if keys[a] == keys[b] or near:
            group = [group[a] if g == group[b] else g for g in group]
    first = {g: i for i, g in reversed(list(enumerate(group)))}
    order = sorted(first.values())
    return np.array([order.index(first[g]) for g in group])


def made_up_texts(n, seed):
    """Texts of which many are copies of earlier ones with a word changed, dropped or doubled."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        if texts and rng.random() < 0.5:
            words = texts[rng.integers(len(texts))].split()
            words[rng.integers(len(words))] = str(rng.choice([*WORDS, ""]))
        else:
            words = rng.choice(WORDS, rng.integers(3, 14)).tolist()
        texts.append(" ".join(words))
    return texts


@pytest.fixture
def all_pieces_count(monkeypatch):
    """Groups of any size, and no piece that many texts share is left out."""
    monkeypatch.setattr(duplicates, "LARGEST_SHARE", 1.0)
    monkeypatch.setattr(duplicates, "SHARED_BY", 1.1)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_all_pairs(threshold, seed, all_pieces_count):
    texts = made_up_texts(300, seed)
    np.testing.assert_array_equal(group_texts(texts, threshold), brute_force(texts, threshold))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([*made_up_texts(25, 9), "!", "?", "ok", "OK.", "😀 😀"]), max_size=25), st.randoms())
def test_the_order_of_rows_does_not_matter(texts, random):
    order = random.sample(range(len(texts)), len(texts))
    group = group_texts(texts, 0.7)
    shuffled = group_texts([texts[i] for i in order], 0.7)
    back = np.empty(len(texts), dtype=np.int64)
    back[order] = shuffled
    assert len(set(zip(group.tolist(), back.tolist(), strict=True))) == len(set(group.tolist()))
    assert len(set(back.tolist())) == len(set(group.tolist()))


def test_examples():
    assert group_texts(["Good morning!", "good  morning", "bad night"]).tolist() == [0, 0, 1]
    assert group_texts([]).tolist() == []
    assert group_texts(["", " ", "a"]).tolist() == [0, 0, 1]
    long = "the quick brown fox jumps over the lazy dog and runs away from the angry cat"
    assert group_texts([long, "x", long.replace("angry", "hungry"), "y"], 0.8).tolist() == [0, 1, 0, 2]
    assert group_texts([long, "x", long.replace("angry", "hungry"), "y"], 1.0).tolist() == [0, 1, 2, 3]


def test_a_chain_of_small_changes_is_one_group():
    """a is like b and b like c: a and c must not be parted either, whatever they share."""
    text = "abcdefghijklmnopqrstuvwxyzabcdefghij0123456789"
    chain = [text[i:] + "-" + text[:i][::-1] for i in range(12)]
    assert len(set(group_texts(chain, 0.7).tolist())) == len(set(brute_force(chain, 0.7).tolist()))


def test_a_template_that_fills_a_bucket_is_linear_work(monkeypatch):
    """10,000 texts in one bucket: each is compared with its neighbours, not with all others."""
    compared = []
    exact = duplicates.jaccard

    def counted(texts, left, right, ignored):
        compared.append(len(left))
        return exact(texts, left, right, ignored)

    monkeypatch.setattr(duplicates, "jaccard", counted)
    start = "this is the same long beginning of a text that a bot has posted again and again to everyone with number "
    group = group_texts([f"{start}{i}" for i in range(10_000)], 0.8)
    assert group.max() == 0
    assert sum(compared) < 2 * 10_000


def test_long_texts_of_unlike_lengths():
    rng = np.random.default_rng(0)
    book = "".join(rng.choice(list("abcdefghijklmnopqrstuvw"), 300_000))
    texts = [book, "x" * 7, book[:-100] + "z" * 50, "short", book[: len(book) // 2]]
    assert group_texts(texts, 0.8).tolist() == [0, 1, 0, 2, 3]


def test_recall_at_the_threshold():
    """Bands are chosen so that a pair exactly at the threshold is found with the wanted chance."""
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9, 0.99):
        rows = duplicates.choose_rows_per_band(threshold)
        bands = duplicates.PERMUTATIONS // rows
        assert 1 - (1 - threshold**rows) ** bands >= duplicates.WANTED_RECALL


def test_min_hashes_estimate_jaccard():
    texts = made_up_texts(60, 4)
    least = duplicates.min_hashes(texts)
    a, b = np.triu_indices(60, 1)
    error = (least[a] == least[b]).mean(axis=1) - duplicates.jaccard(texts, a, b)
    assert abs(error.mean()) < 0.01 and error.std() < 0.07


POSTS = (
    "market cloud summer bridge train paper they furious bus phone window music was the is dull coffee raging".split()
)
LONG = (
    "You are an expert annotator of emotions in social media posts. Read the following post carefully and decide which "
    "of the emotions joy, sadness and anger are expressed by its author. Several may be present, or none. Post: "
)
QUESTIONS = (
    LONG,
    "What is the sum of the fractions one half and one third? Explain your reasoning in one sentence please. ",
    "Which of these numbers is the greatest, 6.2079 or 6.0001? Explain how you know it and write all of it down. ",
)


def posts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(POSTS, 8)) for _ in range(n)]


@pytest.mark.parametrize("n_questions", [1, 3])
@pytest.mark.parametrize("n", [30, 300])
def test_text_that_many_rows_share_joins_none_of_them(n, n_questions):
    """A form letter in every row, or one of a few questions before each answer: answers are compared."""
    answers = posts(n)
    alone = group_texts(answers, 0.8)
    joined = group_texts([QUESTIONS[row % n_questions] + text for row, text in enumerate(answers)], 0.8)
    assert int(alone.max()) - int(joined.max()) <= 0.05 * n and np.bincount(joined).max() <= 20
    twice = [QUESTIONS[row % n_questions] + text for row, text in enumerate([*answers, *answers[:n_questions]])]
    group = group_texts(twice, 0.8)
    assert all(group[n + row] == group[row] for row in range(n_questions))  # 30 and 300 are multiples of 1 and 3


def test_short_unrelated_rows_are_each_a_group_of_their_own():
    """Case template_none: eight words of a small vocabulary make no two of 1,000 rows the same."""
    group = group_texts(posts(1000), 0.8)
    assert len(set(group.tolist())) >= 995 and np.bincount(group).max() <= 2


def test_many_copies_with_small_changes_stay_together():
    """A bot's text with another number each time is one text, however often it comes."""
    bot = [f"win a free phone now, click here to get your own prize today, number {row}" for row in range(100)]
    group = group_texts([*bot, *posts(300)], 0.8)
    assert len(set(group[:100].tolist())) == 1 and np.bincount(group).max() == 100


def test_a_long_chain_is_no_group_of_everything():
    """Texts that turn into each other step by step are not one text from end to end."""
    rng = np.random.default_rng(3)
    words = [f"word{number}" for number in rng.permutation(800)]
    chain = [" ".join(words[start : start + 40]) for start in range(0, 700, 2)]
    assert np.bincount(group_texts(chain, 0.8)).max() <= 40
