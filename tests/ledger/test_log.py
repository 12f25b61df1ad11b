"""submissions/log.csv: every row comes back as it went in, and nothing else is believed."""

import datetime
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_entries import ENTRY

from foldblend.ledger.submissions import COLUMNS, LogEntry, as_one_line, change_log, one_upload_at_a_time, read_log
from foldblend.settings.paths import Paths

scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)
entries = st.builds(
    LogEntry,
    time=st.datetimes(min_value=datetime.datetime(1000, 1, 1)).map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ")),
    competition=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
    file=st.text(min_size=1).map(as_one_line).filter(bool),
    sha256=st.sampled_from(["", "0" * 64, "ab" * 32]),
    ref=st.integers(0, 10**17),
    status=st.sampled_from(["uploading", "pending", "complete", "error"]),
    in_sample=scores, cross_fitted=scores, expected=scores, public_score=scores, private_score=scores,
    message=st.text().map(as_one_line),
)  # fmt: skip


def written(paths, *rows):
    change_log(paths, lambda before: [*before, *rows])
    return paths.submissions_log


@given(st.lists(entries, max_size=4, unique_by=lambda entry: entry.ref))
def test_what_goes_in_comes_back(tmp_path_factory, rows):
    paths = Paths(tmp_path_factory.mktemp("log"))
    written(paths, *rows)
    assert read_log(paths) == sorted(rows, key=lambda entry: entry.time)
    for line in paths.submissions_log.read_text().splitlines() if rows else []:
        assert not line.startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("message", ["=1+1", "+x", "@SUM(A1)", "-2", "'=x", "''", "'a"])
def test_no_text_is_a_formula_to_a_spreadsheet(paths, message):
    path = written(paths, replace(ENTRY, message=message))
    assert path.read_text().rstrip("\n").rsplit(",", 1)[1].strip('"')[0] not in "=+-@"
    assert read_log(paths)[0].message == message


@pytest.mark.parametrize(
    "old, new, error",
    [
        ("time,competition", "when,competition", "columns are when"),
        ("2026-01-02T03:04:05Z", "yesterday", "row 1: time is 'yesterday'"),
        ("a" * 64, "a" * 63, "row 1: sha256 is"),
        (",7,", ",seven,", "row 1: ref is 'seven'"),
        ("complete", "done", "row 1: status is 'done'"),
        ("0.605", "nan", "row 1: public_score is 'nan'"),
        ("0.605", "high", "row 1: public_score is 'high'"),
        (",try", "", "row 1 has 11 cells; expected 12"),
        ("try", '"try', "not readable as UTF-8 CSV"),
        ("try", "try\n" + "2026-01-02T03:04:05Z,toy,b.csv,,7,pending,,,,,,x", "ref 7 is in several rows"),
    ],
)
def test_a_damaged_log_is_refused_with_its_row_and_fix(paths, old, new, error):
    path = written(paths, ENTRY)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=error) as raised:
        read_log(paths)
    assert "--sync" in str(raised.value)


def test_other_bytes_are_no_log(paths):
    path = written(paths, ENTRY)
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="not readable as UTF-8 CSV"):
        read_log(paths)


def test_a_kill_while_writing_leaves_the_earlier_log(paths, monkeypatch):
    path = written(paths, ENTRY)
    before = path.read_bytes()

    def cut(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", cut)
        written(paths, replace(ENTRY, ref=8))
    assert path.read_bytes() == before


def test_two_processes_at_once_lose_no_row(paths):
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from foldblend.ledger.submissions import *; from foldblend.settings.paths import Paths\n"
        "paths, first = Paths(Path(sys.argv[1])), int(sys.argv[2])\n"
        f"entry = LogEntry(*{tuple(getattr(ENTRY, name) for name in COLUMNS)!r})\n"
        "for k in range(20): change_log(paths, lambda rows: [*rows, replace(entry, ref=first + k)])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    command = [sys.executable, "-c", code, str(paths.root)]
    started = [subprocess.Popen([*command, first], env=env) for first in ("100", "200")]
    assert [process.wait() for process in started] == [0, 0]
    assert sorted(entry.ref for entry in read_log(paths)) == [*range(100, 120), *range(200, 220)]


def test_one_upload_at_a_time(paths):
    with one_upload_at_a_time(paths), pytest.raises(ValueError, match="uploading now"), one_upload_at_a_time(paths):
        pass


def test_messages_become_one_line():
    assert as_one_line(" a\n=b\t\x00c\u202ed ") == "a =b c d"
