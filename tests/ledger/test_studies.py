"""What a study shows is written whole and read strictly."""

import json

import pytest

from foldblend.errors import UserError
from foldblend.ledger.history import read_studies, write_study

RECORD = {
    "name": "mine",
    "run": "tfidf",
    "metric": "macro_f1",
    "greater_is_better": True,
    "trials": [{"number": 0, "score": 0.5}, {"number": 2, "score": 0.6}],
    "base_score": 0.55,
    "base_spread": None,
    "importance": {"logistic.weight": 1.0},
}


def write(paths, record=RECORD):
    folder = paths.oof("toy") / ".studies" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    write_study(folder, record)
    return folder / "study.json"


def test_what_is_written_comes_back(paths):
    assert read_studies(paths, "toy") == []
    write(paths)
    assert read_studies(paths, "toy") == [RECORD]


@pytest.mark.parametrize(
    "change",
    [
        {"trials": [{"number": 0, "score": "x"}]},
        {"trials": 3},
        {"base_score": None},
        {"importance": {"a": "b"}},
        {"name": 7},
        {"base_spread": True},
    ],
)
def test_another_type_is_not_written(paths, change):
    with pytest.raises(ValueError, match="refused to write"):
        write(paths, {**RECORD, **change})


def test_a_changed_or_cut_file_is_refused_by_name(paths):
    path = write(paths)
    whole = path.read_bytes()
    said = r"(?s)study\.json.*src/tune\.py --competition toy --study mine --show"
    for data in (json.dumps({**json.loads(whole), "base_score": 0.9}).encode(), whole[:40], b"[]"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=said):
            read_studies(paths, "toy")
