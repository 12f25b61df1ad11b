import json

import pytest

from foldblend.settings.loading import settings_of, with_defaults
from foldblend.settings.run import OptimizerSettings, RunSettings


def as_stored(run):
    return json.loads(json.dumps(settings_of(run)))


@pytest.mark.parametrize("learner", ["encoder", "tfidf"])
def test_what_is_younger_had_its_default(learner):
    run = as_stored(RunSettings(learner))
    older = {name: dict(values) if isinstance(values, dict) else values for name, values in run.items()}
    for values in older.values():
        if isinstance(values, dict):
            values.popitem()
    assert older != run and with_defaults(older) == run
    older.popitem()
    assert with_defaults(older) == run


def test_what_was_stored_stays_and_so_does_what_stands_beside():
    run = as_stored(RunSettings("encoder", optimizer=OptimizerSettings(lr=1e-3)))
    del run["optimizer"]["moments"]
    found = with_defaults({**run, "data_sha256": "ab"})
    assert found["optimizer"]["lr"] == 1e-3 and found["optimizer"]["moments"] == "float32"
    assert found["data_sha256"] == "ab"


def test_a_record_without_a_learner_of_ours_is_left_alone():
    assert with_defaults({"kind": "logits"}) == {"kind": "logits"}
    assert with_defaults({"learner": "none of ours", "a": 1}) == {"learner": "none of ours", "a": 1}
