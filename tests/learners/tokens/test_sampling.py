import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldblend.learners.tokens.batches import find_rare, oversample
from foldblend.settings.nets import AugmentationSettings
from foldblend.settings.run import RunSettings

RARER = AugmentationSettings(oversample_factor=3.0, oversample_rarer_than=0.1)
RNG = np.random.default_rng
NAMES = tuple("abcde")


def draw(n=400, seed=0):
    return RNG(seed).random((n, 5)) < [0.5, 0.3, 0.05, 0.02, 0.0]


def test_recipe_b_three_times_as_many_appended_with_replacement():
    labels, rows = draw(), np.arange(50, 400)
    got = oversample(rows, labels, NAMES, RARER, RNG(1))
    carriers = rows[labels[rows][:, 2:4].any(1)]
    assert got.dtype == np.int64 and np.array_equal(got[:350], rows)
    assert len(got) == 350 + 3 * len(carriers) and set(got[350:]) <= set(carriers)
    assert len(set(got[350:])) < len(got[350:]), "drawn with replacement"
    counts = np.bincount(got[350:], minlength=400)[carriers]
    assert counts.std() > 0, "drawn, not repeated"


@given(st.integers(0, 10_000), st.floats(0.1, 5), st.sampled_from([{"k": 2}, {"below": 0.2}]))
def test_only_training_rows_and_a_length_that_no_draw_changes(seed, factor, chosen):
    labels, rows = draw(200, seed % 7), np.sort(RNG(seed).choice(200, 120, replace=False))
    settings = AugmentationSettings(factor, chosen.get("below", 0.0), chosen.get("k", 0))
    first, second = (oversample(rows, labels, NAMES, settings, RNG([seed, i])) for i in range(2))
    assert set(first) == set(rows) and len(first) == len(second)
    assert np.array_equal(first, oversample(rows, labels, NAMES, settings, RNG([seed, 0])))


def test_labels_of_other_rows_change_nothing():
    labels, rows = draw(), np.arange(50, 400)
    other = labels.copy()
    other[:50] = ~other[:50]
    assert np.array_equal(oversample(rows, labels, NAMES, RARER, RNG(1)), oversample(rows, other, NAMES, RARER, RNG(1)))


def test_the_k_rarest_that_are_there():
    labels = draw()
    assert find_rare(labels, NAMES, AugmentationSettings(1.0, 0.0, 2)).tolist() == [3, 2]
    assert find_rare(labels, NAMES, AugmentationSettings(1.0, 0.0, 9)).tolist() == [3, 2, 1, 0]
    assert find_rare(labels, NAMES, RARER).tolist() == [2, 3]


def test_labels_by_name_whatever_their_number_of_rows():
    labels, rows = draw(), np.arange(50, 400)
    settings = AugmentationSettings(2.0, oversample_labels=("c", "a"))
    assert find_rare(labels, NAMES, settings).tolist() == [2, 0]
    got = oversample(rows, labels, NAMES, settings, RNG(1))
    carriers = rows[labels[rows][:, [0, 2]].any(1)]
    assert len(got) == 350 + 2 * len(carriers) and set(got[350:]) <= set(carriers)
    assert labels[got[350:], 0].any() and labels[got[350:], 2].any()
    with pytest.raises(ValueError, match=r"oversample_labels: there is no label 'joi'; did you mean 'joy'\?"):
        find_rare(labels, ("joy", "fear", "awe", "love", "hope"), AugmentationSettings(1.0, oversample_labels=("joi",)))


def test_off_by_default():
    rows = np.arange(10)
    assert oversample(rows, draw(10), NAMES, AugmentationSettings(), RNG(0)) is rows


def test_where_no_label_is_rare_enough_the_rows_stay_as_they_are():
    rows = np.arange(400)
    assert np.array_equal(oversample(rows, draw(), NAMES, AugmentationSettings(1.0, 0.001), RNG(0)), rows)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"oversample_factor": 3.0}, "say which labels are rare by one of"),
        ({"oversample_factor": 3.0, "oversample_k_rarest": 2, "oversample_rarer_than": 0.1}, "by one of"),
        ({"oversample_factor": 3.0, "oversample_k_rarest": 2, "oversample_labels": ("a",)}, "by one of"),
        ({"oversample_labels": ("a",)}, "oversample_labels is set, but augmentation.oversample_factor is 0"),
        ({"oversample_k_rarest": 2}, "oversample_k_rarest is set, but augmentation.oversample_factor is 0"),
        ({"oversample_factor": -1.0, "oversample_k_rarest": 2}, "oversample_factor is -1.0; expected 0 or more"),
        ({"mix_probability": 1.1}, "mix_probability is 1.1; expected 0 to 1"),
        ({"token_dropout": 1.0}, "token_dropout is 1.0; expected 0 or more, less than 1"),
    ],
)
def test_settings_that_cannot_work(changed, message):
    with pytest.raises(ValueError, match=message):
        RunSettings("encoder", augmentation=AugmentationSettings(**changed))
