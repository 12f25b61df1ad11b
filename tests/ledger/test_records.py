"""A record comes back as it was written, or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.ledger.records import read_record, write_record

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
        ('{"a": NaN}', "NaN is no JSON number"),
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
