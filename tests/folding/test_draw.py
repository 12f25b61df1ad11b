"""Folds are a partition, groups stay whole, and every fold gets its share of every label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from foldblend.folding.draw import draw_folds, rate_deviation, sample_rows, stratify
from foldblend.settings.competition import CompetitionSettings


def count(labels, fold):
    return np.stack([labels[fold == k].sum(axis=0) for k in range(fold.max() + 1)])


@st.composite
def tables(draw):
    """Labels and groups of 40 to 120 rows in which every label has at least 3 groups a fold."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_labels, n_folds = rng.integers(40, 120), rng.integers(1, 5), int(rng.integers(2, 5))
    group = np.unique(rng.integers(0, n // rng.integers(1, 3), n), return_inverse=True)[1]
    labels = rng.random((n, n_labels)) < 0.3
    enough = [len(np.unique(group[column])) >= 3 * n_folds for column in labels.T]
    labels = labels[:, enough] if any(enough) else np.ones((n, 1), dtype=bool)
    return labels, group, n_folds


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(0, 1000))
def test_whole_groups_every_fold_every_label(table, seed):
    labels, group, n_folds = table
    fold = stratify(labels, group, n_folds, seed)
    assert set(fold.tolist()) == set(range(n_folds))
    assert len(set(zip(group.tolist(), fold.tolist(), strict=True))) == len(set(group.tolist()))
    assert count(labels, fold).min() >= 1
    np.testing.assert_array_equal(fold, stratify(labels, group, n_folds, seed))


@pytest.mark.parametrize("seed", range(4))
def test_counts_within_one_of_their_share(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random((3000, 11)) < np.geomspace(0.4, 0.01, 11)
    labels[rng.random(3000) < 0.1] = False
    group = np.unique(rng.integers(0, 2800, 3000), return_inverse=True)[1]
    fold = stratify(labels, group, 5, seed)
    full = np.c_[labels, ~labels.any(axis=1), np.ones(3000, dtype=bool)]
    reached = count(full, fold)
    assert (np.abs(reached - reached.mean(axis=0)).max(axis=0) < 1).sum() >= 12
    assert np.abs(reached - reached.mean(axis=0)).max() < 2


def test_a_single_label_and_multiclass():
    rng = np.random.default_rng(0)
    one = rng.random((200, 1)) < 0.2
    assert np.ptp(count(one, stratify(one, np.arange(200), 5, 0))) <= 1
    classes = np.eye(4, dtype=bool)[rng.choice(4, 500, p=[0.6, 0.3, 0.08, 0.02])]
    assert np.ptp(count(classes, stratify(classes, np.arange(500), 5, 0)), axis=0).max() <= 1


def test_seeds_draw_different_folds():
    labels = np.random.default_rng(0).random((300, 3)) < 0.3
    draws = [stratify(labels, np.arange(300), 5, seed) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).mean() > 0.5


def test_a_group_of_many_copies_does_not_rob_the_other_folds():
    """200 copies of one text are in one fold; the label's 8 other texts are spread over the others."""
    labels = np.zeros((1000, 1), dtype=bool)
    labels[:208, 0] = True
    group = np.r_[np.zeros(200, dtype=np.int64), np.arange(1, 801)]
    fold = stratify(labels, group, 5, 0)
    presence = [len(np.unique(group[(fold == k) & labels[:, 0]])) for k in range(5)]
    assert min(presence) >= 1 and max(presence) <= 3


def test_rare_labels_with_copies_are_spread_by_text_as_well_as_by_row():
    """A fifth of the texts have up to a hundred copies; the distinct texts of each rare label are still spread."""
    spreads = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        size = 1 + rng.geometric(0.3, 150) * (rng.random(150) < 0.2) * rng.integers(1, 10)
        group = np.repeat(np.arange(150), size)
        labels = (rng.random((150, 6)) < np.geomspace(0.3, 0.1, 6))[group]
        fold = stratify(labels, group, 4, seed)
        for column in labels.T:
            per_fold = [len(np.unique(group[(fold == k) & column])) for k in range(4)]
            spreads.append(max(per_fold) - min(per_fold))
    assert np.mean(spreads) < 7


def test_too_few_groups():
    labels = np.ones((9, 1), dtype=bool)
    with pytest.raises(ValueError, match="3 groups of distinct texts cannot fill 5 folds; lower n_folds"):
        stratify(labels, np.arange(9) // 3, 5, 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_label_with_fewer_texts_than_folds_is_in_as_many_folds_as_it_has_texts(seed):
    labels = np.random.default_rng(seed).random((60, 4)) < 0.4
    labels[:, 1:3] = False
    labels[[3, 30], 1] = labels[[3, 17, 50, 51], 2] = True
    fold = stratify(labels, np.arange(60), 5, seed)
    assert len(set(fold[labels[:, 1]].tolist())) == 2 and len(set(fold[labels[:, 2]].tolist())) == 4
    assert set(fold.tolist()) == set(range(5)) and (count(labels, fold)[:, [0, 3]] >= 1).all()


def test_a_label_whose_rows_all_repeat_one_text_is_in_one_fold():
    labels = np.arange(100).reshape(50, 2) % 2 == 0
    labels[:, 0] = np.arange(50) < 30
    group = np.r_[np.zeros(30, dtype=np.int64), np.arange(1, 21)]
    fold = stratify(labels, group, 2, 0)
    assert len(set(fold[:30].tolist())) == 1 and set(fold.tolist()) == {0, 1}


def test_arrays_alone_are_enough():
    """The default folds are those of a competition's defaults."""
    texts = [f"text number {i} of them all" for i in range(60)] + ["Same  text!", "same text"]
    labels = np.arange(124).reshape(62, 2) % 3 < 1
    fold, group = draw_folds(texts, labels, n_folds=3, seed=1)
    assert fold.dtype == group.dtype == np.int64 and set(fold.tolist()) == {0, 1, 2}
    assert group[60] == group[61] and fold[60] == fold[61] and len(set(group.tolist())) == 61
    settings = CompetitionSettings(id_column="id")
    named = (settings.n_folds, settings.fold_seed, settings.near_duplicates)
    assert np.array_equal(draw_folds(texts, labels)[0], draw_folds(texts, labels, *named)[0])


def test_labels_that_cannot_all_be_in_every_fold_are_dealt_with_all_the_same():
    """Three texts with two of three labels each cannot give two folds every label."""
    labels = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=bool)
    assert set(stratify(labels, np.arange(3), 2, 0).tolist()) == {0, 1}


def test_real_tweets_have_rates_within_two_percent(shared_dir):
    """GoEmotions, 5 folds: labels of 200 rows and more; a plain KFold is far off."""
    lines = (shared_dir / "data" / "goemotions" / "train.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    labels = np.zeros((len(rows), 28), dtype=bool)
    for row, (_, numbers, _) in enumerate(rows):
        labels[row, [int(number) for number in numbers.split(",")]] = True
    texts = [text for text, _, _ in rows]
    fold, group = draw_folds(texts, labels)
    assert len(set(zip(group.tolist(), fold.tolist(), strict=True))) == group.max() + 1
    common = labels.sum(axis=0) >= 200
    assert rate_deviation(labels, fold, 5)[:, common].max() < 0.02
    plain = np.empty(len(rows), dtype=np.int64)
    for k, (_, heldout) in enumerate(KFold(5, shuffle=True, random_state=42).split(texts)):
        plain[heldout] = k
    assert rate_deviation(labels, plain, 5)[:, common].max() > 0.05


def test_a_sample_of_rows_is_nested_repeatable_and_keeps_every_label():
    rng = np.random.default_rng(0)
    labels = np.column_stack([rng.random(3000) < 0.3, np.arange(3000) % 500 == 1])
    rows = np.flatnonzero(np.arange(3000) % 5 != 2)
    samples = [sample_rows(rows, labels, share, seed=1) for share in (0.1, 0.3, 0.6)]
    for share, sample in zip((0.1, 0.3, 0.6), samples, strict=True):
        assert np.all(np.diff(sample) > 0) and np.isin(sample, rows).all()
        assert len(sample) == pytest.approx(share * len(rows), abs=10)
        rare = labels[rows, 1].sum()
        assert labels[sample, 1].sum() >= min(rare, 10)
        assert np.array_equal(sample, sample_rows(rows, labels, share, seed=1))
    assert set(samples[0]) <= set(samples[1]) <= set(samples[2])
    assert sample_rows(rows, labels, 1.0, seed=1) is rows
    assert not np.array_equal(samples[0], sample_rows(rows, labels, 0.1, seed=2))
