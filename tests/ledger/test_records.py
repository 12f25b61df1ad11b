"""A record comes back as it was written, or not at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.errors import UserError
from foldblend.ledger.folds import FOLDS
from foldblend.ledger.oof import FOLD
from foldblend.ledger.records import VERSION, _seal, read_record, write_record
from foldblend.ledger.runs import BLEND
from foldblend.ledger.submissions import SUBMISSION

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "record_sha256"), values, max_size=5))
def test_a_record_comes_back_as_it_was(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("record") / "r.json"
    write_record(path, record)
    assert read_record(path) == record


RECORD = {"score": {"macro_f1": 0.4513}, "settings": {"lr": 5e-05, "names": ["a", "b"]}, "seconds": 12.5, "ok": True}


def test_numbers_as_keys_come_back_as_text(tmp_path):
    write_record(tmp_path / "r.json", {"per_fold": {10: "a", 9: "b"}})
    assert read_record(tmp_path / "r.json") == {"per_fold": {"10": "a", "9": "b"}}


def test_every_changed_bit_of_a_record_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, RECORD)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        for bit in (0, 3, 5):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :])
            try:
                assert read_record(path) == RECORD  # a space became another white space, \n, \t or \r
            except ValueError as error:
                refused += 1
                assert str(path) in str(error)
    assert refused > 2.5 * len(whole.replace(b" ", b"").replace(b"\n", b""))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not readable as JSON"),
        ('{"a": 1', "not readable as JSON"),
        ("[1]", "holds a JSON list; expected an object"),
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ('{"a": NaN}', "NaN is not a number that JSON knows"),
        ('{"a": 1}', "written by another program or an older version"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not readable as JSON"),
    ],
)
def test_foreign_json_is_refused(tmp_path, text, message):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_record(path)


def test_an_edited_record_is_refused(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, RECORD)
    path.write_text(path.read_text().replace("0.4513", "0.9513"))
    with pytest.raises(ValueError, match="changed or damaged since it was written"):
        read_record(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"])
def test_a_record_that_json_cannot_hold_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="that JSON cannot"):
        write_record(tmp_path / "r.json", {"a": value})
    assert not list(tmp_path.iterdir())


# ---------- schemas: one record of each version is kept here for ever.


FOLDS_1 = {
    "n_folds": 3, "fold_seed": 42, "near_duplicates": 0.8, "csv_sha256": "a" * 64,
    "train_sha256": {"ids": "b" * 64, "texts": "c" * 64, "label_names": "d" * 64, "labels": "e" * 64},
    "rows_per_fold": [4, 4, 4], "labels_per_fold": {"joy": [1, 2, 1]},
}  # fmt: skip
FOLD_1 = {
    "settings": {"learner": "tfidf", "seed": 42, "tfidf": {"word_ngrams": [1, 2]}}, "score": {"macro_f1": 0.5},
    "selected_on_heldout": False, "truncation": {}, "device": "cpu", "seconds": 1.5,
    "environment": {"python": "3.11.7", "torch": "not installed", "git_commit": "0123456789ab+"},
    "n_folds": 3, "folds_sha256": "a" * 64, "label_names": ["joy"], "train_sha256": {"ids": "b" * 64},
    "test_sha256": {"ids": "c" * 64, "texts": "d" * 64}, "fold": 0, "kind": "logits", "rows": 4, "test_rows": 2,
    "npz_sha256": "e" * 64,
}  # fmt: skip
BLEND_1 = {
    "competition": "toy", "runs": ["a", "b"],
    "settings": {
        "competition": {"id_column": "id", "files": {"sample_submission": "sample_submission.csv"}},
        "seed": 0, "strategy": "",
    },
    "inputs": {"folds": "a" * 64, "oof/toy/a/fold0.npz": "b" * 64},
    "recipe": {
        "kind": "multilabel",
        "predictor": {"form": "stack", "kind": "multilabel", "coefs": [[0.5, 0.5, -0.1]]},
        "rule": {"thresholds": [0.5]},
    },
    "account": {
        "metric": "macro_f1", "handed_in": "stack + robust", "in_sample": 0.6, "cross_fitted": 0.5,
        "expected_fold_mean": {"score": 0.51, "low": 0.4, "high": 0.6},
    },
    "csv_sha256": "f" * 64,
}  # fmt: skip
EARLIER = [(FOLDS, FOLDS_1), (FOLD, FOLD_1), (SUBMISSION, BLEND_1), (BLEND, BLEND_1)]
"""(schema, record of version 1: of before 0.3, without a version). Records of later versions are added here."""


@pytest.mark.parametrize("schema, record", EARLIER, ids=[schema.name for schema, _ in EARLIER])
def test_a_record_of_each_earlier_version_is_read(tmp_path, schema, record):
    path = tmp_path / "r.json"
    write_record(path, record)
    found = read_record(path, schema)
    if "account" in record:
        report = {**record["account"], "chosen": "stack + robust"}
        del report["handed_in"]
        record = {**record, "report": report}
        del record["account"]
    assert found == record
    write_record(path, found, schema)
    assert read_record(path, schema) == found and read_record(path)["schema_version"] == VERSION


@pytest.mark.parametrize("version, message", [
    (VERSION + 1, f"written by a newer version of Foldblend .schema_version {VERSION + 1}, .*Update this project"),
    (0, "schema_version is 0; expected 1 to"), ("2", "schema_version is '2'"), (True, "is True"), (None, "is None"),
])  # fmt: skip
def test_a_newer_version_or_none_at_all_is_refused(tmp_path, version, message):
    write_record(tmp_path / "r.json", {**FOLDS_1, "schema_version": version})
    with pytest.raises(UserError, match=message):
        read_record(tmp_path / "r.json", FOLDS)


@pytest.mark.parametrize("change, message", [
    ({"n_folds": "3"}, "is not a record of folds: n_folds is '3'; expected a whole number. Restore it"),
    ({"n_folds": 3.5}, "n_folds is 3.5"), ({"n_folds": True}, "n_folds is True"),
    ({"n_folds": 10**30}, "n_folds is 1000"), ({"csv_sha256": "abc"}, "csv_sha256 is 'abc'; expected a sha256"),
    ({"train_sha256": []}, "train_sha256 is .*; expected an object"),
    ({"train_sha256": {"ids": 1}}, "train_sha256.ids is 1; expected a sha256"),
    ({"rows_per_fold": [4, None]}, r"rows_per_fold.1. is None; expected a whole number"),
    ({"labels_per_fold": {"joy": 3}}, "labels_per_fold.joy is 3; expected a list"),
    ({"near_duplicates": 10**400}, "near_duplicates is 1000"),
    ({"brought": {"file": "x", "column": "y", "sha256": 3}}, "brought.sha256 is 3; expected a sha256 or null"),
    ({"groups": "\ud800"}, "groups is .*; expected text"), ({"brought": {}}, "brought.file is missing; expected text"),
])  # fmt: skip
def test_a_record_with_other_types_is_refused_by_its_field(tmp_path, change, message):
    path = tmp_path / "r.json"
    body = {**FOLDS_1, **change}
    path.write_text(json.dumps({**body, "record_sha256": _seal(json.loads(json.dumps(body)))}))
    with pytest.raises(UserError, match=message):
        read_record(path, FOLDS)
    with pytest.raises(ValueError, match="refused to write"):
        write_record(tmp_path / "s.json", body, FOLDS)
    assert not (tmp_path / "s.json").exists()


def test_what_is_missing_or_of_another_kind_is_refused_by_name(tmp_path):
    for schema, record in EARLIER:
        for name in schema.fields:
            if name.endswith("?") or name not in record:
                continue
            write_record(tmp_path / "r.json", {key: value for key, value in record.items() if key != name})
            with pytest.raises(UserError, match=f"is not a record of {schema.name}: {name} is missing"):
                read_record(tmp_path / "r.json", schema)
    write_record(tmp_path / "r.json", FOLD_1)
    with pytest.raises(UserError, match="is not a record of a blend: csv_sha256 is missing"):
        read_record(tmp_path / "r.json", BLEND)


def test_a_recipe_of_every_form_is_read(tmp_path):
    """As blend.py writes them now: averages of averages, quantiles, thresholds that adapt."""
    plain = {"form": "scores", "kind": "multilabel", "coefs": [0.5, 0.5]}
    stack = {"form": "cross_label_stack", "kind": "multilabel", "coefs": [[0.5, 0.5, -0.1]]}
    ranks = {"form": "rank_mean", "points": [[[0.1, 0.2]]], "probs": [[0.1, 0.9]]}
    inner = {"form": "average", "first": plain, "second": ranks, "share": [0.5]}
    rule = {"thresholds": [0.5], "calibration": [[1.0], [0.0]], "at_least_one": True}
    for predictor in (plain, stack, ranks, inner, {"form": "average", "first": inner, "second": inner, "share": [1]}):
        recipe = {"kind": "multilabel", "predictor": predictor, "rule": rule}
        write_record(tmp_path / "r.json", {**BLEND_1, "recipe": recipe})
        assert read_record(tmp_path / "r.json", BLEND)["recipe"] == recipe
    for place in ("first", "second"):
        bad = {"kind": "multilabel", "predictor": {**inner, place: {**plain, "coefs": ["x"]}}, "rule": rule}
        write_record(tmp_path / "r.json", {**BLEND_1, "recipe": bad})
        with pytest.raises(UserError, match=rf"recipe.predictor.{place}.coefs.0. is 'x'; expected a number"):
            read_record(tmp_path / "r.json", BLEND)
