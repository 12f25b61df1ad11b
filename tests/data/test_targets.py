"""Annotators' rows united, shares and unknown cells split, labels that cannot be learned found."""

import numpy as np
import pytest

from foldblend.data.answer_form import constant_lines, constants_record, find_constants, recorded_constants
from foldblend.data.labels import Targets, group_rows, split_values, unite_annotators

NAN = float("nan")


def test_rows_of_an_id_need_not_stand_together():
    first, member = group_rows(["b", "a", "b", "c", "a"])
    assert first.tolist() == [0, 1, 3] and member.tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize(
    "how, expected",
    [("majority", [[1, 0], [0, 1]]), ("any", [[1, 1], [1, 1]]), ("mean", [[2 / 3, 1 / 3], [0.5, 1]])],
)
def test_annotators_are_united(how, expected):
    values = np.float32([[1, 0], [1, 1], [0, 0], [1, NAN], [0, 1]])
    united = unite_annotators(values, np.array([0, 0, 0, 1, 1]), how, one_a_row=False)
    assert united == pytest.approx(np.float32(expected))


def test_what_no_annotator_knows_stays_unknown():
    united = unite_annotators(np.float32([[NAN], [NAN], [1]]), np.array([0, 0, 1]), "majority", one_a_row=False)
    assert np.isnan(united[0, 0]) and united[1, 0] == 1


def test_the_majority_of_classes_is_one_class_the_first_of_equal_ones():
    votes = np.eye(3, dtype=bool)[[2, 1, 2, 1, 0]]
    united = unite_annotators(votes, np.array([0, 0, 0, 1, 1]), "majority", one_a_row=True)
    assert united.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_shares_become_labels_at_the_stated_share():
    values = np.float32([[0.6, 0.59], [NAN, 1]])
    targets = split_values(values, positive_from=0.6, one_a_row=False)
    assert targets.labels.tolist() == [[True, False], [False, True]]
    assert targets.known.tolist() == [[True, True], [False, True]]
    assert targets.soft == pytest.approx(np.float32([[0.6, 0.59], [0, 1]]))


def test_whole_values_have_no_soft_targets_and_no_mask():
    targets = split_values(np.float32([[0, 1], [1, 0]]), positive_from=0.5, one_a_row=False)
    assert targets.soft is None and targets.known is None and targets.labels.tolist() == [[False, True], [True, False]]


def test_a_class_is_the_one_with_the_largest_share():
    targets = split_values(np.float32([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), positive_from=0.9, one_a_row=True)
    assert targets.labels.argmax(1).tolist() == [1, 0] and targets.labels.sum() == 2


def test_labels_with_no_one_and_all_rows_are_constants():
    labels = np.zeros((10, 5), bool)
    labels[0, 1] = labels[:2, 2] = labels[:, 3] = labels[:9, 4] = True
    found = find_constants(Targets(labels), ("none", "one", "two", "all", "nine"), {}, (), one_a_row=False)
    assert [(each.name, each.is_positive) for each in found] == [("none", False), ("one", False), ("all", True)]
    assert all(0 < each.probability < 1 for each in found)


def test_a_class_needs_one_row():
    labels = np.eye(3, dtype=bool)[[0, 0, 1]]
    assert [each.name for each in find_constants(Targets(labels), "abc", {}, (), one_a_row=True)] == ["c"]


def test_unknown_rows_do_not_count():
    labels, known = np.array([[True], [True], [False]]), np.array([[True], [True], [False]])
    (found,) = find_constants(Targets(labels, known=known), ["a"], {}, (), one_a_row=False)
    assert found.is_positive and "2 of 2 rows" in found.reason
    (found,) = find_constants(Targets(labels & False, known=known & False), ["a"], {}, (), one_a_row=False)
    assert not found.is_positive and "unknown in every row" in found.reason


def test_the_user_may_state_constants():
    labels = np.array([[True, False], [False, True], [True, True], [False, False]])
    (found,) = find_constants(Targets(labels), ["a", "b"], {"b": 0.7}, (), one_a_row=False)
    assert (found.name, found.probability, found.is_positive) == ("b", 0.7, True)
    record = constants_record([found], ["a", "b"])
    names, again = recorded_constants(record, ["a"])
    assert names == ("a", "b") and again[0].probability == 0.7
    assert constants_record([], ["a"]) == {} and recorded_constants({}, ["a"]) == (("a",), [])
    assert "1 of 2 labels" in constant_lines([found], 2)[0] and constant_lines([], 2) == []
