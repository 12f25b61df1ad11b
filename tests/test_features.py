"""Columns beside the text: read from cells, fitted on training rows alone, and the same again from a record."""

import json

import numpy as np
import pytest

from foldblend.features import MOST_WORDS, FittedFeatures, fit_features, read_features


def features(ages, countries=None, min_rows=2):
    columns = {"age": ages, "country": countries or ["it"] * len(ages)}
    return read_features(columns, ["age"], ["country"], len(ages), min_rows)[0]


def test_cells_of_numbers():
    cells = ["3", " -1.5e2 ", "", "NaN", "n/a", "True", "no", "1,5", "1_000", "inf", "1e31", "x"]
    found, bad = read_features({"age": cells}, ["age"], [], len(cells), 5)
    assert found.numbers[:, 0].tolist()[:2] == [3, -150] and np.isnan(found.numbers[2:5, 0]).all()
    assert found.numbers[5:7, 0].tolist() == [1, 0]
    assert bad == [("age", row) for row in range(7, 12)]


def test_numbers_are_standardised_and_words_get_columns():
    given = features(["1", "3", "", "5"], ["it", "fr", "it", "fr"])
    fitted = fit_features(given)
    assert fitted.mean == (3.0,) and fitted.words == (("fr", "it"),) and fitted.width == 5
    spread = np.std([1, 3, 5])
    expected = [[-2 / spread, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [2 / spread, 0, 1, 0, 0]]
    assert fitted.read(given) == pytest.approx(np.float32(expected))
    new = fitted.read(features(["1e6", "3"], ["de", " fr "]))
    assert new == pytest.approx(np.float32([[10, 0, 0, 0, 1], [0, 0, 1, 0, 0]]))  # 10 standard deviations at most


def test_nothing_but_training_rows_counts():
    given = features([*"1234", "1000"], ["a", "a", "b", "b", "zz"])
    fitted = fit_features(given.take(np.arange(4)))
    changed = features([*"1234", ""], ["a", "a", "b", "b", "b"])
    assert fit_features(changed.take(np.arange(4))) == fitted
    assert given.sha256() != changed.sha256() and given.sha256() == given.take(np.arange(5)).sha256()


def test_a_number_that_never_changes_and_one_that_is_never_there():
    for ages in (["7"] * 3, [""] * 3):
        given = features(ages)
        assert not fit_features(given).read(given)[:, 0].any()


def test_rare_words_share_a_column_and_so_do_very_many():
    assert fit_features(features(list("123"), ["a", "a", "b"])).words == (("a",),)
    many = [f"w{k}" for k in range(300) for _ in range(2)]
    given = features(["1"] * 600, many)
    fitted = fit_features(given)
    assert len(fitted.words[0]) == MOST_WORDS
    assert (fitted.read(given)[:, 2:].sum(1) == 1).all()


def test_a_record_gives_the_same_bits():
    given = features(["0.1", "0.2", "0.7"], ["a", "a", "b"])
    fitted = fit_features(given)
    again = FittedFeatures.from_record(json.loads(json.dumps(fitted.record())))
    assert again == fitted and again.read(given).tobytes() == fitted.read(given).tobytes()
