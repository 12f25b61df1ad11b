"""What a study shows is written whole and read strictly."""

import json

import pytest

from foldblend.errors import UserError
from foldblend.ledger.history import StudyFacts, read_studies, write_study

FACTS = StudyFacts("mine", "tfidf", "macro_f1", True, [(0, 0.5), (2, 0.6)], 0.55, None, {"logistic.weight": 1.0})


def write(paths, name="mine", facts=FACTS):
    folder = paths.oof("toy") / ".studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    write_study(folder, facts)
    return folder / "study.json"


def test_what_is_written_comes_back(paths):
    assert read_studies(paths, "toy") == []
    write(paths)
    assert read_studies(paths, "toy") == [FACTS]


@pytest.mark.parametrize(
    "change",
    [
        lambda values: {**values, "trials": [[0, "x"]]},
        lambda values: {**values, "trials": 3},
        lambda values: {**values, "base_score": None},
        lambda values: {**values, "importance": {"a": "b"}},
        lambda values: {**values, "importance": None},
        lambda values: {k: v for k, v in values.items() if k != "metric"},
        lambda values: {**values, "more": 1},
        lambda values: [values],
        lambda values: {**values, "name": 7},
        lambda values: {**values, "trials": [[0, float("nan")]]},
    ],
)
def test_a_changed_file_is_refused_by_name(paths, change):
    path = write(paths)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=r"study\.json: not what a study writes.*tune\.py --competition toy"):
        read_studies(paths, "toy")


def test_a_cut_file_is_refused(paths):
    path = write(paths)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="not what a study writes"):
        read_studies(paths, "toy")
