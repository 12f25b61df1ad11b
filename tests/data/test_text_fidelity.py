"""Several columns into one text, and the settings that could be read two ways."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_competition import settings

from foldblend.data.reading import TextTable
from foldblend.data.tables import build_texts
from foldblend.settings.data_files import TextSettings

NAMED = {"form": "delimited", "column": "labels", "names": ("joy", "fear")}


def test_text_template_formats_only_the_template():
    table = TextTable(("title", "body"), [["{body} {0.__class__}", "b"], ["x", "{}"]])
    joined = build_texts(table, TextSettings(("title", "body"), "{{{title}}} | {body}"))
    assert joined == ["{{body} {0.__class__}} | b", "{x} | {}"]
    assert build_texts(table, TextSettings(("body", "title"))) == ["b {body} {0.__class__}", "{} x"]


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
def test_any_text_goes_through_a_template_unchanged(rows):
    table = TextTable(("a", "b"), [list(row) for row in rows])
    assert build_texts(table, TextSettings(("a", "b"), "{b}/{a}")) == [f"{b}/{a}" for a, b in rows]


def test_title_and_body_of_both_files_become_one_text(files):
    for table in (files.train, files.test):
        table[0].insert(1, "title")
        for k, row in enumerate(table[1:]):
            row.insert(1, f"title {{{k}}}")
    tables = files.load(settings(text={"columns": ("title", "text"), "template": "{title} | {text}"}))
    assert tables.train_texts == [f"title {{{k}}} | text {k}" for k in range(12)]
    assert tables.test_texts == [f"title {{{k}}} | other {k}" for k in range(4)]


def test_a_template_that_formats_is_refused():
    for template in ("{text!r}", "{text:>10}", "{text.__class__}", "{text[0]}", "{}"):
        with pytest.raises(ValueError, match=r"text\.template"):
            settings(text={"template": template})


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"files": {"encoding": "utf-88"}}, "files.encoding is 'utf-88'; expected a text encoding"),
        ({"files": {"encoding": "base64"}}, "files.encoding is 'base64'; expected a text encoding"),
        ({"files": {"separator": ",,"}}, "files.separator is ',,'"),
        ({"submission": {"separator": '"'}}, "submission.separator is"),
        ({"labels": {**NAMED, "names": ("a,b", "c")}}, "label 'a,b' contains labels.delimiter ','"),
        ({"labels": {"names": ("joy ", "fear")}}, "without spaces around it"),
        ({"labels": {"names": ("id", "fear")}}, "has the id column"),
        (
            {"labels": {"names": ("so mad", "b")}, "submission": {"form": "delimited", "column": "x"}},
            "label 'so mad' contains submission.delimiter ' '",
        ),
    ],
)
def test_settings_that_cannot_be_read_two_ways(groups, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        settings(**groups)
