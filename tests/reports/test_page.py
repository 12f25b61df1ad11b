"""A page as HTML and as lines: hostile text stays text, numbers are written as people read them."""

import base64
import hashlib
import html
import json
import re

import pytest

from foldblend.reports.page import (
    Browser,
    Chart,
    Column,
    Page,
    Section,
    Series,
    Table,
    as_json,
    render,
    terminal_lines,
    write_cell,
)

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u2028 & =1+1'


def hostile_page():
    table = Table("t", HOSTILE, [Column(HOSTILE, "long", HOSTILE), Column("n", "int")], [[HOSTILE, 3]], HOSTILE, 5)
    chart = Chart("c", HOSTILE, "bars", HOSTILE, "label", [Series(HOSTILE, [HOSTILE], [1.0])])
    rows = [{"id": HOSTILE, "text": HOSTILE, "fold": 0, "loss": 1.0, "truth": [0], "decided": [], "probs": {}}]
    browser = Browser("b", HOSTILE, "rows", {"labels": [HOSTILE], "kinds": ["every row"], "rows": rows})
    return Page(HOSTILE, [HOSTILE], [Section("s", HOSTILE, [HOSTILE], [table, chart, browser])])


def test_hostile_text_stays_text():
    page = render(hostile_page())
    assert "<script>alert" not in page and "<img" not in page
    assert page.count("</script>") == 2  # of the numbers and of the page's own script
    numbers = re.search(r'id="numbers">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(numbers)["b"]["data"]["rows"][0]["text"] == HOSTILE
    assert html.escape(HOSTILE, quote=False).split("\u2028")[0].replace('"', "&#34;") in page


def test_only_the_pages_own_style_and_script_are_allowed():
    page = render(hostile_page())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    for tag in ("style", "script"):
        own = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(own) == 1
        assert f"sha256-{base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode()}" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r'(src|href)="(?!#|data:)', page)


def test_json_holds_no_nan_and_no_half_character():
    assert as_json({"a": [float("nan"), 1 / 3, 2.0]}) == '{"a":[null,0.333333,2]}'
    assert as_json("\ud83d") == '"\ufffd"'


@pytest.mark.parametrize(
    "value, kind, shown",
    [
        (None, "int", ""),
        (12345, "int", "12,345"),
        (0.03119, "share", "3.1 %"),
        (0.0001, "share", "under 0.1 %"),
        (0.0, "share", "0 %"),
        (0.5, "share", "50 %"),
        (0.51234, "score", "0.5123"),
        (-0.01, "signed", "-0.0100"),
        (3725, "seconds", "1:02:05"),
        (65, "seconds", "1:05"),
        (0.0001234, "number", "0.000123"),
    ],
)
def test_cells(value, kind, shown):
    assert write_cell(value, kind) == shown


def test_the_terminal_has_80_columns():
    wide = [Column(f"column {k}", "score") for k in range(20)]
    table = Table("t", "Wide", [Column("name"), *wide], [["n" * 50, *[0.5] * 20]] * 9, in_terminal=3)
    lines = terminal_lines(Page("x", [], [Section("s", "S", ["word " * 60], [table])]))
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "... and 6 more on the page"
